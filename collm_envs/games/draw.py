"""Pictures of the building games: arrays of pixels, and coloured text for a terminal.

For `render`. Needs numpy only. A game says what stands where; this module knows colours and marks, and no rules.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from collm_envs.env import CollabEnv
from collm_envs.errors import EnvFault

Pixels = NDArray[np.uint8]  # [height, width, 3]
Colour = tuple[int, int, int]

CELL = 16  # side of a cell in pixels
SKY: Colour = (192, 214, 234)
FRAME: Colour = (92, 104, 118)
MISSING: Colour = (214, 40, 40)
EXTRA: Colour = (230, 30, 160)
COLOURS: dict[str, Colour] = {
    "oak_planks": (178, 140, 84),
    "planks": (178, 140, 84),
    "stone": (126, 126, 130),
    "white_concrete": (250, 250, 250),
    "obsidian": (44, 30, 66),
    "stone_bricks": (112, 116, 112),
    "cobblestone": (98, 98, 104),
    "stone_stairs": (150, 148, 142),
    "spruce_planks": (104, 78, 48),
    "birch_planks": (200, 182, 124),
    "oak_log": (106, 84, 50),
    "oak_stairs": (160, 122, 68),
    "bricks": (150, 90, 76),
    "glass": (170, 214, 222),
    "dirt": (134, 96, 66),
    "grass_block": (106, 158, 72),
    "sand": (220, 206, 158),
}


def colour_of(block: str) -> Colour:
    """The colour of a block; blocks without one of their own get a fixed one that depends on the name."""
    if block in COLOURS:
        return COLOURS[block]
    mixed = zlib.crc32(block.encode())
    return 60 + mixed % 160, 60 + (mixed >> 8) % 160, 60 + (mixed >> 16) % 160


def tile(block: str | None, *, missing: bool = False, extra: bool = False) -> Pixels:
    """One cell, seen from the front.

    Args:
        block: what stands there; None for nothing.
        missing: frame it: a block belongs there.
        extra: cross it out: no block belongs there.
    """
    fill = SKY if block is None else colour_of(block)
    pixels = np.full((CELL, CELL, 3), fill, dtype=np.uint8)
    edge = np.array(fill, dtype=np.int16) - (12 if block is None else 40)
    rim: Any = MISSING if missing else np.clip(edge, 0, 255)
    width = 2 if missing else 1
    pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:] = rim, rim, rim, rim
    if extra:
        across = np.arange(3, CELL - 3)
        for shift in (0, 1):
            pixels[across, np.clip(across + shift, 3, CELL - 4)] = EXTRA
            pixels[across, np.clip(CELL - 1 - across + shift, 3, CELL - 4)] = EXTRA
    return pixels


def mosaic(tiles: Sequence[Sequence[Pixels]]) -> Pixels:
    """Tiles by row, the top row first, put together inside a frame of four pixels."""
    inner = np.concatenate([np.concatenate(list(row), axis=1) for row in tiles], axis=0)
    height, width, _ = inner.shape
    framed = np.full((height + 8, width + 8, 3), FRAME, dtype=np.uint8)
    framed[4:-4, 4:-4] = inner
    return framed


def side_by_side(pictures: Sequence[Pixels], *, below: bool = False) -> Pixels:
    """Pictures in a row, or one below the other, on white with a gap of one cell."""
    axis = 0 if below else 1
    across = max(picture.shape[1 - axis] for picture in pictures)
    parts: list[Pixels] = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[1 - axis] = across
        padded = np.full(shape, 255, dtype=np.uint8)
        padded[: picture.shape[0], : picture.shape[1]] = picture
        shape[axis] = CELL
        parts += [padded, np.full(shape, 255, dtype=np.uint8)]
    return np.concatenate(parts[:-1], axis=axis)


def cell_text(block: str | None, sign: str = "", letter: str = "") -> str:
    """One cell of a terminal picture: two columns on the block's colour.

    Args:
        block: what stands there; None for nothing.
        sign: one character to mark it with.
        letter: what it reads for those who see no colours; the block's initial by default.
    """
    if block is None:
        return f"{sign or '.'} "
    red, green, blue = colour_of(block)
    ink = 0 if red + green + blue > 380 else 255
    shown = f"{letter or block[0]}{sign or ' '}"
    return f"\x1b[48;2;{red};{green};{blue}m\x1b[38;2;{ink};{ink};{ink}m{shown}\x1b[0m"


class Drawn(CollabEnv):
    """An environment that can be seen. A game writes `picture` and `sketch`."""

    metadata: ClassVar[dict[str, Any]] = {
        **CollabEnv.metadata,
        "render_modes": [*CollabEnv.metadata["render_modes"], "rgb_array"],
    }

    def picture(self, state: Any) -> Pixels:
        """What stands in a state, as pixels [height, width, 3]."""
        raise NotImplementedError("a game draws itself in picture()")

    def sketch(self, state: Any) -> str:
        """What stands in a state, as lines of terminal text."""
        raise NotImplementedError("a game draws itself in sketch()")

    def look(self) -> str:
        """What stands now, as lines of terminal text."""
        return "" if self.task is None else self.sketch(self._state)

    def render(self) -> Any:
        """The joint history and a sketch as text (`ansi`, `human`), or a picture (`rgb_array`).

        Raises:
            EnvFault: for a picture before the first reset.
        """
        if self.render_mode is None:
            return None
        if self.render_mode == "rgb_array":
            if self.task is None:
                raise EnvFault("nothing to draw before reset", env_id=self.env_id)
            return self.picture(self._state)
        plain = copy.copy(self)
        plain.render_mode = "ansi"
        text = (super(Drawn, plain).render() or "") + self.look()
        if self.render_mode == "ansi":
            return text
        print(text)  # noqa: T201  # what `human` means
        return None
