"""TD advantages from a critic of histories: what CoLLM-CC and CoLLM-DC share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collm_agents.advantages import (
    Estimate,
    Queries,
    RolloutNeeds,
    child_mean,
    child_scan,
    mean_of_others,
    row_groups,
    row_mean,
)
from collm_agents.batch import Floats, Rollouts
from collm_agents.sections import Section, setting


@dataclass(frozen=True)
class TemporalDifference(Section):
    """delta = r + gamma * V(next history) - V(history), and GAE over it; or values of replies, `critic="q"`.

    Values are joint, [Q], or by agent, [Q, A]; the arithmetic is the same.
    """

    _where = "algorithm"
    gamma: float = setting(0.9, "discount per turn", low=0, high=1)
    lam: float = setting(0.0, "lambda of GAE: 0 is one-step TD (the paper), 1 the return", low=0, high=1)
    critic: str = setting(
        "v",
        "what is valued: v, a history; q, a history with the replies to it (the baseline is then the mean Q of the "
        "others in the group)",
        choices=("v", "q"),
    )
    advantage_norm: str = setting(
        "batch", "default of learner.advantage_norm", choices=("none", "batch", "agent_turn")
    )

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """Independent paths."""
        return RolloutNeeds(branching="paths", joint_modes=("aligned", "cross"))

    @property
    def variant(self) -> str:
        """TD(0) or GAE with its lambda, and what is valued."""
        steps = "td0" if self.lam == 0 else f"gae{self.lam:g}"
        return steps if self.critic == "v" else f"q-{steps}"

    def critic_queries(self, rollouts: Rollouts) -> Queries:
        """Every point once: V(h_t). With `critic="q"` every joint action: Q(h_t, a_t)."""
        if self.critic == "v":
            return Queries(np.arange(len(rollouts.points)))
        texts = rollouts.rows.text
        replies = tuple({a: texts[row] for a, row in enumerate(rows)} for rows in rollouts.row_of)
        return Queries(rollouts.nodes.point, replies)

    def __call__(self, rollouts: Rollouts, values: Floats | None) -> Estimate:
        """Row advantages and value targets; see the class."""
        if values is None:
            raise ValueError("an actor-critic estimator needs values")
        columns = values[:, None] if values.ndim == 1 else values
        estimate = self._from_states if self.critic == "v" else self._from_replies
        advantage, keep, target, weight = estimate(rollouts, columns)
        return Estimate(advantage, keep, target[:, 0] if values.ndim == 1 else target, weight)

    def _from_states(self, rollouts: Rollouts, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """GAE from V, [P, 1] or [P, A]. A truncated node bootstraps from the point it was cut at.

        Siblings share one query, whose target is the mean of theirs: the same gradient as one query each.
        """
        nodes = rollouts.nodes
        following = np.where((nodes.next_point >= 0)[:, None], v[nodes.next_point], 0.0)
        delta = nodes.reward[:, None] + self.gamma * following - v[nodes.point]
        advantage = child_scan(delta, rollouts, self.gamma * self.lam)
        per_row, keep = row_mean(_by_agent(advantage, rollouts), rollouts, ~nodes.greedy)
        target, weight = np.zeros_like(v), np.zeros(len(v))
        np.add.at(target, nodes.point, nodes.weight[:, None] * (advantage + v[nodes.point]))
        np.add.at(weight, nodes.point, nodes.weight)
        return per_row, keep, target / np.where(weight > 0, weight, 1.0)[:, None], weight

    def _from_replies(self, rollouts: Rollouts, q: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """From Q, [M, 1] or [M, A]: targets r + gamma * mean over children of Q (SARSA), or their lambda-return.

        The advantage of a reply is its target minus the mean Q of the others in its group, which does not depend
        on the reply; its own Q in the target's place would train on the critic's error alone as long as the
        critic knows nothing. At a truncated node no next reply was valued: it is left out.
        """
        nodes = rollouts.nodes
        delta = nodes.reward[:, None] + self.gamma * child_mean(q, rollouts) - q
        delta[nodes.truncated] = 0.0  # so that its parents take its Q as it is
        target = child_scan(delta, rollouts, self.gamma * self.lam) + q
        use = ~nodes.greedy & ~nodes.truncated
        gained, keep = row_mean(_by_agent(target, rollouts), rollouts, use)
        valued, _ = row_mean(_by_agent(q, rollouts), rollouts, use)
        advantage = np.zeros(len(gained))
        advantage[keep] = gained[keep] - mean_of_others(valued[keep], row_groups(rollouts)[keep])
        return advantage, keep, target, nodes.weight * use


def _by_agent(per_node: Floats, rollouts: Rollouts) -> Floats:
    """[M, 1] or [M, A] -> [M, A]."""
    return np.broadcast_to(per_node, rollouts.row_of.shape)
