"""From a turn's replies to a future of its score: the way through the sandbox.

For the environments of this package. They hold no handle: the process's shared sandbox is asked for when a turn is
judged, so environments stay picklable and cheap to clone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from collm_envs.sandbox import Asserts, Program, RunResult, UnitTests, shared
from collm_envs.sandbox.plan import missing_packages

ASSEMBLE = "collm_envs.coding.assemble"
MAX_TIMEOUTS = 3  # then the rest counts as timed out, in both formulas
T = TypeVar("T")
S = TypeVar("S")


def submit(
    program: Program, tests: Asserts | UnitTests, *, given: str = "", tier: str = "auto", **limits: Any
) -> Future[RunResult]:
    """Hand a program and its tests to this process's shared sandbox.

    Args:
        program: what to run.
        tests: what to judge it by.
        given: trusted imports and definitions that the task gives the program.
        tier: how well it must be confined (see `collm_envs.sandbox.Sandbox`).
        limits: `time_limit_s` of a test and `total_limit_s` of all, in seconds.

    Raises:
        RuntimeError: when the task needs a package that is not installed: no reply could pass, and none is scored.
    """
    absent = {*missing_packages(given), *missing_packages(tests.setup)}
    if absent:
        raise RuntimeError(f"the task needs packages that are not installed: {', '.join(sorted(absent))}")
    sandbox = shared(tier=tier, preload=(ASSEMBLE,))
    return then(sandbox.submit(program, tests, max_timeouts=MAX_TIMEOUTS, **limits), _sound)


def _sound(result: RunResult) -> RunResult:
    """The result, unless assembling the program failed by a defect of its own: that is never scored."""
    if "fault" in result.facts:
        raise RuntimeError(f"assembling the program failed: {result.facts['fault']}")
    return result


def then(future: Future[S], function: Callable[[S], T]) -> Future[T]:
    """A future of `function(result)`.

    The function runs in the thread that resolves the first future (the sandbox client's own), so it must be
    quick and touch nothing that changes. An exception of the future or of the function is passed on. Cancelling
    the new future leaves the first one alone: what runs in a sandbox cannot be taken back.
    """
    chained: Future[T] = Future()

    def resolve(done: Future[S]) -> None:
        if not chained.set_running_or_notify_cancel():
            return
        try:
            value = function(done.result())
        except BaseException as error:
            chained.set_exception(error)
        else:
            chained.set_result(value)

    future.add_done_callback(resolve)
    return chained


def gather(futures: Sequence[Future[S]]) -> Future[list[S]]:
    """A future of the results of several, in their order; the first exception among them is passed on.

    It is resolved in the thread that resolves the last of them; see `then`.
    """
    waiting, lock = len(futures), threading.Lock()
    last: Future[None] = Future()

    def count(_: Future[S]) -> None:
        nonlocal waiting
        with lock:
            waiting -= 1
            is_last = not waiting
        if is_last:
            last.set_result(None)

    for future in futures:
        future.add_done_callback(count)
    return then(last, lambda _: [future.result() for future in futures])
