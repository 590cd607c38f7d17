"""Runs one program in a scratch folder, and takes both away when whoever asked for it is gone.

For `pool`: a Ray worker may be killed at any time, and Ray kills what it started only sometimes. This file is run
as a script with nothing but the standard library, so it costs a few MB. Its standard input tells it whether it is
still wanted; the program's exit code goes to its standard output.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

LOOK_S = 0.05
GRACE_S = 5.0  # from the request to stop to the end


def main(scratch: str, printed: str, place: str, command: Sequence[str]) -> None:
    """Run a program to its end, or to the end of standard input.

    Args:
        scratch: folder that is removed at the end.
        printed: folder in it for `stdout.txt` and `stderr.txt`.
        place: folder to run in.
        command: the program.
    """
    if os.fork():  # a worker's children are killed with it, without a chance to tidy up
        os._exit(0)
    os.setsid()
    try:
        with open(f"{printed}/stdout.txt", "wb") as out, open(f"{printed}/stderr.txt", "wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=place,
                start_new_session=True,
            )
        wanted = True
        try:
            while wanted and process.poll() is None:
                readable, _, _ = select.select([0], [], [], LOOK_S)
                wanted = not readable or bool(os.read(0, 1))
        finally:
            stop(process)
        if wanted:
            os.write(1, f"{process.returncode}\n".encode())
            while os.read(0, 1):  # until the files were taken
                continue
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < until:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
