"""Rollouts written down by hand: a tree of `N`s becomes a `Rollouts` with one row per node and agent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import count

import numpy as np

from collm_agents.batch import Nodes, Points, Rollouts, Rows


@dataclass(frozen=True)
class N:
    """One joint action: its reward, what follows it, whether it was cut from outside, or a greedy baseline."""

    reward: float
    then: tuple[N, ...] = ()
    cut: bool = False
    greedy: bool = False


def forest(*trees, branching, agents=("a_0", "b_1"), state=None, local=None):
    """Trees, each a tuple of the root point's `N`s, as `Rollouts`; nodes are numbered depth first.

    Args:
        trees: one tuple of first-turn nodes per task.
        branching: replies per turn, for the weights.
        agents: agent names.
        state: joint history of a point from its index; default texts that grow.
        local: own history from point index and agent; default texts that grow.
    """
    points = {name: [] for name in Points.__dataclass_fields__}
    nodes = {name: [] for name in Nodes.__dataclass_fields__}
    row_of, row_point, groups = [], [], count()
    rows_agent: list[int] = []

    def add_point(tree, parent, turn):
        index, name = len(points["tree"]), f"p{len(points['tree'])};"
        before = points["state"][parent] if parent >= 0 else ""
        mine = points["local"][parent] if parent >= 0 else ("",) * len(agents)
        points["tree"].append(tree)
        points["parent"].append(parent)
        points["turn"].append(turn)
        points["state"].append(state(index) if state else before + f"joint {name}")
        points["local"].append(
            tuple(
                local(index, a) if local else old + f"{a} {name}" for a, old in zip(agents, mine, strict=True)
            )
        )
        points["info"].append({"turn": turn, "horizon": len(branching), "score": 0.0, "high": 1.0})
        return index

    def add_children(children, tree, point, parent, turn, inherited, memo):
        # As the collector does: siblings are a group; single children share the group's next one.
        if branching[turn] > 1 or inherited is None:
            group = next(groups)
        else:
            group = memo.setdefault((inherited, turn), None)
            if group is None:
                group = memo[(inherited, turn)] = next(groups)
        for child in children:
            node = len(nodes["parent"])
            weight = 1 / (len(trees) * np.prod(branching[: turn + 1]))
            ahead = add_point(tree, point, turn + 1) if child.then or child.cut else -1
            record = {
                "parent": parent,
                "point": point,
                "next_point": ahead,
                "group": group,
                "reward": child.reward,
                "score": child.reward,
                "terminated": ahead < 0,
                "truncated": child.cut,
                "success": False,
                "greedy": child.greedy,
                "weight": 0.0 if child.greedy else weight,
                "parts": {"only": child.reward},
                "metrics": {},
            }
            for name, value in record.items():
                nodes[name].append(value)
            row_of.append([len(rows_agent) + a for a in range(len(agents))])
            rows_agent.extend(range(len(agents)))
            row_point.extend([point] * len(agents))
            if child.then:
                add_children(child.then, tree, ahead, node, turn + 1, group, memo)

    for number, children in enumerate(trees):
        add_children(children, number, add_point(number, -1, 0), -1, 0, None, {})

    def arrays(columns):
        return {
            name: tuple(values)
            if name in ("state", "local", "info", "parts", "metrics")
            else np.array(values)
            for name, values in columns.items()
        }

    n = len(rows_agent)
    rows = Rows(
        agent=np.array(rows_agent),
        point=np.array(row_point),
        prompt=((1, 2),) * n,
        reply=((3,),) * n,
        logprob=(np.zeros(1),) * n,
        text=tuple(f"reply {i}" for i in range(n)),
        cut=np.zeros(n, dtype=bool),
        clipped=np.zeros(n, dtype=bool),
    )
    return Rollouts(
        agents=tuple(agents),
        tasks=tuple(f"task {i}" for i in range(len(trees))),
        branching=tuple(branching),
        points=Points(**arrays(points)),
        nodes=Nodes(**arrays(nodes)),
        rows=rows,
        row_of=np.array(row_of),
    )


def tree_2x2():
    """Two turns, two replies each; the second first-turn reply ended early. Nodes: A=0 (r 1), C=1, D=2, B=3."""
    return forest((N(1.0, (N(2.0), N(4.0))), N(3.0)), branching=(2, 2))


def random_forest(rng, *, agents=("a_0", "b_1"), turns=3, width=3, trees=2, cuts=False, paths=False):
    """A forest of random rewards in which episodes end early now and then (and are cut, if asked)."""
    branching = tuple(width if t == 0 or not paths else 1 for t in range(turns))

    def grow(turn):
        found = []
        for _ in range(branching[turn]):
            chance, reward = rng.random(), float(rng.normal())
            if cuts and chance < 0.15:
                found.append(N(reward, cut=True))
            elif turn + 1 == turns or chance < 0.3:
                found.append(N(reward))
            else:
                found.append(N(reward, grow(turn + 1)))
        return tuple(found)

    return forest(*(grow(0) for _ in range(trees)), branching=branching, agents=agents)


def assert_equal(one, other, path="rollouts"):
    """Two rollouts are equal to the bit, types included; the message names the column."""
    assert type(one) is type(other), path
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, path
        assert one.shape == other.shape, path
        assert one.tobytes() == other.tobytes(), path
    elif isinstance(one, tuple) and one and isinstance(one[0], np.ndarray):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}[{i}]")
    else:
        assert one == other, path
