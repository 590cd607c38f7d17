"""One run of a benchmark in its folder: what it was started with, how far it came, and its records.

For `benchmark`, which starts them. `run.json` is the run's own file; `train` is the folder of `collm train`.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from collm_agents.config import Config
from collm_agents.meaning import meaning_of
from collm_agents.overrides import load_config
from collm_agents.records import Point, Record
from collm_agents.suite import Run
from collm_agents.whole_file import write_whole
from collm_envs.errors import InputError

State = Literal["new", "started", "failed", "done"]
MEANT = ("resolved", "files")  # of `run.json`: what the settings came to, as in `Meaning`


@dataclass(frozen=True)
class Place:
    """A run and its folder."""

    run: Run
    folder: Path

    @property
    def train(self) -> Path:
        """The folder of `collm train`."""
        return self.folder / "train"

    @property
    def wanted(self) -> dict[str, Any]:
        """What the run is, and what it is to be started with."""
        run = self.run
        return {
            "environment": run.environment,
            "task": run.task,
            "algorithm": run.algorithm,
            "seed": run.seed,
            "preset": run.preset,
            "greedy": list(run.greedy),
            "settings": list(run.settings),
        }

    def stored(self) -> dict[str, Any]:
        """What `run.json` says; empty where there is none.

        Raises:
            InputError: when it is not what this module writes.
        """
        file = self.folder / "run.json"
        if not file.is_file():
            return {}
        try:
            found = json.loads(file.read_text("utf-8"))
            if not all(isinstance(word, str) for word in found.get("settings", ())):
                raise TypeError("settings are texts")
            return {**found, "state": found["state"], "wall_s": float(found["wall_s"])}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file}: not the file of a run ({error!r}); remove it to run it again"
            ) from None

    def state(self) -> State:
        """How far the run came."""
        return self.stored().get("state", "new")

    def change(self) -> str:
        """What differs from what the run was started with; empty where nothing does."""
        stored = self.stored()
        if not stored:
            return ""
        for name, wanted in self.wanted.items():
            before = stored.get(name)
            if name == "settings" and same_settings(self.run, before or ()):
                continue
            if name == "settings":
                old, new = (set(words or ()) for words in (before, wanted))
                if old == new:
                    return "the same settings in another order, so that others of them win"
                return f"{' '.join(sorted(old - new)) or 'none'} then, {' '.join(sorted(new - old)) or 'none'} now"
            if before != wanted:
                return f"{name} {before!r} then, {wanted!r} now"
        return self.run.meaning.change(stored.get("resolved"), stored.get("files"))

    def _meant(self) -> dict[str, Any]:
        now = meaning_of(configured(self.run, self.run.settings))
        return dict(zip(MEANT, (now.settings, now.files), strict=True))

    def slim(self) -> None:
        """Drop what only further training needs, critics and optimizers; agents can be evaluated as before."""
        for place in self.train.glob("checkpoints/[0-9]*"):
            (place / "learner.safetensors").unlink(missing_ok=True)
            shutil.rmtree(place / "critics", ignore_errors=True)

    def note(self, state: State, wall_s: float, commits: Sequence[str], **more: Any) -> None:
        """Write `run.json`; what the settings come to is taken as it is when the run is new, and kept from then on.

        Args:
            state: how far the run came.
            wall_s: seconds of all its programs so far.
            commits: the code that they ran.
            more: `error` or `records`.
        """
        before = self.stored()
        meant = {name: before.get(name) for name in MEANT} if before else self._meant()
        known = {**self.wanted, **meant, "state": state, "wall_s": round(wall_s, 2), "commits": list(commits)}
        text = json.dumps({**known, **more}, ensure_ascii=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "run.json", text + "\n")


def read_run(place: Place) -> list[Record]:
    """The records of a finished run, one for each way it was evaluated.

    Args:
        place: the run; its folder has what `collm train` wrote.
    """
    run = place.run
    result = json.loads((place.train / "result.json").read_text("utf-8"))
    kept = json.loads((place.train / "evaluations.json").read_text("utf-8"))
    references = {kind: _means(report) for kind, report in result["references"].items()}
    found = []
    for greedy in run.greedy:
        points = [_point(own, own["greedy"] if greedy and len(run.greedy) > 1 else own) for own in kept]
        found.append(
            Record(
                run.environment,
                run.task_of(greedy),
                run.algorithm,
                run.seed,
                points=tuple(points),
                final=points[-1],
                references=references,
                high=float(result["high"]),
                variant=result["variant"],
                settings=settings_of(run),
                stopped=result.get("stopped", ""),
            )
        )
    return found


def _point(spent: Mapping[str, Any], report: Mapping[str, Any]) -> Point:
    return Point(spent["joint_samples"], spent["tokens"], spent["wall_s"], report["episodes"], _means(report))


def _means(report: Mapping[str, Any]) -> dict[str, float]:
    return {name: stats["mean"] for name, stats in report["metrics"].items()}


def settings_of(run: Run) -> tuple[str, ...]:
    """What a record says that a run was started with."""
    return (*([f"--preset {run.preset}"] if run.preset else []), *run.settings)


def configured(run: Run, words: Sequence[str]) -> Config:
    """The config that settings give, on a run's environment and preset."""
    return load_config(run.environment, presets=[run.preset] if run.preset else [], overrides=words)


def is_of(record: Record, run: Run) -> bool:
    """Whether a record was made with a run's settings."""
    preset = settings_of(run)[: -len(run.settings)]
    apart = len(preset)
    return record.settings[:apart] == preset and same_settings(run, record.settings[apart:])


def same_settings(run: Run, words: Sequence[str]) -> bool:
    """Whether settings come to the same as a run's; of two that set one key the later wins, so order may matter."""
    if tuple(words) == run.settings:
        return True

    try:
        return configured(run, words) == configured(run, run.settings)
    except InputError:  # of a release that had other settings
        return False


def record_of(own: Mapping[str, Any]) -> Record:
    """A record from its plain form."""
    points = tuple(Point(**point) for point in own["points"])
    return Record(
        **{**own, "points": points, "final": Point(**own["final"]), "settings": tuple(own["settings"])}
    )


def failed_record(run: Run, greedy: bool, error: str) -> Record:
    """The record of a run that failed."""
    place = (run.environment, run.task_of(greedy), run.algorithm, run.seed)
    return Record(*place, settings=settings_of(run), error=error)


def last_words(file: Path, code: int) -> str:
    """Why a program failed: the last line it wrote, or the signal it died of."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in file.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("collm: error: ") if lines else f"exit code {code}, without a word"
