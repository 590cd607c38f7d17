"""What goes over the wire comes out as it went in, and is small."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import ScriptedTeam, backbone, played, same, stir, team, weights
from forests import assert_equal

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
