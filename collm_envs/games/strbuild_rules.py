"""What a picture of blocks is worth: targets, the facts of a build, the reward components, and a plan.

For `strbuild` and its mini. Everything here is a pure function of a target and a world; what agents are told
and how they write is left to the environments. Coordinates: x to the right, y up, and z = 0 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collm_envs.games.blocks import AIR, Box, Parsed, SetBlock, World
from collm_envs.reward import component

BLOCKS = ("air", "oak_planks", "stone", "white_concrete", "obsidian")
PALETTES = ((1, 2), (3, 4))  # by palette index; builders beyond the second are dealt the same two again

Placing = tuple[int, int, int]  # x, y, block


@dataclass(frozen=True, eq=False)
class Target:
    """The cells to be filled.

    Attributes:
        rows: `#` and `.`, the top row first.
        box: the space around them.
        mask: [x, y], true where a block belongs.
        cells: the same as (x, y) in reading order: from the top row down, each from left to right.
    """

    rows: tuple[str, ...]
    box: Box
    mask: NDArray[np.bool_]
    cells: tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)
def target_of(rows: tuple[str, ...]) -> Target:
    """The target drawn by rows of `#` and `.`, the top row first."""
    height, width = len(rows), len(rows[0])
    cells = tuple((x, height - 1 - i) for i, row in enumerate(rows) for x in range(width) if row[x] == "#")
    mask = np.zeros((width, height), dtype=bool)
    for cell in cells:
        mask[cell] = True
    mask.flags.writeable = False
    return Target(rows, Box(width, height, 1), mask, cells)


class Facts(NamedTuple):
    """What is counted in a world.

    Attributes:
        covered: target cells with a block.
        extra: other cells with a block.
        pairs: pairs of blocks side by side or one above the other.
        same: pairs of one and the same block.
        blocks: which blocks stand anywhere.
    """

    covered: int
    extra: int
    pairs: int
    same: int
    blocks: frozenset[int]

    @property
    def adjacency(self) -> float:
        """Share of the pairs that are of one block; 0 where there are no pairs."""
        return self.same / self.pairs if self.pairs else 0.0


def count(target: Target, world: World) -> Facts:
    """The facts of a world, in whole numbers."""
    wall = world[:, :, 0]
    full = wall != AIR
    filled, covered = int(np.count_nonzero(full)), int(np.count_nonzero(full & target.mask))
    pairs = same = 0
    for ahead, behind, here in (
        (wall[1:], wall[:-1], full[1:]),
        (wall[:, 1:], wall[:, :-1], full[:, 1:]),
    ):
        equal = int(np.count_nonzero((ahead == behind) & here))
        same += equal
        pairs += int(np.count_nonzero(here & (behind != AIR)))
    return Facts(covered, filled - covered, pairs, same, frozenset(wall.tobytes()) - {AIR})


@dataclass(frozen=True, eq=False)
class Build:
    """The outcome of a turn.

    Attributes:
        target: what was to be built.
        world: what stands now.
        replies: what each agent's reply came to, in order.
        facts: `count` of them.
    """

    target: Target
    world: World
    replies: tuple[Parsed, ...]
    facts: Facts


# Penalties are subtracted from 0.0, so that none reads "-0.0" where there is nothing to punish.


@component("coverage", low=0, high=2)
def coverage(build: Build) -> float:
    """2 x covered target cells / target cells (paper and release)."""
    return 2 * build.facts.covered / len(build.target.cells)


@component("extra", low=-1.5, high=0)
def extra_of_box(build: Build) -> float:
    """-1.5 x blocks outside the target / cells of the box (paper)."""
    return 0.0 - 1.5 * build.facts.extra / build.target.box.cells


@component("extra", low=-1.5, high=0)
def extra_of_background(build: Build) -> float:
    """-1.5 x blocks outside the target / cells outside the target (release); 0 where there are none."""
    background = build.target.box.cells - len(build.target.cells)
    return 0.0 - 1.5 * build.facts.extra / background if background else 0.0


@component("adjacency", low=-0.5, high=0)
def half_adjacency(build: Build) -> float:
    """-same pairs / (2 x pairs) (paper)."""
    return 0.0 - build.facts.adjacency / 2


@component("adjacency", low=-1, high=0)
def full_adjacency(build: Build) -> float:
    """-same pairs / pairs (release)."""
    return 0.0 - build.facts.adjacency


@component("palettes", low=-0.25 * len(PALETTES), high=0)
def palettes(build: Build) -> float:
    """-0.25 for each palette of which not both blocks stand somewhere (release)."""
    return 0.0 - 0.25 * sum(not build.facts.blocks.issuperset(palette) for palette in PALETTES)


COMPONENTS: dict[str, tuple[Any, ...]] = {
    "paper": (coverage, extra_of_box, half_adjacency),
    "release": (coverage, extra_of_background, full_adjacency, palettes),
}


def palette_of(index: int, num_agents: int) -> tuple[int, ...]:
    """Blocks, air apart, of the agent at an index: a palette in turn, or all where there is one agent."""
    return (
        tuple(block for palette in PALETTES for block in palette)
        if num_agents == 1
        else PALETTES[index % len(PALETTES)]
    )


@lru_cache(maxsize=16384)
def shares(rows: tuple[str, ...], num_agents: int) -> tuple[tuple[Placing, ...], ...]:
    """A way to build a target with no two equal neighbours, all blocks in use and equal shares.

    Cells are coloured like a chess board: a builder puts its first block on even cells (x + y) and its second
    on odd ones. Neighbours differ in colour, so they differ in block whoever places them. Cells of either
    colour are dealt to the builders in reading order.

    Args:
        rows: the target; either colour needs as many cells as there are palettes.
        num_agents: how many share it. One agent does the work of two.

    Returns:
        By agent, (x, y, block) in reading order.

    Raises:
        ValueError: where there is no such way.
    """
    hands = max(num_agents, len(PALETTES))
    target = target_of(rows)
    colours = [[cell for cell in target.cells if sum(cell) % 2 == parity] for parity in (0, 1)]
    # Odd cells are dealt on from where the even ones ended, unless one palette would then get no odd cell.
    for shift in range(hands):
        dealt: list[list[Placing]] = [[] for _ in range(hands)]
        for parity, first in ((0, 0), (1, len(colours[0]) + shift)):
            for number, (x, y) in enumerate(colours[parity], first):
                hand = number % hands
                dealt[hand].append((x, y, palette_of(hand, hands)[parity]))
        sizes = [len(share) for share in dealt]
        used = {block for share in dealt for _, _, block in share}
        if len(used) == len(BLOCKS) - 1 and min(sizes) and max(sizes) == -(-len(target.cells) // hands):
            break
    else:
        raise ValueError(f"no plan for {len(colours[0])} even and {len(colours[1])} odd cells")
    if num_agents == 1:
        dealt = [[placing for share in dealt for placing in share]]
    return tuple(tuple(sorted(share, key=reading_order)) for share in dealt)


def reading_order(place: Sequence[int]) -> tuple[int, int]:
    """Sorting key of an (x, y, ...): from the top row down, each from left to right."""
    return -place[1], place[0]


class Faults(NamedTuple):
    """What one agent has to change.

    Attributes:
        wrong: (x, y, block) that should stand in its share, and does not or was not put there by the agent.
        extra: (x, y) that it should leave alone in a rebuilt world, or clear in a kept one.
    """

    wrong: tuple[Placing, ...]
    extra: tuple[tuple[int, int], ...]


def faults(build: Build, index: int, *, kept: bool) -> Faults:
    """Compare a build with the plan of `shares`; agents that all follow it reach the greatest score.

    Args:
        build: what stands, and what was replied.
        index: which agent.
        kept: whether blocks stay for the next turn. Then only what stands matters, and strays are dealt out to
            be cleared. Else an agent must itself put right what another put there for it, since the other is
            told to leave every cell outside its own share.
    """
    mine = shares(build.target.rows, len(build.replies))[index]
    wall = build.world[:, :, 0]
    if kept:
        wrong = [(x, y, block) for x, y, block in mine if wall[x, y] != block]
        strays = np.argwhere((wall != AIR) & ~build.target.mask).tolist()
        extra = [(x, y) for x, y in sorted(strays, key=reading_order)][index :: len(build.replies)]
    else:
        put = {(c.x, c.y): c.block for c in build.replies[index].commands if isinstance(c, SetBlock)}
        wrong = [(x, y, block) for x, y, block in mine if not wall[x, y] == put.get((x, y)) == block]
        own = {(x, y) for x, y, _ in mine}
        extra = sorted((cell for cell in put if cell not in own), key=reading_order)
    return Faults(tuple(wrong), tuple(extra))
