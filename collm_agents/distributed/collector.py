"""`RayCollector`: an update's tasks dealt out to workers on a Ray cluster.

For the trainer, which cannot tell it from a local collector. Weights go out once per update, through the object
store: one copy per node, however many workers are there. Rollouts come back packed. A worker that dies is replaced,
and its shard is played again; draws are keyed, so the second time gives what the first would have given. With
`runner.staleness=1` the next update is played while this one is learned from, by the weights from before it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from collm_agents.batch import Rollouts
from collm_agents.clock import Clock
from collm_agents.distributed.session import connected, end, told
from collm_agents.distributed.wire import Weights, take, unpack
from collm_agents.distributed.worker import Played, Worker
from collm_agents.shards import Shard, merge, split
from collm_agents.team import AgentTeam
from collm_envs.errors import CollmError
from collm_envs.task import Task

if TYPE_CHECKING:
    from collm_agents.experiment import Experiment

log = logging.getLogger(__name__)

RETRIES = 3  # workers that one shard, or the start of a worker, may cost
LOOK_S = 2.0  # between two looks at what is late


class WorkersLost(CollmError, RuntimeError):
    """Workers keep dying, or there are none to be had."""


@dataclass
class _Seat:
    """One worker's place: who sits there, what it was asked last, and whether it is up."""

    actor: Any
    asked: Any
    shard: int | None = None
    where: str = ""
    failed: int = 0

    @property
    def up(self) -> bool:
        return bool(self.where)


class RayCollector:
    """Plays an update's tasks on workers.

    Args:
        experiment: of the run; workers get it whole.
        team: the agents that learn here.
        clock: waiting for workers is counted here.

    Attributes:
        overlapped_s: see `trainer.Collects`; summed over workers.
        metrics: of the last collection, see docs/signals.md.
    """

    def __init__(self, experiment: Experiment, team: AgentTeam, clock: Clock) -> None:
        self._settings = experiment.config.runner
        self._team, self._clock = team, clock
        self.overlapped_s = 0.0
        self.metrics: Mapping[str, float] = {}
        self._short = False
        self._here = ray.get_runtime_context().get_node_id()
        self._experiment = ray.put(cloudpickle.dumps(experiment))
        self._first = ray.put(self._weights(team.users))
        self._seats = [self._seated() for _ in range(self._settings.workers)]
        self._thread = ThreadPoolExecutor(1, "workers")
        self._ahead: tuple[_Round, Future[None]] | None = None
        self._sent: _Sent | None = None
        self._returned = 0.0

    def _weights(self, members: Sequence[str] | Mapping[str, Any]) -> dict[str, Weights]:
        return {m: take(self._team.backbones[self._team.users[m][0]], m) for m in members}

    def _seated(self, failed: int = 0) -> _Seat:
        """A new worker, which is being built wherever the cluster has room for it."""
        own = self._settings
        kind = ray.remote(Worker).options(
            num_cpus=own.cpus, num_gpus=own.gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        actor = kind.remote(sys.path)
        device = "cuda" if own.gpus else "cpu"
        return _Seat(actor, actor.build.remote(self._experiment, device, self._first), failed=failed)

    def collect(self, tasks: Sequence[Task], update: int, upcoming: Sequence[Task] = ()) -> Rollouts:
        """Play one tree per task, or take what was played ahead; as `Collector.collect`, without `upcoming`.

        Raises:
            WorkersLost: when workers keep dying, or none came up in time.
        """
        started = time.perf_counter()
        with self._clock.phase("workers"):
            round = self._played(tasks, update)
            parts = [unpack(round.played[i].rollouts) for i in range(len(round.shards))]
        round.waited_s, now = time.perf_counter() - started, time.perf_counter()
        found = [round.played[i] for i in range(len(round.shards))]
        self.overlapped_s = sum(one.overlapped_s for one in found)
        lost = sum(times * parts[i].joint_samples for i, times in round.lost.items())
        if (up := sum(seat.up for seat in self._seats)) < len(self._seats) and not self._short:
            log.warning("%d of %d workers are up; %s", up, len(self._seats), self._room())
        self._short = up < len(self._seats)
        self.metrics = self._told(round, found, lost, now - (self._returned or started))
        self._returned = now
        return merge(parts)

    def ahead(self, tasks: Sequence[Task], update: int) -> None:
        """Have the next update's tasks played by the present weights, where `runner.staleness` allows it.

        Args:
            tasks: as the next `collect` will name them.
            update: its index; the update before it has not been learned from.
        """
        if not self._settings.staleness or not tasks:
            return
        assert self._ahead is None, "a round that was played ahead was not collected"
        if self._sent is None or self._sent.learned != update - 1:
            self._send(update - 1)
        round = self._round(tasks, update)
        self._ahead = round, self._thread.submit(self._play, round)

    def _played(self, tasks: Sequence[Task], update: int) -> _Round:
        if self._ahead is None:
            self._send(update)
            round = self._round(tasks, update)
            self._play(round)
            return round
        (round, future), self._ahead = self._ahead, None
        named = [task.id for shard in round.shards for task in shard.tasks]
        assert (round.update, named) == (update, [task.id for task in tasks]), (
            "another update was played ahead"
        )
        assert 0 <= round.staleness <= self._settings.staleness
        future.result()
        return round

    def _send(self, learned: int) -> None:
        """Put the present weights, which have learned from so many updates, where workers can take them."""
        weights = self._weights(self._team.trained)
        number = self._sent.number + 1 if self._sent else 1
        self._sent = _Sent(
            ray.put(weights), number, learned, sum(own.data.nbytes for own in weights.values())
        )

    def _round(self, tasks: Sequence[Task], update: int) -> _Round:
        assert self._sent is not None
        size = self._settings.shard or -(-len(tasks) // self._settings.workers)
        return _Round(split(tasks, size), self._sent, update)

    def _told(
        self, round: _Round, found: Sequence[Played], lost: int, since_last_s: float
    ) -> dict[str, float]:
        up = max(sum(seat.up for seat in self._seats), 1)
        played_s = sum(one.seconds for one in found)
        phases = {
            f"workers/{name}_s": sum(one.phases[name] for one in found)
            for name in ("prefill", "decode", "env", "judge_wait")
        }
        return {
            "workers/up": float(sum(seat.up for seat in self._seats)),
            "workers/busy": played_s / (up * round.seconds),
            "workers/idle": max(0.0, 1 - played_s / (up * since_last_s)),
            "workers/learner_idle": round.waited_s / since_last_s,
            "workers/staleness": float(round.staleness),
            "workers/lost_samples": float(lost),
            "workers/weights_bytes": float(round.sent.nbytes),
            "workers/nodes": float(len({one.node for one in found} | {self._here}) - 1),
            "workers/rollout_bytes": float(sum(len(one.rollouts) for one in found)),
            **phases,
        }

    # -- one update, in whichever thread ------------------------------------------------------------------------

    def _play(self, round: _Round) -> None:
        """Have every shard played; workers that die on the way are replaced."""
        started, alone_since = time.perf_counter(), time.monotonic()
        while len(round.played) < len(round.shards) and not round.dropped:
            for seat in self._seats:
                if seat.up and seat.shard is None and round.waiting:
                    seat.shard = round.waiting.popleft()
                    shard = round.shards[seat.shard]
                    seat.asked = seat.actor.play.remote(
                        round.sent.weights, round.sent.number, shard, round.update
                    )
            asked = {seat.asked: i for i, seat in enumerate(self._seats) if seat.asked is not None}
            ready, _ = ray.wait(list(asked), timeout=LOOK_S)
            for ref in ready:
                self._heard(round, asked[ref])
            if ready or any(seat.up for seat in self._seats):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self._settings.patience_s:
                raise WorkersLost(f"no worker came up in {self._settings.patience_s:g} s; {self._room()}")
        round.seconds = time.perf_counter() - started

    def _room(self) -> str:
        asks = told({"CPU": self._settings.cpus, "GPU": self._settings.gpus})
        free, whole = told(ray.available_resources()), told(ray.cluster_resources())
        return f"each asks for {asks}, and the cluster has {free} free of {whole}"

    def _heard(self, round: _Round, place: int) -> None:
        """Take what a worker has to say: that it is up, what it played, or that it is no more."""
        seat = self._seats[place]
        try:
            answer = ray.get(seat.asked)
        except RayTaskError as error:  # it lives; what it was asked to do went wrong
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except RayError as error:
            self._seats[place] = self._replaced(round, seat, error)
            return
        seat.asked, seat.failed = None, 0
        if isinstance(answer, Played):
            assert seat.shard is not None
            round.played[seat.shard], seat.shard = answer, None
        else:
            seat.where = answer

    def _replaced(self, round: _Round, seat: _Seat, error: RayError) -> _Seat:
        why = str(error).strip().splitlines()[0]
        with suppress(RayError):
            ray.kill(seat.actor)
        failed = 0
        if seat.shard is None:
            failed = seat.failed + 1
            log.warning("a worker died while it was being built: %s", why)
        else:
            log.warning("the worker %s died; the tasks it was at are played again: %s", seat.where, why)
            round.waiting.appendleft(seat.shard)
            failed = round.lost[seat.shard] = round.lost.get(seat.shard, 0) + 1
        if failed >= RETRIES:
            what = (
                "at its start"
                if seat.shard is None
                else "at the tasks " + ", ".join(task.id for task in round.shards[seat.shard].tasks)
            )
            raise WorkersLost(f"{failed} workers died {what}; the last one: {why}") from error
        return self._seated(failed if seat.shard is None else 0)

    def close(self) -> None:
        """End the workers; those that do not go by themselves are killed."""
        if self._ahead is not None:  # the run ended before it was due
            self._ahead[0].dropped = True
        self._thread.shutdown()
        end([seat.actor for seat in self._seats], [seat.actor for seat in self._seats if seat.up])
        self._seats = []


@dataclass(frozen=True)
class _Sent:
    """Weights as workers get them.

    Attributes:
        weights: a reference to them.
        number: theirs; what has been taken once is not taken again.
        learned: updates that they have learned from.
        nbytes: their size.
    """

    weights: Any
    number: int
    learned: int
    nbytes: int


@dataclass
class _Round:
    """One update's shards: which wait, which were played, and how many workers each cost.

    Attributes:
        shards: all of them.
        sent: the weights that play them.
        update: the update's index.
        seconds: from the first shard's beginning to the last one's end.
        waited_s: of them, those in which the learner had nothing else to do.
        dropped: nobody wants it any more.
    """

    shards: Sequence[Shard]
    sent: _Sent
    update: int
    waiting: deque[int] = field(init=False)
    played: dict[int, Played] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    waited_s: float = 0.0
    dropped: bool = False

    @property
    def staleness(self) -> int:
        """Updates that were learned from between the weights that play and the update."""
        return self.update - self.sent.learned

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.shards)))


@contextmanager
def on_workers(experiment: Experiment, team: AgentTeam, clock: Clock) -> Iterator[RayCollector]:
    """A collector on workers; inside, Ray is connected, and afterwards nothing of it is left."""
    settings = experiment.config.runner
    with connected(settings.address, settings.workers * settings.cpus):
        collector = RayCollector(experiment, team, clock)
        try:
            yield collector
        finally:
            collector.close()
