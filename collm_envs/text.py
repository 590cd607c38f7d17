"""Pure measures of text and parsers of replies: words, overlap, connectives, marker lines.

For scorers, metrics and anyone who wants to check a score by hand. Every function is total: it takes any
string, the empty one included, and returns a finite number. Nothing here knows of environments or rewards,
and nothing judges meaning: these are counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PIECE = re.compile(r"\d+\.\d+|\w+|[^\w\s]+")

# Function words that carry no topic. The project's own list.
_FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being both but by can could did do
does doing each even every few for from further had has have having he her here hers him his how i if in
into is it it's its just may me might more most much must my no nor not of off on once only or other our out
over own same she should since so some such than that the their them then there these they this those though
through to too under until up upon us very was we were what when where whether which while who whom whose
why will with within without would yet you your
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

CONNECTIVES: dict[str, tuple[str, ...]] = {
    "elaboration": (
        *("in addition", "furthermore", "moreover", "additionally", "besides", "also", "as well as"),
        *("what is more", "on top of that", "not only", "plus", "to add to this"),
    ),
    "examples": (
        *("for example", "for instance", "such as", "e.g.", "to illustrate", "including", "namely"),
        *("as an example", "a case in point", "to name a few", "by way of example", "as shown by"),
    ),
    "explanation": (
        *("in other words", "that is to say", "i.e.", "this means", "which means", "meaning", "to explain"),
        *("put differently", "to clarify", "put another way", "more precisely", "to be exact"),
    ),
    "cause_effect": (
        *("because", "so", "therefore", "thus", "hence", "as a result", "consequently", "due to"),
        *("owing to", "for this reason", "leads to", "led to", "accordingly", "thereby"),
    ),
    "contrast": (
        *("but", "however", "in contrast", "by contrast", "on the other hand", "whereas", "instead"),
        *("unlike", "conversely", "rather than", "on the contrary", "yet"),
    ),
    "sequence": (
        *("first", "firstly", "secondly", "thirdly", "then", "next", "finally", "lastly"),
        *("to begin with", "to start with", "in the end", "subsequently"),
    ),
    "emphasis": (
        *("indeed", "in fact", "above all", "especially", "clearly", "certainly", "of course", "notably"),
        *("most importantly", "in particular", "without doubt", "obviously", "undoubtedly"),
    ),
    "summary": (
        *("overall", "in short", "in summary", "to sum up", "in conclusion", "to conclude", "all in all"),
        *("in brief", "on the whole", "in a nutshell", "ultimately", "to summarise", "to summarize"),
    ),
    "comparison": (
        *("likewise", "similarly", "in the same way", "just as", "compared to", "compared with"),
        *("in comparison", "equally", "by the same token", "in a similar way", "as with"),
    ),
    "concession": (
        *("though", "although", "even though", "despite", "in spite of", "nevertheless", "nonetheless"),
        *("still", "admittedly", "granted", "regardless", "all the same"),
    ),
    "condition": (
        *("if", "only if", "unless", "provided that", "in case", "as long as", "otherwise", "whether"),
        *("assuming", "supposing", "on condition", "in the event"),
    ),
    "time": (
        *("when", "while", "before", "after", "until", "during", "meanwhile", "later", "soon"),
        *("as soon as", "at the same time", "eventually", "earlier", "whenever"),
    ),
}


def word_count(text: str) -> int:
    """Number of words as white space divides them; punctuation on its own counts."""
    return len(text.split())


def char_count(text: str) -> int:
    """Number of code points, blanks at both ends left out: samplers often begin a reply with a space."""
    return len(text.strip())


def word_tokens(text: str) -> list[str]:
    """Words without punctuation in reading order, case kept. Inner apostrophes belong to a word."""
    return _WORD.findall(text)


def pieces(text: str) -> list[str]:
    """Words, decimal numbers and runs of signs in reading order: the units of a word-level tokenizer."""
    return _PIECE.findall(text)


def words(text: str) -> list[str]:
    """Words without punctuation in reading order, case folded."""
    return [word.casefold() for word in word_tokens(text)]


def content_words(text: str) -> set[str]:
    """Distinct case-folded words that are not in `STOP_WORDS`."""
    return {word.replace("’", "'") for word in words(text)} - STOP_WORDS


def ratio(part: float, whole: float) -> float:
    """`part / whole`, and 0 where the whole is 0: a ratio to nothing earns nothing."""
    return part / whole if whole else 0.0


def char_ratio(first: str, second: str) -> float:
    """Characters of the second text per character of the first; 0 where the first is empty."""
    return ratio(char_count(second), char_count(first))


def unique_word_ratio(first: str, second: str) -> float:
    """Distinct words of the second text per distinct word of the first (0 if none), stop words included."""
    return ratio(len(set(words(second))), len(set(words(first))))


def jaccard(first: str, second: str) -> float:
    """Shared content words over all content words of two texts, in [0, 1]; 0 where there are none."""
    a, b = content_words(first), content_words(second)
    return ratio(len(a & b), len(a | b))


class Knees(NamedTuple):
    """Corners of a trapezoid: 0 up to `rise`, 1 on `[full, fade]`, 0 from `end` on, linear between."""

    rise: float
    full: float
    fade: float = float("inf")
    end: float = float("inf")


def trapezoid(x: float, knees: Knees) -> float:
    """Height in [0, 1] of a trapezoid at `x`."""
    if knees.full <= x <= knees.fade:
        return 1.0
    if knees.rise < x < knees.full:
        return (x - knees.rise) / (knees.full - knees.rise)
    if knees.fade < x < knees.end:
        # Written as 1 - ..., as the paper does: at the end of the slope both forms round differently.
        return max(0.0, 1.0 - (x - knees.fade) / (knees.end - knees.fade))
    return 0.0


@lru_cache(maxsize=1)
def _patterns() -> dict[str, re.Pattern[str]]:
    """One compiled pattern per category; whole words only, and any white space inside a phrase."""
    compiled = {}
    for category, phrases in CONNECTIVES.items():
        choices = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
        compiled[category] = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
    return compiled


def connective_categories(*texts: str) -> frozenset[str]:
    """Categories of `CONNECTIVES` of which at least one phrase stands in one of the texts.

    Whole words and phrases only, whatever the case: "so" is found in "so far" and not in "also". A phrase
    cannot begin in one text and end in the next.
    """
    return frozenset(name for name, pattern in _patterns().items() if any(map(pattern.search, texts)))


def split_at_marker(reply: str, marker: str) -> tuple[str, str]:
    """Divide a reply at the first line that holds only the marker.

    Args:
        reply: what a single agent wrote.
        marker: the line's text; blanks around it do not matter.

    Returns:
        The texts before and after that line; `(reply, "")` where there is no such line.
    """
    lines = reply.split("\n")
    for number, line in enumerate(lines):
        if line.strip() == marker:
            return "\n".join(lines[:number]), "\n".join(lines[number + 1 :])
    return reply, ""
