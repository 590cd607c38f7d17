"""The verb `bench`: a suite of runs, started, gone on with, and put together.

For `cli`, which dispatches to it. It reads the words, says on stderr how far the work has come and prints a table;
`benchmark` does the work.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collm_agents import terminal
from collm_agents.pool import OnRay
from collm_agents.records import Record, Results, read_results
from collm_agents.suite import FINAL_TIMES, Run, Suite
from collm_envs.errors import InputError

if TYPE_CHECKING:
    from collm_agents.benchmark import Benchmark

DRAWN_S = 1.0  # between two drawings of the line of progress on a terminal


def build_bench(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bench`."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SUITE|key=value",
        help="a packaged suite or a TOML file; settings of all its runs, a budget (joint_samples, tokens, wall_s), "
        "points, tasks, greedy, and reward, num_turns and model, several joined by commas",
    )
    parser.add_argument(
        "--algorithms",
        metavar="A,B",
        help="in place of a suite: names; mc+rollout.samples=2 has its own setting",
    )
    parser.add_argument("--envs", metavar="ID,ID", help="in place of a suite: environments")
    parser.add_argument("--seeds", default="", metavar="N", help="how many, or several joined by commas")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="where it goes, and goes on (default bench/NAME; without a suite, what is compared and a hash)",
    )
    add_places(parser)
    parser.add_argument(
        "--slim", action="store_true", help="drop critics and optimizers of finished runs; their agents stay"
    )
    parser.add_argument("--redo", action="store_true", help="do runs again that had other settings")
    parser.add_argument(
        "--from",
        dest="known",
        metavar="RESULTS",
        help="merged results of the same suite, such as partial ones that were shared: their runs count as done",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="count runs and estimate; run and write nothing"
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Arguments about where runs are made."""
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help="runs at once (default: the cores)"
    )
    parser.add_argument(
        "--gpus", default="", metavar="0,1", help="accelerators, one run at a time on each that is listed"
    )
    parser.add_argument(
        "--ray",
        default="",
        metavar="auto|local|HOST:PORT",
        help="runs are tasks of a Ray cluster, as many at once as it has room for, or --processes",
    )
    parser.add_argument("--run-cpus", type=float, metavar="N", help="with --ray: CPUs of a run (default 1)")
    parser.add_argument(
        "--run-gpus",
        type=float,
        metavar="N",
        help="with --ray: accelerators of a run, or a share (default 0)",
    )


def places(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_places` asked for, as `Benchmark` takes it."""
    if args.processes < 0:
        raise InputError(f"--processes must be at least 1, not {args.processes}")
    gpus = [gpu.strip() for gpu in args.gpus.split(",") if gpu.strip()]
    if not args.ray:
        for name, value in (("--run-cpus", args.run_cpus), ("--run-gpus", args.run_gpus)):
            if value is not None:
                raise InputError(f"{name} says what a run takes of a cluster; it goes with --ray")
        return {"processes": args.processes, "gpus": gpus}
    if gpus:
        raise InputError("--gpus lists this machine's accelerators; with --ray say --run-gpus")
    cpus, share = 1.0 if args.run_cpus is None else args.run_cpus, args.run_gpus or 0.0
    if cpus < 0 or share < 0 or not cpus + share:
        raise InputError("--run-cpus and --run-gpus must be at least 0, and one of them more")
    import collm_agents.distributed  # noqa: F401  (names the extra where Ray is missing)

    return {"processes": args.processes, "ray": OnRay(args.ray, cpus, share)}


def run_bench(args: argparse.Namespace) -> int:
    """Run the suite; 0 when all runs are done, 1 when some failed, 128 + signal when stopped."""
    from collm_agents.benchmark import Benchmark, Stopped

    suite = chosen_suite(args)
    out = Path(args.out or Path("bench") / suite.name)
    progress = Progress()
    bench = Benchmark(
        suite,
        out,
        **places(args),
        slim=args.slim,
        redo=args.redo,
        said=progress.say,
        seen=progress.see,
    )
    if args.known and args.dry_run:
        raise InputError("--from writes into the folder of the benchmark; leave it out with --dry-run")
    if args.known:
        taken = bench.adopt(read_results(Path(args.known)))
        progress.say(f"{taken} runs taken over from {args.known}")
    if args.dry_run:
        print(plan(bench))
        return 0
    try:
        results = bench.run()
    except Stopped as stopped:
        progress.say(str(stopped))
        return stopped.code
    finally:
        progress.clear()
    print(table(results))
    print(f"\n{len(results.done)} done, {len(results.failed)} failed: {out / 'results.json'}")
    for record in results.failed[:5]:
        print(f"  failed: {' '.join(map(str, record.place))}: {record.error}")
    print(f"a report: collm report {out}")
    return 1 if results.failed else 0


def chosen_suite(args: argparse.Namespace) -> Suite:
    """The suite that the arguments name, with their settings on top.

    Raises:
        InputError: for none, two, or one that cannot be used.
    """
    from collm_agents.suite_file import (
        find_suite,
        list_suites,
        name_of_words,
        suite_of_words,
        with_words,
    )

    names = [word for word in args.words if "=" not in word or Path(word).is_file()]
    words = [word for word in args.words if word not in names]
    direct = args.algorithms is not None or args.envs is not None
    if direct and names:
        raise InputError(f"either the suite {names[0]!r} or --algorithms and --envs, not both")
    if direct and not (args.algorithms and args.envs):
        raise InputError("--algorithms and --envs go together")
    if not direct and len(names) != 1:
        raise InputError(
            f"name one suite, of {', '.join(list_suites())} or a TOML file, or --algorithms and --envs"
        )
    if not direct:
        return with_words(find_suite(names[0]), words, args.seeds)
    suite = with_words(suite_of_words(args.algorithms, args.envs), words, args.seeds)
    return dataclasses.replace(suite, name=name_of_words(suite))  # so that each has a folder of its own


class Progress:
    """Lines about what ended; on a terminal, also one that is drawn again and again about what is running."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._drawn = 0.0

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def see(self, ended: int, failed: int, count: int, running: Sequence[str], left_s: float | None) -> None:
        """Draw the line that does not stay."""
        if not self._live or time.monotonic() < self._drawn + DRAWN_S:
            return
        self._drawn = time.monotonic()
        told = f"{ended}/{count}" + (f", {failed} failed" if failed else "")
        told += f", about {duration(left_s)} left" if left_s is not None else ""
        width = shutil.get_terminal_size((100, 24)).columns + 3  # what clears the line takes no room
        print(f"\r\x1b[K{told}: {', '.join(running)}"[:width], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take that line away."""
        if self._live and self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# -- tables -----------------------------------------------------------------------------------------------


def table(results: Results) -> str:
    """Per environment, form and algorithm the last evaluation's score and success over seeds."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in results.records:
        groups.setdefault(record.place[:3], []).append(record)
    rows = []
    for place in sorted(groups):
        ends = [record.final.metrics for record in groups[place] if record.final is not None]
        failed = len(groups[place]) - len(ends)
        score, success = (spread([end[name] for end in ends]) for name in ("score", "success"))
        rows.append((" ".join(place), score, success, str(len(ends)), str(failed) if failed else ""))
    header = ("last evaluation, mean over seeds", "score", "success", "seeds", "failed")
    note = "± half of a 95 % interval over seeds (Student's t), which knows nothing of other warm starts or tasks."
    return f"{terminal.table(header, rows)}\n{note}"


def spread(values: Sequence[float]) -> str:
    """Mean ± half the 95 % t interval; the mean alone where one value says nothing about others."""
    if not values:
        return "–"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    from collm_agents.resampling import t_quantile

    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.3f} ± {t_quantile(len(values) - 1) * math.sqrt(variance / len(values)):.3f}"


def plan(bench: Benchmark) -> str:
    """What a call would do: how many runs, of what, and how long they may take."""
    suite, missing = bench.suite, bench.missing()
    counts: dict[tuple[str, str, str], list[int]] = {}
    for one in bench.places:
        own = counts.setdefault((one.run.environment, one.run.task, one.run.algorithm), [0, 0])
        own[0] += 1
        own[1] += one in missing
    rows = [(" ".join(place), str(number), str(left)) for place, (number, left) in counts.items()]
    unit, amount = suite.budget
    each = f"{amount:,.0f} {'seconds of training' if unit == 'wall_s' else unit.replace('_', ' ')}"
    apart = " (some environments have their own)" if any(arena.budget for arena in suite.environments) else ""
    ways = (
        " both sampled and greedy" if len(suite.greedy) > 1 else " greedy" if suite.greedy == (True,) else ""
    )
    return "\n".join(
        [
            terminal.table(("runs", "count", "missing"), rows),
            f"\nsuite {suite.name}: {len(bench.places)} runs, {len(missing)} missing, in {bench.out}",
            f"each: {each}{apart}; {suite.points} evaluations of {suite.tasks} episodes, the last of "
            f"{FINAL_TIMES * suite.tasks}{ways}",
            *_estimate(bench, [place.run for place in missing]),
        ]
    )


def _estimate(bench: Benchmark, missing: Sequence[Run]) -> Iterator[str]:
    """Lines on time, from runs that are done here, else from rates that were measured once."""
    seconds = [guess for run in missing if (guess := bench.guess_s(run)) is not None]
    if not missing:
        yield "nothing is left to do"
    elif not seconds:
        yield "time: nobody knows; runs that are done tell, so finish one and ask again"
    else:
        at_once = bench.at_once or 1
        whole = sum(seconds) / len(seconds) * len(missing)
        each, known = duration(whole / len(missing)), f"{len(seconds)} of {len(missing)}"
        yield f"time: about {duration(whole / at_once)} with {at_once} at a time, {each} each (known: {known})"
        yield "      by what was measured, within a factor of two or three"
