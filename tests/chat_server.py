"""Small servers of chat completions on loopback, well-behaved and otherwise."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, tokens=3, ended="stop"):
    """The body of a good answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
    return {"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": tokens}}


class Server:
    """What a test tells a server to do, and what it was asked.

    Args:
        answer: `(number, body) -> answer`: a dict for JSON, bytes as they are, an int for a status, `(status,
            headers)`, or a callable that is given the handler and writes itself.
        models: what it lists; None for no such page.
        needs_model: answer 400 to a request that names none.
    """

    def __init__(self, answer, models=None, needs_model=False):
        self.answer, self.models, self.needs_model = answer, models, needs_model
        self.asked, self.headers, self.at_once, self.most_at_once = [], [], 0, 0
        self.lock = threading.Lock()
        self.url = ""


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words):
            pass

        def send(self, status, data, headers=()):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            listed = {"data": [{"id": name} for name in server.models or ()]}
            self.send(404 if server.models is None else 200, json.dumps(listed).encode())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
                server.asked.append({"path": self.path, **body})
                server.headers.append(dict(self.headers))
                number = len(server.asked)
            try:
                if server.needs_model and "model" not in body:
                    self.send(400, b'{"error": "model is required"}')
                    return
                answer = server.answer(number, body)
                if callable(answer):
                    answer(self)
                elif isinstance(answer, dict):
                    self.send(200, json.dumps(answer).encode())
                elif isinstance(answer, bytes):
                    self.send(200, answer)
                else:
                    status, headers = answer if isinstance(answer, tuple) else (answer, {})
                    self.send(status, b"it is   broken", headers)
            except (BrokenPipeError, ConnectionResetError):  # whoever asked has given up
                self.close_connection = True
            finally:
                with server.lock:
                    server.at_once -= 1

    return Handler


@contextmanager
def serving(answer, **settings):
    """A server that runs; `url` is its address."""
    server = Server(answer, **settings)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads, http.block_on_close = True, False
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def hang(seconds):
    """An answer that begins after a while."""

    def write(handler):
        time.sleep(seconds)
        handler.send(200, json.dumps(completion("late")).encode())

    return write


def trickle(handler):
    """An answer that never quite stops coming."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


def cut_off(handler):
    """Half of an answer."""
    data = json.dumps(completion("whole")).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def endless(handler):
    """More than anybody wants."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**9))
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)
