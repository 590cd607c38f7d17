"""`VecEnv`: many episodes of one environment, played side by side.

For collectors. Rows are clones of one template, so thousands are cheap. `send` hands a row its joint action;
`recv` gives back whatever has been judged, so a slow judge (a sandbox) never holds up other rows. `step` is
both on top, in row order. Nothing is reset on its own: an ended row stays ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.errors import EnvFault, SettingError
from collm_envs.reward import Score, completed
from collm_envs.task import Task


@dataclass(frozen=True)
class Step:
    """What one row's joint action led to. All fields are joint or by agent, as PettingZoo gives them.

    Attributes:
        row: the row it belongs to.
        observations: next observation by agent; empty strings at the end.
        reward: the joint reward.
        terminated: the task ended (success, or the turn limit the agents knew of).
        truncated: cut from outside.
        infos: by agent.
    """

    row: int
    observations: Mapping[str, str]
    reward: float
    terminated: bool
    truncated: bool
    infos: Mapping[str, Mapping[str, Any]]

    @property
    def info(self) -> Mapping[str, Any]:
        """The joint part of the infos (score, success, parts, turn), which every agent shares."""
        return next(iter(self.infos.values()))


class VecEnv:
    """Many rows of one environment.

    Args:
        template: the environment; rows are clones of it, and it is never stepped itself.

    Attributes:
        waited_s: seconds spent waiting for judges since the object was made.
        judging_s: seconds in which at least one judge was at work elsewhere (in a sandbox), waited for or not.
    """

    def __init__(self, template: CollabEnv) -> None:
        self.template = template
        self.envs: list[CollabEnv] = []
        self.waited_s = self.judging_s = 0.0
        self._judging_since: float | None = None
        self._judged_at = 0.0
        self._waiting: dict[int, Score | Future[Score]] = {}
        self._finished: dict[int, Step] = {}  # judged, not yet handed out; outlives a fault of another row

    def __len__(self) -> int:
        return len(self.envs)

    @property
    def agents(self) -> list[str]:
        """Agent names, in the environment's order."""
        return list(self.template.possible_agents)

    def reset(self, tasks: Sequence[Task], seeds: Sequence[int]) -> list[dict[str, str]]:
        """Start one row per task; earlier rows are dropped.

        Args:
            tasks: one task per row.
            seeds: one environment seed per row.

        Returns:
            Observations by agent, one dict per row.
        """
        if self._waiting:
            raise EnvFault("reset() while turns are being judged", env_id=self.template.env_id)
        if len(tasks) != len(seeds):
            raise SettingError(f"reset() got {len(tasks)} tasks but {len(seeds)} seeds")
        self._finished.clear()
        self.envs = [self.template.clone() for _ in tasks]
        return [
            env.reset(seed=int(seed), options={"task": task})[0]
            for env, task, seed in zip(self.envs, tasks, seeds, strict=True)
        ]

    def send(self, row: int, actions: Mapping[str, str]) -> None:
        """Hand a row its joint action; the result comes from `recv`."""
        env = self._row(row)
        if row in self._finished:
            raise EnvFault(f"row {row}'s last step was not received", env_id=env.env_id, turn=env.turn)
        self._waiting[row] = judged = env.submit(actions)
        if isinstance(judged, Future) and not judged.done():
            if self._judging_since is None:
                self._judging_since = time.perf_counter()
            judged.add_done_callback(self._note_end)  # called by the thread that finished it

    def recv(self) -> list[Step]:
        """Steps that are judged, in row order: at least one, blocking for it if need be.

        Raises:
            EnvFault: when a judge failed; it names environment, task, turn and agent. The other rows lose
                nothing by it: the next `recv` gives their steps.
        """
        if not self._waiting and not self._finished:
            raise EnvFault("recv() with nothing sent", env_id=self.template.env_id)
        self._collect(block=not self._finished)
        return [self._finished.pop(row) for row in sorted(self._finished)]

    def step(self, actions: Mapping[int, Mapping[str, str]]) -> dict[int, Step]:
        """Play one turn on some rows and wait for all of them.

        Args:
            actions: joint action by row.

        Returns:
            Steps by row, in the order of `actions`. What other rows were sent before is left to `recv`.
        """
        for row, joint in actions.items():
            self.send(row, joint)
        while not actions.keys() <= self._finished.keys():
            self._collect(block=True)
        return {row: self._finished.pop(row) for row in actions}

    def clone(self, rows: Sequence[int]) -> list[int]:
        """Copy rows at their present point; returns the new rows' indices."""
        first = len(self.envs)
        self.envs.extend([self._row(row).clone() for row in rows])
        return list(range(first, len(self.envs)))

    def states(self, rows: Sequence[int]) -> list[str]:
        """Joint histories of rows."""
        return [self._row(row).state() for row in rows]

    def global_infos(self, rows: Sequence[int]) -> list[dict[str, float]]:
        """Turn, horizon, last score and greatest score of rows (the paper's m_t)."""
        return [self._row(row).global_info() for row in rows]

    def scripted(self, row: int, kind: str, agent: str, rng: np.random.Generator) -> str:
        """A scripted agent's reply at a row's present point."""
        return self._row(row).scripted(kind, agent, rng)

    def close(self) -> None:
        """Drop all rows; results still being judged are abandoned."""
        for judged in self._waiting.values():
            if isinstance(judged, Future):
                judged.cancel()
        self._waiting.clear()
        self._finished.clear()
        self.envs.clear()
        self.template.close()

    def _row(self, row: int) -> CollabEnv:
        if not 0 <= row < len(self.envs):
            raise SettingError(f"there is no row {row}: {len(self.envs)} rows were reset or cloned")
        return self.envs[row]

    def _note_end(self, judged: Future[Score]) -> None:
        self._judged_at = time.perf_counter()

    def _collect(self, *, block: bool) -> None:
        ready = [row for row, judged in self._waiting.items() if completed(judged)]
        if block and not ready:
            begun = time.perf_counter()
            wait([f for f in self._waiting.values() if isinstance(f, Future)], return_when=FIRST_COMPLETED)
            self.waited_s += time.perf_counter() - begun
            ready = [row for row, judged in self._waiting.items() if completed(judged)]
        if self._judging_since is not None and len(ready) == len(self._waiting):
            self.judging_s += max(0.0, self._judged_at - self._judging_since)
            self._judging_since = None
        for row in sorted(ready):
            observations, rewards, ended, cut, infos = self.envs[row].resolve(self._waiting.pop(row))
            agent = next(iter(rewards))
            self._finished[row] = Step(row, observations, rewards[agent], ended[agent], cut[agent], infos)
