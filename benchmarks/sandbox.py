"""Executions per second of the sandbox, beside two other ways to run a program.

`python -m benchmarks.sandbox` measures every way in turn, five rounds of all, on one and on two cores, and prints
medians and ratios. Every execution has a program of its own, so nothing is remembered. The three ways:

- `sandbox`: ours with all layers, judged outside the program's process.
- `fresh`: `python -I -S` for each program, tests in the same process, exit code as verdict.
- `manager`: a `multiprocessing.Manager` and a `Process` for each program, tests in the same process, as
  human-eval's `check_correctness` does; as many threads as its default, four.

`--memory N` instead runs N programs and prints the resident memory of this process along the way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

METHODS = 20
KINDS = ("function", "class")


def function_case(number: int) -> tuple[str, list[str]]:
    """A program of one function, and two asserts."""
    body = f"    total = {number}\n    for i in range(x):\n        total += i\n    return total - {number}\n"
    code = "def f(x):\n" + body
    return code, ["assert f(2) == 1", "assert f(5) == 10"]


def class_case(number: int) -> tuple[str, str]:
    """A program of one class, and a unittest class of twenty methods."""
    code = (
        f"class Account:\n    def __init__(self, start):\n        self.value = start\n        self.tag = {number}\n"
        "    def add(self, amount):\n        self.value += amount\n        return self.value\n"
        "    def history(self):\n        return [self.value] * 3\n"
    )
    methods = (
        f"    def test_{i:02}(self):\n        account = Account({i})\n"
        f"        self.assertEqual(account.add(2), {i + 2})\n"
        f"        self.assertEqual(account.history(), [{i + 2}] * 3)\n"
        for i in range(METHODS)
    )
    return code, "import unittest\n\nclass TestAccount(unittest.TestCase):\n" + "".join(methods)


def as_script(kind: str, number: int) -> str:
    """Program and tests in one source, for the ways that judge inside the process."""
    if kind == "function":
        code, asserts = function_case(number)
        return code + "\n".join(asserts) + "\n"
    code, source = class_case(number)
    run = "r = unittest.TextTestRunner(stream=open('/dev/null', 'w')).run("
    suite = "unittest.defaultTestLoader.loadTestsFromTestCase(TestAccount))"
    return f"{code}\n{source}\n{run}{suite}\nassert r.testsRun == {METHODS} and r.wasSuccessful()\n"


def fresh(kind: str, number: int) -> bool:
    """One program in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", as_script(kind, number)],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return done.returncode == 0


def _execute(script: str, found: list[str]) -> None:
    try:
        exec(script, {"__name__": "solution"})
        found.append("passed")
    except BaseException as error:
        found.append(repr(error))


def manager(kind: str, number: int) -> bool:
    """One program in a process of its own, its verdict in a list of a manager of its own."""
    with multiprocessing.Manager() as held:
        found = held.list()
        process = multiprocessing.Process(target=_execute, args=(as_script(kind, number), found))
        process.start()
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
        return list(found) == ["passed"]


def in_threads(way: Callable[[str, int], bool], kind: str, threads: int, seconds: float) -> float:
    """Executions per second of a blocking way in some threads."""
    numbers, begun, done = itertools.count(), time.perf_counter(), 0
    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(way, kind, next(numbers)) for _ in range(threads)}
        while time.perf_counter() - begun < seconds:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            assert all(future.result() for future in finished), "a reference program failed"
            done += len(finished)
            running |= {pool.submit(way, kind, next(numbers)) for _ in finished}
        elapsed = time.perf_counter() - begun
    return done / elapsed


def sandboxed(kind: str, cores: int, seconds: float) -> float:
    """Executions per second of the sandbox with one worker per core."""
    from collm_envs.sandbox import Asserts, Program, Sandbox, UnitTests

    numbers = itertools.count()

    def submit():
        case = (function_case if kind == "function" else class_case)(next(numbers))
        tests = Asserts(case[1]) if kind == "function" else UnitTests(case[1])
        return sandbox.submit(Program(case[0]), tests)

    with Sandbox(workers=cores) as sandbox:
        for _ in range(10):
            submit().result()
        begun, done = time.perf_counter(), 0
        running = {submit() for _ in range(16 * cores)}
        while time.perf_counter() - begun < seconds:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                result = future.result()
                assert (result.fraction, result.trust) == (1.0, "judged"), result
            done += len(finished)
            running |= {submit() for _ in finished}
        elapsed = time.perf_counter() - begun
    return done / elapsed


def measure(way: str, kind: str, cores: int, seconds: float) -> float:
    """One measurement, in this process, pinned to some cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if way == "sandbox":
        return sandboxed(kind, cores, seconds)
    return in_threads({"fresh": fresh, "manager": manager}[way], kind, 4, seconds)


def rounds(count: int, seconds: float) -> Iterator[tuple[str, str, int, float]]:
    """Every way, kind and number of cores in turn, each in a process of its own so that none inherits a heap."""
    for _ in range(count):
        for kind, cores, way in itertools.product(KINDS, (1, 2), ("manager", "sandbox", "fresh")):
            words = [sys.executable, "-m", "benchmarks.sandbox", "--one", way, kind, str(cores)]
            done = subprocess.run(
                [*words, "--seconds", str(seconds)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(done.stderr)
            yield way, kind, cores, float(done.stdout)


def compare(count: int, seconds: float, out: Path | None) -> None:
    """Measure everything, print a table, and write the figures."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for way, kind, cores, rate in rounds(count, seconds):
        found.setdefault((kind, cores), {}).setdefault(way, []).append(rate)
    print(
        "| tests | cores | fresh | manager | sandbox | over fresh | over manager (median of rounds, range) |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for (kind, cores), rates in found.items():
        middle = {way: statistics.median(values) for way, values in rates.items()}
        ratios = [a / b for a, b in zip(rates["sandbox"], rates["manager"], strict=True)]
        over = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        fresh_over = middle["sandbox"] / middle["fresh"]
        print(
            f"| {kind} | {cores} | {middle['fresh']:.0f}/s | {middle['manager']:.0f}/s "
            f"| {middle['sandbox']:.0f}/s | {fresh_over:.2f} | {over} |"
        )
        rows.append({"tests": kind, "cores": cores, "per_second": rates, "over_manager": ratios})
    if out:
        host = {
            "machine": platform.machine(),
            "system": platform.release(),
            "python": platform.python_version(),
        }
        out.write_text(json.dumps({"host": host, "seconds": seconds, "rows": rows}, indent=1) + "\n")


def resident_mb() -> float:
    """Resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(count: int) -> None:
    """Run distinct programs and print this process's resident memory as it goes."""
    from collm_envs.sandbox import Asserts, Program, Sandbox

    with Sandbox() as sandbox:
        for start in range(0, count, 1000):
            jobs = [function_case(number) for number in range(start, start + 1000)]
            results = sandbox.run_many((Program(code), Asserts(asserts)) for code, asserts in jobs)
            assert all(result.passed == 2 for result in results)
            print(f"{start + 1000} executions: {resident_mb():.1f} MiB", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--memory", type=int, metavar="N", help="run N programs and print resident memory")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "KIND", "CORES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, kind, cores = options.one
        print(measure(way, kind, int(cores), options.seconds))
    elif options.memory:
        memory(options.memory)
    else:
        compare(options.rounds, options.seconds, options.out)


if __name__ == "__main__":
    main()
