"""The verb `view`: one page of a run, as a file or on this machine's own address.

For `cli`, which dispatches to it. Works without torch. The server is for the eyes of who started it: it listens
on the loopback address alone, answers no other host name, and gives out the page and nothing else.
"""

from __future__ import annotations

import argparse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from collm_envs.errors import InputError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest stands in the page
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_view(parser: argparse.ArgumentParser) -> None:
    """Arguments of `view`."""
    parser.add_argument("run", metavar="RUN", help="folder of a run; it may still be going on")
    parser.add_argument("--out", metavar="FILE", help="where the page goes (default view.html in the run)")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="show it on http://127.0.0.1 until Ctrl-C, made anew at every load; writes a file only with --out",
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port of --serve (default a free one)"
    )
    parser.add_argument(
        "--pictures", type=int, metavar="N", help="most episodes of a game to draw, the newest (default 200)"
    )


def run_view(args: argparse.Namespace) -> int:
    """Write the page, or serve it, and say where it is."""
    from collm_agents.view_page import PICTURES, view_page, write_page

    run_dir = Path(args.run)
    pictures = PICTURES if args.pictures is None else args.pictures
    if pictures < 0:
        raise InputError(f"--pictures must be 0 or more, not {pictures}")
    if args.port and not args.serve:
        raise InputError("--port is for --serve")
    if not (run_dir / "config.toml").is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.toml")
    if args.out or not args.serve:
        file = Path(args.out) if args.out else run_dir / "view.html"
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise InputError(f"--out {file}: not a file in a folder that exists")
        write_page(run_dir, file, pictures)
        print(file)
    if args.serve:
        first = "".join(
            view_page(run_dir, pictures)
        )  # what is wrong with the run is said here, not in a browser
        with page_server(lambda: "".join(view_page(run_dir, pictures)), args.port, first) as server:
            print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)", flush=True)
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                print()
    return 0


def page_server(make: Any, port: int, first: str | None = None) -> ThreadingHTTPServer:
    """A server of one page on the loopback address.

    Args:
        make: gives the page's HTML.
        port: where it listens; 0 for any free port.
        first: HTML of the first load, where it has been made already.

    Raises:
        InputError: when the port cannot be taken.
    """
    ready = [] if first is None else [first]

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "collm", ""
        timeout = 30

        def do_GET(self) -> None:  # the standard library's name
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            name, _, given = self.headers.get("Host", "").rpartition(":")
            if (name, given) not in {(own, str(self.server.server_port)) for own in NAMES}:  # type: ignore[attr-defined]
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this page is for its own machine")
                return
            if self.path.partition("?")[0] != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                body = (ready.pop() if ready else make()).encode("utf-8", "replace")
                kind, status = "text/html; charset=utf-8", HTTPStatus.OK
            except InputError as error:  # a run that goes on may be read in the middle of a write
                body = f"{error}\nLoad the page again.\n".encode("utf-8", "replace")
                kind, status = "text/plain; charset=utf-8", HTTPStatus.SERVICE_UNAVAILABLE
            self.send_response(status)
            for header, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Loads of the page are nobody's news."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A reader who goes away in the middle is no error."""

    try:
        return Server((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} cannot be taken: {error}") from None
