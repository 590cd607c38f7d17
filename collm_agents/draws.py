"""Keyed random draws: what is drawn depends on what it is for, not on when or where it is drawn.

The uniforms of a reply are keyed by run seed, update, task, node, agent and token. Batch size, order, row
compaction, the number of workers and a resume therefore change nothing, and fast paths can be compared with
slow ones sample for sample. Counter-based (Philox); no generator is carried along.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


def derive(*key: int | str) -> int:
    """A 64-bit seed derived from a key; equal keys give equal seeds, whatever the platform."""
    return int.from_bytes(_digest(key)[:8], "little") >> 1


def _digest(key: tuple[int | str, ...]) -> bytes:
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in key)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class DrawKey:
    """What the random draws of one reply are keyed by.

    Attributes:
        seed: the run's seed, or the evaluation's.
        update: index of the update; -1 in evaluations.
        task: id of the task, with the number of its occurrence in the update.
        node: the reply's place in its tree: branch index per turn.
        agent: who replies.
    """

    seed: int
    update: int
    task: str
    node: tuple[int, ...]
    agent: str

    @property
    def parts(self) -> tuple[int | str, ...]:
        """The key as plain parts, for `derive`."""
        return (self.seed, self.update, self.task, "/".join(map(str, self.node)), self.agent)

    def uniforms(self, count: int) -> np.ndarray:
        """Draws in [0, 1), one per token: shape [count], float64. A prefix of a longer call is the same."""
        words = np.frombuffer(_digest(self.parts), dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=words)).random(count)
