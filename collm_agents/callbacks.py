"""Callbacks: code that a run calls at steps, evaluations and checkpoints; early stopping and the best checkpoint.

For people who want something done along a run without changing its loop. A callback is a subclass of `Callback`,
given to `Experiment.run(callbacks=[...])`; the two that are settings (`run.patience`, `checkpoint.best`) are made
of nothing else. What a callback remembers is kept in every checkpoint: a resumed run goes on as if it had not
stopped. Callbacks look on and may end a run; they change neither rollouts nor updates.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from collm_agents import checkpoint
from collm_envs.errors import SettingError

if TYPE_CHECKING:
    from collm_agents.config import Config
    from collm_agents.evaluate import Report
    from collm_agents.team import AgentTeam
    from collm_agents.trainer import Progress

log = logging.getLogger(__name__)


@dataclass
class RunState:
    """What callbacks are shown of a run.

    Attributes:
        run_dir: its folder.
        config: its settings.
        team: the agents, with their weights as they are now.
        progress: its counters, such as `joint_samples` and `updates`.
        eval_tasks: tasks of an evaluation along the run; the first and the last one may have more.
        stopped: why it is to end before its budget is spent; empty where it is not.
    """

    run_dir: Path
    config: Config
    team: AgentTeam
    progress: Progress
    eval_tasks: int
    stopped: str = ""

    def stop(self, reason: str) -> None:
        """Let the run end here: it is evaluated as at any end, and saved.

        Args:
            reason: one line, for `result.json` and the terminal.
        """
        self.stopped = self.stopped or reason


class Callback:
    """What may be called along a run; here every method does nothing, so override those that are wanted.

    An exception in a callback ends the run as any other would. Time spent in `on_evaluate` and `on_checkpoint`
    counts as that of evaluations and checkpoints, time in `on_step` as training.
    """

    @property
    def name(self) -> str:
        """What its state is kept under; no two callbacks of a run have the same."""
        return type(self).__name__

    def on_start(self, run: RunState) -> None:
        """Training is about to begin, or to go on: then the state of the checkpoint is back already."""

    def on_step(self, run: RunState, metrics: Mapping[str, float]) -> None:
        """An update was done and recorded.

        Args:
            run: the run.
            metrics: its numbers by name, as in `metrics.jsonl`.
        """

    def on_evaluate(self, run: RunState, report: Report) -> None:
        """The team was evaluated; a checkpoint follows.

        Args:
            run: the run.
            report: `metrics` with intervals, `samples` (conversations) and `episodes`, as `evaluate` makes it.
        """

    def on_checkpoint(self, run: RunState, folder: Path) -> None:
        """A checkpoint was written, whole.

        Args:
            run: the run.
            folder: the checkpoint; older ones may be gone.
        """

    def on_end(self, run: RunState) -> None:
        """The run came to its end; not called where it fails."""

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember when the run goes on from a checkpoint: plain data that JSON can hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


@dataclass
class Callbacks:
    """The callbacks of one run, called in order.

    Attributes:
        run: what they are shown.
        callbacks: all of them.

    Raises:
        SettingError: for what is no callback, or two of one name.
    """

    run: RunState
    callbacks: Sequence[Callback] = ()
    _by_name: dict[str, Callback] = field(init=False)

    def __post_init__(self) -> None:
        self._by_name = {}
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise SettingError(f"callbacks: {callback!r} is no instance of a subclass of Callback")
            if callback.name in self._by_name:
                raise SettingError(f"callbacks: two are called {callback.name!r}; give one another `name`")
            self._by_name[callback.name] = callback

    def tell(self, hook: str, *given: Any) -> None:
        """Call one method of all callbacks.

        Args:
            hook: its name.
            given: what it takes beside the run.
        """
        for name, callback in self._by_name.items():
            try:
                getattr(callback, hook)(self.run, *given)
            except Exception as error:
                error.add_note(f"in {hook} of the callback {name}")
                raise

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What the callbacks remember, by name; those with nothing to remember are left out.

        Raises:
            SettingError: for what JSON cannot hold.
        """
        found = {name: state for name, own in self._by_name.items() if (state := own.state_dict())}
        for name, state in found.items():
            try:
                json.dumps(state, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise SettingError(f"the state of the callback {name} is not plain data: {error}") from None
        return found

    def load_state_dict(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Give the callbacks back what they remembered; the log says of which there is no callback any more."""
        for name, state in states.items():
            if name in self._by_name:
                self._by_name[name].load_state_dict(state)
            elif name not in BUILT_IN:  # those are switched off by settings
                log.warning("the run had a callback %s, which is not there now: what it knew is lost", name)


def monitored(report: Report, metric: str, tasks: int) -> float | None:
    """The mean of a metric over the first tasks of an evaluation, so that evaluations of any length compare.

    Args:
        report: of an evaluation.
        metric: one of `evaluate.EPISODE`.
        tasks: how many.

    Returns:
        The mean of the tasks' means, or None where fewer were played.
    """
    by_task: dict[str, list[float]] = {}
    for row in report["episodes"]:
        by_task.setdefault(row["task_id"], []).append(float(row[metric]))
    values = [fmean(own) for own in by_task.values()]
    return fmean(values[:tasks]) if len(values) >= tasks else None


def _comparable(state: Mapping[str, Any], metric: str, name: str) -> bool:
    """Whether what was remembered is of the metric that is compared now; the log says so where it is not."""
    if state["metric"] != metric:
        log.warning("%s compared %s and begins anew with %s", name, state["metric"], metric)
    return state["metric"] == metric


class EarlyStopping(Callback):
    """Ends a run when evaluations get no better.

    Args:
        patience: evaluations in a row without a better one, at least 1.
        min_delta: how much greater a mean has to be to count as better.
        metric: what is compared: `score`, `success` or `return`.

    Raises:
        SettingError: for a patience below 1.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, metric: str = "score") -> None:
        if patience < 1:
            raise SettingError(f"patience must be at least 1, not {patience}")
        self.patience, self.min_delta, self.metric = patience, min_delta, metric
        self.best: float | None = None
        self.waited, self.seen = 0, -1

    def on_start(self, run: RunState) -> None:
        """A run that had stopped stays so, unless its patience was made greater."""
        self._judge(run)

    def on_evaluate(self, run: RunState, report: Report) -> None:
        """Compare with the best so far; a second evaluation at one place tells nothing new."""
        value = monitored(report, self.metric, run.eval_tasks)
        if value is None or run.progress.joint_samples == self.seen:
            return
        self.seen = run.progress.joint_samples
        if self.best is None or value > self.best + self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._judge(run)

    def _judge(self, run: RunState) -> None:
        if self.waited >= self.patience:
            run.stop(
                f"early stopping: no better {self.metric} than {self.best:.3f} in {self.waited} evaluations"
            )

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and for how many evaluations it has been."""
        return {"metric": self.metric, "best": self.best, "waited": self.waited, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back, where it is of the same metric."""
        if _comparable(state, self.metric, self.name):
            self.best, self.waited, self.seen = state["best"], state["waited"], state["seen"]


class BestCheckpoint(Callback):
    """Keeps the agents of the best evaluation beside the newest checkpoints.

    Args:
        metric: what is compared: `score`, `success` or `return`; of equals the first is kept.
    """

    def __init__(self, metric: str = "score") -> None:
        self.metric = metric
        self.best: float | None = None
        self.at, self.seen = -1, -1

    def on_start(self, run: RunState) -> None:
        """Where the run was killed before the best could be kept, keep it now."""
        place = checkpoint.folder_of(run.run_dir, self.at)
        if place.is_dir():
            checkpoint.keep_best(place)

    def on_evaluate(self, run: RunState, report: Report) -> None:
        """Compare with the best so far."""
        value = monitored(report, self.metric, run.eval_tasks)
        if value is None or run.progress.joint_samples == self.seen:
            return
        self.seen = run.progress.joint_samples
        if self.best is None or value > self.best:
            self.best, self.at = value, self.seen

    def on_checkpoint(self, run: RunState, folder: Path) -> None:
        """Keep it, where it is of the best evaluation."""
        if checkpoint.samples_of(folder) == self.at:
            checkpoint.keep_best(folder)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and where it was."""
        return {"metric": self.metric, "best": self.best, "at": self.at, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back, where it is of the same metric."""
        if _comparable(state, self.metric, self.name):
            self.best, self.at, self.seen = state["best"], state["at"], state["seen"]


BUILT_IN = (EarlyStopping.__name__, BestCheckpoint.__name__, "Watch")


def from_settings(config: Config) -> list[Callback]:
    """The callbacks that a run's settings ask for, after the one that every run has."""
    from collm_agents.watch import Watch  # which is a callback itself

    found: list[Callback] = [Watch()]
    if config.run.patience:
        found.append(EarlyStopping(config.run.patience, config.run.min_delta, config.eval.monitor))
    if config.checkpoint.best:
        found.append(BestCheckpoint(config.eval.monitor))
    return found
