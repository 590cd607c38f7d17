"""Tables of words for a terminal: cells are wrapped, so that whole sentences fit.

For the reports of the package. Strings in, a string out; nothing is measured but lengths.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

GAP = "  "
LEAST_WIDTH = 100  # narrower, columns of words are no longer read
LEAST_COLUMN = 14


def terminal_width() -> int:
    """Columns of the terminal, or enough for a table where there is none."""
    return max(shutil.get_terminal_size((140, 24)).columns, LEAST_WIDTH)


def wrapped_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """A table of left-aligned columns that wraps what does not fit.

    Args:
        header: name of each column.
        rows: cells as text.
        width: columns of the whole; default those of the terminal.

    Returns:
        Lines: the header, a rule, the rows. A column whose cells are all empty is left out.
    """
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[str(line[i]) for i in kept] for line in (header, *rows)]
    widths = _widths(lines, (width or terminal_width()) - len(GAP) * (len(kept) - 1))
    rule = ["-" * size for size in widths]
    return "\n".join(_laid(line, widths) for line in (lines[0], rule, *lines[1:]))


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of the columns: what they need, the widest cut down until all fit."""
    need = [
        max((len(part) for cell in column for part in cell.split("\n")), default=0)
        for column in zip(*lines, strict=True)
    ]
    while sum(need) > room:
        widest = max(range(len(need)), key=lambda i: need[i])
        if need[widest] <= LEAST_COLUMN:
            break
        need[widest] -= 1
    return need


def _laid(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [_wrapped(cell, size) for cell, size in zip(line, widths, strict=True)]
    height = max(map(len, cells), default=0)
    filled = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    return "\n".join(
        GAP.join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*filled, strict=True)
    )


def _wrapped(cell: str, width: int) -> list[str]:
    parts = [textwrap.wrap(part, max(width, 1), break_on_hyphens=False) or [""] for part in cell.split("\n")]
    return [line for part in parts for line in part]
