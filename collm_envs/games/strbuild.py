"""StrBuild: agents build one picture, a word in block letters, each with blocks of its own.

The task of the paper (section 6), on a font of the project's own. Rules and scores are in `strbuild_rules`, the
small version is in `strbuild_mini`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from collm_envs.errors import SettingError, require_choice
from collm_envs.games import font
from collm_envs.games.blocks import AIR, Allowance, Box, Grammar, LineGrammar, apply, parse
from collm_envs.games.draw import Drawn, Pixels, cell_text, mosaic, side_by_side, tile
from collm_envs.games.strbuild_rules import (
    BLOCKS,
    COMPONENTS,
    Build,
    Faults,
    Placing,
    Target,
    count,
    faults,
    palette_of,
    reading_order,
    shares,
    target_of,
)
from collm_envs.registry import register
from collm_envs.reward import Score, Scorer
from collm_envs.task import FieldError, Row, RowFormat, Task

LINES = 300
LETTERS = " pswo"  # by palette index, for pictures without colours
PAPER_TRAIN = ("I", "C", "M", "L", "MC", "CM", "LI", "LLM")
PAPER_TEST = ("ICML", "CLIM")
_REASONS = ("malformed", "out_of_box", "foreign_block", "over_budget")
_RULES = """\
You are {agent}. Build the picture below out of blocks{partners}.
The wall is {width} wide and {height} high, in the plane z = 0: x from 0 (left) to {right}, y from 0 (bottom) to \
{top}.
{picture}
Your blocks: {blocks}; air clears a cell.
Rules:
- One command per line: /setblock x y 0 block. At most {budget} lines a turn.
- {world} {order}Later lines overwrite earlier ones.
- Fill the cells of the picture and no others.
- No two neighbouring cells (left, right, above, below) may hold the same block.{palettes}
Reply with commands only."""


@dataclass(frozen=True, eq=False)
class WallState:
    """Where a game stands.

    Attributes:
        target: what is to be built.
        build: the last turn's outcome, None before any.
        score: the last turn's score.
        turn: turns played.
    """

    target: Target
    build: Build | None = None
    score: float = 0.0
    turn: int = 0


def _string_row(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    text = row["string"].strip()
    for sign in text:
        if sign not in font.GLYPHS:
            raise FieldError("string", f"{sign!r} is not in the font, which has A to Z and 0 to 9")
    cells = sum(row.count("#") for row in font.write(text))
    if cells > LINES:
        raise FieldError("string", f"fills {cells} cells, more than the {LINES} lines of a turn")
    return {"string": text}, {}


@register("games/strbuild-v0")
class StrBuild(Drawn):
    """Builders write a word as a wall of blocks, each with two kinds of its own, without talking.

    Good play divides the cells without a word and leaves no two equal neighbours. Under `formula="paper"` a
    builder with enough lines may also do it all in its own two kinds, if the others keep out of its way; under
    `"release"` everyone's blocks must be seen.

    Observations: turn 0 gives the wall's size, the agent's blocks, the rules and the target as rows of `#` and
    `.` (`show_target`). Later turns give feedback alone. `position_feedback`: how many cells were covered, and
    all target cells. `perfect_feedback`: the cells of the agent's own share that are wrong with the block that
    belongs there, and the cells that it should leave alone; agents that follow it finish in the next turn.
    `score_feedback`: the last score. None shows what others wrote.

    Actions: lines `/setblock x y z block` with whole numbers, z = 0. Bullets, numbering, quotes, commas,
    comments and `minecraft:` are tolerated, code fences and blank lines ignored. Every other line is dropped
    and counted: `malformed` (prose too), `out_of_box`, `foreign_block`, `over_budget`. The 300 lines of a turn
    are shared equally; dropped lines use none of them. `builder_0` has `oak_planks` and `stone`, `builder_1`
    `white_concrete` and `obsidian`, `builder_2` and `builder_3` the same two pairs again; a single agent has
    all four and all lines. Everyone has air.

    Rewards: every turn starts from an empty wall (`world="rebuilt"`); lines of `builder_0` come first, those of
    the next after them. A cell is covered by any block. Neighbours are pairs of blocks side by side or one above
    the other, wherever they stand. At most 2.

    - `coverage` 2 x covered / target cells.
    - `extra` -1.5 x blocks outside the target / all cells of the box (`formula="paper"`), or / the cells
      outside the target (`"release"`).
    - `adjacency` -same / (2 x pairs) (paper) or -same / pairs (release), where same counts the pairs of one
      block; 0 without pairs.
    - `palettes` (release only) -0.25 for each of the two pairs of kinds of which one is not to be seen.

    Reported and not paid: `iou` covered / (target + extra); `adjacency` same / pairs; `dropped` lines in all, by
    reason and by agent; `lines_` by agent, those carried out.

    Success: at least `success_at` (0.95) of the greatest score.

    Arguments: those of `CollabEnv`, with 4 turns. `show_target`: whether turn 0 shows the target; by default yes
    for `paper`, and for `release` only where later feedback would not show it. `world`: `rebuilt`, or `kept`:
    blocks stay from turn to turn and air removes them. `source`: `builtin` (512 train and 128 test words of one
    to five letters and digits, none in both, those of the paper first), or a file with the field `string`.

    Scripted: `novice` fills some of the target, seldom the right part, with blocks at random, and misplaces a
    few; `oracle` colours the wall like a chess board, shares the cells out by that, and reaches the greatest
    score.

    Example:
        >>> from collm_envs import make
        >>> from collm_envs.task import Task
        >>> env = make("games/strbuild-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": Task("l", {"string": "L"})})
        >>> observations["builder_0"].splitlines()[2:7]
        ['#....', '#....', '#....', '#....', '#####']
        >>> stem = '''/setblock 0 4 0 stone
        ... /setblock 0 3 0 oak_planks
        ... /setblock 0 2 0 stone'''
        >>> foot = '''/setblock 0 0 0 obsidian
        ... /setblock 1 0 0 white_concrete
        ... /setblock 2 0 0 obsidian'''
        >>> _, _, _, _, infos = env.step({"builder_0": stem, "builder_1": foot})
        >>> {name: round(part, 2) for name, part in infos["builder_0"]["reward_parts"].items()}
        {'coverage': 1.33, 'extra': 0.0, 'adjacency': 0.0}

    Version history: v0.
    """

    agent_counts = (1, 2, 3, 4)
    feedback_modes = ("position_feedback", "perfect_feedback", "score_feedback")
    row_formats = (RowFormat({"string": str}, _string_row),)
    block_names: ClassVar[Sequence[str]] = BLOCKS
    budget: ClassVar[int] = LINES
    grammar: ClassVar[Grammar] = LineGrammar()
    # What a reply says for one block, how many cells the novice misplaces, and what feedback says.
    command: ClassVar[str] = "/setblock {x} {y} 0 {block}"
    between: ClassVar[str] = "\n"
    misplaced: ClassVar[float] = 0.1
    feedback_texts: ClassVar[Mapping[str, str]] = {
        "position_feedback": (
            "Turn {turn} of {turns}. Covered: {covered} of {target} target cells; blocks outside them: {strays}. "
            "All target cells as x y: {cells}. Take your part of them; neighbours need different blocks."
        ),
        "perfect_feedback": (
            "Turn {turn} of {turns}. Cells of your part that are wrong, with what belongs there: {wrong}. "
            "Cells that you should {remedy}: {extra}."
        ),
        "score_feedback": "Turn {turn} of {turns}. Last score {score}.",
    }

    def __init__(
        self, *, num_turns: int = 4, show_target: bool | None = None, world: str = "rebuilt", **settings: Any
    ) -> None:
        super().__init__(num_turns=num_turns, **settings)
        require_choice("world", world, ("rebuilt", "kept"), self.env_id)
        if not (show_target is None or isinstance(show_target, bool)):
            raise SettingError(f"show_target must be true, false or left out, not {show_target!r}")
        told_later = num_turns > 1 and self.feedback != "score_feedback"
        if show_target is False and not told_later:
            raise SettingError(
                "show_target=False hides the target for good: it needs several turns and other feedback than the "
                "score"
            )
        self.world = world
        self.show_target = (self.formula == "paper" or not told_later) if show_target is None else show_target

    def roles(self, num_agents: int) -> Sequence[str]:
        """`builder_0` and so on; they write in this order."""
        return tuple(f"builder_{i}" for i in range(num_agents))

    def components(self) -> Sequence[Scorer]:
        """Coverage, extra blocks, equal neighbours and, in the release, unused blocks."""
        return COMPONENTS[self.formula]

    def measure(self, outcome: Build) -> Mapping[str, float]:
        """IoU, adjacency, and lines that were dropped."""
        facts, replies = outcome.facts, outcome.replies
        measured = {
            "iou": facts.covered / (len(outcome.target.cells) + facts.extra),
            "adjacency": facts.adjacency,
            "dropped": float(sum(reply.dropped.total() for reply in replies)),
        }
        for reason in _REASONS:
            measured[f"dropped_{reason}"] = float(sum(reply.dropped[reason] for reply in replies))
        for agent, reply in zip(self.possible_agents, replies, strict=True):
            measured[f"lines_{agent}"] = float(len(reply.commands))
            measured[f"dropped_{agent}"] = float(reply.dropped.total())
        return measured

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Words drawn once and for all, the same at every load."""
        return [{"string": word} for word in _words(split)]

    def rows_of(self, task: Task) -> tuple[str, ...]:
        """The picture of a task as rows of `#` and `.`, the top row first."""
        return font.write(task.public["string"])

    def begin(self, task: Task, rng: np.random.Generator) -> WallState:
        """The target and no build; nothing is drawn."""
        return WallState(target_of(self.rows_of(task)))

    def advance(self, state: WallState, actions: Mapping[str, str]) -> tuple[WallState, Build]:
        """Carry out every agent's commands, one agent after the other."""
        target = state.target
        kept = self.world == "kept" and state.build is not None
        world = state.build.world if kept and state.build else target.box.empty()
        replies = []
        for index, agent in enumerate(self.possible_agents):
            replies.append(parse(actions[agent], self.grammar, self._allowance(target, index)))
            world = apply(world, replies[-1].commands)
        world.flags.writeable = False
        build = Build(target, world, tuple(replies), count(target, world))
        return replace(state, build=build, turn=state.turn + 1), build

    def settle(self, state: WallState, outcome: Build, score: Score) -> WallState:
        """Remember the score for feedback."""
        return replace(state, score=score.total)

    @property
    def lines_each(self) -> int:
        """Commands that each agent may give in a turn: an equal share, rounded up."""
        return -(-self.budget // len(self.possible_agents))

    def _allowance(self, target: Target, index: int) -> Allowance:
        hand = palette_of(index, len(self.possible_agents))
        return _allowance(target.box, tuple(self.block_names), hand, self.lines_each)

    # -- what agents read ------------------------------------------------------------------------------------

    def prompt(self, state: WallState, agent: str) -> str:
        """The rules and the target, later the feedback alone."""
        index = self.possible_agents.index(agent)
        if state.build is None:
            return self.task_text(state.target, index)
        return self.feedback_text(state, state.build, index)

    def task_text(self, target: Target, index: int) -> str:
        """What an agent is told at the start."""
        agents, box = self.possible_agents, target.box
        sides = (("after", agents[:index]), ("before", agents[index + 1 :]))
        order = " and ".join(f"{side} those of {', '.join(side_of)}" for side, side_of in sides if side_of)
        others = [agent for agent in agents if agent != agents[index]]
        return _RULES.format(
            agent=agents[index],
            partners=_PARTNERS.format(", ".join(others)) if others else "",
            width=box.size_x,
            height=box.size_y,
            right=box.size_x - 1,
            top=box.size_y - 1,
            picture="\n".join(target.rows)
            if self.show_target
            else "(What belongs where is told after the first turn.)",
            blocks=" and ".join(self.own_blocks(index)),
            budget=self.lines_each,
            world=_WORLDS[self.world],
            order=f"Your lines come {order}. " if order else "",
            palettes=_BOTH if self.formula == "release" else "",
        )

    def feedback_text(self, state: WallState, build: Build, index: int) -> str:
        """What an agent is told of the last turn."""
        said: dict[str, Any] = {"turn": state.turn + 1, "turns": self.num_turns}
        if self.feedback == "score_feedback":
            said["score"] = self.show_score(state.score)
        elif self.feedback == "position_feedback":
            facts = build.facts
            said |= {"target": len(build.target.cells), "covered": facts.covered, "strays": facts.extra}
            said["cells"] = self.cells_text(build.target.cells)
        else:
            found = self.faults(build, index)
            said["wrong"] = self.placings_text(found.wrong)
            said["extra"] = self.cells_text(found.extra)
            said["remedy"] = "clear" if self.world == "kept" else "leave to others or empty"
        return self.feedback_texts[self.feedback].format(**said)

    def own_blocks(self, index: int) -> list[str]:
        """Names of an agent's blocks, air apart."""
        return [self.block_names[block] for block in palette_of(index, len(self.possible_agents))]

    def show_score(self, score: float) -> str:
        """A score as feedback prints it."""
        return f"{score:.4f}"

    def cells_text(self, cells: Sequence[tuple[int, int]]) -> str:
        """Cells as feedback lists them."""
        return ", ".join(f"{x} {y}" for x, y in cells) or "none"

    def placings_text(self, placings: Sequence[Placing]) -> str:
        """Cells with the blocks that belong there, as feedback lists them."""
        return ", ".join(f"{x} {y} {self.block_names[block]}" for x, y, block in placings) or "none"

    def faults(self, build: Build, index: int) -> Faults:
        """What an agent would have to change."""
        return faults(build, index, kept=self.world == "kept")

    # -- scripted agents -------------------------------------------------------------------------------------

    def reply_text(self, placings: Sequence[Placing]) -> str:
        """Placings as an agent writes them."""
        said = (self.command.format(x=x, y=y, cell=self.cells_text([(x, y)]), block=self.block_names[block])
                for x, y, block in placings)  # fmt: skip
        return self.between.join(said)

    def novice(self, state: WallState, agent: str, rng: np.random.Generator) -> str:
        """Some of the target in reading order, with own blocks at random; in a kept world some strays cleared."""
        index, target = self.possible_agents.index(agent), state.target
        hand = palette_of(index, len(self.possible_agents))
        part = 0.75 if len(self.possible_agents) == 1 else 1 / len(self.possible_agents)
        if self.world == "kept":  # what is left behind adds up
            part /= 2
        most = min(self.lines_each, math.ceil(part * len(target.cells)))
        strays: set[tuple[int, int]] = set()
        if self.world == "kept" and state.build is not None:
            full = np.argwhere((state.build.world[:, :, 0] != AIR) & ~target.mask)
            strays = {(x, y) for x, y in full.tolist()}
        choices = [*target.cells, *sorted(strays)]
        chosen = rng.choice(len(choices), size=int(rng.integers(-(-most // 2), most + 1)), replace=False)
        placings = {}
        for number in chosen.tolist():
            cell = choices[number]
            if rng.random() < self.misplaced:
                cell = (int(rng.integers(target.box.size_x)), int(rng.integers(target.box.size_y)))
            placings[cell] = AIR if cell in strays else hand[int(rng.integers(len(hand)))]
        return self.reply_text(sorted(((x, y, b) for (x, y), b in placings.items()), key=reading_order))

    def oracle(self, state: WallState, agent: str, rng: np.random.Generator) -> str:
        """The agent's share of the plan; in a kept world what is still missing, then strays to clear."""
        index = self.possible_agents.index(agent)
        if self.world == "kept" and state.build is not None:
            found = self.faults(state.build, index)
            todo = [*found.wrong, *((x, y, AIR) for x, y in found.extra)]
            return self.reply_text(todo[: self.lines_each])
        return self.reply_text(shares(state.target.rows, len(self.possible_agents))[index])

    # -- pictures --------------------------------------------------------------------------------------------

    def picture(self, state: WallState) -> Pixels:
        """The wall with missing cells framed and extra blocks crossed out; the target above it or beside it."""
        target, world = state.target, self._world_of(state)
        wall, wanted = [], []
        for y in reversed(range(target.box.size_y)):
            row = [(int(world[x, y, 0]), bool(target.mask[x, y])) for x in range(target.box.size_x)]
            wall.append([
                tile(BLOCKS[block] if block else None, missing=due and not block, extra=bool(block and not due))
                for block, due in row
            ])  # fmt: skip
            wanted.append([tile("stone_bricks" if due else None) for _, due in row])
        wide = target.box.size_x > 2 * target.box.size_y
        return side_by_side([mosaic(wanted), mosaic(wall)], below=wide)

    def sketch(self, state: WallState) -> str:
        """The wall, where ? is missing and ! is extra, and the target beside it."""
        target, world = state.target, self._world_of(state)
        lines = []
        for y, row in zip(reversed(range(target.box.size_y)), target.rows, strict=True):
            cells = []
            for x, wanted in enumerate(row):
                block, due = int(world[x, y, 0]), wanted == "#"
                sign = "" if due == bool(block) else "?" if due else "!"
                cells.append(cell_text(BLOCKS[block] if block else None, sign, LETTERS[block]))
            lines.append("".join(cells) + "   " + " ".join(row))
        return "\n".join(lines) + "\n"

    def _world_of(self, state: WallState) -> np.ndarray:
        return state.target.box.empty() if state.build is None else state.build.world


_WORLDS = {
    "rebuilt": "The wall is empty at the start of every turn.",
    "kept": "Blocks stay from turn to turn.",
}
_PARTNERS = " together with {}: you all write at the same time, and nobody sees another's lines"
_BOTH = "\n- Use each of your blocks at least once."


@lru_cache(maxsize=1024)
def _allowance(box: Box, names: tuple[str, ...], hand: tuple[int, ...], budget: int) -> Allowance:
    return Allowance(box, {names[block]: block for block in (AIR, *hand)}, budget)


@lru_cache(maxsize=2)
def _words(split: str) -> tuple[str, ...]:
    """Distinct words of the font's letters, one to five long, those of the paper first; the splits share none."""
    rng = np.random.default_rng(20)
    signs = sorted(font.GLYPHS)
    drawn = dict.fromkeys((*PAPER_TRAIN, *PAPER_TEST))
    while len(drawn) < 640:
        drawn["".join(rng.choice(signs, size=int(rng.integers(1, 6))))] = None
    rest = list(drawn)[len(PAPER_TRAIN) + len(PAPER_TEST) :]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    cut = 512 - len(PAPER_TRAIN)
    return (*PAPER_TRAIN, *rest[:cut]) if split == "train" else (*PAPER_TEST, *rest[cut:])
