"""Programs and their tests in two forked processes without walls: the judging alone, for its tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import textwrap
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import candidate, frames, judge, verdict
from collm_envs.sandbox.plan import Plan
from collm_envs.sandbox.results import UnitTests

NONCE = "n0"
CLOCK_S = 10

Outcome = tuple[str, str]


def _child(work: Callable[[int], None], kept: int = -1) -> tuple[int, int]:
    """Fork a process that writes to a pipe and keeps one more descriptor; its number and the pipe's end."""
    ours, theirs = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            for fd in range(3, 256):
                if fd not in (theirs, kept):
                    with contextlib.suppress(OSError):
                        os.close(fd)
            silent = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(silent, fd)
            signal.alarm(CLOCK_S)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            work(theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    return number, ours


def _read(number: int, fd: int) -> list[Any]:
    """The child's frames; anything that is none ends them with `None`."""
    reader = frames.Reader(frames.MAX_FRAME)
    while data := os.read(fd, 65536):
        reader.feed(data)
    os.close(fd)
    os.waitpid(number, 0)
    found: list[Any] = []
    try:
        while (body := reader.pop()) is not None:
            found.append(frames.unpack(body))
    except frames.BadFrame:
        found.append(None)
    return found


def run_calls(code: str, calls: list[Any]) -> list[Any]:
    """Frames of a program that is called."""
    job = {"nonce": NONCE, "code": code, "mode": "calls", "calls": calls}
    return _read(*_child(lambda fd: candidate.run(job, fd, None)))


def _frames(code: str, plan: Plan) -> list[Any]:
    program = {"nonce": NONCE, "code": code, "mode": "serve"}
    tests = {"nonce": NONCE, **plan.tests, "only": list(range(len(plan.names)))}
    if plan.mode == "calls":
        return run_calls(code, list(plan.calls))
    if plan.mode == "inproc":
        return _read(*_child(lambda fd: judge.run_inproc(program | tests, fd)))
    left, right = socket.socketpair()
    with left, right:
        served = _child(lambda fd: candidate.run(program, fd, right.fileno()), right.fileno())
        asked = _child(lambda fd: judge.run(tests, fd, left.fileno()), left.fileno())
    found = _read(*asked)
    with contextlib.suppress(ProcessLookupError):
        os.kill(served[0], signal.SIGKILL)
    _read(*served)
    return found


def judged(code: str, plan: Plan) -> list[Outcome]:
    """Status and message of every test; `none` where a process ended without one."""
    outcomes = [("none", "")] * len(plan.names)
    for frame in _frames(code, plan):
        if not isinstance(frame, list) or frame[:1] != [NONCE]:
            return [("protocol", "not our number")] * len(outcomes)
        match frame[1:]:
            case ["value", index, data]:
                outcomes[index] = verdict.judge(plan.expects[index], data)
            case ["raised", index, name, message]:
                outcomes[index] = ("error", f"{name}: {message}")
            case ["broken", name, message]:
                return [("error", f"{name}: {message}")] * len(outcomes)
            case ["test", index, status, message]:
                outcomes[index] = (status, message)
    return outcomes


def statuses(code: str, plan: Plan) -> list[str]:
    """Status of every test."""
    return [status for status, _ in judged(code, plan)]


def unittest_of(body: str, setup: str = "") -> UnitTests:
    """A test case whose one test is the body."""
    lines = textwrap.dedent(body).strip().splitlines()
    method = "".join(f"        {line}\n" for line in lines)
    return UnitTests("import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n" + method, setup)
