"""What a run's folder holds: the config it was started with, its evaluations, and what they were made with."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collm_agents.config import Config
from collm_agents.evaluate import Report, evaluate_scripted
from collm_agents.overrides import load_config
from collm_agents.whole_file import write_whole
from collm_envs.env import CollabEnv
from collm_envs.errors import InputError
from collm_envs.task import Task

if TYPE_CHECKING:
    from collm_agents.trainer import Progress

EPISODES = "episodes.jsonl"


class Evaluations:
    """The evaluations of a run, in a file of its folder; `episodes.jsonl` there has the last one's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._kept: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else []
        except ValueError as error:
            raise InputError(f"{file}: not JSON ({error}); put back a copy of it") from None

    @property
    def edges(self) -> list[Report]:
        """Reports of the start and the end."""
        return [{"metrics": k["metrics"], "samples": k["samples"]} for k in self._kept if k["edge"]]

    def add(self, progress: Progress, report: Report, edge: bool) -> None:
        """Keep one evaluation; its `wall_s` is `Progress.trained_s`, `greedy` the one without draws, if any."""
        greedy = report.get("greedy", {})
        episodes = [{**row, "greedy": False} for row in report["episodes"]]
        if edge:
            episodes += [{**row, "greedy": True} for row in greedy.get("episodes", ())]
            lines = (json.dumps(row, ensure_ascii=False) for row in episodes)
            write_whole(self._file.with_name(EPISODES), "".join(line + "\n" for line in lines))
        spent = {
            "joint_samples": progress.joint_samples,
            "tokens": progress.tokens,
            "wall_s": progress.trained_s,
        }
        kept = {**spent, "edge": edge, **_counted(report)}
        self._kept.append({**kept, "greedy": _counted(greedy)} if greedy else kept)
        write_whole(self._file, json.dumps(self._kept, ensure_ascii=False) + "\n")

    def rewind(self, joint_samples: int) -> None:
        """Forget evaluations beyond a checkpoint."""
        self._kept = [k for k in self._kept if k["joint_samples"] <= joint_samples]


def _counted(report: Report) -> dict[str, Any]:
    return {
        "episodes": len(report["episodes"]),
        "metrics": report["metrics"],
        "samples": report["samples"],
    }


def write_result(
    run_dir: Path,
    config: Config,
    done: Progress,
    reports: Evaluations,
    held_out: CollabEnv,
    tasks: Sequence[Task],
    made: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `result.json` of a finished run.

    Args:
        run_dir: its folder.
        config: of the run.
        done: what it spent.
        reports: its evaluations.
        held_out: the environment they were played on.
        tasks: those of the last one; scripted agents play them as references.
        made: `algorithm`, `variant`, `stopped` (why before its budget was spent), `peak_memory` and `versions`.

    Returns:
        What was written.
    """
    result = {
        "env": config.env_id,
        "algorithm": made["algorithm"],
        "variant": made["variant"],
        "seed": config.run.seed,
        "joint_samples": done.joint_samples,
        "stopped": made["stopped"],
        "updates": done.updates,
        "tokens": done.tokens,
        "wall_s": done.wall_s,
        "trained_s": done.trained_s,
        "phases_s": done.phases,
        "overlapped_s": done.overlapped_s,
        "peak_memory": made["peak_memory"],
        "high": held_out.high,
        "start": reports.edges[0],
        "end": reports.edges[-1],
        "references": {
            kind: evaluate_scripted(held_out, kind, tasks, config.eval.seed)
            for kind in held_out.scripted_kinds
        },
        "versions": made["versions"],
    }
    write_whole(run_dir / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


def versions(device: str) -> dict[str, str]:
    """What a result was made with."""
    names = ("collm", "torch", "transformers", "peft", "pettingzoo", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version(), "machine": platform.machine(), "device": device}


def stored_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The config that a run was started with, with overrides on top.

    Raises:
        InputError: when the folder is not a run.
    """
    file = run_dir / "config.toml"
    if not file.is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.toml")
    return load_config(None, files=[file], overrides=overrides)
