"""The report of a benchmark: tables as Markdown, figures as PNG and SVG, and one page to look around in.

For people who compare algorithms. Works without a model and without torch. Every number comes from
`report_numbers`; this module words and lays out. Failed runs are listed and counted, and are in no mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collm_agents import stats
from collm_agents.figures import MAX_ENVIRONMENTS, MAX_PANELS, draw_figures
from collm_agents.records import Record, Results
from collm_agents.report_numbers import AGGREGATES, Group, Numbers, Scope, compute, unequal, way
from collm_agents.report_page import flattered, lacking, page
from collm_agents.whole_file import write_whole
from collm_envs.history import encodable

NORMALISED = "(value − novice) / (oracle − novice), each in its own environment and task"
NONE = "–"


def write_report(results: Results, folder: Path, *, metric: str = "score") -> list[Path]:
    """Write `report.md`, `report.html` and the figures.

    Args:
        results: a benchmark's runs.
        folder: where they go; made where it is missing. Without matplotlib there are no figures, and the report
            says so.
        metric: what the tables are about.

    Returns:
        The files.

    Raises:
        InputError: when there is no run, or none with this metric.
    """
    numbers = compute(results, metric)
    folder.mkdir(parents=True, exist_ok=True)
    notes = _notes(numbers)
    try:
        figures = draw_figures(numbers, folder)
    except ImportError:
        figures = {}
        notes.append(
            "matplotlib is missing (pip install 'collm[report]'), so there are no PNG and SVG figures."
        )
    about = about_rows(results)
    suite = results.about.get("suite")
    title = f"Benchmark {suite}" if suite else "Benchmark"
    texts = {
        "report.md": markdown(numbers, title, about, notes, figures),
        "report.html": page(numbers, title, _told(results), about, notes),
    }
    for name, text in texts.items():
        write_whole(folder / name, encodable(text))
    drawn = [folder / f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
    return [*(folder / name for name in texts), *drawn]


def _notes(numbers: Numbers) -> list[str]:
    """What a reader must know of the whole report."""
    found = []
    if not numbers.results.done:
        found.append("No run came to its end; there is nothing to compare.")
    single = sum(len(group.runs) == 1 for group in numbers.groups)
    if single:
        found.append(
            f"{single} of {len(numbers.groups)} combinations of environment, task and algorithm have a single "
            "finished run: their spread over seeds is unknown, and they get no interval."
        )
    without = [
        run for run in numbers.results.done if run.final and not _has(run.final.metrics, numbers.metric)
    ]
    if without:
        named = ", ".join(" ".join(map(str, run.place)) for run in without)
        found.append(f"Finished without a finite {numbers.metric}, and in no mean of it: {named}.")
    if numbers.not_normalised:
        lacking = ", ".join(" ".join(place) for place in numbers.not_normalised)
        found.append(
            f"Not in the normalised tables, for want of a novice and an oracle that differ in "
            f"{numbers.metric}: {lacking}."
        )
    found += _lengths(numbers)
    if numbers.left_out:
        found.append(f"Metrics that the results hold and the page leaves out: {', '.join(numbers.left_out)}.")
    environments = {group.place[0] for group in numbers.groups}
    places = {group.place for group in numbers.groups}
    if len(environments) > MAX_ENVIRONMENTS or len(places) > MAX_PANELS:
        found.append(
            f"Drawn as files are {MAX_ENVIRONMENTS} environments at most, of each {MAX_PANELS} tasks; the page "
            "has all."
        )
    return found


def _lengths(numbers: Numbers) -> list[str]:
    """What a reader must know of runs that are shorter than others."""
    found = []
    groups = [group for group in numbers.groups if group.runs]
    stopped = []
    for group in groups:
        why = [run.stopped for run in group.runs if run.stopped]
        if why:
            count = f"{len(why)} of {len(group.runs)}"
            stopped.append(f"{_named(group)} {count} ({'; '.join(sorted(set(why)))})")
    if stopped:
        found.append(f"Finished runs that were stopped before their budget was spent: {', '.join(stopped)}.")
    uneven = []
    for place in sorted({group.place for group in groups}):
        own = [group for group in groups if group.place == place]
        if unequal(group.spans for group in own):
            spans = ", ".join(f"{group.algorithm} {_span(*group.spans)}" for group in own)
            uneven.append(f"{' '.join(place)} ({spans})")
    if uneven:
        found.append(
            f"Runs of unequal length, in joint samples: {'; '.join(uneven)}. A mean curve ends with the shortest "
            "run of its algorithm, so it may not get half-way where single runs do; and a mean over training is "
            "over each run's own span, so it does not compare there."
        )
    return found


def _named(group: Group) -> str:
    return " ".join((*group.place, group.algorithm))


def _span(low: float, high: float) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _has(metrics: Mapping[str, float], name: str) -> bool:
    return name in metrics and math.isfinite(metrics[name])


def _told(results: Results) -> str:
    def count(*kinds: str) -> str:
        n = len({tuple(getattr(run, kind) for kind in kinds) for run in results.records})
        return f"{n} {kinds[-1]}{'s' if n > 1 else ''}"

    runs = f"{len(results.records)} runs, of which {len(results.failed)} failed"
    return f"{runs}: {count('algorithm')}, {count('environment')}, {count('environment', 'task')}, {count('seed')}."


def about_rows(results: Results) -> list[tuple[str, str]]:
    """What was run and with what, as rows of name and value."""
    records = results.records
    rows = [("runs", f"{len(records)}, of which {len(results.failed)} failed")]
    rows += [
        (f"{kind}s", ", ".join(sorted({getattr(run, kind) for run in records})))
        for kind in ("environment", "task")
    ]
    full: dict[str, set[str]] = {run.algorithm: set() for run in records}
    for run in results.done:  # a failed run knows none; tasks of other turns have others
        full[run.algorithm] |= {run.variant} - {"", run.algorithm}
    told = [f"{a} = {' or '.join(sorted(v))}" if v else a for a, v in sorted(full.items())]
    rows.append(("algorithms", ", ".join(told)))
    rows.append(("seeds", ", ".join(map(str, sorted({run.seed for run in records})))))
    spent: dict[str, list[int]] = {}
    for run in results.done:
        spent.setdefault(run.algorithm, []).append(run.final.joint_samples if run.final else 0)
    spans = {name: _span(min(own), max(own)) for name, own in sorted(spent.items())}
    if len(set(spans.values())) == 1:
        spans = {"": next(iter(spans.values()))}
    rows += [(f"joint samples of a run{f' of {name}' if name else ''}", told) for name, told in spans.items()]
    if spent:
        rows.append(("hours of training, all finished runs", f"{_hours(results):.2f}"))
    rows += _settings(records)
    return rows + [row for key, value in results.about.items() for row in _flat(str(key), value)]


def _settings(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What all runs were started with, then what single algorithms were beyond that."""
    common = set.intersection(*(set(run.settings) for run in records)) if records else set()
    rows = [("settings of all runs", " ".join(sorted(common)))] if common else []
    for algorithm in sorted({run.algorithm for run in records}):
        sets = [set(run.settings) for run in records if run.algorithm == algorithm]
        own = sorted(set.intersection(*sets) - common)
        if told := [word for word in own if not word.startswith(("run.seed=", "algorithm.name="))]:
            rows.append((f"settings of {algorithm}", " ".join(told)))
    return rows


def _hours(results: Results) -> float:
    return sum(run.final.wall_s for run in results.done if run.final is not None) / 3600


def _flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    elif isinstance(value, str):
        yield name, value
    else:
        yield name, json.dumps(value, ensure_ascii=False)


# -- Markdown ----------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """A text of the results on one line, with nothing in it that Markdown or HTML would act on."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$!]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """A Markdown table; cells are escaped already, those from a column on are set right."""
    rule = ["---" if i < numbers_from else "--:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))


def figure(value: float) -> str:
    """A number with three digits behind the point, fewer where it is large."""
    if not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) >= 100:
        return f"{int(value)}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


class _Ways:
    """Letters for the ways in which intervals came about, explained below a table."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def letter(self, intervals: Iterable[stats.Interval | None]) -> str:
        found = [way(interval) for interval in intervals if interval is not None]
        for told in found:
            n = len(self.known)
            self.known.setdefault(told, chr(ord("a") + n) if n < 26 else f"z{n - 25}")
        return ", ".join(sorted({self.known[told] for told in found})) or NONE

    def explained(self) -> str:
        return "  \n".join(f"({letter}) {escaped(told)}" for told, letter in self.known.items())


def _cell(interval: stats.Interval | None) -> str:
    if interval is None:
        return NONE
    ends = "" if math.isnan(interval.low) else f" [{figure(interval.low)}, {figure(interval.high)}]"
    return figure(interval.estimate) + ends


def markdown(
    numbers: Numbers,
    title: str,
    about: Sequence[tuple[str, str]],
    notes: Sequence[str],
    figures: dict[str, str],
) -> str:
    """The report as Markdown.

    Args:
        numbers: what it says.
        title: its heading.
        about: what was run and with what.
        notes: what a reader must know first.
        figures: name -> what it shows, of the files beside it.
    """
    blocks = [f"# {escaped(title)}", escaped(_told(numbers.results))]
    blocks += [f"> {escaped(note)}" for note in notes]
    blocks.append("[report.html](report.html) shows the same, to filter and to look closer.")
    blocks += ["## What was run", table(("", ""), ([escaped(a), escaped(b)] for a, b in about), 2)]
    blocks += ["## Failed runs", _failed(numbers.results)]
    blocks.append(f"## Over all tasks: {escaped(numbers.metric)}, normalised")
    scope = numbers.overall
    if scope is None:
        blocks.append(
            "Nothing to normalise: that takes finished runs with a novice and an oracle that differ."
        )
    else:
        told = f"Normalised is {NORMALISED}. 95 % intervals, runs resampled within each task at least "
        blocks += [
            f"{told}{scope.draws} times.{escaped(lacking(scope) + flattered(scope))}",
            _aggregates(scope),
        ]
        blocks += _images(figures, ("aggregates", "profiles"))
        blocks += ["## Pairs", *_pairs(scope), "## Ranks", *_ranks(scope)]
    blocks += [f"## Each task: {escaped(numbers.metric)}", *_each_task(numbers)]
    blocks += _images(figures, [name for name in figures if name.startswith(("curves-", "last-"))])
    return "\n\n".join(blocks) + "\n"


def _images(figures: dict[str, str], names: Iterable[str]) -> list[str]:
    return [
        f"![{escaped(figures[name])}]({name}.png)\n\n{escaped(figures[name])} ([SVG]({name}.svg))"
        for name in names
        if name in figures
    ]


def _failed(results: Results) -> str:
    if not results.failed:
        return "None."
    rows = [[*map(escaped, map(str, run.place)), escaped(run.error or "unknown")] for run in results.failed]
    told = f"{len(rows)} of {len(results.records)} runs; they are in no mean.\n\n"
    return told + table(("environment", "task", "algorithm", "seed", "error"), rows, 5)


def _aggregates(scope: Scope) -> str:
    ways = _Ways()
    rows = []
    for name, own in scope.rows:
        counts = [f"{scope.tasks.get(name, 0)} of {len(scope.places)}"]
        counts += [str(scope.runs.get(name, 0)), str(scope.failed.get(name, 0))]
        rows.append(
            [escaped(name), *counts, *(_cell(own.get(key)) for key in AGGREGATES), ways.letter(own.values())]
        )
    header = ["algorithm", "tasks", "runs", "failed", *AGGREGATES.values(), "interval"]
    return f"{table(header, rows)}\n\n{ways.explained()}"


def _pairs(scope: Scope) -> list[str]:
    if not scope.better:
        return ["There is one algorithm only, or no two share a task."]
    ways = _Ways()
    rows = [
        [escaped(a), escaped(b), _cell(found), ways.letter([found])] for (a, b), found in scope.better.items()
    ]
    told = "Chance that a run of the first ends above a run of the second on the same task; 0.5 is even."
    return [told, table(("first", "second", "probability", "interval"), rows, 2), ways.explained()]


def _ranks(scope: Scope) -> list[str]:
    if not scope.ranks:
        return ["No task has finished runs of all algorithms."]
    rows = sorted(scope.ranks.items(), key=lambda row: (row[1].estimate, row[0]))
    told = f"Mean rank over the {scope.ranked} tasks that all algorithms have, 1 the best; intervals are "
    told += "percentiles of resamples, whose coverage was not measured."
    return [told, table(("algorithm", "mean rank"), ([escaped(a), _cell(rank)] for a, rank in rows))]


def _each_task(numbers: Numbers) -> list[str]:
    ways = _Ways()
    beside = [name for name in ("success", "return") if name in numbers.metrics and name != numbers.metric]
    header = [
        "environment",
        "task",
        "algorithm",
        "done",
        "failed",
        f"last {escaped(numbers.metric)}",
        *beside,
    ]
    header += ["gain", "mean over training", "samples to half-way", "runs half-way", "interval"]
    rows = [_task_row(group, numbers.metric, beside, ways) for group in numbers.groups]
    told = (
        "Last: on the episodes of the last evaluation. Gain: last minus before training. Mean over training: area "
        "under the curve over joint samples, by its span. Half-way: between novice and oracle; samples of the mean "
        "curve, and runs whose own curve gets there."
    )
    return [told, table(header, rows, 3), ways.explained()]


def _task_row(group: Group, metric: str, beside: Sequence[str], ways: _Ways) -> list[str]:
    own = group.stats.get(metric, {})
    shown = [own.get("final"), *(group.stats.get(name, {}).get("final") for name in beside)]
    shown += [own.get("gain"), own.get("area")]
    half = own.get("halfway")
    return [
        *map(escaped, (*group.place, group.algorithm)),
        str(len(group.runs)),
        str(group.failed),
        *map(_cell, shown),
        NONE if half is None else _cell(half) if math.isfinite(half.estimate) else _not_reached(group),
        NONE if half is None else f"{group.reached[metric]} of {len(group.runs)}",
        ways.letter(shown),
    ]


def _not_reached(group: Group) -> str:
    """A mean curve that ends with its shortest run says nothing of what is beyond."""
    return f"not reached by {group.spans[0]}" if unequal([group.spans]) else "not reached"
