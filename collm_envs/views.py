"""Other shapes of the same environment: PettingZoo's turn-by-turn API, and observations as dictionaries.

For libraries that do not take an environment as it is. A view adds nothing: tasks, rewards, infos and seeds are
those of the environment below, which `unwrapped` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.spaces import Dict
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import BaseParallelWrapper, parallel_to_aec

from collm_envs.spaces import UnicodeText

Texts = dict[str, str]


class TextDict(BaseParallelWrapper[str, Texts, str]):
    """Observations `{"text": str}` in a `Dict` space, for tools that cannot take a bare string.

    PettingZoo's `api_test` is one: it asks every bare observation for a dtype. The key is not `observation`, under
    which it would look for one again.

    Args:
        env: an environment whose observations are strings.
    """

    def __init__(self, env: ParallelEnv[str, str, str]) -> None:
        super().__init__(env)
        self._spaces = {agent: Dict(text=env.observation_space(agent)) for agent in env.possible_agents}

    def observation_space(self, agent: str) -> Dict:
        """The agent's observation space: the same object at every call."""
        return self._spaces[agent]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Texts], dict[str, dict]]:
        """Start an episode; arguments and infos are those of the environment below."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return _dicts(observations), infos

    def step(self, actions: Mapping[str, str]) -> tuple[dict[str, Texts], dict, dict, dict, dict]:
        """Play one turn; everything but the observations is that of the environment below."""
        observations, *rest = self.env.step(actions)
        return _dicts(observations), *rest


def _dicts(observations: Mapping[str, str]) -> dict[str, Texts]:
    return {agent: {"text": text} for agent, text in observations.items()}


def to_aec(env: ParallelEnv[str, str, str]) -> AECEnv:
    """The environment in PettingZoo's agent-environment-cycle API: agents reply one after another.

    They still cannot see each other's replies of the turn: the turn is played when the last agent has replied.

    Args:
        env: an environment, or a wrapper of one that keeps its texts.

    Returns:
        Its AEC view, with observations `{"text": str}`.
    """
    if not all(isinstance(env.observation_space(agent), UnicodeText) for agent in env.possible_agents):
        raise TypeError(f"{env} does not observe texts: to_aec takes a CollabEnv, not a view of one")
    return parallel_to_aec(TextDict(env))
