"""How long a run trains: what is counted, and how much of it there is.

For experiment and trainer. Runs that are to be compared get as much of one thing: joint samples (the paper's axis),
reply tokens or seconds. All of them are counted whatever the budget is, so that a curve can be drawn over each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from collm_agents.config import RunConfig
from collm_envs.errors import SettingError

Unit = Literal["joint_samples", "tasks", "tokens", "trained_s"]
UNITS = ("joint_samples", "task_passes", "tokens", "wall_s")  # the settings of [run], of which a run has one


@dataclass(frozen=True)
class Budget:
    """What a run may spend.

    Attributes:
        unit: the counter of a run's progress that is compared: joint samples, trees, reply tokens or seconds of
            training.
        amount: how far it goes. A run ends with the update that reaches it.
    """

    unit: Unit
    amount: float

    def __str__(self) -> str:
        return (
            f"{self.amount:,} {'seconds of training' if self.unit == 'trained_s' else 'reply ' + self.unit}"
        )

    def spent(self, progress: Any) -> float:
        """Share that a progress (`trainer.Progress`) has spent; an update may take it beyond 1."""
        return getattr(progress, self.unit) / self.amount

    def left(self, tasks: int) -> float:
        """Trees that may still be begun after a number of them."""
        return max(0, self.amount - tasks) if self.unit == "tasks" else math.inf

    def joint_samples(self, tree_size: int) -> int:
        """Joint samples of the whole run, an upper bound where episodes may end early; 0 where nobody knows."""
        known = {"joint_samples": self.amount, "tasks": self.amount * tree_size}
        return int(known.get(self.unit, 0))

    def updates(self, least_tree: int, tasks_per_update: int) -> float:
        """Updates of a run in which every episode ends at its first turn: as many as there can be."""
        trees = {"joint_samples": self.amount / least_tree, "tasks": self.amount}
        return (
            math.ceil(math.ceil(trees.get(self.unit, math.inf)) / tasks_per_update)
            if self.known
            else math.inf
        )

    @property
    def known(self) -> bool:
        """Whether it can be told before the run how many trees it buys."""
        return self.unit in ("joint_samples", "tasks")


def read_budget(run: RunConfig, tasks: int) -> Budget:
    """The budget that a run's settings name.

    Args:
        run: its section.
        tasks: training tasks, of which `task_passes` counts passes.

    Raises:
        SettingError: unless there is exactly one.
    """
    given = [name for name in UNITS if getattr(run, name)]
    if len(given) != 1:
        told = "not " + " and ".join(given) if given else "all are 0"
        raise SettingError(f"a run has one budget, of run.{', run.'.join(UNITS)}; {told}")
    if given[0] == "task_passes":
        return Budget("tasks", max(1, round(run.task_passes * tasks)))
    if given[0] == "tokens":
        return Budget("tokens", run.tokens)
    return (
        Budget("trained_s", run.wall_s)
        if given[0] == "wall_s"
        else Budget("joint_samples", run.joint_samples)
    )
