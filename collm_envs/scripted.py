"""Scripted agents: who they are, and whole episodes played by them.

`random` works everywhere; `novice` and `oracle` are written by each environment (see `CollabEnv`). They give
the floor, the weak start and the ceiling that learned agents are compared with, and need no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from collm_envs.errors import SettingError, suggest

if TYPE_CHECKING:
    from collm_envs.env import CollabEnv
    from collm_envs.task import Task

KINDS = ("random", "novice", "oracle")


def random_reply(observation: str, rng: np.random.Generator) -> str:
    """Up to twelve words drawn from the observation: plausible noise for any text task."""
    words = observation.split() or ["word"]
    return " ".join(str(word) for word in rng.choice(words, size=int(rng.integers(0, 13))))


def parse_kinds(text: str, agents: Sequence[str], allowed: Sequence[str] = KINDS) -> dict[str, str]:
    """Who plays whom: one kind for all agents, one each in their order, or `name=kind,name=kind`.

    Args:
        text: what was written.
        agents: names of the agents.
        allowed: kinds there are.

    Raises:
        SettingError: for an unknown agent or kind, or an agent left out.
    """
    items = [item.partition("=") for item in text.split(",")]
    if not any(sign for _, sign, _ in items):
        named = [kind.strip() for kind, _, _ in items]
        if len(named) not in (1, len(agents)):
            raise SettingError(f"--agents: {len(named)} kinds for {len(agents)} agents ({', '.join(agents)})")
        kinds = dict(zip(agents, named * (len(agents) if len(named) == 1 else 1), strict=True))
    else:
        kinds = {name.strip(): kind.strip() for name, _, kind in items}
        if len(kinds) < len(items):
            raise SettingError(f"--agents: an agent is named twice in {text!r}; each has one kind")
    for name, kind in kinds.items():
        if name not in agents:
            raise SettingError(f"--agents: there is no agent {name!r}{suggest(name, agents)}")
        if kind not in allowed:
            raise SettingError(f"--agents: {kind!r} is no kind of agent{suggest(kind, allowed)}")
    missing = [name for name in agents if name not in kinds]
    if missing:
        raise SettingError(f"--agents: nobody plays {', '.join(missing)}")
    return {name: kinds[name] for name in agents}


def play_scripted(
    env: CollabEnv,
    kinds: str | Mapping[str, str],
    tasks: Sequence[Task],
    *,
    seed: int = 0,
    watch: Callable[[CollabEnv], None] | None = None,
) -> list[dict[str, Any]]:
    """Play whole episodes with scripted agents.

    Args:
        env: the environment.
        kinds: one kind for all agents, or a kind by agent.
        tasks: one episode is played for each.
        seed: seed of the scripts and of the environment's resets.
        watch: called with the environment after each reset and each turn, to draw it.

    Returns:
        One record per episode: `task_id`, `score` (of the last turn), `success`, `turns`, `return` (the sum
        of rewards), `parts`, `metrics`.
    """
    by_agent = dict.fromkeys(env.possible_agents, kinds) if isinstance(kinds, str) else dict(kinds)
    records = []
    for number, task in enumerate(tasks):
        rng = np.random.default_rng([seed, number])
        env.reset(seed=int(rng.integers(2**31)), options={"task": task})
        watch = watch or (lambda env: None)
        watch(env)
        total, info = 0.0, {}
        while env.agents:
            actions = {a: env.scripted(by_agent[a], a, rng) for a in env.agents}
            _, rewards, _, _, infos = env.step(actions)
            info = next(iter(infos.values()))
            total += next(iter(rewards.values()))
            watch(env)
        records.append(
            {
                "task_id": task.id,
                "score": info["score"],
                "success": info["success"],
                "turns": info["turn"],
                "return": total,
                "parts": info["reward_parts"],
                "metrics": info["metrics"],
            }
        )
    return records
