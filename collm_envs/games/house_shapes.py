"""The built-in houses: drawn by a seeded generator, no two alike.

For `housebuild` and its mini form. A house stands on a base, has four walls with a door and windows, and one of
several kinds of roof; what it is made of is drawn apart from its shape, and no two of the large ones have one
shape. The same houses are drawn at every load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from collm_envs.games.blueprints import Blueprint, schema_row
from collm_envs.games.house_plan import plan

WIDTH, HEIGHT, DEPTH = 6, 7, 7
# Voxels by which a roof shrinks on either side from layer to layer, along x and along z.
ROOFS = {"flat": (0, 0), "gable": (0, 1), "steep": (0, 2), "x_slope": (1, 0), "hip": (1, 1)}
MATERIALS = {
    "C": ("white_concrete", "oak_planks", "birch_planks", "cobblestone"),
    "O": ("obsidian", "oak_log", "stone"),
    "D": ("planks", "spruce_planks"),
    "G": ("glass",),
    "S": ("stone_stairs", "oak_stairs"),
    "B": ("stone_bricks", "bricks", "dirt"),
}
MINI_BLOCKS = {"p": "planks", "s": "stone", "b": "bricks", "g": "glass"}
MINI_SIDE = 3
MINI_CELLS = 2 * MINI_SIDE**2
# Roofs of the mini houses, rows of a 3 x 3 layer: R roof, A air.
MINI_ROOFS = {
    "flat": ("RRR", "RRR", "RRR"),
    "gable": ("AAA", "RRR", "AAA"),
    "x_slope": ("ARA", "ARA", "ARA"),
    "front": ("RRR", "RRR", "AAA"),
    "back": ("AAA", "RRR", "RRR"),
    "left": ("RRA", "RRA", "RRA"),
    "right": ("ARR", "ARR", "ARR"),
    "hip": ("ARA", "RRR", "ARA"),
    "ends": ("RRR", "AAA", "RRR"),
    "sides": ("RAR", "RAR", "RAR"),
}
MINI_FILLS, MINI_LINES = 3, 12  # most fills of either of two builders; lines of all builders together

Rows = list[dict[str, Any]]
Layers = tuple[tuple[str, ...], ...]
Drawn = tuple[str, Layers, dict[str, str]]  # kind, rows of letters by layer, block by letter


@lru_cache(maxsize=1)
def houses() -> tuple[Rows, Rows]:
    """256 rows to train on and 64 to test on, of the released schema."""
    return _distinct(_house, {"A": "air"}, "house", train=256, test=64, seed=20)


@lru_cache(maxsize=1)
def mini_houses() -> tuple[Rows, Rows]:
    """3072 rows to train on and 256 to test on; thousands, lest a small model learn them by heart."""
    return _distinct(_mini_house, {"x": "air"}, "cottage", train=3072, test=256, seed=21)


def _distinct(
    draw: Callable[[np.random.Generator], Drawn | None],
    air: dict[str, str],
    name: str,
    *,
    train: int,
    test: int,
    seed: int,
) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)
    rows: dict[Layers, dict[str, Any]] = {}
    while len(rows) < train + test:
        drawn = draw(rng)
        if drawn is None or drawn[1] in rows:
            continue
        kind, layers, inventory = drawn
        rows[layers] = schema_row(f"{name}_{len(rows):04d}", {**air, **inventory}, layers, kind)
    every = list(rows.values())
    return every[:train], every[train:]


def _house(rng: np.random.Generator) -> Drawn:
    grid = np.full((HEIGHT, DEPTH, WIDTH), "A")  # [y, z, x]
    width, depth = int(rng.integers(4, WIDTH + 1)), int(rng.integers(4, 6))
    x1, z1 = int(rng.integers(0, WIDTH - width + 1)), int(rng.integers(1, DEPTH - depth))
    x2, z2, top = x1 + width - 1, z1 + depth - 1, int(rng.integers(2, 4))
    grid[0, z1 : z2 + 1, x1 : x2 + 1] = "C"
    walls = grid[1 : top + 1, z1 : z2 + 1, x1 : x2 + 1]
    walls[:] = "C"
    walls[:, 1:-1, 1:-1] = "A"
    if rng.random() < 0.8:
        walls[:, [0, 0, -1, -1], [0, -1, 0, -1]] = "O"
    sides = [walls[:, 0, 1:-1], walls[:, -1, 1:-1], walls[:, 1:-1, 0], walls[:, 1:-1, -1]]
    order = rng.permutation(4)
    _open(sides[order[0]], rng, top, door=True)
    for side in order[1 : 1 + int(rng.integers(0, 4))]:
        _open(sides[side], rng, top, door=False)
    kind = str(rng.choice(list(ROOFS)))
    _roof(grid[top + 1 :, z1 - 1 : z2 + 2, x1 : x2 + 1], kind, rng)
    inventory = {letter: str(rng.choice(blocks)) for letter, blocks in MATERIALS.items()}
    return kind, _layers(grid), inventory


def _layers(grid: np.ndarray) -> Layers:
    """Rows of letters by layer of a grid [y, z, x]."""
    return tuple(tuple("".join(row) for row in layer) for layer in grid)


def _open(wall: np.ndarray, rng: np.random.Generator, top: int, *, door: bool) -> None:
    """A door of one or two voxels with a hole above, or a window, in a wall [y, along]."""
    wide = int(rng.integers(1, 3))
    at = int(rng.integers(0, wall.shape[1] - wide + 1))
    if door:
        wall[0, at : at + wide] = "D"
        if top > 2:
            wall[1, at : at + wide] = "A"
    else:
        wall[1, at : at + wide] = "G" if rng.random() < 0.5 else "A"


def _roof(space: np.ndarray, kind: str, rng: np.random.Generator) -> None:
    """Fill the space above the walls [y, z, x]; sloping sides end in stairs (S)."""
    by_x, by_z = ROOFS[kind]
    depth, width = space.shape[1:]
    levels = int(rng.integers(1, len(space) + 1)) if kind == "flat" else len(space)
    for level in range(levels):
        x, z = level * by_x, level * by_z
        layer = space[level, z : depth - z, x : width - x]
        if not layer.size:
            break
        layer[:] = "B"
        if by_x and layer.shape[1] > 1:
            layer[:, [0, -1]] = "S"
        if (by_z or level == 0) and layer.shape[0] > 1:  # eaves at front and back of every roof
            layer[[0, -1]] = "S"


def _mini_house(rng: np.random.Generator) -> Drawn | None:
    """Walls around one empty cell and a roof; None where it would be too much work for the small budgets."""
    walls = np.full((MINI_SIDE, MINI_SIDE), "W")
    walls[1, 1] = "A"
    middles = rng.permutation([(0, 1), (1, 0), (1, 2), (2, 1)])
    for z, x in middles[: int(rng.integers(0, 3))]:
        walls[z, x] = "E" if rng.random() < 0.6 else "A"
    kind = str(rng.choice(list(MINI_ROOFS)))
    roof = np.array([list(row) for row in MINI_ROOFS[kind]])
    if rng.random() < 0.3:
        roof[tuple(rng.permutation([(0, 0), (0, 2), (2, 0), (2, 2)])[0])] = "E"  # a chimney
    shape = _layers(np.stack([walls, roof]))
    letters = [str(letter) for letter in rng.permutation(list(MINI_BLOCKS))[:3]]
    if not _fits(shape):
        return None
    made_of = str.maketrans("WREA", "".join(letters) + "x")
    layers = tuple(tuple(row.translate(made_of) for row in layer) for layer in shape)
    return kind, layers, {letter: MINI_BLOCKS[letter] for letter in sorted(letters)}


@lru_cache(maxsize=4096)
def _fits(shape: Layers) -> bool:
    """Whether one to four builders can do it, the attack included, and two of them with few fills each."""
    house = Blueprint(("air", "wall", "roof", "extra"), "AWRE", shape)
    for builders in range(1, 5):
        fills = [len(mine) for mine in plan(house, builders)]
        if builders == 2 and max(fills) > MINI_FILLS:
            return False
        if max(max(fills), min(fills) + 1) > MINI_LINES // builders:  # one of them attacks
            return False
    return True
