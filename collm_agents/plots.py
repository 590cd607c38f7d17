"""Learning curves as PNG files, from the evaluations in `metrics.jsonl`.

For the end of a run and for reports. matplotlib is imported here only, and draws without a display.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collm_agents.stats import band, interpolate
from collm_agents.tracking import METRICS, read_rows
from collm_envs.errors import InputError

Floats = npt.NDArray[np.float64]


class Curve(NamedTuple):
    """A metric over training: `x` in joint samples, mean and 95 % interval, NaN for none; arrays of one length."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


def read_curve(run_dirs: Sequence[str | Path], metric: str = "score") -> Curve:
    """The mean curve of runs.

    One run gives its evaluations' own intervals (over tasks). Several give the t interval over runs, on the
    span that all of them cover; where their evaluations do not coincide, values are interpolated linearly.

    Raises:
        InputError: when a run has no evaluation with this metric.
    """
    runs = []
    for run_dir in run_dirs:
        path = Path(run_dir) / METRICS
        rows = read_rows(path, "eval") if path.is_file() else []
        points = {row["joint_samples"]: row for row in rows if metric in row}  # the last of a kind wins
        if not points:
            raise InputError(f"{path}: no evaluation with the metric {metric!r} to draw")
        runs.append([points[x] for x in sorted(points)])
    if not runs:
        raise InputError("no runs to draw a curve of")
    xs = [np.array([row["joint_samples"] for row in run], dtype=float) for run in runs]
    ys = [np.array([row[metric] for row in run], dtype=float) for run in runs]
    if len(runs) == 1:
        low, high = (
            np.array([row.get(f"{metric}/{end}", np.nan) for row in runs[0]], dtype=float)
            for end in ("low", "high")
        )
        return Curve(xs[0], ys[0], low, high, 1)
    start, end = max(x[0] for x in xs), min(x[-1] for x in xs)
    grid = np.unique(np.concatenate(xs))
    grid = grid[(grid >= start) & (grid <= end)]
    if not len(grid):
        raise InputError(f"the runs share no span of joint samples in which {metric!r} was evaluated")
    over_runs = band(interpolate(list(zip(xs, ys, strict=True)), grid))
    return Curve(grid, over_runs.mean, over_runs.low, over_runs.high, len(runs))


def read_references(run_dir: str | Path, metric: str = "score") -> dict[str, float]:
    """Start, novice and oracle means of a metric from a run's `result.json`, as far as they are there."""
    path = Path(run_dir) / "result.json"
    if not path.is_file():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    reports = {"start": result.get("start"), **result.get("references", {})}
    return {
        name: report["metrics"][metric]["mean"]
        for name, report in reports.items()
        if report and metric in report["metrics"]
    }


def curve(
    run_dirs: str | Path | Sequence[str | Path],
    out_png: str | Path,
    metric: str = "score",
    *,
    references: Mapping[str, float] | None = None,
    title: str = "",
) -> Path:
    """Draw the learning curve of one run or of several seeds of one setting.

    Args:
        run_dirs: folders of runs.
        out_png: where the picture goes.
        metric: name of the metric in the evaluations.
        references: values drawn as level lines; default those of the first run's `result.json`.
        title: above the picture; default the first run's algorithm and environment.

    Returns:
        The picture's path.

    Raises:
        InputError: when there is nothing to draw.
    """
    folders = [run_dirs] if isinstance(run_dirs, (str, Path)) else list(run_dirs)
    found = read_curve(folders, metric)
    lines = read_references(folders[0], metric) if references is None else dict(references)

    from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed

    figure = Figure(figsize=(7.6, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    band = "95 % interval over tasks" if found.runs == 1 else f"95 % interval over {found.runs} runs"
    if np.isfinite(found.low).any():  # evaluations on a single task have no interval
        axes.fill_between(found.x, found.low, found.high, alpha=0.2, linewidth=0, label=band)
    axes.plot(found.x, found.mean, marker="o", markersize=3, label="trained" if found.runs == 1 else "mean")
    styles = {"start": ("0.6", ":"), "novice": ("tab:orange", "--"), "oracle": ("tab:green", "--")}
    for name, level in lines.items():
        colour, style = styles.get(name, ("0.3", "-."))
        axes.axhline(level, color=colour, linestyle=style, linewidth=1, label=f"{name} {level:.2f}")
    axes.set_xlabel("joint samples")
    axes.set_ylabel(metric.removeprefix("parts/").replace("_", " "))
    axes.set_title(title or _title(folders[0]), fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    out = Path(out_png)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _title(run_dir: str | Path) -> str:
    path = Path(run_dir) / "result.json"
    if not path.is_file():
        return Path(run_dir).resolve().name
    result = json.loads(path.read_text(encoding="utf-8"))
    return f"{result.get('variant') or result.get('algorithm', '')} on {result.get('env', '')}"
