"""A world of blocks, and the commands that agents write to change it.

For the building games. `parse` turns a reply into commands that the writer may give, and counts by reason what
it had to drop; `apply` builds. A reply is never an error, and its cost is bounded: coordinates are compared as
numbers, never walked through. Whether a building is any good is the business of each game.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

World = NDArray[np.uint8]  # [x, y, z] of palette indices; y points up
AIR = 0  # palette index of nothing
REASONS = ("malformed", "out_of_box", "foreign_block", "over_budget", "over_limit")


class Box(NamedTuple):
    """The space that may be built in, in cells; coordinates run from 0 to one less than the size."""

    size_x: int
    size_y: int
    size_z: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.size_x * self.size_y * self.size_z

    def empty(self) -> World:
        """A world of air."""
        return np.zeros(self, dtype=np.uint8)


class SetBlock(NamedTuple):
    """Put a block, by palette index, into one cell."""

    x: int
    y: int
    z: int
    block: int


class Fill(NamedTuple):
    """Put a block into every cell of a cuboid; both corners belong to it, the first is the lesser."""

    x1: int
    y1: int
    z1: int
    x2: int
    y2: int
    z2: int
    block: int

    @property
    def volume(self) -> int:
        """Number of cells."""
        return (self.x2 - self.x1 + 1) * (self.y2 - self.y1 + 1) * (self.z2 - self.z1 + 1)


class Kill(NamedTuple):
    """Attack the spiders."""

    target: str = "spiders"


Command = SetBlock | Fill | Kill


# A command as it was written, not yet checked against anything: verb, coordinates, name of the block.
Found = tuple[str, tuple[int, ...], str]


class Grammar(Protocol):
    """How commands are written."""

    def scan(self, reply: str) -> tuple[list[Found], int]:
        """Commands in reading order, and the number of units (lines, words) that are none."""
        ...


@dataclass(frozen=True)
class Allowance:
    """What one agent may do in one turn.

    Attributes:
        box: where.
        blocks: palette index by the name of a block that the agent may place.
        budget: greatest number of commands that count; None for no limit.
        limits: greatest number of cells by palette index; blocks without an entry are free.
    """

    box: Box
    blocks: Mapping[str, int]
    budget: int | None = None
    limits: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Parsed:
    """What a reply comes to.

    Attributes:
        commands: what is carried out, in order.
        dropped: number of lines that are not, by one of `REASONS`.
        lines: all lines that were read; blank ones, comments and code fences are not.
    """

    commands: tuple[Command, ...]
    dropped: Counter[str]
    lines: int


def parse(reply: str, grammar: Grammar, allowance: Allowance) -> Parsed:
    """Read a reply as commands; whatever cannot be used is dropped and counted, nothing raises.

    Only commands that are carried out use the budget. Once it is spent, every further command is
    `over_budget`, whatever else may be wrong with it. A command that would exceed a limit is dropped whole, and
    a smaller one after it may still fit.

    Args:
        reply: any text.
        grammar: how commands are written.
        allowance: what the writer may do.
    """
    found, malformed = grammar.scan(reply)
    commands: list[Command] = []
    reasons: list[str] = []
    left = dict(allowance.limits)
    budget = len(found) if allowance.budget is None else allowance.budget
    for item in found:
        if len(commands) >= budget:
            reasons += ["over_budget"] * (len(found) - len(commands) - len(reasons))
            break
        command = _command(item, allowance.box, allowance.blocks)
        if isinstance(command, str):
            reasons.append(command)
            continue
        if left and not isinstance(command, Kill) and command.block in left:
            cost = command.volume if isinstance(command, Fill) else 1
            if cost > left[command.block]:
                reasons.append("over_limit")
                continue
            left[command.block] -= cost
        commands.append(command)
    dropped = Counter(reasons)
    if malformed:
        dropped["malformed"] += malformed
    return Parsed(tuple(commands), dropped, len(found) + malformed)


def _command(found: Found, box: Box, blocks: Mapping[str, int]) -> Command | str:
    """The checked command, or the reason why it is none."""
    verb, at, name = found
    if verb == "kill":
        return Kill()
    if len(at) != (3 if verb == "setblock" else 6):
        return "malformed"
    size_x, size_y, size_z = box
    for i in range(0, len(at), 3):
        x, y, z = at[i : i + 3]
        if not (0 <= x < size_x and 0 <= y < size_y and 0 <= z < size_z):
            return "out_of_box"
    block = blocks.get(name)
    if block is None:
        return "foreign_block"
    if verb == "setblock":
        return SetBlock(x, y, z, block)
    (x1, x2), (y1, y2), (z1, z2) = (sorted(pair) for pair in zip(at[:3], at[3:], strict=True))
    return Fill(x1, y1, z1, x2, y2, z2, block)


def apply(world: World, commands: Iterable[Command]) -> World:
    """A copy of the world after the commands, in order; later ones overwrite earlier ones.

    Args:
        world: [x, y, z]; left alone.
        commands: from `parse` with the world's own box.
    """
    world = world.copy()
    for command in commands:
        if isinstance(command, SetBlock):
            world[command[:3]] = command.block
        elif isinstance(command, Fill):
            x1, y1, z1, x2, y2, z2, block = command
            world[x1 : x2 + 1, y1 : y2 + 1, z1 : z2 + 1] = block
    return world


# What may stand before a command: quotes, bullets, numbering. Quantifiers are possessive ("*+"), so that a
# line that does not match is left after one pass, however long it is.
_BEFORE = r"^(?:[ \t>*•+`\"'-]|[0-9]{1,6}[.):]|\([0-9]{1,6}\))*+/?(?:minecraft:)?"
_GAP = r"[ \t,()\"'`]++"
_PLACE = (
    rf"(setblock|fill)((?:{_GAP}[-+]?[0-9]++)++){_GAP}(?:minecraft:)?([a-z][a-z0-9_]*+)"
    r"(?:\[[^\]\n]*+\])?(?:\{[^}\n]*+\})?"
    r"(?:[ \t]++(?:replace|destroy)(?![a-z0-9_]))?"  # the modes that change nothing in a simulation
)
# A selector that names a type of entity must name the spiders.
_OTHER_TYPE = r"(?![^\]\n]*type *+= *+(?!(?:minecraft:)?spider *+[\],]))"
_KILL = rf"(kill)(?:[ \t]++(?:@e(?:\[{_OTHER_TYPE}[^\]\n]*+\])?|(?:minecraft:)?spiders?)(?![a-z0-9_]))?"
_AFTER = r"[ \t,;.)\"'`*]*+(?:(?:#|//|--|\()[^\n]*+)?$"
_FENCE = re.compile(r"^[ \t]*+(?:```|~~~)[\w+-]*+[ \t]*+$", re.MULTILINE)
_FILLED = re.compile(r"^[^\S\n]*+(?!#|//)\S", re.MULTILINE)
_NOT_NUMBERS = str.maketrans(dict.fromkeys(",()\"'`", " "))


@dataclass(frozen=True)
class LineGrammar:
    """One command per line, as language models write them.

    `/setblock x y z block`, `/fill x1 y1 z1 x2 y2 z2 block` and `/kill [@e[...]]`, in any case, with or without
    slash, `minecraft:` and block states; behind bullets, numbers or quotes; with commas or brackets around
    numbers, and a comment (`#`, `//`, `--` or in round brackets) behind. Coordinates are whole numbers: a
    `~` or a fraction makes the line malformed, as does any other word in it. Prose is malformed too; blank
    lines, comments and code fences are free.

    Attributes:
        verbs: the commands that exist; the others are malformed.
    """

    verbs: tuple[str, ...] = ("setblock",)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        kinds = rf"(?:{_PLACE}|{_KILL})"
        return re.compile(_BEFORE + kinds + _AFTER, re.MULTILINE | re.ASCII)

    def scan(self, reply: str) -> tuple[list[Found], int]:
        """Commands in reading order, and the number of lines that are none."""
        text = reply
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "```" in text or "~~~" in text:
            text = _FENCE.sub("", text)
        text = text.lower()
        found: list[Found] = [
            (verb or kill, _whole_numbers(numbers) if len(numbers) < 40 else _read_numbers(numbers), block)
            for verb, numbers, block, kill in self._pattern.findall(text)
            if (verb or kill) in self.verbs
        ]
        return found, len(_FILLED.findall(text)) - len(found)


def _read_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of which nothing but `_GAP` stands between; -1, which is in no box, for endless ones."""
    words = text.translate(_NOT_NUMBERS).split()
    return tuple(int(word) if len(word) < 20 else -1 for word in words)


_whole_numbers = lru_cache(maxsize=8192)(_read_numbers)  # builders write the same few coordinates all day


_SIGNS = str.maketrans(dict.fromkeys(",;:.()=/", " "))


@dataclass(frozen=True)
class CellGrammar:
    """Pairs of a cell and a block in one run of words, such as `a1 p b2 s`: two words for a `setblock`.

    A cell is named as on a chess board: `a1` is x = 0, y = 0; `b1` is right of it, `a2` above it; z is 0.
    Every word that is not part of a pair is malformed.
    """

    def scan(self, reply: str) -> tuple[list[Found], int]:
        """Commands in reading order, and the number of words that belong to none."""
        found: list[Found] = []
        malformed = 0
        cell: tuple[int, int, int] | None = None
        for word in reply.lower().translate(_SIGNS).split():
            named = cell_at(word)
            if cell is not None and named is None:
                found.append(("setblock", cell, word))
            elif cell is not None or named is None:
                malformed += 1
            cell = named
        return found, malformed + (cell is not None)


@lru_cache(maxsize=1024)
def cell_at(word: str) -> tuple[int, int, int] | None:
    """The cell that a word such as `b3` names, z = 0; None where it names none."""
    if len(word) > 3 or not word.isascii() or not (word[:1].isalpha() and word[1:].isdigit()):
        return None
    return ord(word[0]) - ord("a"), int(word[1:]) - 1, 0


def cell_name(x: int, y: int) -> str:
    """The name of a cell of the plane z = 0; the inverse of `cell_at`."""
    return f"{chr(ord('a') + x)}{y + 1}"
