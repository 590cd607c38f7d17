"""`Rollouts`: finished interaction as a forest of nodes, with token rows.

For estimators and learners. Three kinds of things:

- a *point* is a situation in which all agents are about to reply: joint history, own histories, turn;
- a *node* is one joint action taken at a point, with its reward; `next_point` is where it led;
- a *row* is one reply of one agent at a point, as tokens. `row_of[node, agent]` is the row that a node used.

Siblings are nodes of one point. `[K, 1, 1]` branching gives K paths per task, `[K, K, K]` the paper's tree; a
path is a tree with single children. Nothing here knows how the data will be used.

Notation: P points, M nodes, N rows, A agents, T turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Ints = np.ndarray
Floats = np.ndarray
Bools = np.ndarray


@dataclass(frozen=True)
class Points:
    """Decision points, parents before children.

    Attributes:
        tree: index of the task's tree, [P].
        parent: the point before, -1 at the root, [P].
        turn: turn index from 0, [P].
        state: joint history, P texts; a child's starts with its parent's.
        local: own histories, P tuples of A texts.
        info: what `env.global_info()` said (the paper's m_t), P dicts.
    """

    tree: Ints
    parent: Ints
    turn: Ints
    state: tuple[str, ...]
    local: tuple[tuple[str, ...], ...]
    info: tuple[Mapping[str, float], ...]

    def __len__(self) -> int:
        return len(self.tree)


@dataclass(frozen=True)
class Nodes:
    """Joint actions, parents before children.

    Attributes:
        parent: the node before, -1 at the first turn, [M].
        point: where it was taken, [M].
        next_point: where it led; -1 where the episode terminated, [M].
        group: nodes compared with each other by group baselines, [M]: siblings where the turn branches, else
            the single children of one sibling group.
        reward: joint reward, [M].
        score: the environment's score of the turn, [M].
        terminated: the task ended here, [M].
        truncated: cut from outside here; `next_point` is then a point nobody acted at, [M].
        success: solved here, [M].
        greedy: a greedy joint reply played only as a baseline: never trained on, never part of a mean, [M].
        weight: 1 / (trees x product of the branching up to its turn), 0 for greedy ones, [M].
        parts: reward parts, M dicts.
        metrics: measured quantities that are not paid, M dicts.
    """

    parent: Ints
    point: Ints
    next_point: Ints
    group: Ints
    reward: Floats
    score: Floats
    terminated: Bools
    truncated: Bools
    success: Bools
    greedy: Bools
    weight: Floats
    parts: tuple[Mapping[str, float], ...]
    metrics: tuple[Mapping[str, float], ...]

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True)
class Rows:
    """Replies as tokens. A scripted agent's have none: prompt and reply are then empty.

    Attributes:
        agent: index of the agent, [N].
        point: where it was given, [N].
        prompt: token ids of the whole prompt, history included, N lists.
        reply: token ids of the reply, the end token included where it was drawn, N lists.
        logprob: the sampler's own log-probs, N arrays [L]; a diagnostic.
        text: the reply as the environment saw it, N texts.
        cut: the token limit ended the reply, [N].
        clipped: the observation before it was cut to fit the context, [N].
    """

    agent: Ints
    point: Ints
    prompt: tuple[tuple[int, ...], ...]
    reply: tuple[tuple[int, ...], ...]
    logprob: tuple[Floats, ...]
    text: tuple[str, ...]
    cut: Bools
    clipped: Bools

    def __len__(self) -> int:
        return len(self.agent)

    @property
    def drawn(self) -> Bools:
        """Rows that a model drew, [N]."""
        return np.array([len(reply) > 0 for reply in self.reply], dtype=bool)


@dataclass(frozen=True)
class Rollouts:
    """A forest: one tree per task.

    Attributes:
        agents: agent names, A of them.
        tasks: task ids, one per tree.
        branching: replies drawn per turn.
        points: P decision points.
        nodes: M joint actions.
        rows: N replies.
        row_of: row that a node used for each agent, [M, A].

    Raises:
        ValueError: when the parts do not fit together, or a reward is not finite.
    """

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    branching: tuple[int, ...]
    points: Points
    nodes: Nodes
    rows: Rows
    row_of: Ints

    def __post_init__(self) -> None:
        nodes, points, rows = self.nodes, self.points, self.rows
        problems = {
            "a reward or score is not finite": not np.isfinite([nodes.reward, nodes.score]).all(),
            "row_of is not [M, A]": self.row_of.shape != (len(nodes), len(self.agents)),
            "a node comes before its parent": bool((nodes.parent >= np.arange(len(nodes))).any()),
            "a point comes before its parent": bool((points.parent >= np.arange(len(points))).any()),
            "a row is empty": any(not r and p for p, r in zip(rows.prompt, rows.reply, strict=True)),
            "a terminated node leads on": bool((nodes.terminated & (nodes.next_point >= 0)).any()),
            "a node both terminated and truncated": bool((nodes.terminated & nodes.truncated).any()),
        }
        for problem, found in problems.items():
            if found:
                raise ValueError(f"rollouts do not fit together: {problem}")
        if len(nodes) and (
            (rows.agent[self.row_of] != np.arange(len(self.agents))).any()
            or (rows.point[self.row_of] != nodes.point[:, None]).any()
        ):
            raise ValueError("rollouts do not fit together: a node uses a row of another agent or point")

    @property
    def turn(self) -> Ints:
        """Turn of each node, [M]."""
        return self.points.turn[self.nodes.point]

    @property
    def joint_samples(self) -> int:
        """Joint actions that the environment scored, greedy ones included: M."""
        return len(self.nodes)

    @property
    def leaves(self) -> Ints:
        """Nodes that ended an episode and are not greedy baselines."""
        ended = (self.nodes.terminated | self.nodes.truncated) & ~self.nodes.greedy
        return np.flatnonzero(ended)

    def path(self, node: int) -> list[int]:
        """Nodes from the first turn to `node`."""
        found = [node]
        while self.nodes.parent[found[-1]] >= 0:
            found.append(int(self.nodes.parent[found[-1]]))
        return found[::-1]

    def row_weight(self) -> Floats:
        """Weight of each row, [N]: the weights of the nodes that used it, added up (see `Nodes.weight`)."""
        weight = np.zeros(len(self.rows))
        for agent in range(len(self.agents)):
            np.add.at(weight, self.row_of[:, agent], self.nodes.weight)
        return weight


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split rows into batches of similar length with at most `budget` tokens each, padding counted.

    Args:
        lengths: tokens per row, N.
        budget: most tokens per batch; a longer single row gets a batch of its own.

    Returns:
        Row indices per batch; every row is in exactly one.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        widest = lengths[batches[-1][0]] if batches else 0
        if batches and widest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
