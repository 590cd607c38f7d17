"""What a benchmark says about the paper's statements, and about its ablations: effects, intervals, verdicts.

    python -m benchmarks.statements benchmarks/results/mini-core.json
    python -m benchmarks.statements A.json B.json --contrasts mc-paths:mc-tree,cc-lam95:collm-cc
    python -m benchmarks.statements A.json --contrasts collm-cc:mc-tree --each

Values are normalised (novice 0, oracle 1): *end* is the last evaluation, *course* the mean over training. Effects
are differences of means over environments and seeds, with 95 % intervals by `stats.difference` (studentised below
20 runs). The rules were written when only one seed of mini-core had been seen:

- comparable: every interval within ±0.1 is *supported*; one beyond it on either side, *not supported*.
- ahead, and needs more samples (course): all intervals above 0 are *supported*; one below 0.1, *not supported*.
- does not converge (gain from start to end): below 0.1 is *supported*; above 0, *not supported*.

Anything else is *undecided at this power*. Several intervals in one rule are not corrected for being several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collm_agents.records import Record, read_results
from collm_agents.resampling import Interval
from collm_agents.stats import area_under_curve, confidence, difference
from collm_envs.errors import InputError

MARGIN = 0.1  # of the way from the novice to the oracle: less is no effect that anybody would pay for
SUPPORTED, REFUTED, OPEN = "supported", "not supported", "undecided at this power"
MC, CC, DC = "mc-tree", "collm-cc", "collm-dc"

Measure = Callable[[Record], float]


def end(run: Record) -> float:
    """The last evaluation, normalised."""
    assert run.final is not None
    return run.normalised(run.final.metrics["score"])


def course(run: Record) -> float:
    """The mean over training, normalised: learning early counts."""
    at = [point.joint_samples for point in run.points]
    return area_under_curve(at, [run.normalised(point.metrics["score"]) for point in run.points])


def gain(run: Record) -> float:
    """End minus start, normalised."""
    return end(run) - run.normalised(run.points[0].metrics["score"])


@dataclass(frozen=True)
class Effect:
    """One number with its interval.

    Attributes:
        name: what it is.
        found: estimate and interval; `n` is the fewest runs of a task.
    """

    name: str
    found: Interval

    def __str__(self) -> str:
        return f"{self.name} {self.found.estimate:+.2f} ({self.found.low:+.2f} to {self.found.high:+.2f})"


def values(
    runs: Iterable[Record], algorithm: str, forms: Sequence[str], measure: Measure
) -> list[list[float]]:
    """One list of runs per environment and form, in an order of their own.

    Raises:
        InputError: where there is no run.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        if run.algorithm == algorithm and run.task in forms:
            found.setdefault((run.environment, run.task), []).append(measure(run))
    if not found:
        raise InputError(f"no finished run of {algorithm} in {', '.join(forms)}")
    return [found[place] for place in sorted(found)]


def ahead(runs: Sequence[Record], a: str, b: str, forms: Sequence[str], measure: Measure) -> Effect:
    """How far `a` is ahead of `b`."""
    one, other = (values(runs, name, forms, measure) for name in (a, b))
    return Effect(f"{a} − {b}", difference(one, other, "mean"))


def comparable(effects: Sequence[Effect]) -> str:
    """All within the margin."""
    if all(e.found.low > -MARGIN and e.found.high < MARGIN for e in effects):
        return SUPPORTED
    return REFUTED if any(e.found.low > MARGIN or e.found.high < -MARGIN for e in effects) else OPEN


def above(effects: Sequence[Effect]) -> str:
    """All above zero."""
    if all(e.found.low > 0 for e in effects):
        return SUPPORTED
    return REFUTED if any(e.found.high < MARGIN for e in effects) else OPEN


def flat(effects: Sequence[Effect]) -> str:
    """None rises."""
    if all(e.found.high < MARGIN for e in effects):
        return SUPPORTED
    return REFUTED if any(e.found.low > 0 for e in effects) else OPEN


def statements(runs: Sequence[Record]) -> list[tuple[str, list[Effect], str]]:
    """The paper's statements with what was measured and the verdict.

    Args:
        runs: finished ones, of `mc-tree`, `collm-cc`, `collm-dc`, forms `dense-h2` to `sparse-h4`.
    """

    def pair(a: str, b: str, measure: Measure, *forms: str) -> Effect:
        return ahead(runs, a, b, forms, measure)

    def gains(algorithm: str, form: str) -> Effect:
        return Effect(f"gain of {algorithm}", confidence(values(runs, algorithm, [form], gain), "mean"))

    short = [pair(CC, MC, end, "dense-h2"), pair(DC, MC, end, "dense-h2"), pair(CC, DC, end, "dense-h2")]
    found = [("Short and dense (2 turns): all three end alike", short, comparable(short))]
    for form, told in (("sparse-h2", "2 turns"), ("sparse-h4", "4 turns")):
        course_of = [pair(CC, MC, course, form)]
        found.append((f"Sparse, {told}: MC needs more samples (course)", course_of, above(course_of)))
    for form in ("dense-h4", "sparse-h4"):
        kind = form.partition("-")[0]
        gained = [gains(DC, form)]
        found.append((f"Long (4 turns), {kind}: DC does not converge", gained, flat(gained)))
        best = [pair(CC, MC, end, form), pair(CC, DC, end, form)]
        found.append((f"Long (4 turns), {kind}: CC ends ahead", best, above(best)))
    return found


def levels(runs: Sequence[Record]) -> list[str]:
    """Lines of a table: every form's means by algorithm."""
    algorithms = sorted({run.algorithm for run in runs})
    lines = [
        f"| environment, form | {' | '.join(f'{a}: end (course), n' for a in algorithms)} |",
        "|---" * (1 + len(algorithms)) + "|",
    ]
    for place in sorted({(run.environment, run.task) for run in runs}):
        cells = []
        for algorithm in algorithms:
            own = [run for run in runs if (run.environment, run.task) == place and run.algorithm == algorithm]
            ends, courses = [end(run) for run in own], [course(run) for run in own]
            cells.append(
                f"{sum(ends) / len(own):.2f} ({sum(courses) / len(own):.2f}), {len(own)}" if own else "–"
            )
        lines.append(f"| {', '.join(place)} | {' | '.join(cells)} |")
    return lines


def contrasts(runs: Sequence[Record], asked: Sequence[tuple[str, str]], *, each: bool = False) -> list[str]:
    """Lines of a table: what each variant changes beside its reference, on the places and seeds of both.

    Args:
        runs: those that are done.
        asked: variant and reference.
        each: a table for every place on its own.

    Raises:
        InputError: where two labels have no place and seed in common.
    """
    if each:
        found = []
        for place in sorted({(run.environment, run.task) for run in runs}):
            there = [run for run in runs if (run.environment, run.task) == place]
            low, high = (there[0].references[kind]["score"] for kind in ("novice", "oracle"))
            found += [
                f"{' '.join(place)} (novice {low:.3g}, oracle {high:.3g}):",
                "",
                *contrasts(there, asked),
                "",
            ]
        return found
    lines = ["| variant | beside | places × seeds | end | course |", "|---" * 5 + "|"]
    by: Mapping[str, dict[tuple[str, str, int], Record]] = {
        name: {(r.environment, r.task, r.seed): r for r in runs if r.algorithm == name}
        for pair in asked
        for name in pair
    }
    for variant, reference in asked:
        both = sorted(by[variant].keys() & by[reference].keys())
        if not both:
            raise InputError(f"{variant} and {reference} have no place and seed in common")
        sides = [[by[name][place] for place in both] for name in (variant, reference)]
        shared = [run for side in sides for run in side]
        forms = sorted({task for _, task, _ in both})
        cells = [
            str(ahead(shared, variant, reference, forms, m)).partition(f"{reference} ")[2]
            for m in (end, course)
        ]
        places = len({place[:2] for place in both})
        lines.append(
            f"| {variant} | {reference} | {places} × {len(both) // places} | {cells[0]} | {cells[1]} |"
        )
    return lines


def main(words: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.statements", description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, help="merged results of `collm bench`")
    parser.add_argument("--contrasts", help="VARIANT:REFERENCE,… in place of the paper's statements")
    parser.add_argument("--each", action="store_true", help="contrasts at every place on its own")
    options = parser.parse_args(words)
    try:
        runs = [run for file in options.results for run in read_results(file).done]
        print("\n".join(levels(runs)), end="\n\n")
        if options.contrasts:
            pairs = [pair.partition(":")[::2] for pair in options.contrasts.split(",")]
            print("\n".join(contrasts(runs, pairs, each=options.each)))
            return 0
        print("| statement of the paper | measured | verdict |\n|---|---|---|")
        for told, effects, verdict in statements(runs):
            print(f"| {told} | {'; '.join(map(str, effects))} | **{verdict}** |")
    except InputError as error:
        print(f"benchmarks.statements: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
