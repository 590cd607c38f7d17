"""Recorded decode steps on CUDA: the plain loop's replies, with the weights of every update."""

import builders
import numpy as np
import pytest
import torch

from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.models.graphs import Graphs, Plainly

pytestmark = pytest.mark.gpu

AGENTS = ("agent_0", "agent_1")
MODELS = ["qwen3", "llama", "qwen2", "gemma2", "gemma3", "mistral"]


def team(device, models, tuning, *, graphs, **config):
    """A team with recorded steps or without; a rehearsal on a CPU records nothing."""
    config = {"dtype": "float32", "sampling": {"max_new_tokens": 24}, **config}
    on = graphs and device != "cpu"
    found = builders.team(
        AGENTS, models, tuning, num_turns=2, device=device, cuda_graphs="true" if on else "false", **config
    )
    if graphs and device == "cpu":
        found.graphs = Graphs(Plainly())
    return found


def forced(players, rollouts):
    """Differences of sampled log-probs to teacher-forced ones, one array per row."""
    rows, found = rollouts.rows, []
    for a, agent in enumerate(rollouts.agents):
        own = np.flatnonzero(rows.agent == a)
        with torch.no_grad():
            logprob, mask = players.logprobs(
                agent, [rows.prompt[i] for i in own], [rows.reply[i] for i in own]
            )
        for k, i in enumerate(own):
            found.append(logprob[k][mask[k]].float().cpu().numpy() - rows.logprob[i])
    return np.abs(np.concatenate(found))


def recorded(players):
    return [key for steps in players.graphs._steps.values() for key in steps._recorded]


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("models", [*MODELS, ["qwen3", "llama"]], ids=str)
def test_recorded_steps_give_the_plain_loops_replies(device, models, tuning):
    plain, held = (team(device, models, tuning, graphs=on) for on in (False, True))
    expected, found = (builders.played(t, (4, 2), tasks=4) for t in (plain, held))
    assert recorded(held)
    assert not held.graphs.failed
    assert found.rows.reply == expected.rows.reply
    for one, other in zip(found.rows.logprob, expected.rows.logprob, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert forced(held, found).max() <= 1e-3


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_steps_recorded_before_an_update_have_the_weights_of_the_next(device, tuning):
    players = team(device, "qwen3", tuning, graphs=True)
    found = builders.learner(players, MonteCarlo(), lr=0.02)
    before = None
    for update in range(3):
        rollouts = builders.played(players, (4, 2), tasks=4, update=update)
        assert forced(players, rollouts).max() <= 1e-3
        known = recorded(players)
        assert before is None or set(before) <= set(known)  # so little memory is kept, and the graphs with it
        before = known
        found.update(rollouts)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "recorded"])
def test_bfloat16_sampling_is_near_teacher_forcing(device, tuning, graphs):
    players = team(device, "qwen3", tuning, graphs=graphs, dtype="bfloat16")
    found = forced(players, builders.played(players, (4, 2), tasks=4))
    assert found.mean() <= 0.02
    assert found.max() <= 0.25


def test_memory_is_given_back_before_an_update(device):
    players = team(device, "qwen3", "lora", graphs=True)
    players.graphs.keep = 0
    builders.played(players, (4, 2), tasks=4)
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        builders.played(players, (4, 2), tasks=4, update=1)
        assert torch.cuda.memory_allocated() <= before + 2**20
    assert players.graphs.bytes == players.store.bytes == 0
