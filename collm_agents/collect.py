"""`Collector`: tasks in, `Rollouts` out.

For trainers and evaluations. Plays one tree of episodes per task: at every decision point it draws the branching's
number of replies per agent, pairs them into joint replies (`aligned`: g-th with g-th; `cross`: every combination),
clones the environment for each, and goes on from where each led. It owns the agents' memories and the keys of
their draws; it knows nothing of advantages or losses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from collm_agents.batch import Rollouts
from collm_agents.chat import History
from collm_agents.clock import Clock
from collm_agents.draws import DrawKey, derive
from collm_agents.forest import Forest
from collm_agents.protocols import PROTOCOLS, Said, Seat
from collm_agents.shards import Shard, merge, occurrences, split
from collm_agents.team import AgentTeam, scripted_reply
from collm_envs.errors import InputError
from collm_envs.history import entry
from collm_envs.task import Task
from collm_envs.vector import Step, VecEnv


@dataclass(frozen=True)
class Branch:
    """A place where agents are about to reply: an environment row and what the agents remember.

    `histories` are their memories up to where the reply begins, `before` without the newest observation `seen`.
    """

    row: int
    point: int
    node: int
    group: int
    path: tuple[int, ...]
    weight: float
    greedy: bool
    before: tuple[History, ...]
    seen: tuple[str, ...]
    histories: tuple[History, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class _Move:
    """One joint action that was played: from where, which child, by whose rows, and what it led to."""

    branch: Branch
    child: _Child
    said: Sequence[Said]
    rows: Sequence[int]
    group: int
    weight: float
    turn: int
    step: Step
    state: str
    info: dict[str, float]


@dataclass(frozen=True)
class _Child:
    """One joint reply of a point: its branch index, which of each agent's replies it is made of, greediness."""

    index: int
    picks: tuple[int, ...]
    greedy: bool = False


class Collector:
    """Plays episodes of one environment with one team.

    Args:
        vec: the vector environment.
        team: the agents.
        branching: replies drawn per agent and turn, one number per turn of the horizon.
        seed: seed of the draws.
        joint_mode: `aligned`: the g-th replies of all agents make a joint reply; `cross`: every combination does.
        greedy_sibling: also play a greedy joint reply at every point, as a baseline.
        greedy: play greedily throughout (evaluation); the branching is then 1.
        protocol: how a joint reply comes about (`protocols.PROTOCOLS`); training is `parallel`.
        shard: most tasks played side by side; 0: all.
        clock: where the time goes is counted here.

    Attributes:
        metrics: what the last collection tells of itself; one in this process says nothing.
    """

    metrics: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        vec: VecEnv,
        team: AgentTeam,
        branching: Sequence[int],
        seed: int,
        *,
        joint_mode: str = "aligned",
        greedy_sibling: bool = False,
        greedy: bool = False,
        protocol: str = "parallel",
        shard: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.shard = shard
        self.vec, self.team, self.seed = vec, team, seed
        self.branching = tuple(int(k) for k in branching)
        self.joint_mode, self.greedy_sibling, self.greedy = joint_mode, greedy_sibling, greedy
        self.protocol = PROTOCOLS[protocol]
        self.drafted = np.zeros(0)  # by tree of the last collection: tokens that the environment never saw
        self.overlapped_s = (
            0.0  # of the last collection: judges at work while the main thread did other things
        )

    def collect(self, tasks: Sequence[Task], update: int, upcoming: Sequence[Task] = ()) -> Rollouts:
        """Play one tree per task.

        Args:
            tasks: one tree each; a task may come more than once.
            update: index of the update, part of every random key; -1 for evaluations.
            upcoming: tasks of the next call: their first prompts are tokenised while judges are waited for.

        Returns:
            The forest.
        """
        parts, drafted, overlapped_s = [], [], 0.0
        shards = split(tasks, self.shard)
        for shard in shards:
            parts.append(self.play(shard, update, upcoming if shard is shards[-1] else ()))
            drafted.append(self.drafted)
            overlapped_s += self.overlapped_s
        self.drafted, self.overlapped_s = np.concatenate(drafted), overlapped_s
        return merge(parts)

    def ahead(self, tasks: Sequence[Task], update: int) -> None:
        """Nothing: this process plays when it is asked to."""

    def play(self, shard: Shard, update: int, upcoming: Sequence[Task] = ()) -> Rollouts:
        """Play some of an update's tasks; otherwise as `collect`."""
        self._idle = self._prepare(upcoming, update + 1)
        waited, judging = self.vec.waited_s, self.vec.judging_s
        tasks, names = shard.tasks, shard.names
        self.drafted = np.zeros(len(tasks))
        forest = Forest()
        branches = self._roots(forest, shard, update)
        with self.team.holding() as store:
            for turn, width in enumerate(self.branching):
                if not branches:
                    break
                # A last turn's keys and values are of use only where it asks each agent more than once.
                store.taking = turn + 1 < len(self.branching) or self.protocol is not PROTOCOLS["parallel"]
                branches = self._turn(forest, branches, names, update, turn, width)
        waited = self.vec.waited_s - waited
        self.clock.move(waited, "env", "judge_wait")
        self.overlapped_s = max(0.0, self.vec.judging_s - judging - waited)
        return forest.finish(self.team.agents, [task.id for task in tasks], self.branching)

    def _prepare(self, tasks: Sequence[Task], update: int) -> Iterator[None]:
        """Tokenise first prompts, one task a step; they are remembered by the agents' formats."""
        env = self.vec.template.clone()
        for task, name in zip(tasks, occurrences([task.id for task in tasks]), strict=True):
            seen, _ = env.reset(seed=derive(self.seed, "env", update, name), options={"task": task})
            for agent in self.team.agents:
                self.team.observe(agent, History(), seen[agent])
            yield

    def _receive(self, env_rows: Sequence[int]) -> dict[int, Step]:
        """Steps of all rows that were sent; there is other work while judges are not ready."""
        steps: dict[int, Step] = {}
        while len(steps) < len(env_rows):
            found = self.vec.recv(block=False)
            if not found and next(self._idle, True):
                found = self.vec.recv()
            steps.update({step.row: step for step in found})
        return steps

    def _roots(self, forest: Forest, shard: Shard, update: int) -> list[Branch]:
        tasks = shard.tasks
        seeds = [derive(self.seed, "env", update, name) for name in shard.names]
        with self.clock.phase("env"):
            observations = self.vec.reset(tasks, seeds)
            states = self.vec.states(range(len(tasks)))
            infos = self.vec.global_infos(range(len(tasks)))
        agents, branches = self.team.agents, []
        for tree, seen in enumerate(observations):
            before, shown = (History(),) * len(agents), tuple(seen[a] for a in agents)
            histories = self._observe(before, shown)
            if len(histories) < len(agents):
                raise InputError(f"the first prompt of task {tasks[tree].id!r} does not fit the context")
            local = tuple(entry(a, 0, "sees", seen[a]) for a in agents)
            point = forest.add(
                forest.points, tree=tree, parent=-1, turn=0, state=states[tree], local=local, info=infos[tree]
            )
            weight = 1.0 / shard.trees
            branches.append(Branch(tree, point, -1, -1, (), weight, False, before, shown, histories, local))
        return branches

    def _observe(self, before: Sequence[History], seen: Sequence[str]) -> tuple[History, ...]:
        """Memories with the newest observations; fewer than there are agents where one does not fit."""
        observed = map(self.team.observe, self.team.agents, before, seen)
        return tuple(history for history in observed if history is not None)

    def _turn(
        self, forest: Forest, branches: list[Branch], names: Sequence[str], update: int, turn: int, width: int
    ) -> list[Branch]:
        """Draw, play and record one turn of all branches; returns where play goes on."""
        plan = [(branch, child) for branch in branches for child in self._children(branch, width)]
        with self.clock.phase("env"):
            env_rows = self._clone(plan)

        def play(number: int, joint: Sequence[Said]) -> None:
            # At once, so that a judge elsewhere works while other replies are still being drawn.
            with self.clock.phase("env"):
                texts = [one.reply.text for one in joint]
                self.vec.send(env_rows[number], dict(zip(self.team.agents, texts, strict=True)))

        said = self._draw(plan, forest, names, update, play)
        with self.clock.phase("env"):
            steps = self._receive(env_rows)
            states, infos = self.vec.states(env_rows), self.vec.global_infos(env_rows)
        groups: dict[tuple[str, int], int] = {}
        rows: dict[tuple[int, int, int], int] = {}
        ahead = []
        for i, (branch, child) in enumerate(plan):
            # Siblings are compared with each other; where a turn does not branch, the single children of one
            # group of siblings are, so that paths keep a baseline after their first turn.
            key = ("point", branch.point) if width > 1 or branch.group < 0 else ("group", branch.group)
            if key not in groups:
                groups[key] = forest.new_group()
            weight = 0.0 if child.greedy else branch.weight / self._joint_width(width)
            step, own = (
                steps[env_rows[i]],
                self._rows(forest, rows, branch, child, said[i], steps[env_rows[i]]),
            )
            move = _Move(branch, child, said[i], own, groups[key], weight, turn, step, states[i], infos[i])
            found = self._record(forest, move)
            if found is not None:
                ahead.append(found)
        return ahead

    def _clone(self, plan: Sequence[tuple[Branch, _Child]]) -> list[int]:
        """An environment row for every joint reply of the plan: the first takes the branch's own."""
        taken: set[int] = set()
        env_rows = []
        for branch, _ in plan:
            env_rows.append(self.vec.clone([branch.row])[0] if branch.row in taken else branch.row)
            taken.add(branch.row)
        return env_rows

    def _joint_width(self, width: int) -> int:
        """Joint replies that a point's draws make."""
        if self.greedy:
            return 1
        return width ** len(self.team.agents) if self.joint_mode == "cross" else width

    def _children(self, branch: Branch, width: int) -> list[_Child]:
        """The joint replies of a point; the index -1 is the greedy baseline's."""
        count = len(self.team.agents)
        baseline = _Child(-1, (-1,) * count, greedy=True)
        if branch.greedy:
            return [baseline]
        replies = range(1 if self.greedy else width)
        cross = self.joint_mode == "cross"
        picks = itertools.product(replies, repeat=count) if cross else ((g,) * count for g in replies)
        drawn = [_Child(index, own) for index, own in enumerate(picks)]
        return [*drawn, baseline] if self.greedy_sibling else drawn

    def _draw(
        self,
        plan: list[tuple[Branch, _Child]],
        forest: Forest,
        names: Sequence[str],
        update: int,
        play: Callable[[int, Sequence[Said]], None],
    ) -> list[list[Said]]:
        """What each agent says for every joint reply of the plan; shared replies are drawn once.

        Args:
            plan: the joint replies.
            forest: the rollouts so far.
            names: of the trees.
            update: index of the update.
            play: told a joint reply's place in the plan and what was said, as soon as that is complete.
        """
        tables: list[list[Seat]] = []
        trees: list[int] = []
        place: dict[tuple[int, int], int] = {}
        users: list[list[int]] = []  # joint replies that need a table
        for number, (branch, child) in enumerate(plan):
            for pick in dict.fromkeys(child.picks):
                if (branch.point, pick) not in place:
                    place[branch.point, pick] = len(tables)
                    trees.append(forest.points["tree"][branch.point])
                    tables.append(self._table(branch, pick, names[trees[-1]], update))
                    users.append([])
                users[place[branch.point, pick]].append(number)
        missing = [len(set(child.picks)) for _, child in plan]
        told: dict[int, Sequence[Said]] = {}
        said: dict[int, list[Said]] = {}

        def finished(table: int, own: Sequence[Said]) -> None:
            told[table] = own
            self.drafted[trees[table]] += sum(one.drafted for one in own)
            for number in users[table]:
                missing[number] -= 1
                if not missing[number]:
                    branch, child = plan[number]
                    said[number] = [told[place[branch.point, pick]][a] for a, pick in enumerate(child.picks)]
                    play(number, said[number])

        with self.clock.phase("decode"):
            self.protocol(self.team, tables, finished)
        return [said[number] for number in range(len(plan))]

    def _table(self, branch: Branch, pick: int, name: str, update: int) -> list[Seat]:
        """All agents' seats for their replies of one index at a point."""
        seats = []
        for a, agent in enumerate(self.team.agents):
            key = DrawKey(self.seed, update, name, (*branch.path, pick), agent)
            script = None
            if kind := self.team.scripted.get(agent):
                rng = np.random.default_rng(derive(*key.parts))
                script = scripted_reply(self.vec.scripted(branch.row, kind, agent, rng))
            drawn = None if pick < 0 or self.greedy else key
            seats.append(Seat(agent, branch.before[a], branch.seen[a], branch.histories[a], drawn, script))
        return seats

    def _rows(
        self,
        forest: Forest,
        rows: dict[tuple[int, int, int], int],
        branch: Branch,
        child: _Child,
        said: Sequence[Said],
        step: Step,
    ) -> list[int]:
        """Indices of the rows that a joint reply used; each reply is written down once."""
        found = []
        for a, (pick, one) in enumerate(zip(child.picks, said, strict=True)):
            key = (branch.point, a, pick)
            if key not in rows:
                rows[key] = forest.add(
                    forest.rows,
                    agent=a,
                    point=branch.point,
                    prompt=one.history.ids,
                    reply=one.reply.ids,
                    logprob=one.reply.logprob,
                    text=step.infos[self.team.agents[a]]["reply"],
                    cut=one.reply.cut,
                    clipped=one.history.clipped > 0,
                )
            found.append(rows[key])
        return found

    def _record(self, forest: Forest, move: _Move) -> Branch | None:
        """Write one joint action down; returns the branch it leads to, if play goes on there."""
        agents, branch, step, turn = self.team.agents, move.branch, move.step, move.turn
        before: tuple[History, ...] = ()
        histories: tuple[History, ...] = ()
        seen: tuple[str, ...] = ()
        local: tuple[str, ...] = ()
        next_point, cut = -1, step.truncated
        if not step.terminated:
            seen = tuple(step.observations[a] for a in agents)
            local = tuple(
                old + entry(a, turn, "says", step.infos[a]["reply"]) + entry(a, turn + 1, "sees", shown)
                for a, old, shown in zip(agents, branch.local, seen, strict=True)
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
            before = tuple(one.history.reply(one.reply.ids) for one in move.said)
            histories = self._observe(before, seen)
            # A memory that no longer fits is a cut from outside: critics bootstrap, MC drops the subtree.
            cut = cut or len(histories) < len(agents)
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
            greedy=move.child.greedy,
            weight=move.weight,
            parts=dict(step.info["reward_parts"]),
            metrics=dict(step.info["metrics"]),
        )
        forest.row_of.append(list(move.rows))
        if step.terminated or cut:
            return None
        return Branch(
            step.row,
            next_point,
            node,
            move.group,
            (*branch.path, move.child.index),
            move.weight,
            move.child.greedy,
            before,
            seen,
            histories,
            local,
        )
