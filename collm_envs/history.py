"""How a history of observations and replies is written down: one labelled entry after another.

Used for `CollabEnv.state()` (every agent's entries, what a centralised critic reads) and for an agent's
own history (its entries alone, what a decentralised critic reads). Entries are only ever appended, so a
critic can tokenise what is new and keep the rest.
"""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_AT_LINE_START = re.compile(r"(^|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])@")


def label(agent: str, turn: int, kind: str) -> str:
    """The line that opens an entry of a history: who, when, and whether they see or say what follows."""
    return f"@{agent} turn {turn + 1} {kind}:\n"


def entry(agent: str, turn: int, kind: str, text: str) -> str:
    """One labelled entry of a history, ending in a newline.

    A line of `text` that starts with "@" is indented by one space, so that no text can forge an entry; a line
    ends wherever Unicode says so, not only at a newline.

    Args:
        agent: whose entry it is.
        turn: turn index from 0.
        kind: "sees" or "says".
        text: the observation or the reply.
    """
    return label(agent, turn, kind) + _AT_LINE_START.sub(r"\1 @", text) + "\n"


def cut_middle(text: str, limit: int) -> str:
    """At most `limit` characters of a text: its beginning and its end, with a mark between."""
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    if limit <= len(mark):
        return text[:limit]
    head = (limit - len(mark) + 1) // 2
    tail = limit - len(mark) - head
    return text[:head] + mark + (text[-tail:] if tail else "")


def terminal_safe(text: str) -> str:
    """The text with control characters written out: a reply must not steer the terminal it is shown on."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def encodable(text: str) -> str:
    """The text with lone surrogates replaced, so that files, tokenizers and data sets accept it."""
    return text.encode("utf-8", "replace").decode("utf-8")
