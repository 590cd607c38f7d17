"""Keys and values of a batch in buffers of full length, and what is kept of them between turns.

For the decode loop. Notation: B rows, H key heads, W columns (tokens of the longest row), D head size. Rows end in
the same column: shorter ones begin further right, and the columns before them hold zeros that are masked.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class BufferLayer(CacheLayerMixin):
    """One layer's keys and values, [B, H, W, D] each; written in place and handed out as views."""

    is_sliding = False  # layers of a sliding window keep all columns too; masks hide what is out of reach

    def __init__(self, owner: BufferCache) -> None:
        super().__init__()
        # Weakly, or a cache in a cycle keeps its memory until Python's collector comes by.
        self.owner: Any = weakref.proxy(owner)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate, in the shape and type of the first states."""
        self.allocate(key_states.shape[0], key_states, value_states)

    def allocate(self, rows: int, keys: Tensor, values: Tensor) -> None:
        """Zeros (not garbage: a masked NaN would still spread) for `rows` rows, else like the given states."""
        width = self.owner.width
        self.keys = keys.new_zeros((rows, keys.shape[1], width, keys.shape[3]))
        self.values = values.new_zeros((rows, values.shape[1], width, values.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new columns at the cache's length; returns all columns up to and with them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.owner.length, self.owner.length + key_states.shape[-2]
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that queries may see, and the first of them."""
        return self.owner.length + query_length, 0

    def get_seq_length(self) -> int:
        """Columns filled so far."""
        return self.owner.length

    def get_max_length(self) -> int:
        """Columns there are."""
        return self.owner.width


class BufferCache(Cache):
    """Buffers of all layers. Whoever calls the model moves `length` on after each pass.

    Args:
        width: columns.
        length: columns already filled.
    """

    def __init__(self, width: int, length: int = 0) -> None:
        own: Any = weakref.ref(self)
        super().__init__(layer_class_to_replicate=lambda: BufferLayer(own()))
        self.width, self.length = width, length

    def like(self, other: Sequence[tuple[Tensor, Tensor]], rows: int) -> None:
        """Allocate `rows` rows for layers like these keys and values."""
        for keys, values in other:
            layer = BufferLayer(self)
            layer.allocate(rows, keys, values)
            self.layers.append(layer)

    @property
    def tensors(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values by layer."""
        return [(layer.keys, layer.values) for layer in self.layers]

    def select(self, index: Tensor) -> None:
        """Keep these rows only, in this order."""
        for layer in self.layers:
            layer.keys = layer.keys.index_select(0, index)
            layer.values = layer.values.index_select(0, index)


@dataclass(frozen=True)
class Prefix:
    """Where the keys and values of a token sequence are: `length` columns from `start` on, of one row of a slab."""

    slab: list[tuple[Tensor, Tensor]]
    row: int
    start: int
    length: int

    def copy_to(self, cache: BufferCache, row: int, start: int, length: int) -> None:
        """Write the first `length` columns into a row of a cache, from column `start` on."""
        for (keys, values), layer in zip(self.slab, cache.layers, strict=True):
            span = slice(self.start, self.start + length)
            layer.keys[row, :, start : start + length] = keys[self.row, :, span]
            layer.values[row, :, start : start + length] = values[self.row, :, span]


class PrefixStore:
    """Keys and values of finished rows, found again where a later prompt begins with the same tokens.

    They are those of weights that must not have changed since: `release` before any update. The oldest are
    dropped when memory runs out; whatever is not found is computed again.

    Args:
        budget: most bytes held.

    Attributes:
        taking: whether finished rows are taken in; what is held is found either way.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes, self.taking = budget, 0, True
        self._slabs: deque[tuple[int, list[tuple[str, bytes]]]] = deque()
        self._places: dict[str, dict[bytes, Prefix]] = {}

    def keep(
        self,
        cache: BufferCache,
        index: Tensor,
        members: Sequence[str],
        sequences: Sequence[Sequence[int]],
        starts: Sequence[int],
    ) -> None:
        """Take rows out of a cache.

        Args:
            cache: where they are; it may go on being written to.
            index: the rows, [N].
            members: whose weights computed them, N names.
            sequences: token ids that are in the columns, N lists.
            starts: column of each row's first token, N.
        """
        first = min(starts)
        last = max(start + len(ids) for start, ids in zip(starts, sequences, strict=True))
        sizes = (t[0, :, 0].numel() * t.element_size() for pair in cache.tensors for t in pair)
        size = sum(sizes) * len(sequences) * (last - first)
        if size > self.budget or not self.taking:
            return
        while self.bytes + size > self.budget:
            self._drop_oldest()
        slab = [
            (keys[:, :, first:last].index_select(0, index), values[:, :, first:last].index_select(0, index))
            for keys, values in cache.tensors
        ]
        names = [(member, _raw(ids)) for member, ids in zip(members, sequences, strict=True)]
        for row, ((member, raw), start, ids) in enumerate(zip(names, starts, sequences, strict=True)):
            self._places.setdefault(member, {})[raw] = Prefix(slab, row, start - first, len(ids))
        self._slabs.append((size, names))
        self.bytes += size

    def _drop_oldest(self) -> None:
        size, names = self._slabs.popleft()
        self.bytes -= size
        for member, raw in names:
            self._places[member].pop(raw, None)

    def lengths(self, member: str) -> list[int]:
        """Lengths of a member's sequences, longest first; asked for once per batch."""
        return sorted({place.length for place in self._places.get(member, {}).values()}, reverse=True)

    def find(self, member: str, prompt: Sequence[int], lengths: Sequence[int]) -> Prefix | None:
        """The longest known sequence that a prompt goes on from, the whole prompt itself excluded."""
        places = self._places.get(member)
        if not places:
            return None
        raw = _raw(prompt)
        for length in lengths:
            if length < len(prompt):
                found = places.get(raw[: 4 * length])
                if found is not None:
                    return found
        return None

    def release(self) -> None:
        """Forget everything."""
        self._slabs.clear()
        self._places.clear()
        self.bytes = 0


def _raw(ids: Sequence[int]) -> bytes:
    """Token ids as bytes, four each: prefixes of the one are prefixes of the other, and they hash fast."""
    return np.asarray(ids, dtype=np.int32).tobytes()
