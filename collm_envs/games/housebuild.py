"""HouseBuild: build a house of several materials from its blueprint, and survive the spiders meanwhile.

The task of the paper (section 6) on houses of the project's own. Rules and scores are in `house_rules`, prompts and
commands in `house_words`, and the small version in `housebuild_mini`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from collm_envs.errors import require_choice
from collm_envs.games import house_shapes
from collm_envs.games.blocks import AIR, Fill, World
from collm_envs.games.blueprints import BLUEPRINT, Blueprint, blueprint, cut
from collm_envs.games.draw import Drawn, Pixels, cell_text, colour_of, side_by_side
from collm_envs.games.house_plan import halves, plan, repair
from collm_envs.games.house_rules import (
    ATTACK,
    COMPONENTS,
    HP,
    Stock,
    Threat,
    Turn,
    full_stocks,
    measure,
    play_turn,
)
from collm_envs.games.house_words import Brief, Sentences, Words
from collm_envs.games.isometric import isometric
from collm_envs.registry import register
from collm_envs.reward import Score, Scorer
from collm_envs.task import Row, Task

WORLDS = ("rebuilt", "kept")


@dataclass(frozen=True)
class HouseState:
    """Where an episode stands.

    Attributes:
        blueprint: the house.
        world: what the next turn begins with.
        stocks: voxels that each builder may still place.
        threat: spiders and party as the next turn begins.
        turn: turns played.
        last: the last turn, or None before the first.
        score: its score.
    """

    blueprint: Blueprint
    world: World
    stocks: tuple[Stock, ...]
    threat: Threat
    turn: int = 0
    last: Turn | None = None
    score: float = 0.0


@register("games/housebuild-v0")
class HouseBuild(Drawn):
    """Builders put up a house from its blueprint, none of them with blocks enough, and fend off spiders.

    All see the whole house and the same limits; who builds what is for them to divide without a word.

    Observations: turn 0 shows the box, the house layer by layer as rectangles, the blocks, the agent's own limit
    of each, the spiders with their attacks, the party's HP and the number of lines. Later turns give score
    and HP, and with `feedback`:

    - `score_feedback` nothing more;
    - `position_modification` the first 20 wrong voxels;
    - `rect_modification` the first 20 wrong rectangles with the block that should be there;
    - `resource_schedule` the agent's accepted fills, its dropped lines by reason, what it has left, and a plan
      for its next turn;
    - `perfect_feedback` the wrong voxels of the agent's own share, as rectangles. Shares are those of the
      plan; voxels that should be air are in everybody's.

    Actions: lines `/fill x1 y1 z1 x2 y2 z2 block` and `/kill`, alone or with a target such as
    `@e[type=spider]`. A team has 600 lines a turn, split equally. builder_0's lines are carried out first, then
    builder_1's and so on; later ones overwrite. A line that is malformed (prose too), out of the box, of
    another block, or beyond the budget is dropped and counted, never an error.

    Limits: of a block that the house needs c times, each of n builders may place ceil(c/n) + floor(c/2n)
    voxels, for two builders the paper's ceil(c/2) + floor(c/4): enough together, not enough alone wherever
    c > 1. One builder alone has all. A fill that exceeds what is left is dropped whole; a voxel counts each
    time it is filled; air is free.

    Spiders: three, each with an attack of 1 to 3 HP, drawn at the reset. After the builders' lines every living
    spider bites; the party begins with 5 HP and never heals. One `/kill` of any agent kills all of them before
    they bite. With `world="rebuilt"` every turn starts from an empty box, full limits and living
    spiders; with `"kept"` blocks stay, what was placed is spent, and killed spiders stay dead. HP carry over in
    both.

    Rewards: at most 2 (`formula="paper"`) or 1 (`"release"`). Damage is what this turn's bites take.

    - paper: `coverage` 2 x voxels that hold the right block / voxels of the house, air not counted;
      `redundancy` -1.5 x voxels filled where there should be air / voxels of the box, the share in which the
      paper's StrBuild counts extras; `bites` -0.2 min(1, damage / 5), 0 if killed.
    - release: `match` voxels that hold what they should, air included / voxels of the box; `bites`
      -0.1 min(1, damage / 5), 0 if killed. An empty box gets up to half: look at `iou`.

    Success: `exact_iou` of at least `success_at` (0.95), the party alive and not bitten in that turn, and a score
    of at least `success_at` of the greatest. A party that has lost its 5 HP can still build and score, but not
    succeed. Reported: `iou`, filled voxels of the house / (voxels of the house + extra voxels), and `exact_iou`,
    which asks for the right block; an empty build has 0 of both. Also `hp` (fraction left), `killed`, `dropped`
    lines and their number by reason.

    Arguments: those of `CollabEnv`, with `num_turns=4`. `world`: `rebuilt` from nothing every turn (the paper's),
    or `kept` between turns. `source`: `builtin` (256 train and 64 test houses of 6 x 7 x 7, no two of one
    shape), or a JSON file of the released schema: `task_id`, `inventory` (block by letter), `target_spec` {type,
    size, layers}; `count` and `bbox` are checked where present, other fields are not read.

    Scripted: `novice` fills a random part of the rectangles in reading order and attacks half of the time;
    `oracle` carries out its share of a plan that all work out alike, and reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("games/housebuild-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["builder_0"].splitlines()[1]
        'Box: x 0 to 5, y 0 to 6, z 0 to 6; y points up.'
        >>> replies = {"builder_0": "/fill 0 0 1 5 0 2 cobblestone", "builder_1": "/kill"}
        >>> _, rewards, _, _, infos = env.step(replies)
        >>> {name: round(part, 3) for name, part in infos["builder_0"]["reward_parts"].items()}
        {'coverage': 0.146, 'redundancy': 0.0, 'bites': 0.0}

    Version history: v0.
    """

    metadata: ClassVar[dict[str, Any]] = {**Drawn.metadata, "name": "housebuild"}
    agent_counts = (1, 2, 3, 4)
    feedback_modes = (
        "score_feedback",
        "position_modification",
        "rect_modification",
        "resource_schedule",
        "perfect_feedback",
    )
    row_formats = (BLUEPRINT,)
    words: ClassVar[Words] = Sentences()
    lines: ClassVar[int] = 600  # a turn, of all builders together
    spiders: ClassVar[int] = 3
    shown: ClassVar[int] = 20  # most wrong voxels or rectangles that feedback lists
    novice_fills: ClassVar[tuple[float, float]] = (0.1, 0.5)  # of the house's rectangles, least and most
    novice_most: ClassVar[int] = 100

    def __init__(self, *, num_turns: int = 4, world: str = "rebuilt", **kwargs: Any) -> None:
        require_choice("world", world, WORLDS, self.env_id)
        self.world = world
        super().__init__(num_turns=num_turns, **kwargs)

    def roles(self, num_agents: int) -> Sequence[str]:
        return tuple(f"builder_{i}" for i in range(num_agents))

    def components(self) -> Sequence[Scorer]:
        return COMPONENTS[self.formula]

    def measure(self, outcome: Turn) -> Mapping[str, float]:
        return measure(outcome)

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        return self._solved

    def _solved(self, turn: Turn, total: float, parts: Mapping[str, float]) -> bool:
        least = self.reward_model.success_at
        enough = total >= least * self.reward_model.high - 1e-9
        return enough and turn.survived and turn.iou >= least - 1e-9

    def builtin_rows(self, split: str) -> Sequence[Row]:
        train, test = house_shapes.houses()
        return train if split == "train" else test

    # -- an episode ------------------------------------------------------------------------------------------

    def begin(self, task: Task, rng: np.random.Generator) -> HouseState:
        house = blueprint(task.public["blocks"], task.public["letters"], task.public["layers"])
        self.words.grammar(house)  # refuses a house that it cannot speak of
        attacks = tuple(rng.integers(ATTACK[0], ATTACK[1] + 1, self.spiders).tolist())
        stocks = full_stocks(house, len(self.possible_agents))
        return HouseState(house, house.box.empty(), stocks, Threat(attacks))

    def advance(self, state: HouseState, actions: Mapping[str, str]) -> tuple[HouseState, Turn]:
        turn = play_turn(
            state.blueprint,
            state.world,
            state.stocks,
            state.threat,
            [actions[agent] for agent in self.possible_agents],
            grammar=self.words.grammar(state.blueprint),
            blocks=self.words.blocks(state.blueprint),
            lines=self._lines(),
        )
        if self.world == "kept":
            return replace(
                state, world=turn.world, stocks=turn.stocks, threat=turn.threat, turn=state.turn + 1
            ), turn
        return replace(state, threat=replace(turn.threat, alive=True), turn=state.turn + 1), turn

    def settle(self, state: HouseState, outcome: Turn, score: Score) -> HouseState:
        return replace(state, last=outcome, score=score.total)

    def _lines(self) -> int:
        return self.lines // len(self.possible_agents)

    # -- what agents see -------------------------------------------------------------------------------------

    def prompt(self, state: HouseState, agent: str) -> str:
        if state.last is not None:
            return self._later(state, state.last, self.possible_agents.index(agent))
        stock = state.stocks[self.possible_agents.index(agent)]
        kept = self.world == "kept"
        return self.words.task(
            Brief(state.blueprint, state.threat, stock, self.possible_agents, agent, self._lines(), kept=kept)
        )

    def _later(self, state: HouseState, last: Turn, me: int) -> str:
        text = self.words.score((state.turn + 1, self.num_turns), (state.score, self.high), last)
        more = self._more(state, last, me)
        return text + self.words.between + more if more else text

    def _more(self, state: HouseState, last: Turn, me: int) -> str:
        """What the feedback mode tells beside the score."""
        house, world = last.blueprint, last.world
        wrong = world != house.target
        if self.feedback == "position_modification":
            places = [(x, y, z) for y, z, x in np.argwhere(wrong.transpose(1, 2, 0)).tolist()]
            told = [(*p, int(world[p]), int(house.target[p])) for p in places[: self.shown]]
            return self.words.positions(last, told, len(places) - len(told))
        if self.feedback == "rect_modification":
            fills = cut(house.target, wrong, flat=True)
            return self.words.rectangles(last, fills[: self.shown], max(0, len(fills) - self.shown))
        if self.feedback == "resource_schedule":
            planned = self._plan(state)[me]
            return self.words.schedule(last, last.parsed[me], last.stocks[me], planned)
        if self.feedback == "perfect_feedback":
            mine = ~house.mask
            for fill in plan(house, len(self.possible_agents))[me]:
                mine[fill.x1 : fill.x2 + 1, fill.y1 : fill.y2 + 1, fill.z1 : fill.z2 + 1] = True
            return self.words.repairs(last, cut(house.target, wrong & mine, flat=True))
        return ""

    def _plan(self, state: HouseState) -> tuple[tuple[Fill, ...], ...]:
        if self.world == "kept" and state.turn:
            return repair(state.blueprint, state.world, state.stocks)
        return plan(state.blueprint, len(self.possible_agents))

    # -- scripts ---------------------------------------------------------------------------------------------

    def novice(self, state: HouseState, agent: str, rng: np.random.Generator) -> str:
        """Some rectangles in reading order, cut where they exceed its limit, and an attack half of the time."""
        house, stock = state.blueprint, dict(state.stocks[self.possible_agents.index(agent)])
        choice = list(house.rectangles)
        if self.world == "kept" and state.turn:
            choice = list(cut(house.target, state.world != house.target, flat=True)) or choice
        least, most = (max(1, round(part * len(house.rectangles))) for part in self.novice_fills)
        count = min(int(rng.integers(least, most + 1)), len(choice), self._lines() - 1, self.novice_most)
        fills = []
        for i in sorted(rng.choice(len(choice), count, replace=False).tolist()):
            fill, left = choice[i], stock.get(choice[i].block, choice[i].volume)
            if fill.volume > left > 0:
                fill = halves(fill, left)[int(rng.integers(2))]
            if fill.volume <= left:
                fills.append(fill)
                if fill.block != AIR:
                    stock[fill.block] = left - fill.volume
        return self.words.commands(house, fills, kill=bool(rng.random() < 0.5))

    def oracle(self, state: HouseState, agent: str, rng: np.random.Generator) -> str:
        """Its share of the plan; the builder with the fewest fills attacks."""
        shares, me = self._plan(state), self.possible_agents.index(agent)
        fewest = min(range(len(shares)), key=lambda i: len(shares[i]))
        return self.words.commands(state.blueprint, shares[me], kill=me == fewest and state.threat.alive)

    # -- pictures --------------------------------------------------------------------------------------------

    def picture(self, state: HouseState) -> Pixels:
        """What stands, wrong voxels marked, beside the blueprint."""
        house = state.blueprint
        colours = [colour_of(block) for block in house.blocks]
        pictures = [
            isometric(self._standing(state), house.target, colours),
            isometric(house.target, None, colours),
        ]
        return side_by_side(pictures)

    def sketch(self, state: HouseState) -> str:
        """Layers side by side, the lowest first and the back row on top; wrong voxels are marked."""
        house, world = state.blueprint, self._standing(state)
        lines = ["  ".join(f"y={y}".ljust(2 * house.box.size_x) for y in range(house.box.size_y))]
        for z in range(house.box.size_z - 1, -1, -1):
            rows = [range(house.box.size_x)] * house.box.size_y
            row = ("".join(_cell(house, world, (x, y, z)) for x in across) for y, across in enumerate(rows))
            lines.append("  ".join(row))
        marks = "! wrong block   - missing   + should be air"
        return "\n".join([*lines, marks, f"HP {state.threat.hp} of {HP}", ""])

    @staticmethod
    def _standing(state: HouseState) -> World:
        return state.last.world if state.last else state.world


def _cell(house: Blueprint, world: World, at: tuple[int, int, int]) -> str:
    there, due = int(world[at]), int(house.target[at])
    sign = "" if there == due else "-" if not there else "+" if not due else "!"
    return cell_text(house.blocks[there] if there else None, sign)
