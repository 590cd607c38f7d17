"""HouseBuild for models of a million parameters: 18 voxels, one spider, replies of a few words.

Same class, rules and scores as `housebuild`; the houses are drawn by `house_shapes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from collm_envs.games import house_shapes
from collm_envs.games.house_words import Terse, Words
from collm_envs.games.housebuild import HouseBuild
from collm_envs.registry import register
from collm_envs.task import Row
from collm_envs.text import pieces


@register("games/housebuild-mini-v0")
class HouseBuildMini(HouseBuild):
    """HouseBuild on 3 x 2 x 3 voxels with replies of a few words, for the built-in model.

    Same class and scoring code as `games/housebuild-v0`; box, budget, spiders and words are smaller.

    Observations: turn 0 shows the house as rectangles in the words of a command, the agent's own limits (`have`),
    its number of commands (`lines`), the spider's attack and the party's HP. A cell is a letter for its row and
    a digit for its column: rows a, b, c are the lower layer from front to back, d, e, f the upper one. Later turns
    give turn, score (to the nearest 0.2, 0.0 where it is below) and HP, and with `feedback`:

    - `score_feedback` nothing more;
    - `position_modification` the first 6 wrong cells, each with the block that should be there;
    - `rect_modification` the first 6 wrong rectangles;
    - `resource_schedule` the agent's accepted fills, what it has left, and a plan;
    - `perfect_feedback` the wrong rectangles of the agent's own share.

    Actions: `a1 c2 s` fills from cell to cell with a block, named by its letter (x is air), `a1 s` one cell;
    `kill` attacks the spider. Any number of both in one run of words; 12 commands a turn in all, split equally.
    Words that belong to no command are dropped and counted.

    Rewards: as `games/housebuild-v0`, under both formulas; one spider. Success likewise.

    Arguments: those of `games/housebuild-v0`; with `world="kept"` the prompt ends in `kept`. `source`: `builtin`
    (3072 train and 256 test houses, none in both), or a JSON file as there with at most 9 columns, and 26 rows in
    all layers together.

    Scripted: `novice` writes one to three rectangles in reading order, cut where they exceed its limit, and
    attacks half of the time; `oracle` carries out its share of the plan in at most 10 words for two builders.

    Example:
        >>> from collm_envs import make
        >>> env = make("games/housebuild-mini-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["builder_0"]
        'build a1 c1 p a3 c3 p c2 p d1 e3 g have g 4 p 5 lines 6 spider 3 hp 5'
        >>> _, rewards, _, _, infos = env.step({"builder_0": "a1 c1 p d1 e2 g kill", "builder_1": "d1 e3 g"})
        >>> round(infos["builder_0"]["score"], 2), infos["builder_0"]["metrics"]["dropped_over_limit"]
        (1.08, 1.0)

    Version history: v0.
    """

    words: ClassVar[Words] = Terse()
    lines: ClassVar[int] = house_shapes.MINI_LINES
    spiders: ClassVar[int] = 1
    shown: ClassVar[int] = 6
    novice_fills: ClassVar[tuple[float, float]] = (0.3, 0.6)
    novice_most: ClassVar[int] = house_shapes.MINI_FILLS

    @property
    def reply_words(self) -> int:  # type: ignore[override]
        """Two cells and a block for each box, of which two builders need no more than three each, and `kill`."""
        return 3 * -(-2 * house_shapes.MINI_FILLS // len(self.possible_agents)) + 1

    def builtin_rows(self, split: str) -> Sequence[Row]:
        train, test = house_shapes.mini_houses()
        return train if split == "train" else test

    @classmethod
    def vocabulary(cls) -> list[str]:
        """Every word that prompts, feedback and scripted replies can hold, sorted."""
        rows = "abcdefghijklmnopqrstuvwxyz"[: 2 * house_shapes.MINI_SIDE]
        cells = [f"{row}{column}" for row in rows for column in range(1, 1 + house_shapes.MINI_SIDE)]
        fixed = "build have lines spider hp kept turn score wrong none done left plan fix kill x"
        numbers = [*map(str, range(house_shapes.MINI_CELLS + 1)), *(f"{step / 5:.1f}" for step in range(11))]
        return sorted({*pieces(fixed), *house_shapes.MINI_BLOCKS, *cells, *numbers})
