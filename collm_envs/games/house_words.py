"""How `housebuild` speaks: prompts, feedback and commands, in sentences or in a few words.

For the environment. `Sentences` is for language models of any size, `Terse` for the built-in one. Both say the
same things; neither knows the score's formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from collm_envs.errors import DataError
from collm_envs.games.blocks import Fill, Found, Grammar, LineGrammar, Parsed
from collm_envs.games.blueprints import Blueprint
from collm_envs.games.house_rules import HP, Stock, Threat, Turn

Wrong = Sequence[tuple[int, int, int, int, int]]  # x, y, z, block there, block that should be there


@dataclass(frozen=True)
class Brief:
    """What a prompt tells one builder at the start.

    Attributes:
        blueprint: the house.
        threat: the spiders and the party.
        stock: the builder's own limits.
        builders: names of all builders, in the order in which their lines count.
        me: who is told.
        lines: greatest number of commands of this builder in a turn.
        kept: whether what is built stays.
    """

    blueprint: Blueprint
    threat: Threat
    stock: Stock
    builders: Sequence[str]
    me: str
    lines: int
    kept: bool


class Words(Protocol):
    """One way to speak.

    Attributes:
        between: what stands between the score and the rest of the feedback.
    """

    between: str

    def grammar(self, blueprint: Blueprint) -> Grammar:
        """How commands are written; a `DataError` where this way of speaking cannot name every voxel."""

    def blocks(self, blueprint: Blueprint) -> Mapping[str, int]:
        """Palette index by the name used in commands."""

    def commands(self, blueprint: Blueprint, fills: Iterable[Fill], *, kill: bool) -> str:
        """Fills, and at the end the attack, as a reply writes them."""

    def task(self, brief: Brief) -> str:
        """The prompt of turn 0."""

    def score(self, turns: tuple[int, int], score: tuple[float, float], last: Turn) -> str:
        """The turn that begins and the horizon, last score and highest score, and the state of the party."""

    def positions(self, last: Turn, wrong: Wrong, more: int) -> str:
        """Wrong voxels, and how many more there are."""

    def rectangles(self, last: Turn, fills: Sequence[Fill], more: int) -> str:
        """Wrong voxels as rectangles with the block that should be there."""

    def schedule(self, last: Turn, said: Parsed, left: Stock, planned: Sequence[Fill]) -> str:
        """What was accepted of the reader's commands, what is left to place, and a plan."""

    def repairs(self, last: Turn, fills: Sequence[Fill]) -> str:
        """The reader's own share of what is wrong."""


class Sentences:
    """Plain English around one command per line."""

    between = "\n"
    _grammar = LineGrammar(("fill", "kill"))

    def grammar(self, blueprint: Blueprint) -> Grammar:
        return self._grammar

    def blocks(self, blueprint: Blueprint) -> Mapping[str, int]:
        return blueprint.index

    def commands(self, blueprint: Blueprint, fills: Iterable[Fill], *, kill: bool) -> str:
        lines = [f"/fill {_numbers(fill[:6])} {blueprint.blocks[fill.block]}" for fill in fills]
        return "\n".join([*lines, "/kill"] if kill else lines)

    def task(self, brief: Brief) -> str:
        house, threat = brief.blueprint, brief.threat
        x, y, z = (side - 1 for side in house.box)
        bites = ", ".join(map(str, threat.attacks))
        several = len(threat.attacks) > 1
        spiders = f"{len(threat.attacks)} spiders" if several else "1 spider"
        attack = f"attack {bites} ({sum(threat.attacks)} in all)" if several else f"attack {bites}"
        names = ", ".join(house.blocks[1:])
        return (
            f"{self._who(brief)}\n"
            f"Box: x 0 to {x}, y 0 to {y}, z 0 to {z}; y points up.\n"
            "The house, layer by layer, as rectangles `block x1 z1 x2 z2`, both corners included; all else is "
            f"air:\n{self._layers(house)}\n"
            f"Blocks: {names}, air.\n"
            f"You may place at most {self._stock(house, brief.stock)} {self._span(brief)}; air is free. A fill "
            "that would exceed what you have left is dropped whole.\n"
            f"Threat: {spiders}, {attack}; the party has {threat.hp} of {HP} HP. Spiders that live at the end "
            "of a turn bite; one /kill by anybody kills them all.\n"
            f"{self._world(brief)}\n"
            f"Reply with at most {brief.lines} lines, commands only:\n"
            "/fill x1 y1 z1 x2 y2 z2 block\n/kill"
        )

    def _who(self, brief: Brief) -> str:
        if len(brief.builders) == 1:
            return f"You are {brief.me}. Build the house below alone, and survive the spiders."
        return (
            f"You are {brief.me}, one of {len(brief.builders)} builders who build the house below together "
            "and must survive the spiders. All reply at the same time and cannot talk. Nobody has enough "
            "blocks alone: divide the work. All see the same house and have the same limits."
        )

    def _world(self, brief: Brief) -> str:
        start = "Blocks stay from turn to turn, and so do dead spiders."
        if not brief.kept:
            start = "Every turn starts with an empty box and living spiders, so reply with the whole build."
        if len(brief.builders) == 1:
            return f"{start} Later lines overwrite earlier ones."
        first = ", then ".join(f"those of {name}" for name in brief.builders[1:])
        order = f"Lines of {brief.builders[0]} are carried out first, then {first}"
        return f"{start} {order}; later lines overwrite earlier ones."

    @staticmethod
    def _span(brief: Brief) -> str:
        return "in the whole game" if brief.kept else "in a turn"

    def _layers(self, house: Blueprint) -> str:
        layers: list[list[str]] = [[] for _ in house.layers]
        for fill in house.rectangles:
            where = f"{fill.x1} {fill.z1} {fill.x2} {fill.z2}"
            layers[fill.y1].append(f"{house.blocks[fill.block]} {where}")
        return "\n".join(f"y={y}: {'; '.join(layer) or 'air'}" for y, layer in enumerate(layers))

    @staticmethod
    def _stock(house: Blueprint, stock: Stock) -> str:
        return ", ".join(f"{left} {house.blocks[block]}" for block, left in stock.items()) or "nothing"

    def score(self, turns: tuple[int, int], score: tuple[float, float], last: Turn) -> str:
        text = f"Turn {turns[0]} of {turns[1]}. Last score: {score[0]:.4f} of {score[1]:g}. "
        bitten = f"The spiders bit for {last.damage}" if last.damage else "Nobody was bitten"
        return f"{text}{bitten}; the party has {last.threat.hp} of {HP} HP."

    def positions(self, last: Turn, wrong: Wrong, more: int) -> str:
        names = last.blueprint.blocks
        lines = [f"{x} {y} {z}: is {names[there]}, should be {names[due]}" for x, y, z, there, due in wrong]
        return "\n".join(["Wrong voxels (x y z):", *lines, *self._more(more)]) if lines else "No wrong voxel."

    def rectangles(self, last: Turn, fills: Sequence[Fill], more: int) -> str:
        if not fills:
            return "No wrong voxel."
        lines = self.commands(last.blueprint, fills, kill=False).split("\n")
        return "\n".join(
            ["Wrong rectangles, with the block that should be there:", *lines, *self._more(more)]
        )

    @staticmethod
    def _more(more: int) -> list[str]:
        return [f"and {more} more"] if more else []

    def schedule(self, last: Turn, said: Parsed, left: Stock, planned: Sequence[Fill]) -> str:
        house = last.blueprint
        done = self.commands(house, _fills(said), kill=False) or "none"
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(said.dropped.items())) or "none"
        plan = self.commands(house, planned, kill=True)
        return (
            f"Your accepted fills:\n{done}\nYour dropped lines: {dropped}.\n"
            f"Left of your blocks: {self._stock(house, left)}.\n"
            f"A plan for your next turn:\n{plan}"
        )

    def repairs(self, last: Turn, fills: Sequence[Fill]) -> str:
        if not fills:
            return "Your share has no wrong voxel."
        return f"Wrong in your share:\n{self.commands(last.blueprint, fills, kill=False)}"


class Terse:
    """As few words as possible, each a token of the built-in model.

    A cell is a letter for its row and a digit for its column: `a1` is x = 0 in the first row of the lowest
    layer, `b1` is behind it, and the next letters go on with the layer above. `a1 c2 s` fills from cell to cell,
    `a1 s` one cell.
    """

    between = " "

    def grammar(self, blueprint: Blueprint) -> Grammar:
        x, y, z = blueprint.box
        if x > 9 or y * z > 26:
            raise DataError(f"a house of {x} x {y} x {z} has more cells than there are names such as a1 for")
        return CuboidGrammar(z)

    def blocks(self, blueprint: Blueprint) -> Mapping[str, int]:
        return blueprint.letter_index

    def commands(self, blueprint: Blueprint, fills: Iterable[Fill], *, kill: bool) -> str:
        depth = blueprint.box.size_z
        words = []
        for f in fills:
            # One cell is named once: then each cell stands once in a list of boxes, and copying is easy to learn.
            corners = dict.fromkeys((_cell(*f[:3], depth), _cell(*f[3:6], depth)))
            words += [*corners, blueprint.letters[f.block]]
        return " ".join([*words, "kill"] if kill else words)

    def task(self, brief: Brief) -> str:
        house = brief.blueprint
        text = f"build {self.commands(house, house.rectangles, kill=False)} have {self._stock(house, brief.stock)}"
        bites = " ".join(map(str, brief.threat.attacks))
        text += f" lines {brief.lines} spider {bites} hp {brief.threat.hp}"
        return text + " kept" if brief.kept else text

    @staticmethod
    def _stock(house: Blueprint, stock: Stock) -> str:
        return " ".join(f"{house.letters[block]} {left}" for block, left in stock.items())

    def score(self, turns: tuple[int, int], score: tuple[float, float], last: Turn) -> str:
        # To the nearest 0.2, and never below 0: few enough numbers for a model to know each.
        shown = max(0.0, round(score[0] * 5) / 5)
        return f"turn {turns[0]} score {shown:.1f} hp {last.threat.hp}"

    def positions(self, last: Turn, wrong: Wrong, more: int) -> str:
        house = last.blueprint
        cells = (f"{_cell(x, y, z, house.box.size_z)} {house.letters[due]}" for x, y, z, _, due in wrong)
        return " ".join(["wrong", *cells]) if wrong else "wrong none"

    def rectangles(self, last: Turn, fills: Sequence[Fill], more: int) -> str:
        return f"wrong {self.commands(last.blueprint, fills, kill=False) or 'none'}"

    def schedule(self, last: Turn, said: Parsed, left: Stock, planned: Sequence[Fill]) -> str:
        house = last.blueprint
        done = self.commands(house, _fills(said), kill=False) or "none"
        return f"done {done} left {self._stock(house, left)} plan {self.commands(house, planned, kill=True)}"

    def repairs(self, last: Turn, fills: Sequence[Fill]) -> str:
        return f"fix {self.commands(last.blueprint, fills, kill=False) or 'none'}"


@dataclass(frozen=True)
class CuboidGrammar:
    """One or two cells and a block, such as `a1 s` and `a1 c2 s`, and `kill`, in one run of words.

    Attributes:
        depth: rows of a layer, after which the next letter is one layer up.
    """

    depth: int

    def scan(self, reply: str) -> tuple[list[Found], int]:
        """Commands in reading order, and the number of words that belong to none."""
        found: list[Found] = []
        malformed = 0
        cells: list[tuple[int, int, int]] = []
        for word in reply.split():
            cell = _place(word, self.depth)
            if cell is not None:
                cells.append(cell)
                if len(cells) > 2:  # the last two may yet be followed by a block
                    malformed += 1
                    del cells[0]
                continue
            if word in ("kill", "/kill"):
                malformed += len(cells)
                found.append(("kill", (), ""))
            elif cells:
                found.append(("fill", (*cells[0], *cells[-1]), word))
            else:
                malformed += 1
            cells = []
        return found, malformed + len(cells)


def _place(word: str, depth: int) -> tuple[int, int, int] | None:
    """The voxel (x, y, z) that a word such as `b3` names; None where it names none."""
    if len(word) != 2 or not ("a" <= word[0] <= "z" and "1" <= word[1] <= "9"):
        return None
    y, z = divmod(ord(word[0]) - ord("a"), depth)
    return ord(word[1]) - ord("1"), y, z


def _cell(x: int, y: int, z: int, depth: int) -> str:
    """The name of a voxel; the inverse of `_place`."""
    return f"{chr(ord('a') + y * depth + z)}{x + 1}"


def _fills(said: Parsed) -> list[Fill]:
    return [command for command in said.commands if isinstance(command, Fill)]


def _numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values))
