"""Given prompts, replies of any kind, rewards without sense: an environment that costs nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.throughput.spec import reward
from collm_envs import CollabEnv, RowFormat, component
from collm_envs.task import Task


@dataclass(frozen=True)
class GivenState:
    """The prompts of all agents, what they see later, and the turn."""

    prompts: tuple[str, ...]
    feedback: str
    turn: int = 0


@component("luck", low=0, high=1)
def luck(replies: tuple[str, ...]) -> float:
    """See `spec.reward`."""
    return reward(replies)


class Given(CollabEnv):
    """Agents see given prompts and are paid at random; named as `benchmarks.throughput.env:Given`.

    Observations: the task's prompt of the agent; later its feedback.

    Actions: any text.

    Rewards: `luck`, a hash of the replies; no episode ends early.

    Example: none.
    """

    agent_counts = tuple(range(1, 9))
    row_formats = (
        RowFormat(
            {"prompts": list, "feedback": str},
            lambda row: ({"prompts": row["prompts"], "feedback": row["feedback"]}, {}),
        ),
    )

    def roles(self, num_agents: int) -> Sequence[str]:
        """`agent_0` and so on."""
        return tuple(f"agent_{i}" for i in range(num_agents))

    def components(self) -> Sequence[Any]:
        """Luck alone."""
        return (luck,)

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        """Nothing is ever solved: episodes have full length."""
        return lambda outcome, total, parts: False

    def begin(self, task: Task, rng: np.random.Generator) -> GivenState:
        """The task's prompts."""
        return GivenState(tuple(task.public["prompts"]), task.public["feedback"])

    def prompt(self, state: GivenState, agent: str) -> str:
        """The agent's prompt, then the feedback."""
        return state.feedback if state.turn else state.prompts[self.possible_agents.index(agent)]

    def advance(self, state: GivenState, actions: Mapping[str, str]) -> tuple[GivenState, tuple[str, ...]]:
        """One turn more."""
        return replace(state, turn=state.turn + 1), tuple(actions.values())
