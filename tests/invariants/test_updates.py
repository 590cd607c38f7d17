"""What must not change an update, and what an update must not change."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import backbone, critic, gap, learner, played, same, team, weights
from tiny_models import byte_tokenizer

from collm_agents.advantages import Estimate
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.config import SamplingConfig, TeamConfig
from collm_agents.critic import Critic
from collm_agents.team import AgentTeam

AGENTS = ("agent_0", "agent_1")


def after(found, rollouts, updates=1):
    """All weights after some updates: by agent and critic."""
    for _ in range(updates):
        found.update(rollouts)
    weights_of = {a: weights(found.team.backbones[a], a) for a in found.team.agents}
    if found.critic is not None:
        for member in found.critic.members:
            weights_of[member] = {
                **weights(found.critic.backbones[member], member),
                **{k: v.detach().clone() for k, v in found.critic.heads[member].state_dict().items()},
            }
    return weights_of


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_cc_with_a_critic_of_zero_and_lambda_one_updates_agents_as_mc_without_a_baseline(tuning, monkeypatch):
    rollouts = played(team(AGENTS, tuning=tuning), (2, 2))
    values = critic("joint", "one", AGENTS)
    monkeypatch.setattr(values.heads["critic"], "set_bias", lambda value: None)  # V stays at zero
    settings = {"advantage_norm": "agent_turn", "update_epochs": 2}
    cc = after(learner(team(AGENTS, tuning=tuning), CentralisedCritic(lam=1.0), values, **settings), rollouts)
    mc = after(learner(team(AGENTS, tuning=tuning), MonteCarlo(baseline="none"), **settings), rollouts)
    start = team(AGENTS, tuning=tuning)
    for agent in AGENTS:
        assert same(cc[agent], mc[agent])
        assert gap(mc[agent], weights(start.backbones[agent], agent)) > 1e-4


@pytest.mark.parametrize("ratio", ["none", "sequence", "token"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_micro_batches_of_one_row_update_as_the_whole_buffer(ratio, tuning):
    rollouts = played(team(AGENTS, tuning=tuning), (2, 2))
    settings = {"ratio": ratio, "update_epochs": 1, "critic_epochs": 1, "max_grad_norm": 0.0}
    gradients = []
    for budget in (1, 120, 100_000):
        found = learner(
            team(AGENTS, tuning=tuning),
            DecentralisedCritics(),
            critic("local", "each", AGENTS),
            microbatch_tokens=budget,
            **settings,
        )
        kept = {}
        for name, optimizer in found.optimizers.items():
            # AdamW's first step is the sign of the gradient, which hides its size and magnifies its rounding.
            def keep(name=name, optimizer=optimizer, kept=kept):
                grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
                kept[name] = torch.cat([g.flatten() for g in grads])

            optimizer.step = keep
        found.update(rollouts)
        gradients.append(kept)
    assert set(gradients[0]) == {"agent_0", "agent_1", "critic_agent_0", "critic_agent_1"}
    for name, whole in gradients[-1].items():
        assert whole.abs().max() > 1e-3
        for other in gradients[:-1]:
            assert float((other[name] - whole).norm() / whole.norm()) < 1e-5


def test_micro_batches_change_no_weight_after_several_updates():
    rollouts = played(team(AGENTS, stirred=False), (2, 2))
    one, whole = (
        after(
            learner(team(AGENTS, stirred=False), MonteCarlo(), lr=1e-4, microbatch_tokens=budget), rollouts, 2
        )
        for budget in (1, 100_000)
    )
    for agent in AGENTS:
        assert gap(one[agent], whole[agent]) < 1e-6


def keep_only(agent):
    """An estimator that trains the rows of one agent alone."""

    @dataclasses.dataclass(frozen=True)
    class Only(MonteCarlo):
        def __call__(self, rollouts, values=None):
            found = super().__call__(rollouts, values)
            return Estimate(found.advantage, found.keep & (rollouts.rows.agent == AGENTS.index(agent)))

    return Only(baseline="none")


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("agent", AGENTS)
def test_updating_one_agent_leaves_the_other_bit_identical(tuning, agent):
    players = team(AGENTS, tuning=tuning)
    other = AGENTS[1 - AGENTS.index(agent)]
    rollouts = played(players, (3,))
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    # Weight decay too: it must not touch what is not trained.
    after(learner(players, keep_only(agent), weight_decay=0.1), rollouts, updates=2)
    assert same(before[other], weights(players.backbones[other], other))
    assert gap(before[agent], weights(players.backbones[agent], agent)) > 1e-4
    # And the other speaks as before.
    fresh = team(AGENTS, tuning=tuning)
    with torch.no_grad():
        one, two = (p.logprobs(other, [(70, 71)], [(5, 6, 7)])[0] for p in (players, fresh))
        mine, old = (p.logprobs(agent, [(70, 71)], [(5, 6, 7)])[0] for p in (players, fresh))
    assert torch.equal(one, two)
    assert not torch.equal(mine, old)


def test_agents_and_critics_on_one_base_do_not_touch_each_other_or_the_base():
    template = team(AGENTS)
    shared = backbone("qwen3", (*AGENTS, "critic"))
    players = AgentTeam(
        AGENTS, dict.fromkeys(AGENTS, shared), TeamConfig(sampling=SamplingConfig(max_new_tokens=6))
    )
    values = Critic("joint", "one", AGENTS, {"critic": shared}, global_info=True)
    base = {n: p.detach().clone() for n, p in shared._peft.named_parameters() if "lora_" not in n}
    rollouts = played(template, (2,))
    found = learner(players, CentralisedCritic(), values, critic_warmup=1)
    agents_before = {a: weights(shared, a) for a in AGENTS}
    found.update(rollouts)  # the critic alone
    assert all(same(agents_before[a], weights(shared, a)) for a in AGENTS)
    found.update(rollouts)
    assert all(torch.equal(base[n], p) for n, p in shared._peft.named_parameters() if n in base)


@pytest.mark.parametrize("kind", ["mc", "cc"])
def test_what_pads_a_batch_never_changes_a_loss(kind, monkeypatch):
    rollouts = played(team(AGENTS), (3,))
    assert len({len(r) for r in rollouts.rows.reply} | {len(p) for p in rollouts.rows.prompt}) > 1

    def losses(pad):
        players = team(AGENTS)
        values = critic("joint", "one", AGENTS) if kind == "cc" else None
        owners = [*players.backbones.values(), *(values.backbones.values() if values else ())]
        for found in owners:
            monkeypatch.setattr(type(found), "pad_id", property(lambda self: pad))
        estimator = CentralisedCritic() if kind == "cc" else MonteCarlo(baseline="none")
        metrics = learner(players, estimator, values).update(rollouts)
        return {k: v for k, v in metrics.items() if k.startswith(("loss/", "grad_norm/"))}

    tokenizer = byte_tokenizer()
    first = losses(tokenizer.pad_token_id)
    assert len(first) == (6 if kind == "cc" else 4)
    for pad in (0, 77, tokenizer.eos_token_id):
        assert losses(pad) == pytest.approx(first, rel=1e-5, abs=1e-6)


def test_greedy_siblings_are_never_trained():
    players = team(AGENTS)
    rollouts = played(players, (2, 2), greedy_sibling=True)
    greedy = rollouts.row_of[rollouts.nodes.greedy].ravel()
    assert len(greedy)
    estimator = MonteCarlo(baseline="greedy")
    _, weight = learner(players, estimator).row_signals(rollouts, estimator(rollouts))
    assert (weight[greedy] == 0).all()
    seen = []
    found = learner(players, estimator)
    score = found.team.score
    players.score = lambda member, prompts, replies, *more, **options: (
        seen.extend(replies) or score(member, prompts, replies, *more, **options)
    )
    changed = list(rollouts.rows.reply)
    for row in greedy:
        changed[row] = (250, 251)  # a reply that no sampled row could share
    found.update(dataclasses.replace(rollouts, rows=dataclasses.replace(rollouts.rows, reply=tuple(changed))))
    assert seen
    assert (250, 251) not in seen


def test_a_reply_without_advantage_pulls_at_nothing():
    players = team(AGENTS)
    rollouts = played(players, (2,))
    flat = dataclasses.replace(
        rollouts, nodes=dataclasses.replace(rollouts.nodes, reward=np.ones(len(rollouts.nodes)))
    )
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    found = after(learner(players, MonteCarlo(baseline="mean")), flat)
    assert all(same(before[a], found[a]) for a in AGENTS)
