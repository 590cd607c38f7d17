"""An update's tasks in parts, and the parts' rollouts as one.

For collectors. A part can be played anywhere: what is drawn depends on a task's name within the whole update, and
weights on the number of its trees. Put together again, parts lie in the order in which one collector would have
played them all, turn by turn, so that nobody further on can tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from collm_agents.batch import Ints, Nodes, Points, Rollouts, Rows
from collm_envs.task import Task


@dataclass(frozen=True)
class Shard:
    """Some of an update's tasks.

    Attributes:
        tasks: one tree is grown for each.
        names: what their draws are keyed by: ids, with the number of their occurrence in the whole update.
        trees: trees of the whole update.
    """

    tasks: tuple[Task, ...]
    names: tuple[str, ...]
    trees: int


def split(tasks: Sequence[Task], size: int = 0) -> list[Shard]:
    """Parts of at most `size` tasks, in order; 0 leaves all in one."""
    names = occurrences([task.id for task in tasks])
    size = size or max(1, len(tasks))
    starts = range(0, max(1, len(tasks)), size)
    return [Shard(tuple(tasks[i : i + size]), tuple(names[i : i + size]), len(tasks)) for i in starts]


def occurrences(ids: Sequence[str]) -> list[str]:
    """Each id with the number of times it came before, so that two trees of one task draw differently."""
    seen: dict[str, int] = {}
    names = []
    for id in ids:
        names.append(f"{id}*{seen.get(id, 0)}")
        seen[id] = seen.get(id, 0) + 1
    return names


class _Places:
    """Where the parts' records go: turn by turn, and within a turn part by part.

    Args:
        turns: turn of each record, one array per part.
    """

    def __init__(self, turns: Sequence[Ints]) -> None:
        self._starts = np.cumsum([0, *map(len, turns)])
        self._order = np.argsort(np.concatenate(turns), kind="stable")
        self._rank = np.argsort(self._order)

    def moved(self, columns: Sequence[Ints]) -> list[Ints]:
        """References to these records, given by the parts' own indices; -1 stays."""
        starts = self._starts[:-1]
        return [np.where(c < 0, -1, self._rank[c + start]) for c, start in zip(columns, starts, strict=True)]

    def arranged(self, columns: Sequence[Any]) -> Any:
        """A column of these records, from the parts' own."""
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)[self._order]
        flat = list(itertools.chain(*columns))
        return tuple(flat[i] for i in self._order)


def merge(parts: Sequence[Rollouts]) -> Rollouts:
    """One forest of the parts' trees, as one collector would have grown them.

    Args:
        parts: rollouts of all shards of an update, in their order, of one team and one branching.
    """
    if len(parts) == 1:
        return parts[0]
    points = _Places([part.points.turn for part in parts])
    nodes = _Places([part.turn for part in parts])
    rows = _Places([part.points.turn[part.rows.point] for part in parts])
    trees = np.cumsum([0, *(len(part.tasks) for part in parts)])

    def columns(kind: str, name: str) -> list[Any]:
        return [getattr(getattr(part, kind), name) for part in parts]

    def build(record: Any, kind: str, places: _Places, refers: dict[str, list[Ints]]) -> Any:
        names = record.__dataclass_fields__
        return record(**{n: places.arranged(refers.get(n) or columns(kind, n)) for n in names})

    groups = np.cumsum([0, *(part.nodes.group.max() + 1 for part in parts)])
    merged = build(
        Nodes,
        "nodes",
        nodes,
        {
            "parent": nodes.moved(columns("nodes", "parent")),
            "point": points.moved(columns("nodes", "point")),
            "next_point": points.moved(columns("nodes", "next_point")),
            "group": [own + start for own, start in zip(columns("nodes", "group"), groups, strict=False)],
        },
    )
    _, first, inverse = np.unique(merged.group, return_index=True, return_inverse=True)
    merged.group[:] = np.argsort(np.argsort(first))[inverse]  # numbered as they come
    return Rollouts(
        agents=parts[0].agents,
        tasks=tuple(itertools.chain(*(part.tasks for part in parts))),
        branching=parts[0].branching,
        points=build(
            Points,
            "points",
            points,
            {
                "tree": [part.points.tree + start for part, start in zip(parts, trees, strict=False)],
                "parent": points.moved(columns("points", "parent")),
            },
        ),
        nodes=merged,
        rows=build(Rows, "rows", rows, {"point": points.moved(columns("rows", "point"))}),
        row_of=nodes.arranged(rows.moved([part.row_of for part in parts])),
    )
