"""Token sequences that share beginnings, laid out so that what they share is computed once.

For teams and critics. Sequences are sorted, so each shares most with the one before it; those that share enough
make one *tree*, written as one row of tokens in which every token attends to its ancestors only. K replies to one
prompt, the turns of an episode and the branches of a tree of episodes are all the same case. Nothing here knows of
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from collm_agents.batch import Bools, Ints, token_batches

JOINED = 1.25  # of the longest sequence: how long a tree may grow whatever the budget


@dataclass(frozen=True)
class Pack:
    """A batch of trees.

    Attributes:
        rows: the sequences in it, [B], by their index among all.
        ids: tokens, [R, T], padded on the right.
        depth: place of each token in its sequence, [R, T].
        attends: which tokens each may see, [R, T, T]; None where a causal mask says the same.
        tree: row that holds a sequence, [B].
        path: where its tokens stand in that row, B arrays.
    """

    rows: Ints
    ids: Ints
    depth: Ints
    attends: Bools | None
    tree: Ints
    path: tuple[Ints, ...]


@dataclass
class _Tree:
    """One tree while it grows."""

    ids: list[Ints] = field(default_factory=list)
    depth: list[Ints] = field(default_factory=list)
    branches: list[tuple[Ints, int]] = field(
        default_factory=list
    )  # ancestors of a run of new tokens, its length
    members: list[tuple[int, Ints]] = field(default_factory=list)
    size: int = 0

    def add(self, row: int, tokens: Ints, shared: int) -> None:
        """Hang a sequence on, the first `shared` tokens of which the last one has."""
        before = self.members[-1][1][:shared] if self.members else np.zeros(0, dtype=np.int64)
        fresh = len(tokens) - shared
        path = np.concatenate([before, np.arange(self.size, self.size + fresh)])
        self.members.append((row, path))
        if fresh:
            self.ids.append(tokens[shared:])
            self.depth.append(np.arange(shared, len(tokens)))
            self.branches.append((before, fresh))
            self.size += fresh

    def attends(self, width: int) -> Bools:
        """Ancestors of every token, itself included: [width, width]; padding sees itself."""
        mask, start = np.eye(width, dtype=bool), 0
        for before, fresh in self.branches:
            mask[start : start + fresh, before] = True
            mask[start : start + fresh, start : start + fresh] = np.tri(fresh, dtype=bool)
            start += fresh
        return mask


def pack(sequences: Sequence[Sequence[int]], budget: int, *, width: int) -> Iterator[Pack]:
    """Lay sequences out in batches of trees.

    A sequence joins a tree where that costs less than a row of its own: in a layer of `width` d, n tokens
    cost about 24 d^2 n in matrices and 4 d n^2 in attention, which in a tree is paid over strangers, too.

    Args:
        sequences: N lists of token ids.
        budget: most tokens in a batch, padding counted; a longer single sequence gets a batch of its own, and
            others may join it up to `JOINED` times the longest: alone, each would compute nearly all of it again.
        width: hidden size of the model.

    Yields:
        Batches; every sequence is in exactly one.
    """
    longest = max(map(len, sequences), default=0)
    trees = list(_trees(sequences, max(budget, int(JOINED * longest)), width))
    for batch in token_batches([tree.size for tree in trees], budget):
        yield _pack([trees[i] for i in batch])


def _trees(sequences: Sequence[Sequence[int]], budget: int, width: int) -> Iterator[_Tree]:
    tree, last = _Tree(), np.zeros(0, dtype=np.int64)
    for row in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        tokens = np.asarray(sequences[row], dtype=np.int64)
        shared = _common(last, tokens)
        grown = tree.size + len(tokens) - shared
        more_attention = grown**2 - tree.size**2 - len(tokens) ** 2
        if tree.members and (grown > budget or not shared > 0 or more_attention > 6 * width * shared):
            yield tree
            tree, shared = _Tree(), 0
        tree.add(row, tokens, shared if tree.members else 0)
        last = tokens
    if tree.members:
        yield tree


def _common(one: Ints, other: Ints) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    differs = np.flatnonzero(one[:length] != other[:length])
    return int(differs[0]) if len(differs) else length


def _pack(trees: Sequence[_Tree]) -> Pack:
    width = max(tree.size for tree in trees)
    ids, depth = np.zeros((2, len(trees), width), dtype=np.int64)
    for i, tree in enumerate(trees):
        ids[i, : tree.size], depth[i, : tree.size] = np.concatenate(tree.ids), np.concatenate(tree.depth)
    plain = all(len(tree.branches) == 1 for tree in trees)
    return Pack(
        rows=np.array([row for tree in trees for row, _ in tree.members]),
        ids=ids,
        depth=depth,
        attends=None if plain else np.stack([tree.attends(width) for tree in trees]),
        tree=np.repeat(np.arange(len(trees)), [len(tree.members) for tree in trees]),
        path=tuple(path for tree in trees for _, path in tree.members),
    )
