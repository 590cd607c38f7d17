"""A run's folder: where it lies, the config it was started with, its evaluations, and what they were made with."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collm_agents.config import Config
from collm_agents.evaluate import Report
from collm_agents.overrides import load_config
from collm_envs.errors import InputError, SettingError


class Evaluations:
    """The evaluations of a run: all their metrics in a file, the first and last whole."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else []

    @property
    def edges(self) -> list[Report]:
        """Reports of the start and the end."""
        return [{"metrics": k["metrics"], "samples": k["samples"]} for k in self._kept if k["edge"]]

    def add(self, joint_samples: int, report: Report, edge: bool) -> None:
        """Keep one evaluation."""
        self._kept.append({"joint_samples": joint_samples, "edge": edge, **report})
        self._file.write_text(json.dumps(self._kept, ensure_ascii=False) + "\n", encoding="utf-8")

    def rewind(self, joint_samples: int) -> None:
        """Forget evaluations beyond a checkpoint."""
        self._kept = [k for k in self._kept if k["joint_samples"] <= joint_samples]


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


def choose_folder(config: Config, algorithm: str) -> Path:
    """Where a new run goes: `run.out`, or the first free name under `runs`.

    Raises:
        SettingError: when `run.out` holds something already.
    """
    if config.run.out:
        folder = Path(config.run.out).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SettingError(
                f"run.out={str(folder)!r} is not an empty folder; to go on with it use --resume"
            )
        return folder
    name = config.env_id.replace("/", "-").replace(":", "-")
    base = f"{name}-{algorithm}-s{config.run.seed}"
    number = 1
    while (folder := Path("runs") / (base if number == 1 else f"{base}-{number}")).exists():
        number += 1
    return folder


def stored_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The config that a run was started with, with overrides on top.

    Raises:
        InputError: when the folder is not a run.
    """
    file = run_dir / "config.toml"
    if not file.is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.toml")
    return load_config(None, files=[file], overrides=overrides)
