"""Blueprints of houses: their rows, checked on load, and their cutting into boxes.

For `housebuild` and what draws or plans houses. A blueprint is a small grid of blocks, indexed [x, y, z] with
y upwards; index 0 of its palette is air. This module does not invent blueprints (`house_shapes` does) and does
not know how a build is scored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeGuard

import numpy as np

from collm_envs.games.blocks import AIR, Box, Fill, World
from collm_envs.task import FieldError, Row, RowFormat

MAX_SIDE, MAX_BLOCKS = 32, 40
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A house to be built.

    Attributes:
        blocks: palette; `blocks[0]` is air.
        letters: one letter per block, in the same order.
        layers: rows of letters by layer: `layers[y][z][x]`.
    """

    blocks: tuple[str, ...]
    letters: str
    layers: tuple[tuple[str, ...], ...]

    @property
    def box(self) -> Box:
        """Its extent in x, y and z."""
        return Box(len(self.layers[0][0]), len(self.layers), len(self.layers[0]))

    @cached_property
    def target(self) -> World:
        """Palette indices, uint8 [x, y, z], read-only."""
        index = np.zeros(128, np.uint8)
        index[[ord(letter) for letter in self.letters]] = range(len(self.letters))
        text = "".join(row for layer in self.layers for row in layer)
        x, y, z = self.box
        grid = index[np.frombuffer(text.encode("ascii"), np.uint8)].reshape(y, z, x).transpose(2, 0, 1)
        grid = np.ascontiguousarray(grid)
        grid.setflags(write=False)
        return grid

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Palette index by block."""
        return {block: i for i, block in enumerate(self.blocks)}

    @cached_property
    def letter_index(self) -> Mapping[str, int]:
        """Palette index by letter."""
        return {letter: i for i, letter in enumerate(self.letters)}

    @cached_property
    def mask(self) -> np.ndarray:
        """Which voxels are not air, bool [x, y, z], read-only."""
        solid = self.target != AIR
        solid.setflags(write=False)
        return solid

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Voxels of each block, air included."""
        return tuple(np.bincount(self.target.ravel(), minlength=len(self.blocks)).tolist())

    @property
    def solid(self) -> int:
        """Number of voxels that are not air."""
        return self.target.size - self.counts[AIR]

    @cached_property
    def rectangles(self) -> tuple[Fill, ...]:
        """The house as rectangles, layer by layer in reading order; none spans two layers."""
        return cut(self.target, self.mask, flat=True)

    @cached_property
    def cuttings(self) -> tuple[tuple[Fill, ...], ...]:
        """Different ways to cut the house into boxes, the order in which they grow being varied."""
        ways = (cut(self.target, self.mask, order=order) for order in itertools.permutations(range(3)))
        return tuple(dict.fromkeys(ways))


def cut(
    grid: World, chosen: np.ndarray, *, flat: bool = False, order: Sequence[int] = (0, 2, 1)
) -> tuple[Fill, ...]:
    """Cut voxels into boxes of one block that do not overlap, greedily in reading order (y, z, x).

    Args:
        grid: palette indices [x, y, z].
        chosen: bool [x, y, z]; which voxels must be covered. No other is.
        flat: boxes of one layer only, which makes them rectangles.
        order: axes in the order in which a box is made to grow.
    """
    left = np.where(chosen, grid.astype(np.int16), -1)
    found = []
    for y, z, x in np.argwhere(chosen.transpose(1, 2, 0)).tolist():
        block = int(left[x, y, z])
        if block < 0:
            continue
        low, high = [x, y, z], [x + 1, y + 1, z + 1]
        for axis in order:
            if flat and axis == 1:
                continue
            while high[axis] < grid.shape[axis]:
                face = [slice(a, b) for a, b in zip(low, high, strict=True)]
                face[axis] = slice(high[axis], high[axis] + 1)
                if not (left[tuple(face)] == block).all():
                    break
                high[axis] += 1
        left[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = -1
        x2, y2, z2 = (end - 1 for end in high)
        found.append(Fill(x, y, z, x2, y2, z2, block))
    return tuple(found)


@lru_cache(maxsize=8192)
def blueprint(blocks: tuple[str, ...], letters: str, layers: tuple[tuple[str, ...], ...]) -> Blueprint:
    """The blueprint of a task's public fields; the same object at every call, so its parts are found once."""
    return Blueprint(blocks, letters, layers)


def schema_row(
    name: str, inventory: Mapping[str, str], grid: Sequence[Sequence[str]], variant: str
) -> dict[str, Any]:
    """A row of the released schema.

    Args:
        name: id of the task.
        inventory: block by letter, air included.
        grid: rows of letters by layer, `grid[y][z][x]`.
        variant: what kind of house it is.
    """
    text = "".join(row for layer in grid for row in layer)
    size = [len(grid[0][0]), len(grid), len(grid[0])]
    used = {letter: block for letter, block in inventory.items() if letter in text or block == "air"}
    return {
        "task_id": name,
        "inventory": used,
        "count": {letter: text.count(letter) for letter in used},
        "target_spec": {
            "type": "y_layers",
            "size": size,
            "layers": [{"y": y, "rows": list(rows)} for y, rows in enumerate(grid)],
        },
        "bbox": {"from": [0, 0, 0], "to": [side - 1 for side in size]},
        "variant": variant,
    }


def _build(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    inventory, spec = row["inventory"], row["target_spec"]
    letters, blocks = _palette(inventory)
    layers = _layers(spec, letters)
    text = "".join(line for layer in layers for line in layer)
    size = len(layers[0][0]), len(layers), len(layers[0])
    counts = row.get("count") or {}
    if not isinstance(counts, Mapping):
        raise FieldError("count", f"expected an object, found {type(counts).__name__}")
    for letter, count in counts.items():
        if count is not None and count != text.count(letter):
            raise FieldError("count", f"says {count!r} of {letter!r}, the layers hold {text.count(letter)}")
    if row.get("bbox") is not None:
        _check_bbox(row["bbox"], size)
    if all(letter == letters[0] for letter in text):
        raise FieldError("target_spec", "the house is all air")
    return {
        "blocks": blocks,
        "letters": letters,
        "layers": layers,
        "variant": str(row.get("variant") or ""),
    }, {}


def _palette(inventory: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    # A table of many rows fills the letters that a row does not use with None.
    known = {letter: block for letter, block in inventory.items() if block is not None}
    for letter, block in known.items():
        if not (isinstance(letter, str) and len(letter) == 1 and letter.isascii() and letter.isalpha()):
            raise FieldError("inventory", f"{letter!r} is not one letter")
        if not (isinstance(block, str) and _NAME.fullmatch(block)):
            raise FieldError("inventory", f"{block!r} is not the name of a block, such as stone_bricks")
    if sorted(known.values()).count("air") != 1 or len(set(known.values())) != len(known):
        raise FieldError("inventory", "needs air once and every other block at most once")
    if len(known) > MAX_BLOCKS:
        raise FieldError("inventory", f"has {len(known)} blocks, more than {MAX_BLOCKS}")
    ordered = sorted(known, key=lambda letter: known[letter] != "air")  # air first, the others as they come
    return "".join(ordered), tuple(known[letter] for letter in ordered)


def _layers(spec: Mapping[str, Any], letters: str) -> tuple[tuple[str, ...], ...]:
    if spec.get("type") != "y_layers":
        raise FieldError("target_spec.type", f"expected 'y_layers', found {spec.get('type')!r}")
    size, given = spec.get("size"), spec.get("layers")
    if not (_is_list(size) and len(size) == 3 and all(_is_side(side) for side in size)):
        raise FieldError(
            "target_spec.size", f"expected three whole numbers of 1 to {MAX_SIDE}, found {size!r}"
        )
    if not (_is_list(given) and all(isinstance(layer, Mapping) for layer in given)):
        raise FieldError("target_spec.layers", "expected a list of objects with y and rows")
    width, height, depth = (int(side) for side in size)
    levels = [layer.get("y") for layer in given]
    if len(given) != height or any(y not in levels for y in range(height)):
        raise FieldError("target_spec.layers", f"expected one layer for each y of 0 to {height - 1}")
    by_y = {int(layer["y"]): layer.get("rows") for layer in given}
    for y, rows in by_y.items():
        if not (_is_list(rows) and len(rows) == depth and all(isinstance(line, str) for line in rows)):
            raise FieldError("target_spec.layers", f"layer y={y}: expected {depth} rows of letters")
        for line in rows:
            if len(line) != width or set(line) - set(letters):
                wanted = f"{width} letters of {letters}"
                raise FieldError("target_spec.layers", f"layer y={y}: expected {wanted}, found {line!r}")
    return tuple(tuple(by_y[y]) for y in range(height))


def _check_bbox(bbox: Any, size: Iterable[int]) -> None:
    corners = [bbox.get("from"), bbox.get("to")] if isinstance(bbox, Mapping) else [None, None]
    wanted = [[0, 0, 0], [side - 1 for side in size]]
    if [list(c) if _is_list(c) else c for c in corners] != wanted:
        raise FieldError("bbox", f"expected from {wanted[0]} to {wanted[1]}, found {bbox!r}")


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple, np.ndarray))


def _is_side(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and 1 <= int(value) <= MAX_SIDE


BLUEPRINT = RowFormat({"inventory": dict, "target_spec": dict}, _build, id_column="task_id")
