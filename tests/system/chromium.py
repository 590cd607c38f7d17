"""Opening a page in headless Chromium, for tests of what a page shows."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
COMPLAINTS = re.compile(r"Content Security Policy|Refused to|Uncaught|SyntaxError|TypeError|ReferenceError")


def chromium(page, *words, hash="", width=1280, height=1600, profile, timeout_s=60):
    """Run Chromium on a file; what it says on the console is an error where the page is to blame."""
    done = subprocess.run(
        [
            str(PROGRAM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            *words,
            Path(page).resolve().as_uri() + (f"#{hash}" if hash else ""),
        ],
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    log = done.stderr.decode("utf-8", "replace")
    blamed = [line for line in log.splitlines() if "CONSOLE" in line and COMPLAINTS.search(line)]
    assert not blamed, "\n".join(blamed)
    assert done.returncode == 0, log[-2000:]
    return done.stdout.decode("utf-8")


FRAME = """<iframe src="page.html#{hash}" width="{width}" height="2000" style="border:0"></iframe><script>
addEventListener("message", (event) => {{ document.documentElement.dataset.found = event.data; }});</script>"""


def ask(page, script, *words, folder, hash="", width=1280, profile):
    """What a script finds in a page, as the value of `found`; in a frame, as no window is narrow enough.

    The page's own policy would not let the script in, and is taken away for it.
    """
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", Path(page).read_text("utf-8"))
    script = f"(async () => {{ let found; {script}; parent.postMessage(JSON.stringify(found), '*'); }})()"
    (folder / "page.html").write_text(html.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    (folder / "frame.html").write_text(FRAME.format(hash=hash, width=width), "utf-8")
    words = ("--dump-dom", "--virtual-time-budget=3000", *words)
    return json.loads(
        Document(chromium(folder / "frame.html", *words, profile=profile)).all("html")[0]["data-found"]
    )


class Document(HTMLParser):
    """What a dumped page holds: elements with their attributes and text, in order."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "under": [e["tag"] for e in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        while self.open:
            if self.open.pop()["tag"] == tag:
                return

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in wanted.items())]
