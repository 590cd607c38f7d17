"""What a run leaves for tables and curves: its evaluations, and what they were made with."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from collm_agents.evaluate import Report


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
