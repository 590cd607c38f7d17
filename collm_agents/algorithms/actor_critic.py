"""TD advantages from a critic of histories: what CoLLM-CC and CoLLM-DC share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collm_agents.advantages import Estimate, Queries, RolloutNeeds, child_scan, row_mean
from collm_agents.batch import Floats, Rollouts
from collm_agents.config import Section, setting


@dataclass(frozen=True)
class TemporalDifference(Section):
    """delta = r + gamma * V(next history) - V(history), and GAE over it; targets frozen at rollout.

    Values are joint, [P], or by agent, [P, A]; the arithmetic is the same. A truncated node bootstraps from
    the point it was cut at. Siblings share one query, whose target is the mean of theirs: the same gradient
    as one query each.
    """

    _where = "algorithm"
    gamma: float = setting(0.9, "discount per turn", low=0, high=1)
    lam: float = setting(0.0, "lambda of GAE: 0 is one-step TD (the paper), 1 the return", low=0, high=1)
    advantage_norm: str = setting(
        "batch", "default of learner.advantage_norm", choices=("none", "batch", "agent_turn")
    )

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """Independent paths."""
        return RolloutNeeds(branching="paths")

    @property
    def variant(self) -> str:
        """TD(0) or GAE with its lambda."""
        return "td0" if self.lam == 0 else f"gae{self.lam:g}"

    def critic_queries(self, rollouts: Rollouts) -> Queries:
        """Every point once: the state values V(h_t)."""
        return Queries(np.arange(len(rollouts.points)))

    def __call__(self, rollouts: Rollouts, values: Floats | None) -> Estimate:
        """Row advantages and value targets; see the class."""
        if values is None:
            raise ValueError("an actor-critic estimator needs values")
        nodes = rollouts.nodes
        v = values[:, None] if values.ndim == 1 else values  # [P, 1] or [P, A]
        following = np.where((nodes.next_point >= 0)[:, None], v[nodes.next_point], 0.0)
        delta = nodes.reward[:, None] + self.gamma * following - v[nodes.point]
        advantage = child_scan(delta, rollouts, self.gamma * self.lam)
        by_agent = np.broadcast_to(advantage, rollouts.row_of.shape)
        per_row, keep = row_mean(by_agent, rollouts, ~nodes.greedy)

        target, weight = np.zeros_like(v), np.zeros(len(v))
        np.add.at(target, nodes.point, nodes.weight[:, None] * (advantage + v[nodes.point]))
        np.add.at(weight, nodes.point, nodes.weight)
        target = target / np.where(weight > 0, weight, 1.0)[:, None]
        return Estimate(
            per_row,
            keep,
            target=target[:, 0] if values.ndim == 1 else target,
            target_weight=weight,
            metrics={
                "explained_variance": _explained(v[nodes.point], advantage + v[nodes.point], nodes.weight)
            },
        )


def _explained(value: Floats, target: Floats, weight: Floats) -> float:
    """1 - Var(target - value) / Var(target), weighted; 0 where the targets do not vary."""
    w = np.broadcast_to(weight[:, None], target.shape) / max(float(weight.sum() * target.shape[1]), 1e-12)
    variance = float((w * (target - (w * target).sum()) ** 2).sum())
    error = target - value
    residual = float((w * (error - (w * error).sum()) ** 2).sum())
    return 1.0 - residual / variance if variance > 1e-12 else 0.0
