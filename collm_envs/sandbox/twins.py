"""Lists, dicts and sets that exist on both sides of a process border and are kept alike.

For `proxies` (where tests run) and `serve` (where the program runs). Python passes lists by reference: a test
sees what a function did to its argument, and an object sees what a test did to its list. Here each such
container has a number, and every message carries the items of those that changed since the last one. Only one
side runs at a time, so there is nothing to merge.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

from collm_envs.sandbox import codec

Container = list[Any] | dict[Any, Any] | set[Any]
_PRUNE_ABOVE = 8  # containers that are kept without asking whether anyone still holds them
_OWN_REFERENCES = 4  # to a container that nobody else holds: the table, two local names, the call


def _snapshot(container: Container) -> list[Any]:
    if type(container) is dict:
        return [*container, *container.values()]
    return list(container)


class Shared:
    """One side's table of shared containers.

    Args:
        parity: 0 or 1; numbers given out here are congruent to it, those of the other side are not.
        opaque: encodes what is no plain value (see `codec.encode`).
        handle: decodes it.
    """

    def __init__(self, parity: int, opaque: codec.Hook, handle: codec.Hook) -> None:
        self.parity = parity
        self.opaque, self.handle = opaque, handle
        self._next = parity
        self._objects: dict[int, Container] = {}
        self._snapshots: dict[int, list[Any]] = {}
        self._numbers: dict[int, int] = {}
        self._fresh: list[int] = []

    def _register(self, number: int, container: Container) -> None:
        self._objects[number] = container
        self._numbers[id(container)] = number
        self._snapshots[number] = _snapshot(container)

    def _drop(self, number: int) -> None:
        container = self._objects.pop(number, None)
        if container is not None:
            del self._numbers[id(container)], self._snapshots[number]

    def _number(self, container: Container) -> tuple[int, bool]:
        number = self._numbers.get(id(container))
        if number is not None:
            return number, True
        number, self._next = self._next, self._next + 2
        self._register(number, container)
        self._fresh.append(number)
        return number, False

    def encode(self, value: Any) -> Any:
        """Encode a value; containers in it become shared.

        Raises:
            CodecError: when it cannot be encoded; then nothing has become shared.
        """
        start = len(self._fresh)
        try:
            return codec.encode(value, self.opaque, self._number)
        except BaseException:
            for number in self._fresh[start:]:
                self._drop(number)
            raise
        finally:
            del self._fresh[start:]

    def mark(self) -> int:
        """A place to come back to, before encoding what may turn out too large to send."""
        return self._next

    def revoke(self, mark: int) -> None:
        """Forget what became shared here since a mark; the other side was never told of it."""
        for number in range(mark, self._next, 2):
            self._drop(number)

    def decode(self, data: Any) -> Any:
        """Decode a value of the other side.

        Raises:
            CodecError: when it is none.
        """
        return codec.decode(data, self.handle, self._known)

    def _known(self, data: list[Any], decode: Callable[[Any], Any]) -> Container:
        if not data or type(data[0]) is not int:
            raise codec.CodecError("bad number")
        number = data[0]
        if len(data) == 1:
            if number not in self._objects:
                raise codec.CodecError("unknown container")
            return self._objects[number]
        if len(data) != 3 or number in self._objects or number % 2 == self.parity or number < 0:
            raise codec.CodecError("bad container")
        kind = codec.SHARED_TAGS.get(data[1]) if type(data[1]) is str else None
        if kind is None:
            raise codec.CodecError("bad container")
        container: Container = kind()
        self._register(number, container)  # first, since it may hold itself
        self._fill(number, container, data[1], data[2], decode)
        return container

    def _fill(self, number: int, container: Any, tag: str, items: Any, decode: Callable[[Any], Any]) -> None:
        if type(items) is not list:
            raise codec.CodecError("bad container")
        new = codec.build(tag, [decode(item) for item in items])
        if tag == "l":
            container[:] = new
        else:
            container.clear()
            container.update(new)
        self._snapshots[number] = _snapshot(container)

    def changes(self) -> list[Any]:
        """Items of the containers that changed since the last message, as the other side's `apply` takes them.

        What holds values that cannot be sent is left as the other side knows it.
        """
        found = []
        for number, container in list(self._objects.items()):
            before, now = self._snapshots[number], _snapshot(container)
            if len(before) == len(now) and all(map(operator.is_, before, now)):
                continue
            tag = {list: "l", dict: "d"}.get(type(container), "s")
            pairs = container.items() if isinstance(container, dict) else ()
            flat = [part for pair in pairs for part in pair] if tag == "d" else list(container)
            try:
                items = self.encode(tuple(flat))[1]
            except codec.CodecError:
                continue
            found.append([number, tag, items])
            self._snapshots[number] = now
        return found

    def apply(self, changes: Any) -> None:
        """Make containers here as they are on the other side.

        Raises:
            CodecError: when these are no changes of known containers.
        """
        if type(changes) is not list:
            raise codec.CodecError("bad changes")
        for change in changes:
            if type(change) is not list or len(change) != 3 or type(change[0]) is not int:
                raise codec.CodecError("bad change")
            number, tag, items = change
            container = self._objects.get(number)
            if container is None or type(tag) is not str or codec.SHARED_TAGS.get(tag) is not type(container):
                raise codec.CodecError("change of an unknown container")
            self._fill(number, container, tag, items, self.decode)

    def prune(self) -> list[int]:
        """Forget containers that nobody else here holds; their numbers, for the other side's `forget`."""
        if len(self._objects) <= _PRUNE_ABOVE:
            return []
        gone = []
        for number in list(self._objects):
            container = self._objects[number]
            if sys.getrefcount(container) < _OWN_REFERENCES:
                gone.append(number)
                self._drop(number)
        return gone

    def forget(self, numbers: list[int]) -> None:
        """Forget containers that the other side has forgotten."""
        for number in numbers:
            self._drop(number)
