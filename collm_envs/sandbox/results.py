"""What goes into the sandbox and what comes out: programs, tests, results.

For scorers. A `Program` and its tests are submitted together; a `RunResult` holds one status per test. All of
it is plain data: nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("pass", "fail", "timeout", "error", "protocol")


@dataclass(frozen=True)
class Program:
    """Untrusted source text, or a recipe that makes one from untrusted text inside the sandbox.

    Attributes:
        code: the program. Ignored where `prepare` is set.
        prepare: `module:function` of trusted code that is called inside the confined child, before anything
            untrusted runs, with `payload`; it returns `(code or None, facts)`. Parsing model text belongs here:
            it can exhaust memory or recursion, and must not do so in the trainer. The module imports the
            standard library only and is named in the sandbox's `preload`.
        payload: plain data for `prepare`.
    """

    code: str = ""
    prepare: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asserts:
    """Trusted tests: assert statements, each judged on its own.

    Attributes:
        statements: source of each, such as `assert f(2) == 4`; loops around asserts are allowed and are one test.
        setup: trusted source that runs before them (imports, helpers, data), where the tests run.
        names: how the tests call what the program defines: `{"candidate": "entry_point"}`. Names that the
            tests use and neither they nor Python define are taken from the program as they are.
    """

    statements: Sequence[str]
    setup: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitTests:
    """Trusted tests: `unittest.TestCase` classes; each test method is one test, named `Class.method`.

    Attributes:
        source: source of the classes.
        setup: trusted source that runs before it (imports of the module under test).
    """

    source: str
    setup: str = ""


@dataclass(frozen=True)
class TestResult:
    """Outcome of one test.

    Attributes:
        name: the assert's source, or `Class.method`.
        status: `pass`, `fail` (judged and found wrong), `error` (the program raised, exited or crashed),
            `timeout`, or `protocol` (the answer was not one).
        message: one line for feedback; may hold text of the program's making.
    """

    __test__ = False  # not a test case, whatever pytest thinks of its name

    name: str
    status: str
    message: str = ""


@dataclass(frozen=True)
class RunResult:
    """Outcome of one program.

    Attributes:
        tests: one result per test, in the tests' order.
        facts: what `prepare` found; empty without one.
        trust: `judged` (verdicts were reached outside the program's process) or `inproc` (tests ran beside the
            program, which could have forged them).
        seconds: time the program had, summed over its processes.
        error: why no test ran (syntax error, crash while loading), one line; "" otherwise.
    """

    tests: tuple[TestResult, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    trust: str = "judged"
    seconds: float = 0.0
    error: str = ""

    @property
    def passed(self) -> int:
        """Tests that passed."""
        return sum(test.status == "pass" for test in self.tests)

    @property
    def total(self) -> int:
        """Tests there are, by our own count."""
        return len(self.tests)

    @property
    def fraction(self) -> float:
        """Passed over total; 0 where there are no tests."""
        return self.passed / self.total if self.tests else 0.0
