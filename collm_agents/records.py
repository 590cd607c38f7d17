"""What a benchmark knows of its runs, as plain data, and the files it is kept in.

For `benchmark` and `report`; no models here. The merged file `NAME.json` has marl-eval's form (Gorsane et al.,
2022):
environment → task → algorithm → `seed_N` → `step_N` → metrics, and `absolute_metrics` of the last evaluation;
every metric is a list, here of one number. What that form has no place for (references, failed runs, what it was
made with) stands beside it in `NAME-about.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from collm_agents.whole_file import write_whole
from collm_envs.errors import InputError

AXES = ("joint_samples", "tokens", "wall_s")  # what a curve can be drawn over
BESIDES = (*AXES, "episodes")


@dataclass(frozen=True)
class Point:
    """One evaluation on held-out tasks.

    Attributes:
        joint_samples: joint samples trained on so far.
        tokens: reply tokens drawn in training so far.
        wall_s: seconds of training so far; evaluations, checkpoints and loading are not counted.
        episodes: episodes played here.
        metrics: mean by name, such as `score`, `return`, `success`.
    """

    joint_samples: int
    tokens: int
    wall_s: float
    episodes: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """One run of a benchmark.

    Attributes:
        environment: id.
        task: its form, such as `dense-h2`.
        algorithm: label of the algorithm with its settings.
        seed: of the run.
        points: evaluations in order; the first is before training.
        final: the last one, on more episodes; None where the run failed.
        references: kind (`random`, `novice`, `oracle`) -> metric -> mean.
        high: greatest score.
        variant: the algorithm in full, with its estimator and branching.
        settings: overrides that the run was started with.
        error: why it failed; empty where it did not.
        stopped: why it ended before its budget was spent; empty where it did not.
    """

    environment: str
    task: str
    algorithm: str
    seed: int
    points: tuple[Point, ...] = ()
    final: Point | None = None
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    high: float = 0.0
    variant: str = ""
    settings: tuple[str, ...] = ()
    error: str = ""
    stopped: str = ""

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What tells it from all other runs."""
        return self.environment, self.task, self.algorithm, self.seed

    def normalised(self, value: float, metric: str = "score") -> float:
        """A metric on the way from the novice (0) to the oracle (1).

        Raises:
            KeyError: when one of the two is not known.
        """
        low, high = (self.references[kind][metric] for kind in ("novice", "oracle"))
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Results:
    """A benchmark's runs.

    Attributes:
        records: all runs, failed ones too.
        about: suite, budget, commit, machine, versions.
    """

    records: tuple[Record, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> tuple[Record, ...]:
        """Runs that came to their end."""
        return tuple(record for record in self.records if record.final is not None)

    @property
    def failed(self) -> tuple[Record, ...]:
        """Runs that did not."""
        return tuple(record for record in self.records if record.final is None)


def write_results(results: Results, file: Path) -> None:
    """Write the merged file and the one beside it."""
    merged: dict[str, Any] = {}
    extras: list[dict[str, Any]] = []
    for record in sorted(results.records, key=lambda r: r.place):
        environment, task, algorithm, seed = record.place
        own: dict[str, Any] = {}
        for number, point in enumerate(record.points):
            own[f"step_{number}"] = {
                "step_count": point.joint_samples,
                "elapsed_time": point.wall_s,
                **_lists(point),
            }
        if record.final is not None:
            own["absolute_metrics"] = _lists(record.final)
            by_task = merged.setdefault(environment, {}).setdefault(task, {})
            by_task.setdefault(algorithm, {})[f"seed_{seed}"] = own
        extra = asdict(record)
        del extra["final"]
        if record.final is not None:
            del extra["points"]
        extras.append(extra)
    _write(file, merged)
    _write(_beside(file), {**results.about, "runs": extras})


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote, or a merged file alone.

    Args:
        path: the merged file, or a folder with `results.json`.

    Raises:
        InputError: when it is missing or of another form; names the place.
    """
    file = path / "results.json" if path.is_dir() else path
    merged, beside = _read(file), _beside(file)
    about = _read(beside) if beside.is_file() else {}
    extras = _extras(about.pop("runs", []), beside)
    found: dict[tuple[str, str, str, int], Record] = {}
    for place, own in _walk(merged, file):
        extra = extras.pop(place, {})
        try:
            points = [_point(value) for key, value in own.items() if key.startswith("step_")]
            final = _point(own["absolute_metrics"])
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise InputError(f"{file}: {' / '.join(map(str, place))}: {_told(error)}") from error
        points.sort(key=lambda point: point.joint_samples)
        found[place] = _record(place, extra, tuple(points), final)
    for place, extra in extras.items():
        try:
            points = [Point(**point) for point in extra.get("points", [])]
            found[place] = _record(place, extra, tuple(points), None)
        except (TypeError, ValueError) as error:
            raise InputError(f"{beside}: {' / '.join(map(str, place))}: {_told(error)}") from error
    return Results(tuple(found[place] for place in sorted(found)), about)


def _extras(runs: Any, beside: Path) -> dict[tuple[str, str, str, int], Mapping[str, Any]]:
    """What stands beside the merged file, by place."""
    try:
        return {(own["environment"], own["task"], own["algorithm"], own["seed"]): own for own in runs}
    except (KeyError, TypeError) as error:
        raise InputError(f"{beside}: runs: {_told(error)}; `collm bench` writes this file") from error


def _told(error: Exception) -> str:
    """What is wrong with a file's content, for people."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return "an empty list" if isinstance(error, ZeroDivisionError) else str(error)


def _record(
    place: tuple[str, str, str, int], extra: Mapping[str, Any], points: tuple[Point, ...], final: Point | None
) -> Record:
    return Record(
        *place,
        points=points,
        final=final,
        references=extra.get("references", {}),
        high=float(extra.get("high", 0.0)),
        variant=extra.get("variant", ""),
        settings=tuple(extra.get("settings", ())),
        error=extra.get("error", "" if final is not None else "unknown"),
        stopped=extra.get("stopped", ""),  # older files have none
    )


def _walk(merged: Any, file: Path) -> Iterable[tuple[tuple[str, str, str, int], Mapping[str, Any]]]:
    try:
        for environment, tasks in merged.items():
            for task, algorithms in tasks.items():
                for algorithm, seeds in algorithms.items():
                    for name, own in seeds.items():
                        yield (environment, task, algorithm, int(str(name).rpartition("_")[2])), own
    except (AttributeError, ValueError) as error:
        raise InputError(
            f"{file} is no results file: environment → task → algorithm → seed_N is what one holds ({error})"
        ) from error


def _lists(point: Point) -> dict[str, list[float]]:
    beside = {name: [getattr(point, name)] for name in BESIDES}
    return {**beside, **{name: [value] for name, value in point.metrics.items()}}


def _point(own: Mapping[str, Any]) -> Point:
    """From a step, ours or another's: lists are averaged, counts that are missing are taken from the step's own."""
    values = {k: sum(v) / len(v) for k, v in own.items() if isinstance(v, list)}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; a run that broke has no place among results")
    return Point(
        joint_samples=int(values.pop("joint_samples", own.get("step_count", 0))),
        tokens=int(values.pop("tokens", 0)),
        wall_s=float(values.pop("wall_s", own.get("elapsed_time", 0.0))),
        episodes=int(values.pop("episodes", 0)),
        metrics=values,
    )


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.stem}-about.json")


def _write(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")


def _read(file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"{file}: there is no such results file")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: a results file holds an object, not {type(found).__name__}")
    return found
