"""The page of a report: one file that needs no network and holds all its numbers.

For `report`. Turns `Numbers` into the data of `report_page.js`, which selects and draws; computes no statistic.
Texts of the results are escaped here as JSON inside a script element and become text nodes there, and the page's
own policy allows no other script, style or address than those it carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from collm_agents import stats
from collm_agents.pages import as_script_data, fill, rounded
from collm_agents.records import AXES
from collm_agents.report_numbers import (
    AGGREGATES,
    ALL,
    QUANTITIES,
    Group,
    Numbers,
    Scope,
    level_of,
    points_of,
    ways,
)

AXIS_NAMES = {"joint_samples": "joint samples", "tokens": "tokens", "wall_s": "training time (s)"}
AGGREGATE_NOTES = {
    "iqm": "Mean of the middle half of all runs.",
    "median": "Median over tasks of the mean over runs.",
    "mean": "Mean over tasks and runs.",
    "optimality_gap": "What is lacking to the oracle, on average; lower is better.",
}


DRAWN = 600  # most points of a run's own line; of more a page is slow and looks the same


def page(
    numbers: Numbers, title: str, told: str, about: Sequence[tuple[str, str]], notes: Sequence[str]
) -> str:
    """The HTML of a report.

    Args:
        numbers: what it shows.
        title: of the page.
        told: one line below it.
        about: what was run and with what, as rows of name and value.
        notes: sentences that stand below that table.

    Returns:
        The whole file.
    """
    data = {
        "title": title,
        "told": told,
        "about": about,
        "notes": [*notes, *_thinned(numbers)],
        **page_data(numbers),
    }
    return "".join(fill("report_page.html", (), ("report_page.js",), {"DATA": (as_script_data(data),)}))


def _thinned(numbers: Numbers) -> list[str]:
    longest = max((len(run.points) for group in numbers.groups for run in group.runs), default=0)
    if longest <= DRAWN:
        return []
    return [f"Of the up to {longest:,} evaluations of a run, its own line here shows {DRAWN}, evenly spaced."]


def _drawn(points: int) -> list[int]:
    """Which of a line's points are drawn, the first and the last among them."""
    return np.linspace(0, points - 1, min(points, DRAWN)).round().astype(int).tolist()


def _row(values: Iterable[float]) -> list[float | None]:
    return [rounded(float(value)) for value in values]


def _triple(interval: stats.Interval | None) -> list[float | None] | None:
    return None if interval is None else _row((interval.estimate, interval.low, interval.high))


def _band(band: stats.Band) -> dict[str, list[float | None]]:
    return {"y": _row(band.mean), "low": _row(band.low), "high": _row(band.high)}


def page_data(numbers: Numbers) -> dict[str, Any]:
    """What the page selects from, as plain data."""
    records = numbers.results.records
    names = {
        kind: sorted({getattr(run, kind) for run in records}) for kind in ("environment", "task", "algorithm")
    }
    index = {kind: {name: i for i, name in enumerate(known)} for kind, known in names.items()}
    places = sorted({group.place for group in numbers.groups})
    where = {place: i for i, place in enumerate(places)}
    return {
        "metric": numbers.metric,
        "metrics": numbers.metrics,
        "axes": [[axis, AXIS_NAMES[axis]] for axis in AXES],
        "quantities": list(QUANTITIES.items()),
        "aggregates": [[key, name, AGGREGATE_NOTES[key]] for key, name in AGGREGATES.items()],
        "environments": names["environment"],
        "tasks": names["task"],
        "algorithms": names["algorithm"],
        "places": [
            {
                "e": index["environment"][place[0]],
                "t": index["task"][place[1]],
                "refs": _references(numbers, place),
            }
            for place in places
        ],
        "groups": [_group(g, where[g.place], index["algorithm"][g.algorithm]) for g in numbers.groups],
        "scopes": _scopes(numbers, index),
        "failed": [
            {
                "e": index["environment"][run.environment],
                "t": index["task"][run.task],
                "a": index["algorithm"][run.algorithm],
                "seed": run.seed,
                "error": run.error or "unknown",
            }
            for run in numbers.results.failed
        ],
    }


def _references(numbers: Numbers, place: tuple[str, str]) -> dict[str, dict[str, float | None]]:
    """Metric -> novice and oracle, of the first run that knows them."""
    runs = [run for group in numbers.groups if group.place == place for run in group.runs]
    found: dict[str, dict[str, float | None]] = {}
    for metric in numbers.metrics:
        for kind in ("novice", "oracle"):
            level = next((v for run in runs if (v := level_of(run, kind, metric)) is not None), None)
            if level is not None:
                found.setdefault(metric, {})[kind] = rounded(level)
    return found


def _group(group: Group, place: int, algorithm: int) -> dict[str, Any]:
    return {
        "p": place,
        "a": algorithm,
        "done": len(group.runs),
        "failed": group.failed,
        "stats": {
            metric: {name: _triple(value) for name, value in own.items()}
            for metric, own in group.stats.items()
        },
        "curves": {
            metric: {
                axis: {"x": _row(curve.x), **_band(curve.band)} for axis, curve in own.items() if len(curve.x)
            }
            for metric, own in group.curves.items()
        },
        "runs": [_run(run, tuple(group.stats)) for run in group.runs],
    }


def _run(run: Any, metrics: Sequence[str]) -> dict[str, Any]:
    """One run's own points; a metric that a point lacks is null there."""
    points = [run.points[i] for i in _drawn(len(run.points))]
    return {
        "seed": run.seed,
        "x": {axis: _row(getattr(point, axis) for point in points) for axis in AXES},
        "y": {
            metric: _row(
                math.nan if point.metrics.get(metric) is None else point.metrics[metric] for point in points
            )
            for metric in metrics
            if len(points_of(run, metric, AXES[0])[0])
        },
    }


def _scopes(numbers: Numbers, index: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    found = []
    for (environment, task, metric), scope in numbers.scopes.items():
        found.append(
            {
                "e": -1 if environment is ALL else index["environment"][environment],
                "t": -1 if task is ALL else index["task"][task],
                "m": metric,
                **_scope(scope, index["algorithm"]),
                "told": scope_told(scope),
            }
        )
    return found


def _scope(scope: Scope, index: Mapping[str, int]) -> dict[str, Any]:
    return {
        "rows": [
            {
                "a": index[name],
                "n": scope.runs.get(name, 0),
                "failed": scope.failed.get(name, 0),
                "rank": _triple(scope.ranks.get(name)),
                **{key: _triple(own.get(key)) for key in AGGREGATES},
            }
            for name, own in scope.rows
        ],
        "profile": {
            "tau": _row(scope.thresholds),
            "lines": [{"a": index[name], **_band(band)} for name, band in scope.profiles.items()],
        },
        "better": [
            {"a": index[a], "b": index[b], "p": _triple(interval)}
            for (a, b), interval in scope.better.items()
        ],
    }


def scope_told(scope: Scope) -> str:
    """How a scope's intervals came about, and which algorithms lack some of its tasks."""
    every = [interval for own in scope.aggregates.values() for interval in own.values()]
    told = f"95 % intervals, runs resampled within each task at least {scope.draws} times: "
    return told + "; ".join(ways(every)[:6]) + "." + lacking(scope) + flattered(scope)


def lacking(scope: Scope) -> str:
    """A sentence on algorithms without finished runs on some of a scope's tasks; empty where there are none."""
    fewer = [f"{name} {n}" for name, n in scope.tasks.items() if n < len(scope.places)]
    if not fewer:
        return ""
    return (
        f" Of {len(scope.places)} tasks these have fewer: {', '.join(fewer)}; their means are over those. Ranks "
        f"are over the {scope.ranked} tasks that all have, pairs over those that both have."
    )


def flattered(scope: Scope) -> str:
    """A sentence on the algorithms of a scope that runs failed of; empty where none did."""
    failed = [f"{name} {n} of {n + scope.runs.get(name, 0)}" for name, n in sorted(scope.failed.items()) if n]
    if not failed:
        return ""
    return (
        f" Failed runs are in no mean, profile, pair or rank, which flatters an algorithm that fails: "
        f"{', '.join(failed)} failed."
    )
