"""Advantages and value targets on a forest of nodes: pure functions of arrays.

For algorithms, which combine them (`algorithms/*.py`), and for tests, which check them by hand. Nothing here
knows of models, tokens or environments.

Notation: P points, M nodes, N rows, A agents, Q critic queries. Children of a node are the nodes taken at its
`next_point`; greedy baseline nodes never count as children of sampled ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from collm_agents.batch import Bools, Floats, Ints, Rollouts


@dataclass(frozen=True)
class RolloutNeeds:
    """What an estimator wants sampled.

    Attributes:
        branching: `tree` (K at every turn) or `paths` (K at the first, then 1), where the config says `auto`.
        greedy: also play a greedy joint reply at every point, as a baseline.
        min_siblings: least number of joint replies at the first turn; with fewer nothing could be learned.
        joint_modes: ways of pairing replies into joint actions that its arithmetic is right for.
    """

    branching: str = "paths"
    greedy: bool = False
    min_siblings: int = 1
    joint_modes: tuple[str, ...] = ("aligned",)


@dataclass(frozen=True)
class Queries:
    """What a critic is asked to value: Q inputs.

    Attributes:
        point: the point whose history is read, [Q].
        replies: reply texts by agent index that are appended to the history (for action values), Q dicts;
            None asks for state values.
    """

    point: Ints
    replies: tuple[Mapping[int, str], ...] | None = None


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns.

    Attributes:
        advantage: one per row, [N].
        keep: rows that may be trained on, [N]; False for rows of greedy baselines and of dropped subtrees.
        target: value target per query, [Q] (joint) or [Q, A] (local); None without a critic.
        target_weight: weight of each query in the critic's loss, [Q].
        metrics: numbers worth logging.
    """

    advantage: Floats
    keep: Bools
    target: Floats | None = None
    target_weight: Floats | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Estimator(Protocol):
    """An algorithm's estimator: a frozen dataclass whose fields are its settings."""

    gamma: float
    advantage_norm: str

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """What has to be sampled."""

    @property
    def variant(self) -> str:
        """Short name of the settings that change what is estimated, named in every result."""

    def critic_queries(self, rollouts: Rollouts) -> Queries | None:
        """The inputs to be valued; None without a critic."""

    def __call__(self, rollouts: Rollouts, values: Floats | None) -> Estimate:
        """Advantages and targets from rollouts and the queried values ([Q] or [Q, A])."""


def child_scan(x: Floats, rollouts: Rollouts, factor: float) -> Floats:
    """Y = x + factor * mean over children of y, from the last turn to the first.

    With x = rewards and factor = gamma this is the Monte Carlo return on a tree; with x = TD errors and
    factor = gamma * lambda it is GAE (Schulman et al. 2016) with the mean over children as the expectation.

    Args:
        x: per node, [M] or [M, A].
        rollouts: the forest.
        factor: weight of the children's mean.

    Returns:
        Per node, of the shape of `x`.
    """
    nodes = rollouts.nodes
    y = np.array(x, dtype=np.float64)
    total, count = np.zeros_like(y), np.zeros(len(nodes))
    # Parents come before children, so one pass backwards sees every child before its parent.
    for node in range(len(nodes) - 1, -1, -1):
        if count[node]:
            y[node] += factor * total[node] / count[node]
        parent = nodes.parent[node]
        if parent >= 0 and nodes.greedy[node] == nodes.greedy[parent]:
            total[parent] += y[node]
            count[parent] += 1
    return y


def complete_nodes(rollouts: Rollouts) -> Bools:
    """Nodes below which nothing was truncated, [M]: their Monte Carlo returns are whole."""
    nodes = rollouts.nodes
    complete = ~nodes.truncated
    for node in range(len(nodes) - 1, 0, -1):
        parent = nodes.parent[node]
        if parent >= 0 and not complete[node] and nodes.greedy[node] == nodes.greedy[parent]:
            complete[parent] = False
    return complete


def row_mean(per_node: Floats, rollouts: Rollouts, use: Bools) -> tuple[Floats, Bools]:
    """Mean over the nodes that used a row.

    Args:
        per_node: values of nodes, [M] or, by agent, [M, A].
        rollouts: the forest.
        use: nodes that count, [M].

    Returns:
        The means, [N], 0 where no node counts, and whether one does, [N].
    """
    total, count = np.zeros(len(rollouts.rows)), np.zeros(len(rollouts.rows))
    values = np.broadcast_to(per_node[:, None] if per_node.ndim == 1 else per_node, rollouts.row_of.shape)
    np.add.at(total, rollouts.row_of[use], values[use])
    np.add.at(count, rollouts.row_of[use], 1.0)
    return total / np.maximum(count, 1), count > 0


def child_mean(x: Floats, rollouts: Rollouts) -> Floats:
    """Mean of x over the children of each node, 0 where there are none.

    Args:
        x: per node, [M] or [M, A].
        rollouts: the forest.

    Returns:
        Per node, of the shape of `x`.
    """
    nodes = rollouts.nodes
    total, count = np.zeros_like(x, dtype=np.float64), np.zeros(len(nodes))
    child = np.flatnonzero(nodes.parent >= 0)
    child = child[nodes.greedy[child] == nodes.greedy[nodes.parent[child]]]
    np.add.at(total, nodes.parent[child], x[child])
    np.add.at(count, nodes.parent[child], 1.0)
    return total / np.maximum(count, 1.0).reshape(-1, *(1,) * (x.ndim - 1))


def row_groups(rollouts: Rollouts) -> Ints:
    """Group of each row for baselines, [N]: the node's group, apart for each agent."""
    group = np.zeros(len(rollouts.rows), dtype=np.int64)
    count = len(rollouts.agents)
    group[rollouts.row_of] = rollouts.nodes.group[:, None] * count + np.arange(count)
    return group


def explained_variance(value: Floats, target: Floats, weight: Floats) -> float:
    """How much of the targets a critic knows: 1 - Var(target - value) / Var(target), weighted.

    Args:
        value: [Q].
        target: [Q].
        weight: [Q].

    Returns:
        At most 1; 0 for a constant, below 0 for worse than that, and 0 where the targets do not vary.
    """
    w = weight / max(float(weight.sum()), 1e-12)
    variance = float((w * (target - (w * target).sum()) ** 2).sum())
    error = target - value
    residual = float((w * (error - (w * error).sum()) ** 2).sum())
    return 1.0 - residual / variance if variance > 1e-12 else 0.0


BASELINES = ("mean", "none", "leave_one_out", "max", "greedy")


def subtract_baseline(returns: Floats, group: Ints, kind: str, greedy: Floats | None = None) -> Floats:
    """Returns minus a baseline taken over groups of rows of one agent.

    Args:
        returns: [N].
        group: group of each row, [N]; rows of different agents are in different groups.
        kind: `none` (0); `mean` of the group, the row included (MAGRPO); `leave_one_out`, K/(K-1) times the
            distance to the mean (MARLOO); `max` of the group (the released MAREMAX); `greedy`, the return of
            the greedy joint reply at the same point (ReMax).
        greedy: that return, [N], for `greedy`.

    Returns:
        [N]. A group of one has no other to be compared with: `leave_one_out` leaves its return as it is
        (an empty baseline, unbiased); `mean` and `max` give 0. Where paths end early, groups of later turns
        shrink to K', and `mean` is unbiased up to (K' - 1) / K'.
    """
    if kind == "none" or not len(returns):
        return returns.copy()
    if kind == "greedy":
        if greedy is None:
            raise ValueError("the greedy baseline needs the greedy returns")
        return returns - greedy
    _, index = np.unique(group, return_inverse=True)
    count = np.bincount(index)
    if kind == "max":
        best = np.full(len(count), -np.inf)
        np.maximum.at(best, index, returns)
        return returns - best[index]
    mean = np.bincount(index, weights=returns) / count
    centred = returns - mean[index]
    if kind == "leave_one_out":
        size = count[index]
        return np.where(size > 1, centred * size / np.maximum(size - 1, 1), returns)
    return centred


def mean_of_others(values: Floats, group: Ints) -> Floats:
    """Mean over the other members of one's group, [N] -> [N]; 0 for a group of one."""
    if not len(values):
        return values.copy()
    _, index = np.unique(group, return_inverse=True)
    count, total = np.bincount(index)[index], np.bincount(index, weights=values)[index]
    return np.where(count > 1, (total - values) / np.maximum(count - 1, 1), 0.0)


LEAST_SCALE = 0.01


def normalise(advantage: Floats, weight: Floats, turn: Ints, agent: Ints, sample: Ints, mode: str) -> Floats:
    """Centre and scale advantages. Biased, as every scale taken from the data is; `none` is not.

    Args:
        advantage: [N].
        weight: row weights, [N]; rows of weight 0 do not count.
        turn: turn of each row, [N].
        agent: agent of each row, [N].
        sample: joint action that each row belongs to, [N]; agents' rows of one are no independent samples.
        mode: `none`; `batch`: over all rows of a turn (centring over all turns at once would push early
            turns down on sparse positive rewards); `agent_turn`: by agent and turn, as the release does.

    Returns:
        [N]. Groups of fewer than two joint actions are left as they are. The scale is at least 0.01 of a
        reward unit, so that a solved task is not trained on the noise of its critic.
    """
    if mode == "none":
        return advantage.copy()
    key = turn if mode == "batch" else turn * (int(agent.max(initial=0)) + 1) + agent
    out = advantage.copy()
    for value in np.unique(key):
        rows = np.flatnonzero((key == value) & (weight > 0))
        if len(np.unique(sample[rows])) < 2:
            continue
        w = weight[rows] / weight[rows].sum()
        centred = advantage[rows] - (w * advantage[rows]).sum()
        out[rows] = centred / max(float(np.sqrt((w * centred**2).sum())), LEAST_SCALE)
    return out
