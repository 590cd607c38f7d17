"""The errors a user of environments can meet, each with one clear line.

Two families: *bad input* (`InputError`: an unknown id, a wrong setting, a bad data row), which the command
line reports as one line with exit code 2, and *faults* (`EnvFault`: an environment, scorer or data set that
broke while running). A poor reply of an agent is neither: it is a normal outcome and is scored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any


class CollmError(Exception):
    """Base class of every error raised on purpose by the two packages."""


class InputError(CollmError, ValueError):
    """Something the user wrote cannot be used; the message says what, where and what would do."""


class UnknownEnvError(InputError):
    """No environment is registered under this id."""


class SettingError(InputError):
    """A setting is unknown, has the wrong type or is out of range."""


class DataError(InputError):
    """A task file or data set cannot be read; the message names file, row and field."""


class EnvFault(CollmError, RuntimeError):
    """An environment, scorer or task broke while running. Never scored as zero.

    Attributes:
        env_id: id of the environment.
        task_id: id of the task played, or None before the first reset.
        turn: turn at which it broke, from 0.
        agent: the agent concerned, or None where all are.
    """

    def __init__(
        self, what: str, *, env_id: str, task_id: str | None = None, turn: int = 0, agent: str | None = None
    ) -> None:
        self.what, self.env_id, self.task_id, self.turn, self.agent = what, env_id, task_id, turn, agent
        who = f", agent {agent}" if agent else ""
        super().__init__(f"{env_id}, task {task_id!r}, turn {turn}{who}: {what}")

    def __reduce__(self) -> tuple:
        return (_rebuild_fault, (self.what, self.env_id, self.task_id, self.turn, self.agent))


def _rebuild_fault(what: str, env_id: str, task_id: str | None, turn: int, agent: str | None) -> EnvFault:
    return EnvFault(what, env_id=env_id, task_id=task_id, turn=turn, agent=agent)


def suggest(word: str, options: Iterable[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them where they are few.

    Args:
        word: what the user wrote.
        options: the names that would have been accepted.

    Returns:
        Text such as "; did you mean 'writing/tldr-v0'?", or "" where nothing is near and there are many.
    """
    known = sorted({str(option) for option in options})
    near = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    if 0 < len(known) <= 12:
        return "; known: " + ", ".join(known)
    return ""


def require_choice(name: str, value: Any, options: Sequence[Any], where: str) -> None:
    """Raise a `SettingError` unless a setting has one of the values that `where` offers."""
    if value not in options:
        raise SettingError(
            f"{name}={value!r} is not offered by {where}{suggest(str(value), map(str, options))}"
        )


def require_count(name: str, value: Any) -> None:
    """Raise a `SettingError` unless a setting is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SettingError(f"{name} must be a whole number >= 1, not {value!r}")


def require_role(name: str) -> None:
    """Raise a `SettingError` unless an agent's name is a role with an index, such as `writer_0`.

    The form is PettingZoo's; adapters, folders and settings are named after it.
    """
    if not re.fullmatch(r"[a-z]+_[0-9]+", name):
        raise SettingError(f"agent name {name!r} is not a role with an index, such as writer_0")
