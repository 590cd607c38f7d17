"""The rules of `housebuild`: what a turn does to world, stocks and spiders, and what it is worth.

For the environment, and for anyone who wants the score of a build by itself. Pure functions and frozen records;
no text is written or read here but through `blocks.parse`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from collm_envs.games.blocks import AIR, REASONS, Allowance, Fill, Grammar, Kill, Parsed, World, apply, parse
from collm_envs.games.blueprints import Blueprint
from collm_envs.games.house_plan import limits
from collm_envs.reward import component

HP = 5  # of the party, in full health
ATTACK = (1, 3)  # least and greatest bite of a spider, in HP
Stock = Mapping[int, int]  # voxels left by palette index; air is not in it


@dataclass(frozen=True)
class Threat:
    """Spiders, and the party that they bite.

    Attributes:
        attacks: HP that each spider takes with a bite.
        alive: whether they live; an attack kills all of them.
        hp: what the party has left, 0 to `HP`. It never rises.
    """

    attacks: tuple[int, ...]
    alive: bool = True
    hp: int = HP

    def bite(self, *, killed: bool) -> tuple[Threat, int]:
        """A turn's end: the threat after it, and the damage done. Killed spiders do not bite."""
        alive = self.alive and not killed
        damage = sum(self.attacks) if alive else 0
        return replace(self, alive=alive, hp=max(0, self.hp - damage)), damage


@dataclass(frozen=True)
class Turn:
    """What a joint reply came to.

    Attributes:
        blueprint: what should stand.
        world: what stands.
        parsed: accepted commands and dropped lines by builder.
        stocks: voxels left by builder.
        threat: spiders and party after the turn.
        damage: sum of this turn's bites, in HP; 0 where the spiders are dead.
        right: voxels, not air, that hold the right block.
        extra: voxels that hold a block where the blueprint has air.
    """

    blueprint: Blueprint
    world: World
    parsed: tuple[Parsed, ...]
    stocks: tuple[Stock, ...]
    threat: Threat
    damage: int
    right: int
    extra: int

    @property
    def iou(self) -> float:
        """Right voxels over all voxels that are, or should be, other than air."""
        return self.right / (self.blueprint.solid + self.extra)

    @property
    def occupancy_iou(self) -> float:
        """The same, whatever the blocks are: voxels filled where they should be."""
        filled = int(np.count_nonzero((self.world != AIR) & (self.blueprint.target != AIR)))
        return filled / (self.blueprint.solid + self.extra)

    @property
    def survived(self) -> bool:
        """Whether the party is alive and was not bitten this turn."""
        return self.threat.hp > 0 and not self.damage


def play_turn(
    blueprint: Blueprint,
    world: World,
    stocks: Sequence[Stock],
    threat: Threat,
    replies: Sequence[str],
    *,
    grammar: Grammar,
    blocks: Mapping[str, int],
    lines: int,
) -> Turn:
    """Carry out the replies in order, then let the living spiders bite.

    Args:
        blueprint: what should stand in the end.
        world: what the turn begins with; left alone.
        stocks: what each builder has left.
        threat: the spiders as the turn begins.
        replies: one text per builder.
        grammar: how commands are written.
        blocks: palette index by the name that replies use.
        lines: greatest number of commands of one builder.
    """
    parsed = tuple(
        parse(reply, grammar, Allowance(blueprint.box, blocks, lines, stock))
        for reply, stock in zip(replies, stocks, strict=True)
    )
    world = apply(world, [command for each in parsed for command in each.commands])
    killed = any(isinstance(command, Kill) for each in parsed for command in each.commands)
    threat, damage = threat.bite(killed=killed)
    right = int(np.count_nonzero((world == blueprint.target) & blueprint.mask))
    extra = int(np.count_nonzero(world)) - int(np.count_nonzero(world[blueprint.mask]))
    left = tuple(spend(stock, each.commands) for stock, each in zip(stocks, parsed, strict=True))
    return Turn(blueprint, world, parsed, left, threat, damage, right, extra)


def spend(stock: Stock, commands: Sequence[object]) -> Stock:
    """What is left of a stock after accepted commands; a voxel counts each time a fill covers it."""
    left = dict(stock)
    for command in commands:
        if isinstance(command, Fill) and command.block in left:
            left[command.block] -= command.volume
    return left


def full_stocks(blueprint: Blueprint, builders: int) -> tuple[Stock, ...]:
    """Every builder's stock before the first command."""
    return (limits(blueprint, builders),) * builders


@component("coverage", low=0, high=2)
def coverage(turn: Turn) -> float:
    """2 x right voxels / voxels of the house (air not counted)."""
    return 2.0 * turn.right / turn.blueprint.solid


@component("redundancy", low=-1.5, high=0)
def redundancy(turn: Turn) -> float:
    """-1.5 x voxels filled where there should be air / voxels of the box."""
    return 0.0 - 1.5 * turn.extra / turn.world.size


@component("bites", low=-0.2, high=0)
def bites(turn: Turn) -> float:
    """-0.2 x min(1, damage / HP); 0 where the spiders are dead."""
    return 0.0 - 0.2 * min(1.0, turn.damage / HP)


@component("match", low=0, high=1)
def match(turn: Turn) -> float:
    """Voxels that hold what they should, air included / voxels of the box."""
    air = turn.world.size - turn.blueprint.solid
    return (turn.right + air - turn.extra) / turn.world.size


@component("bites", low=-0.1, high=0)
def release_bites(turn: Turn) -> float:
    """-0.1 x min(1, damage / HP); 0 where the spiders are dead."""
    return bites(turn) / 2


COMPONENTS = {"paper": (coverage, redundancy, bites), "release": (match, release_bites)}


def measure(turn: Turn) -> dict[str, float]:
    """What is reported beside the parts: IoU, HP, whether the spiders were killed, dropped lines by reason."""
    dropped = sum((each.dropped for each in turn.parsed), Counter[str]())
    return {
        "iou": turn.occupancy_iou,
        "exact_iou": turn.iou,
        "hp": turn.threat.hp / HP,
        "killed": float(not turn.threat.alive),
        "dropped": float(dropped.total()),
        **{f"dropped_{reason}": float(dropped[reason]) for reason in REASONS},
    }
