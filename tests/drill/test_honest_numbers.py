"""Numbers that are not finite stop a run where they are born, named; a collapse is said once."""

import dataclasses
import json
import logging
import math

import numpy as np
import pytest
import torch
from builders import critic, folder, learner, played, same, team, weights
from paying_env import Paying, luck

from collm_agents import checkpoint
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.callbacks import Callback
from collm_agents.cli import main
from collm_agents.experiment import Experiment
from collm_agents.finite import NonFiniteError
from collm_agents.overrides import load_config
from collm_agents.tensor_file import read_state
from collm_envs import EnvFault, component

AGENTS = ("agent_0", "agent_1")
ALGORITHMS = {
    "mc": (MonteCarlo, None, None),
    "collm-cc": (CentralisedCritic, "joint", "one"),
    "collm-dc": (DecentralisedCritics, "local", "each"),
}
VALUES = (math.nan, math.inf, -math.inf)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    return request.param


def learning(algorithm, players, **settings):
    estimator, view, owners = ALGORITHMS[algorithm]
    found = critic(view, owners, AGENTS, stirred=False) if view else None
    return learner(players, estimator(), found, **settings)


def poison(parameter, value):
    with torch.no_grad():
        parameter.view(-1)[0] = value


# -- logits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_poisoned_weight_is_told_of_its_agent_before_a_token_is_played(value, tuning):
    players = team(AGENTS, tuning=tuning)
    poison(list(players.backbones["agent_1"].parameters("agent_1").values())[-1], value)
    # Rows of several adapters are decoded together, so the first to suffer may be the other one.
    told = r"logits of agent_\d are not finite at token \d of task '.*' turn 0, branch \d; the weights of agent_1"
    with pytest.raises(NonFiniteError, match=told):
        played(players, (2,))


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("value", VALUES)
def test_one_logit_of_one_call_is_enough_and_turn_and_token_are_named(value, slow):
    players = team(AGENTS[:1], num_turns=2)
    backbone = players.backbones["agent_0"]
    backbone._misfit = "as a model that the fast loop does not fit" if slow else ""
    calls = []

    def spoil(module, given, out):
        calls.append(out.logits)
        if len(calls) == 9:  # of a reply of six tokens: the third of the second turn
            out.logits[0, -1, 7] = value
        return out

    causal = backbone._peft.get_base_model()
    causal.register_forward_hook(spoil)
    if value == -math.inf:  # a token that cannot be drawn is no fault of the numbers
        played(players, (1, 1), tasks=1)
        assert len(calls) > 9
        return
    with pytest.raises(
        NonFiniteError, match=r"at token \d of task .* turn 1, branch 0\.0; all weights are finite"
    ):
        played(players, (1, 1), tasks=1)


def test_greedy_replies_are_looked_at_too():
    from collm_agents.team import Request

    players = team(AGENTS[:1])
    poison(list(players.backbones["agent_0"].parameters("agent_0").values())[-1], math.nan)
    with pytest.raises(NonFiniteError, match=r"agent_0 .* of a greedy reply; the weights of agent_0"):
        players.act([Request("agent_0", (1, 2, 3), None)])


# -- rewards -----------------------------------------------------------------------------------------------


@component("broken", low=0, high=1)
def broken(replies):
    return math.nan if replies[0] != "fine" else 1.0


class BrokenScorer(Paying):
    """As `Paying`, with a scorer that gives no number. Used as `test_honest_numbers:BrokenScorer`.

    Observations: a word.

    Actions: any text.

    Rewards: `broken`.

    Example: none.
    """

    def components(self):
        return (luck, broken)


class BrokenMeasure(Paying):
    """As `Paying`, with something measured that is no number.

    Observations: a word.

    Actions: any text.

    Rewards: `luck`.

    Example: none.
    """

    def measure(self, outcome):
        return {"ratio": math.inf}


TINY = ("joint_samples=8", "rollout.buffer=4", "eval.tasks=2", "eval.final_tasks=2", "track.tensorboard=false",
        "team.sampling.max_new_tokens=5", "run.threads=1", "rollout.samples=2", "track.live=false")  # fmt: skip


def test_a_scorer_that_gives_no_number_stops_every_algorithm_and_names_env_task_and_turn(
    algorithm, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = ["train", f"{__name__}:BrokenScorer", f"algorithm={algorithm}", "out=run", *TINY]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "BrokenScorer, task 'builtin:test#0', turn 0: judge() raised ValueError" in err
    assert "reward component 'broken' returned nan" in err
    assert not (tmp_path / "run" / "result.json").exists()


def test_so_does_something_measured(tmp_path):
    config = load_config(
        f"{__name__}:BrokenMeasure", overrides=["algorithm=mc", f"out={tmp_path / 'run'}", *TINY]
    )
    with pytest.raises(EnvFault, match=r"turn 0: .*ratio is inf; leave out what does not apply"):
        Experiment(config).run()


# -- values, advantages, gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("algorithm", ["collm-cc", "collm-dc"], indirect=True)
def test_a_value_that_is_no_number_names_its_critic_task_and_turn(algorithm, value):
    players = team(AGENTS)
    rollouts = played(players, (2,))
    found = learning(algorithm, players)
    member = found.critic.members[-1]
    poison(found.critic.heads[member].linear.weight, value)
    who = "the critic" if algorithm == "collm-cc" else "agent_1's critic"
    with pytest.raises(NonFiniteError, match=rf"{who} values task '{rollouts.tasks[0]}' turn 0 at "):
        found.update(rollouts)


@pytest.mark.parametrize("value", VALUES)
def test_an_advantage_that_is_no_number_names_agent_task_turn_and_node(algorithm, value):
    players = team(AGENTS, num_turns=2)
    rollouts = played(players, (2, 1))
    found = learning(algorithm, players)
    row = int(rollouts.row_of[-1, 1])  # of the second agent, in the last node

    class Broken(type(found.estimator)):
        def __call__(self, rollouts, values):
            estimate = super().__call__(rollouts, values)
            advantage = estimate.advantage.copy()
            advantage[row] = value
            return dataclasses.replace(estimate, advantage=advantage)

    found.estimator = Broken()
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    node = len(rollouts.nodes) - 1
    with pytest.raises(NonFiniteError, match=rf"advantage of agent_1 is .*task '.*' turn 1, node {node}"):
        found.update(rollouts)
    assert all(same(before[a], weights(players.backbones[a], a)) for a in AGENTS)


@pytest.mark.parametrize("value", VALUES)
def test_a_gradient_that_is_no_number_names_the_agent_and_steps_nothing(algorithm, value):
    players = team(AGENTS)
    rollouts = played(players, (2,))
    found = learning(algorithm, players)
    parameter = next(iter(players.backbones["agent_1"].parameters("agent_1").values()))
    parameter.requires_grad_(True).register_hook(lambda grad: torch.full_like(grad, value))
    before = weights(players.backbones["agent_1"], "agent_1")
    with pytest.raises(
        NonFiniteError, match=rf"gradient norm (nan|inf) for agent_1; rows of task '{rollouts.tasks[0]}'"
    ):
        found.update(rollouts)
    assert same(before, weights(players.backbones["agent_1"], "agent_1"))


@pytest.mark.parametrize("algorithm", ["collm-cc", "collm-dc"], indirect=True)
def test_a_critics_gradient_names_the_critic(algorithm):
    players = team(AGENTS)
    found = learning(algorithm, players)
    member = found.critic.members[-1]
    found.critic.heads[member].linear.weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(NonFiniteError, match=f"gradient norm nan for {member}"):
        found.update(played(players, (2,)))


class Poison(Callback):
    """Breaks a weight of the last agent after an update, as a bad step would."""

    def __init__(self, at):
        self.at = at

    def on_step(self, run, metrics):
        if run.progress.updates == self.at:
            agent = run.team.agents[-1]
            poison(list(run.team.backbones[agent].parameters(agent).values())[-1], math.nan)


def test_a_run_whose_weights_break_stops_and_leaves_a_good_checkpoint(algorithm, tmp_path):
    config = load_config(
        "paying_env:Paying",
        overrides=[
            f"algorithm={algorithm}",
            f"out={tmp_path / 'run'}",
            *TINY,
            "joint_samples=16",
            "eval.every=4",
        ],
    )
    with pytest.raises(NonFiniteError, match=r"logits of agent_1 are not finite"):
        Experiment(config).run([Poison(2)])
    assert not (tmp_path / "run" / "result.json").exists()
    place = checkpoint.pick(tmp_path / "run")
    assert checkpoint.samples_of(place) == 4
    tensors = read_state(place / checkpoint.LEARNER)["optimizers"]["agent_1"]["state"]
    assert all(bool(torch.isfinite(v).all()) for state in tensors.values() for v in state.values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(v) for row in rows for k, v in row.items() if k != "kind")


# -- collapse ----------------------------------------------------------------------------------------------


@component("alike", low=0, high=1)
def alike(replies):
    return 0.5


class Alike(Paying):
    """As `Paying`, and everybody is paid the same.

    Observations: a word.

    Actions: any text.

    Rewards: `alike`.

    Example: none.
    """

    def components(self):
        return (alike,)


class Force(Callback):
    """Lets every agent end its reply at once: a part of the hidden state is constant; the end token reads it."""

    @torch.no_grad()
    def on_start(self, run):
        for agent in run.team.agents:
            model = run.team.backbones[agent].module(agent)
            model.get_input_embeddings().weight[:, 0] = 5.0
            model.get_output_embeddings().weight[run.team.backbones[agent].tokenizer.eos_token_id, 0] = 20.0


def told(caplog):
    return [
        r.getMessage().partition(" in 3 updates")[0] for r in caplog.records if r.name == "collm_agents.watch"
    ]


def collapsed(env, out, *words, callbacks=()):
    words = [*TINY, "joint_samples=40", "rollout.buffer=8", "eval.points=1", f"out={out}", *words]
    return Experiment(load_config(env, overrides=words)).run(callbacks)


def test_rewards_that_are_all_alike_are_said_once_with_what_to_try(tmp_path, caplog):
    collapsed(f"{__name__}:Alike", tmp_path / "run", "algorithm=mc")
    assert sorted(told(caplog)) == ["equal rewards", "zero gradient"]
    text = caplog.text
    assert "up to update 3 (agent_0/t0, agent_1/t0)" in text
    assert "more rollout.samples" in text
    caplog.clear()  # and a run that goes on does not say it again
    Experiment.resume(tmp_path / "run", ["joint_samples=80"])
    assert told(caplog) == []


def test_a_policy_that_leaves_nothing_to_chance_is_said(tmp_path, caplog, capsys):
    words = (
        "algorithm=collm-cc",
        f"model={folder('qwen3')}",
        "tuning=full",
        "lr=1e-12",
        "learner.entropy_coef=1e-9",
    )
    collapsed("paying_env:Paying", tmp_path / "run", *words, callbacks=[Force()])
    assert {"constant replies", "entropy near zero"} <= set(told(caplog))
    assert len(told(caplog)) == len(set(told(caplog)))
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    updates = [row for row in last if row["kind"] == "update"]
    assert {row["distinct_replies/agent_0/t0"] for row in updates} == {0.0}
    assert {row["empty_replies"] for row in updates} == {1.0}


def test_a_run_that_learns_says_nothing(tmp_path, caplog, algorithm):
    caplog.set_level(logging.WARNING)
    collapsed("debug/echo-v0", tmp_path / "run", f"algorithm={algorithm}", "rollout.samples=4")
    assert told(caplog) == []


def test_different_replies_are_counted_by_agent_and_turn():
    rollouts = played(team(AGENTS), (4,), tasks=3)
    metrics = learner(team(AGENTS), MonteCarlo()).update(rollouts)
    for a, agent in enumerate(AGENTS):
        texts = [t for t, own in zip(rollouts.rows.text, rollouts.rows.agent, strict=True) if own == a]
        assert metrics[f"distinct_replies/{agent}/t0"] == (len(set(texts)) - 1) / (len(texts) - 1)
    assert np.isfinite(list(metrics.values())).all()
