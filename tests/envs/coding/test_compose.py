"""The mini: its tasks, its grammar, and that it cannot be solved without dividing the work."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from collm_envs import DataError, make, play_scripted
from collm_envs.coding import steps
from collm_envs.coding.compose import ComposeMini, ComposeRow
from collm_envs.coding.functions import FunctionTeam
from collm_envs.text import pieces

ID = "coding/compose-mini-v0"
ROW = {"steps": "add 3 times 2 minus 1", "inputs": "1 2 -3 5"}  # f(1) = (1 + 3) * 2 = 8


def play(aux: str, main: str, **settings):
    env = make(ID, num_turns=1, **settings)
    env.reset(seed=0, options={"task": env_task(env)})
    *_, infos = env.step({"aux_0": aux, "main_1": main})
    return infos["aux_0"]


def env_task(env):
    from collm_envs.task import Task

    return Task("t", *ComposeRow(visible=env.visible_tests, count=max(2, env.max_num_agents))(ROW))


@pytest.mark.parametrize(
    ("step", "value"),
    [
        *((("add", 3), -4), (("minus", 3), -10), (("times", 3), -21), (("over", 3), -3)),
        *((("mod", 3), 2), (("max", 3), 3), (("min", 3), -7)),
    ],
)
def test_what_a_step_computes_is_what_it_says(step, value):
    assert steps.value([step], -7) == value
    assert eval(steps.written(step, "x"), {"x": -7, "max": max, "min": min}) == value


def test_a_row_worked_by_hand():
    public, hidden = ComposeRow(visible=1, count=2)(ROW)
    assert public["prompt"] == "add 3 times 2"
    assert public["visible"] == ["assert f(1) == 8"]
    assert hidden["tests"] == ["assert f(2) == 10", "assert f(-3) == 0", "assert f(5) == 16"]
    assert ComposeRow(visible=0, count=3)(ROW)[1]["tests"][0] == "assert f(1) == 7"


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "steps": "add"},
        {**ROW, "steps": "add x"},
        {**ROW, "steps": "plus 3 times 2"},
        {**ROW, "steps": "times 1 add 2"},
        {**ROW, "steps": "add -3 times 2"},
        {**ROW, "steps": "add 3"},
        {**ROW, "inputs": "1 b"},
        {**ROW, "inputs": "1.5 2"},
    ],
)
def test_a_broken_row_is_an_error(row, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW, row]))
    tasks = make("coding/compose-mini-v0", source=str(path), split="all").tasks
    with pytest.raises(DataError, match=r"rows.json, row 2, field '(steps|inputs)'"):
        tasks[1]


@pytest.mark.parametrize(
    ("aux", "main", "score", "success"),
    [
        ("def aux(x): return x + 3", "def f(x): return aux(x) * 2", 4, True),
        ("def aux(x): return x * 2", "def f(x): return aux(x + 3)", 4, True),  # the other division
        ("def aux(x): return x + 3", "def f(x): return aux(x + 3)", 1.5, False),  # both take the same step
        ("def aux(x): return x * 2", "def f(x): return aux(x) * 2", 1.5, False),
        ("def aux(x): return x + 3", "def f(x): return (x + 3) * 2", 2.5, False),  # main alone
        ("def aux(x): return (x + 3) * 2", "def f(x): return aux(x)", 3, False),  # aux alone
        ("def aux(x): return x", "def f(x): aux(x); return (x + 3) * 2", 3.5, False),  # thrown away
        ("", "def f(x): return (x + 3) * 2", 2.1, False),
        ("def aux(x): return x + 3", "", 0.4, False),
        ("def aux(x) return x + 3", "def f(x): return aux(x) * 2", 1, False),
        ("def aux(x): return x + 3", "def f(x): return aux(x) * 3", 1.5 + 0.25 + 1.5, False),  # f(-3) = 0
    ],
)
def test_only_a_division_of_the_work_solves_it(aux, main, score, success):
    info = play(aux, main)
    assert info["score"] == pytest.approx(score)
    assert info["success"] is success


def test_tasks_are_thousands_and_splits_share_no_pair():
    train, test = ([t.public["prompt"] for t in make(ID, split=s).tasks] for s in ("train", "test"))
    assert (len(train), len(test)) == (3294, 128)
    assert len({*train, *test}) == 3422
    assert steps.rows.__wrapped__() == steps.rows()


def test_tests_tell_the_steps_from_their_confusions():
    for task in list(make(ID).tasks)[:400]:
        first, second = (tuple(step) for step in task.public["steps"])
        tests = [*task.public["visible"], *task.hidden["tests"]]
        pairs = [
            tuple(map(int, re.fullmatch(r"assert f\((-?\d+)\) == (-?\d+)", test).groups())) for test in tests
        ]
        assert all(steps.value((first, second), x) == y for x, y in pairs)
        assert len(pairs) == 4
        for wrong in ((), (first,), (second,), (first, first), (second, second)):
            assert sum(steps.value(wrong, x) == y for x, y in pairs) <= 1


@pytest.mark.parametrize(("count", "high"), [(1, 4), (2, 4), (3, 4.9), (4, 5.8)])
def test_the_oracle_solves_it(count, high):
    env = make(ID, num_agents=count)
    assert env.high == pytest.approx(high)
    played = play_scripted(env, "oracle", env.tasks[:30])
    assert all(record["score"] == pytest.approx(high) and record["success"] for record in played)


def test_the_novice_succeeds_seldom_and_sometimes():
    env = make(ID, num_turns=1)
    played = play_scripted(env, "novice", env.tasks[:300], seed=1)
    solved = np.mean([record["success"] for record in played])
    some = np.mean([record["metrics"]["pass_rate"] > 0 for record in played])
    assert 0.1 <= solved <= 0.3
    assert 0.25 <= some <= 0.55
    assert np.mean([record["metrics"]["syntax"] for record in played]) == 1


def test_replies_are_short():
    rng = np.random.default_rng(0)
    for count, longest in ((1, 30), (2, 17), (4, 21)):
        env = make(ID, num_agents=count)
        for index in range(60):
            env.reset(options={"task": index})
            for kind in ("novice", "oracle"):
                assert all(len(pieces(env.scripted(kind, a, rng))) <= longest for a in env.agents)


def test_every_text_stays_within_the_vocabulary():
    known = set(ComposeMini.vocabulary())
    assert len(known) <= 80
    rng = np.random.default_rng(0)
    noise = [
        "",
        "def aux(x",
        "def aux(x): pass",
        "def aux(x): return f(x)",
        "def aux2(x): return x\ndef f(x): x",
    ]
    for count in (1, 2, 4):
        for feedback in FunctionTeam.feedback_modes:
            env = make(ID, num_agents=count, num_turns=3, feedback=feedback)
            for index in range(0, 400, 40):
                observations, _ = env.reset(seed=index, options={"task": index})
                texts = list(observations.values())
                while env.agents:
                    kinds = [str(rng.choice(["novice", "oracle", "noise"])) for _ in env.agents]
                    scripted = {
                        a: env.scripted(kind, a, rng)
                        for a, kind in zip(env.agents, kinds, strict=True)
                        if kind != "noise"
                    }
                    replies = {a: scripted.get(a, str(rng.choice(noise))) for a in env.agents}
                    observations, *_ = env.step(replies)
                    texts += [*scripted.values(), *observations.values()]
                for text in texts:
                    parts = pieces(text)
                    assert {part for part in parts if part.isalnum()} <= known
                    assert {sign for part in parts if not part.isalnum() for sign in part} <= known
                    assert set(re.findall(r"\s", text)) <= {" ", "\n"}


def test_it_scores_as_the_big_ones_do():
    assert issubclass(ComposeMini, FunctionTeam)
    names = [make(id).reward_model.names for id in (ID, "coding/humaneval-v0")]
    assert names[0] == names[1]
