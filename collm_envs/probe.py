"""What a check of an environment needs: one to check, episodes of it, and a comparison of two.

For `contract`, which says what must hold. Everything is seen from outside, through the parallel API.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.errors import SettingError
from collm_envs.task import Task

SEED = 20_240
CORE = ("collm_envs.env", "collm_envs.hooks", "pettingzoo.utils.env")
_HERE = os.path.dirname(os.path.abspath(__file__))
CORE_FILES = frozenset(
    os.path.join(_HERE, f"{name}.py")
    for name in (
        "env",
        "hooks",
        "reward",
        "registry",
        "contract",
        "probe",
        "checker",
        "scripted",
        "task",
        "history",
    )
)
Reply = Callable[[CollabEnv, str, np.random.Generator], str]


@dataclass(frozen=True)
class Turn:
    """One turn as it was seen from outside: what was said, what came back, and the state after it."""

    replies: dict[str, str]
    observations: dict[str, str]
    rewards: dict[str, float]
    terminated: dict[str, bool]
    truncated: dict[str, bool]
    infos: dict[str, dict]
    state: str
    live: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What is checked: its name, its class, how to build one, and which settings may be varied."""

    name: str
    env_class: type[CollabEnv]
    build: Callable[..., CollabEnv]
    settings: frozenset[str]

    def where(self, hook: str) -> str:
        """The place to mend, such as `mine.tasks.Puzzle.advance()`."""
        return f"{self.env_class.__module__}.{self.env_class.__qualname__}.{hook}"

    def line_of(self, hook: str) -> str:
        """File and line of a hook that the class or an author's base of it writes; else of the class."""
        name = hook.partition("(")[0]
        found = getattr(self.env_class, name, None) if not name.startswith("__") else None
        module = getattr(found, "__module__", None)
        if not inspect.isfunction(found) or module in CORE:
            found = self.env_class
        try:
            return f"{shown_path(inspect.getsourcefile(found) or '?')}:{inspect.getsourcelines(found)[1]}"
        except (OSError, TypeError):  # a class made at a prompt has no file
            return ""

    def place_in(self, text: str) -> str:
        """File and line of the first hook of this class that a text names; empty where it names none."""
        prefix = re.escape(f"{self.env_class.__module__}.{self.env_class.__qualname__}.")
        named = re.search(rf"{prefix}(\w+|\*)", text)
        return self.line_of(named[1]) if named else ""

    def raised_at(self, error: BaseException) -> str:
        """File and line of the author's code that raised an error, behind the faults it was wrapped in."""
        while error.__cause__ is not None:
            error = error.__cause__
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in CORE_FILES]
        home = os.path.dirname(inspect.getsourcefile(self.env_class) or "")
        own = [frame for frame in frames if os.path.dirname(frame.filename) == home]
        for frame in (own or frames)[-1:]:
            return f"{shown_path(frame.filename)}:{frame.lineno}"
        return self.line_of("*")

    def several_turns(self) -> CollabEnv:
        """One with three turns where it takes the setting, so that later turns are looked at too."""
        if "num_turns" in self.settings:
            try:
                return self.build(num_turns=3)
            except SettingError:
                pass
        return self.build()

    def has(self, hook: str) -> bool:
        """Whether the class writes a hook that `CollabEnv` leaves open."""
        return getattr(self.env_class, hook) is not getattr(CollabEnv, hook)


def shown_path(path: str) -> str:
    """A file as a user would name it: relative to where one stands, if it lies below."""
    short = os.path.relpath(path)
    return os.path.abspath(path) if short.startswith("..") else short


def random_play(env: CollabEnv, agent: str, rng: np.random.Generator) -> str:
    """Words of the agent's own observation in random order."""
    return env.scripted("random", agent, rng)


def mixed_play(env: CollabEnv, agent: str, rng: np.random.Generator) -> str:
    """Noise and, where there is one, the novice: neither all bad nor solved at once."""
    novice = type(env).novice is not CollabEnv.novice and rng.random() < 0.5
    return env.scripted("novice" if novice else "random", agent, rng)


def scripted_play(kind: str) -> Reply:
    """Replies of one kind of scripted agent."""
    return lambda env, agent, rng: env.scripted(kind, agent, rng)


def play(env: CollabEnv, reply: Reply, rng: np.random.Generator, limit: int | None = None) -> list[Turn]:
    """Play on from where an environment stands, to the end or for `limit` turns."""
    turns: list[Turn] = []
    while env.agents and len(turns) < (limit or env.num_turns + 1):
        replies = {agent: reply(env, agent, rng) for agent in env.agents}
        turns.append(Turn(replies, *env.step(replies), env.state(), tuple(env.agents)))
    return turns


def play_episode(
    env: CollabEnv, reply: Reply, seed: int = SEED, task: Task | None = None
) -> tuple[Any, list[Turn]]:
    """A whole episode: `(observations, infos, state)` at the reset, and its turns."""
    first = env.reset(seed=seed, options={"task": task})
    return (*first, env.state()), play(env, reply, np.random.default_rng(seed))


def middle(env: CollabEnv) -> CollabEnv:
    """Bring an environment to the middle of an episode: after a first turn where that does not end it."""
    for seed in range(SEED, SEED + 8):
        env.reset(seed=seed)
        play(env, random_play, np.random.default_rng(seed), limit=1)
        if env.agents:
            return env
    env.reset(seed=SEED)
    return env


def same(a: Any, b: Any) -> bool:
    """Structural equality, generators and plain objects included."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, MethodType):
        return a.__func__ is b.__func__
    if isinstance(a, np.random.Generator):
        return same(a.bit_generator.state, b.bit_generator.state)
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    if dataclasses.is_dataclass(a) or (type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__")):
        names = [f.name for f in dataclasses.fields(a)] if dataclasses.is_dataclass(a) else list(vars(a))
        return all(same(getattr(a, name), getattr(b, name, None)) for name in names)
    return bool(a == b)


def first_difference(a: Sequence[Turn], b: Sequence[Turn]) -> str:
    """Where two plays part, in words; empty where they do not."""
    for number, (one, other) in enumerate(zip(a, b, strict=False), 1):
        for field in dataclasses.fields(Turn):
            if not same(getattr(one, field.name), getattr(other, field.name)):
                return f"{field.name} of turn {number} differ"
    return "" if len(a) == len(b) else f"one ends after {len(a)} turns, the other after {len(b)}"


def watched_call(env: CollabEnv, hook: str, state: Any, replies: dict[str, str]) -> tuple[Any, list[str]]:
    """Call a hook; its result, and what it changed in the state or the environment."""
    if hook == "settle":
        after, outcome = env.advance(state, replies)
        judged = env.judge(outcome)
        score = judged.result() if isinstance(judged, Future) else judged
        state = after
    watched = {"the state": state, **{f"self.{name}": value for name, value in vars(env).items()}}
    for known in ("self._tasks", "self._state"):
        watched.pop(known)
    if hook == "settle":
        watched["the outcome"] = outcome
    before = {}
    for name, value in watched.items():
        try:
            before[name] = copy.deepcopy(value)
        except Exception:  # a pool or a handle; pickling is checked apart
            continue
    if hook == "prompt":
        result: Any = {agent: env.prompt(state, agent) for agent in env.possible_agents}
    elif hook == "advance":
        result = env.advance(state, replies)
    else:
        result = env.settle(state, outcome, score)
    now = {**watched, **{f"self.{name}": value for name, value in vars(env).items()}}
    new = [name for name in now if name not in watched and name not in ("self._tasks", "self._state")]
    return result, [name for name, value in before.items() if not same(value, now[name])] + new
