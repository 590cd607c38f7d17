import dataclasses
import json
import math

import numpy as np
import pytest
from builders import ScriptedTeam, played, team

from collm_agents import terminal
from collm_agents.collect import Collector
from collm_agents.evaluate import (
    conversation,
    episode_values,
    evaluate,
    evaluate_scripted,
    interval,
    tree_means,
)
from collm_agents.team import Request
from collm_envs import make
from collm_envs.vector import VecEnv

AGENTS = ("agent_0", "agent_1")


def right_after(turn, agents=AGENTS):
    """Replies that are wrong until a turn, then what was shown."""

    def say(agent, prompt, node):
        shown = prompt.partition("letter: ")[2][:1]
        turns = prompt.count("<|im_start|>user") - 1
        return shown if turns >= turn and agent in agents else "z"

    return say


def test_a_rates_interval_is_wilsons_and_does_not_collapse():
    found = interval([1.0] * 10, rate=True)
    assert (found["mean"], found["n"]) == (1.0, 10)
    assert found["low"] == pytest.approx(10 / (10 + 1.959964**2))
    assert found["high"] == pytest.approx(1.0)
    assert found["low"] < found["mean"] <= found["high"]
    half = interval([0.0, 1.0] * 5, rate=True)
    assert (half["low"], half["high"]) == pytest.approx(
        (0.2366, 0.7634), abs=1e-4
    )  # textbook value for 5 of 10


def test_other_metrics_are_bootstrapped_over_tasks():
    values = np.random.default_rng(0).normal(3.0, 1.0, size=100)
    found = interval(values)
    error = 1.96 * values.std() / 10
    assert found["low"] == pytest.approx(values.mean() - error, abs=0.05)
    assert found["high"] == pytest.approx(values.mean() + error, abs=0.05)
    assert found == interval(values)
    constant = interval([2.0] * 5)
    assert constant["low"] == constant["high"] == constant["mean"] == 2.0


@pytest.mark.parametrize("n", [4, 8, 16])
def test_intervals_over_few_tasks_hold_the_true_mean(n):
    rng, hits = np.random.default_rng(n), 0
    for i in range(400):  # a plain percentile bootstrap holds it in 0.80, 0.88 and 0.90
        found = interval(rng.beta(2, 5, n), seed=i, draws=300)
        hits += found["low"] <= 2 / 7 <= found["high"]
    assert hits / 400 >= 0.915


def test_one_task_has_a_mean_and_no_interval():
    assert interval([1.143]) == {"mean": 1.143, "low": None, "high": None, "n": 1}
    assert interval([0.25], rate=True) == {
        "mean": 0.25,
        "low": None,
        "high": None,
        "n": 1,
    }  # of four episodes
    assert interval([1.0], rate=True)["low"] == pytest.approx(1 / (1 + 1.959964**2))  # Wilson's knows one


def test_a_rates_widened_interval_ends_where_rates_do():
    found = interval([0.9, 1.0, 0.95], rate=True)
    assert 0 < found["low"] < found["mean"] < found["high"] == 1.0


def test_a_report_of_one_task_is_told_without_an_interval():
    env = make("debug/echo-v0", split="test")
    report = evaluate(env, ScriptedTeam(AGENTS, right_after(9)), env.tasks[:1], seed=0)
    assert report["metrics"]["score"]["low"] is None
    told = terminal.report(json.loads(json.dumps(report, allow_nan=False)))
    line = next(line for line in told.splitlines() if line.strip().startswith("score "))
    assert line.split() == ["score", f"{report['metrics']['score']['mean']:.3f}", "1"]


def test_an_episode_that_is_solved_early_has_its_last_score_and_its_turns():
    env = make("debug/echo-v0", split="test", num_turns=3)
    report = evaluate(env, ScriptedTeam(AGENTS, right_after(1)), env.tasks[:5], seed=0)
    mean = {name: stats["mean"] for name, stats in report["metrics"].items()}
    assert mean["score"] == 1.0
    assert mean["score_sum"] == 1.0
    assert mean["success"] == 1.0
    assert mean["turns"] == 2.0
    assert mean["return"] == -1.0  # dense: a wrong first turn costs 1, the right one nothing
    assert mean["parts/echoed"] == 1.0
    assert mean["truncated_replies"] == mean["truncated_episodes"] == 0.0
    assert all(stats["n"] == 5 for stats in report["metrics"].values())
    assert report["metrics"]["success"]["low"] < 1.0


def test_a_tasks_value_is_the_mean_of_its_episodes_and_n_counts_tasks():
    env = make("debug/echo-v0", split="test")

    def say(agent, prompt, node):
        return prompt.partition("letter: ")[2][:1] if node[0] == 0 else "z"

    report = evaluate(env, ScriptedTeam(AGENTS, say), env.tasks[:3], seed=0, samples=4)
    assert report["metrics"]["success"]["mean"] == 0.25
    assert report["metrics"]["success"]["n"] == 3


def test_half_of_the_agents_right_is_half_of_the_score():
    env = make("debug/echo-v0", split="test")
    report = evaluate(env, ScriptedTeam(AGENTS, right_after(0, ["agent_1"])), env.tasks[:2], seed=0)
    assert report["metrics"]["score"]["mean"] == 0.5
    assert report["metrics"]["success"]["mean"] == 0.0


def test_all_tasks_are_played_in_order_however_many_are_played_at_once(monkeypatch):
    env = make("debug/echo-v0", split="test", num_turns=2)
    whole = evaluate(env, team(AGENTS, num_turns=2), env.tasks[:5], seed=3, keep=5)
    monkeypatch.setattr("collm_agents.evaluate.TASKS_AT_ONCE", 2)
    parts = evaluate(env, team(AGENTS, num_turns=2), env.tasks[:5], seed=3, keep=5)
    assert parts == whole
    assert [s["task_id"] for s in whole["samples"]] == [task.id for task in env.tasks[:5]]


def test_equal_seeds_draw_equal_replies_and_other_seeds_do_not():
    env = make("debug/echo-v0", split="test")
    players = team(AGENTS)
    one, two, other = (evaluate(env, players, env.tasks[:3], seed=s, keep=3)["samples"] for s in (3, 3, 4))
    assert one == two
    assert one != other


def test_greedy_evaluation_plays_once_and_does_not_depend_on_the_seed():
    env = make("debug/echo-v0", split="test")
    players = team(AGENTS)
    one, two = (
        evaluate(env, players, env.tasks[:3], seed=s, greedy=True, samples=4, keep=9)["samples"]
        for s in (3, 4)
    )
    assert one == two
    assert len(one) == 3


def test_conversations_hold_every_turn_the_score_and_success():
    env = make("debug/echo-v0", split="test", num_turns=2)
    report = evaluate(env, ScriptedTeam(AGENTS, right_after(1)), env.tasks[:4], seed=0, keep=2)
    assert len(report["samples"]) == 2
    sample = report["samples"][0]
    letters = env.tasks[0].public["letters"]
    assert sample["task_id"] == env.tasks[0].id
    assert (sample["score"], sample["success"]) == (1.0, True)
    for agent, letter in zip(AGENTS, letters, strict=False):
        assert f"@{agent} turn 1 sees:\nSay the letter: {letter}\n" in sample["text"]
        assert f"@{agent} turn 1 says:\nz\n" in sample["text"]
        assert f"@{agent} turn 2 says:\n{letter}\n" in sample["text"]
    assert sample["text"].index("turn 1 says") < sample["text"].index("turn 2 sees")


def test_conversations_hold_what_every_turn_was_paid_and_for_what():
    env = make("debug/echo-v0", split="test", num_turns=2)
    first = right_after(0, ["agent_1"])
    then = right_after(1)

    def say(agent, prompt, node):
        told = then(agent, prompt, node)
        return told if told != "z" else first(agent, prompt, node)

    sample = evaluate(env, ScriptedTeam(AGENTS, say), env.tasks[:1], seed=0, keep=1)["samples"][0]
    one, two = sample["turns"]
    assert (one["score"], one["reward"], one["parts"]) == (0.5, -0.5, {"echoed": 0.5})
    assert (two["score"], two["reward"], two["parts"]) == (1.0, 0.0, {"echoed": 1.0})
    assert list(one["replies"]) == list(AGENTS)
    assert one["replies"]["agent_0"] == {"tokens": 2, "cut": False, "clipped": False}  # and the end token


def test_a_conversation_is_what_the_environment_would_render():
    env = make("debug/echo-v0", num_turns=2)
    rollouts = Collector(VecEnv(env), ScriptedTeam(AGENTS, right_after(9)), (1, 1), 0).collect(
        [env.tasks[0]], 0
    )
    env.reset(seed=0, options={"task": 0})
    for _ in range(2):
        env.step(dict.fromkeys(AGENTS, "z"))
    assert conversation(rollouts, int(rollouts.leaves[0]))["text"] == env.state()


def test_truncated_episodes_are_counted():
    env = make("debug/echo-v0", num_turns=2)
    first = ScriptedTeam(AGENTS, right_after(9))
    Collector(VecEnv(env), first, (1, 1), 0).collect([env.tasks[0]], 0)
    limit = max(len(r.prompt) for r in first.requests[0]) + 4
    players = ScriptedTeam(AGENTS, right_after(9), limit=limit, overflow="stop")
    rollouts = Collector(VecEnv(env), players, (1, 1), 0).collect([env.tasks[0]], 0)
    found = tree_means(episode_values(rollouts))
    assert found["truncated_episodes"] == [1.0]
    assert found["turns"] == [1.0]


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("random", 0, 0.2), ("novice", 0.3, 0.7), ("oracle", 1, 1)]
)
def test_scripted_agents_are_evaluated_on_the_same_scale(kind, low, high):
    env = make("debug/echo-v0", split="test")
    report = evaluate_scripted(env, kind, env.tasks[:50], 0)
    assert low <= report["metrics"]["score"]["mean"] <= high
    assert {"success", "return", "turns", "parts/echoed"} <= set(report["metrics"])


def test_reports_are_finite():
    env = make("writing/tldr-mini-v0", split="test")
    agents = tuple(env.possible_agents)
    report = evaluate(env, ScriptedTeam(agents, lambda agent, prompt, node: ""), env.tasks[:3], seed=0)
    for stats in report["metrics"].values():
        assert all(math.isfinite(value) for value in stats.values())
        assert stats["low"] <= stats["mean"] <= stats["high"]


def test_replies_of_white_space_alone_are_counted():
    rollouts = played(team(AGENTS), (3,), tasks=2)
    text = np.array(rollouts.rows.text, dtype=object)
    text[rollouts.row_of[:, 0]] = [" \n" if node % 2 else "word" for node in range(len(rollouts.nodes))]
    text[rollouts.row_of[:, 1]] = "word"
    rows = dataclasses.replace(rollouts.rows, text=tuple(text))
    values = episode_values(dataclasses.replace(rollouts, rows=rows))["empty_replies"]
    assert values == [[0.0, 0.5, 0.0], [0.5, 0.0, 0.5]]


def test_drawing_for_an_evaluation_is_not_counted_as_training():
    players, env = team(["agent_0", "agent_1"]), make("debug/echo-v0")
    clock = players.clock
    evaluate(env, players, env.tasks[:3], seed=0)
    assert players.clock is clock
    assert {name: seconds for name, seconds in clock.read().items() if seconds and name != "other"} == {}
    players.act([Request("agent_0", (70, 71), None)])
    assert clock.read()["prefill"] > 0
