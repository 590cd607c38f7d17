"""Models without data: what a pass would take in memory, found by making it on tensors that have only shapes.

For plans. The real code runs, so whatever it keeps is counted, of any architecture; a 4B model takes seconds.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collm_agents.memory import HEAP_BLOCK

SMALL = HEAP_BLOCK  # what glibc takes from its heap and keeps


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside that are still in use, now and at most.

    Attributes:
        now: bytes in use.
        peak: the most there were.
        small: of those, bytes in blocks of at most `SMALL`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.small = self._small = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return out

    def known(self, tensors: Iterable[Tensor]) -> None:
        """Leave tensors that were there before out of the count: operations in place hand them out again."""
        for tensor in tensors:
            self._sizes.setdefault(tensor.untyped_storage()._cdata, 0)

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        size = self._sizes[key] = storage.nbytes()
        self._change(size)
        if self.now > self.peak:
            self.peak, self.small = self.now, self._small
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._change(-self._sizes.pop(key, 0))

    def _change(self, size: int) -> None:
        self.now += size
        self._small += size if abs(size) <= SMALL else 0


@contextlib.contextmanager
def hollow(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, tensors have no data, and the parameters of modules on `meta` are such tensors on a CPU.

    Args:
        modules: tied parameters stay tied. They are of no use afterwards.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[int, Tensor] = {}
        for module in modules:
            for part in module.modules():
                for store in (part._parameters, part._buffers):
                    for name, old in store.items():
                        if old is not None:
                            store[name] = made.setdefault(id(old), _like(old))  # type: ignore[assignment]
        yield


def _like(old: Tensor) -> Tensor:
    empty = torch.empty(old.shape, dtype=old.dtype)
    return nn.Parameter(empty, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else empty
