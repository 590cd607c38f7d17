"""What agents are told about their last attempt at joint functions.

For `functions` and `compose`, which differ in wording alone. An agent learns of its own functions, whether its
partners' are there, how many tests passed, and what the public tests said. It learns nothing of a hidden test but
the count, and nothing of a partner's text but what a public test's error may quote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from collm_envs.coding.rules import FunctionRun
from collm_envs.sandbox import RunResult

MAX_ERROR = 160  # characters of an error that are shown


@dataclass(frozen=True)
class Wording:
    """Phrases of the feedback; an empty one is left out.

    Attributes:
        found, missing, mute, broken: own function `{name}` is there, is not, returns nothing, does not parse at
            `{line}`, `{column}` for the reason `{error}`.
        theirs, not_theirs, broken_theirs: a partner's function likewise.
        joint: each part parses and the program does not, for the reason `{error}`.
        redefined: the agent defined a partner's function `{name}`.
        tests: `{passed}` of `{total}`.
        failed: a public test `{test}` and its `{error}`.
        loading: the program failed before the first test, for the reason `{error}` where that may be told.
        unused, dropped, thin: to main, of the helper `{name}`: never called, its result thrown away; main only
            wraps helpers.
        level, yes, no: one level in mode `level_passed`.
        level_names: how that mode calls the levels.
        not_passed: the whole of mode `passed`.
        again: how each feedback ends.
        joiner: between phrases.
    """

    found: str = "Your function `{name}` was found."
    missing: str = "Your reply defines no function `{name}`."
    mute: str = "Your function `{name}` returns nothing."
    broken: str = "Your function `{name}` does not parse: line {line}, column {column}: {error}."
    theirs: str = "A partner's function `{name}` was found."
    not_theirs: str = "A partner's function `{name}` is missing or returns nothing."
    broken_theirs: str = "A partner's function `{name}` does not parse."
    joint: str = "The functions together do not parse: {error}."
    redefined: str = "Your own `{name}` was left out: a partner writes it."
    tests: str = "Tests passed: {passed} of {total}."
    failed: str = "Failed: {test}\n  {error}"
    loading: str = "The program failed before the first test: {error}"
    unused: str = "`{entry}` does not call `{name}`."
    dropped: str = "`{entry}` calls `{name}` and drops its result."
    thin: str = "`{entry}` only hands its arguments on; it must do work of its own."
    level: str = "{level}: {answer}."
    yes: str = "yes"
    no: str = "no"
    level_names: Sequence[str] = (
        "Helper functions defined",
        "Main function defined",
        "Program parses",
        "All tests passed",
        "Helper used",
        "Main does work of its own",
    )
    not_passed: str = "Not all tests passed."
    again: str = "Write your part again."
    joiner: str = "\n"


def told(
    mode: str,
    run: FunctionRun,
    own: Sequence[str],
    visible: Sequence[str],
    wording: Wording,
    *,
    redefined: Sequence[str],
    public: RunResult,
) -> str:
    """The feedback for one agent.

    Args:
        mode: `level_feedback`, `level_passed`, `passed` or `plain`.
        run: the judged turn.
        own: functions that the agent writes.
        visible: public tests as shown.
        wording: the phrases.
        redefined: functions of partners that this agent defined.
        public: the program's run with the public tests alone, of which errors may be told; empty where it had none.
    """
    phrases: list[str] = []
    if mode == "level_feedback":
        phrases += _levels(run, own, visible, wording, redefined, public)
    elif mode == "level_passed":
        answers = (
            all(map(run.defined, run.helpers)),
            run.defined(run.entry),
            run.parses,
            0 < run.result.total == run.result.passed,
            all(map(run.called, run.helpers)),
            run.works,
        )
        for level, answer in zip(wording.level_names, answers, strict=True):
            phrases.append(wording.level.format(level=level, answer=wording.yes if answer else wording.no))
    elif mode == "passed":
        phrases.append(wording.not_passed)
    return wording.joiner.join(phrase for phrase in (*phrases, wording.again) if phrase)


def _levels(
    run: FunctionRun,
    own: Sequence[str],
    visible: Sequence[str],
    wording: Wording,
    redefined: Sequence[str],
    public: RunResult,
) -> Iterator[str]:
    for name in (*own, *(other for other in (*run.helpers, run.entry) if other not in own)):
        yield _definition(run, name, wording, own=name in own)
    for name in redefined:
        yield wording.redefined.format(name=name)
    error = run.result.facts.get("error")
    if error and not any(run.state(name).get("error") for name in (*run.helpers, run.entry)):
        yield wording.joint.format(error=one_line(error[2]))
    result = run.result
    yield wording.tests.format(passed=result.passed, total=result.total)
    if not run.parses:
        return
    if result.error:
        yield wording.loading.format(error=one_line(public.error or "it could not be loaded"))
    for text, test in zip(visible, public.tests, strict=False):
        if test.status != "pass" and not result.error:
            yield wording.failed.format(test=text, error=one_line(test.message or test.status))
    if run.entry in own:
        yield from _usage(run, wording)


def _definition(run: FunctionRun, name: str, wording: Wording, *, own: bool) -> str:
    state = run.state(name)
    if state.get("error"):
        line, column, error = state["error"]
        phrase = wording.broken if own else wording.broken_theirs
        return phrase.format(name=name, line=line, column=column, error=one_line(error))
    if run.defined(name):
        return (wording.found if own else wording.theirs).format(name=name)
    if not own:
        return wording.not_theirs.format(name=name)
    return (wording.mute if state.get("found") else wording.missing).format(name=name)


def _usage(run: FunctionRun, wording: Wording) -> Iterator[str]:
    for name in filter(run.defined, run.helpers):
        if not run.called(name):
            yield wording.unused.format(entry=run.entry, name=name)
        elif not run.used(name):
            yield wording.dropped.format(entry=run.entry, name=name)
    if run.result.facts.get("thin"):
        yield wording.thin.format(entry=run.entry)


def one_line(text: str) -> str:
    """An error as it is shown: on one line, and not longer than `MAX_ERROR`."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_ERROR else line[: MAX_ERROR - 3] + "..."
