"""MC: Monte Carlo policy gradients, the paper's MA-REINFORCE family (section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collm_agents.advantages import (
    BASELINES,
    Estimate,
    Queries,
    RolloutNeeds,
    child_scan,
    complete_nodes,
    row_groups,
    row_mean,
    subtract_baseline,
)
from collm_agents.algorithms import algorithm
from collm_agents.batch import Floats, Rollouts
from collm_agents.sections import Section, setting


@algorithm("mc")
@dataclass(frozen=True)
class MonteCarlo(Section):
    """Monte Carlo returns minus a group baseline; no critic.

    G(node) = r + gamma * mean over children of G; the baseline is taken per agent over the rows of a group.
    `mean` is MAGRPO, `none` MAREINFORCE, `leave_one_out` MARLOO, `max` the released MAREMAX, `greedy` ReMax.
    Nodes below which something was truncated have no whole return: they are dropped and counted.
    """

    _where = "algorithm"
    gamma: float = setting(0.9, "discount per turn", low=0, high=1)
    baseline: str = setting("mean", "mean, none, leave_one_out, max or greedy", choices=BASELINES)
    advantage_norm: str = setting(
        "none", "default of learner.advantage_norm", choices=("none", "batch", "agent_turn")
    )

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """The paper's tree; a greedy sibling for the `greedy` baseline; siblings for those taken over groups."""
        grouped = self.baseline in ("mean", "leave_one_out", "max")
        return RolloutNeeds(
            branching="tree",
            greedy=self.baseline == "greedy",
            min_siblings=1 + grouped,
            joint_modes=("aligned", "cross"),
        )

    @property
    def variant(self) -> str:
        """The baseline."""
        return self.baseline

    def critic_queries(self, rollouts: Rollouts) -> Queries | None:
        """None: nothing is valued."""
        return None

    def __call__(self, rollouts: Rollouts, values: Floats | None = None) -> Estimate:
        """Row advantages; see the class."""
        nodes = rollouts.nodes
        returns, whole = child_scan(nodes.reward, rollouts, self.gamma), complete_nodes(rollouts)
        per_row, keep = row_mean(returns, rollouts, whole & ~nodes.greedy)
        greedy = None
        if self.baseline == "greedy":
            # The greedy node of a point is the baseline of every reply given there.
            at_point = np.full(len(rollouts.points), np.nan)
            at_point[nodes.point[nodes.greedy & whole]] = returns[nodes.greedy & whole]
            greedy = at_point[rollouts.rows.point]
            keep &= np.isfinite(greedy)
        group = row_groups(rollouts)
        advantage = np.zeros(len(rollouts.rows))
        advantage[keep] = subtract_baseline(
            per_row[keep], group[keep], self.baseline, None if greedy is None else greedy[keep]
        )
        dropped = float((~whole & ~nodes.greedy).sum())
        return Estimate(advantage, keep, metrics={"dropped_nodes": dropped})
