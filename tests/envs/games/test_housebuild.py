"""HouseBuild: scores worked by hand, spiders, limits, feedback, scripts and pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs import DataError, SettingError, Task, make, play_scripted
from collm_envs.games.blocks import Fill, LineGrammar
from collm_envs.games.blueprints import blueprint
from collm_envs.games.draw import EXTRA, MISSING
from collm_envs.games.house_plan import limits, plan
from collm_envs.games.house_rules import COMPONENTS, Threat, full_stocks, measure, play_turn
from collm_envs.games.house_words import CuboidGrammar, Sentences, Terse
from collm_envs.games.isometric import isometric
from collm_envs.reward import RewardModel
from collm_envs.text import pieces

BIG, MINI = "games/housebuild-v0", "games/housebuild-mini-v0"
RELEASED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "house_build.json"

# 3 x 2 x 2 voxels. y=0: stone but for (1, 0, 1); y=1: one plank over (0, 0, 0). Six of twelve are not air.
# Of two builders each may place ceil(5/2) + floor(5/4) = 4 stone and 1 plank.
HUT = {
    "blocks": ("air", "stone", "planks"),
    "letters": "xsp",
    "layers": (("sss", "sxs"), ("pxx", "xxx")),
    "variant": "",
}
FRONT = "/fill 0 0 0 2 0 0 stone"
REST = "/fill 0 0 1 0 0 1 stone\n/fill 2 0 1 2 0 1 stone\n/fill 0 1 0 0 1 0 planks"
MILD, EVEN, HARD = (1, 1, 1), (2, 2, 1), (3, 3, 3)


def hut():
    return blueprint(HUT["blocks"], HUT["letters"], HUT["layers"])


def turn_of(first, second="", attacks=MILD, stocks=None, lines=300):
    house = hut()
    return play_turn(
        house,
        house.box.empty(),
        stocks or full_stocks(house, 2),
        Threat(attacks),
        [first, second],
        grammar=LineGrammar(("fill", "kill")),
        blocks=house.index,
        lines=lines,
    )


# name -> attacks, the two replies, parts of the paper's score, parts of the release's
CASES = {
    "nothing": (MILD, "", "", (0, 0, -0.2 * 3 / 5), (6 / 12, -0.1 * 3 / 5)),
    "nothing_and_damage_equal_to_hp": (EVEN, "", "", (0, 0, -0.2), (6 / 12, -0.1)),
    "nothing_and_damage_capped": (HARD, "", "", (0, 0, -0.2), (6 / 12, -0.1)),
    "kill_by_the_first": (HARD, "/kill", "", (0, 0, 0), (6 / 12, 0)),
    "kill_by_the_second": (HARD, "", "/kill", (0, 0, 0), (6 / 12, 0)),
    "kill_by_both": (HARD, "/kill", "/kill", (0, 0, 0), (6 / 12, 0)),
    "kill_in_prose": (HARD, "We should use /kill on them.", "kill all of them", (0, 0, -0.2), (6 / 12, -0.1)),
    "kill_behind_a_fill": (HARD, f"{FRONT} /kill", "", (0, 0, -0.2), (6 / 12, -0.1)),
    "kill_of_others": (HARD, "/kill @e[type=cow]", "/kill @a", (0, 0, -0.2), (6 / 12, -0.1)),
    "all": (HARD, FRONT, f"{REST}\n/kill", (2, 0, 0), (1, 0)),
    "all_but_the_kill": (MILD, FRONT, REST, (2, 0, -0.12), (1, -0.06)),
    "front_only": (HARD, f"{FRONT}\n/kill", "", (2 * 3 / 6, 0, 0), (9 / 12, 0)),
    "rest_only": (HARD, "/kill", REST, (2 * 3 / 6, 0, 0), (9 / 12, 0)),
    "one_block_of_the_wrong_kind": (HARD, "/fill 0 0 0 0 0 0 planks", "/kill", (0, 0, 0), (6 / 12, 0)),
    "one_too_many": (HARD, "/fill 0 1 1 0 1 1 stone", "/kill", (0, -1.5 / 12, 0), (5 / 12, 0)),
    # (0..2, 0, 1) holds two right voxels and one where there should be air
    "two_right_and_one_too_many": (
        HARD, "/fill 0 0 1 2 0 1 stone", "/kill", (2 * 2 / 6, -1.5 / 12, 0), (7 / 12, 0)
    ),
    "over_the_limit_is_dropped_whole": (HARD, "/fill 0 0 0 2 0 1 stone", "/kill", (0, 0, 0), (6 / 12, 0)),
    "a_smaller_one_still_fits": (
        HARD, f"/fill 0 0 0 2 0 1 stone\n{FRONT}", "/kill", (2 * 3 / 6, 0, 0), (9 / 12, 0)
    ),
    "the_limit_counts_over_all_lines": (  # 3 of 4 stone are spent, 2 more do not fit, 1 does
        HARD,
        f"{FRONT}\n/fill 0 0 1 1 0 1 stone\n/fill 0 0 1 0 0 1 stone\n/kill",
        "",
        (2 * 4 / 6, 0, 0),
        (10 / 12, 0),
    ),
    "a_voxel_filled_twice_counts_twice": (
        HARD, f"{FRONT}\n{FRONT}\n/fill 2 0 1 2 0 1 stone\n/kill", "", (2 * 4 / 6, 0, 0), (10 / 12, 0)
    ),
    "limits_are_each_builders_own": (
        HARD, f"{FRONT}\n/fill 0 0 1 0 0 1 stone", "/fill 2 0 1 2 0 1 stone\n/kill", (2 * 5 / 6, 0, 0), (11 / 12, 0)
    ),
    "overwritten_by_the_second": (HARD, FRONT, "/fill 0 0 0 0 0 0 planks\n/kill", (2 * 2 / 6, 0, 0), (8 / 12, 0)),
    "overwritten_with_what_is_right": (
        HARD, "/fill 0 0 0 0 0 0 planks", "/fill 0 0 0 0 0 0 stone\n/kill", (2 / 6, 0, 0), (7 / 12, 0)
    ),
    "overwritten_by_its_own_later_line": (
        HARD, "/fill 0 0 0 0 0 0 planks\n/fill 0 0 0 0 0 0 stone\n/kill", "", (2 / 6, 0, 0), (7 / 12, 0)
    ),
    "cleared_with_air_which_is_free": (
        HARD, FRONT, "/fill 0 0 0 2 1 1 air\n/fill 0 0 0 2 1 1 air\n/kill", (0, 0, 0), (6 / 12, 0)
    ),
    "corners_in_any_order": (HARD, "/fill 2 0 0 0 0 0 stone\n/kill", "", (2 * 3 / 6, 0, 0), (9 / 12, 0)),
    "out_of_the_box": (
        HARD, "/fill 0 0 0 3 0 0 stone\n/fill 0 0 0 0 0 -1 stone\n/kill", "", (0, 0, 0), (6 / 12, 0)
    ),
    "another_block": (HARD, "/fill 0 0 0 0 0 0 gold_block\n/kill", "", (0, 0, 0), (6 / 12, 0)),
    "no_setblock_here": (HARD, "/setblock 0 0 0 stone\n/kill", "", (0, 0, 0), (6 / 12, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_scores_by_hand(name):
    attacks, first, second, *parts = CASES[name]
    turn = turn_of(first, second, attacks)
    for formula, due in zip(("paper", "release"), parts, strict=True):
        score = RewardModel(COMPONENTS[formula])(turn)
        assert list(score.parts.values()) == pytest.approx(due, abs=1e-12)
        assert score.total == pytest.approx(sum(due), abs=1e-12)


def test_a_box_filled_with_one_block_by_builders_with_plenty():
    turn = turn_of("/fill 0 0 0 2 1 1 stone\n/kill", stocks=({}, {}))
    paper, release = (RewardModel(COMPONENTS[formula])(turn) for formula in ("paper", "release"))
    assert paper.parts == pytest.approx({"coverage": 2 * 5 / 6, "redundancy": -1.5 * 6 / 12, "bites": 0})
    assert release.total == pytest.approx(5 / 12)
    assert turn.iou == pytest.approx(5 / 12)


@pytest.mark.parametrize(
    ("replies", "iou"),
    [
        (("", ""), 0),
        ((FRONT, REST), 1),
        ((FRONT, ""), 3 / 6),
        (("/fill 0 0 1 2 0 1 stone", ""), 2 / 7),
        (("/fill 0 0 0 0 0 0 planks", ""), 0),
    ],
)
def test_iou_by_hand(replies, iou):
    assert turn_of(*replies).iou == pytest.approx(iou)


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("/kill", True),
        ("kill", True),
        ("/KILL", True),
        ("  /kill  ", True),
        ("- /kill", True),
        ("/kill @e[type=spider]", True),
        ("/kill @e[type=minecraft:spider,distance=..10]", True),
        ("/kill @e[ distance=..10, type = spider ]", True),
        ("/kill @e[type = cow]", False),
        ("/kill @e", True),
        ("/kill @e[distance=..10]", True),
        ("```\n/kill\n```", True),
        ("/kill # now", True),
        ("first I /kill the spiders", False),
        ("/kill the spiders", False),
        ("/kill @e[type=cow]", False),
        ("/kill @e[type=!player]", False),
        ("/kill @p", False),
        ("/killer", False),
        ("/kill/kill", False),
        ("# /kill", False),
        ("overkill", False),
        ("/damage @e[type=spider] 10", False),
    ],
)
def test_only_a_command_of_its_own_kills(text, kills):
    turn = turn_of(text)
    assert turn.threat.alive is not kills
    assert turn.damage == (0 if kills else 3)


def test_what_is_measured_beside_the_parts():
    text = "\n".join(["Let us build.", "/fill 0 0 0 2 0 1 stone", "/fill 9 0 0 9 0 0 stone", FRONT, "/kill"])
    turn = turn_of(text, "/fill 0 0 0 0 0 0 lava\n/fill 0 1 0 0 1 0 planks", lines=2)
    assert measure(turn) == {
        "iou": 4 / 6,
        "exact_iou": 4 / 6,
        "hp": 1.0,
        "killed": 1.0,
        "dropped": 4.0,
        "dropped_malformed": 1.0,
        "dropped_out_of_box": 1.0,
        "dropped_foreign_block": 1.0,
        "dropped_over_budget": 0.0,
        "dropped_over_limit": 1.0,
    }
    assert measure(turn_of(f"{FRONT}\n/kill", lines=1))["dropped_over_budget"] == 1
    assert measure(turn_of("", attacks=(1, 1)))["hp"] == 3 / 5
    assert measure(turn_of("", attacks=HARD))["hp"] == 0


# -- turns ---------------------------------------------------------------------------------------------------


def env_on(task, name=BIG, attacks=None, **settings):
    """An environment at the start of a task, with a seed that draws these attacks."""
    env = make(name, **settings)
    for seed in range(500):
        env.reset(seed=seed, options={"task": task})
        if attacks in (None, env._state.threat.attacks):
            return env
    raise AssertionError(f"no seed draws {attacks}")


def both(env, first, second=""):
    """One turn; the joint info."""
    *_, infos = env.step({"builder_0": first, "builder_1": second})
    return infos["builder_0"]


HUT_TASK = Task("hut", HUT)


def test_attacks_are_drawn_from_one_to_three_by_the_seed():
    env = make(BIG)
    drawn = []
    for seed in range(60):
        env.reset(seed=seed, options={"task": 0})
        attacks = env._state.threat.attacks
        env.reset(seed=seed, options={"task": 0})
        assert env._state.threat.attacks == attacks
        drawn.append(attacks)
    assert {len(attacks) for attacks in drawn} == {3}
    assert {attack for attacks in drawn for attack in attacks} == {1, 2, 3}
    text = env.prompt(env._state, "builder_1")
    assert f"3 spiders, attack {', '.join(map(str, drawn[-1]))} ({sum(drawn[-1])} in all)" in text


def test_in_a_rebuilt_world_blocks_go_and_spiders_come_back():
    env = env_on(HUT_TASK, attacks=(1, 1, 1))
    info = both(env, f"{FRONT}\n/kill", REST.replace("planks", "stone"))
    assert info["score"] == pytest.approx(2 * 5 / 6)  # five stone; the plank's voxel is of the wrong kind
    info = both(env, FRONT)
    assert info["score"] == pytest.approx(2 * 3 / 6 - 0.12)
    assert info["metrics"]["hp"] == 2 / 5
    info = both(env, FRONT)  # the limit is whole again
    assert info["score"] == pytest.approx(2 * 3 / 6 - 0.12)
    assert info["metrics"]["hp"] == 0


def test_in_a_kept_world_blocks_stay_limits_run_out_and_dead_spiders_stay_dead():
    env = env_on(HUT_TASK, attacks=(1, 1, 1), world="kept")
    assert both(env, FRONT)["score"] == pytest.approx(2 * 3 / 6 - 0.12)
    info = both(env, "/kill\n/fill 0 0 1 1 0 1 stone")  # one stone is left, two do not fit
    assert info["metrics"]["dropped_over_limit"] == 1
    assert info["score"] == pytest.approx(2 * 3 / 6)
    info = both(env, "/fill 0 0 1 0 0 1 stone")
    assert info["score"] == pytest.approx(2 * 4 / 6)  # no /kill in this turn, and no bite
    assert info["metrics"]["hp"] == 2 / 5
    info = both(env, FRONT, "/fill 2 0 1 2 0 1 stone\n/fill 0 1 0 0 1 0 planks")
    assert info["success"]
    assert info["score"] == 2.0


def test_success_needs_a_living_party_that_is_not_bitten():
    env = env_on(HUT_TASK, attacks=(1, 1, 1))
    assert not both(env, FRONT, REST)["success"]
    assert both(env, FRONT, f"{REST}\n/kill")["success"]
    assert not env.agents
    env = env_on(HUT_TASK, attacks=(3, 3, 3))
    assert not both(env, "")["success"]
    dead = both(env, FRONT, f"{REST}\n/kill")
    assert (dead["score"], dead["metrics"]["hp"], dead["success"]) == (2.0, 0.0, False)
    assert env.agents


@pytest.mark.parametrize("formula", ["paper", "release"])
def test_success_implies_the_score_that_the_default_would_demand(formula):
    env = make(BIG, formula=formula, num_turns=1)
    rng = np.random.default_rng(0)
    seen = set()
    for index in range(120):
        env.reset(seed=index, options={"task": index % 40})
        replies = {a: env.scripted("oracle", a, rng).split("\n") for a in env.agents}
        for lines in replies.values():
            for _ in range(int(rng.integers(0, 2))):
                lines.pop(int(rng.integers(len(lines))))
        *_, infos = env.step({a: "\n".join(lines) for a, lines in replies.items()})
        info = infos["builder_0"]
        seen.add((info["success"], info["score"] == pytest.approx(env.high)))
        if info["success"]:
            assert info["score"] >= 0.95 * env.high - 1e-9
            assert info["metrics"]["iou"] >= 0.95
    assert (True, False) in seen
    assert (False, False) in seen


def test_an_empty_build_looks_bad_under_either_formula():
    for formula in ("paper", "release"):
        env = make(BIG, formula=formula, num_turns=1)
        records = []
        for index in range(20):
            env.reset(seed=index, options={"task": index})
            records.append(both(env, "/kill"))
        assert not any(record["success"] or record["metrics"]["iou"] for record in records)
        assert all(record["score"] <= 0.8 * env.high for record in records)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), world=st.sampled_from(["rebuilt", "kept"]))
def test_nobody_ever_places_more_than_the_limit(data, world):
    env = make(BIG, world=world, num_turns=3)
    env.reset(seed=0, options={"task": data.draw(st.integers(0, 30))})
    house = env._state.blueprint
    most = limits(house, 2)
    spent = [dict.fromkeys(most, 0) for _ in range(2)]
    line = st.builds(
        lambda a, b, block: f"/fill {a[0]} {a[1]} {a[2]} {b[0]} {b[1]} {b[2]} {block}",
        *[st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 6))] * 2,
        st.sampled_from(house.blocks),
    )
    while env.agents:
        if world == "rebuilt":
            spent = [dict.fromkeys(most, 0) for _ in range(2)]
        *_, infos = env.step({a: "\n".join(data.draw(st.lists(line, max_size=12))) for a in env.agents})
        last = env._state.last
        for mine, said, left in zip(spent, last.parsed, last.stocks, strict=True):
            for command in said.commands:
                if command.block:
                    mine[command.block] += command.volume
            assert left == {block: most[block] - used for block, used in mine.items()}
            assert min(left.values()) >= 0
        counted = np.bincount(last.world.ravel(), minlength=len(house.blocks))
        assert all(counted[block] <= 2 * limit for block, limit in most.items())
        right = ((last.world == house.target) & house.mask).sum()
        extra = ((last.world > 0) & ~house.mask).sum()
        score = 2 * right / house.mask.sum() - 1.5 * extra / 294 - 0.2 * min(1, last.damage / 5)
        assert infos["builder_0"]["score"] == pytest.approx(score)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("abz19 xpskil/\n\r\t,;[]=@e\u2028漢\x00"), max_size=60), min_size=2,
                      max_size=2))  # fmt: skip
def test_no_text_breaks_a_turn(texts):
    house = hut()
    for words in (Sentences(), Terse()):
        grammar, names = words.grammar(house), words.blocks(house)
        turn = play_turn(house, house.box.empty(), full_stocks(house, 2), Threat(MILD), texts, grammar=grammar,
                         blocks=names, lines=4)  # fmt: skip
        for said in turn.parsed:
            assert len(said.commands) + said.dropped.total() == said.lines
            assert len(said.commands) <= 4
        for formula, low in (("paper", -1.7), ("release", -0.1)):
            assert low <= RewardModel(COMPONENTS[formula])(turn).total <= 2


def test_a_clone_goes_its_own_way():
    env = env_on(HUT_TASK, attacks=(1, 1, 1), world="kept")
    both(env, FRONT)
    twin = env.clone()
    assert both(twin, "", f"{REST}\n/kill")["score"] == 2.0
    assert both(env, "/fill 0 0 0 2 0 0 air\n/kill")["score"] == 0.0


def test_a_team_shares_its_lines_and_a_single_builder_has_everything():
    for name, total in ((BIG, 600), (MINI, 12)):
        for count in (1, 2, 3, 4):
            env = make(name, num_agents=count)
            observations, _ = env.reset(seed=0, options={"task": 0})
            due = total // count
            assert all(re.search(rf"\b{due} lines|lines {due}\b", text) for text in observations.values())
            assert env._state.stocks == (limits(env._state.blueprint, count),) * count
    alone = make(BIG, num_agents=1)
    alone.reset(seed=0, options={"task": HUT_TASK})
    *_, infos = alone.step({"builder_0": f"{FRONT}\n{REST}\n/kill"})
    assert infos["builder_0"]["success"]


def test_a_world_that_is_none_is_refused():
    with pytest.raises(SettingError, match="world='flat'"):
        make(BIG, world="flat")
    with pytest.raises(DataError, match="6 x 7 x 7 has more cells than there are names"):
        make(MINI).reset(options={"task": make(BIG).tasks[0]})


# -- words ---------------------------------------------------------------------------------------------------


def test_the_prompt_holds_the_whole_house_and_the_limits():
    env = make(BIG)
    for index in range(0, 256, 16):
        observations, _ = env.reset(seed=0, options={"task": index})
        house, text = env._state.blueprint, observations["builder_1"]
        grid = np.zeros(house.box, int)
        for y, layer in re.findall(r"^y=(\d): (.*)$", text, re.MULTILINE):
            for block, *at in re.findall(r"(\w+) (\d) (\d) (\d) (\d)", layer):
                x1, z1, x2, z2 = map(int, at)
                grid[x1 : x2 + 1, int(y), z1 : z2 + 1] = house.blocks.index(block)
        assert np.array_equal(grid, house.target)
        for block, most in limits(house, 2).items():
            assert f"{most} {house.blocks[block]}" in text
        assert "the party has 5 of 5 HP" in text
        assert "Every turn starts with an empty box" in text
    assert "Blocks stay from turn to turn" in make(BIG, world="kept").reset(seed=0)[0]["builder_0"]


def test_the_small_prompt_by_hand():
    env = env_on(HUT_TASK, MINI, attacks=(2,))
    text = "build a1 a3 s b1 s b3 s c1 p have s 4 p 1 lines 6 spider 2 hp 5"
    assert env.prompt(env._state, "builder_0") == text
    env = env_on(HUT_TASK, MINI, attacks=(2,), world="kept", num_agents=4)
    text = text.replace("s 4", "s 2").replace("lines 6", "lines 3")
    assert env.prompt(env._state, "builder_3") == f"{text} kept"


@pytest.mark.parametrize(
    ("reply", "found", "malformed"),
    [
        ("", [], 0),
        ("a1 c2 s", [((0, 0, 0), (1, 0, 2), "s")], 0),
        ("d3 d3 p a1 q", [((2, 1, 0), (2, 1, 0), "p"), ((0, 0, 0), (0, 0, 0), "q")], 0),
        ("kill", ["kill"], 0),
        ("/kill a1 s kill", ["kill", ((0, 0, 0), (0, 0, 0), "s"), "kill"], 0),
        ("a1 s", [((0, 0, 0), (0, 0, 0), "s")], 0),
        ("s", [], 1),
        ("a1", [], 1),
        ("a1 a2", [], 2),
        ("a1 a2 a3 s", [((1, 0, 0), (2, 0, 0), "s")], 1),
        ("a1 kill a2 s", ["kill", ((1, 0, 0), (1, 0, 0), "s")], 1),
        ("a0 A1 a10 kills", [], 4),
        ("we kill", ["kill"], 1),
    ],
)
def test_the_small_grammar(reply, found, malformed):
    due = [("kill", (), "") if f == "kill" else ("fill", (*f[0], *f[1]), f[2]) for f in found]
    assert CuboidGrammar(3).scan(reply) == (due, malformed)


FEEDBACK = (
    "score_feedback",
    "position_modification",
    "rect_modification",
    "resource_schedule",
    "perfect_feedback",
)


def after_a_novice_turn(name, feedback, task, **settings):
    env = make(name, feedback=feedback, **settings)
    env.reset(seed=task, options={"task": task})
    rng = np.random.default_rng(task)
    observations, *_ = env.step({a: env.scripted("novice", a, rng) for a in env.agents})
    return env, observations


def test_feedback_by_hand():
    first, second = "/fill 0 0 0 1 0 0 stone\nhello\n/fill 2 1 1 2 1 1 planks", "/kill"
    due = {
        "score_feedback": "",
        "position_modification": "\nWrong voxels (x y z):\n2 0 0: is air, should be stone\n0 0 1: is air, should "
        "be stone\n2 0 1: is air, should be stone\n0 1 0: is air, should be planks\n2 1 1: is planks, should be "
        "air",
        "rect_modification": "\nWrong rectangles, with the block that should be there:\n/fill 2 0 0 2 0 1 stone\n"
        "/fill 0 0 1 0 0 1 stone\n/fill 0 1 0 0 1 0 planks\n/fill 2 1 1 2 1 1 air",
        "resource_schedule": "\nYour accepted fills:\n/fill 0 0 0 1 0 0 stone\n/fill 2 1 1 2 1 1 planks\n"
        "Your dropped lines: 1 malformed.\nLeft of your blocks: 2 stone, 0 planks.\nA plan for your next turn:\n",
        "perfect_feedback": "\nWrong in your share:\n",
    }  # fmt: skip
    for mode in FEEDBACK:
        env = env_on(HUT_TASK, feedback=mode)
        observations, *_ = env.step({"builder_0": first, "builder_1": second})
        head = "Turn 2 of 4. Last score: 0.5417 of 2. Nobody was bitten; the party has 5 of 5 HP."
        text = observations["builder_0"]
        assert text.startswith(head + due[mode])
        if mode in FEEDBACK[:3]:
            assert text == head + due[mode] == observations["builder_1"]


def test_feedback_of_the_small_one_by_hand():
    due = {
        "score_feedback": "",
        "position_modification": " wrong a3 s b1 s b3 s c1 p d3 x",
        "rect_modification": " wrong a3 b3 s b1 s c1 p d3 x",
        "resource_schedule": " done a1 a2 s d3 p left s 2 p 0 plan ",
        "perfect_feedback": " fix ",
    }
    for mode in FEEDBACK:
        env = env_on(HUT_TASK, MINI, feedback=mode, attacks=(2,))
        observations, *_ = env.step({"builder_0": "a1 a2 s hello d3 p", "builder_1": ""})
        # 2 x 2/6 - 1.5/12 - 0.2 x 2/5 = 0.46, shown to the nearest 0.2
        assert observations["builder_0"].startswith(f"turn 2 score 0.4 hp 3{due[mode]}")


@pytest.mark.parametrize(("name", "cut_at"), [(BIG, 20), (MINI, 6)])
def test_long_lists_are_cut_and_say_so(name, cut_at):
    env = make(name, feedback="position_modification")
    env.reset(seed=0, options={"task": 1})
    observations, *_ = env.step(dict.fromkeys(env.agents, ""))
    text, solid = observations["builder_0"], env._state.blueprint.solid
    if name == BIG:
        assert text.count("should be") == cut_at
        assert text.endswith(f"and {solid - cut_at} more")
    else:
        assert len(text.partition("wrong ")[2].split()) == 2 * cut_at


def commands_in(env, text):
    house = env._state.blueprint
    grammar, names = env.words.grammar(house), env.words.blocks(house)
    return [Fill(*numbers, names[block]) for verb, numbers, block in grammar.scan(text)[0] if verb == "fill"]


@pytest.mark.parametrize("name", [BIG, MINI])
@pytest.mark.parametrize("task", range(12))
def test_the_rectangles_of_feedback_mend_the_house(name, task):
    env, _ = after_a_novice_turn(name, "rect_modification", task)
    env.shown = 10**6
    text = env.prompt(env._state, "builder_0")
    house, world = env._state.blueprint, env._state.last.world.copy()
    fills = commands_in(env, text.partition("wrong ")[2] or text)
    for fill in fills:
        world[fill.x1 : fill.x2 + 1, fill.y1 : fill.y2 + 1, fill.z1 : fill.z2 + 1] = fill.block
    assert np.array_equal(world, house.target)
    assert sum(fill.volume for fill in fills) == (env._state.last.world != house.target).sum()


@pytest.mark.parametrize("name", [BIG, MINI])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_everything_wrong_is_in_somebodys_share(name, count):
    for task in range(8):
        env, observations = after_a_novice_turn(name, "perfect_feedback", task, num_agents=count)
        house, world = env._state.blueprint, env._state.last.world
        times = np.zeros(house.box, int)
        for text in observations.values():
            for fill in commands_in(env, text.partition("fix ")[2] or text):
                where = slice(fill.x1, fill.x2 + 1), slice(fill.y1, fill.y2 + 1), slice(fill.z1, fill.z2 + 1)
                times[where] += 1
                assert (house.target[where] == fill.block).all()
        wrong = world != house.target
        assert np.array_equal(times[house.mask], wrong[house.mask].astype(int))
        assert np.array_equal(times[~house.mask], count * wrong[~house.mask])


@pytest.mark.parametrize("name", [BIG, MINI])
@pytest.mark.parametrize("world", ["rebuilt", "kept"])
def test_builders_who_follow_the_schedule_finish(name, world):
    for task in range(8):
        env, _ = after_a_novice_turn(name, "resource_schedule", task, world=world)
        texts = {a: env.prompt(env._state, a) for a in env.possible_agents}
        sign = "next turn:\n" if name == BIG else "plan "
        before = env._state.last.iou
        *_, infos = env.step({a: text.rpartition(sign)[2] for a, text in texts.items()})
        metrics = infos["builder_0"]["metrics"]
        assert metrics["exact_iou"] == 1 if world == "rebuilt" else metrics["exact_iou"] >= before
        assert (metrics["killed"], metrics["dropped"]) == (1, 0)


def test_every_text_of_the_small_one_stays_within_its_vocabulary():
    known = set(type(make(MINI)).vocabulary())
    assert len(known) <= 90
    rng = np.random.default_rng(0)
    for feedback in FEEDBACK:
        for count in (1, 2, 3, 4):
            for world in ("rebuilt", "kept"):
                env = make(MINI, feedback=feedback, num_agents=count, world=world)
                for index in range(0, 3072, 190):
                    observations, _ = env.reset(seed=index, options={"task": index})
                    texts = list(observations.values())
                    while env.agents:
                        kind = ("novice", "oracle")[int(rng.random() < 0.2)]
                        replies = {a: env.scripted(kind, a, rng) for a in env.agents}
                        observations, *_ = env.step(replies)
                        texts += [*replies.values(), *observations.values()]
                    assert {piece for text in texts for piece in pieces(text)} <= known


# -- scripts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formula", "high"), [("paper", 2.0), ("release", 1.0)])
@pytest.mark.parametrize("name", [BIG, MINI])
def test_the_oracle_reaches_the_top_on_every_house(name, formula, high):
    for split in ("train", "test"):
        env = make(name, formula=formula, split=split)
        assert env.high == high
        records = play_scripted(env, "oracle", list(env.tasks))
        assert all(r["score"] == pytest.approx(high, abs=1e-12) for r in records)
        assert all(r["success"] and r["turns"] == 1 for r in records)
        assert not any(r["metrics"]["dropped"] for r in records)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("world", ["rebuilt", "kept"])
def test_the_oracle_in_teams_of_every_size(count, world):
    for name in (BIG, MINI):
        env = make(name, num_agents=count, world=world)
        tasks = list(env.tasks)[:: 4 if name == BIG else 48]
        assert all(r["success"] and r["score"] == 2.0 for r in play_scripted(env, "oracle", tasks))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("formula", "high"), [("paper", 2.0), ("release", 1.0)])
def test_the_oracle_on_the_released_houses(count, formula, high):
    if not RELEASED.exists():
        pytest.skip("the released blueprints are not here")
    env = make(BIG, source=str(RELEASED), split="all", num_agents=count, formula=formula)
    records = play_scripted(env, "oracle", list(env.tasks))
    assert [(r["score"], r["success"]) for r in records] == [(high, True)] * 10


def test_the_oracle_mends_a_kept_world_after_others():
    done = 0
    for task in range(30):
        env = make(MINI, world="kept")
        env.reset(seed=task, options={"task": task})
        rng = np.random.default_rng(task)
        env.step({a: env.scripted("novice", a, rng) for a in env.agents})
        if env.agents:
            *_, infos = env.step({a: env.scripted("oracle", a, rng) for a in env.agents})
            done += infos["builder_0"]["metrics"]["exact_iou"] == 1
    assert done >= 10  # blocks that both had placed are gone for good


@pytest.mark.parametrize(("name", "low", "high"), [(BIG, 0.7, 1.1), (MINI, 0.9, 1.3)])
def test_the_novice_is_weak_and_within_its_means(name, low, high):
    env = make(name, num_turns=1)
    records = play_scripted(env, "novice", [env.tasks[i % len(env.tasks)] for i in range(500)])
    assert low <= np.mean([r["score"] for r in records]) <= high
    assert np.mean([r["success"] for r in records]) <= 0.02
    assert not any(r["metrics"]["dropped"] for r in records)
    assert 0.7 <= np.mean([r["metrics"]["killed"] for r in records]) <= 0.8  # each half of the time


def test_small_replies_are_short():
    rng = np.random.default_rng(0)
    env = make(MINI)
    for index in range(0, 3072, 8):
        env.reset(seed=0, options={"task": index})
        for agent in env.agents:
            for kind, words in (("novice", 10), ("oracle", 10)):
                assert len(env.scripted(kind, agent, rng).split()) <= words


def test_novices_write_in_reading_order():
    rng = np.random.default_rng(0)
    for name in (BIG, MINI):
        env = make(name)
        for index in range(40):
            env.reset(seed=0, options={"task": index})
            corners = [(f.y1, f.z1, f.x1) for f in commands_in(env, env.scripted("novice", "builder_0", rng))]
            assert corners == sorted(corners)


# -- pictures ------------------------------------------------------------------------------------------------

GREY, BROWN = (120, 120, 120), (160, 110, 60)


def has(pixels, colour):
    return bool((pixels == np.array(colour)).all(axis=2).any())


def test_marks_of_a_picture():
    target = hut().target
    colours = [(0, 0, 0), GREY, BROWN]
    clean = isometric(target, target, colours)
    assert np.array_equal(clean, isometric(target, None, colours))
    assert clean.dtype == np.uint8
    assert not has(clean, MISSING)
    wrong, extra, missing = target.copy(), target.copy(), target.copy()
    wrong[0, 1, 0], extra[2, 1, 0], missing[0, 1, 0] = 1, 1, 0
    assert has(isometric(wrong, target, colours), MISSING)
    assert has(isometric(extra, target, colours), EXTRA)
    ghost = isometric(missing, target, colours)
    assert ghost.shape == clean.shape
    assert not np.array_equal(ghost, isometric(missing, None, colours))
    assert has(clean, GREY)  # a top in full light
    assert has(clean, BROWN)


def test_what_stands_in_front_hides_what_is_behind():
    world = np.zeros((3, 3, 3), np.uint8)
    world[:] = 1
    hollow = world.copy()
    hollow[1, 1, 1] = 0
    hollow[0, 0, 2] = 0  # the far lower corner
    colours = [(0, 0, 0), GREY]
    assert np.array_equal(isometric(world, None, colours), isometric(hollow, None, colours))
    hollow[2, 2, 0] = 0  # the near upper corner
    assert not np.array_equal(isometric(world, None, colours), isometric(hollow, None, colours))


@pytest.mark.parametrize("name", [BIG, MINI])
def test_rendering(name, capsys):
    env = make(name, render_mode="rgb_array")
    env.reset(seed=0, options={"task": 3})
    frames = [env.render()]
    rng = np.random.default_rng(0)
    env.step({a: env.scripted("novice", a, rng) for a in env.agents})
    frames.append(env.render())
    env.step({a: env.scripted("oracle", a, rng) for a in env.agents})
    frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {(frames[0].shape, np.dtype(np.uint8))}
    built, plan_drawn = (
        frames[2][:, : (frames[2].shape[1] - 16) // 2],
        frames[2][:, -((frames[2].shape[1] - 16) // 2) :],
    )
    assert np.array_equal(built, plan_drawn)
    assert not np.array_equal(frames[0], frames[1])
    text = make(name, render_mode="ansi")
    text.reset(seed=0, options={"task": 3})
    text.step({a: text.scripted("novice", a, rng) for a in text.agents})
    shown = text.render()
    height = text._state.blueprint.box.size_y
    assert all(f"y={y}" in shown for y in range(height))
    assert "\x1b[48;2;" in shown
    assert "HP" in shown
    loud = make(name, render_mode="human")
    loud.reset(seed=0, options={"task": 3})
    assert loud.render() is None
    assert "y=0" in capsys.readouterr().out


def test_every_plan_is_found_once():
    house = hut()
    assert plan(house, 2) is plan(house, 2)
    assert blueprint(HUT["blocks"], HUT["letters"], HUT["layers"]) is house
