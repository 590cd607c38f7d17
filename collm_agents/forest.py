"""Rollouts while they grow: columns that records are appended to.

For the collector. Nothing here knows of environments or models; `batch` says what the columns mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collm_agents.batch import Nodes, Points, Rollouts, Rows

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("tree", "parent", "turn", "point", "next_point", "group", "agent"), np.int64),
    **dict.fromkeys(("terminated", "truncated", "success", "greedy", "cut", "clipped"), np.bool_),
    **dict.fromkeys(("reward", "score", "weight"), np.float64),
}


@dataclass
class Forest:
    """Columns of the rollouts while they grow."""

    points: dict[str, list] = field(default_factory=lambda: {k: [] for k in Points.__dataclass_fields__})
    nodes: dict[str, list] = field(default_factory=lambda: {k: [] for k in Nodes.__dataclass_fields__})
    rows: dict[str, list] = field(default_factory=lambda: {k: [] for k in Rows.__dataclass_fields__})
    row_of: list[list[int]] = field(default_factory=list)
    groups: int = 0

    @staticmethod
    def add(columns: dict[str, list], **values: Any) -> int:
        """Append one record; returns its index."""
        for key, column in columns.items():
            column.append(values[key])
        return len(columns[next(iter(columns))]) - 1

    def new_group(self) -> int:
        """A group index not used before."""
        self.groups += 1
        return self.groups - 1

    def finish(self, agents: Sequence[str], tasks: Sequence[str], branching: Sequence[int]) -> Rollouts:
        """The rollouts, for agent names, task ids by tree, and replies drawn per turn."""
        return Rollouts(
            agents=tuple(agents),
            tasks=tuple(tasks),
            branching=tuple(branching),
            points=Points(**_arrays(self.points)),
            nodes=Nodes(**_arrays(self.nodes)),
            rows=Rows(**_arrays(self.rows)),
            row_of=np.array(self.row_of, dtype=np.int64).reshape(len(self.row_of), len(agents)),
        )


def _arrays(columns: dict[str, list]) -> dict[str, Any]:
    return {k: np.array(v, dtype=_KINDS[k]) if k in _KINDS else tuple(v) for k, v in columns.items()}
