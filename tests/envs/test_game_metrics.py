"""The `evaluate` metrics over builds: by hand, and against what the games count."""

from __future__ import annotations

import numpy as np
import pytest

from collm_envs import make
from collm_envs.errors import InputError
from collm_envs.games import strbuild  # noqa: F401  # registers it
from collm_envs.games.strbuild_rules import BLOCKS, count, target_of

games = pytest.importorskip("collm_envs.metrics.games")

WALL = ["0 0 0 stone", "1 0 0 stone", "0 1 0 obsidian", "1 1 0 stone"]


def iou(built, target):
    return games.Iou().compute(predictions=[built], references=[target])


def voxels(world, blocks):
    """A world as strings, air included."""
    return [f"{x} {y} {z} {blocks[world[x, y, z]]}" for x, y, z in np.ndindex(world.shape)]


def test_iou_by_hand():
    # three cells shared, two of them of the same block; five cells in all
    built = ["0 0 0 stone", "1 0 0 obsidian", "0 1 0 obsidian", "5 5 5 stone"]
    found = iou(built, WALL)
    assert found == {"iou": 0.6, "exact_iou": 0.4, "values": [0.6], "exact_values": [0.4]}
    both = games.Iou().compute(predictions=[built, WALL], references=[WALL, WALL])
    assert (both["iou"], both["exact_iou"]) == pytest.approx((0.8, 0.7))


def test_empty_builds_and_targets():
    assert iou([], WALL)["iou"] == iou(["0 0 0 air"], WALL)["iou"] == 0
    for target in ([], ["0 0 0 air"]):
        with pytest.raises(InputError, match=r"target 0 \(from 0\) has no blocks"):
            iou(WALL, target)


def test_later_strings_replace_earlier_ones():
    assert iou(["0 0 0 stone", "0 0 0 obsidian"], ["0 0 0 obsidian"])["exact_iou"] == 1
    assert iou(["0 0 0 stone", "1 0 0 stone", "0 0 0 air"], ["1 0 0 stone"])["iou"] == 1


def test_order_and_spelling_do_not_matter():
    spelt = [" 00 0  -0 minecraft:Stone ", *WALL[:0:-1]]
    assert iou(spelt, WALL)["exact_iou"] == 1


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "stone",
        "0 0 0",
        "0 0 stone",
        "0 0 0 0 stone",
        "~ 0 0 stone",
        "0.5 0 0 stone",
        "٣ 0 0 stone",
        "0 0 0 \ud800",
    ],
)
def test_what_is_no_cell_is_refused(cell):
    with pytest.raises(InputError, match=r"build 1 \(from 0\): .* is not of the form 'x y z block'"):
        games.Adjacency().compute(predictions=[WALL, [cell]])
    with pytest.raises(InputError, match=r"target 0 \(from 0\): .* is not of the form"):
        iou(WALL, [cell])


@pytest.mark.parametrize("build", ["0 0 0 stone", [("0", "0", "0", "stone")], [None], 3])
def test_what_is_no_build_is_refused(build):
    with pytest.raises(InputError, match="a build is a list of strings"):
        games.Iou().compute(predictions=[build], references=[WALL])


def test_adjacency_by_hand():
    # four pairs, two of them of stone and stone; corners do not touch
    assert games.Adjacency().compute(predictions=[WALL]) == {"adjacency": 0.5, "values": [0.5]}
    far = ["-7 3 2 stone", "-6 4 2 stone", "-5 3 2 stone"]
    assert games.Adjacency().compute(predictions=[far, [], WALL[:2]])["values"] == [0, 0, 1]


def test_adjacency_is_of_one_plane_and_bounded():
    for build in (["0 0 0 stone", "0 0 1 stone"], ["0 0 0 stone", "999999999 0 0 stone"]):
        with pytest.raises(InputError, match=r"build 0 \(from 0\) is no picture"):
            games.Adjacency().compute(predictions=[build])
    many = [f"{x} 0 0 block_{x}" for x in range(256)]
    with pytest.raises(InputError, match="more than 255 kinds"):
        games.Adjacency().compute(predictions=[many])
    assert games.Adjacency().compute(predictions=[many[:255]])["adjacency"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_what_strbuild_counts(seed):
    rng = np.random.default_rng(seed)
    rows = tuple("".join(row) for row in rng.choice(["#", "."], size=(5, 8)))
    target, world = target_of(rows), rng.integers(0, 5, size=(8, 5, 1)).astype(np.uint8)
    facts = count(target, world)
    # shifted: where a picture stands does not matter
    shifted = [f"{int(x) - 40} {y} {z} {b}" for x, y, z, b in map(str.split, voxels(world, BLOCKS))]
    assert games.Adjacency().compute(predictions=[shifted])["adjacency"] == facts.adjacency
    wanted = [f"{x} {y} 0 stone" for x, y in target.cells]
    assert iou(voxels(world, BLOCKS), wanted)["iou"] == facts.covered / (len(wanted) + facts.extra)


@pytest.mark.parametrize("kind", ["novice", "oracle"])
def test_agrees_with_an_episode_of_strbuild(kind):
    env = make("games/strbuild-v0", num_turns=1)
    for seed in range(4):
        env.reset(seed=seed)
        said = {agent: env.scripted(kind, agent, env.np_random) for agent in env.possible_agents}
        wanted = [f"{x} {y} 0 stone" for x, y in target_of(env.rows_of(env.task)).cells]
        measured = env.step(said)[-1]["builder_0"]["metrics"]
        built = [line.removeprefix("/setblock ") for text in said.values() for line in text.splitlines()]
        assert iou(built, wanted)["iou"] == measured["iou"]
        assert games.Adjacency().compute(predictions=[built])["adjacency"] == measured["adjacency"]


@pytest.mark.parametrize("kind", ["novice", "oracle"])
def test_agrees_with_a_turn_of_housebuild(kind):
    env = make("games/housebuild-v0")
    for seed in range(4):
        env.reset(seed=seed)
        said = {agent: env.scripted(kind, agent, env.np_random) for agent in env.possible_agents}
        state = env.begin(env.task, np.random.default_rng(seed))
        _, turn = env.advance(state, said)
        house = state.blueprint
        found = iou(voxels(turn.world, house.blocks), voxels(house.target, house.blocks))
        assert found["exact_iou"] == turn.iou
        assert found["iou"] >= found["exact_iou"] > 0
