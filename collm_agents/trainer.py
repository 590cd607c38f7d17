"""`Trainer`: the loop. Tasks -> rollouts -> update, with evaluations and checkpoints at their times.

The same for every algorithm, and thin: what it calls is built by `experiment`. All of its state is in
`Progress`, which a checkpoint holds, so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from collm_agents.batch import Rollouts
from collm_agents.budget import Budget
from collm_agents.callbacks import Callbacks
from collm_agents.clock import Clock
from collm_agents.draws import derive
from collm_agents.learner import Learner
from collm_agents.tracking import Tracker
from collm_envs.task import Task, TaskSource


class Collects(Protocol):
    """What the trainer asks of a collector, wherever it plays.

    Attributes:
        overlapped_s: of the last collection: seconds in which judges worked while other things were done.
        metrics: of the last collection, numbers for the tracker.
    """

    overlapped_s: float
    metrics: Mapping[str, float]

    def collect(self, tasks: Sequence[Task], update: int, upcoming: Sequence[Task] = ()) -> Rollouts:
        """Play one tree per task (`collect.Collector.collect`)."""

    def ahead(self, tasks: Sequence[Task], update: int) -> None:
        """Told what the next `collect` will be, before the learner has seen this one's rollouts."""


@dataclass
class Progress:
    """Counters of a run.

    Attributes:
        joint_samples: joint actions scored in training.
        updates: updates done.
        tasks: trees grown; also the place in the task order.
        tokens: reply tokens drawn in training.
        wall_s: seconds spent, evaluations included.
        phases: of wall_s, exclusive seconds of the main thread by phase (`clock.PHASES`).
        overlapped_s: seconds in which judges worked while the main thread did other things.
        evaluated: joint samples at the last evaluation; -1 before the first.
        evaluated_at: the counter that the budget is in, at the last evaluation.
        edge: joint samples at the last evaluation that was of a start or an end; -1 before the first.
        saved: joint samples at the last checkpoint; -1 before the first.
    """

    joint_samples: int = 0
    updates: int = 0
    tasks: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    overlapped_s: float = 0.0
    evaluated: int = -1
    evaluated_at: float = 0.0
    edge: int = -1
    saved: int = -1

    @property
    def trained_s(self) -> float:
        """Seconds spent, evaluations and checkpoints apart."""
        return self.wall_s - self.phases.get("evaluate", 0.0) - self.phases.get("save", 0.0)

    def count(self, rollouts: Rollouts) -> None:
        """Count an update's rollouts."""
        self.updates += 1
        self.joint_samples += rollouts.joint_samples
        self.tasks += len(rollouts.tasks)
        self.tokens += sum(map(len, rollouts.rows.reply))


class Trainer:
    """Trains to the end of a budget.

    Args:
        collector: plays the tasks.
        learner: learns from them.
        tasks: training tasks, gone through in an order shuffled anew each pass.
        seed: the run's seed.
        tasks_per_update: trees per update.
        budget: how long.
        eval_every: joint samples between evaluations, or 0.
        eval_points: with `eval_every` 0, evaluations after the first, at equal shares of the budget.
        save_every: joint samples between checkpoints beside those at evaluations; 0 for none.
        evaluate: called with the progress and whether this is the first or last one.
        save: called with the progress as plain data, after each evaluation and where it is due.
        tracker: is told about every update.
        clock: shared with collector and learner.
        callbacks: told about the start, every update and the end, and may stop the run; whoever evaluates and saves
            tells them about that.
        progress: where it goes on from.
    """

    def __init__(
        self,
        collector: Collects,
        learner: Learner,
        tasks: TaskSource,
        *,
        seed: int,
        tasks_per_update: int,
        budget: Budget,
        eval_every: int = 0,
        eval_points: int = 10,
        save_every: int = 0,
        evaluate: Callable[[Progress, bool], Any],
        save: Callable[[dict[str, Any]], Any],
        tracker: Tracker,
        clock: Clock,
        callbacks: Callbacks,
        progress: Progress,
    ) -> None:
        self.collector, self.learner, self.tasks, self.seed = collector, learner, tasks, seed
        self.tasks_per_update, self.budget, self.save_every = tasks_per_update, budget, save_every
        self.eval_every, self.eval_points = eval_every, eval_points
        self.evaluate, self.save, self.tracker = evaluate, save, tracker
        self.clock, self.callbacks = clock, callbacks
        self.progress = callbacks.run.progress = progress

    @property
    def spent(self) -> float:
        """Share of the budget that is spent."""
        return self.budget.spent(self.progress)

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or a callback has stopped the run."""
        return self.spent >= 1.0 or bool(self.callbacks.run.stopped)

    def run(self) -> Progress:
        """Train to the end of the budget; evaluates at the start, at intervals and at the end."""
        started = time.perf_counter() - self.progress.wall_s
        earlier, before = dict(self.progress.phases), self.clock.read()

        def note() -> None:
            self.progress.wall_s = time.perf_counter() - started
            spent = self.clock.since(before)
            self.progress.phases = {name: earlier.get(name, 0.0) + s for name, s in spent.items()}

        self.callbacks.tell("on_start")
        self._visit(note)
        while not self.done:
            self._update()
            note()
            self._visit(note)
        self._visit(note)  # what was done with a checkpoint may have stopped the run
        self.callbacks.tell("on_end")
        note()
        return self.progress

    def _visit(self, note: Callable[[], None]) -> None:
        """Evaluate and save where it is due; `note` brings the progress's times up to date."""
        p = self.progress
        edge = p.evaluated < 0 or self.done
        if p.evaluated != p.joint_samples and (edge or self._evaluation_is_due(p)):
            self._evaluate(edge)
        if self.done and p.edge != p.joint_samples:  # what was measured has stopped the run
            self._evaluate(True)
        if p.saved < 0 or self._saving_is_due(p):
            p.saved = p.joint_samples
            note()
            with self.clock.phase("save"):
                self.save(asdict(p))

    def _evaluate(self, edge: bool) -> None:
        p = self.progress
        with self.clock.phase("evaluate"):
            self.evaluate(p, edge)
        p.evaluated, p.evaluated_at = p.joint_samples, getattr(p, self.budget.unit)
        p.edge = p.joint_samples if edge else p.edge
        p.saved = -1  # what was measured is kept

    def _saving_is_due(self, p: Progress) -> bool:
        return bool(self.save_every) and p.joint_samples >= p.saved + self.save_every

    def _evaluation_is_due(self, p: Progress) -> bool:
        if self.eval_every:
            return p.joint_samples >= p.evaluated + self.eval_every

        def passed(counter: float) -> float:  # marks behind a counter, without a rounded share in between
            return counter * self.eval_points // self.budget.amount

        return passed(getattr(p, self.budget.unit)) > passed(p.evaluated_at)

    def _update(self) -> None:
        p = self.progress
        start, before = time.perf_counter(), self.clock.read()
        tasks = list(self._next_tasks(p.tasks))
        upcoming = list(self._next_tasks(p.tasks + len(tasks)))
        rollouts = self.collector.collect(tasks, p.updates, upcoming)
        if not self._pauses_after(rollouts):
            self.collector.ahead(upcoming, p.updates + 1)
        before_tokens = p.tokens
        metrics = self.learner.update(rollouts, self.spent)
        p.count(rollouts)
        tokens = p.tokens - before_tokens
        seconds = time.perf_counter() - start
        metrics.update(rollout_metrics(rollouts))
        metrics.update(self.collector.metrics)
        p.overlapped_s += self.collector.overlapped_s
        spent = self.clock.since(before)
        metrics.update({f"{name}_s": s for name, s in spent.items() if name not in ("evaluate", "save")})
        metrics.update(
            overlapped_s=self.collector.overlapped_s,
            update_s=seconds,
            tokens=float(p.tokens),
            tokens_per_s=tokens / seconds,
            samples_per_s=len(rollouts.nodes) / seconds,
        )
        metrics = {"updates": float(p.updates), **metrics}
        self.tracker.update(metrics, p.joint_samples)
        self.callbacks.tell("on_step", metrics)

    def _pauses_after(self, rollouts: Rollouts) -> bool:
        """Whether the run is evaluated, saved or over once it has learned from these rollouts.

        Nothing is played ahead then, so that a run that goes on from a checkpoint is the run that never stopped.
        """
        then = replace(self.progress)
        then.count(rollouts)
        return self.budget.spent(then) >= 1.0 or self._evaluation_is_due(then) or self._saving_is_due(then)

    def _next_tasks(self, first: int) -> Iterator[Task]:
        """The tasks of an update whose trees begin at a place in the order; the place is all that is remembered."""
        count = len(self.tasks)
        current, order = -1, np.arange(0)
        for place in range(first, first + int(min(self.tasks_per_update, self.budget.left(first)))):
            if place // count != current:
                current = place // count
                order = np.random.default_rng(derive(self.seed, "tasks", current)).permutation(count)
            yield self.tasks[int(order[place % count])]


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """What was sampled, in numbers: scores and parts over nodes, success over episodes, tokens over rows."""
    nodes, rows = rollouts.nodes, rollouts.rows
    own = ~nodes.greedy
    leaves = rollouts.leaves
    # Every episode counts by its share of the tree, or branches that went on longer would count more.
    share = nodes.weight[leaves] / nodes.weight[leaves].sum()

    def mean(per_leaf: Any) -> float:
        return float((share * np.asarray(per_leaf, dtype=float)).sum())

    drawn = rows.drawn  # scripted teammates' replies have no tokens
    metrics = {
        "joint_samples_in_update": float(rollouts.joint_samples),
        "reward": float(nodes.reward[own].mean()),
        "score": mean(nodes.score[leaves]),
        "success": mean(nodes.success[leaves]),
        "reply_tokens": float(np.array([len(reply) for reply in rows.reply])[drawn].mean()),
        "truncated_replies": float(rows.cut[drawn].mean()),
        "truncated_episodes": mean(nodes.truncated[leaves]),
        "clipped_prompts": float(rows.clipped[drawn].mean()),
        "empty_replies": float(np.array([not text.strip() for text in rows.text])[drawn].mean()),
    }
    for name in nodes.parts[0]:
        metrics[f"parts/{name}"] = mean([nodes.parts[leaf][name] for leaf in leaves])
    for name in nodes.metrics[0]:
        metrics[f"measured/{name}"] = mean([nodes.metrics[leaf][name] for leaf in leaves])
    return metrics
