"""Runs trusted tests against an untrusted program in another process. Standard library only.

For the bench's children. Each outcome is sent as soon as it is known. A test that the source does not announce,
or that is skipped or missing, is no pass. `run_inproc` is the one way to run tests beside the program, for tests
that cannot be run otherwise; the program could forge what comes out of it, and its results are marked.
"""

from __future__ import annotations

import functools
import signal
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import candidate, frames
from collm_envs.sandbox.link import CandidateError, Foul, Gone, Link, Scope

MAX_MESSAGE = 200  # characters
HELD_S = 0.005  # longest time that an outcome waits for others
STATIC = frozenset(
    {"kind", "setup", "statements", "source", "bindings", "names", "operators"}
)  # of a job: the tests
TEST_MODULE = "tests"
CO_OPTIMIZED = 1  # flag of a function's code; class bodies lack it


class _Stop(BaseException):
    """No further test can run: the rest stays without an outcome, or has been told."""


class _Reporter:
    """Sends outcomes; knows whether the program's process can still be talked to.

    Outcomes of quick tests go together, since waking the reader for each costs more than the test. A timer sees to
    it that none is held longer than `HELD_S`, whatever the next test does. Beside the program nothing is held.
    """

    def __init__(self, job: dict[str, Any], out_fd: int, link: Link | None) -> None:
        self.nonce, self.out_fd, self.link = job["nonce"], out_fd, link
        self.left: list[int] = list(job["only"])
        self.held: list[bytes] = []
        if link is not None:
            signal.signal(signal.SIGALRM, lambda *_: self._flush())

    def _send(self, *message: Any) -> None:
        self.held.append(frames.pack([self.nonce, *message]))
        if self.link is None:
            self._flush()
        elif len(self.held) == 1:
            signal.setitimer(signal.ITIMER_REAL, HELD_S)

    def _flush(self) -> None:
        taken = []
        while self.held:  # one by one: the timer may come in between
            taken.append(self.held.pop(0))
        frames.write(self.out_fd, b"".join(taken))

    def tell(self, index: int, status: str, message: str = "") -> None:
        """Send one outcome.

        Raises:
            _Stop: when the program's process has gone (then this test has no outcome), or what it sent was no
                answer (then this test and the rest are `protocol`).
        """
        if self.link is not None and self.link.gone:
            raise _Stop
        if self.link is not None and self.link.foul:
            for other in self.left:
                self._send("test", other, "protocol", self.link.foul[:MAX_MESSAGE])
            self.left = []
            raise _Stop
        if self.link is not None and self.link.caught is not None:
            if status == "pass":
                status, message = "fail", _text(self.link.caught)
            self.link.caught = None
        if index in self.left:
            self.left.remove(index)
            self._send("test", index, status, message[:MAX_MESSAGE])

    def tell_all(self, status: str, message: str) -> None:
        """The same outcome for every test that has none."""
        for index in list(self.left):
            self.tell(index, status, message)

    def finish(self) -> None:
        """Say that there is no more, unless tests were left because the program's process ended."""
        if self.link is None or not self.link.gone:
            self._send("done")
        if self.link is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._flush()


def _text(error: BaseException) -> str:
    """One line about an exception; its text may be of the program's making."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = []
    name = type(error).__name__
    if isinstance(error, CandidateError) and type(error) is CandidateError:
        return lines[0] if lines else "the program raised"
    return f"{name}: {lines[0]}" if lines else name


class _Result(unittest.TestResult):
    """Collects a test's outcome from unittest and reports it when the test ends."""

    def __init__(self, reporter: _Reporter, indices: dict[str, int]) -> None:
        super().__init__()
        self.reporter, self.indices = reporter, indices
        self.outcome: tuple[str, str] | None = None

    def startTest(self, test: unittest.TestCase) -> None:
        self.outcome = None

    def stopTest(self, test: unittest.TestCase) -> None:
        name = f"{type(test).__name__}.{test._testMethodName}"
        self.reporter.tell(self.indices[name], *(self.outcome or ("error", "no outcome")))

    def _worse(self, status: str, message: str) -> None:
        if self.outcome is None or self.outcome[0] == "pass":
            self.outcome = (status, message)

    def addSuccess(self, test: unittest.TestCase) -> None:
        if self.outcome is None:
            self.outcome = ("pass", "")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._worse("fail", _text(err[1]))

    def addError(self, test: Any, err: Any) -> None:
        self._worse("error", _text(err[1]))
        if not isinstance(test, unittest.TestCase):  # a class's or module's preparation failed
            self._whole(test, "error", _text(err[1]))

    def addSkip(self, test: Any, reason: str) -> None:
        self._worse("fail", f"skipped: {reason}")
        if not isinstance(test, unittest.TestCase):
            self._whole(test, "fail", f"skipped: {reason}")

    def _whole(self, holder: Any, status: str, message: str) -> None:
        """Outcome for all tests of `setUpClass (tests.Name)`, or of the module."""
        what, _, where = str(getattr(holder, "description", "")).partition(" (")
        if what.startswith("tearDown"):
            return
        for name, index in self.indices.items():
            if what == "setUpModule" or where.rstrip(")").endswith("." + name.partition(".")[0]):
                self.reporter.tell(index, status, message)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.addSuccess(test)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._worse("fail", "unexpected success")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self._worse("fail" if failed else "error", _text(err[1]))


def _class_names(code: types.CodeType) -> set[str]:
    """Names that class bodies look up; the interpreter does not ask a scope's `__missing__` for these."""
    found: set[str] = set()
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            if not part.co_flags & CO_OPTIMIZED:
                found.update(part.co_names)
            found |= _class_names(part)
    return found


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, what: str) -> types.CodeType:
    return compile(source, f"<{what}>", "exec", dont_inherit=True)


def _execute(source: str, scope: Scope, what: str) -> None:
    code = _compiled(source, what)
    for name in sorted(_class_names(code) - set(scope)):
        scope.fetch(name)
    exec(code, scope)


def _run_asserts(job: dict[str, Any], scope: Scope, reporter: _Reporter) -> None:
    for index in job["only"]:
        try:
            _execute(job["statements"][index], scope, "test")
            outcome = ("pass", "")
        except AssertionError as error:
            outcome = ("fail", _text(error))
        except BaseException as error:
            outcome = ("error", _text(error))
        reporter.tell(index, *outcome)


def _run_unittest(job: dict[str, Any], scope: Scope, reporter: _Reporter) -> None:
    _execute(job["source"], scope, "tests")
    hooks = {
        name: scope[name] for name in ("setUpModule", "tearDownModule") if dict.__contains__(scope, name)
    }
    module = types.ModuleType(TEST_MODULE)
    vars(module).update(hooks)
    sys.modules[TEST_MODULE] = module
    indices = {name: index for index, name in enumerate(job["names"])}
    suite = unittest.TestSuite()
    for index in job["only"]:
        name, _, method = job["names"][index].partition(".")
        suite.addTest(scope[name](method))
    suite.run(_Result(reporter, indices))


_RUNNERS: dict[str, Callable[[dict[str, Any], Scope, _Reporter], None]] = {
    "asserts": _run_asserts,
    "unittest": _run_unittest,
}


def _run(job: dict[str, Any], scope: Scope, reporter: _Reporter) -> None:
    try:
        try:
            _execute(job["setup"], scope, "setup")
            _RUNNERS[job["kind"]](job, scope, reporter)
            reporter.tell_all("error", "the test did not run")
        except (_Stop, Gone, Foul):
            raise
        except BaseException as error:
            reporter.tell_all("error", f"the tests could not be loaded: {_text(error)}")
    except (_Stop, Gone):
        pass
    except Foul:
        _protocol(reporter)
    reporter.finish()


def _protocol(reporter: _Reporter) -> None:
    try:
        reporter.tell_all("protocol", "")
    except _Stop:
        return


def run(job: dict[str, Any], out_fd: int, rpc_fd: int) -> None:
    """Run tests against the program behind a socket.

    Args:
        job: `nonce`, `kind` (`asserts` or `unittest`), `setup`, `statements` or `source`, `bindings` (the tests'
            names for the program's), `names` (one per test), `operators`, `only` (indices of the tests to run).
        out_fd: where `[nonce, "test", index, status, message]` and, in the end, `[nonce, "done"]` go. Without
            `done`, the program's process ended during the first test that has no outcome.
        rpc_fd: socket to the program's process.
    """
    link = Link(rpc_fd, frozenset(job.get("operators", ())))
    scope = Scope(lambda name: link.request("global", (name,)), job["bindings"])
    _run(job, scope, _Reporter(job, out_fd, link))


def run_inproc(job: dict[str, Any], out_fd: int) -> None:
    """Run tests beside the program, in its process: what comes out is the program's word.

    Args:
        job: as for `run`, and the program as `candidate.run` takes it.
        out_fd: where frames go: `facts`, `loaded` or `broken`, then as from `run`.
    """
    module = candidate.load(job, out_fd)
    if module is None:
        return
    defined = module.__dict__
    scope = Scope(lambda name: (defined[name],) if name in defined else (), job["bindings"])
    _run(job, scope, _Reporter(job, out_fd, None))
