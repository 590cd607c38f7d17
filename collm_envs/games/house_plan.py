"""Dividing a house among builders: how much of each block one may place, and who builds what.

For `housebuild`: limits, the oracle, and feedback that shows a plan. A plan depends on the blueprint and the
number of builders alone, so every builder can work out the same one without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from collm_envs.games.blocks import AIR, Fill, World
from collm_envs.games.blueprints import Blueprint, cut


def limit(count: int, builders: int) -> int:
    """How many voxels of a block one builder may place in a house that needs `count`.

    ceil(c / n) + floor(c / 2n) for n builders, which is the paper's ceil(c / 2) + floor(c / 4) for two. All
    together have enough, c at least; from two voxels on nobody has enough alone. One builder has all.
    """
    return count if builders == 1 else -(-count // builders) + count // (2 * builders)


def limits(blueprint: Blueprint, builders: int) -> dict[int, int]:
    """One builder's limit by palette index; air has none."""
    return {b: limit(c, builders) for b, c in enumerate(blueprint.counts) if b != AIR}


@lru_cache(maxsize=16384)
def plan(blueprint: Blueprint, builders: int) -> tuple[tuple[Fill, ...], ...]:
    """Who builds what from nothing: fills by builder, in reading order.

    Of several ways to cut the house into boxes, the one in which the busiest builder has the fewest fills.
    """
    stocks = [limits(blueprint, builders)] * builders
    ways = [deal(fills, stocks) for fills in blueprint.cuttings]
    return min(ways, key=lambda way: (max(map(len, way)), sum(map(len, way))))


def repair(
    blueprint: Blueprint, world: World, stocks: Sequence[Mapping[int, int]]
) -> tuple[tuple[Fill, ...], ...]:
    """Who mends what in a world that is partly built: fills by builder, as far as their stocks reach.

    Args:
        blueprint: what the world should be.
        world: what it is.
        stocks: voxels left by palette index, one mapping per builder.
    """
    return deal(cut(blueprint.target, world != blueprint.target), stocks)


def deal(fills: Sequence[Fill], stocks: Sequence[Mapping[int, int]]) -> tuple[tuple[Fill, ...], ...]:
    """Share fills out, largest first, each to the builder with the fewest so far who has the blocks for it.

    A fill that nobody can place whole is cut in two. What no stock reaches is left out.
    """
    left = [dict(stock) for stock in stocks]
    dealt: list[list[Fill]] = [[] for _ in stocks]
    voxels_of = [0] * len(stocks)
    waiting = sorted(fills, key=lambda fill: (-fill.volume, fill), reverse=True)  # the next one stands last
    while waiting:
        fill = waiting.pop()
        room = [stock.get(fill.block, math.inf) for stock in left]
        able = [i for i, voxels in enumerate(room) if voxels >= fill.volume]
        if able:
            who = min(able, key=lambda i: (len(dealt[i]), voxels_of[i]))
            dealt[who].append(fill)
            voxels_of[who] += fill.volume
            if fill.block in left[who]:
                left[who][fill.block] -= fill.volume
        elif max(room) >= 1:
            waiting += reversed(halves(fill, int(max(room))))
    return tuple(tuple(sorted(mine, key=_reading_order)) for mine in dealt)


def halves(fill: Fill, room: int) -> tuple[Fill, Fill]:
    """Cut a fill of more than `room` voxels in two: the largest slab that fits, else the middle."""
    low, high = fill[:3], fill[3:6]
    sides = [b - a + 1 for a, b in zip(low, high, strict=True)]
    slabs = [room // (fill.volume // side) * (fill.volume // side) for side in sides]
    # A slab that fits is always thinner than the fill, which is larger than the room.
    axis = slabs.index(max(slabs)) if any(slabs) else sides.index(max(sides))
    thick = room // (fill.volume // sides[axis]) or sides[axis] // 2
    end, start = f"{'xyz'[axis]}2", f"{'xyz'[axis]}1"
    cut_at = low[axis] + thick
    return fill._replace(**{end: cut_at - 1}), fill._replace(**{start: cut_at})


def _reading_order(fill: Fill) -> tuple[int, int, int]:
    return fill.y1, fill.z1, fill.x1
