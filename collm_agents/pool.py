"""Programs side by side: at most so many at once, dealt out to accelerators where listed, stopped together.

For `benchmark`. A program here is a command with a folder for what it prints; what it does and whether it did it
well is its job's to say. Nothing here retries. `distributed.pool` runs the same jobs on a cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_S = 0.1
GRACE_S = 10.0  # from the request to stop to the end
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Job:
    """One program to be run.

    Attributes:
        name: for people.
        folder: where `stdout.txt` and `stderr.txt` go.
        begin: called right before the start; returns the command.
        finish: called after its end with the exit code and the seconds that it took.
        needs: files and folders outside `folder` that the command names.
        landmark: pattern of files in `folder` from which the program could go on.
    """

    name: str
    folder: Path
    begin: Callable[[], Sequence[str]]
    finish: Callable[[int, float], Any]
    needs: Sequence[Path] = ()
    landmark: str = ""


@dataclass(frozen=True)
class OnRay:
    """A Ray cluster, and what one program takes of it.

    Attributes:
        address: as for `distributed.session.connected`.
        cpus: CPUs, or a share of one.
        gpus: accelerators, or a share of one.
    """

    address: str
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass
class Running:
    """A job that was started, and its place among those at once."""

    job: Job
    slot: int


@dataclass
class _Process(Running):
    process: subprocess.Popen[bytes]
    started: float
    files: tuple[Any, ...] = field(default=())


class Pool:
    """Runs jobs in order.

    Args:
        processes: most programs at once.
        gpus: accelerators that programs are dealt out to, one on each entry at a time; then there are as many at
            once as entries, whatever `processes` says.
        kept_open: file descriptors that programs inherit, such as a lock's.
        told: called at every look with the jobs that are running and the number that wait.
    """

    def __init__(
        self,
        processes: int,
        gpus: Sequence[str] = (),
        *,
        kept_open: Sequence[int] = (),
        told: Callable[[Sequence[Job], int], Any] = lambda running, waiting: None,
    ) -> None:
        self.processes, self.stopped_by = processes, 0
        self._gpus, self._kept_open, self._told = tuple(gpus), tuple(kept_open), told

    @property
    def slots(self) -> int:
        """Programs at once, as things are now."""
        return len(self._gpus) or self.processes

    def run(self, jobs: Sequence[Job]) -> bool:
        """Run all jobs; False where a signal (`stopped_by`) came before their end, which stops all programs."""
        waiting, running = list(jobs), list[Any]()
        with self._signals():
            try:
                while (waiting or running) and not self.stopped_by:
                    free = sorted(set(range(self.slots)) - {one.slot for one in running})
                    while waiting and free:
                        running.append(self._start(waiting.pop(0), free.pop(0)))
                    self._told([one.job for one in running], len(waiting))
                    time.sleep(POLL_S)
                    running = [one for one in running if not self._ended(one)]
            finally:
                self._stop(running)
        return not self.stopped_by

    def _start(self, job: Job, slot: int) -> Any:
        command = job.begin()
        files = tuple((job.folder / name).open("wb") for name in ("stdout.txt", "stderr.txt"))
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=files[0],
            stderr=files[1],
            env=self._environment(slot),
            pass_fds=self._kept_open,
            start_new_session=True,  # what it starts is stopped with it; a terminal's Ctrl-C comes to us alone
        )
        return _Process(job, slot, process, time.monotonic(), files)

    def _environment(self, slot: int) -> Mapping[str, str]:
        own = {"CUDA_VISIBLE_DEVICES": self._gpus[slot]} if self._gpus else {}
        return {**environment(), **own}

    def _ended(self, one: Any) -> bool:
        code = one.process.poll()
        if code is None:
            return False
        _close(one)
        one.job.finish(code, time.monotonic() - one.started)
        return True

    def _stop(self, running: Sequence[Any]) -> None:
        """End all that were started."""
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
            left = [one for one in running if one.process.poll() is None]
            for one in left:
                try:
                    os.killpg(one.process.pid, number)
                except ProcessLookupError:  # it ended by itself in between
                    continue
            until = time.monotonic() + patience
            while any(one.process.poll() is None for one in left) and time.monotonic() < until:
                time.sleep(POLL_S / 2)
        for one in running:
            _close(one)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note a signal in place of dying of it; a second one is as deadly as ever."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: Any) -> None:
            self.stopped_by = number
            for other, handler in before.items():
                signal.signal(other, handler)

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def environment(path: str = "") -> dict[str, str]:
    """That of a program: this process's with one thread, and this package to be found.

    Args:
        path: more places for modules, as in PYTHONPATH.
    """
    home = str(Path(__file__).resolve().parents[1])
    found = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH"), path]))
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, "PYTHONPATH": found, **own}


def _close(one: _Process) -> None:
    for file in one.files:
        file.close()
