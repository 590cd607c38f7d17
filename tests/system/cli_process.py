"""Running the command line as a user does: another process, another folder."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def collm(*words, cwd, stdin="", code=None, timeout_s=300):
    """Run `collm` in a folder; `code` replaces the plain start by Python source."""
    start = ["-c", code] if code else ["-m", "collm_agents.cli"]
    return python(*start, *words, cwd=cwd, stdin=stdin, timeout_s=timeout_s)


def python(*words, cwd, stdin="", timeout_s=300):
    """Run Python in a folder, with the packages of this checkout."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
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
