"""The verb `sandbox`: what protects this host from untrusted programs, and running some.

For `cli`, which dispatches to it. Works with the base installation, without torch.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from collm_envs.errors import DataError, InputError
from collm_envs.sandbox import TIERS, Asserts, Program, RunResult, Sandbox, UnitTests, layers_report, probe
from collm_envs.sandbox.plan import plan
from collm_envs.task import read_rows

AHEAD = 256  # programs handed over before the first result is printed


def build_sandbox(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sandbox`."""
    parser.add_argument("action", choices=("doctor", "run"), help="show the layers, or run programs")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="programs, one a row: name, code, tests (asserts or unittest)"
    )
    parser.add_argument("--tier", default="auto", help="auto or one of " + ", ".join(TIERS))
    parser.add_argument("--workers", type=int, help="processes (default one per core)")
    parser.add_argument("--time-limit", type=float, default=8.0, help="seconds a test may take (default 8)")


def run_sandbox(args: argparse.Namespace) -> int:
    """Print the layers of this host, or one JSON line per program."""
    if args.action == "doctor":
        if args.file:
            raise InputError("sandbox doctor takes no file")
        print(layers_report(probe()))
        return 0
    if not args.file:
        raise InputError("sandbox run wants a file of programs (.jsonl, .json, .csv)")
    if not args.time_limit > 0:
        raise InputError("--time-limit must be above 0")
    programs = [read_program(row, f"{args.file}, row {n}") for n, row in enumerate(read_rows(args.file), 1)]
    with Sandbox(tier=args.tier, workers=args.workers) as sandbox:
        waiting: deque[tuple[str, Future[RunResult]]] = deque()
        for line in _lines(sandbox, programs, waiting, args.time_limit):
            print(json.dumps(line), flush=True)
    return 0


def _lines(
    sandbox: Sandbox,
    programs: list[tuple[str, Program, Asserts | UnitTests]],
    waiting: deque[tuple[str, Future[RunResult]]],
    limit_s: float,
) -> Iterator[dict[str, Any]]:
    """Results in the order of the programs, with a bounded number under way."""
    for name, program, tests in programs:
        total_s = max(60.0, limit_s)
        waiting.append((name, sandbox.submit(program, tests, time_limit_s=limit_s, total_limit_s=total_s)))
        if len(waiting) > AHEAD:
            yield _line(*waiting.popleft())
    while waiting:
        yield _line(*waiting.popleft())


def _line(name: str, future: Future[RunResult]) -> dict[str, Any]:
    result = future.result()
    return {
        "name": name,
        "tests": [{"name": t.name, "status": t.status, "message": t.message} for t in result.tests],
        "passed": result.passed,
        "total": result.total,
        "trust": result.trust,
        "seconds": round(result.seconds, 4),
        "error": result.error,
    }


def read_program(row: Mapping[str, Any], where: str) -> tuple[str, Program, Asserts | UnitTests]:
    """A program and its tests from a row.

    Args:
        row: `name`, `code`, and `tests`: a list of assert statements, or the source of unittest classes.
        where: file and row, for messages.

    Raises:
        DataError: naming the field that is missing or wrong.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected fields name, code and tests, found {type(row).__name__}")
    for field in ("name", "code"):
        if not isinstance(row.get(field), str):
            raise DataError(f"{where}, field {field!r}: a text is wanted")
    tests: Any = row.get("tests")
    listed = isinstance(tests, list) and bool(tests) and all(isinstance(test, str) for test in tests)
    if not (listed or (isinstance(tests, str) and tests.strip())):
        raise DataError(
            f"{where}, field 'tests': a list of asserts or the source of unittest classes is wanted"
        )
    chosen = Asserts(tuple(tests)) if listed else UnitTests(tests)
    try:
        plan(chosen)
    except InputError as error:
        raise DataError(f"{where}, field 'tests': {error}") from None
    return row["name"], Program(row["code"]), chosen
