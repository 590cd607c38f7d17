"""Numbers that are not finite stop a run, and the message says where the first one was.

For team and learner, at the places where numbers are born: drawn tokens, values, advantages. A NaN that goes on
would be drawn as some token or averaged into a curve; nothing here replaces or clamps one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from collm_envs.errors import CollmError

if TYPE_CHECKING:
    from torch import Tensor

    from collm_agents.advantages import Estimate, Queries
    from collm_agents.batch import Floats, Rollouts
    from collm_agents.draws import DrawKey


class NonFiniteError(CollmError, ArithmeticError):
    """A number is not finite; names the agent or critic, which was not stepped, the task, the turn and the node."""


def check_drawn(
    agent: str, key: DrawKey | None, logprob: Floats, weights: Callable[[], Mapping[str, Iterable[Tensor]]]
) -> None:
    """Raise where a reply was drawn from logits that are not finite.

    Args:
        agent: who replied.
        key: what the reply was drawn for; None for the likeliest tokens.
        logprob: log-probs of its tokens, [L].
        weights: gives those of all members, by member. Rows of several are decoded together, and one with a NaN
            spoils the others' logits, so the cause is looked for among all.
    """
    broken = np.flatnonzero(~np.isfinite(logprob))
    if not len(broken):
        return
    place = "a greedy reply"
    if key is not None:
        place = f"task {key.task!r} turn {len(key.node) - 1}, branch {'.'.join(map(str, key.node))}"
    ill = [member for member, own in weights().items() if not all(bool(w.isfinite().all()) for w in own)]
    cause = "all weights are finite, so it is the model's arithmetic; try team.dtype=float32"
    raise NonFiniteError(
        f"the logits of {agent} are not finite at token {broken[0]} of {place}; "
        + (f"the weights of {', '.join(ill)} are not either" if ill else cause)
    )


def check_values(values: Floats, queries: Queries, rollouts: Rollouts) -> None:
    """Raise where a critic's value is not finite.

    Args:
        values: [Q], or [Q, A] for one critic per agent.
        queries: what was valued.
        rollouts: the buffer.
    """
    broken = np.argwhere(~np.isfinite(values))
    if len(broken):
        query, *agent = broken[0].tolist()
        who = f"{rollouts.agents[agent[0]]}'s critic" if agent else "the critic"
        point = int(queries.point[query])
        raise NonFiniteError(f"{who} values {_place(rollouts, point)} at {values[tuple(broken[0])]}")


def check_estimate(estimate: Estimate, rollouts: Rollouts) -> None:
    """Raise where an advantage that would be trained with is not finite."""
    broken = np.flatnonzero(estimate.keep & ~np.isfinite(estimate.advantage))
    if len(broken):
        row = int(broken[0])
        agent = rollouts.agents[int(rollouts.rows.agent[row])]
        node = int(np.flatnonzero((rollouts.row_of == row).any(1))[0])
        where = _place(rollouts, int(rollouts.rows.point[row]))
        raise NonFiniteError(f"the advantage of {agent} is {estimate.advantage[row]}: {where}, node {node}")


def _place(rollouts: Rollouts, point: int) -> str:
    task = rollouts.tasks[int(rollouts.points.tree[point])]
    return f"task {task!r} turn {int(rollouts.points.turn[point])}"
