"""The figures of a report as PNG and SVG files: curves with bands, values with intervals, performance profiles.

For `report`. Draws `Numbers` as they are; `plots` draws the curve of a single training run. matplotlib is imported
inside the functions and draws without a display; equal numbers give equal files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from collm_agents import stats
from collm_agents.report_numbers import AGGREGATES, Group, Numbers, Place, Scope, level_of

# Told apart by readers with any colour vision on white; the page's light colours.
COLOURS = ("#0072b2", "#bd4a00", "#00805e", "#a8517f", "#9a6700", "#30363d", "#007a8a", "#6f42c1")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), "-.")
MARKERS = ("o", "s", "^", "D", "v")
MAX_ENVIRONMENTS = 12  # with figures of their own; the page has all
MAX_PANELS = 24
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name may hold a $
    "svg.fonttype": "none",
    "svg.hashsalt": "collm",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw_figures(numbers: Numbers, folder: Path) -> dict[str, str]:
    """Draw every figure.

    Args:
        numbers: what they show.
        folder: where NAME.png and NAME.svg go; it exists.

    Returns:
        Name -> what it shows, in the order of the report.

    Raises:
        ImportError: where matplotlib is missing.
    """
    import matplotlib  # noqa: F401  # missing, it is missed before anything is drawn

    made: dict[str, str] = {}
    algorithms = sorted({group.algorithm for group in numbers.groups})
    look = {name: i for i, name in enumerate(algorithms)}
    scope = numbers.overall
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # a name in another script is still drawn
        if scope is not None:
            with _figure(folder, "aggregates", (9.6, 1.5 + 0.34 * len(scope.aggregates))) as figure:
                _draw_aggregates(figure, scope, look)
            made["aggregates"] = f"{numbers.metric} over all tasks, normalised, with 95 % intervals"
            with _figure(folder, "profiles", (6.4, 4.0)) as figure:
                _draw_profiles(figure, scope, look, numbers.metric)
            made["profiles"] = "share of runs above each normalised value"
        environments = sorted({group.place[0] for group in numbers.groups if group.runs})
        for number, environment in enumerate(environments[:MAX_ENVIRONMENTS]):
            own = [g for g in numbers.groups if g.place[0] == environment and g.runs]
            name = f"{number:02d}-{slug(environment)}"
            made |= _draw_environment(folder, name, environment, own, look, numbers.metric)
    return made


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "environment"


def shown(name: str, room: int = 30) -> str:
    """A name on one line, cut to its room."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return plain if len(plain) <= room else plain[: room - 1] + "…"


@contextmanager
def _figure(folder: Path, name: str, size: tuple[float, float]) -> Iterator[Any]:
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        yield figure
        figure.savefig(folder / f"{name}.png")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _panels(figure: Any, count: int, **shared: bool) -> list[Any]:
    columns = min(3, count)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared)
    axes = list(grid.ravel())
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def _legend(figure: Any, names: Sequence[str], look: Mapping[str, int], more: Sequence[Any] = ()) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **_line(look[name])) for name in names]
    labels = [" " + shown(name, 36) for name in names]  # one that begins with _ would be left out
    figure.legend(
        handles + list(more),
        labels + [" " + str(line.get_label()) for line in more],
        loc="outside lower center",
        ncols=min(5, max(1, len(labels) + len(more))),
        fontsize=8,
    )


def _line(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.6,
    }


def _rows(axes: Any, rows: Sequence[tuple[str, int, stats.Interval | None]]) -> None:
    """Bars from 0 with intervals over them, the first on top; an interval that is none is a bar alone."""
    for y, (_, i, value) in enumerate(rows):
        if value is None:
            continue
        colour = COLOURS[i % len(COLOURS)]
        axes.barh(y, value.estimate, height=0.55, color=colour, alpha=0.35)
        axes.plot([value.estimate], [y], marker=MARKERS[i % len(MARKERS)], color=colour, markersize=5)
        if np.isfinite([value.low, value.high]).all():
            axes.hlines(y, value.low, value.high, color=colour, linewidth=1.8)
            axes.vlines([value.low, value.high], y - 0.14, y + 0.14, color=colour, linewidth=1.8)
    axes.set_yticks(range(len(rows)), [shown(name) for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _draw_aggregates(figure: Any, scope: Scope, look: Mapping[str, int]) -> None:
    panels = figure.subplots(1, len(AGGREGATES), sharey=True, squeeze=False)[0]
    for axes, (key, name) in zip(panels, AGGREGATES.items(), strict=True):
        _rows(axes, [(a, look[a], own[key]) for a, own in scope.aggregates.items()])
        axes.set_title(name + (" (lower is better)" if key == "optimality_gap" else ""))
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.tick_params(axis="x", labelsize=8)


def _draw_profiles(figure: Any, scope: Scope, look: Mapping[str, int], metric: str) -> None:
    axes = figure.subplots()
    for name, band in scope.profiles.items():
        line = {**_line(look[name]), "marker": ""}
        axes.fill_between(scope.thresholds, band.low, band.high, color=line["color"], alpha=0.15, linewidth=0)
        axes.plot(scope.thresholds, band.mean, **line)
    axes.set_xlabel(f"normalised {shown(metric)}: novice 0, oracle 1")
    axes.set_ylabel("share of runs above")
    axes.set_ylim(-0.02, 1.04)
    _legend(figure, list(scope.profiles), look)


def _draw_environment(
    folder: Path, name: str, environment: str, groups: Sequence[Group], look: Mapping[str, int], metric: str
) -> dict[str, str]:
    places = sorted({group.place for group in groups})[:MAX_PANELS]
    names = sorted({group.algorithm for group in groups})
    rows = -(-len(places) // 3)
    width = 1.4 + 3.4 * min(3, len(places))
    with _figure(folder, f"curves-{name}", (max(width, 5.4), 0.9 + 2.5 * rows)) as figure:
        for axes, place in zip(_panels(figure, len(places)), places, strict=True):
            _draw_curves(axes, place, [g for g in groups if g.place == place], look, metric)
        figure.suptitle(shown(environment, 70), fontsize=10)
        _legend(figure, names, look, _level_lines(groups, metric))
    with _figure(folder, f"last-{name}", (max(width, 5.4), rows * (0.9 + 0.32 * len(names)) + 0.6)) as figure:
        for axes, place in zip(_panels(figure, len(places), sharey=True), places, strict=True):
            own = {g.algorithm: g.stats.get(metric, {}).get("final") for g in groups if g.place == place}
            _rows(axes, [(a, look[a], own.get(a)) for a in names])
            for line in _level_lines([g for g in groups if g.place == place], metric):
                axes.axvline(line.get_ydata()[0], color=line.get_color(), linestyle=line.get_linestyle())
            axes.set_title(shown(place[1], 40))
        figure.suptitle(shown(environment, 70), fontsize=10)
        if more := _level_lines(groups, metric):
            _legend(figure, [], look, more)
    metric = shown(metric)
    return {
        f"curves-{name}": f"{metric} over joint samples on {environment}: mean over seeds with its 95 % band",
        f"last-{name}": f"last {metric} on {environment}: mean over seeds with its 95 % interval",
    }


def _draw_curves(
    axes: Any, place: Place, groups: Sequence[Group], look: Mapping[str, int], metric: str
) -> None:
    for group in groups:
        curve = group.curves.get(metric, {}).get("joint_samples")
        if curve is None:
            continue
        line = _line(look[group.algorithm])
        axes.fill_between(
            curve.x, curve.band.low, curve.band.high, color=line["color"], alpha=0.15, linewidth=0
        )
        axes.plot(curve.x, curve.band.mean, **line)
    for line in _level_lines(groups, metric):
        axes.axhline(line.get_ydata()[0], color=line.get_color(), linestyle=line.get_linestyle())
    axes.set_title(shown(place[1], 40))
    axes.set_xlabel("joint samples")
    axes.set_ylabel(shown(metric, 24))


def _level_lines(groups: Sequence[Group], metric: str) -> list[Any]:
    """The novice's and the oracle's level, as lines with a label."""
    from matplotlib.lines import Line2D

    found = []
    styles: dict[str, Any] = {"novice": ":", "oracle": "--"}
    for kind, style in styles.items():
        levels = [level_of(run, kind, metric) for group in groups for run in group.runs]
        level = next((value for value in levels if value is not None), None)
        if level is not None:
            found.append(Line2D([0], [level], color="0.4", linestyle=style, linewidth=1.5, label=kind))
    return found
