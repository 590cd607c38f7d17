import json
import math

import pytest

from collm_agents.budget import Budget, read_budget
from collm_agents.config import RunConfig
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.trainer import Progress
from collm_envs.errors import SettingError

TINY = ("algorithm=mc", "rollout.samples=2", "rollout.buffer=4", "eval.tasks=2", "eval.final_tasks=2")


def run(out, *more):
    words = (*TINY, f"run.out={out}", "run.threads=1", "track.tensorboard=false", *more)
    return Experiment(load_config("debug/echo-v0", overrides=words)).run()


def evaluations(out):
    return json.loads((out / "evaluations.json").read_text("utf-8"))


def test_each_unit_is_counted_on_its_own():
    progress = Progress(
        joint_samples=10, tasks=20, tokens=30, wall_s=50.0, phases={"evaluate": 9.0, "save": 1.0}
    )
    assert Budget("joint_samples", 100).spent(progress) == 0.1
    assert Budget("tasks", 100).spent(progress) == 0.2
    assert Budget("tokens", 100).spent(progress) == 0.3
    assert Budget("trained_s", 100).spent(progress) == 0.4  # ten of the seconds were no training


def test_settings_name_one_budget():
    assert read_budget(RunConfig(), 10) == Budget("joint_samples", 6400)
    assert read_budget(RunConfig(joint_samples=0, task_passes=2.5), 10) == Budget("tasks", 25)
    assert read_budget(RunConfig(joint_samples=0, tokens=7), 10) == Budget("tokens", 7)
    assert read_budget(RunConfig(joint_samples=0, wall_s=1.5), 10) == Budget("trained_s", 1.5)
    with pytest.raises(SettingError, match="not joint_samples and tokens"):
        read_budget(RunConfig(tokens=7), 10)
    with pytest.raises(SettingError, match="all are 0"):
        read_budget(RunConfig(joint_samples=0), 10)


def test_what_a_budget_buys_is_told_where_it_can_be():
    assert Budget("joint_samples", 100).joint_samples(20) == 100
    assert Budget("tasks", 3).joint_samples(20) == 60
    assert Budget("tokens", 3).joint_samples(20) == 0
    assert Budget("joint_samples", 100).updates(4, 3) == 9  # 25 trees, three at a time
    assert Budget("tasks", 7).updates(4, 3) == 3
    assert Budget("trained_s", 7).updates(4, 3) == math.inf
    assert (Budget("tasks", 7).left(5), Budget("tokens", 7).left(5)) == (2, math.inf)


def test_the_last_layer_names_the_budget(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[run]\ntokens = 20\n")
    assert load_config("debug/echo-v0", files=[file]).run.joint_samples == 0
    config = load_config("debug/echo-v0", files=[file], overrides=["wall_s=3"]).run
    assert (config.tokens, config.wall_s, config.joint_samples) == (0, 3.0, 0)
    with pytest.raises(SettingError, match=r"give run\.tokens or run\.wall_s"):
        load_config("debug/echo-v0", overrides=["tokens=3", "wall_s=3"])


def test_a_run_ends_with_the_update_that_reaches_its_tokens(tmp_path):
    run(tmp_path / "run", "run.tokens=60", "eval.points=3")
    found = evaluations(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    tokens = [row["tokens"] for row in rows if row["kind"] == "update"]
    assert tokens[-2] < 60 <= tokens[-1]
    assert [e["tokens"] for e in found] == [
        0,
        *(next(t for t in tokens if t >= mark) for mark in (20, 40, 60)),
    ]
    assert found[-1]["wall_s"] > found[1]["wall_s"] > found[0]["wall_s"] == 0.0


def test_a_run_in_seconds_trains_as_long_and_not_much_longer(tmp_path):
    done = run(tmp_path / "run", "run.wall_s=0.3").result
    assert 0.3 <= done["trained_s"] < done["wall_s"]
    assert done["trained_s"] < 0.3 + 2.0


def test_evaluations_stand_at_equal_shares_of_the_budget(tmp_path):
    run(tmp_path / "run", "run.joint_samples=24", "eval.points=4")
    assert [e["joint_samples"] for e in evaluations(tmp_path / "run")] == [0, 8, 12, 20, 24]


def test_a_longer_budget_is_evaluated_at_its_own_shares(tmp_path):
    run(tmp_path / "run", "run.joint_samples=8", "eval.points=2")
    Experiment.resume(tmp_path / "run", ["run.joint_samples=32"])
    assert [e["joint_samples"] for e in evaluations(tmp_path / "run")] == [0, 4, 8, 16, 32]


def test_the_last_evaluation_plays_its_episodes_and_keeps_each(tmp_path):
    run(
        tmp_path / "run",
        "run.joint_samples=8",
        "eval.final_episodes=9",
        "eval.split=test[:4]",
        "greedy_too=true",
    )
    found = evaluations(tmp_path / "run")
    assert [(e["episodes"], e["greedy"]["episodes"]) for e in found] == [(2, 2)] * (len(found) - 1) + [
        (12, 4)
    ]
    lines = (tmp_path / "run" / "episodes.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    sampled = [row for row in rows if not row["greedy"]]
    assert len(sampled) == 12
    assert len({row["task_id"] for row in sampled}) == 4
    assert len(rows) == 16
    mean = sum(row["score"] for row in sampled) / 12
    assert mean == pytest.approx(found[-1]["metrics"]["score"]["mean"])
