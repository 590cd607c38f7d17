"""The coding rewards: what joint functions and joint classes earn, component by component.

For whoever reads, checks or varies the score. All figures are those of arXiv 2601.21972 and its released code. The
two agree but for the time limit of an assert (8 s and 10 s) and for where scoring stops: the paper says when no
test passes, the released code withholds the last level then, which is the same score.

Both pay main's own work whether or not it calls a helper, so a main that does everything alone lacks only the half
point of the call. `release` keeps that. `paper` differs from both: it asks for the call too, as work that nobody
shares is no joint work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from collm_envs.reward import Scorer, component
from collm_envs.sandbox import RunResult

TIME_LIMIT_S = {"paper": 8.0, "release": 10.0}  # of one assert
CLASS_LIMIT_S = 40.0  # of all tests of a class
AUX, MAIN, SYNTAX, TESTS, USE, WORK = 0.4, 0.6, 0.5, 1.0, 0.5, 1.0
METHODS, CLASS_TESTS, DUPLICATES = 2.0, 4.0, 1.0


@dataclass(frozen=True)
class FunctionRun:
    """The outcome of a turn of joint functions.

    Attributes:
        helpers: names of the helper functions.
        entry: name of the main function.
        result: tests, and the facts of `assemble.function`.
        formula: `paper` or `release`.
    """

    helpers: tuple[str, ...]
    entry: str
    result: RunResult
    formula: str = "paper"

    def state(self, name: str) -> Mapping[str, Any]:
        """What is known of one function; nothing where the replies could not be read."""
        return self.result.facts.get("functions", {}).get(name, {})

    def defined(self, name: str) -> bool:
        """Whether a function is there and returns something."""
        state = self.state(name)
        return bool(state.get("found") and state.get("returns"))

    def called(self, name: str) -> bool:
        """Whether a helper is there and main calls it."""
        return self.defined(name) and bool(self.state(name).get("called"))

    def used(self, name: str) -> bool:
        """Whether main calls a helper and keeps what it returns, at least once."""
        return self.called(name) and not self.state(name).get("thrown")

    def redefined(self, own: Sequence[str]) -> list[str]:
        """Functions of partners that the agent who writes `own` defined too."""
        return [name for mine, name in self.result.facts.get("redefined", ()) if list(mine) == list(own)]

    @property
    def parses(self) -> bool:
        """Whether the joint program parses."""
        return bool(self.result.facts.get("parses"))

    @property
    def works(self) -> bool:
        """Whether main is more than a thin wrapper (`usage.is_thin`), of a helper it calls or that is there."""
        counts = self.defined if self.formula == "release" else self.called
        return any(map(counts, self.helpers)) and not self.result.facts.get("thin")


def aux_defined(run: FunctionRun) -> float:
    """0.4 for each helper that is defined and returns something."""
    return AUX * sum(map(run.defined, run.helpers))


def main_defined(run: FunctionRun) -> float:
    """0.6 when the main function is defined and returns something."""
    return MAIN * run.defined(run.entry)


def syntax(run: FunctionRun) -> float:
    """0.5 when the joint program parses."""
    return SYNTAX * run.parses


def tests(run: FunctionRun) -> float:
    """Passed over all tests."""
    return TESTS * run.result.fraction


def aux_used(run: FunctionRun) -> float:
    """0.5 for each helper that main calls, less 0.5 where it throws the result away; 0 unless a test passed."""
    return USE * sum(map(run.used, run.helpers)) if run.result.passed else 0.0


def own_work(run: FunctionRun) -> float:
    """1 when main calls a helper (`release`: one is there) and is no thin wrapper; 0 unless a test passed."""
    return WORK * run.works if run.result.passed else 0.0


def function_levels(helpers: Sequence[str]) -> tuple[Scorer, ...]:
    """The components for a team with these helper functions; with one helper they add up to 4."""
    count = len(helpers)
    return (
        component("aux_defined", 0, AUX * count)(partial(aux_defined)),
        component("main_defined", 0, MAIN, gate=True)(partial(main_defined)),
        component("syntax", 0, SYNTAX, gate=True)(partial(syntax)),
        component("tests", 0, TESTS, gate=True)(partial(tests)),
        component("aux_used", 0, USE * count)(partial(aux_used)),
        component("own_work", 0, WORK)(partial(own_work)),
    )


def function_metrics(run: FunctionRun) -> dict[str, float]:
    """What is reported beside the parts."""
    result = run.result
    return {
        "pass_rate": result.fraction,
        "passed_all": float(all_passed(result)),
        "aux_use": sum(map(run.called, run.helpers)) / len(run.helpers),
        "non_wrapper": float(run.works),
        "syntax": float(run.parses),
        **_run_metrics(result),
    }


@dataclass(frozen=True)
class ClassRun:
    """The outcome of a turn of joint methods.

    Attributes:
        methods: names of the methods that were to be written.
        result: tests, and the facts of `assemble.methods`.
    """

    methods: tuple[str, ...]
    result: RunResult

    def state(self, name: str) -> Mapping[str, Any]:
        """What is known of one method; nothing where the replies could not be read."""
        return self.result.facts.get("methods", {}).get(name, {})

    @property
    def parses(self) -> bool:
        """Whether the merged class parses."""
        return bool(self.result.facts.get("parses"))

    @property
    def valid(self) -> float:
        """Share of methods that their agent wrote and that parse."""
        return sum(bool(self.state(name).get("valid")) for name in self.methods) / len(self.methods)

    @property
    def duplicated(self) -> float:
        """Share of methods that more than one agent wrote."""
        return len(self.result.facts.get("duplicated", ())) / len(self.methods)


@component("methods", low=0, high=METHODS)
def methods(run: ClassRun) -> float:
    """2 times the share of valid methods; 0 where the merged class does not parse, as all of them."""
    return METHODS * run.valid if run.parses else 0.0


@component("tests", low=0, high=CLASS_TESTS)
def class_tests(run: ClassRun) -> float:
    """4 times the share of tests that pass."""
    return CLASS_TESTS * run.result.fraction if run.parses else 0.0


@component("duplicates", low=-DUPLICATES, high=0)
def duplicates(run: ClassRun) -> float:
    """Minus the share of methods that more than one agent wrote."""
    return 0.0 - DUPLICATES * run.duplicated if run.parses else 0.0


def class_metrics(run: ClassRun) -> dict[str, float]:
    """What is reported beside the parts."""
    return {
        "pass_rate": run.result.fraction,
        "passed_all": float(all_passed(run.result)),
        "valid_rate": run.valid,
        "duplicate_rate": run.duplicated,
        "syntax": float(run.parses),
        **_run_metrics(run.result),
    }


def all_passed(result: RunResult) -> bool:
    """Whether there are tests and every one passed, the hidden ones included."""
    return result.total > 0 and result.passed == result.total


def _run_metrics(result: RunResult) -> dict[str, float]:
    """How it was judged: `inproc` is 1 where the tests ran beside the program, which could have forged them."""
    late = sum(test.status == "timeout" for test in result.tests)
    return {"timeouts": float(late), "inproc": float(result.trust == "inproc")}
