"""What the scripted novice and oracle of the writing environments write.

The novice picks words of the post in reading order, too many or too few. The oracle fills a fixed text with
words of the post: both agents see the same post, so each can work out what its partner writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collm_envs.text import STOP_WORDS, word_tokens, words

# One single-word connective of each of the twelve categories.
LINKS = (
    *("also", "namely", "meaning", "so", "but", "then"),
    *("indeed", "overall", "likewise", "though", "if", "while"),
)


@dataclass(frozen=True)
class Novice:
    """How a novice writes one of the two texts.

    Attributes:
        words: least and greatest number of words drawn from the post.
        repeat: chance that some of them are written twice.
        link: chance that a connective takes a word's place; then again with the same chance for one more.
    """

    words: tuple[int, int]
    repeat: float = 0.0
    link: float = 0.0

    def write(self, post: str, rng: np.random.Generator) -> str:
        """A random subset of the post's words in reading order; words repeat where the post is too short."""
        source = word_tokens(post) or ["text"]
        size = int(rng.integers(self.words[0], self.words[1] + 1))
        picks = sorted(rng.choice(len(source), size, replace=size > len(source)))
        if rng.random() < self.repeat:
            doubled = rng.choice(picks, int(rng.integers(1, 1 + max(1, size // 2))))
            # Twice in place of others, so that the number of words stays within its limits.
            picks = sorted([*picks[: size - len(doubled)], *doubled])
        text = [source[i] for i in picks]
        while rng.random() < self.link:
            text[int(rng.integers(len(text)))] = str(rng.choice(LINKS))
        return " ".join(text)


def key_words(post: str, count: int, fill: Sequence[str]) -> list[str]:
    """The first distinct content words of a post that have 4 to 8 plain letters.

    Their narrow range of lengths is what lets a fixed text keep its ratios whatever the post.

    Args:
        post: the text both agents see.
        count: how many words.
        fill: at least `count` words of the same kind, used where the post has too few.
    """
    usable = (w for w in words(post) if 4 <= len(w) <= 8 and w.isascii() and w.isalpha())
    found = [w for w in dict.fromkeys(usable) if w not in STOP_WORDS and w not in LINKS]
    found += [w for w in fill if w not in found]
    return found[:count]
