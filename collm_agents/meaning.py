"""What settings come to: those of presets and files resolved, and the tasks' own files by their content.

For benchmarks, whose runs must not mix under one label when a file changes that their settings only name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collm_agents.config import Config
from collm_envs import spec
from collm_envs.task import source_files

# What seeds and machines differ in, and results do not follow from.
_APART = (
    *("run.seed", "run.out", "run.device", "run.threads", "track.", "checkpoint.", "placement.", "remote."),
    *("runner.workers", "runner.address", "runner.cpus", "runner.gpus", "runner.patience_s"),
    *("learner.microbatch_tokens", "learner.gradient_checkpointing", "team.kv_budget", "team.cuda_graphs"),
)


@dataclass(frozen=True)
class Meaning:
    """What settings come to.

    Attributes:
        settings: key -> value, where it is not the default.
        files: path -> SHA-256 of the files of tasks that are on this machine.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def change(self, settings: Mapping[str, Any] | None, files: Mapping[str, str] | None) -> str:
        """What differs from earlier ones, None where nobody noted them; empty where nothing does."""
        if settings is not None and settings != self.settings:
            old, new = _told(settings, self.settings), _told(self.settings, settings)
            return f"{old or 'none'} then, {new or 'none'} now"
        for path, before in (files or {}).items():
            if (now := self.files.get(path, before)) != before:
                return f"{path} held other tasks (SHA-256 {before[:8]} then, {now[:8]} now)"
        return ""


def meaning_of(config: Config) -> Meaning:
    """What a config comes to, as JSON would give it back.

    Raises:
        SettingError: for a source that cannot be read as one.
    """
    settings = {key: value for key, value in _written(config, Config()) if not key.startswith(_APART)}
    default = spec(config.env_id).kwargs.get("source", "")
    sources = (config.env.get("source", default), config.eval.source)
    paths = [
        path for source in sources if isinstance(source, str) and source for path in source_files(source)
    ]
    files = {str(path): _content(path.absolute(), path.stat()) for path in paths if path.is_file()}
    return Meaning(json.loads(json.dumps(settings, default=str)), files)


def _written(value: Any, default: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of every setting that is not as its default; new ones with a default so change nothing."""
    if dataclasses.is_dataclass(value):
        for own in dataclasses.fields(value):
            below = f"{key}.{own.name}" if key else own.name
            yield from _written(getattr(value, own.name), getattr(default, own.name), below)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            kind: Any = type(part) if dataclasses.is_dataclass(part) else lambda: None
            yield from _written(part, kind(), f"{key}.{name}")
    elif value != default:
        yield key, value


def _content(path: Path, state: os.stat_result) -> str:
    """SHA-256 of a file, which is read again once it was written again."""
    return _hashed(path, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hashed(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(one.items()) if other.get(key) != value)
