"""Who plays the agents that are not learning: scripts, functions, or policies that were trained before.

For views in which some agents are part of the environment (`single_agent`, and trainers of a single policy). A
partner that is a function sees its own history and nothing else, as every agent does; scripted kinds are the
environment's own and may know more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.errors import EnvFault, SettingError, suggest


class Partner(Protocol):
    """A policy that replies from its own history.

    One object may play in many episodes at once, in any order: it is given all it may know.
    """

    def __call__(self, history: tuple[str, ...], rng: np.random.Generator, /) -> str:
        """The reply.

        Args:
            history: what this agent saw and said in this episode, in turn; the newest observation stands last.
            rng: the only source of chance; seeded by the episode.
        """
        ...


Choice = str | Partner


def choose_partners(
    env: CollabEnv, own: Collection[str], partners: Choice | Mapping[str, Choice] | None
) -> dict[str, Choice]:
    """Who plays each agent that is not one of `own`.

    Args:
        env: the environment.
        own: agents that act from outside.
        partners: a scripted kind or a function for all, or one of them by agent. May be None only where no
            agent is left.

    Raises:
        SettingError: for an agent that nobody plays, that does not exist or that acts from outside, and for an
            unknown kind.
    """
    others = [agent for agent in env.possible_agents if agent not in own]
    kinds = ", ".join(map(repr, env.scripted_kinds))
    if partners is None and others:
        raise SettingError(f"nobody plays {', '.join(others)}: partners={kinds}, or a function")
    chosen: dict[str, Any] = (
        dict(partners) if isinstance(partners, Mapping) else dict.fromkeys(others, partners)
    )
    for agent, choice in chosen.items():
        if agent in own:
            raise SettingError(f"{agent} acts from outside and cannot be a partner, too")
        if agent not in others:
            raise SettingError(f"{env.env_id} has no agent {agent!r}{suggest(str(agent), others)}")
        if isinstance(choice, str) and choice not in env.scripted_kinds:
            hint = suggest(choice, env.scripted_kinds)
            raise SettingError(f"{env.env_id} has no scripted agent {choice!r}{hint}")
        if not isinstance(choice, str) and not callable(choice):
            raise SettingError(f"partner {agent}: {kinds} or a function is wanted, not {choice!r}")
    missing = [agent for agent in others if agent not in chosen]
    if missing:
        raise SettingError(
            f"nobody plays {', '.join(missing)}: partners={{{missing[0]!r}: ...}} has to say who"
        )
    return {agent: chosen[agent] for agent in others}


class Company:
    """The partners of one episode.

    Args:
        env: the environment, just reset.
        partners: as `choose_partners` returns them.
        observations: those of the reset.
        seed: of the partners' draws; each has a generator of its own.
    """

    def __init__(
        self, env: CollabEnv, partners: Mapping[str, Choice], observations: Mapping[str, str], seed: int
    ) -> None:
        self.env, self.partners = env, partners
        self._histories = {agent: [observations[agent]] for agent in partners}
        self._rngs = {agent: np.random.default_rng([seed, i]) for i, agent in enumerate(partners)}

    def replies(self) -> dict[str, str]:
        """The partners' replies of this turn; to be asked for once.

        Raises:
            EnvFault: when a partner fails or gives no text. The episode is then over.
        """
        said = {agent: self._reply(agent) for agent in self.partners}
        for agent, text in said.items():
            self._histories[agent].append(text)
        return said

    def observe(self, observations: Mapping[str, str]) -> None:
        """Show the partners what the turn led to."""
        for agent, history in self._histories.items():
            history.append(observations[agent])

    def _reply(self, agent: str) -> str:
        choice, env = self.partners[agent], self.env
        try:
            if isinstance(choice, str):
                return env.scripted(choice, agent, self._rngs[agent])
            text = choice(tuple(self._histories[agent]), self._rngs[agent])
            if not isinstance(text, str):
                raise TypeError(f"it replied with {type(text).__name__}, not str")
            return text
        except BaseException as error:
            env.agents = []  # as after any fault: it is never scored, and nobody goes on from here
            if isinstance(error, EnvFault) or not isinstance(error, Exception):
                raise
            raise EnvFault(
                f"this partner raised {type(error).__name__}: {error}",
                env_id=env.env_id,
                task_id=env.task.id if env.task else None,
                turn=env.turn,
                agent=agent,
            ) from error
