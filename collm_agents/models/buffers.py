"""Memory that recorded decode steps read and write at fixed addresses: blocks, caches in them, casts of weights.

For `graphs`, which says when what is there. Notation as in `kvcache`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from collm_agents.models.kvcache import BufferCache, BufferLayer

ALIGNED = 512  # bytes
Pairs = Sequence[tuple[Tensor, Tensor]]  # keys and values by layer
Carve = Callable[[Pairs, int, int], Pairs]


def block_bytes(sizes: Sequence[Sequence[int]], types: Sequence[torch.dtype]) -> int:
    """Bytes of a block for tensors of these sizes, each aligned."""
    each = (math.prod(size) * dtype.itemsize for size, dtype in zip(sizes, types, strict=True))
    return sum(-(-count // ALIGNED) * ALIGNED for count in each)


def cut(block: Tensor, sizes: Sequence[Sequence[int]], types: Sequence[torch.dtype]) -> list[Tensor]:
    """Tensors side by side in a block."""
    found, start = [], 0
    for size, dtype in zip(sizes, types, strict=True):
        count = math.prod(size) * dtype.itemsize
        found.append(block[start : start + count].view(dtype).view(*size))
        start += -(-count // ALIGNED) * ALIGNED
    return found


class HeldCache(BufferCache):
    """A batch's cache whose buffers outlast it: rows move to the front instead of into new tensors.

    Args:
        carve: gives keys and values for layers like some, a number of rows and a width.
        width: columns.
        length: columns already filled.
    """

    def __init__(self, carve: Carve, width: int, length: int) -> None:
        super().__init__(width, length)
        self.carve = carve

    def like(self, other: Sequence[tuple[Tensor, Tensor]], rows: int) -> None:
        """Take the steps' buffers."""
        for keys, values in self.carve(other, rows, self.width):
            layer = BufferLayer(self)
            layer.keys, layer.values, layer.is_initialized = keys, values, True
            self.layers.append(layer)

    def select(self, index: Tensor) -> None:
        """Keep these rows only, in this order."""
        for layer in self.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                held[: len(index), :, : self.length] = held[:, :, : self.length].index_select(0, index)
                setattr(layer, name, held[: len(index)])


class _StepLayer(BufferLayer):
    """Buffers that are written in a column that a tensor names, and handed out as a whole."""

    owner: StepCache

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one column; returns all of them."""
        self.keys.index_copy_(2, self.owner.column, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.owner.column, value_states.to(self.values.dtype))
        return self.keys, self.values


class StepCache(BufferCache):
    """What one step sees of the buffers: so many rows and columns.

    Args:
        pairs: keys and values by layer.
        rows: seen.
        columns: seen.
        column: to be written, [1].
    """

    def __init__(
        self, pairs: Sequence[tuple[Tensor, Tensor]], rows: int, columns: int, column: Tensor
    ) -> None:
        Cache.__init__(self, layer_class_to_replicate=lambda: _StepLayer(self))
        self.width, self.length, self.column = columns, columns - 1, column
        for keys, values in pairs:
            layer = _StepLayer(self)
            layer.keys, layer.values = keys[:rows, :, :columns], values[:rows, :, :columns]
            layer.is_initialized = True
            self.layers.append(layer)


class Casts:
    """Linear layers' weights in the type that autocast computes in; none where nothing is cast.

    Autocast makes such copies itself and keeps them until its block ends: a graph would read them at addresses that
    are somebody else's by then, with the values of an old update. Members' models take turns in one block,
    filled anew for each batch: no more is held than by autocast.
    """

    def __init__(self, model: Any, kind: str) -> None:
        self._kind = kind
        self._dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self._places: list[tuple[nn.Linear, str, nn.Parameter]] = []
        self.copies: list[Tensor] = []
        if self._dtype is None:
            return
        for module in model.modules():
            if isinstance(module, nn.Linear):
                for name, parameter in module.named_parameters(recurse=False):
                    if parameter.dtype != self._dtype:
                        self._places.append((module, name, parameter))

    @property
    def size(self) -> int:
        """Bytes needed."""
        return block_bytes(*self._shapes())

    def _shapes(self) -> tuple[list[Sequence[int]], list[torch.dtype]]:
        dtype = self._dtype or torch.float32
        return [parameter.shape for _, _, parameter in self._places], [dtype] * len(self._places)

    def refresh(self, block: Tensor) -> None:
        """Copy the weights as they are now into a block."""
        if not self.copies:
            self.copies = cut(block, *self._shapes())
        with torch.no_grad():
            for (_, _, parameter), copy in zip(self._places, self.copies, strict=True):
                copy.copy_(parameter)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the layers have the copies for weights, and autocast keeps no copies of its own."""
        if self._dtype is None:
            yield
            return
        for (module, name, _), copy in zip(self._places, self.copies, strict=True):
            module._parameters[name] = copy  # type: ignore[assignment]
        try:
            with torch.autocast(self._kind, dtype=self._dtype, cache_enabled=False):
                yield
        finally:
            for module, name, parameter in self._places:
                module._parameters[name] = parameter
