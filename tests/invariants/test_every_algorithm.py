"""What holds for every algorithm and option, those from outside the packages included."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from builders import critic, folder, played, same, team, weights
from test_resume import assert_same, run

from collm_agents.algorithms import find_algorithm, list_algorithms
from collm_agents.config import LearnerConfig, LoraConfig, TeamConfig
from collm_agents.experiment import Experiment
from collm_agents.learner import Learner
from collm_agents.members import build_backbones
from collm_agents.overrides import load_config
from collm_agents.team import AgentTeam

COMA = "examples.custom_algorithm:Coma"
OURS = [spec.name for spec in list_algorithms() if spec.estimator.__module__.startswith("collm_agents.")]
OPTIONS = [
    *((name, {}) for name in OURS),
    ("collm-cc", {"critic": "q", "lam": 0.5}),
    ("collm-dc", {"critic": "q"}),
    ("mc", {"baseline": "leave_one_out"}),
    (COMA, {}),
]
every = pytest.mark.parametrize(
    ("name", "options"),
    OPTIONS,
    ids=["-".join([n.rpartition(":")[2], *map(str, o.values())]) for n, o in OPTIONS],
)
AGENTS = ("agent_0", "agent_1")


def make_learner(players, name, options, **settings):
    """The learner that an experiment would build, on tiny models."""
    if ":" in name:
        importlib.import_module(name.partition(":")[0])
    spec, agents = find_algorithm(name), players.agents
    values = critic(spec.view, spec.owners, agents) if spec.view else None
    plain = {"lr": 1e-3, "critic_lr": 1e-3, "lr_schedule": "constant", "max_grad_norm": 0.0}
    return Learner(players, values, spec.estimator(**options), LearnerConfig(**{**plain, **settings}))


def gradients(players, rollouts, name, options, **settings):
    """Gradients of the first step of every agent and critic, flat."""
    found, kept = make_learner(players, name, options, update_epochs=1, critic_epochs=1, **settings), {}
    for member, optimizer in found.optimizers.items():

        def keep(member=member, optimizer=optimizer):
            grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            kept[member] = torch.cat([g.flatten().float() for g in grads])

        optimizer.step = keep
    found.update(rollouts)
    return kept


def far(one, other):
    """Largest relative distance of two sets of gradients."""
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).norm() / other[k].norm()) for k in one)


@every
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_how_a_buffer_is_split_changes_no_gradient(name, options, tuning):
    rollouts = played(team(AGENTS, tuning=tuning), (2, 2))
    whole = gradients(team(AGENTS, tuning=tuning), rollouts, name, options, microbatch_tokens=100_000)
    assert all(float(g.abs().max()) > 1e-4 for g in whole.values())
    for budget in (1, 150):
        split = gradients(team(AGENTS, tuning=tuning), rollouts, name, options, microbatch_tokens=budget)
        assert far(split, whole) < 1e-4


@every
def test_gradients_in_bfloat16_are_those_of_float32_within_five_percent(name, options):
    rollouts = played(team(AGENTS, tuning="full"), (2, 2))
    exact = gradients(team(AGENTS, tuning="full"), rollouts, name, options, advantage_norm="none")
    rough = gradients(
        team(AGENTS, tuning="full", dtype="bfloat16"), rollouts, name, options, advantage_norm="none"
    )
    agents = {k: v for k, v in exact.items() if k in AGENTS}
    assert far({k: rough[k] for k in agents}, agents) < 0.05


@every
def test_what_an_agent_is_trained_with_does_not_depend_on_the_order_of_trees(name, options):
    players = team(AGENTS)
    rollouts = played(players, (2, 2), tasks=2)
    swapped = played(players, (2, 2), tasks=2)
    tree = 1 - swapped.points.tree  # the same forest under other names of its trees
    swapped = dataclasses.replace(
        swapped, points=dataclasses.replace(swapped.points, tree=tree), tasks=swapped.tasks[::-1]
    )
    one, other = (gradients(team(AGENTS), r, name, options) for r in (rollouts, swapped))
    assert far(one, other) < 1e-5


@every
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, name, options):
    more = [f"algorithm.{key}={value}" for key, value in options.items()]
    more += [
        "learner.lr_schedule=constant"
    ]  # its course is the budget's, which the two runs are told differently
    run(tmp_path / "whole", name, "shared lora", 32, *more)
    run(tmp_path / "parts", name, "shared lora", 16, *more)
    Experiment.resume(tmp_path / "parts", ["run.joint_samples=32"])
    assert_same(tmp_path / "whole", tmp_path / "parts")


@every
@pytest.mark.parametrize("count", [2, 8])
def test_teams_of_two_and_of_eight_learn_side_by_side(name, options, count):
    names = tuple(f"agent_{i}" for i in range(count))
    config = TeamConfig(tuning="lora", lora=LoraConfig(rank=2), sampling=team().sampling)
    shared = build_backbones(dict.fromkeys(names, (folder("qwen3"), "lora")), config, "cpu", 0)
    players = AgentTeam(names, shared, config)
    assert len(set(map(id, shared.values()))) == 1  # one base for all
    rollouts = played(players, (2,))
    before = {a: weights(players.backbones[a], a) for a in names}
    metrics = make_learner(players, name, options).update(rollouts)
    assert all(np.isfinite(value) for value in metrics.values())
    assert not any(same(before[a], weights(players.backbones[a], a)) for a in names)


@every
def test_a_frozen_teammate_stays_as_it_is(tmp_path, name, options):
    words = [f"algorithm={name}", *(f"algorithm.{key}={value}" for key, value in options.items())]
    words += [
        f"model={folder('qwen3')}",
        "tuning=full",
        "num_turns=2",
        "rollout.samples=2",
        "rollout.buffer=8",
    ]
    words += ["team.agents.agent_1.trainable=false", "team.sampling.max_new_tokens=4", "run.threads=1"]
    words += [
        "joint_samples=16",
        "eval.tasks=2",
        "eval.final_tasks=2",
        "track.tensorboard=false",
        "learner.lr=0.01",
    ]
    done = Experiment(load_config("paying_env:Paying", overrides=[*words, f"out={tmp_path / 'run'}"]))
    start = done.build().team
    done.run()
    end = done.build().team
    from collm_agents import checkpoint

    checkpoint.load_team(checkpoint.pick(tmp_path / "run"), end)
    for agent, still in (("agent_0", False), ("agent_1", True)):
        one, two = (weights(t.backbones[agent], agent) for t in (start, end))
        assert same(one, two) is still
