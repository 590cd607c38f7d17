"""`Sandbox`: programs in, futures of results out.

For scorers and the command line. The trainer's side of the sandbox: it starts the supervisor, numbers the
programs, and turns answers into `RunResult`s. It runs, parses and unpickles nothing of a program's; what comes
back is JSON of known shape. A daemon thread of its own resolves the futures.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from collm_envs.errors import CollmError, require_choice, require_count
from collm_envs.sandbox import library
from collm_envs.sandbox.confine import FOLDER_PREFIX, TIERS, Limits
from collm_envs.sandbox.frames import MAX_FRAME, Closed, Reader, pack, unpack, write
from collm_envs.sandbox.plan import Plan, plan
from collm_envs.sandbox.probe import best_tier, probe
from collm_envs.sandbox.results import Asserts, Program, RunResult, TestResult, UnitTests
from collm_envs.sandbox.scratch import remove_folder

ROOT = Path(__file__).resolve().parents[2]
PENDING = 4096  # programs under way; submitting more waits
RESTART_S = 600.0  # a supervisor that dies is replaced, but no more than once in so many seconds
REMEMBERED = 4096  # results kept for programs that come again
# What programs import most. A child that finds them loaded starts at once.
PRELOADED = """
abc array bisect calendar cmath collections collections.abc contextlib copy csv dataclasses datetime decimal enum
fractions functools hashlib heapq io itertools json math numbers operator queue random re statistics string struct
textwrap threading time traceback types typing unicodedata unittest
"""

# The supervisor's first lines. Only modules of the sandbox are imported of this package, hence the stand-ins for
# their packages. Hooks that modules leave for forks are dropped: workers have one thread, so nothing needs repair,
# and they double what a fork costs. One of them reseeds `random`: programs draw the same numbers at every run.
_BOOT = """
import importlib, os, sys, types
fd, root, packages, preloaded = sys.argv[1:]
kept, os.register_at_fork = os.register_at_fork, lambda **hooks: None
for name in preloaded.split():
    importlib.import_module(name)
os.register_at_fork = kept
sys.modules["random"].seed(0)
for name in packages.split():
    module = types.ModuleType(name)
    module.__path__ = [root + "/" + name.replace(".", "/")]
    sys.modules[name] = module
from collm_envs.sandbox.supervisor import main
main(int(fd))
"""


class SandboxError(CollmError, RuntimeError):
    """The sandbox itself failed, twice: never scored."""


@dataclass
class _Asked:
    """One program under way, and everyone who waits for it."""

    message: bytes
    plan: Plan
    key: bytes
    futures: list[Future[RunResult]] = field(default_factory=list)


class Sandbox:
    """Runs untrusted programs against trusted tests, in confined processes.

    Args:
        tier: `auto` for the strongest that this host offers, `full` or `no-userns`; weaker ones (`seccomp`,
            `rlimits`) only when named. `collm sandbox doctor` shows what each stops.
        workers: processes that run programs; default one per core.
        preload: trusted modules for `Program.prepare`, standard library only.
        limits: memory, files and threads of one program.
        packages: installed packages that programs may import beside the standard library, by the names they are
            imported under; what they need comes with them.

    Raises:
        SandboxError: where the host offers no tier that may be used unasked.
    """

    def __init__(
        self,
        *,
        tier: str = "auto",
        workers: int | None = None,
        preload: Sequence[str] = (),
        limits: Limits | None = None,
        packages: Sequence[str] = library.PACKAGES,
    ) -> None:
        require_choice("tier", tier, ("auto", *TIERS), "the sandbox")
        self.workers = len(_cores()) if workers is None else workers
        require_count("workers", self.workers)
        self.tier = resolve_tier(tier)
        self.preload = tuple(preload)
        self.limits = limits or Limits()
        self.packages = tuple(packages)
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(PENDING)
        self._asked: dict[int, _Asked] = {}
        self._under_way: dict[bytes, int] = {}
        self._known: OrderedDict[bytes, RunResult] = OrderedDict()
        self._next = 0
        self._restarted = -RESTART_S
        self._closed = False
        self._folder = ""
        self._start()

    # -- asking ----------------------------------------------------------------------------------------------

    def submit(
        self,
        program: Program,
        tests: Asserts | UnitTests,
        *,
        time_limit_s: float = 8.0,
        max_timeouts: int = 3,
        total_limit_s: float = 60.0,
    ) -> Future[RunResult]:
        """Run a program against its tests. Equal programs with equal tests and limits are run once.

        Args:
            program: the untrusted program.
            tests: the trusted tests.
            time_limit_s: wall-clock time of one test; the first includes loading the program.
            max_timeouts: after so many the other tests count as timed out.
            total_limit_s: wall-clock time of all tests.

        Returns:
            A future; `SandboxError` from it means that the sandbox failed, not the program.
        """
        if self._owner != os.getpid():  # nobody listens here, and the socket is the parent's
            raise SandboxError("the sandbox belongs to the process this one was forked from; see `shared`")
        chosen = plan(tests)
        body = {
            "program": {"code": program.code, "prepare": program.prepare, "payload": dict(program.payload)},
            "plan": chosen.wire(),
            "limit_s": float(time_limit_s),
            "max_timeouts": int(max_timeouts),
            "total_s": float(total_limit_s),
        }
        key = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=20).digest()
        future: Future[RunResult] = Future()
        future.set_running_or_notify_cancel()  # what runs cannot be taken back
        self._room.acquire()
        with self._lock:
            if self._closed:
                self._room.release()
                raise SandboxError("the sandbox is closed")
            if key in self._known:
                self._known.move_to_end(key)
                self._room.release()
                future.set_result(self._known[key])
                return future
            if key in self._under_way:
                self._room.release()
                self._asked[self._under_way[key]].futures.append(future)
                return future
            number, self._next = self._next, self._next + 1
            asked = _Asked(pack({"id": number, **body}), chosen, key, [future])
            self._asked[number], self._under_way[key] = asked, number
            with contextlib.suppress(Closed):  # the listener sees it too, and asks again
                write(self._socket.fileno(), asked.message)
        return future

    def run(self, program: Program, tests: Asserts | UnitTests, **limits: Any) -> RunResult:
        """Run one program and wait for it; see `submit`."""
        return self.submit(program, tests, **limits).result()

    def run_many(self, jobs: Iterable[tuple[Program, Asserts | UnitTests]], **limits: Any) -> list[RunResult]:
        """Run programs side by side; results in the order of the jobs. See `submit` for the limits."""
        return [future.result() for future in [self.submit(*job, **limits) for job in jobs]]

    def close(self) -> None:
        """End all processes. Programs under way fail with `SandboxError`."""
        if self._owner != os.getpid():  # a forked copy; the lock may have been held when it was made
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(timeout=10)
        self._bury()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the supervisor --------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._owner = os.getpid()
        # Tiers with a file system of their own leave nothing on the host's.
        self._folder = "" if self.tier == "full" else tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        if self._folder:
            os.chmod(self._folder, 0o711)
        ours, theirs = socket.socketpair()
        names = {"collm_envs", "collm_envs.sandbox"}
        for module in self.preload:
            parts = module.split(".")
            names |= {".".join(parts[:i]) for i in range(1, len(parts))}
        arguments = [str(theirs.fileno()), str(ROOT), " ".join(sorted(names)), PRELOADED]
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # every thread's stack counts as memory
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **one}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C is for the trainer
        )
        theirs.close()
        self._socket = ours
        write(ours.fileno(), pack(self._config()))
        self._listener = threading.Thread(target=self._listen, name="collm-sandbox", daemon=True)
        self._listener.start()

    def _config(self) -> dict[str, Any]:
        readable, listable, path = library.readable(self.packages)
        return {
            "tier": self.tier,
            "workers": self.workers,
            "preload": list(self.preload),
            "limits": asdict(self.limits),
            "readable": readable,
            "listable": listable,
            "path": path,
            "folder": self._folder,
            "trainer": os.getpid(),
        }

    def _bury(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        remove_folder(self._folder)

    def _listen(self) -> None:
        """Resolve futures until the supervisor goes."""
        reader, why = Reader(MAX_FRAME), "the sandbox's supervisor ended"
        connection = self._socket
        while True:
            try:
                message = unpack(reader.read(connection.fileno()))
            except (Closed, OSError):
                break
            if "fatal" in message:
                why = f"the sandbox cannot work here: {message['fatal']}"
                self._restarted = math.inf  # and would not the next time
                break
            self._resolve(message)
        self._recover(why)

    def _resolve(self, message: dict[str, Any]) -> None:
        with self._lock:
            asked = self._asked.pop(message["id"], None)
            if asked is None:
                return
            self._under_way.pop(asked.key, None)
            result = None
            if "infra" not in message:
                result = _result(asked.plan, message)
            # A busy machine can make a program late: that is not held against its equals.
            if result is not None and all(test.status != "timeout" for test in result.tests):
                self._known[asked.key] = result
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        self._room.release()
        for future in asked.futures:
            if result is None:
                future.set_exception(SandboxError(message["infra"]))
            else:
                future.set_result(result)

    def _recover(self, why: str) -> None:
        """The supervisor has gone: start it once more for what is under way, or tell those who wait."""
        with self._lock:
            now = time.monotonic()
            if not self._closed and now - self._restarted > RESTART_S:
                self._restarted = now
                try:
                    self._bury()
                    self._start()
                    for asked in self._asked.values():
                        write(self._socket.fileno(), asked.message)
                    return
                except Exception as error:  # no memory, no descriptors: those who wait must hear of it
                    why = f"{why}, and starting it again failed: {error}"
            if not self._closed:
                self._closed = True
                self._bury()
            left, self._asked, self._under_way = list(self._asked.values()), {}, {}
        for asked in left:
            self._room.release()
            for future in asked.futures:
                future.set_exception(SandboxError(why))


def _result(plan: Plan, message: dict[str, Any]) -> RunResult:
    tests = tuple(
        TestResult(name, status, text)
        for name, (status, text) in zip(plan.names, message["outcomes"], strict=True)
    )
    return RunResult(tests, message["facts"], message["trust"], message["seconds"], message["error"])


def _cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def resolve_tier(tier: str) -> str:
    """The tier to use.

    Raises:
        SandboxError: when `auto` finds neither `full` nor `no-userns`, or a named tier is not to be had.
    """
    layers = probe()
    best = best_tier(layers)
    if tier == "auto":
        if best not in ("full", "no-userns"):
            raise SandboxError(
                f"this host offers no more than the tier {best!r}, which does not keep programs from your files; "
                f"see `collm sandbox doctor`, run in a container, or ask for it by name"
            )
        return best
    if TIERS.index(tier) < TIERS.index(best):
        raise SandboxError(
            f"this host does not offer the tier {tier!r}, only {best!r}; see `collm sandbox doctor`"
        )
    return tier


_SHARED: dict[tuple[Any, ...], Sandbox] = {}
_SHARED_LOCK = threading.Lock()


def _forget_shared() -> None:
    """In a forked copy: nothing of the parent's is ours, and its lock may never be released here."""
    global _SHARED_LOCK
    _SHARED_LOCK = threading.Lock()
    _SHARED.clear()


os.register_at_fork(after_in_child=_forget_shared)


def shared(*, tier: str = "auto", preload: Sequence[str] = ()) -> Sandbox:
    """The process's sandbox for these settings, started at first use and closed at exit.

    A process that was forked from one with a sandbox gets its own.
    """
    key = (os.getpid(), tier, tuple(preload))
    with _SHARED_LOCK:
        if key not in _SHARED or _SHARED[key]._closed:
            _SHARED[key] = Sandbox(tier=tier, preload=preload)
            atexit.register(_SHARED[key].close)
        return _SHARED[key]
