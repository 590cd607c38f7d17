"""Running the command line as a user does: another process, another folder."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def collm(*words, cwd, stdin="", code=None, timeout_s=300, env=None):
    """Run `collm` in a folder; `code` replaces the plain start by Python source, `env` adds to the environment."""
    start = ["-c", code] if code else ["-m", "collm_agents.cli"]
    return python(*start, *words, cwd=cwd, stdin=stdin, timeout_s=timeout_s, env=env)


def environment():
    """The environment of such a process, with the packages of this checkout."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}


def python(*words, cwd, stdin="", timeout_s=300, env=None):
    """Run Python in a folder, with the packages of this checkout."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**environment(), **(env or {})},
        check=False,
    )


def assert_bad_input(done, cwd, kept=()):
    """One clear line on stderr, exit code 2, nothing printed, nothing written."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("collm: error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in Path(cwd).iterdir()) == sorted(kept)


def marked(mark: str) -> list[str]:
    """Command lines of all living processes whose environment holds a mark, this one left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:400])
            except OSError:
                continue
    return found
