"""Metrics of the building games: overlap of a build with its target, and equal neighbours in a picture.

A build is a list of cells, one string `x y z block` each, such as `3 0 1 stone`. As when building, a later string
about a cell replaces an earlier one, and `air` empties it. Builds are data: a string that says no cell is an error
here, while an agent's poor command is dropped by the games.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

import datasets

from collm_envs.errors import InputError
from collm_envs.games.blocks import Box
from collm_envs.games.strbuild_rules import count, target_of
from collm_envs.history import encodable
from collm_envs.metrics.base import TEXT, ColumnMetric, summary

Cells = Mapping[tuple[int, int, int], str]
MAX_SIDE = 1024  # of a picture, in cells

_CELL = re.compile(r"\s*" + r"([-+]?[0-9]{1,9})\s+" * 3 + r"(?:minecraft:)?([a-z][a-z0-9_]*)\s*")
_BUILDS = datasets.Sequence(TEXT)


class _BuildMetric(ColumnMetric):
    """Common part: builds as lists of strings."""

    unit = "builds"

    def clean(self, value: Any) -> list[str]:
        """The strings of one build; a single text would be read letter by letter."""
        cells = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        if cells is None or not all(isinstance(cell, str) for cell in cells):
            raise InputError(f"{self.name}: a build is a list of strings 'x y z block', not {value!s:.80}")
        return list(map(encodable, cells))

    def cells(self, build: Sequence[str], where: str) -> Cells:
        """Block by cell, air left out.

        Raises:
            InputError: for a string that names no cell and block; `where` says of which build.
        """
        found = {}
        for text in build:
            match = _CELL.fullmatch(text.lower())
            if match is None:
                raise InputError(
                    f"{self.name}: {where} (from 0): {text[:80]!r} is not of the form 'x y z block'"
                )
            x, y, z, block = match.groups()
            found[int(x), int(y), int(z)] = block
        return {cell: block for cell, block in found.items() if block != "air"}


class Iou(_BuildMetric):
    """Cells in both builds over cells in either: `iou`, `exact_iou` (same block), `values`, `exact_values`.

    `iou` asks whether a block stands, `exact_iou` whether it is the right one. Air counts in neither, so that an
    empty build earns 0.
    """

    columns: ClassVar = {"predictions": _BUILDS, "references": _BUILDS}
    inputs = "predictions: builds. references: their targets. A build is a list of strings 'x y z block'."

    def _compute(self, predictions: Sequence[list[str]], references: Sequence[list[str]]) -> dict[str, Any]:
        values, exact = [], []
        for number, pair in enumerate(zip(predictions, references, strict=True)):
            built, target = self.cells(pair[0], f"build {number}"), self.cells(pair[1], f"target {number}")
            if not target:
                raise InputError(f"{self.name}: target {number} (from 0) has no blocks")
            either = len(built.keys() | target.keys())
            values.append(len(built.keys() & target.keys()) / either)
            exact.append(len(built.items() & target.items()) / either)
        return {**summary("iou", values), "exact_iou": fmean(exact), "exact_values": exact}


class Adjacency(_BuildMetric):
    """Share of neighbouring pairs that are of one block, in a picture: `adjacency` (mean) and `values`.

    Neighbours are side by side or one above the other; a build without any has the rate 0.
    """

    columns: ClassVar = {"predictions": _BUILDS}
    inputs = "predictions: builds in one plane z. A build is a list of strings 'x y z block'."

    def _compute(self, predictions: Sequence[list[str]]) -> dict[str, Any]:
        rates = [self._rate(build, f"build {number}") for number, build in enumerate(predictions)]
        return summary("adjacency", rates)

    def _rate(self, build: Sequence[str], where: str) -> float:
        cells = self.cells(build, where)
        if not cells:
            return 0.0
        xs, ys, zs = (sorted(set(side)) for side in zip(*cells, strict=True))
        width, height = xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1
        if len(zs) > 1 or max(width, height) > MAX_SIDE:
            limits = f"a picture has one z and at most {MAX_SIDE} cells a side"
            raise InputError(f"{self.name}: {where} (from 0) is no picture: {limits}")
        names = sorted(set(cells.values()))
        if len(names) > 255:
            raise InputError(f"{self.name}: {where} (from 0) has more than 255 kinds of blocks")
        world = Box(width, height, 1).empty()
        for (x, y, _), block in cells.items():
            world[x - xs[0], y - ys[0], 0] = names.index(block) + 1
        # The game's own count; what was to be built does not matter for neighbours.
        return count(target_of(("." * width,) * height), world).adjacency
