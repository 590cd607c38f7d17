"""The writing reward: four gated levels over two texts, and the knees of each environment and formula.

For whoever reads, checks or varies the score. `Rules` holds the figures; the four level classes turn a pair
of texts into points, as the writing tasks of arXiv 2601.21972 define them. The score compares the two texts
with each other and counts words; it never looks at the post, so it cannot tell a true text from an invented
one. That is the paper's definition and is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from collm_envs.reward import component
from collm_envs.text import (
    CONNECTIVES,
    Knees,
    char_ratio,
    connective_categories,
    jaccard,
    trapezoid,
    unique_word_ratio,
    word_count,
)

CONNECTIVE_SHARE, OVERLAP_SHARE = 0.4, 0.6  # the two halves of the style level, both formulas
LADDER_START, LADDER_STEP = 0.4, 0.05  # release: the first category, and each further one


@dataclass(frozen=True)
class TextPair:
    """The outcome of a turn: what stands first (summary, background) and second (detail, method)."""

    first: str
    second: str


@dataclass(frozen=True)
class Rules:
    """Figures of one environment under one formula.

    Attributes:
        words: least and greatest number of white-space words of either text.
        length: knees of characters(second) / characters(first).
        unique: knees of distinct words(second) / distinct words(first).
        jaccard_cap: overlap of content words that earns all of its share; more earns no more.
        coherence: paper: connectives earn `min(coherence * ln(k + 1), 1)`. None is the release's ladder.
        connectives_in_both: whether `k` counts categories over both texts or in the second alone.
    """

    words: tuple[int, int]
    length: Knees
    unique: Knees
    jaccard_cap: float
    coherence: float | None
    connectives_in_both: bool

    def levels(self) -> tuple[Structure, LengthRatio, UniqueRatio, _Style]:
        """The four components in scoring order; each closes the gate for those behind it."""
        style = ReleaseStyle(self) if self.coherence is None else PaperStyle(self)
        return (Structure(self), LengthRatio(self), UniqueRatio(self), style)


@component("structure", low=0, high=0.5, gate=True)
@dataclass(frozen=True)
class Structure:
    """0.5 when both texts have an allowed number of white-space words, else 0."""

    rules: Rules

    def measure(self, pair: TextPair) -> tuple[int, int]:
        """Words of the first and of the second text."""
        return word_count(pair.first), word_count(pair.second)

    def __call__(self, pair: TextPair) -> float:
        """Points of a pair of texts."""
        least, most = self.rules.words
        return 0.5 * all(least <= count <= most for count in self.measure(pair))


@component("length_ratio", low=0, high=1, gate=True)
@dataclass(frozen=True)
class LengthRatio:
    """Up to 1 for how much longer the second text is than the first, in characters."""

    rules: Rules

    def measure(self, pair: TextPair) -> tuple[float]:
        """Characters of the second text per character of the first."""
        return (char_ratio(pair.first, pair.second),)

    def __call__(self, pair: TextPair) -> float:
        """Points of a pair of texts."""
        return trapezoid(*self.measure(pair), self.rules.length)


@component("unique_ratio", low=0, high=0.5, gate=True)
@dataclass(frozen=True)
class UniqueRatio:
    """Up to 0.5 for how many more distinct words the second text has than the first."""

    rules: Rules

    def measure(self, pair: TextPair) -> tuple[float]:
        """Distinct words of the second text per distinct word of the first."""
        return (unique_word_ratio(pair.first, pair.second),)

    def __call__(self, pair: TextPair) -> float:
        """Points of a pair of texts."""
        return 0.5 * trapezoid(*self.measure(pair), self.rules.unique)


@dataclass(frozen=True)
class _Style:
    """Connective categories and overlap of content words, weighed 0.4 to 0.6."""

    rules: Rules

    def measure(self, pair: TextPair) -> tuple[int, float]:
        """Categories of connectives found, and the Jaccard overlap of content words."""
        texts = (pair.first, pair.second) if self.rules.connectives_in_both else (pair.second,)
        return len(connective_categories(*texts)), jaccard(pair.first, pair.second)

    def connective_points(self, categories: int) -> float:
        """Points in [0, 1] for a number of categories."""
        raise NotImplementedError

    def __call__(self, pair: TextPair) -> float:
        """Points of a pair of texts."""
        categories, overlap = self.measure(pair)
        shared = min(overlap, self.rules.jaccard_cap) / self.rules.jaccard_cap
        return CONNECTIVE_SHARE * self.connective_points(categories) + OVERLAP_SHARE * shared


@component("style", low=0, high=1, gate=True)
@dataclass(frozen=True)
class PaperStyle(_Style):
    """Style as the paper writes it: connectives count by a natural logarithm."""

    def connective_points(self, categories: int) -> float:
        """`min(coherence * ln(k + 1), 1)`."""
        assert self.rules.coherence is not None
        return min(self.rules.coherence * math.log(categories + 1), 1.0)


def _ladder(categories: int) -> float:
    return min(1.0, LADDER_START + LADDER_STEP * (categories - 1)) if categories else 0.0


@component("style", low=0, high=CONNECTIVE_SHARE * _ladder(len(CONNECTIVES)) + OVERLAP_SHARE, gate=True)
@dataclass(frozen=True)
class ReleaseStyle(_Style):
    """Style as the released code has it: a ladder whose top is 0.95, so style ends at 0.98."""

    def connective_points(self, categories: int) -> float:
        """0 without connectives, else `0.4 + 0.05 (k - 1)`."""
        return _ladder(categories)
