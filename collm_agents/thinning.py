"""Metrics of a run as lines of few points, however long its file is.

For the page of a run. Reads `metrics.jsonl` row by row and puts neighbouring rows of one kind together: a point is
then the mean of its rows, with the least and the greatest of them. Files of few rows are kept as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collm_agents.tracking import stream_rows
from collm_agents.waiting import Waiting

POINTS = 600  # most of a line, per kind of row
KINDS = ("update", "eval")
AXES = ("joint_samples", "wall_s")
ENDS = ("low", "high", "n")


@dataclass
class Line:
    """One metric: `y` with `low` and `high`, nan where a point has none."""

    y: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass
class Thinned:
    """All metrics of one kind of row.

    Attributes:
        rows: how many there were.
        together: how many make a point.
        x: places of the points, by axis.
        lines: by metric; each has as many points as the axes.
    """

    rows: int = 0
    together: int = 1
    x: dict[str, list[float]] = field(default_factory=lambda: {axis: [] for axis in AXES})
    lines: dict[str, Line] = field(default_factory=dict)


def thinned(path: Path, points: int = POINTS) -> dict[str, Thinned]:
    """The metrics of a file, by kind of row.

    Args:
        path: a `metrics.jsonl`; where there is none, there are no metrics.
        points: most points per kind.

    Raises:
        MetricError: for a line that is broken and not the last one.
    """
    found = {kind: Thinned() for kind in KINDS}
    if not path.is_file():
        return found
    for kind, count in _counts(path).items():
        found[kind].together = max(1, math.ceil(count / points))
    held: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    size = max(1, path.stat().st_size)
    with Waiting(f"reading {path.name}") as waiting:
        for row, done in stream_rows(path):
            kind = str(row.get("kind"))
            if kind not in found or not all(_is_number(row.get(axis)) for axis in AXES):
                continue
            held[kind].append(row)
            if len(held[kind]) >= found[kind].together:
                _add(found[kind], held[kind])
                held[kind] = []
                waiting.at(done / size)
    for kind, rows in held.items():
        if rows:
            _add(found[kind], rows)
    return found


def _counts(path: Path) -> dict[str, int]:
    """Rows by kind, without reading them: what decides how many make a point."""
    with path.open("rb") as file:
        evaluations = total = 0
        for line in file:
            total += 1
            evaluations += b'"kind": "eval"' in line
    return {"update": total - evaluations, "eval": evaluations}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _add(found: Thinned, rows: list[dict[str, Any]]) -> None:
    """Put one point at the end of every line."""
    before = len(found.x[AXES[0]])
    found.rows += len(rows)
    for axis in AXES:
        found.x[axis].append(float(rows[-1][axis]))
    for name in dict.fromkeys(name for row in rows for name in row):
        stem, _, end = name.rpartition("/")
        if name in ("kind", *AXES) or (end in ENDS and any(stem in row for row in rows)):
            continue
        values = [row[name] for row in rows if name in row and _is_number(row[name])]
        if not values:
            continue
        line = found.lines.setdefault(name, Line())
        _fill(line, before)
        line.y.append(math.fsum(values) / len(values))
        if len(values) > 1:
            line.low.append(min(values))
            line.high.append(max(values))
        else:  # an evaluation's own interval
            own = next(row for row in rows if name in row and _is_number(row[name]))
            line.low.append(_number(own.get(f"{name}/low")))
            line.high.append(_number(own.get(f"{name}/high")))
    for line in found.lines.values():
        _fill(line, before + 1)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _fill(line: Line, length: int) -> None:
    for column in (line.y, line.low, line.high):
        column.extend([math.nan] * (length - len(column)))
