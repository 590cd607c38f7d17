"""StrBuild: scores worked by hand, the plan that reaches the maximum, feedback, sources and pictures."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs import DataError, SettingError, make, play_scripted
from collm_envs.games import font
from collm_envs.games.blocks import CellGrammar, cell_at
from collm_envs.games.draw import CELL, COLOURS, EXTRA, MISSING, SKY
from collm_envs.games.strbuild import StrBuild
from collm_envs.games.strbuild_mini import StrBuildMini, all_shapes
from collm_envs.games.strbuild_rules import BLOCKS, PALETTES, count, shares, target_of
from collm_envs.task import Task
from collm_envs.text import pieces

BIG, MINI = "games/strbuild-v0", "games/strbuild-mini-v0"
RELEASED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "str_build.csv"
FORMULAS = ("paper", "release")


def shape(*rows):
    return Task("shape", {"rows": rows})


def play(env, replies, task):
    """The info of the first turn."""
    env.reset(seed=0, options={"task": task})
    *_, infos = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    return infos[env.possible_agents[0]]


# -- scores ----------------------------------------------------------------------------------------------------

CORNER = ("#.", "##")  # a1 b1 a2 are the target, b2 is the background; four cells in all
ROW = ("####",)  # no background
DOT = ("#",)

# rows, replies, coverage, extra of the box and of the background, adjacency rate, palettes not in full use.
# Blocks: p and s are builder_0's, w and o builder_1's; four commands each.
SCORES = {
    "empty": (CORNER, "", "", 0, 0, 0, 0, 2),
    "exact_in_one_block": (CORNER, "a1 p b1 p a2 p", "", 2, 0, 0, 2 / 2, 2),
    "exact_by_one_builder": (CORNER, "a1 p b1 s a2 s", "", 2, 0, 0, 0, 1),
    "exact_by_both": (CORNER, "a1 p b1 s", "a2 o", 2, 0, 0, 0, 1),
    "everything_in_four_blocks": (CORNER, "a1 p b1 s", "a2 w b2 o", 2, -1.5 / 4, -1.5, 0, 0),
    "everything_in_one_block": (CORNER, "a1 p b1 p a2 p b2 p", "", 2, -1.5 / 4, -1.5, 4 / 4, 2),
    "one_covered_without_pairs": (CORNER, "a1 p", "", 2 / 3, 0, 0, 0, 2),
    "diagonal_cells_are_no_neighbours": (CORNER, "b1 p a2 p", "", 4 / 3, 0, 0, 0, 2),
    "only_an_extra": (CORNER, "b2 p", "", 0, -1.5 / 4, -1.5, 0, 2),
    "an_extra_is_a_neighbour_too": (CORNER, "a2 p b2 p", "", 2 / 3, -1.5 / 4, -1.5, 1 / 1, 2),
    "the_second_builder_overwrites": (CORNER, "a1 p b1 s", "a1 w b1 w a2 o", 2, 0, 0, 1 / 2, 1),
    "overwritten_blocks_are_not_seen": (CORNER, "a1 p b1 s", "a1 w b1 o", 4 / 3, 0, 0, 0, 1),
    "the_later_line_of_one_reply_wins": (CORNER, "a1 p b1 p b1 s", "", 4 / 3, 0, 0, 0, 1),
    "air_clears_what_another_built": (CORNER, "a1 p b1 p", "b1 air", 2 / 3, 0, 0, 0, 2),
    "foreign_blocks_are_dropped": (CORNER, "a1 w b1 o a2 p", "a1 p", 2 / 3, 0, 0, 0, 2),
    "cells_outside_are_dropped": (CORNER, "c1 p a1 p", "a3 w", 2 / 3, 0, 0, 0, 2),
    "the_fifth_command_is_dropped": (CORNER, "a1 p a1 s a1 p a1 s b1 p", "", 2 / 3, 0, 0, 0, 2),
    "a_dropped_one_uses_no_budget": (CORNER, "a1 w a1 s a1 p a1 s b1 p", "", 4 / 3, 0, 0, 0, 1),
    "one_pair_of_three": (ROW, "a1 p b1 p c1 s", "d1 w", 2, 0, 0, 1 / 3, 1),
    "two_pairs_of_three": (ROW, "a1 p b1 p c1 p", "d1 w", 2, 0, 0, 2 / 3, 2),
    "a_gap_makes_no_pair": (ROW, "a1 p", "d1 w", 1, 0, 0, 0, 2),
    "a_single_cell": (DOT, "a1 p", "", 2, 0, 0, 0, 2),
    "a_single_cell_left_empty": (DOT, "", "prose", 0, 0, 0, 0, 2),
}


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("name", SCORES)
def test_scores(name, formula):
    rows, first, second, covered, of_box, of_background, rate, unused = SCORES[name]
    info = play(make(MINI, formula=formula), (first, second), shape(*rows))
    expected = {"coverage": covered, "extra": of_box, "adjacency": -rate / 2}
    if formula == "release":
        expected = {
            "coverage": covered,
            "extra": of_background,
            "adjacency": -rate,
            "palettes": -0.25 * unused,
        }
    assert info["reward_parts"] == pytest.approx(expected)
    assert info["score"] == pytest.approx(sum(expected.values()))
    assert info["metrics"]["adjacency"] == pytest.approx(rate)
    assert info["success"] == (sum(expected.values()) >= 1.9)


def test_totals_of_the_dossier():
    """The release gives an empty build -0.5 and a box filled in four blocks 0.5, whatever the target."""
    everything = ["\n".join(
        f"/setblock {x} {y} 0 {BLOCKS[PALETTES[k][(x + y) % 2]]}"
        for x, y in itertools.product(range(12), range(5)) if (x // 2) % 2 == k
    ) for k in (0, 1)]  # fmt: skip
    env = make(BIG, formula="release")
    assert play(env, ("", ""), Task("t", {"string": "MC"}))["score"] == -0.5
    assert play(env, everything, Task("t", {"string": "MC"}))["score"] == pytest.approx(0.5)
    assert (env.low, env.high, make(BIG).low, make(BIG).high) == (-3.0, 2.0, -2.0, 2.0)


def test_a_letter_by_hand():
    """L has nine cells in a box of 25; its foot in one block, one cell missing, one extra beside the stem."""
    foot = "\n".join(f"/setblock {x} 0 0 stone" for x in range(5))
    stem = "\n".join(
        f"/setblock 0 {y} 0 {b}" for y, b in ((1, "obsidian"), (2, "white_concrete"), (3, "obsidian"))
    )
    for formula, expected in (
        # pairs: four in the foot (same), three up the stem, two of the extra at (1, 1)
        ("paper", (16 / 9, -1.5 / 25, -4 / 18)),
        ("release", (16 / 9, -1.5 / 16, -4 / 9, -0.25)),
    ):
        env = make(BIG, formula=formula)
        info = play(env, (foot, stem + "\n/setblock 1 1 0 white_concrete"), Task("l", {"string": "L"}))
        assert tuple(info["reward_parts"].values()) == pytest.approx(expected)
        assert info["metrics"]["iou"] == pytest.approx(8 / 10)
        assert not info["success"]


def test_measures_by_agent_and_reason():
    first = (
        "Plan:\n/setblock 0 0 0 stone\n/setblock 9 0 0 stone\n/setblock 0 0 1 stone\n/setblock 0 1 0 obsidian"
    )
    second = "\n".join(["/setblock 0 0 0 obsidian"] * 151)
    metrics = play(make(BIG), (first, second), Task("l", {"string": "L"}))["metrics"]
    assert metrics == {
        "iou": pytest.approx(1 / 9),
        "adjacency": 0,
        "dropped": 5,
        "dropped_malformed": 1,
        "dropped_out_of_box": 2,
        "dropped_foreign_block": 1,
        "dropped_over_budget": 1,
        "lines_builder_0": 1,
        "dropped_builder_0": 4,
        "lines_builder_1": 150,
        "dropped_builder_1": 1,
    }


def slow_count(target, world):
    """The facts cell by cell."""
    width, height, _ = target.box
    at = {(x, y): int(world[x, y, 0]) for x in range(width) for y in range(height)}
    pairs = [(at[x, y], at[x + i, y + j]) for x, y in at for i, j in ((1, 0), (0, 1)) if (x + i, y + j) in at]
    pairs = [(a, b) for a, b in pairs if a and b]
    full = {cell for cell, block in at.items() if block}
    wanted = set(target.cells)
    return (
        len(full & wanted), len(full - wanted), len(pairs), sum(a == b for a, b in pairs),
        {block for block in at.values() if block},
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_counting_agrees_with_counting_cell_by_cell(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(1, 8, size=2))
    rows = ["".join(rng.choice(list("#."), size=width)) for _ in range(height)]
    world = rng.integers(0, rng.integers(1, 6), size=(width, height, 1)).astype(np.uint8)
    assert tuple(count(target_of(tuple(rows)), world)) == slow_count(target_of(tuple(rows)), world)


# -- the font and the plan -------------------------------------------------------------------------------------


def test_the_font():
    assert "".join(sorted(font.GLYPHS)) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert len(set(font.GLYPHS.values())) == 36
    for glyph in font.GLYPHS.values():
        assert [len(row) for row in glyph] == [5] * 5
        assert set("".join(glyph)) == {"#", "."}
    for one, other in itertools.combinations(font.GLYPHS.values(), 2):
        assert sum(a != b for a, b in zip("".join(one), "".join(other), strict=True)) >= 2


def test_words_are_spaced_by_two():
    assert font.write("LT") == (
        "#....  #####".replace(" ", "."),
        "#....    #  ".replace(" ", "."),
        "#....    #  ".replace(" ", "."),
        "#....    #  ".replace(" ", "."),
        "#####    #  ".replace(" ", "."),
    )
    assert [len(font.write("A" * n)[0]) for n in (1, 2, 4)] == [5, 12, 26]


def check_plan(rows, num_agents):
    """Every cell once, no two equal neighbours, own blocks, all four in use, equal shares."""
    target, plan = target_of(rows), shares(rows, num_agents)
    placed = {(x, y): block for share in plan for x, y, block in share}
    assert sorted(placed) == sorted(target.cells)
    assert sum(map(len, plan)) == len(placed)
    for x, y in placed:
        assert placed[x, y] not in (placed.get((x + 1, y)), placed.get((x, y + 1)))
    assert set(placed.values()) == {1, 2, 3, 4}
    for index, share in enumerate(plan):
        assert {block for *_, block in share} <= set(PALETTES[index % 2] if num_agents > 1 else (1, 2, 3, 4))
        assert 1 <= len(share) <= -(-len(placed) // num_agents)
        assert [cell[:2] for cell in share] == [
            cell for cell in target.cells if cell in {c[:2] for c in share}
        ]


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4])
def test_every_glyph_and_shape_has_a_plan(num_agents):
    for sign in font.GLYPHS:
        check_plan(font.write(sign), num_agents)
    for task in (*make(MINI).tasks, *make(MINI, split="test").tasks):
        check_plan(task.public["rows"], num_agents)


def test_a_target_of_one_colour_has_no_plan():
    with pytest.raises(ValueError, match="no plan for 4 even and 0 odd"):
        shares(("#.#", "...", "#.#"), 2)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("num_agents", [1, 2, 3, 4])
@pytest.mark.parametrize("env_id", [BIG, MINI])
def test_the_oracle_reaches_the_maximum_on_every_task(env_id, num_agents, formula):
    for split in ("train", "test"):
        env = make(env_id, formula=formula, num_agents=num_agents, num_turns=1, split=split)
        played = play_scripted(env, "oracle", env.tasks)
        assert {round(record["score"], 9) for record in played} == {2.0}
        assert all(record["success"] and record["metrics"]["dropped"] == 0 for record in played)
        assert all(record["metrics"][f"lines_{a}"] >= 1 for record in played for a in env.possible_agents)


@pytest.mark.parametrize("world", ["rebuilt", "kept"])
@pytest.mark.parametrize("env_id", [BIG, MINI])
def test_the_novice_is_weak(env_id, world):
    for num_agents in (1, 2, 3, 4):
        env = make(env_id, num_agents=num_agents, world=world)
        played = play_scripted(env, "novice", [env.tasks[i] for i in range(0, 500, 5)])
        assert 0.7 < np.mean([record["score"] for record in played]) < 1.75
        assert np.mean([record["success"] for record in played]) < 0.3
        assert sum(record["metrics"]["dropped"] for record in played) == 0


def test_the_novice_lists_cells_in_reading_order():
    env, rng = make(MINI, num_turns=2), np.random.default_rng(0)
    for index in range(100):
        env.reset(seed=0, options={"task": index})
        cells = [cell_at(word) for word in env.scripted("novice", "builder_1", rng).split()[::2]]
        assert cells == sorted(cells, key=lambda cell: (-cell[1], cell[0]))
        assert 2 <= len(cells) <= 4


# -- turns and feedback ----------------------------------------------------------------------------------------


def test_a_rebuilt_world_forgets_and_a_kept_one_does_not():
    task = shape(*CORNER)
    for world, covered in (("rebuilt", 1), ("kept", 2)):
        env = make(MINI, world=world, num_turns=3)
        play(env, ("a1 p b1 s", "b2 w"), task)
        *_, infos = env.step({"builder_0": "a2 s", "builder_1": "b2 air b1 air"})
        parts = infos["builder_0"]["reward_parts"]
        assert parts["coverage"] == pytest.approx(2 * covered / 3)
        assert parts["extra"] == 0  # rebuilt: empty; kept: cleared
    again, *_ = make(MINI, world="kept"), env.reset(seed=0, options={"task": task})
    assert play(again, ("", ""), task)["score"] == 0  # a new episode starts from an empty wall


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4])
def test_a_kept_world_can_be_put_right(num_agents):
    """Whatever stands there, the oracle ends at the maximum within the turns that its budget takes."""
    for formula in FORMULAS:
        env = make(MINI, world="kept", num_turns=12, num_agents=num_agents, formula=formula)
        rng = np.random.default_rng(num_agents)
        for index in range(0, 2000, 40):
            env.reset(seed=0, options={"task": index})
            for kind in ("novice", "novice", *["oracle"] * 8):
                if env.agents:
                    *_, infos = env.step({a: env.scripted(kind, a, rng) for a in env.agents})
            assert infos["builder_0"]["success"]


def follow(env, observations, last):
    """An agent that knows nothing but the perfect feedback and its own last reply."""
    replies = {}
    for agent, text in observations.items():
        wrong, extra = re.fullmatch(r"turn \d+ wrong (.*) extra (.*)", text).groups()
        mine = dict(zip(last[agent].split()[::2], last[agent].split()[1::2], strict=True))
        gone = [] if extra == "none" else extra.split()
        if env.world == "kept":
            mine = dict.fromkeys(gone, "air")
        else:
            mine = {cell: block for cell, block in mine.items() if cell not in gone}
        if wrong != "none":
            mine |= dict(zip(wrong.split()[::2], wrong.split()[1::2], strict=True))
        replies[agent] = " ".join(f"{cell} {block}" for cell, block in mine.items())
    return replies


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4])
def test_perfect_feedback_leads_to_the_maximum_in_one_turn(num_agents):
    rng = np.random.default_rng(0)
    for formula in FORMULAS:
        env = make(MINI, feedback="perfect_feedback", num_turns=3, num_agents=num_agents, formula=formula)
        for index in range(0, 2600, 20):
            env.reset(seed=0, options={"task": index})
            replies = {a: env.scripted("novice", a, rng) for a in env.agents}
            observations, _, _, _, infos = env.step(replies)
            if env.agents:
                *_, infos = env.step(follow(env, observations, replies))
            assert infos["builder_0"]["success"]
            assert not env.agents


def test_perfect_feedback_names_who_has_to_change_what():
    """Shares: even cells, in reading order b4 a3 c3 b2, go to builders 0, 1, 0, 1; so do the odd a4 b3."""
    task = shape("##..", "###.", ".#..", "....")
    replies = ("b4 p c3 p a4 s d1 p", "a3 w b3 o b2 w b4 air")  # all right, but for d1 and b4
    env = make(MINI, feedback="perfect_feedback", num_turns=2)
    env.reset(seed=0, options={"task": task})
    seen, *_ = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    assert seen == {
        "builder_0": "turn 2 wrong b4 p extra d1",
        "builder_1": "turn 2 wrong none extra b4",  # clearing another's cell spoils it, too
    }
    kept = make(MINI, feedback="perfect_feedback", num_turns=2, world="kept")
    kept.reset(seed=0, options={"task": task})
    seen, *_ = kept.step({"builder_0": "b4 p d4 p d1 p a1 s", "builder_1": "a3 w b4 o"})
    assert seen == {  # strays in reading order: d4 a1 d1
        "builder_0": "turn 2 wrong a4 s b4 p c3 p extra d4 d1",
        "builder_1": "turn 2 wrong b3 o b2 w extra a1",
    }


def test_what_feedback_says():
    task = Task("l", {"string": "L"})
    replies = (
        "/setblock 0 0 0 obsidian\n/setblock 0 4 0 stone\n/setblock 2 2 0 stone",
        "/setblock 0 3 0 obsidian",
    )
    seen = {}
    for mode in StrBuild.feedback_modes:
        env = make(BIG, feedback=mode)
        env.reset(seed=0, options={"task": task})
        seen[mode], *_ = env.step(dict(zip(env.possible_agents, replies, strict=True)))
        assert not any("/setblock" in text for text in seen[mode].values())
    # 2 of 9 covered, 1 of 25 extra, one pair, which is of two blocks
    assert seen["score_feedback"]["builder_1"] == "Turn 2 of 4. Last score 0.3844."
    position = seen["position_feedback"]["builder_0"]
    assert position.startswith("Turn 2 of 4. Covered: 2 of 9 target cells; blocks outside them: 1. ")
    assert "x y: 0 4, 0 3, 0 2, 0 1, 0 0, 1 0, 2 0, 3 0, 4 0. " in position
    # Even cells, in reading order, go to builders 0, 1, 0, 1, 0; odd ones to 1, 0, 1, 0.
    told = {agent: re.findall(r": ([^:]*?)\.", text) for agent, text in seen["perfect_feedback"].items()}
    assert told == {
        "builder_0": ["0 4 oak_planks, 0 1 stone, 0 0 oak_planks, 3 0 stone, 4 0 oak_planks", "2 2"],
        "builder_1": ["0 2 white_concrete, 1 0 obsidian, 2 0 white_concrete", "none"],
    }
    assert "leave to others or empty: 2 2." in seen["perfect_feedback"]["builder_0"]


def test_the_target_is_shown_when_asked_for():
    picture = "\n".join(font.write("MC"))

    def first(**settings):
        env = make(BIG, **settings)
        return env.reset(seed=0, options={"task": Task("t", {"string": "MC"})})[0]["builder_0"]

    assert picture in first()
    assert "#" not in first(show_target=False)
    assert "#" not in first(formula="release")
    assert picture in first(formula="release", show_target=True)
    assert picture in first(formula="release", feedback="score_feedback")  # nothing else would ever show it
    assert picture in first(formula="release", num_turns=1)
    for settings_ in ({"num_turns": 1}, {"feedback": "score_feedback"}):
        with pytest.raises(SettingError, match="hides the target for good"):
            make(BIG, show_target=False, **settings_)
    mini = make(MINI, show_target=False, feedback="position_feedback", num_turns=2)
    assert mini.reset(seed=0, options={"task": 0})[0]["builder_1"] == "blocks w o"


@pytest.mark.parametrize(
    "settings_", [{"world": "flat"}, {"show_target": "yes"}, {"num_agents": 5}, {"feedback": "x"}]
)
def test_wrong_settings_are_named(settings_):
    with pytest.raises(SettingError, match=next(iter(settings_))):
        make(BIG, **settings_)


def test_the_prompt_names_the_role():
    env = make(BIG, formula="release", num_agents=3)
    seen, _ = env.reset(seed=0)
    assert "Your blocks: oak_planks and stone;" in seen["builder_0"]
    assert "Your blocks: white_concrete and obsidian;" in seen["builder_1"]
    assert "Your blocks: oak_planks and stone;" in seen["builder_2"]
    assert all("At most 100 lines" in text and "each of your blocks" in text for text in seen.values())
    assert "come after those of builder_0 and before those of builder_2." in seen["builder_1"]
    alone = make(BIG, num_agents=1).reset(seed=0)[0]["builder_0"]
    assert "oak_planks and stone and white_concrete and obsidian" in alone
    assert "At most 300 lines" in alone
    assert "builder_1" not in alone
    assert "each of your blocks" not in alone


# -- sources ---------------------------------------------------------------------------------------------------


def test_built_in_words():
    train, test = ([t.public["string"] for t in make(BIG, split=s).tasks] for s in ("train", "test"))
    assert (len(train), len(test), len({*train, *test})) == (512, 128, 640)
    assert train[:8] == ["I", "C", "M", "L", "MC", "CM", "LI", "LLM"]
    assert test[:2] == ["ICML", "CLIM"]
    assert {len(word) for word in train} == {len(word) for word in test} == {1, 2, 3, 4, 5}
    assert set("".join(train)) == set(font.GLYPHS)
    assert all(sum(row.count("#") for row in font.write(word)) <= 100 for word in train + test)


def test_built_in_shapes():
    train, test = ([t.public["rows"] for t in make(MINI, split=s).tasks] for s in ("train", "test"))
    assert (len(train), len(test), len({*train, *test})) == (2626, 256, len(all_shapes()))
    for rows in (*train, *test):
        cells = {(x, y) for y, row in enumerate(rows) for x, sign in enumerate(row) if sign == "#"}
        assert len(cells) in (6, 7, 8)
        reached, new = set(), {min(cells)}
        while new:
            reached |= new
            new = {
                (x + i, y + j) for x, y in new for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))
            } & cells - reached
        assert reached == cells
    # All of them: known from growing a wall's subsets one by one.
    assert len(all_shapes()) == sum(slow_shapes().values()) == 2882


def slow_shapes():
    """Connected subsets of the 4 by 4 wall by size, found by looking at every subset."""
    near = {c: [c + d for d in (-4, 4) if 0 <= c + d < 16] + [c + d for d in (-1, 1) if c // 4 == (c + d) // 4]
            for c in range(16)}  # fmt: skip
    found = dict.fromkeys((6, 7, 8), 0)
    for size in found:
        for cells in map(frozenset, itertools.combinations(range(16), size)):
            reached, new = set(), {min(cells)}
            while new:
                reached |= new
                new = {other for cell in new for other in near[cell]} & cells - reached
            found[size] += reached == cells
    return found


def test_the_released_file():
    if not RELEASED.exists():
        pytest.skip(f"no {RELEASED}")
    env = make(BIG, source=str(RELEASED), split="all")
    assert [t.public["string"] for t in env.tasks] == [
        "I",
        "C",
        "M",
        "L",
        "MC",
        "CM",
        "LI",
        "LLM",
        "ICML",
        "CLIM",
    ]
    assert {r["score"] for r in play_scripted(env, "oracle", env.tasks)} == {2.0}


@pytest.mark.parametrize(
    ("env_id", "column", "value", "what"),
    [
        (BIG, "string", "ic", "row 2, field 'string': 'i' is not in the font"),
        (BIG, "string", "A B", "row 2, field 'string': ' ' is not in the font"),
        (BIG, "string", "\u00c4", "row 2, field 'string': '\u00c4' is not in the font"),
        (BIG, "string", "B" * 30, "row 2, field 'string': fills 480 cells, more than the 300 lines"),
        (BIG, "string", " ", "row 2, field 'string': empty"),
        (BIG, "word", "A", "needs the fields"),
        (MINI, "cells", "a1 a2 a3 b1 b2 e1", "row 2, field 'cells': 'e1' is no cell from a1 to d4"),
        (MINI, "cells", "a1 a2 a3 b1 b2 a5", "row 2, field 'cells': 'a5' is no cell"),
        (MINI, "cells", "a1 a2 a3 a4 c1 c2 c3", "row 2, field 'cells': must be 6 to 8 different cells"),
        (MINI, "cells", "a1 a2 a3 a4 b1 b1", "row 2, field 'cells': must be 6 to 8 different cells"),
    ],
)
def test_a_bad_row_is_named(tmp_path, env_id, column, value, what):
    good = "ABC" if env_id == BIG else "a1 a2 a3 b1 b2 b3"
    file = tmp_path / "mine.csv"
    file.write_text(f'{column},difficulty\n"{good}",1\n"{value}",1\n', encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(what)) as error:
        list(make(env_id, source=str(file), split="all").tasks)
    assert str(file) in str(error.value)


# -- the mini --------------------------------------------------------------------------------------------------


def test_the_mini_is_the_same_game():
    assert issubclass(StrBuildMini, StrBuild)
    assert all(
        getattr(StrBuildMini, name) is getattr(StrBuild, name)
        for name in ("advance", "components", "measure")
    )
    for formula in FORMULAS:
        assert make(MINI, formula=formula).reward_model.names == make(BIG, formula=formula).reward_model.names


def test_neither_builder_can_do_it_alone():
    env = make(MINI, num_turns=1)
    for index in range(0, 2600, 100):
        env.reset(seed=0, options={"task": index})
        replies = {"builder_0": env.scripted("oracle", "builder_0", np.random.default_rng()), "builder_1": ""}
        *_, infos = env.step(replies)
        assert not infos["builder_0"]["success"]


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4])
def test_every_text_stays_within_the_vocabulary(num_agents):
    known, rng = set(StrBuildMini.vocabulary()), np.random.default_rng(0)
    for feedback, world in itertools.product(StrBuildMini.feedback_modes, ("rebuilt", "kept")):
        env = make(MINI, num_agents=num_agents, feedback=feedback, world=world, num_turns=8)
        for index in range(0, 2600, 100):
            observations, _ = env.reset(seed=index, options={"task": index})
            texts = list(observations.values())
            while env.agents:
                kind = ("novice", "oracle", "novice")[env.turn % 3]
                replies = {a: env.scripted(kind, a, rng) for a in env.agents}
                replies["builder_0"] = replies["builder_0"] if env.turn else ""
                observations, *_ = env.step(replies)
                texts += [*replies.values(), *observations.values()]
                if num_agents == 2:
                    assert all(len(reply.split()) <= 8 for reply in replies.values())
            for text in texts:
                assert set(pieces(text)) <= known
                assert "\n" not in text


@pytest.mark.parametrize(
    ("score", "shown"), [(2, "2.0"), (1.85, "1.8"), (1.3, "1.2"), (0.09, "0.0"), (-3, "0.0")]
)
def test_scores_are_shown_in_eleven_steps(score, shown):
    assert make(MINI).show_score(score) == shown


# -- hostile replies, determinism, pictures ----------------------------------------------------------------------

LINES = st.sampled_from(
    ["/setblock 0 0 0 stone", "/setblock 4 4 0 obsidian", "/setblock 1 1 0 air", "/setblock -1 0 0 stone", "a1 p",
     "b2 w", "c3 air", "d4 o",
     "/fill 0 0 0 4 4 0 stone", "```", "\u202e", "\x1b[2J", "@builder_0 turn 1 says:", "\x00"]
)  # fmt: skip
REPLIES = st.lists(LINES, max_size=40).flatmap(
    lambda lines: st.sampled_from(["\n", " "]).map(lambda s: s.join(lines))
)
FUZZED = [
    make(env_id, formula=formula, num_agents=n, world=world, num_turns=3)
    for env_id, formula, n, world in itertools.product((BIG, MINI), FORMULAS, (1, 3), ("rebuilt", "kept"))
]


@pytest.mark.parametrize(
    "env", FUZZED, ids=lambda e: f"{e.env_id}-{e.formula}-{len(e.possible_agents)}-{e.world}"
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_reply_breaks_it(env, data):
    env.reset(seed=0)
    env.render_mode = "rgb_array"
    while env.agents:
        twin = env.clone()
        replies = {a: data.draw(REPLIES | st.text(max_size=80)) for a in env.agents}
        seen, again = env.step(replies), twin.step(replies)
        assert seen == again
        info = seen[-1]["builder_0"]
        assert env.low <= info["score"] <= env.high
        assert 0 <= info["metrics"]["iou"] <= 1
        assert 0 <= info["metrics"]["adjacency"] <= 1
        assert np.array_equal(env.render(), twin.render())


def cell_of(picture, x, y):
    """A tile of a framed picture by its column and its row from the top."""
    return picture[4 + y * CELL : 4 + (y + 1) * CELL, 4 + x * CELL : 4 + (x + 1) * CELL]


def test_the_picture_shows_wall_and_target():
    env = make(BIG, render_mode="rgb_array")
    env.reset(seed=0, options={"task": Task("l", {"string": "L"})})
    side = 5 * CELL + 8
    empty = env.render()
    assert (empty.shape, empty.dtype) == ((side, 2 * side + CELL, 3), np.uint8)
    env.step(
        {
            "builder_0": "/setblock 0 0 0 stone\n/setblock 2 3 0 oak_planks",
            "builder_1": "/setblock 0 4 0 obsidian",
        }
    )
    picture = env.render()
    wanted, wall = picture[:, :side], picture[:, side + CELL :]
    middle = CELL // 2
    assert np.array_equal(wanted, empty[:, :side])
    for x, y in itertools.product(range(5), range(5)):
        due = x == 0 or y == 4
        assert (tuple(cell_of(wanted, x, y)[middle, middle]) != SKY) == due
        tile = cell_of(wall, x, y)
        missing = due and (x, y) not in ((0, 4), (0, 0))
        assert (tuple(tile[0, middle]) == MISSING) == missing
        assert (tile == EXTRA).all(axis=2).any() == ((x, y) == (2, 1))
    assert tuple(cell_of(wall, 0, 4)[middle, middle]) == COLOURS["stone"]
    assert tuple(cell_of(wall, 0, 0)[middle, middle]) == COLOURS["obsidian"]
    assert tuple(cell_of(wall, 2, 1)[2, middle]) == COLOURS["oak_planks"]
    assert tuple(cell_of(wall, 4, 0)[middle, middle]) == SKY
    assert not np.array_equal(picture, empty)


def test_a_long_word_stands_above_its_wall():
    env = make(BIG, render_mode="rgb_array")
    env.reset(seed=0, options={"task": Task("w", {"string": "ICML"})})
    assert env.render().shape == (2 * (5 * CELL + 8) + CELL, 26 * CELL + 8, 3)


def test_the_text_picture_is_safe_and_true(capsys):
    env = make(MINI, render_mode="ansi")
    assert env.render() == ""
    env.reset(seed=0, options={"task": shape("#.", "##")})
    env.step({"builder_0": "a1 p b2 s", "builder_1": "\x1b[2J\x07 b1 w \u202e\x9b1m\r"})
    text = env.render()
    plain = re.sub(r"\x1b\[[0-9;]+m", "", text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", plain)
    assert r"\x1b[2J\x07 b1 w \u202e\x9b1m\r" in plain  # shown, not carried out
    assert plain.endswith("? s!   # .\np w    # #\n")
    assert "score 0.96 of 2.00" in plain  # 2 of 3 covered, 1 of 4 extra, two pairs of two blocks each
    env.render_mode = "human"
    assert env.render() is None
    assert capsys.readouterr().out == text + "\n"


def test_nothing_is_drawn_before_the_first_reset():
    env = make(BIG, render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="nothing to draw before reset"):
        env.render()
    assert env.metadata["render_modes"] == ["ansi", "human", "rgb_array"]
    assert make(BIG).render() is None


def test_the_terse_grammar_reads_what_the_mini_writes():
    reply = make(MINI).reply_text([(0, 0, 1), (3, 3, 4), (1, 2, 0)])
    assert reply == "a1 p d4 o b3 air"
    assert CellGrammar().scan(reply) == (
        [("setblock", (0, 0, 0), "p"), ("setblock", (3, 3, 0), "o"), ("setblock", (1, 2, 0), "air")],
        0,
    )
