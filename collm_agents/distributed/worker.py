"""What runs on a worker: a collector of its own, on a team that gets its weights from the driver.

For `collector`, which makes Ray actors of it. A worker has no state that matters: what it plays follows from the
weights, the shard and the update, so another one can play it again.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from collm_agents.clock import Clock
from collm_agents.distributed.wire import Weights, pack, put
from collm_agents.shards import Shard
from collm_envs.errors import InputError

if TYPE_CHECKING:
    from collm_agents.experiment import Experiment


@dataclass(frozen=True)
class Played:
    """What a worker did with a shard.

    Attributes:
        rollouts: packed (`wire.pack`).
        node: Ray's id of the node that the worker is on.
        seconds: how long it took, taking the weights included.
        phases: of them, seconds by phase (`clock.PHASES`).
        overlapped_s: seconds in which judges worked while other things were done.
    """

    rollouts: bytes
    node: str
    seconds: float
    phases: Mapping[str, float]
    overlapped_s: float


class Worker:
    """Plays shards of updates.

    Args:
        path: where the driver finds modules; environments of its own may come from there.
    """

    def __init__(self, path: Sequence[str]) -> None:
        sys.path.extend(place for place in path if place not in sys.path)

    def build(self, pickled: bytes, device: str, weights: Mapping[str, Weights]) -> str:
        """Load the models and take the first weights, those of agents that never learn included.

        Args:
            pickled: the driver's `Experiment`, with its environment and tasks, so no file of tasks is read here.
            device: where the models live here.
            weights: by member.

        Returns:
            Where this is, for people: process and address.

        Raises:
            InputError: when code that the driver has is not here.
        """
        where = f"{os.getpid()} at {ray.util.get_node_ip_address()}"
        try:
            experiment: Experiment = pickle.loads(pickled)
        except ModuleNotFoundError as missing:
            raise InputError(
                f"worker {where}: {missing}; every node needs the environment's code, and the same release of collm"
            ) from None
        self._clock = Clock()
        experiment.device = device
        self._team = experiment.build_team(stored=True)
        self._team.clock = self._clock
        self._collector = experiment.collector(self._team, self._clock)
        self._take(weights)
        self._version = -1
        return where

    def play(self, weights: Mapping[str, Weights], version: int, shard: Shard, update: int) -> Played:
        """Play some of an update's tasks.

        Args:
            weights: of the members that learn.
            version: a number of theirs: what has been taken once is not taken again.
            shard: the tasks.
            update: as for `Collector.collect`.
        """
        started, before = time.perf_counter(), self._clock.read()
        if version != self._version:
            self._take(weights)
            self._version = version
        rollouts = pack(self._collector.play(shard, update))
        return Played(
            rollouts,
            ray.get_runtime_context().get_node_id(),
            time.perf_counter() - started,
            self._clock.since(before),
            self._collector.overlapped_s,
        )

    def _take(self, weights: Mapping[str, Weights]) -> None:
        for member, own in weights.items():
            put(self._team.backbones[self._team.users[member][0]], member, own)
