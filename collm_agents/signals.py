"""What a practitioner steers by: numbers of one update by agent and turn.

For the learner. Pure arithmetic on arrays; `docs/signals.md` explains each and how healthy and ill curves look.
Names read `<signal>/<agent>/t<turn>`, or `<signal>/t<turn>` for what all agents share. What does not apply (no row
was trained, nothing was measured) is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from collm_agents.advantages import child_scan, complete_nodes, row_groups, row_mean
from collm_agents.batch import Bools, Floats, Rollouts


class RowStats:
    """What was measured of single rows during an update; the last pass counts.

    Args:
        count: N, rows of the buffer.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.found: dict[str, Floats] = {}

    def put(self, name: str, rows: np.ndarray, values: Tensor) -> None:
        """Note one value per row: [B]."""
        column = self.found.setdefault(name, np.full(self.count, np.nan))
        column[rows] = values.detach().double().cpu().numpy()

    def add(self, rows: np.ndarray, found: Mapping[str, Floats]) -> None:
        """Take over what was measured of some rows elsewhere, [n] each, NaN where nothing was."""
        for name, values in found.items():
            self.found.setdefault(name, np.full(self.count, np.nan))[rows] = values

    def add_known(self, found: Mapping[str, Floats]) -> None:
        """Take over what was measured of all rows elsewhere, [N] each, where something was."""
        for name, values in found.items():
            known = ~np.isnan(values)
            self.add(np.flatnonzero(known), {name: values[known]})

    def put_ratios(self, rows: np.ndarray, ratio: Tensor, mask: Tensor, clip: float) -> None:
        """Note the mean ratio of each row and how much of it lies beyond the clip.

        Args:
            rows: which, [B].
            ratio: per reply, [B], or per token, [B, L].
            mask: reply tokens, [B, L].
            clip: the clip; 0 is off.
        """
        beyond = ((ratio - 1).abs() > clip).float() if clip > 0 else None
        for name, values in (("ratio", ratio), ("clip_fraction", beyond)):
            if values is None:
                continue
            if values.ndim == 2:
                values = values.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
            self.put(name, rows, values)


def signals(
    rollouts: Rollouts, advantage: Floats, weight: Floats, stats: RowStats, gamma: float
) -> dict[str, float]:
    """All signals of one update.

    Args:
        rollouts: the buffer.
        advantage: what rows were trained with, [N].
        weight: their weights, [N]; 0 for rows that were not.
        stats: what was measured of them.
        gamma: discount, for the returns that groups are compared by.
    """
    return {**_by_turn(rollouts), **_by_agent(rollouts, advantage, weight, stats, gamma)}


def _by_turn(rollouts: Rollouts) -> dict[str, float]:
    """Reward, its parts, score and success of joint actions, turn by turn."""
    nodes, found = rollouts.nodes, {}
    for turn in np.unique(rollouts.turn):
        own = np.flatnonzero((rollouts.turn == turn) & ~nodes.greedy)
        if not len(own):
            continue
        found[f"reward/t{turn}"] = float(nodes.reward[own].mean())
        found[f"score/t{turn}"] = float(nodes.score[own].mean())
        found[f"success/t{turn}"] = float(nodes.success[own].mean())
        for name in nodes.parts[own[0]]:
            found[f"parts/{name}/t{turn}"] = float(np.mean([nodes.parts[node][name] for node in own]))
    return found


def _by_agent(
    rollouts: Rollouts, advantage: Floats, weight: Floats, stats: RowStats, gamma: float
) -> dict[str, float]:
    """Replies, advantages, ratios and divergences by agent and turn."""
    rows, found = rollouts.rows, {}
    length = np.array([len(reply) for reply in rows.reply])
    turn_of, group, (equal, grouped) = (
        rollouts.points.turn[rows.point],
        row_groups(rollouts),
        _equal(rollouts, gamma),
    )
    for a, agent in enumerate(rollouts.agents):
        for turn in np.unique(turn_of[(rows.agent == a) & rows.drawn]):
            own = (rows.agent == a) & (turn_of == turn) & rows.drawn
            place = f"{agent}/t{turn}"
            found[f"reply_tokens/{place}"] = float(length[own].mean())
            found[f"truncated_replies/{place}"] = float(rows.cut[own].mean())
            if own.sum() > 1:
                said = {rows.text[row] for row in np.flatnonzero(own)}
                found[f"distinct_replies/{place}"] = (len(said) - 1) / float(own.sum() - 1)
            if (own & grouped).any():
                _, first = np.unique(group[own & grouped], return_index=True)
                found[f"group_equal/{place}"] = float(equal[own & grouped][first].mean())
            for name, value in _of_trained(advantage, own & (weight > 0), stats.found):
                found[f"{name}/{place}"] = value
    return found


def _of_trained(advantage: Floats, own: Bools, measured: Mapping[str, Floats]) -> Iterator[tuple[str, float]]:
    """Means over the rows that were trained."""
    if not own.any():
        return
    yield "advantage_mean", float(advantage[own].mean())
    yield "advantage_std", float(advantage[own].std())
    yield "advantage_zero", float((advantage[own] == 0).mean())
    for name, column in measured.items():
        known = column[own & np.isfinite(column)]
        if len(known):
            yield name, float(known.mean())


def _equal(rollouts: Rollouts, gamma: float) -> tuple[Bools, Bools]:
    """Rows whose group has equal returns throughout, and rows that have others in their group, [N] each."""
    returns = child_scan(rollouts.nodes.reward, rollouts, gamma)
    use = complete_nodes(rollouts) & ~rollouts.nodes.greedy
    per_row, keep = row_mean(returns, rollouts, use)
    _, index = np.unique(row_groups(rollouts), return_inverse=True)
    count = np.bincount(index[keep], minlength=index.max(initial=0) + 1)
    low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(low, index[keep], per_row[keep])
    np.maximum.at(high, index[keep], per_row[keep])
    return high[index] - low[index] <= 1e-9, (count[index] > 1) & keep
