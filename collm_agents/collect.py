"""`Collector`: tasks in, `Rollouts` out.

For trainers and evaluations. Plays one tree of episodes per task: at every decision point it draws the branching's
number of joint replies, clones the environment for each, and goes on from where each led. It owns the agents'
memories and the keys of their draws; it knows nothing of advantages or losses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collm_agents.batch import Nodes, Points, Rollouts, Rows
from collm_agents.chat import History
from collm_agents.draws import DrawKey, derive
from collm_agents.team import AgentTeam, Reply, Request
from collm_envs.errors import InputError, SettingError
from collm_envs.history import entry
from collm_envs.task import Task
from collm_envs.vector import Step, VecEnv


@dataclass(frozen=True)
class Branch:
    """A place where agents are about to reply: an environment row and what the agents remember."""

    row: int
    point: int
    node: int
    group: int
    path: tuple[int, ...]
    weight: float
    greedy: bool
    histories: tuple[History, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class _Move:
    """One joint action that was played: from where, which child, and what it led to."""

    branch: Branch
    child: int
    greedy: bool
    group: int
    weight: float
    turn: int
    step: Step
    state: str
    info: dict[str, float]


@dataclass
class _Forest:
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


class Collector:
    """Plays episodes of one environment with one team.

    Args:
        vec: the vector environment.
        team: the agents.
        branching: joint replies drawn per turn, one number per turn of the horizon.
        seed: seed of the draws.
        greedy_sibling: also play a greedy joint reply at every point, as a baseline.
        greedy: play greedily throughout (evaluation); the branching is then 1.
    """

    def __init__(
        self,
        vec: VecEnv,
        team: AgentTeam,
        branching: Sequence[int],
        seed: int,
        *,
        greedy_sibling: bool = False,
        greedy: bool = False,
    ) -> None:
        self.vec, self.team, self.seed = vec, team, seed
        self.branching = tuple(int(k) for k in branching)
        self.greedy_sibling, self.greedy = greedy_sibling, greedy
        self.seconds: dict[str, float] = {}

    def collect(self, tasks: Sequence[Task], update: int) -> Rollouts:
        """Play one tree per task.

        Args:
            tasks: one tree each; a task may come more than once.
            update: index of the update, part of every random key; -1 for evaluations.

        Returns:
            The forest.
        """
        self.seconds = {"sample_s": 0.0, "env_s": 0.0}
        waited = self.vec.waited_s
        forest = _Forest()
        names = _occurrences([task.id for task in tasks])
        branches = self._roots(forest, tasks, names, update)
        for turn, width in enumerate(self.branching):
            if not branches:
                break
            branches = self._turn(forest, branches, names, update, turn, width)
        self.seconds["judge_wait_s"] = self.vec.waited_s - waited  # a part of env_s
        return self._finish(forest, tasks)

    def _roots(self, forest: _Forest, tasks: Sequence[Task], names: list[str], update: int) -> list[Branch]:
        seeds = [derive(self.seed, "env", update, name) for name in names]
        start = time.perf_counter()
        observations = self.vec.reset(tasks, seeds)
        states = self.vec.states(range(len(tasks)))
        infos = self.vec.global_infos(range(len(tasks)))
        self.seconds["env_s"] += time.perf_counter() - start
        agents, branches = self.team.agents, []
        for tree, seen in enumerate(observations):
            observed = [self.team.observe(a, History(), seen[a]) for a in agents]
            histories = tuple(h for h in observed if h is not None)
            if len(histories) < len(agents):
                raise InputError(f"the first prompt of task {tasks[tree].id!r} does not fit the context")
            local = tuple(entry(a, 0, "sees", seen[a]) for a in agents)
            point = forest.add(
                forest.points, tree=tree, parent=-1, turn=0, state=states[tree], local=local, info=infos[tree]
            )
            branches.append(Branch(tree, point, -1, -1, (), 1.0 / len(tasks), False, histories, local))
        return branches

    def _turn(
        self, forest: _Forest, branches: list[Branch], names: list[str], update: int, turn: int, width: int
    ) -> list[Branch]:
        """Draw, play and record one turn of all branches; returns where play goes on."""
        plan = [(b, g, greedy) for b in branches for g, greedy in self._children(b, width)]
        replies = self._draw(plan, forest, names, update)
        start = time.perf_counter()
        first_child: dict[int, int] = {}
        env_rows: list[int] = []
        for branch, _, _ in plan:
            # The first child takes the environment on itself; its siblings need copies made before it moves.
            taken = first_child.setdefault(branch.row, len(env_rows)) != len(env_rows)
            env_rows.append(self.vec.clone([branch.row])[0] if taken else branch.row)
        count = len(self.team.agents)
        actions = {
            row: {a: replies[i * count + j].text for j, a in enumerate(self.team.agents)}
            for i, row in enumerate(env_rows)
        }
        steps = self.vec.step(actions)
        states, infos = self.vec.states(env_rows), self.vec.global_infos(env_rows)
        self.seconds["env_s"] += time.perf_counter() - start
        groups: dict[tuple[str, int], int] = {}
        ahead = []
        for i, (branch, g, greedy) in enumerate(plan):
            # Siblings are compared with each other; where a turn does not branch, the single children of one
            # group of siblings are, so that paths keep a baseline after their first turn.
            key = ("point", branch.point) if width > 1 or branch.group < 0 else ("group", branch.group)
            if key not in groups:
                groups[key] = forest.new_group()
            weight = 0.0 if greedy else branch.weight / (1 if self.greedy else width)
            move = _Move(
                branch, g, greedy, groups[key], weight, turn, steps[env_rows[i]], states[i], infos[i]
            )
            child = self._record(forest, move, replies[i * count : (i + 1) * count])
            if child is not None:
                ahead.append(child)
        return ahead

    def _children(self, branch: Branch, width: int) -> list[tuple[int, bool]]:
        """Branch index and greediness of what is drawn at a point; -1 is the greedy baseline."""
        if branch.greedy:
            return [(-1, True)]
        drawn = [(g, False) for g in range(1 if self.greedy else width)]
        return [*drawn, (-1, True)] if self.greedy_sibling else drawn

    def _draw(
        self, plan: list[tuple[Branch, int, bool]], forest: _Forest, names: list[str], update: int
    ) -> list[Reply]:
        requests = []
        for branch, g, greedy in plan:
            tree = forest.points["tree"][branch.point]
            for a, agent in enumerate(self.team.agents):
                key = DrawKey(self.seed, update, names[tree], (*branch.path, g), agent)
                requests.append(
                    Request(agent, branch.histories[a].ids, None if greedy or self.greedy else key)
                )
        start = time.perf_counter()
        replies = self.team.act(requests)
        self.seconds["sample_s"] += time.perf_counter() - start
        return replies

    def _record(self, forest: _Forest, move: _Move, replies: Sequence[Reply]) -> Branch | None:
        """Write one joint action down; returns the branch it leads to, if play goes on there."""
        agents, branch, step, turn = self.team.agents, move.branch, move.step, move.turn
        rows = [
            forest.add(
                forest.rows,
                agent=a,
                point=branch.point,
                prompt=branch.histories[a].ids,
                reply=reply.ids,
                logprob=reply.logprob,
                text=step.infos[agents[a]]["reply"],
                cut=reply.cut,
                clipped=branch.histories[a].clipped > 0,
            )
            for a, reply in enumerate(replies)
        ]
        histories: tuple[History | None, ...] = ()
        local: tuple[str, ...] = ()
        next_point, cut = -1, step.truncated
        if not step.terminated:
            local = tuple(
                old
                + entry(a, turn, "says", step.infos[a]["reply"])
                + entry(a, turn + 1, "sees", step.observations[a])
                for a, old in zip(agents, branch.local, strict=True)
            )
            next_point = forest.add(
                forest.points,
                tree=forest.points["tree"][branch.point],
                parent=branch.point,
                turn=turn + 1,
                state=move.state,
                local=local,
                info=move.info,
            )
            histories = tuple(
                self.team.observe(a, old.reply(reply.ids), step.observations[a])
                for a, old, reply in zip(agents, branch.histories, replies, strict=True)
            )
            # A memory that no longer fits is a cut from outside: critics bootstrap, MC drops the subtree.
            cut = cut or None in histories
        node = forest.add(
            forest.nodes,
            parent=branch.node,
            point=branch.point,
            next_point=next_point,
            group=move.group,
            reward=step.reward,
            score=step.info["score"],
            terminated=step.terminated,
            truncated=cut,
            success=step.info["success"],
            greedy=move.greedy,
            weight=move.weight,
            parts=dict(step.info["reward_parts"]),
            metrics=dict(step.info["metrics"]),
        )
        forest.row_of.append(rows)
        if step.terminated or cut:
            return None
        kept = tuple(h for h in histories if h is not None)
        path = (*branch.path, move.child)
        return Branch(step.row, next_point, node, move.group, path, move.weight, move.greedy, kept, local)

    def _finish(self, forest: _Forest, tasks: Sequence[Task]) -> Rollouts:
        points, nodes, rows = forest.points, forest.nodes, forest.rows
        ints = {"tree", "parent", "turn", "point", "next_point", "group", "agent"}
        bools = {"terminated", "truncated", "success", "greedy", "cut", "clipped"}
        floats = {"reward", "score", "weight"}

        def arrays(columns: dict[str, list]) -> dict[str, Any]:
            kinds = (
                dict.fromkeys(ints, np.int64)
                | dict.fromkeys(bools, np.bool_)
                | dict.fromkeys(floats, np.float64)
            )
            return {k: np.array(v, dtype=kinds[k]) if k in kinds else tuple(v) for k, v in columns.items()}

        return Rollouts(
            agents=self.team.agents,
            tasks=tuple(task.id for task in tasks),
            branching=self.branching,
            points=Points(**arrays(points)),
            nodes=Nodes(**arrays(nodes)),
            rows=Rows(**arrays(rows)),
            row_of=np.array(forest.row_of, dtype=np.int64).reshape(len(forest.row_of), len(self.team.agents)),
        )


def _occurrences(ids: Sequence[str]) -> list[str]:
    """Each id with the number of times it came before, so that two trees of one task draw differently."""
    seen: dict[str, int] = {}
    names = []
    for id in ids:
        names.append(f"{id}*{seen.get(id, 0)}")
        seen[id] = seen.get(id, 0) + 1
    return names


def resolve_branching(
    setting: str | Sequence[int], samples: int, default: str, num_turns: int
) -> tuple[int, ...]:
    """Joint replies per turn.

    Args:
        setting: `auto`, `tree`, `paths`, or a list with one number per turn.
        samples: K.
        default: what `auto` stands for: `tree` or `paths`.
        num_turns: the horizon H.

    Returns:
        `[K] * H` for a tree, `[K, 1, 1, ...]` for paths, or the list itself.
    """
    if not isinstance(setting, str):
        if len(setting) != num_turns:
            raise SettingError(f"rollout.branching has {len(setting)} numbers for {num_turns} turns")
        return tuple(setting)
    kind = default if setting == "auto" else setting
    return (samples,) * num_turns if kind == "tree" else (samples,) + (1,) * (num_turns - 1)


def tree_size(branching: Sequence[int], greedy_sibling: bool = False) -> int:
    """Most joint samples that one task's tree can take."""
    total, width, greedy = 0, 1, 0
    for k in branching:
        greedy = greedy + width if greedy_sibling else 0
        width *= k
        total += width + greedy
    return total
