"""`joint_score` against the environments that it asks."""

from __future__ import annotations

import json

import pytest

from collm_envs import make
from collm_envs.errors import InputError, SettingError
from collm_envs.games.housebuild import HouseBuild

coding = pytest.importorskip("collm_envs.metrics.coding")
joint = pytest.importorskip("collm_envs.metrics.joint")
writing = pytest.importorskip("collm_envs.metrics.writing")


def played(env_id, kind, tasks, **settings):
    """Task ids, scripted replies, and what an environment of its own says of them."""
    env = make(env_id, **settings)
    names, replies, infos = [], [], []
    for number in range(tasks):
        env.reset(seed=0, options={"task": number})
        rng = env.np_random
        said = {agent: env.scripted(kind, agent, rng) for agent in env.possible_agents}
        env.reset(seed=0, options={"task": number})
        names.append(env.task.id)
        replies.append(list(said.values()))
        infos.append(next(iter(env.step(said)[-1].values())))
    return names, replies, infos


@pytest.mark.parametrize("num_agents", [1, 2])
def test_agrees_with_the_environment(num_agents):
    settings = {
        "env_id": "writing/tldr-mini-v0",
        "num_agents": num_agents,
        "formula": "release",
        "num_turns": 3,
    }
    names, replies, infos = played(kind="novice", tasks=12, **settings)
    found = joint.JointScore().compute(predictions=replies, references=names, **settings)
    assert found["values"] == [info["score"] for info in infos]
    assert found["solved"] == [info["success"] for info in infos]
    assert found["score"] > 0
    assert found["percent"] == pytest.approx(100 * found["score"] / 2.98)
    assert sum(found["parts"].values()) == pytest.approx(found["score"])
    mean = sum(info["metrics"]["jaccard"] for info in infos) / 12
    assert found["measured"]["jaccard"] == pytest.approx(mean)


def test_agrees_with_writing_score():
    names, replies, _ = played("writing/tldr-mini-v0", "novice", tasks=8)
    first, second = zip(*replies, strict=True)
    pairs = writing.WritingScore().compute(
        predictions=list(second), references=list(first), env_id="writing/tldr-mini-v0"
    )
    found = joint.JointScore().compute(predictions=replies, references=names, env_id="writing/tldr-mini-v0")
    for name, value in pairs.items():
        assert found[name] == pytest.approx(value), name


def test_examples_are_matched_to_their_tasks():
    names, replies, _ = played("debug/echo-v0", "oracle", tasks=6)
    metric = joint.JointScore()
    right = metric.compute(predictions=replies, references=names, env_id="debug/echo-v0")
    assert (right["percent"], right["success"], right["solved"]) == (100, 1, [True] * 6)
    shown = [make("debug/echo-v0").tasks[i].public for i in range(6)]
    other = next(i for i in range(6) if shown[i] != shown[0])
    swapped = metric.compute(predictions=[replies[other]], references=[names[0]], env_id="debug/echo-v0")
    assert swapped["success"] == 0


def test_equal_replies_get_equal_scores(monkeypatch):
    monkeypatch.setattr(HouseBuild, "spiders", 1)  # how hard it bites is drawn, 1 to 3
    task, metric = make("games/housebuild-v0").tasks[0].id, joint.JointScore()
    scores = set()
    for _ in range(20):
        columns = {"predictions": [["", ""]], "references": [task]}
        scores.add(metric.compute(**columns, env_id="games/housebuild-v0")["score"])
    assert len(scores) == 1


def test_what_cannot_be_judged_is_named():
    names, replies, _ = played("debug/echo-v0", "oracle", tasks=2)
    metric = joint.JointScore()
    with pytest.raises(SettingError, match="env_id"):
        metric.compute(predictions=replies, references=names)
    with pytest.raises(InputError, match=r"no task 'nowhere' in 'train'"):
        metric.compute(predictions=replies, references=[names[0], "nowhere"], env_id="debug/echo-v0")
    with pytest.raises(InputError, match=r"example 1 \(from 0\) has 1 replies, not one for each of"):
        metric.compute(predictions=[replies[0], ["a"]], references=names, env_id="debug/echo-v0")
    with pytest.raises(ValueError, match="expected a list"):
        metric.compute(predictions=["text"], references=names[:1], env_id="debug/echo-v0")


def test_hostile_texts_are_scored():
    names, _, _ = played("writing/tldr-mini-v0", "oracle", tasks=1)
    found = joint.JointScore().compute(
        predictions=[["\ud800", "\x00{post}"]], references=names, env_id="writing/tldr-mini-v0"
    )
    assert found["values"] == [0]


AUX = "def aux(xs): return [2 * x for x in xs if x > 0]"
PROGRAMS = {
    "good": ("def aux(x): return 2 * x", "def doubled(xs):\n    return [aux(x) for x in xs]"),
    "alone": (AUX, "def doubled(xs):\n    return [x + x for x in xs]"),
    "wrapper": (AUX, "def doubled(xs):\n    return aux(xs)"),
    "exit": (AUX, "def doubled(xs):\n    import os\n    os._exit(0)\n    return aux(xs)"),
    "nothing": ("", "no code here"),
}


@pytest.fixture
def problem(tmp_path):
    row = {
        "task_id": "doubled",
        "entry_point": "doubled",
        "prompt": 'def doubled(xs):\n    """Every number of a list times two."""\n',
        "tests": [f"assert doubled([{x}]) == [{y}]" for x, y in ((1, 2), ("", ""), (-1, -2), (0, 0))],
    }
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return {"env_id": "coding/humaneval-v0", "source": str(path), "split": "all"}


def test_programs_by_hand(problem):
    found = joint.JointScore().compute(
        predictions=[list(pair) for pair in PROGRAMS.values()], references=["doubled"] * 5, **problem
    )
    # helper 0.4, main 0.6, syntax 0.5, tests up to 1, helper used 0.5, work of its own 1
    assert found["values"] == pytest.approx([4.0, 2.5, 2.5, 1.5, 0.0])
    assert found["solved"] == [True, True, False, False, False]
    # "exit" calls its helper and does more than that: measured as such, though not paid without a passed test
    rates = {name: found["measured"][name] for name in ("pass_rate", "aux_use", "non_wrapper", "syntax")}
    assert rates == pytest.approx({"pass_rate": 0.5, "aux_use": 0.6, "non_wrapper": 0.4, "syntax": 0.8})
    # five samples of one problem, two of which pass
    chances = coding.PassAtK().compute(predictions=[found["solved"]], ks=(1, 2, 5))
    assert (chances["pass@1"], chances["pass@2"], chances["pass@5"]) == (0.4, 0.7, 1.0)
