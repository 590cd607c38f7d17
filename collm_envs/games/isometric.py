"""A world of blocks seen from above a corner, as an array of pixels.

For `render`. Pure functions over numpy arrays: they know colours and marks, and nothing of rules or files.
The viewer stands before the front (z = 0) and to the right of it (greatest x).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from collm_envs.games.draw import EXTRA, MISSING, SKY, Colour, Pixels

HALF, RISE, TALL = 12, 6, 14  # pixels of a cube: half its width, half its top's height, its edge upwards
MARGIN = 10
GROUND: Colour = (188, 206, 172)
SHADES = (1.0, 0.82, 0.66)  # top, front, side
GHOST = 0.3  # how much of a missing block is seen


def isometric(
    world: NDArray[np.uint8], target: NDArray[np.uint8] | None, colours: Sequence[Colour]
) -> Pixels:
    """Draw a world; where a target is given, mark what differs from it.

    Args:
        world: palette indices [x, y, z]; 0 is air.
        target: what it should be, of the same shape, or None. A voxel with the wrong block has red edges, one
            that should be air magenta ones, and a missing one is a red ghost.
        colours: colour by palette index, air's unused.

    Returns:
        Pixels [height, width, 3], the same size for every world of one shape.
    """
    size_x, size_y, size_z = world.shape
    width = (size_x + size_z) * HALF + 2 * MARGIN
    height = (size_x + size_z) * RISE + size_y * TALL + 2 * MARGIN
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:] = SKY
    base = size_z * RISE + size_y * TALL + MARGIN - RISE  # where the top of a cube at (0, -1, 0) begins
    for z in range(size_z - 1, -1, -1):
        for x in range(size_x):
            _blit(canvas, MARGIN + (x + z) * HALF, base + (x - z) * RISE, _tile(GROUND), 1.0)
    for y in range(size_y):
        for z in range(size_z - 1, -1, -1):
            for x in range(size_x):
                there = int(world[x, y, z])
                due = there if target is None else int(target[x, y, z])
                if there or due:
                    left = MARGIN + (x + z) * HALF
                    top = base + (x - z) * RISE - (y + 1) * TALL
                    sprite = _cube(colours[there] if there else MISSING, _mark(there, due))
                    _blit(canvas, left, top, sprite, 1.0 if there else GHOST)
    return canvas


def _mark(there: int, due: int) -> Colour | None:
    if there == due:
        return None
    return EXTRA if not due else MISSING


Sprite = tuple[NDArray[np.int16], NDArray[np.bool_]]  # pixels, and which of them are drawn


@lru_cache(maxsize=1)
def _faces() -> NDArray[np.int8]:
    """Which face of a cube a pixel belongs to: 0 none, 1 top, 2 front, 3 side; 4 its edges."""
    height, width = 2 * RISE + TALL, 2 * HALF
    row, column = np.mgrid[0:height, 0:width] + 0.5
    across = np.abs(column - HALF) * RISE / HALF  # distance from the middle, as a difference in height
    top = (row >= across) & (row <= 2 * RISE - across)
    body = (row > 2 * RISE - across) & (row <= 2 * RISE + TALL - across)
    faces = np.zeros((height, width), np.int8)
    faces[top], faces[body & (column < HALF)], faces[body & (column >= HALF)] = 1, 2, 3
    padded = np.pad(faces, 1)
    outline = np.zeros_like(faces, dtype=bool)
    for shift, axis in ((1, 0), (1, 1), (-1, 1), (-1, 0)):
        neighbour = np.roll(padded, shift, axis)[1:-1, 1:-1]
        outline |= (neighbour != faces) & ((neighbour == 0) | (shift == 1))
    faces[outline & (faces > 0)] += 4
    return faces


@lru_cache(maxsize=512)
def _cube(colour: Colour, mark: Colour | None) -> Sprite:
    faces = _faces()
    pixels = np.zeros((*faces.shape, 3), np.int16)
    for face, shade in enumerate(SHADES, 1):
        pixels[faces == face] = [int(channel * shade) for channel in colour]
        pixels[faces == face + 4] = mark or [int(channel * shade * 0.8) for channel in colour]
    return pixels, faces > 0


@lru_cache(maxsize=4)
def _tile(colour: Colour) -> Sprite:
    """The top of a cube alone."""
    pixels, _ = _cube(colour, None)
    return pixels, np.isin(_faces(), (1, 5))


def _blit(canvas: Pixels, left: int, top: int, sprite: Sprite, opacity: float) -> None:
    pixels, drawn = sprite
    part = canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    pixels, drawn = pixels[: part.shape[0]], drawn[: part.shape[0]]
    mixed = pixels[drawn] * opacity + part[drawn] * (1 - opacity)
    part[drawn] = mixed.astype(np.uint8)
