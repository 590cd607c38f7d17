"""What a report's tables, figures and page are made of: every statistic of a benchmark, computed once.

For `report` and `figures`. Selects runs and calls `stats`; formats and draws nothing. A failed run is counted and
in no mean. Normalised values are 0 for the novice and 1 for the oracle of the run's own environment and task.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collm_agents import stats
from collm_agents.records import AXES, Point, Record, Results
from collm_envs.errors import InputError, suggest

Floats = npt.NDArray[np.float64]
FIRST_METRICS = ("score", "return", "success")
RATES = ("success", "truncated_episodes", "truncated_replies")
MAX_METRICS = 8  # how many the page offers; each costs every curve once more
QUANTITIES = {
    "final": "last evaluation",
    "gain": "gain",
    "area": "mean over training",
    "halfway": "samples to half-way",
}
AGGREGATES = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality_gap": "optimality gap"}
DRAWS = 2000
SIDE_DRAWS = 500  # of what the page shows when it is filtered, or set to another metric than the report's
CELLS = 2 * 10**7  # numbers that one bootstrap may hold at once; larger comparisons get fewer resamples
MAX_GRID = 41
ALIKE = 0.9  # of the longest run's joint samples: from there on runs differ by a rollout that is played to its end
ALL = None  # stands for every environment, or every task, of a scope
Place = tuple[str, str]


class Curve(NamedTuple):
    """A mean curve with its band; arrays [G]."""

    x: Floats
    band: stats.Band


@dataclass(frozen=True)
class Group:
    """The runs of one algorithm on one environment and task.

    Attributes:
        place: environment and task.
        algorithm: its label.
        runs: those that came to their end.
        failed: number of those that did not.
        stats: metric -> quantity of `QUANTITIES` -> mean over runs with its interval; `halfway` is that of the
            mean curve, infinite where it is never reached.
        reached: metric -> number of runs whose own curve gets half-way.
        curves: metric -> axis -> curve.
    """

    place: Place
    algorithm: str
    runs: tuple[Record, ...]
    failed: int
    stats: Mapping[str, Mapping[str, stats.Interval]]
    reached: Mapping[str, int]
    curves: Mapping[str, Mapping[str, Curve]]

    @property
    def spans(self) -> tuple[int, int]:
        """Joint samples of the shortest and the longest finished run, (0, 0) of none."""
        ends = [max(p.joint_samples for p in (*run.points, _final(run))) for run in self.runs]
        return min(ends, default=0), max(ends, default=0)


@dataclass(frozen=True)
class Scope:
    """All algorithms on some environments and tasks, normalised.

    Attributes:
        places: environments and tasks that count here.
        aggregates: algorithm -> name in `AGGREGATES` -> interval.
        tasks: algorithm -> number of places it has runs on.
        runs: algorithm -> number of finished runs on them.
        failed: algorithm -> number of failed runs on them, and on places where no run came to its end; an
            algorithm may have these alone.
        ranks: algorithm -> mean rank; empty where the algorithms share no place.
        ranked: number of places that the ranks are over.
        better: pairs of algorithms -> probability of improvement of the first over the second; in the report's
            metric only.
        thresholds: of the profiles, [G].
        profiles: algorithm -> share of runs above each threshold.
        draws: fewest resamples that an interval here is made of.
    """

    places: tuple[Place, ...]
    aggregates: Mapping[str, Mapping[str, stats.Interval]]
    tasks: Mapping[str, int]
    runs: Mapping[str, int]
    failed: Mapping[str, int]
    ranks: Mapping[str, stats.Interval]
    ranked: int
    better: Mapping[tuple[str, str], stats.Interval]
    thresholds: Floats
    profiles: Mapping[str, stats.Band]
    draws: int

    @property
    def rows(self) -> list[tuple[str, Mapping[str, stats.Interval]]]:
        """Algorithms with their aggregates; those of which every run failed come last and have none."""
        lost = sorted(name for name, n in self.failed.items() if n and name not in self.aggregates)
        return [*self.aggregates.items(), *((name, {}) for name in lost)]


@dataclass(frozen=True)
class Numbers:
    """Everything that a report says.

    Attributes:
        results: the runs themselves.
        metric: the one that the tables are about.
        metrics: those that the page offers.
        left_out: those that it does not.
        groups: by place and algorithm.
        scopes: (environment or ALL, task or ALL, metric) -> scope.
        not_normalised: places of finished runs without a novice and an oracle that differ in `metric`.
    """

    results: Results
    metric: str
    metrics: tuple[str, ...]
    left_out: tuple[str, ...]
    groups: tuple[Group, ...]
    scopes: Mapping[tuple[str | None, str | None, str], Scope]
    not_normalised: tuple[Place, ...]

    @property
    def overall(self) -> Scope | None:
        """The scope of everything in `metric`; None where nothing can be normalised."""
        return self.scopes.get((ALL, ALL, self.metric))


def compute(results: Results, metric: str = "score") -> Numbers:
    """All numbers of a report.

    Args:
        results: the runs.
        metric: what the tables are about.

    Raises:
        InputError: when there is no run, or no finished run has this metric.
    """
    if not results.records:
        raise InputError("the results hold no run")
    known = {name for run in results.done for name in _final(run).metrics}
    if results.done and metric not in known:
        raise InputError(f"no run has the metric {metric!r}{suggest(metric, sorted(known))}")
    names = [metric, *(name for name in FIRST_METRICS if name in known and name != metric)]
    names += sorted(known - set(names))
    metrics = tuple(names[:MAX_METRICS])
    by_group: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for run in results.records:
        by_group[run.place[:3]].append(run)
    groups = tuple(_group(runs, metrics) for _, runs in sorted(by_group.items()))
    return Numbers(
        results=results,
        metric=metric,
        metrics=metrics,
        left_out=tuple(names[MAX_METRICS:]),
        groups=groups,
        scopes=_scopes(groups, metrics),
        not_normalised=tuple(
            sorted({g.place for g in groups if g.runs and not _normalised(g.runs, metric).size})
        ),
    )


def unequal(spans: Iterable[tuple[int, int]]) -> bool:
    """Whether some runs are much shorter than others, so that their curves do not end together."""
    ends = [end for span in spans for end in span]
    return min(ends, default=0) < ALIKE * max(ends, default=0)


def _final(run: Record) -> Point:
    assert run.final is not None  # only of finished runs
    return run.final


def finite(values: Iterable[float | None]) -> Floats:
    """Those values that are numbers."""
    found = np.array([np.nan if value is None else value for value in values], dtype=float)
    return found[np.isfinite(found)]


def level_of(run: Record, kind: str, metric: str) -> float | None:
    """A reference's mean, or None where it is not known."""
    value = run.references.get(kind, {}).get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _normalised(runs: Iterable[Record], metric: str) -> Floats:
    """Last values of those runs that can be normalised, [R]."""
    found = []
    for run in runs:
        low, high = level_of(run, "novice", metric), level_of(run, "oracle", metric)
        if metric in _final(run).metrics and low is not None and high is not None and low != high:
            found.append(run.normalised(_final(run).metrics[metric], metric))
    return finite(found)


# -- one algorithm on one task -----------------------------------------------------------------------------


def points_of(run: Record, metric: str, axis: str) -> tuple[Floats, Floats]:
    """A run's curve: x strictly increasing and y, without what is no number; of points at one x the last."""
    found: dict[float, float] = {}
    for point in run.points:
        x, y = float(getattr(point, axis)), point.metrics.get(metric)
        if y is not None and math.isfinite(x) and math.isfinite(y):
            found[x] = float(y)
    at = sorted(found)
    return np.array(at), np.array([found[x] for x in at])


def _group(records: Sequence[Record], metrics: Sequence[str]) -> Group:
    runs = tuple(run for run in records if run.final is not None)
    first = records[0]
    told, reached, curves = {}, {}, {}
    for metric in metrics:
        own = {axis: [points_of(run, metric, axis) for run in runs] for axis in AXES}
        curves[metric] = {axis: found for axis in AXES if (found := _curve(own[axis])) is not None}
        told[metric], reached[metric] = _quantities(runs, metric, own["joint_samples"], curves[metric])
    return Group(first.place[:2], first.algorithm, runs, len(records) - len(runs), told, reached, curves)


def _quantities(
    runs: Sequence[Record],
    metric: str,
    own: Sequence[tuple[Floats, Floats]],
    curves: Mapping[str, Curve],
) -> tuple[dict[str, stats.Interval], int]:
    """Intervals by quantity, and how many runs get half-way from the novice to the oracle."""
    last = [_final(run).metrics.get(metric) for run in runs]
    gains = [end - y[0] for end, (_, y) in zip(last, own, strict=True) if end is not None and len(y)]
    areas = [stats.area_under_curve(x, y) for x, y in own if len(x) > 1]
    values = {"final": finite(last), "gain": finite(gains), "area": finite(areas)}
    found = {name: stats.confidence(v, "mean", draws=_draws(len(v))) for name, v in values.items() if len(v)}
    if metric in RATES and "final" in found:  # an interval need not know that a rate ends at 0 and 1
        low, high = np.clip(found["final"][1:3], 0, 1).tolist()
        found["final"] = found["final"]._replace(low=low, high=high)
    levels = [(level_of(run, "novice", metric), level_of(run, "oracle", metric)) for run in runs]
    known = [(a, b) for a, b in levels if a is not None and b is not None and a < b]
    if not known:
        return found, 0
    half = sum(known[0]) / 2
    reached = sum(math.isfinite(stats.samples_to(x, y, half)) for x, y in own if len(x))
    if "joint_samples" in curves:
        curve = curves["joint_samples"]
        there = np.isfinite(curve.band.mean)
        at = stats.samples_to(curve.x[there], curve.band.mean[there], half)
        note = "" if math.isfinite(at) else "the mean curve does not get half-way"
        found["halfway"] = stats.Interval(at, math.nan, math.nan, "none", len(own), note=note)
    return found, reached


def _curve(own: Sequence[tuple[Floats, Floats]]) -> Curve | None:
    """The mean curve on the span that all runs share, or on all of it where they share none."""
    curves = [(x, y) for x, y in own if len(x)]
    if not curves:
        return None
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if start < end or (start == end and len(grid) == 1):
        grid = grid[(grid >= start) & (grid <= end)]
        if len(grid) > MAX_GRID:
            grid = np.linspace(start, end, MAX_GRID)
    return Curve(grid, stats.band(stats.interpolate(curves, grid)))


# -- all algorithms ----------------------------------------------------------------------------------------


def _scopes(
    groups: Sequence[Group], metrics: Sequence[str]
) -> dict[tuple[str | None, str | None, str], Scope]:
    """Scopes of every filter, in the report's metric and the first ones."""
    environments = [ALL, *sorted({g.place[0] for g in groups})]
    tasks = [ALL, *sorted({g.place[1] for g in groups})]
    found: dict[tuple[str | None, str | None, str], Scope] = {}
    for metric in [name for name in metrics if name in (metrics[0], *FIRST_METRICS)]:
        values = {(g.place, g.algorithm): v for g in groups if (v := _normalised(g.runs, metric)).size}
        known: dict[tuple[Place, ...], Scope] = {}  # one task of one environment is also that environment
        places = {place for place, _ in values}
        unseen = {g.place for g in groups} - {g.place for g in groups if g.runs}
        for environment, task in itertools.product(environments, tasks):
            within = {p for p in places | unseen if environment in (ALL, p[0]) and task in (ALL, p[1])}
            chosen = tuple(sorted(within & places))
            if chosen:
                if chosen not in known:  # that of everything comes first
                    most = DRAWS if metric == metrics[0] and not known else SIDE_DRAWS
                    known[chosen] = _scope(chosen, values, most, pairs=metric == metrics[0])
                failed = Counter[str]()
                for g in groups:
                    failed[g.algorithm] += g.failed if g.place in within else 0
                found[environment, task, metric] = replace(known[chosen], failed=failed)
    return found


def _scope(
    places: tuple[Place, ...], values: Mapping[tuple[Place, str], Floats], most: int, *, pairs: bool
) -> Scope:
    algorithms = sorted({name for place, name in values if place in places})
    scores = {a: [values[p, a] for p in places if (p, a) in values] for a in algorithms}
    draws = {a: _draws(sum(map(len, v)), most) for a, v in scores.items()}
    pooled = np.concatenate([v for own in scores.values() for v in own])
    thresholds = np.linspace(min(0.0, max(-1.0, pooled.min())), max(1.0, min(2.0, pooled.max())), MAX_GRID)
    ranked = [p for p in places if all((p, a) in values for a in algorithms)]
    rank_draws = _draws(len(algorithms) ** 2 * max(1, len(ranked)), most)
    better = {}
    for a, b in itertools.combinations(algorithms, 2) if pairs else ():
        shared = [(values[p, a], values[p, b]) for p in places if (p, a) in values and (p, b) in values]
        if shared:
            draws[f"{a}, {b}"] = count = _draws(sum(len(x) + len(y) for x, y in shared), most)
            one, other = [x for x, _ in shared], [y for _, y in shared]
            better[a, b] = stats.probability_of_improvement(one, other, draws=count)
    return Scope(
        places=places,
        aggregates={
            a: {name: stats.confidence(own, name, draws=draws[a]) for name in AGGREGATES}
            for a, own in scores.items()
        },
        tasks={a: len(own) for a, own in scores.items()},
        runs={a: sum(map(len, own)) for a, own in scores.items()},
        failed={},
        ranks=stats.ranks({a: [values[p, a] for p in ranked] for a in algorithms}, draws=rank_draws)
        if ranked
        else {},
        ranked=len(ranked),
        better=better,
        thresholds=thresholds,
        profiles={a: stats.performance_profile(own, thresholds, draws=draws[a]) for a, own in scores.items()},
        draws=min([rank_draws, *draws.values()]),
    )


def _draws(cells: int, most: int = DRAWS) -> int:
    """Resamples for a bootstrap that holds so many numbers for each."""
    return max(100, min(most, CELLS // max(1, cells)))


def ways(intervals: Iterable[stats.Interval]) -> list[str]:
    """How intervals came about, each way once: method, runs, measured coverage, and what must be known."""
    found: dict[str, None] = {}
    for interval in intervals:
        found[way(interval)] = None
    return list(found)


def way(interval: stats.Interval) -> str:
    """How one interval came about."""
    if interval.n == 1:
        return "single run, no interval"
    if interval.method == "none":
        return interval.note or "no interval"
    told = f"measured coverage {interval.covers}" if interval.covers else "coverage not measured"
    note = f" ({interval.note})" if interval.note else ""
    return f"{interval.method}, n = {interval.n}, {told}{note}"
