"""Teammates that do not learn, weights to begin with, critics on the agents' own models, and large teams."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import same, weights

from collm_agents import checkpoint
from collm_agents.collect import Collector
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs import VecEnv
from collm_envs.errors import InputError, SettingError

SMALL = (
    "rollout.samples=2",
    "rollout.buffer=8",
    "joint_samples=16",
    "eval.every=1000",
    "eval.tasks=2",
    "eval.final_tasks=2",
    "track.tensorboard=false",
    "track.live=false",
    "run.threads=1",
    "learner.lr=0.005",
)
ALGORITHMS = ("mc", "collm-cc", "collm-dc")


def experiment(*words, env="paying_env:Paying"):
    return Experiment(load_config(env, overrides=[*SMALL, *words]))


def updates(folder):
    """Rows of updates, each of finite numbers."""
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if row.pop("kind") == "update"]
    assert rows
    assert all(np.isfinite(value) for row in rows for value in row.values())
    return rows


def collected(made, built, tasks=2):
    collector = Collector(VecEnv(made.env), built.team, made.branching, 0)
    return collector.collect([made.env.tasks[i] for i in range(tasks)], 0)


# -- scripted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_with_a_scripted_teammate_trains_the_other_alone(tmp_path, algorithm):
    words = (
        f"algorithm={algorithm}",
        "num_turns=2",
        "team.agents.agent_1.script=novice",
        f"out={tmp_path / 'run'}",
    )
    made = experiment(*words, env="debug/handshake-v0")
    done = made.run()
    for row in updates(done.run_dir):
        assert not [name for name in row if "agent_1" in name]
        assert "reply_tokens/agent_0/t0" in row
    saved = checkpoint.pick(done.run_dir)
    assert [p.name for p in (saved / "agents").iterdir()] == ["agent_0"]
    if algorithm == "collm-dc":
        assert [p.name for p in (saved / "critics").iterdir()] == ["critic_agent_0"]
    report = Experiment.evaluate(done.run_dir)
    assert all(np.isfinite(v) for stats in report["metrics"].values() for v in stats.values())
    assert report["metrics"]["score"]["n"] == 2
    assert Experiment.resume(done.run_dir, ["joint_samples=32"]).result["joint_samples"] >= 32


def test_scripted_replies_are_rows_without_tokens_that_nobody_scores(monkeypatch):
    made = experiment("team.agents.agent_0.script=oracle", "algorithm=collm-dc", env="debug/echo-v0")
    built = made.build()
    rollouts = collected(made, built)
    scripted = rollouts.rows.agent == 0
    assert scripted.any()
    assert rollouts.rows.drawn.tolist() == (~scripted).tolist()
    letters = [task.public["letters"][0] for task in (made.env.tasks[0], made.env.tasks[1])]
    tree = rollouts.points.tree[rollouts.rows.point]
    assert [rollouts.rows.text[row] for row in np.flatnonzero(scripted)] == [
        letters[t] for t in tree[scripted]
    ]
    assert built.critic.members == ["critic_agent_1"]
    asked = []
    score = built.team.score

    def spied(member, prompts, replies, budget, **wanted):
        asked.append((member, min(map(len, replies), default=1)))
        return score(member, prompts, replies, budget, **wanted)

    monkeypatch.setattr(built.team, "score", spied)
    _, weight = built.learner.row_signals(
        rollouts, made.estimator(rollouts, np.zeros((len(rollouts.points), 2)))
    )
    assert (weight[scripted] == 0).all()
    assert (weight[~scripted] > 0).all()
    built.learner.update(rollouts)
    assert {member for member, _ in asked} == {"agent_1"}
    assert min(shortest for _, shortest in asked) > 0


def test_scripts_draw_by_key_whatever_is_played_beside():
    made = experiment("team.agents.agent_0.script=random", "num_turns=2")
    built = made.build()

    def said(tasks):
        found = Collector(VecEnv(made.env), built.team, (2, 1), 0).collect(tasks, 0)
        tree = found.points.tree[found.rows.point]
        return [
            t for t, tr, a in zip(found.rows.text, tree, found.rows.agent, strict=True) if a == 0 and tr == 0
        ]

    one, two = made.env.tasks[3], made.env.tasks[4]
    assert said([one]) == said([one, two])
    assert len(set(said([one]))) > 1


def test_a_scripted_agent_has_no_model_and_no_weights():
    for other in ("model=x/y", "tuning=lora", "weights=somewhere"):
        with pytest.raises(SettingError, match=r"agent_0.*no model of its own"):
            experiment(
                "team.agents.agent_0.script=oracle", f"team.agents.agent_0.{other}", env="debug/echo-v0"
            )


# -- frozen, and weights to begin with ---------------------------------------------------------------------


def test_a_run_may_begin_with_saved_weights_beside_a_frozen_teammate_of_others(tmp_path):
    first = experiment("algorithm=mc", f"out={tmp_path / 'first'}").run()
    agents = checkpoint.pick(first.run_dir) / "agents"
    moved = tmp_path / "saved"
    shutil.copytree(agents, moved)
    words = (
        "algorithm=collm-dc",
        f"team.agents.agent_0.weights={moved / 'agent_0'}",
        f"team.agents.agent_1.weights={moved / 'agent_1'}",
        "team.agents.agent_1.trainable=false",
        f"out={tmp_path / 'second'}",
    )
    made = experiment(*words)
    built, plain = made.build(), experiment("algorithm=mc").build()
    checkpoint.load_team(checkpoint.pick(first.run_dir), plain.team)
    for agent in ("agent_0", "agent_1"):
        start = weights(built.team.backbones[agent], agent)
        assert same(start, weights(plain.team.backbones[agent], agent))
        assert not same(start, weights(experiment().build_team().backbones[agent], agent))
    assert built.critic.members == ["critic_agent_0"]
    assert built.team.trained == ("agent_0",)
    done = made.run()
    for row in updates(done.run_dir):
        assert not [n for n in row if n.startswith(("loss/agent_1", "advantage_mean/agent_1"))]
        assert "reply_tokens/agent_1/t0" in row
    # The run goes on and is evaluated without the folder that it began with: its checkpoint holds all.
    shutil.rmtree(moved)
    Experiment.resume(done.run_dir, ["joint_samples=32"])
    Experiment.evaluate(done.run_dir)
    end = experiment("algorithm=mc").build_team()
    checkpoint.load_team(checkpoint.pick(done.run_dir), end)
    for agent, still in (("agent_0", False), ("agent_1", True)):
        one, two = (weights(t.backbones[agent], agent) for t in (plain.team, end))
        assert same(one, two) is still


def test_adapters_may_begin_with_saved_ones_and_other_weights_are_refused(tmp_path):
    lora = ("algorithm=mc", "tuning=lora", "team.lora.rank=2")
    first = experiment(*lora, f"out={tmp_path / 'first'}").run()
    saved = checkpoint.pick(first.run_dir) / "agents" / "agent_1"
    found = experiment(*lora, f"team.agents.agent_0.weights={saved}").build_team()
    tensors = [sorted(weights(found.backbones["agent_0"], a).items()) for a in ("agent_0", "agent_1")]
    assert any(float(v.abs().max()) > 0 for name, v in tensors[0] if "lora_B" in name)
    assert all(float(v.abs().max()) == 0 for name, v in tensors[1] if "lora_B" in name)
    with pytest.raises(InputError, match="there are no weights of a whole model"):
        experiment("algorithm=mc", f"team.agents.agent_0.weights={saved}").build_team()
    with pytest.raises(SettingError, match=r"agent_0\.weights: there is no folder"):
        experiment(*lora, f"team.agents.agent_0.weights={tmp_path / 'nowhere'}").build()


def test_the_untrained_base_stays_the_reference_of_weights_to_begin_with(tmp_path):
    first = experiment("algorithm=mc", "learner.lr=0.05", f"out={tmp_path / 'first'}").run()
    saved = checkpoint.pick(first.run_dir) / "agents" / "agent_0"
    words = ("algorithm=mc", "learner.kl_coef=0.1", "update_epochs=1", f"team.agents.agent_0.weights={saved}")
    made = experiment(*words)
    built = made.build()
    metrics = built.learner.update(collected(made, built), 0.0)
    assert metrics["kl_base/agent_0/t0"] > 1e-3
    assert metrics["kl_base/agent_1/t0"] == pytest.approx(0.0, abs=1e-6)


# -- critics on the agents' own models ---------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("algorithm.critic=q", "num_turns=2"), ("learner.value_norm=true",)])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_value_head_on_the_agents_own_model(more, tuning):
    words = (
        "algorithm=collm-dc",
        "critic.share_backbone=true",
        f"tuning={tuning}",
        "team.lora.rank=2",
        *more,
    )
    made = experiment(*words)
    assert made.critic_base() == {}
    built = made.build()
    # Agents do not step of themselves, so that what moves them is their critic; as a setting the pair is refused.
    built.learner.config = dataclasses.replace(built.learner.config, critic_warmup=1)
    for agent in ("agent_0", "agent_1"):
        own = built.critic.parameters(f"critic_{agent}")
        assert built.critic.backbones[f"critic_{agent}"] is built.team.backbones[agent]
        body = {name: p for name, p in own.items() if not name.startswith("head.")}
        assert {id(p) for p in body.values()} == {
            id(p) for p in built.team.backbones[agent].parameters(agent).values()
        }
    before = {a: weights(built.team.backbones[a], a) for a in ("agent_0", "agent_1")}
    for _ in range(2):
        # The first step of an untrained head reaches the head alone; the second moves the body: it is coupled.
        metrics = built.learner.update(collected(made, built))
        assert all(np.isfinite(v) for v in metrics.values())
        built.learner.updates = 0  # still warming up
    assert metrics["warmup"] == 1.0
    assert not any(same(before[a], weights(built.team.backbones[a], a)) for a in before)
    heads = [head.linear.weight.detach() for head in built.critic.heads.values()]
    assert all(float(head.abs().max()) > 0 for head in heads)
    assert not torch.equal(*heads)


def test_a_checkpoint_of_shared_backbones_holds_them_once(tmp_path):
    words = ("algorithm=collm-dc", "critic.share_backbone=true", f"out={tmp_path / 'run'}")
    done = experiment(*words).run()
    saved = checkpoint.pick(done.run_dir)
    for agent in ("agent_0", "agent_1"):
        assert (saved / "agents" / agent / "model.safetensors").is_file()
        assert [p.name for p in (saved / "critics" / f"critic_{agent}").iterdir()] == [
            "value_head.safetensors"
        ]
    Experiment.evaluate(done.run_dir)


# -- discussions -------------------------------------------------------------------------------------------


def test_in_a_discussion_of_one_turn_final_replies_follow_the_templates_own_opening(tmp_path, monkeypatch):
    """A team of one-turn episodes knows no later turns; a discussion has one all the same."""
    prompts = []
    done = experiment("algorithm=mc", f"out={tmp_path / 'run'}", env="debug/echo-v0").run()
    build = Experiment.build_team

    def spied(self, *args, **kwargs):
        team = build(self, *args, **kwargs)
        act = team.act

        def noted(requests, *more):
            prompts.extend((team.formats[r.agent].tokenizer, r.prompt) for r in requests)
            return act(requests, *more)

        team.act = noted
        return team

    monkeypatch.setattr(Experiment, "build_team", spied)
    for play in (
        lambda: experiment(env="debug/echo-v0").evaluate_untrained("discussion"),
        lambda: Experiment.evaluate(done.run_dir, protocol="discussion"),
    ):
        prompts.clear()
        report = play()
        assert report["metrics"]["drafted_tokens"]["mean"] > 0
        texts = [tokenizer.decode(ids) for tokenizer, ids in prompts]
        assert len(texts) == 2 * 2 * 2
        opening = texts[0][texts[0].rindex("letter:") + len("letter: A") :]
        assert opening.strip()
        assert all(text.endswith(opening) for text in texts)


# -- large teams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_eight_agents_on_the_builtin_model(tmp_path, algorithm):
    words = (f"algorithm={algorithm}", "num_agents=8", "num_turns=2", f"out={tmp_path / 'run'}")
    done = experiment(*words, env="debug/handshake-v0").run()
    for row in updates(done.run_dir):
        assert {f"grad_norm/agent_{i}" for i in range(8)} <= set(row)
    assert len(list((checkpoint.pick(done.run_dir) / "agents").iterdir())) == 8


@pytest.mark.parametrize(
    ("env", "algorithm", "count"),
    [("games/strbuild-mini-v0", "mc", 4), ("games/housebuild-mini-v0", "collm-dc", 3)],
)
def test_three_and_four_agents_on_other_environments(tmp_path, env, algorithm, count):
    words = (f"algorithm={algorithm}", f"num_agents={count}", f"out={tmp_path / 'run'}")
    made = experiment(*words, "joint_samples=8", "num_turns=1", env=env)
    for row in updates(made.run().run_dir):
        assert {f"grad_norm/{agent}" for agent in made.env.possible_agents} <= set(row)
    assert len(made.env.possible_agents) == count


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("mc", ("joint_mode=cross", "learner.kl_coef=0.01", "learner.ratio=sequence")),
        ("collm-cc", ("algorithm.critic=q", "learner.value_norm=true", "joint_mode=cross")),
        ("collm-dc", ("critic.share_backbone=true", "learner.entropy_coef=0.01", "learner.minibatches=2")),
    ],
)
def test_every_number_of_a_run_is_finite_with_all_kinds_of_options(tmp_path, algorithm, more):
    words = (f"algorithm={algorithm}", "num_turns=2", f"out={tmp_path / 'run'}", *more)
    done = experiment(*words, env="debug/handshake-v0").run()
    names = set().union(*updates(done.run_dir))
    assert ("kl_base/agent_0/t0" in names) is ("learner.kl_coef=0.01" in more)
    assert ("group_equal/agent_1/t1" in names) or algorithm != "mc"
    assert ("explained_variance/critic" in names) is (algorithm == "collm-cc")
