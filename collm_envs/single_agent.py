"""`SingleAgentEnv`: one agent acts, the others are part of the environment. Gymnasium's API.

For single-agent trainers and tools, and for measuring one agent beside known partners. What it cannot do is learn
for the partners: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from collm_envs.env import CollabEnv
from collm_envs.errors import EnvFault, SettingError, suggest
from collm_envs.partners import Choice, Company, choose_partners


class SingleAgentEnv(gymnasium.Env[str, str]):
    """A collaborative task as one agent meets it.

    Observations, rewards and infos are those that the agent gets in the environment below, which `env` holds.
    `gymnasium.make(id, agent=..., partners=...)` builds it by the environment's id.

    Args:
        env: the environment; the view plays it, so nothing else should.
        agent: who acts; default the first.
        partners: who plays the others: a scripted kind such as `novice`, a function (`partners.Partner`), or one
            of these by agent. Left out only where there are no others.

    Raises:
        SettingError: for an unknown agent or kind, or an agent that nobody plays.
    """

    def __init__(
        self,
        env: CollabEnv,
        agent: str | None = None,
        partners: Choice | Mapping[str, Choice] | None = None,
    ) -> None:
        if not isinstance(env, CollabEnv):
            raise SettingError(f"SingleAgentEnv takes a CollabEnv, such as make(id), not {env!r}")
        agent = env.possible_agents[0] if agent is None else agent
        if agent not in env.possible_agents:
            raise SettingError(
                f"{env.env_id} has no agent {agent!r}{suggest(str(agent), env.possible_agents)}"
            )
        self.env, self.agent = env, agent
        self.partners = choose_partners(env, (agent,), partners)
        self.observation_space = env.observation_space(agent)
        self.action_space = env.action_space(agent)
        self.metadata = {key: env.metadata[key] for key in ("render_modes", "render_fps")}
        self.render_mode = env.render_mode
        self._company: Company | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: reseeds the environment and the partners' draws; the task is the one that the environment below
                draws from this seed. None goes on with the generators.
            options: as in the environment below: `{"task": Task | int}` picks the task.

        Returns:
            The agent's observation and info.
        """
        super().reset(seed=seed)
        self._company = None
        observations, infos = self.env.reset(seed=seed, options=options)
        self._company = Company(self.env, self.partners, observations, int(self.np_random.integers(2**63)))
        return observations[self.agent], infos[self.agent]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one turn: the agent's reply beside those of the partners.

        Args:
            action: the agent's reply.

        Returns:
            Observation, reward, terminated, truncated and info of the agent.

        Raises:
            EnvFault: when a partner, the environment or its judge fails, or the episode is over.
        """
        env, own = self.env, self.agent
        if self._company is None or not env.agents:
            why = "the episode has ended or never began; call reset"
            raise EnvFault(why, env_id=env.env_id, task_id=env.task.id if env.task else None, turn=env.turn)
        seen, rewards, terminated, truncated, infos = env.step({own: action, **self._company.replies()})
        self._company.observe(seen)
        return seen[own], rewards[own], terminated[own], truncated[own], infos[own]

    def render(self) -> Any:
        """What the environment below draws in its render mode."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment below."""
        self.env.close()
