"""What all generated pages share: the mark on top, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from collm_agents import terminal
from collm_agents.explain import Explained

COMMAND = "python docs/generate.py"
MARK = f"<!-- Written by `{COMMAND}`; change the code, not this page. -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars and, outside code, angle brackets inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def code(value: Any) -> str:
    """A value as a user would write it, in code."""
    return f"`{terminal.shown(value)}`"


def settings_table(rows: Iterable[Explained]) -> str:
    """Settings with default, limits and doc."""
    header = ("key", "default", "limits", "what it does")
    return table(
        header,
        [
            (f"`{row.key}`", code(row.default), f"`{row.limits}`" if row.limits else "", row.doc)
            for row in rows
        ],
    )
