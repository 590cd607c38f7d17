"""The supervisor: one process between the trainer and the workers.

Started by exec, so that nothing of the trainer's memory is in it. It hands programs to idle slots, compares the
values that come back with what the tests expect, starts again behind a test that hung or crashed, and replaces
workers. It reads only decoded plain values of the programs. New slots come from the *nursery*, a process
forked before the first job, so that no expected value is in the memory that a worker is forked from.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from typing import Any

from collm_envs.sandbox import absent
from collm_envs.sandbox.bench import run_slot
from collm_envs.sandbox.confine import Limits, Walls
from collm_envs.sandbox.dispositions import heed_signals
from collm_envs.sandbox.frames import HEADER, MAX_FRAME, Closed, Reader, pack, unpack
from collm_envs.sandbox.runs import Infra, Run
from collm_envs.sandbox.scratch import remove_folder

DEPTH = 3  # programs that a slot holds: one running, the others waiting, so that it never idles between two
RUNS_PER_SLOT = 1000
GRACE_S = 2.0  # what a slot gets to end by itself
ORPHANED_S = 1.0  # how long the trainer's death may go unnoticed
GROWTH_MB = 64.0  # a worker that has grown by more is replaced


class Channel:
    """A socket with what is still to be written and what has come in pieces.

    Args:
        connection: the socket; it is made non-blocking.
        reader: what has been read from it already.
    """

    def __init__(self, connection: socket.socket, reader: Reader | None = None) -> None:
        connection.setblocking(False)
        self.socket, self.reader = connection, reader or Reader(MAX_FRAME)
        self.out = bytearray()

    def put(self, message: Any) -> None:
        """Queue a message and write what fits."""
        self.out += pack(message)
        self.flush()

    def flush(self) -> None:
        """Write what the other side takes."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.out:
                del self.out[: self.socket.send(self.out)]

    def get(self) -> list[Any] | None:
        """Messages that have arrived; None when the other side has gone."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        self.reader.feed(data)
        return self.arrived()

    def arrived(self) -> list[Any]:
        """Messages that have been read in whole."""
        found = []
        while (body := self.reader.pop()) is not None:
            found.append(unpack(body))
        return found


class Slot:
    """A cell and a bench, and what they are doing.

    Args:
        number: which slot it is.
        cell: channel for programs.
        bench: channel for tests.
        pid: process to kill, which takes the others with it.
    """

    def __init__(self, number: int, cell: Channel, bench: Channel, pid: int) -> None:
        self.number, self.cell, self.bench, self.pid = number, cell, bench, pid
        self.running: list[Run] = []
        self.runs, self.first_rss, self.spent = 0, 0.0, False

    def takes(self, run: Run) -> bool:
        """Whether a run can be given to it now. Tests that run beside their program have the slot to themselves."""
        if self.spent:
            return False
        alone = "inproc" in (run.mode, *(other.mode for other in self.running))
        return len(self.running) < (1 if alone else DEPTH)


class Supervisor:
    """The event loop.

    Args:
        trainer: socket to the trainer.
        reader: what has been read from it already.
        config: `tier`, `workers`, `readable`, `listable`, `limits`, `path`, `preload`, `folder`, `trainer` (a pid).
    """

    def __init__(self, trainer: socket.socket, reader: Reader, config: dict[str, Any]) -> None:
        self.config = config
        self.nursery, self.nursery_pid = _open_nursery(trainer, config)
        self.trainer = Channel(trainer, reader)
        self.selector = selectors.DefaultSelector()
        self.selector.register(trainer, selectors.EVENT_READ, self._hear_trainer)
        self.selector.register(self.nursery, selectors.EVENT_READ, self._hear_nursery)
        self.slots: dict[int, Slot] = {}
        self.waiting: deque[Run] = deque()
        self.over = False

    def serve(self) -> None:
        """Work until the trainer closes its side or dies."""
        try:
            for number in range(self.config["workers"]):
                self._open_slot(number)
            self._take(self.trainer.arrived())
            while not self.over:
                for key, events in self.selector.select(ORPHANED_S):
                    key.data(events)
                    if self.over:
                        return
                if os.getppid() != self.config["trainer"]:  # a forked copy of it may still hold the socket
                    return
        finally:
            self._close()

    # -- the trainer -----------------------------------------------------------------------------------------

    def _hear_trainer(self, events: int) -> None:
        self._flush(self.trainer, events)
        if not events & selectors.EVENT_READ:
            return
        messages = self.trainer.get()
        if messages is None:
            self.over = True
            return
        self._take(messages)

    def _take(self, messages: list[dict[str, Any]]) -> None:
        self.waiting.extend(map(Run, messages))
        self._hand_out()

    def _tell(self, message: dict[str, Any]) -> None:
        self._put(self.trainer, message)

    def _put(self, channel: Channel, message: dict[str, Any]) -> None:
        """Send a message; what does not fit now is sent when there is room."""
        channel.put(message)
        if channel.out:
            self._watch(channel)

    def _flush(self, channel: Channel, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            channel.flush()
            self._watch(channel)

    def _watch(self, channel: Channel) -> None:
        """Ask to be told of room to write only while there is something to be written."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.out else 0)
        self.selector.modify(channel.socket, wanted, self.selector.get_key(channel.socket).data)

    # -- slots -----------------------------------------------------------------------------------------------

    def _open_slot(self, number: int) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        socket.send_fds(self.nursery, [HEADER.pack(number)], [s.fileno() for s in theirs])
        for end in theirs:
            end.close()
        (pid,) = HEADER.unpack(_exactly(self.nursery, HEADER.size))
        slot = Slot(number, Channel(ours[0]), Channel(ours[1]), pid)
        self.slots[number] = slot
        for channel in (slot.cell, slot.bench):
            self.selector.register(
                channel.socket, selectors.EVENT_READ, lambda e, c=channel, s=slot: self._hear_slot(s, c, e)
            )

    def _hear_slot(self, slot: Slot, channel: Channel, events: int) -> None:
        if self.slots.get(slot.number) is not slot:
            return  # an event of a slot that was closed in this round
        self._flush(channel, events)
        if not events & selectors.EVENT_READ:
            return
        reports = channel.get()
        if reports is None:
            self._lose(slot, "a worker of the sandbox died")
            return
        for report in reports:
            if "fatal" in report:
                self._tell({"fatal": report["fatal"]})
                self.over = True
                return
            self._hear_report(slot, channel, report)
        self._hand_out()

    def _hear_report(self, slot: Slot, channel: Channel, report: dict[str, Any]) -> None:
        run = next((run for run in slot.running if run.id == report["id"]), None)
        if run is None:
            return
        slot.first_rss = slot.first_rss or report["rss"]
        if report["rss"] > slot.first_rss + GROWTH_MB:
            slot.spent = True
        of_tests = channel is slot.bench
        run.hear(report, of_tests)
        if of_tests and run.mode != "inproc" and not run.complete:
            self._put(slot.cell, {"stop": run.id})  # the tests are over: the program must not run on
        if not run.complete:
            return
        slot.running.remove(run)
        slot.runs += 1
        slot.spent |= slot.runs >= RUNS_PER_SLOT
        try:
            run.close_attempt()
        except Infra as fault:
            slot.spent = True
            self._fault(run, str(fault))
        else:
            if run.foul:
                slot.spent = True
            if run.finished:
                self._tell(run.result())
            else:
                self.waiting.appendleft(run)
        if slot.spent and not slot.running:
            self._renew(slot)

    def _fault(self, run: Run, why: str) -> None:
        """A fault that is not the program's: once more on fresh workers, then it is told."""
        if run.faults:
            self._tell({"id": run.id, "infra": why})
        else:
            run.faults += 1
            run.restart()
            self.waiting.appendleft(run)

    def _lose(self, slot: Slot, why: str) -> None:
        for run in slot.running:
            self._fault(run, why)
        slot.running.clear()
        self._renew(slot)
        self._hand_out()

    def _renew(self, slot: Slot) -> None:
        self._close_slot(slot)
        self._open_slot(slot.number)

    def _hear_nursery(self, _: int) -> None:
        self.over = True  # it speaks only when asked: this is its end, and without it no slot can be replaced

    def _close_slot(self, slot: Slot) -> None:
        for channel in (slot.cell, slot.bench):
            self.selector.unregister(channel.socket)
            channel.socket.close()

    def _hand_out(self) -> None:
        """Give waiting runs to slots that can take them, in order."""
        while self.waiting:
            run = self.waiting[0]
            able = [slot for slot in self.slots.values() if slot.takes(run)]
            if not able:
                return
            self.waiting.popleft()
            slot = min(able, key=lambda slot: len(slot.running))
            slot.running.append(run)
            program, tests = run.jobs()
            if tests is not None:
                self._put(slot.bench, tests)
            if program is not None:
                self._put(slot.cell, program)

    def _close(self) -> None:
        for slot in self.slots.values():
            self._close_slot(slot)
        self.nursery.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.nursery_pid, 0)


def _open_nursery(trainer: socket.socket, config: dict[str, Any]) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        trainer.close()
        ours.close()
        try:
            _Nursery(theirs, config).serve()
        finally:
            os._exit(0)
    theirs.close()
    return ours, pid


class _Nursery:
    """Forks slots on request and buries them. Holds nothing of any job."""

    def __init__(self, connection: socket.socket, config: dict[str, Any]) -> None:
        self.connection, self.config = connection, config
        self.limits = Limits(**config["limits"])
        self.slots: dict[int, int] = {}  # process to wait for, by number
        for name in config["preload"]:
            importlib.import_module(name)
        sys.path += config["path"]
        absent.install()

    def serve(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.connection, HEADER.size, 2)
            if not data:
                break
            (number,) = HEADER.unpack(data)
            if number in self.slots:
                self._bury(number)
            self.slots[number] = self._bear(number, fds)
            for fd in fds:
                os.close(fd)
            self.connection.sendall(HEADER.pack(self.slots[number]))
        for number in list(self.slots):
            self._bury(number)
        remove_folder(self.config["folder"])

    def _bear(self, number: int, fds: list[int]) -> int:
        pid = os.fork()
        if not pid:
            self.connection.close()
            code = 1
            try:
                os.setsid()
                config = self.config
                if config[
                    "folder"
                ]:  # as root, a slot takes a user of its own before it makes its scratch there
                    os.mkdir(self._folder(number))
                    os.chmod(self._folder(number), 0o733)
                    tempfile.tempdir = self._folder(number)
                walls = Walls(
                    config["tier"], "", tuple(config["readable"]), tuple(config["listable"]), number
                )
                run_slot(fds[0], fds[1], walls, self.limits)
                code = 0
            finally:
                os._exit(code)
        return pid

    def _bury(self, number: int) -> None:
        """Wait for a slot to end by itself, which it does when its sockets close, and make sure that it has."""
        pid, deadline = self.slots.pop(number), time.monotonic() + GRACE_S
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        remove_folder(self._folder(number))

    def _folder(self, number: int) -> str:
        """Where a slot keeps its scratch on tiers without a file system of their own; "" on others."""
        return os.path.join(self.config["folder"], str(number)) if self.config["folder"] else ""


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise Closed
        data += more
    return data


def main(fd: int) -> None:
    """Serve the trainer at the other end of a socket."""
    heed_signals()
    trainer = socket.socket(fileno=fd)
    reader = Reader(MAX_FRAME)
    config = unpack(reader.read(fd))
    Supervisor(trainer, reader, config).serve()
