"""What a task author writes: the hooks of an environment, with their contracts and defaults.

`begin`, `prompt` and `advance` are the three that every task has, beside its roles and reward components; the
rest have defaults. `CollabEnv` calls them and keeps the books. Hooks are pure: `advance` and `settle` return a
new state and leave the old one alone, which is what makes `clone` cheap and trees of episodes possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from collm_envs.errors import SettingError
from collm_envs.reward import RewardModel, Score, Scorer
from collm_envs.task import Row, Task


class TaskHooks:
    """The author's side of an environment; `CollabEnv` is the other."""

    env_id: str
    reward_model: RewardModel

    def roles(self, num_agents: int) -> Sequence[str]:
        """Agent names, roles with an index, such as `("summary_0", "detail_1")`."""
        raise NotImplementedError("an environment names its agents in roles()")

    def components(self) -> Sequence[Scorer]:
        """The reward components in scoring order; may depend on `self.formula` and other settings."""
        raise NotImplementedError("an environment names its reward components in components()")

    def begin(self, task: Task, rng: np.random.Generator) -> Any:
        """The state at the start of a task. All chance of the episode is drawn here."""
        raise NotImplementedError("an environment starts a task in begin()")

    def prompt(self, state: Any, agent: str) -> str:
        """What one agent sees in a state: the task at turn 0, the feedback later. Pure."""
        raise NotImplementedError("an environment writes its prompts in prompt()")

    def advance(self, state: Any, actions: Mapping[str, str]) -> tuple[Any, Any]:
        """Apply the joint action; returns the new state and the outcome to be judged. Pure and fast."""
        raise NotImplementedError("an environment plays a turn in advance()")

    def judge(self, outcome: Any) -> Score | Future[Score]:
        """Score an outcome; a slow judge returns a future."""
        return self.reward_model(outcome)

    def settle(self, state: Any, outcome: Any, score: Score) -> Any:
        """Fold a turn's score into the state, for feedback that mentions it. Pure."""
        return state

    def measure(self, outcome: Any) -> Mapping[str, float]:
        """Quantities that are reported beside the reward's parts but not paid, by name."""
        return {}

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool] | None:
        """Predicate `(outcome, total, parts)` for success; None means a fraction of the greatest score."""
        return None

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Rows of the environment's own data for one of `builtin_splits`."""
        raise SettingError(f"{self.env_id} has no built-in tasks; name a file or hub:owner/name")

    def novice(self, state: Any, agent: str, rng: np.random.Generator) -> str:
        """A weak scripted reply in a state, for baselines and warm starts."""
        raise NotImplementedError(f"{self.env_id} has no novice agent")

    def oracle(self, state: Any, agent: str, rng: np.random.Generator) -> str:
        """A scripted reply that reaches the greatest score when all agents use it."""
        raise NotImplementedError(f"{self.env_id} has no oracle agent")
