"""A text space that holds any Unicode string.

Gymnasium's `Text` accepts letters and digits only by default, and a charset of all of Unicode takes seconds
and megabytes to build. `UnicodeText` checks type and length only; it stays a subclass of `Text`, so that
tools which dispatch on the class (TorchRL's spec registry, `batch_space`) treat it as text. It does not
sanitise: lone surrogates are members, and environments replace them in replies.
"""

from __future__ import annotations

import copy
import string
from typing import Any

from gymnasium.spaces import Text
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten

SAMPLE_CHARSET = string.ascii_letters + string.digits + " .,:;-\n"


class UnicodeText(Text):
    """Every `str` of at most `max_length` characters, the empty one included.

    Args:
        max_length: greatest number of characters (Unicode code points).
        sample_length: greatest length of what `sample()` draws; short, so that random play is cheap.
        seed: seed of the space's own generator.
    """

    def __init__(self, max_length: int, *, sample_length: int = 64, seed: int | None = None) -> None:
        super().__init__(max_length, min_length=0, charset=SAMPLE_CHARSET, seed=seed)
        self.sample_length = min(sample_length, max_length)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draw a random ASCII string of at most `sample_length` characters."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        length = int(self.np_random.integers(0, self.sample_length + 1))
        picks = self.np_random.integers(0, len(SAMPLE_CHARSET), size=length)
        return "".join(SAMPLE_CHARSET[i] for i in picks)

    def contains(self, x: Any) -> bool:
        """True for a string of at most `max_length` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __deepcopy__(self, memo: dict[int, Any]) -> UnicodeText:
        """A copy with its own generator; the alphabet's tables never change, so they are shared.

        Environments are cloned thousands of times per update, with a space per agent.
        """
        twin = copy.copy(self)
        twin._np_random = copy.deepcopy(self._np_random, memo)
        return twin

    @property
    def is_np_flattenable(self) -> bool:
        """Always False: arbitrary text has no fixed numeric layout."""
        return False

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]  # mutable generator inside, as for every gymnasium space


@flatdim.register(UnicodeText)
def _flatdim(space: UnicodeText) -> int:
    raise ValueError("UnicodeText has no fixed number of numeric dimensions; keep the string as it is")


@flatten_space.register(UnicodeText)
def _flatten_space(space: UnicodeText) -> UnicodeText:
    return space


@flatten.register(UnicodeText)
def _flatten(space: UnicodeText, x: str) -> str:  # type: ignore[misc]  # Space[T] is invariant
    return x


@unflatten.register(UnicodeText)
def _unflatten(space: UnicodeText, x: str) -> str:  # type: ignore[misc]  # the same
    return x
