"""The bench: the worker of a slot that runs trusted tests.

For the supervisor. A source of tests keeps its process from one program to the next, since forking one costs more
than running them: siblings of one task come with the same tests. No process ever holds two sources, so
nothing of one task's tests can be left for another's, and one that was killed or told nonsense is not used again.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from collm_envs.sandbox import judge
from collm_envs.sandbox.confine import ConfineError, Limits, Walls, enter, leave, reset_scratch
from collm_envs.sandbox.frames import HEADER, pack, send
from collm_envs.sandbox.worker import LINK_MESSAGE, Cell, Gone, Job, Worker, kill

KEPT = 4  # processes of tests that a bench keeps
USES = 500  # programs after which one is replaced
CPU_S = 3600.0  # processor time of such a process in its life; its clock is kept outside
MAX_MESSAGE = 1 << 16  # bytes that name a nonce and the tests to run


@dataclass
class _Tests:
    """A process that runs one source of tests."""

    pid: int
    answers: int
    orders: socket.socket
    uses: int = 0

    def end(self) -> None:
        """Kill and bury it."""
        os.close(self.answers)
        self.orders.close()
        kill(self.pid)
        os.waitpid(self.pid, 0)


class Bench(Worker):
    """Runs tests; see `Worker`."""

    def __init__(self, fd: int, walls: Walls, limits: Limits, link: socket.socket) -> None:
        super().__init__(fd, walls, limits, link)
        self.kept: OrderedDict[Hashable, _Tests] = OrderedDict()

    def do(self, job: Job) -> dict[str, Any]:
        """Run one job's tests and tell how it went."""
        if job["mode"] == "inproc":
            reset_scratch(self.walls, self.limits)
            return self.child(job, lambda out: judge.run_inproc(job, out), ())
        program = self._socket_of(job["id"])
        try:
            return self._run(job, program)
        finally:
            os.close(program)
            self.link.send(b".")  # the cell may go on

    def _run(self, job: Job, program: int) -> dict[str, Any]:
        begun = time.monotonic()
        key = tuple(json.dumps(job[part]) for part in sorted(judge.STATIC & job.keys()))
        try:
            tests = self.kept.pop(key, None) or self._begin(job)
        except OSError as error:
            return {"frames": [], "end": f"fork: {error.strerror}", "seconds": 0.0}
        order = json.dumps({"nonce": job["nonce"], "only": job["only"]}).encode()
        try:
            socket.send_fds(tests.orders, [order], [program])
        except OSError:
            tests.end()
            return {"frames": [], "end": "the process of the tests ended", "seconds": 0.0}
        last = pack([job["nonce"], "end"])[HEADER.size :].decode()
        frames, end = self.watch(job, tests.answers, begun, last)
        tests.uses += 1
        if end == "last" and tests.uses < USES:
            self.kept[key] = tests
            if len(self.kept) > KEPT:
                self.kept.popitem(last=False)[1].end()
        else:
            tests.end()
        return {
            "frames": frames,
            "end": "exit" if end == "last" else end,
            "seconds": time.monotonic() - begun,
        }

    def _begin(self, job: Job) -> _Tests:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        static = {part: job[part] for part in judge.STATIC & job.keys()}
        with theirs:
            pid, answers = self.fork(
                lambda out: _serve(static, theirs, out), (theirs.fileno(),), CPU_S, ready=b""
            )
        return _Tests(pid, answers, ours)

    def _socket_of(self, run: int) -> int:
        """The socket to the program of a run, which the cell sends."""
        wanted = str(run).encode().ljust(LINK_MESSAGE)
        while True:
            name, fds, _, _ = socket.recv_fds(self.link, LINK_MESSAGE, 1)
            if not name:
                raise Gone
            if name == wanted:
                return fds[0]
            for fd in fds:  # of a run that ended before its tests began
                os.close(fd)


def _serve(static: Job, orders: socket.socket, out: int) -> None:
    """In the process of the tests: run them against one program after another."""
    scratch, numbers = os.getcwd(), random.getstate()
    while True:
        order, fds, _, _ = socket.recv_fds(orders, MAX_MESSAGE, 1)
        if not order:
            return
        job = {**static, **json.loads(order)}
        random.setstate(numbers)  # every program meets the same inputs
        os.chdir(scratch)  # by its name: another may be mounted there since
        send(out, [job["nonce"], "ready"])
        judge.run(job, out, fds[0])
        os.close(fds[0])
        send(out, [job["nonce"], "end"])


def run_slot(cell_fd: int, bench_fd: int, walls: Walls, limits: Limits) -> None:
    """Become a slot: enter the walls, fork the bench, serve jobs until the supervisor goes.

    Args:
        cell_fd: socket to the supervisor for programs.
        bench_fd: socket to the supervisor for tests.
        walls: what to be confined to.
        limits: how much a child may use.
    """
    try:
        walls = enter(walls, limits)
    except ConfineError as error:
        send(cell_fd, {"fatal": str(error)})
        return
    ours, theirs = socket.socketpair()
    if not os.fork():
        ours.close()
        os.close(cell_fd)
        Bench(bench_fd, walls, limits, theirs).serve()
        os._exit(0)
    theirs.close()
    os.close(bench_fd)
    try:
        Cell(cell_fd, walls, limits, ours).serve()
    finally:
        leave(walls)
