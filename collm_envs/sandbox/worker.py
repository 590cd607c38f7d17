"""Workers: warm processes that fork one confined child for every execution.

For the supervisor. A slot is two workers inside the same walls. The *cell* runs untrusted programs and never
sees a test's expected value; the *bench* runs trusted tests, which talk to a program in the cell's child over a
socket of their own. Workers keep the clock: a child that is late is killed, whatever it did to its own clock.
They do not read what children say: frames are counted, capped and passed on.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from collm_envs.sandbox import candidate
from collm_envs.sandbox.confine import Limits, Walls, confine_child, reset_scratch
from collm_envs.sandbox.frames import (
    MAX_ANSWER,
    MAX_FRAME,
    MAX_TOTAL,
    BadFrame,
    Closed,
    Reader,
    pack,
    send,
    unpack,
)

Job = dict[str, Any]
LINK_MESSAGE = 64  # bytes that name a run beside its socket


class Gone(Exception):
    """The supervisor has gone."""


class Worker:
    """Common part: jobs in, one child at a time, reports out.

    Args:
        fd: socket to the supervisor.
        walls: where children are confined.
        limits: how much they may use.
        link: socket to the other worker of the slot.
    """

    def __init__(self, fd: int, walls: Walls, limits: Limits, link: socket.socket) -> None:
        self.fd, self.walls, self.limits, self.link = fd, walls, limits, link
        self.reader = Reader(MAX_FRAME)
        self.jobs: deque[Job] = deque()
        self.stopped: set[int] = set()
        os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = walls.scratch
        gc.collect()
        gc.freeze()  # what exists now is shared with every child: collections there leave it alone

    def serve(self) -> None:
        """Do jobs until the supervisor goes."""
        try:
            while True:
                while not self.jobs:
                    # No further than one message: a program must not find the one behind it in its memory.
                    self.take(os.read(self.fd, min(self.reader.wanting(), 65536)))
                self._answer(self.jobs.popleft())
        except (Gone, Closed, BadFrame, ConnectionResetError):
            return

    def _answer(self, job: Job) -> None:
        """Do a job and report. Nothing of the report is held when the next child is forked."""
        self.stopped.clear()  # orders that came after the end of an earlier attempt
        report = self.do(job)
        send(self.fd, {**report, "id": job["id"], "rss": _peak_mb()})

    def do(self, job: Job) -> dict[str, Any]:
        """Run one job in a child and tell how it went."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Sort what the supervisor sent: jobs to do, and orders to stop one."""
        if not data:
            raise Gone
        self.reader.feed(data)
        while (body := self.reader.pop()) is not None:
            message = unpack(body)
            if "stop" in message:
                self.stopped.add(message["stop"])
            else:
                self.jobs.append(message)

    def child(self, job: Job, act: Callable[[int], None], keep: Sequence[int]) -> dict[str, Any]:
        """Fork a confined child, let it act, watch it, and bury it.

        Args:
            job: its `nonce`, time limits in seconds (`limit_s` for each frame, `total_s` for all) and `most`,
                the number of frames it may send.
            act: what the child does, given the descriptor it answers on.
            keep: descriptors that stay open in the child.

        Returns:
            `frames` (bodies as text), `end` (`exit`, `died ...`, `timeout`, `flood` or `stopped`), `seconds`.
        """
        begun = time.monotonic()
        try:
            pid, answers = self.fork(act, keep, job["total_s"] + 1, pack([job["nonce"], "ready"]))
        except OSError as error:
            return {"frames": [], "end": f"fork: {error.strerror}", "seconds": 0.0}
        frames, end = self.watch(job, answers, begun)
        os.close(answers)
        kill(
            pid
        )  # one that has begun to exit keeps its status; one that only closed its end must not live on
        _, status = os.waitpid(pid, 0)
        if end == "closed":
            end = "exit" if status == 0 else f"died of {_cause(status)}"
        return {"frames": frames, "end": end, "seconds": time.monotonic() - begun}

    def fork(
        self, act: Callable[[int], None], keep: Sequence[int], cpu_s: float, ready: bytes
    ) -> tuple[int, int]:
        """Fork a confined child.

        Args:
            act: what it does, given the descriptor it answers on.
            keep: descriptors that stay open in it.
            cpu_s: processor time it may use, in seconds.
            ready: what it says once it is confined, before it acts.

        Returns:
            Its pid, and where it is heard.
        """
        answers, out = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(answers)
            os.close(out)
            raise
        if pid:
            os.close(out)
            return pid, answers
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            self.jobs.clear()
            confine_child(self.walls, self.limits, cpu_s, keep=(out, *keep))
            os.write(out, ready)
            act(out)
            os._exit(0)
        except BaseException:  # whatever it is, no child may return into the worker's loop
            os._exit(70)

    def watch(self, job: Job, answers: int, begun: float, last: str | None = None) -> tuple[list[str], str]:
        """Gather a child's frames until it closes its end, is late, says too much, or is to be stopped.

        Args:
            job: see `child`.
            answers: where it is heard.
            begun: when it began, on the monotonic clock.
            last: a frame that ends the job while the child lives on; it is left out.

        Returns:
            Frames and how it ended: `closed`, `timeout`, `flood`, `stopped`, or `last`.
        """
        frames: list[str] = []
        reader, size = Reader(MAX_ANSWER), 0
        over = begun + job["total_s"]
        late = begun + job["limit_s"]
        poller = select.poll()
        poller.register(answers, select.POLLIN)
        poller.register(self.fd, select.POLLIN)
        while True:
            now = time.monotonic()
            if now >= min(late, over):
                return frames, "timeout"
            for fd, _ in poller.poll((min(late, over) - now) * 1000 + 1):
                if fd == self.fd:
                    self.take(os.read(self.fd, 65536))
                    if job["id"] in self.stopped:
                        self.stopped.discard(job["id"])
                        return frames, "stopped"
                    continue
                data = os.read(answers, 65536)
                if not data:
                    return frames, "closed"
                size += len(data)
                reader.feed(data)
                known = len(frames)
                try:
                    frames.extend(_bodies(reader))  # those before a bad one are kept
                except BadFrame:
                    return frames, "flood"
                new = frames[known:]
                if last is not None and new and new[-1] == last:
                    return frames[:-1], "last"
                if size > MAX_TOTAL or len(frames) > job["most"]:
                    return frames, "flood"
                if new:
                    late = time.monotonic() + job["limit_s"]


def _bodies(reader: Reader) -> Iterator[str]:
    while (body := reader.pop()) is not None:
        yield body.decode("latin-1")


class Cell(Worker):
    """Runs programs; see `Worker`."""

    def do(self, job: Job) -> dict[str, Any]:
        """Run one program and tell how it went."""
        # At the start: tests of the run before may have written after its end.
        reset_scratch(self.walls, self.limits)
        if job["mode"] == "calls":
            return self.child(job, lambda out: candidate.run(job, out, None), ())
        ours, theirs = socket.socketpair()
        name = str(job["id"]).encode().ljust(LINK_MESSAGE)
        socket.send_fds(self.link, [name], [theirs.fileno()])
        theirs.close()
        with ours:
            fd = ours.fileno()
            # Its socket must not stay open here when the child has died, or the tests would wait for ever.
            report = self.child(job, lambda out: candidate.run(job, out, fd), (fd,))
        if not self.link.recv(1):  # the tests may still be writing to the scratch: the next program waits
            raise Gone
        return report


def kill(pid: int) -> None:
    """Kill a child and whatever is in its group."""
    for send_signal in (os.killpg, os.kill):  # the child leads its own group, once it has got that far
        try:
            send_signal(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
