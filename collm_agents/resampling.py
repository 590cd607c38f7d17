"""Intervals of statistics over few runs: stratified resampling, widened percentiles and studentisation.

The machinery under `stats`, which holds what reports call. Pure functions of arrays; it knows neither an algorithm
nor a file.

Sources: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (stratified
bootstrap); Hall 1992, "The Bootstrap and Edgeworth Expansion", and Efron and Tibshirani 1993, chapter 12
(studentised intervals); Hesterberg 2015, "What Teachers Should Know About the Bootstrap" (widened percentiles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collm_envs.errors import InputError, require_choice

Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating] | Sequence[npt.ArrayLike]
# From groups of runs [..., R_g]: the statistic [...], and its linear part per run [..., R_g]. The squared standard
# error is the sum over groups of the parts' variance by R_g, as runs are independent.
Estimator = Callable[[list[Floats]], tuple[Floats, list[Floats]]]

METHODS = ("auto", "percentile", "widened", "studentised")
SMALL = 20  # below so many runs per task, `auto` studentises
UNSTABLE = 1.5  # a studentised interval so many times as wide as the widened one: resamples lack spread
# method -> runs per task -> share of 95 % intervals of mean and IQM that hold the true value, with one task and
# with four: the least over `stats.DISTRIBUTIONS` but `rare`, by `stats.measure_coverage` with 1500 to 4000
# repetitions. With one task and two or three runs it is that of runs that fail as often as not: all may agree.
COVERAGE: dict[str, dict[int, tuple[float, float]]] = {
    "percentile": {
        2: (0.49, 0.73),
        3: (0.72, 0.84),
        5: (0.83, 0.88),
        10: (0.89, 0.92),
        20: (0.91, 0.93),
        50: (0.93, 0.93),
    },
    "widened": {
        2: (0.69, 0.90),
        3: (0.73, 0.95),
        5: (0.93, 0.94),
        10: (0.93, 0.94),
        20: (0.94, 0.94),
        50: (0.93, 0.94),
    },
    "studentised": {2: (0.69, 0.90), 3: (0.73, 0.87), 5: (0.93, 0.94), 10: (0.89, 0.94)},
}

# The same of `rare` alone, where one run in ten fails. It falls with the rate of failures, down to that of no
# interval at all: where few runs hold no failure, nothing in them tells of any.
RARE: dict[str, dict[int, tuple[float, float]]] = {
    "percentile": {
        2: (0.18, 0.50),
        3: (0.28, 0.69),
        5: (0.38, 0.85),
        10: (0.63, 0.89),
        20: (0.85, 0.93),
        50: (0.92, 0.93),
    },
    "widened": {
        2: (0.64, 0.56),
        3: (0.35, 0.70),
        5: (0.38, 0.86),
        10: (0.64, 0.90),
        20: (0.86, 0.94),
        50: (0.94, 0.94),
    },
    "studentised": {2: (0.64, 0.56), 3: (0.35, 0.70), 5: (0.39, 0.86), 10: (0.64, 0.90)},
}


class Interval(NamedTuple):
    """An estimate with its interval.

    Attributes:
        estimate: the statistic of the runs at hand.
        low: lower end; NaN where no interval can be given.
        high: upper end.
        method: how the interval came about: one of `METHODS` without `auto`, `exact` or `none`.
        n: runs per task, the smallest over tasks and algorithms.
        coverage: the least measured share of such 95 % intervals that hold the true value (`COVERAGE`), where
            runs spread or fail often, or None where none was measured.
        note: what a reader must know, or "".
        level: the nominal level.
        rare: that share where one run in ten fails (`RARE`), or None where none was measured.
    """

    estimate: float
    low: float
    high: float
    method: str
    n: int
    coverage: float | None = None
    note: str = ""
    level: float = 0.95
    rare: float | None = None

    @property
    def covers(self) -> str:
        """The measured coverage in words, or ""."""
        if self.coverage is None:
            return ""
        rare = "" if self.rare is None else f", {100 * self.rare:.0f} % where one run in ten fails"
        return f"at least {100 * self.coverage:.0f} %{rare}"

    def __str__(self) -> str:
        known = f", measured {self.covers}" if self.covers else ""
        ends = "no interval" if math.isnan(self.low) else f"[{self.low:.3f}, {self.high:.3f}]"
        how = f"{100 * self.level:g} % {self.method}, n = {self.n}{known}"
        return f"{self.estimate:.3f} {ends} ({how})" + (f"; {self.note}" if self.note else "")


def runs_of(scores: Scores, name: str = "scores") -> list[Floats]:
    """The runs of each task as they come.

    Args:
        scores: array [R, M] or [R], or a sequence of M arrays [R_m].
        name: what an error calls them.

    Returns:
        M arrays [R_m].

    Raises:
        InputError: on no task, a task without runs, another shape, or a value that is NaN or infinite.
    """
    if isinstance(scores, np.ndarray):
        scores = list(scores.T) if scores.ndim == 2 else [scores]
    groups = [np.asarray(task, dtype=float) for task in scores]
    if not groups:
        raise InputError(f"{name}: no tasks")
    for m, runs in enumerate(groups):
        if runs.ndim != 1 or not len(runs):
            raise InputError(f"{name}: task {m} has shape {runs.shape}, not that of one or more runs")
        wrong = np.flatnonzero(~np.isfinite(runs))
        if len(wrong):
            raise InputError(
                f"{name}: task {m}, run {wrong[0]} is {runs[wrong[0]]}; NaN and inf are no scores"
            )
    return groups


def strata(scores: Scores, name: str = "scores") -> list[Floats]:
    """The runs of each task, sorted, so that their order can play no part; otherwise as `runs_of`."""
    return [np.sort(runs) for runs in runs_of(scores, name)]


def _mean(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
    parts = [x / len(groups) for x in groups]
    return sum((x.mean(axis=-1) for x in parts), np.zeros(())), parts


def _median(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
    means = np.stack([x.mean(axis=-1) for x in groups], axis=-1)
    place, tasks = means.argsort(axis=-1).argsort(axis=-1), len(groups)
    weight = ((place == (tasks - 1) // 2) + 1.0 * (place == tasks // 2)) / 2  # of the one or two middle tasks
    return np.median(means, axis=-1), [x * weight[..., m, None] for m, x in enumerate(groups)]


def _iqm(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
    pool = np.sort(np.concatenate(groups, axis=-1), axis=-1)
    cut, kept = pool.shape[-1] // 4, pool.shape[-1] - 2 * (pool.shape[-1] // 4)
    low, high = pool[..., cut, None], pool[..., cut + kept - 1, None]
    # The linear part of a trimmed mean is the winsorised value (Tukey and McLaughlin 1963).
    parts = [np.clip(x, low, high) * (x.shape[-1] / kept) for x in groups]
    return pool[..., cut : cut + kept].mean(axis=-1), parts


def _optimality_gap(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
    return _mean([1 - np.minimum(x, 1) for x in groups])


def improvement(groups: list[Floats]) -> tuple[Floats, list[Floats]]:
    """P(X > Y) + ½ P(X = Y), X of the first half of the groups and Y of the second, averaged over their pairs.

    Its linear parts are each run's share of wins (Hájek's projection of the two-sample U-statistic).
    """
    tasks = len(groups) // 2
    pairs = list(zip(groups[:tasks], groups[tasks:], strict=True))
    parts = [_share_below(x, y) / tasks for x, y in pairs] + [-_share_below(y, x) / tasks for x, y in pairs]
    return sum((u.mean(axis=-1) for u in parts[:tasks]), np.zeros(())), parts


def _share_below(x: Floats, y: Floats) -> Floats:
    """The share of a row's `y` below each of its `x`, equal ones half; rows are told apart within one search."""
    values = np.unique(np.concatenate([x, y], axis=None))
    row = np.arange(x[..., 0].size).reshape(x.shape[:-1])[..., None]
    at, among = (np.searchsorted(values, side) + row * len(values) for side in (x, y))
    flat = np.sort(among, axis=None)
    below = (np.searchsorted(flat, at) + np.searchsorted(flat, at, side="right")) / 2
    return (below - row * y.shape[-1]) / y.shape[-1]


STATISTICS: dict[str, Estimator] = {
    "mean": _mean,
    "median": _median,
    "iqm": _iqm,
    "optimality_gap": _optimality_gap,
}


def resampled(
    groups: list[Floats], rule: Estimator, method: str, level: float, seed: int, draws: int
) -> Interval:
    """The interval of a statistic, by one of `METHODS`.

    With θ the estimate, q the quantiles of the resampled θ*, and σ* each resample's own standard error:

    - `percentile`: [q(α/2), q(1 − α/2)], too narrow by √((R − 1)/R) and for the tails of t when runs are few;
    - `widened`: its distances from θ times √(R/(R − 1)) · t/z, with Welch–Satterthwaite degrees of freedom;
    - `studentised`: [θ − σ t*(1 − α/2), θ − σ t*(α/2)] with t* = (θ* − θ)/σ*. Where more than 1 % of the resamples
      have no spread, or it comes out `UNSTABLE` times as wide, the widened one stands in and is named;
    - `auto`: studentised below `SMALL` runs per group, else widened.

    Args:
        groups: of runs; the first axis is resampled within each group.
        rule: the statistic.
        method: one of `METHODS`.
        level: nominal coverage, between 0 and 1.
        seed: seed of the resampling.
        draws: resamples.

    Returns:
        The interval. With a single run in some group, or without any spread, its note says so.

    Raises:
        InputError: on an unknown method or a level that is none.
    """
    require_choice("method", method, METHODS, "stats")
    if not 0 < level < 1:
        raise InputError(f"level={level:g} is not between 0 and 1")
    value, parts = rule(groups)
    estimate, n = float(value), min(map(len, groups))
    if n == 1:
        return no_interval(estimate, level)
    rng, tails = np.random.default_rng(seed), ((1 - level) / 2, (1 + level) / 2)
    again, again_parts = rule([x[rng.integers(0, len(x), (draws, len(x)))] for x in groups])
    if np.ptp(again) <= 1e-12 * max(1.0, abs(estimate)):
        note = "resamples show no spread, which is no certainty: the width says nothing"
        return Interval(estimate, estimate, estimate, "none", n, None, note, level)
    if method == "auto":
        method = "studentised" if n < SMALL else "widened"
    distance = np.quantile(again - estimate, tails)
    widened = distance if method == "percentile" else distance * _widening(parts, level)
    low, high, note = estimate + widened[0], estimate + widened[1], ""
    if method == "studentised":
        error, errors = _error(parts), _error(again_parts)
        spread = errors > 1e-9 * error
        t = np.quantile((again - estimate)[spread] / errors[spread], tails) if spread.any() else np.zeros(2)
        width = error * (t[1] - t[0])
        if spread.mean() >= 0.99 and 0 < width <= UNSTABLE * (high - low):
            low, high = estimate - error * t[1], estimate - error * t[0]
        else:
            method, note = "widened", "too little spread in resamples to studentise"
    return Interval(estimate, float(low), float(high), method, n, None, note, level)


def _error(parts: list[Floats]) -> Floats:
    return np.sqrt(sum((u.var(axis=-1, ddof=1) / u.shape[-1] for u in parts), np.zeros(())))


def _widening(parts: list[Floats], level: float) -> float:
    """√(R/(R − 1)) · t/z, variances weighing the groups; Welch–Satterthwaite degrees of freedom."""
    size = np.array([u.shape[-1] for u in parts])
    variance = np.array([u.var(ddof=1) for u in parts]) / size
    if not variance.sum() > 0:
        variance = 1.0 / size
    freedom = variance.sum() ** 2 / (variance**2 / (size - 1)).sum()
    shrunk = (variance * (size - 1) / size).sum() / variance.sum()
    tail = t_quantile(max(1.0, round(float(freedom), 1)), level) / NormalDist().inv_cdf((1 + level) / 2)
    return tail / math.sqrt(shrunk)


def no_interval(estimate: float, level: float) -> Interval:
    """The estimate alone, as the spread over runs of a single one is unknown."""
    note = "a task with a single run: runs' spread is unknown, and no interval can be given"
    return Interval(estimate, math.nan, math.nan, "none", 1, None, note, level)


@lru_cache(maxsize=1024)
def t_quantile(freedom: float, level: float = 0.95) -> float:
    """Half the width of a Student's t interval, in standard errors; 97.5 % quantile at the level 0.95.

    With t = √ν tan φ the density is proportional to cos^(ν − 1) φ, which is summed over φ. To five digits from one
    degree of freedom on, which need not be whole.
    """
    angle = np.linspace(0, min(math.pi / 2, 14 / math.sqrt(freedom)), 20001)
    density = np.cos(angle) ** (freedom - 1)
    area = np.append(0, np.cumsum(density[1:] + density[:-1]))
    return float(math.sqrt(freedom) * np.tan(np.interp(level, area / area[-1], angle)))


def with_coverage(found: Interval, statistic: str, method: str, tasks: int) -> Interval:
    """The interval with the coverages measured at the next smaller numbers of runs and tasks, where they were."""
    if method == "auto":
        method = "studentised" if found.n < SMALL else "widened"
    sizes = [n for n in COVERAGE[method] if n <= found.n]
    if not sizes or found.method == "none" or found.level != 0.95 or statistic not in ("mean", "iqm"):
        return found
    n, several = max(sizes), tasks >= 4
    return found._replace(coverage=COVERAGE[method][n][several], rare=RARE[method][n][several])
