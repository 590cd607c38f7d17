"""StrBuild in small: a shape on a 4 by 4 wall, for models of a million parameters.

Same class, rules and scoring code as `strbuild`; only shapes, names and texts are smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from collm_envs.games.blocks import CellGrammar, cell_at, cell_name
from collm_envs.games.strbuild import StrBuild
from collm_envs.games.strbuild_rules import Placing, Target
from collm_envs.registry import register
from collm_envs.task import FieldError, Row, RowFormat, Task

SIDE = 4
SIZES = range(6, 9)
TEST_SHAPES = 256


@lru_cache(maxsize=1)
def _neighbours() -> dict[int, int]:
    """Bit mask of the neighbours by cell number (x + SIDE * y) of the small wall."""
    masks = {}
    for cell in range(SIDE * SIDE):
        x, y = cell % SIDE, cell // SIDE
        near = ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
        masks[cell] = sum(1 << (i + SIDE * j) for i, j in near if 0 <= i < SIDE and 0 <= j < SIDE)
    return masks


def _grown(shape: int) -> int:
    """Cells next to a shape, as a bit mask."""
    near = 0
    for cell, mask in _neighbours().items():
        if shape >> cell & 1:
            near |= mask
    return near & ~shape


@lru_cache(maxsize=1)
def all_shapes() -> tuple[int, ...]:
    """Every connected set of six to eight cells of the wall, as bit masks, sorted."""
    shapes = {1 << cell for cell in _neighbours()}
    found: set[int] = set()
    for size in range(2, SIZES.stop):
        shapes = {
            shape | 1 << cell for shape in shapes for cell in _neighbours() if _grown(shape) >> cell & 1
        }
        if size in SIZES:
            found |= shapes
    return tuple(sorted(found))


def _is_connected(cells: set[tuple[int, int]]) -> bool:
    shape = sum(1 << (x + SIDE * y) for x, y in cells)
    reached = shape & -shape
    while True:
        wider = reached | _grown(reached) & shape
        if wider == reached:
            return reached == shape
        reached = wider


def _rows(cells: set[tuple[int, int]]) -> tuple[str, ...]:
    return tuple("".join("#" if (x, y) in cells else "." for x in range(SIDE)) for y in reversed(range(SIDE)))


def _cells_row(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    cells = set()
    for word in row["cells"].split():
        cell = cell_at(word)
        if cell is None or not (0 <= cell[0] < SIDE and 0 <= cell[1] < SIDE):
            raise FieldError("cells", f"{word!r} is no cell from a1 to {cell_name(SIDE - 1, SIDE - 1)}")
        cells.add(cell[:2])
    # Connected shapes of this size have two cells or more of either chess-board colour: a lone cell of one
    # colour has at most four neighbours. That is what a build without equal neighbours takes.
    if len(cells) not in SIZES or not _is_connected(cells):
        raise FieldError("cells", f"must be {SIZES[0]} to {SIZES[-1]} different cells that hang together")
    return {"rows": _rows(cells)}, {}


@register("games/strbuild-mini-v0")
class StrBuildMini(StrBuild):
    """StrBuild on a 4 by 4 wall: six to eight cells, and at most four blocks per builder.

    Same class and scoring code as `games/strbuild-v0`. Two builders have eight blocks a turn between them, so
    neither can do it alone, and every cell that both fill may be one that nobody does.

    Observations: turn 0 names the target's cells in reading order and the agent's blocks, `target a4 b4 b3 ...
    blocks p s`. A cell is named as on a chess board, `a1` at the bottom left. Later turns, in the modes of
    `games/strbuild-v0`: `turn 2 score 1.4` (`score_feedback`, the default; to the nearest 0.2, and 0.0 for
    anything below), `turn 2 target a4 ...` (`position_feedback`), `turn 2 wrong a4 p extra c1`
    (`perfect_feedback`).

    Actions: pairs of cell and block, such as `a4 p b3 s`; `air` clears a cell. Eight pairs a turn are shared
    equally, rounded up: four for each of two builders. `builder_0` has `p` and `s`, `builder_1` `w` and `o`;
    further ones the same again, and a single agent all of them. Words that belong to no pair are dropped and
    counted as lines are in `games/strbuild-v0`.

    Rewards: as `games/strbuild-v0`, at most 2: `coverage`, `extra`, `adjacency` and, in the release,
    `palettes`.

    Success: at least `success_at` (0.95) of the greatest score.

    Arguments: those of `games/strbuild-v0`. `world="kept"` gives early moves lasting effects. `source`: `builtin`
    (2626 train and 256 test shapes: every connected set of six to eight cells is in one of the two; a test
    shape may be a shifted or turned train shape), or a file with the field `cells`, such as
    `a1 a2 a3 b3 c3 c2`.

    Scripted: `novice` places up to its share of blocks in reading order, cells and blocks at random, now and
    then outside the target; in a kept world it places fewer and clears what is outside at times. `oracle` reaches
    the greatest score.

    Example:
        >>> from collm_envs import make
        >>> from collm_envs.task import Task
        >>> env = make("games/strbuild-mini-v0")
        >>> task = Task("s", {"rows": ["....", ".###", ".###", "...."]})
        >>> observations, _ = env.reset(seed=0, options={"task": task})
        >>> observations["builder_1"]
        'target b3 c3 d3 b2 c2 d2 blocks w o'
        >>> observations, _, _, _, infos = env.step({"builder_0": "b3 p c3 s d3 p", "builder_1": "b2 o c2 o"})
        >>> infos["builder_0"]["reward_parts"]
        {'coverage': 1.6666666666666667, 'extra': 0.0, 'adjacency': -0.1}
        >>> observations["builder_0"]
        'turn 2 score 1.6'

    Version history: v0.
    """

    feedback_modes = ("score_feedback", "position_feedback", "perfect_feedback")
    row_formats = (RowFormat({"cells": str}, _cells_row),)
    block_names = ("air", "p", "s", "w", "o")
    budget = 8

    @property
    def reply_words(self) -> int:  # type: ignore[override]
        """A cell and a block for each command."""
        return 2 * self.lines_each

    grammar = CellGrammar()
    command = "{cell} {block}"
    between = " "
    feedback_texts: ClassVar[Mapping[str, str]] = {
        "position_feedback": "turn {turn} target {cells}",
        "perfect_feedback": "turn {turn} wrong {wrong} extra {extra}",
        "score_feedback": "turn {turn} score {score}",
    }

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """All shapes, divided once and for all."""
        order = np.random.default_rng(20).permutation(len(all_shapes()))
        part = order[TEST_SHAPES:] if split == "train" else order[:TEST_SHAPES]
        return [_shape_row(all_shapes()[i]) for i in part]

    def rows_of(self, task: Task) -> tuple[str, ...]:
        """The shape as rows of `#` and `.`, the top row first."""
        return tuple(task.public["rows"])

    def task_text(self, target: Target, index: int) -> str:
        """The target's cells, where they are shown, and the agent's blocks."""
        shown = f"target {self.cells_text(target.cells)} " if self.show_target else ""
        return f"{shown}blocks {' '.join(self.own_blocks(index))}"

    def show_score(self, score: float) -> str:
        """One of eleven: few enough for a model to know each."""
        return f"{max(0.0, round(score * 5) / 5):.1f}"

    def cells_text(self, cells: Sequence[tuple[int, int]]) -> str:
        """Cells by name."""
        return " ".join(cell_name(x, y) for x, y in cells) or "none"

    def placings_text(self, placings: Sequence[Placing]) -> str:
        """Cells by name, each with its block."""
        return self.reply_text(placings) or "none"

    @classmethod
    def vocabulary(cls) -> list[str]:
        """Every word that prompts, feedback and scripted replies can hold, sorted; up to nine turns."""
        words = {"target", "blocks", "turn", "score", "wrong", "extra", "none", *cls.block_names}
        cells = {cell_name(x, y) for x in range(SIDE) for y in range(SIDE)}
        return sorted(words | cells | {f"{step / 5:.1f}" for step in range(11)} | set("123456789"))


def _shape_row(shape: int) -> Row:
    cells = [divmod(cell, SIDE)[::-1] for cell in range(SIDE * SIDE) if shape >> cell & 1]
    return {"cells": " ".join(cell_name(x, y) for x, y in cells)}
