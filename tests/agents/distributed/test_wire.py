"""What goes over the wire comes out as it went in, and is small."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from builders import ScriptedTeam, backbone, played, same, stir, team, weights
from forests import assert_equal

from benchmarks.workers.paper import Cluster as ClusterOnPaper
from benchmarks.workers.paper import model as model_on_paper
from benchmarks.workers.shapes import QWEN3_4B, Shape
from benchmarks.workers.wire import floor
from collm_agents.batch import Rollouts
from collm_agents.distributed.wire import pack, put, take, unpack
from collm_envs import InputError


def chatter(agent, prompt, node):
    return f"{agent} says {len(prompt)} ß {'é' * (sum(node or (3,)) % 4)}"


@pytest.mark.parametrize("branching", [(1,), (2, 2, 2), (3, 1, 1)])
@pytest.mark.parametrize("settings", [{}, {"greedy_sibling": True}, {"limit": 150, "overflow": "clip"}])
def test_rollouts_come_out_as_they_went_in(branching, settings):
    kept = {k: settings[k] for k in ("limit", "overflow") if k in settings}
    greedy = {"greedy_sibling": True} if "greedy_sibling" in settings else {}
    rollouts = played(ScriptedTeam(("agent_0", "agent_1"), chatter, **kept), branching, **greedy)
    assert rollouts.rows.clipped.any() == ("limit" in settings and len(branching) > 1)
    assert_equal(unpack(pack(rollouts)), rollouts)


def test_those_of_a_real_team_too():
    rollouts = played(team(("agent_0", "agent_1"), num_turns=2), (2, 2))
    assert_equal(unpack(pack(rollouts)), rollouts)


def test_histories_that_do_not_go_on_from_the_last_are_sent_whole():
    rollouts = played(ScriptedTeam(("agent_0", "agent_1"), chatter), (2, 1))
    odd = tuple(f"state {i} \ud800" for i in range(len(rollouts.points)))
    prompts = tuple((7, *range(i)) for i in range(len(rollouts.rows)))
    strange: Rollouts = dataclasses.replace(
        rollouts,
        points=dataclasses.replace(rollouts.points, state=odd),
        rows=dataclasses.replace(rollouts.rows, prompt=prompts),
    )
    assert_equal(unpack(pack(strange)), strange)


def test_scripted_rows_without_tokens():
    rollouts = played(ScriptedTeam(("agent_0", "agent_1"), chatter), (2,))
    none = np.zeros(0, dtype=np.float32)
    rows = rollouts.rows
    bare = [agent == 1 for agent in rows.agent]
    rows = dataclasses.replace(
        rows,
        prompt=tuple(() if b else p for b, p in zip(bare, rows.prompt, strict=True)),
        reply=tuple(() if b else r for b, r in zip(bare, rows.reply, strict=True)),
        logprob=tuple(none if b else own for b, own in zip(bare, rows.logprob, strict=True)),
    )
    rollouts = dataclasses.replace(rollouts, rows=rows)
    assert_equal(unpack(pack(rollouts)), rollouts)


def test_a_history_costs_what_it_adds():
    """Four times as many turns of like length cost about four times as much, not sixteen times."""

    def long(agent, prompt, node):
        return "".join(chr(97 + (i * i + len(prompt)) % 26) for i in range(400))

    size = {
        turns: len(pack(played(ScriptedTeam(("agent_0", "agent_1"), long), (1,) * turns, tasks=1)))
        for turns in (2, 8)
    }
    assert size[8] < 5 * size[2]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weights_arrive_to_the_bit_and_only_those_of_the_member(tuning):
    here, there = stir(backbone(tuning=tuning), seed=1), stir(backbone(tuning=tuning), seed=2)
    sent, other = weights(here, "a_0"), weights(there, "b_1")
    taken = take(here, "a_0")
    assert taken.data.nbytes == sum(p.numel() * p.element_size() for p in sent.values())
    stir(here, seed=3)  # what was taken is a copy
    put(there, "a_0", taken)
    assert same(weights(there, "a_0"), sent)
    assert same(weights(there, "b_1"), other)


def test_weights_in_bfloat16_too():
    here, there = backbone("llama", dtype=torch.bfloat16), backbone("llama", dtype=torch.bfloat16)
    for model in (here, there):
        for parameter in model.parameters("a_0").values():
            parameter.data = parameter.data.to(torch.bfloat16)
    stir(here, seed=1)
    put(there, "a_0", take(here, "a_0"))
    assert same(weights(there, "a_0"), weights(here, "a_0"))


def test_another_model_is_refused():
    with pytest.raises(InputError, match="other names, shapes or types"):
        put(backbone("llama"), "a_0", take(backbone("qwen3"), "a_0"))


# -- how much goes over the wire ------------------------------------------------------------------------------


def test_the_least_of_a_path_is_its_last_prompt_and_reply_once():
    """A path's tokens are those of its last prompt, which has all before in it, and of the last reply."""
    rollouts = played(ScriptedTeam(("agent_0", "agent_1"), chatter), (1, 1, 1), tasks=1)
    least, rows = floor(rollouts, vocab=257), rollouts.rows
    last = [row for row in range(len(rows)) if rollouts.points.turn[rows.point[row]] == 2]
    assert least["ids"] == 2 * sum(len(rows.prompt[row]) + len(rows.reply[row]) for row in last)
    assert least["logprobs"] == 4 * sum(map(len, rows.reply))
    state, local = rollouts.points.state[-1], rollouts.points.local[0]
    ends = "".join(rows.text[row] for row in last)
    assert least["texts"] == len("".join((state, *local, ends)).encode())
    assert floor(rollouts, vocab=256)["ids"] * 2 == least["ids"]


@pytest.mark.parametrize("branching", [(4,), (2, 2), (2, 1, 1)])
def test_an_update_with_adapters_is_sent_within_a_fifth_of_the_least(branching):
    players = team(("agent_0", "agent_1"), num_turns=3)
    rollouts = played(players, branching)
    models = {name: players.backbones[name] for name in ("agent_0", "agent_1")}
    least = floor(rollouts, len(models["agent_0"].tokenizer))
    adapters = sum(p.numel() * 4 for name, own in models.items() for p in own.parameters(name).values())
    sent = len(pickle.dumps({name: take(own, name) for name, own in models.items()}, protocol=5))
    assert sent <= 1.2 * adapters
    # Log-probs are no part of the bound, and hardly shrink.
    assert sent + len(pack(rollouts)) <= 1.2 * (adapters + least["ids"] + least["texts"])


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_sizes_on_paper_are_those_of_models(name):
    model = backbone(name, members=("a_0",))
    config = model.models()[0].config
    shape = Shape.of(config)
    assert shape.adapter(4) == sum(p.numel() for p in model.parameters("a_0").values())
    full = backbone(name, members=("a_0",), tuning="full")
    assert shape.parameters() == sum(p.numel() for p in full.parameters("a_0").values())


def test_the_cluster_on_paper_by_hand():
    """Qwen3-4B has 4.02 billion parameters; an adapter of rank 16 has 36 * 16 * 57,344 numbers."""
    assert round(QWEN3_4B.parameters() / 1e9, 2) == 4.02
    assert QWEN3_4B.adapter(16) == 36 * 16 * (6656 + 3584 + 3584 + 6656 + 3 * 12288)
    found = model_on_paper(ClusterOnPaper(joint_samples=2, reply=10, prompt=20, gigabits=(8.0,)))
    assert found["rollout_bytes"] == 2 * 8 * (10 * (3 + 4 + 4) + 20 * (3 + 4)) / 2
    assert found["seconds"]["8"] == (8 * 4 * QWEN3_4B.adapter(16) + found["rollout_bytes"]) / 1e9
