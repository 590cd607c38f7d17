"""Bases in bfloat16 with adapters, computed on a CPU: the fast paths hold and learning goes the same way."""

import logging

import builders
import numpy as np
import pytest
import torch

from collm_agents.algorithms.mc import MonteCarlo

AGENTS = ("agent_0", "agent_1")


@pytest.mark.parametrize("model", ["qwen3", "llama", "gemma2"])
def test_collect_and_update(model, caplog):
    with caplog.at_level(logging.WARNING):
        players = builders.team(AGENTS, model, "lora", num_turns=2, dtype="bfloat16")
        rollouts = builders.played(players, (3, 2))
    exact = builders.team(AGENTS, model, "lora", num_turns=2)
    moved = []
    for team in (players, exact):
        backbone = team.backbones[AGENTS[0]]
        before = builders.weights(backbone, AGENTS[0])
        assert {weight.dtype for weight in before.values()} == {torch.float32}
        figures = builders.learner(team, MonteCarlo(), lr=1e-3).update(rollouts)
        assert all(np.isfinite(value) for value in figures.values())
        after = builders.weights(backbone, AGENTS[0])
        moved.append(torch.cat([(after[name] - before[name]).flatten() for name in before]))
    assert not caplog.records  # neither loop nor packing fell back
    assert {
        p.dtype for p in players.backbones[AGENTS[0]].models()[0].parameters() if not p.requires_grad
    } >= {torch.bfloat16}
    cosine = torch.nn.functional.cosine_similarity(*moved, dim=0)
    assert cosine >= 0.9  # AdamW's first steps are signs, which rounding turns where a gradient is near zero


@pytest.mark.parametrize("model", ["qwen3", "mistral"])
def test_sampled_log_probs_are_near_teacher_forced_ones(model):
    players = builders.team(AGENTS, model, "lora", num_turns=2, dtype="bfloat16")
    rollouts = builders.played(players, (3, 2))
    rows = rollouts.rows
    for a, agent in enumerate(AGENTS):
        own = np.flatnonzero(rows.agent == a)
        with torch.no_grad():
            logprob, mask = players.logprobs(
                agent, [rows.prompt[i] for i in own], [rows.reply[i] for i in own]
            )
        for k, i in enumerate(own):
            np.testing.assert_allclose(logprob[k][mask[k]].numpy(), rows.logprob[i], atol=0.1)
