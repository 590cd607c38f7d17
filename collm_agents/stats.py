"""Statistics of comparisons between algorithms over runs and tasks: aggregates, intervals, profiles, ranks, curves.

For reports. Pure functions of arrays; nothing here reads files, draws or knows a model. Scores are normalised, 0
the start and 1 the oracle. `Scores` of one algorithm are an array [R, M] of R runs and M tasks, an array [R] of one
task, or a sequence of M arrays whose numbers of runs may differ; every other value raises `InputError`. Tasks are
fixed and runs are drawn: resamples are stratified by task. The order of runs plays no part in any result.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collm_agents.resampling import (
    STATISTICS,
    Floats,
    Interval,
    Scores,
    improvement,
    no_interval,
    resampled,
    strata,
    t_quantile,
    with_coverage,
)
from collm_envs.errors import InputError, require_choice

# Where coverage was simulated: light tails, tails to either side, runs that either fail or succeed alike often, and
# rare failures, one run in ten, of which few runs often hold none.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(0.5, 0.15, shape),
    "low": lambda rng, shape: rng.beta(2, 5, shape),
    "high": lambda rng, shape: rng.beta(8, 2, shape),
    "bimodal": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.2, 0.8) + rng.normal(0, 0.05, shape),
    "rare": lambda rng, shape: np.where(rng.random(shape) < 0.1, 0.1, 0.9) + rng.normal(0, 0.02, shape),
}


class Band(NamedTuple):
    """A curve with a pointwise 95 % band; arrays [G]. `n` counts the runs at each point."""

    mean: Floats
    low: Floats
    high: Floats
    n: npt.NDArray[np.int64]


def mean(scores: Scores) -> float:
    """Mean over tasks of the mean over runs."""
    return _estimate("mean", scores)


def median(scores: Scores) -> float:
    """Median over tasks of the mean over runs (Agarwal et al. 2021, section 2)."""
    return _estimate("median", scores)


def iqm(scores: Scores) -> float:
    """Interquartile mean: of all N runs of all tasks, without the lowest and the highest ⌊N/4⌋.

    Whole runs are cut, as `scipy.stats.trim_mean` and rliable do. With unequal numbers of runs a task weighs as
    much as it has runs (Agarwal et al. 2021, section 4.3).
    """
    return _estimate("iqm", scores)


def optimality_gap(scores: Scores) -> float:
    """Mean over tasks and runs of 1 − min(score, 1): what is lacking to the oracle; lower is better.

    Agarwal et al. 2021, section 4.3, with γ = 1.
    """
    return _estimate("optimality_gap", scores)


def _estimate(statistic: str, scores: Scores) -> float:
    return float(STATISTICS[statistic](strata(scores))[0])


def confidence(
    scores: Scores,
    statistic: str = "iqm",
    *,
    level: float = 0.95,
    method: str = "auto",
    seed: int = 0,
    draws: int = 2000,
) -> Interval:
    """An aggregate with a stratified bootstrap interval.

    The methods are those of `resampling.resampled`; `auto` studentises below 20 runs per task and takes widened
    percentiles from there on.

    Args:
        scores: of one algorithm, see the module.
        statistic: a name in `STATISTICS`.
        level: nominal coverage, between 0 and 1.
        method: one of `METHODS`.
        seed: seed of the resampling.
        draws: resamples.

    Returns:
        The interval. With a single run of some task it has no ends, and a note says so.

    Raises:
        InputError: on scores that are none, an unknown statistic or method.
    """
    require_choice("statistic", statistic, list(STATISTICS), "stats.confidence")
    tasks = strata(scores)
    found = resampled(tasks, STATISTICS[statistic], method, level, seed, draws)
    return with_coverage(found, statistic, method, len(tasks))


def difference(
    a: Scores,
    b: Scores,
    statistic: str = "iqm",
    *,
    level: float = 0.95,
    method: str = "auto",
    seed: int = 0,
    draws: int = 2000,
) -> Interval:
    """The aggregate of `a` minus that of `b` over the same tasks, with an interval by the rules of `confidence`.

    Its `coverage` is that of one aggregate: differences of two like algorithms were never measured below it.

    Args:
        a: scores of one algorithm.
        b: scores of the other, the tasks in the same order.
        statistic: a name in `STATISTICS`.
        level: nominal coverage.
        method: one of `METHODS`.
        seed: seed of the resampling.
        draws: resamples.

    Raises:
        InputError: as `confidence`; other tasks.
    """
    require_choice("statistic", statistic, list(STATISTICS), "stats.difference")
    rule, (first, second) = STATISTICS[statistic], _both(a, b)
    tasks = len(first)

    def apart(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
        (x, u), (y, v) = rule(groups[:tasks]), rule(groups[tasks:])
        return x - y, u + [-part for part in v]

    found = resampled(first + second, apart, method, level, seed, draws)
    return with_coverage(found, statistic, method, tasks)


def probability_of_improvement(
    a: Scores, b: Scores, *, level: float = 0.95, method: str = "auto", seed: int = 0, draws: int = 2000
) -> Interval:
    """P(X > Y) + ½ P(X = Y) for runs X of `a` and Y of `b` on one task, averaged over tasks, with an interval.

    Per task the Mann–Whitney statistic by the number of pairs (Agarwal et al. 2021, section 4.3). Where one side
    wins every pair there is no spread to resample; the end is then (α/2)^(1/D), the Clopper–Pearson bound of D
    won pairs (`exact`), where D is the number of tasks M times d, the fewest disjoint pairs of a task. With p_m
    the chance on task m, to win all has at most the chance ∏ p_m^d ≤ (mean p_m)^(M·d), so that a mean below the
    bound is met with at most α/2. Pairs that a task has beyond d count for nothing, since a mean weighs tasks
    alike: a task with many runs says nothing of one with few.

    Args:
        a: scores of one algorithm.
        b: scores of the other, the tasks in the same order.
        level: nominal coverage.
        method: one of `METHODS`.
        seed: seed of the resampling.
        draws: resamples.

    Raises:
        InputError: on scores that are none, or other tasks.
    """
    first, second = _both(a, b)
    found = resampled(first + second, improvement, method, level, seed, draws)
    side = round(found.estimate, 12)
    if found.n > 1 and side in (0, 1):
        bound = ((1 - level) / 2) ** (1 / (len(first) * found.n))
        low, high = (bound, 1.0) if side == 1 else (0.0, 1 - bound)
        return Interval(side, low, high, "exact", found.n, None, "one side wins every pair", level)
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high)) if found.n > 1 else found


def performance_profile(
    scores: Scores, thresholds: npt.ArrayLike, *, level: float = 0.95, seed: int = 0, draws: int = 2000
) -> Band:
    """The share of runs with a score above τ, averaged over tasks, with pointwise bootstrap bands.

    The run-score distribution of Agarwal et al. 2021, section 4.2. The bands are percentiles, widened by
    √(R/(R − 1)) and kept within [0, 1]; they hold point by point, not for the whole curve, and have no width where
    all runs agree.

    Args:
        scores: of one algorithm.
        thresholds: τ, [G].
        level: nominal coverage at each point.
        seed: seed of the resampling.
        draws: resamples.

    Returns:
        The band over the thresholds; ends are NaN with a single run of some task.
    """
    groups, at = strata(scores), np.asarray(thresholds, dtype=float)
    rng, share, moved = np.random.default_rng(seed), np.zeros(at.shape), np.zeros((draws, len(at)))
    for runs in groups:
        above, n = (runs[:, None] > at).astype(float), len(runs)
        share += above.mean(axis=0) / len(groups)
        weight = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
        moved += (weight @ above - above.mean(axis=0)) * math.sqrt(n / max(1, n - 1)) / len(groups)
    n = min(map(len, groups))
    low, high = np.clip(share + np.quantile(moved, ((1 - level) / 2, (1 + level) / 2), axis=0), 0, 1)
    if n == 1:
        low, high = np.full((2, len(at)), np.nan)
    return Band(share, low, high, np.full(at.shape, n))


def ranks(
    algorithms: Mapping[str, Scores], *, level: float = 0.95, seed: int = 0, draws: int = 2000
) -> dict[str, Interval]:
    """Mean rank of each algorithm over tasks, 1 the best; equal task means share the average of their ranks.

    Within a task algorithms are ranked by their mean over runs. The interval holds the percentiles of stratified
    resamples, the task means' distances widened by √(R/(R − 1)). A rank jumps where two means cross, so that no
    coverage is claimed: near ties the interval leans to the middle.

    Args:
        algorithms: name -> scores, all with the same tasks in the same order.
        level: nominal coverage.
        seed: seed of the resampling.
        draws: resamples.

    Raises:
        InputError: on no algorithm or unequal numbers of tasks.
    """
    groups = {name: strata(algorithms[name], name) for name in sorted(algorithms)}
    if len({len(tasks) for tasks in groups.values()}) != 1:
        raise InputError("ranks need algorithms with the same tasks")
    rng = np.random.default_rng(seed)
    means = np.array([[x.mean() for x in tasks] for tasks in groups.values()])  # [K, M]
    again = np.array([[rng.choice(x, (draws, len(x))).mean(1) for x in tasks] for tasks in groups.values()])
    size = np.array([[len(x) for x in tasks] for tasks in groups.values()])
    again = means + (np.moveaxis(again, -1, 0) - means) * np.sqrt(size / np.maximum(1, size - 1))
    every = np.concatenate([means[None], again]).round(12)  # sums in another order are still ties
    ahead = np.sign(every[:, None, :] - every[:, :, None])  # [draws + 1, K, rivals, M]
    rank = ((ahead + 1).sum(axis=2) / 2 + 0.5).mean(axis=-1)  # a rival counts 1, a tie ½, and oneself ½
    n = int(size.min())
    ends = np.quantile(rank[1:], ((1 - level) / 2, (1 + level) / 2), axis=0)
    found = {}
    for name, at, low, high in zip(groups, rank[0].tolist(), *ends.tolist(), strict=True):
        known = Interval(at, low, high, "percentile", n, level=level)
        found[name] = known if n > 1 else no_interval(at, level)
    return {name: found[name] for name in algorithms}


def area_under_curve(x: npt.ArrayLike, y: npt.ArrayLike, until: float | None = None) -> float:
    """Mean height of a learning curve from its first x to `until`: the trapezoid area by the span.

    Args:
        x: samples, tokens or seconds, [P], strictly increasing.
        y: scores, [P].
        until: end of the span, within the curve; default its last x.

    Raises:
        InputError: on an x that does not increase, NaN, or an end outside the curve.
    """
    at, height = _points(x, y)
    end = float(at[-1]) if until is None else until
    if not at[0] < end <= at[-1]:
        raise InputError(f"until={end:g} is not within the curve, which spans {at[0]:g} to {at[-1]:g}")
    inside = at < end
    at, height = np.append(at[inside], end), np.append(height[inside], np.interp(end, at, height))
    return float((np.diff(at) * (height[1:] + height[:-1]) / 2).sum() / (end - at[0]))


def samples_to(x: npt.ArrayLike, y: npt.ArrayLike, threshold: float) -> float:
    """The first x at which the linearly interpolated curve reaches a threshold; infinite if it never does.

    Args:
        x: samples, tokens or seconds, [P], strictly increasing.
        y: scores, [P].
        threshold: the score to reach.
    """
    at, height = _points(x, y)
    reached = np.flatnonzero(height >= threshold)
    if not len(reached):
        return math.inf
    i = int(reached[0])
    if i == 0:
        return float(at[0])
    return float(at[i - 1] + (at[i] - at[i - 1]) * (threshold - height[i - 1]) / (height[i] - height[i - 1]))


def interpolate(curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], grid: npt.ArrayLike) -> Floats:
    """Curves (x, y) of R runs on one grid [G]: linear between points, NaN outside a curve; [R, G]."""
    points = [_points(x, y) for x, y in curves]
    return np.array([np.interp(np.asarray(grid, dtype=float), x, y, np.nan, np.nan) for x, y in points])


def band(values: npt.ArrayLike) -> Band:
    """Mean and 95 % t interval at each point of a grid, over the runs that are not NaN there.

    Args:
        values: [R, G], as `interpolate` gives them.

    Returns:
        The band; its mean is NaN where there is no run, its ends where there are fewer than two.
    """
    x = np.asarray(values, dtype=float)
    there = ~np.isnan(x)
    n = there.sum(axis=0)
    centre = np.where(there, x, 0).sum(axis=0) / np.where(n > 0, n, np.nan)
    square = np.where(there, x - centre, 0) ** 2
    spread = square.sum(axis=0) / np.where(n > 1, n - 1, np.nan)
    half = np.array([t_quantile(max(1, k - 1)) for k in n.tolist()]) * np.sqrt(spread / np.maximum(n, 1))
    return Band(centre, centre - half, centre + half, n)


def measure_coverage(
    n: int,
    statistic: str = "mean",
    distribution: str = "normal",
    *,
    tasks: int = 1,
    method: str = "auto",
    compare: bool = False,
    repetitions: int = 2000,
    draws: int = 500,
    seed: int = 0,
) -> float:
    """The share of simulated 95 % intervals that hold the true value; `COVERAGE` and `RARE` are its least values.

    Args:
        n: runs per task.
        statistic: a name in `STATISTICS`.
        distribution: a name in `DISTRIBUTIONS`; every task has it.
        tasks: their number.
        method: one of `METHODS`.
        compare: of the difference of two such algorithms, whose true value is 0.
        repetitions: simulated experiments; 2000 leave a standard error of half a percent.
        draws: resamples of each.
        seed: seed of the simulation.
    """
    rng, hits, truth = np.random.default_rng(seed), 0, 0.0
    draw = DISTRIBUTIONS[distribution]
    if not compare:
        many = draw(np.random.default_rng(1), (10**6,))
        truth = float(STATISTICS[statistic]([many])[0])
    for i in range(repetitions):
        x = draw(rng, (n, tasks))
        if compare:
            found = difference(x, draw(rng, (n, tasks)), statistic, method=method, seed=i, draws=draws)
        else:
            found = confidence(x, statistic, method=method, seed=i, draws=draws)
        hits += found.low <= truth <= found.high
    return hits / repetitions


def _both(a: Scores, b: Scores) -> tuple[list[Floats], list[Floats]]:
    first, second = strata(a, "a"), strata(b, "b")
    if len(first) != len(second):
        raise InputError(f"a has {len(first)} tasks and b has {len(second)}")
    return first, second


def _points(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    at, height = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if at.ndim != 1 or at.shape != height.shape or not len(at):
        raise InputError(f"a curve needs as many x as y, not shapes {at.shape} and {height.shape}")
    if not (np.isfinite(at).all() and np.isfinite(height).all()):
        raise InputError("a curve holds NaN or an infinite value")
    if (np.diff(at) <= 0).any():
        raise InputError("the x of a curve must be sorted and each once")
    return at, height
