"""A bitmap font of capital letters and digits, 5 by 5 cells each, and words written in it.

For StrBuild's targets. Drawn for this project: every glyph differs from every other, and none is thin in either
colour of a chess board, so that two builders with two blocks each can always avoid equal neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

SIZE = 5
SPACING = 2

# Five glyphs in a row of text, a blank column between them; `#` is a filled cell.
_SHEETS = (
    (
        "ABCDE",
        """
        .###. ####. .#### ####. #####
        #...# #...# #.... #...# #....
        ##### ####. #.... #...# ####.
        #...# #...# #.... #...# #....
        #...# ####. .#### ####. #####
        """,
    ),
    (
        "FGHIJ",
        """
        ##### .#### #...# ##### ..###
        #.... #.... #...# ..#.. ....#
        ####. #..## ##### ..#.. ....#
        #.... #...# #...# ..#.. #...#
        #.... .#### #...# ##### .###.
        """,
    ),
    (
        "KLMNO",
        """
        #..## #.... ##.## #...# .###.
        #.##. #.... ##### ##..# #...#
        ###.. #.... #.#.# #.#.# #...#
        #.##. #.... #...# #..## #...#
        #..## ##### #...# #...# .###.
        """,
    ),
    (
        "PQRST",
        """
        ####. .###. ####. ##### #####
        #...# #...# #...# #.... ..#..
        ####. #.#.# ####. ##### ..#..
        #.... #..## #.##. ....# ..#..
        #.... .#### #..## ##### ..#..
        """,
    ),
    (
        "UVWXY",
        """
        #...# #...# #...# ##.## ##.##
        #...# #...# #...# .###. .###.
        #...# ##.## #.#.# ..#.. ..#..
        #...# .###. ##### .###. ..#..
        .###. ..#.. ##.## ##.## ..#..
        """,
    ),
    (
        "Z0123",
        """
        ##### ##### .##.. ####. ####.
        ...## ##..# ..#.. ....# ....#
        .###. #.#.# ..#.. .###. ..##.
        ##... #..## ..#.. #.... ....#
        ##### ##### .###. ##### ####.
        """,
    ),
    (
        "45678",
        """
        #..#. ##### .###. ##### .###.
        #..#. #.... #.... ...## #...#
        ##### ####. ####. ..##. .###.
        ...#. ....# #...# .##.. #...#
        ...#. ####. .###. .##.. .###.
        """,
    ),
    (
        "9",
        """
        .###.
        #...#
        .####
        ....#
        .###.
        """,
    ),
)


def _cut(sheets: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    glyphs = {}
    for names, sheet in sheets:
        rows = [line.split() for line in sheet.split("\n") if line.strip()]
        for column, name in enumerate(names):
            glyphs[name] = tuple(row[column] for row in rows)
    return glyphs


GLYPHS: dict[str, tuple[str, ...]] = _cut(_SHEETS)


@lru_cache(maxsize=4096)
def write(text: str) -> tuple[str, ...]:
    """A text as five rows of `#` and `.`, the top row first, with two blank columns between glyphs.

    Args:
        text: characters of `GLYPHS`, at least one.

    Raises:
        KeyError: for a character that has no glyph.
    """
    gap = "." * SPACING
    return tuple(gap.join(GLYPHS[sign][row] for sign in text) for row in range(SIZE))
