"""What may be added to or left out of an update: skipped rows, KL, entropy, value clips, units and targets."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import critic, folder, gap, learner, played, same, stir, team, weights

from collm_agents.advantages import Estimate
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.config import LoraConfig, SamplingConfig, TeamConfig
from collm_agents.losses import kl_estimate
from collm_agents.members import build_backbones
from collm_agents.models import packing
from collm_agents.sides import CriticSide
from collm_agents.team import AgentTeam

AGENTS = ("agent_0", "agent_1")


class Fixed:
    """An estimator that gives every row the advantage it was told."""

    gamma, advantage_norm = 1.0, "none"

    def __init__(self, advantage):
        self.advantage = np.asarray(advantage, dtype=float)

    def critic_queries(self, rollouts):
        return None

    def __call__(self, rollouts, values):
        return Estimate(self.advantage, np.ones(len(rollouts.rows), bool))


def spy_on_rows(monkeypatch, players):
    """Number of rows in every call of `team.score`, with what else was asked for."""
    calls, score = [], players.score

    def spied(member, prompts, replies, budget, **wanted):
        calls.append((member, len(prompts), wanted))
        return score(member, prompts, replies, budget, **wanted)

    monkeypatch.setattr(players, "score", spied)
    return calls


# -- rows without advantage --------------------------------------------------------------------------------


def one_tree_has_nothing_to_teach(rollouts):
    """Advantages by row: 0 throughout the second tree, and for every other row of the others."""
    tree = rollouts.points.tree[rollouts.rows.point]
    advantage = np.where(np.arange(len(tree)) % 4 < 2, 1.0, 0.0) * (1 + np.arange(len(tree)) % 3)
    advantage[tree == 1] = 0.0
    return advantage


@pytest.mark.parametrize(("ratio", "minibatches"), [("none", 1), ("sequence", 1), ("token", 3)])
def test_leaving_out_rows_without_advantage_changes_no_weight(monkeypatch, ratio, minibatches):
    # Every row alone, so that sums over rows are the same to the last bit whoever is left out.
    monkeypatch.setattr(packing, "JOINED", 1.0)
    rollouts = played(team(AGENTS), (2,), tasks=3)
    advantage = one_tree_has_nothing_to_teach(rollouts)
    settings = {"ratio": ratio, "minibatches": minibatches, "weight_decay": 0.01, "microbatch_tokens": 1}
    trained, rows = [], []
    # 1e-30 times any gradient is lost beside all others in float32, and is not 0: nothing is left out.
    for least in (0.0, 1e-30):
        found = learner(team(AGENTS), Fixed(np.where(advantage == 0, least, advantage)), **settings)
        calls = spy_on_rows(monkeypatch, found.team)
        for _ in range(3):
            found.update(rollouts)
        rows.append(sum(count for _, count, _ in calls))
        trained.append([weights(found.team.backbones[a], a) for a in AGENTS])
    assert rows[0] * 2 < rows[1]
    for one, other in zip(*trained, strict=True):
        assert same(one, other)


def test_a_step_with_such_rows_only_still_lets_the_moments_decay_and_the_weights_move_on():
    rollouts = played(team(AGENTS), (3,), tasks=2)
    found = learner(team(AGENTS), Fixed(np.linspace(-1, 1, len(rollouts.rows))), update_epochs=1)
    found.update(rollouts)
    optimizer, before = found.optimizers["agent_0"], weights(found.team.backbones["agent_0"], "agent_0")
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    found.estimator = Fixed(np.zeros(len(rollouts.rows)))
    metrics = found.update(rollouts)
    assert metrics["loss/agent_0"] == metrics["grad_norm/agent_0"] == 0.0
    for old, state in zip(moments, optimizer.state.values(), strict=True):
        assert torch.allclose(state["exp_avg"], 0.9 * old, rtol=1e-6)
        assert float(state["step"]) == 2.0
    assert gap(before, weights(found.team.backbones["agent_0"], "agent_0")) > 1e-5


@pytest.mark.parametrize("kept", [{"kl_coef": 0.1}, {"entropy_coef": 0.1}])
def test_rows_held_to_the_base_or_to_their_entropy_are_never_left_out(monkeypatch, kept):
    players = team(AGENTS)
    rollouts = played(players, (3,), tasks=1)
    for settings, expected in (({}, 0), (kept, 3)):
        found = learner(players, Fixed(np.zeros(len(rollouts.rows))), update_epochs=1, **settings)
        calls = spy_on_rows(monkeypatch, players)
        found.update(rollouts)
        assert {count for _, count, _ in calls} == {expected}
        monkeypatch.undo()


# -- KL and entropy ----------------------------------------------------------------------------------------


def referenced(tuning, stirred=0.0):
    """A team whose untrained base can be asked for; `stirred` moves its agents away from it."""
    settings = TeamConfig(
        tuning=tuning, lora=LoraConfig(rank=4, alpha=8.0), sampling=SamplingConfig(max_new_tokens=6)
    )
    wanted = dict.fromkeys(AGENTS, (folder("qwen3"), tuning))
    backbones = build_backbones(wanted, settings, "cpu", 0, referenced=AGENTS)
    if stirred:
        stir(backbones["agent_0"], scale=stirred)
    return AgentTeam(AGENTS, backbones, settings)


def first_gradients(found, rollouts, monkeypatch):
    grads = {}
    for agent in AGENTS:
        parameters = found.team.backbones[agent].parameters(agent)

        def keep(agent=agent, parameters=parameters):
            grads[agent] = {
                n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in parameters.items()
            }

        monkeypatch.setattr(found.optimizers[agent], "step", keep)
    metrics = found.update(rollouts)
    return grads, metrics


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_at_the_base_the_divergence_is_zero_and_pulls_at_nothing(monkeypatch, tuning):
    rollouts = played(referenced(tuning), (3,))
    plain, _ = first_gradients(
        learner(referenced(tuning), MonteCarlo(baseline="none"), update_epochs=1, max_grad_norm=0.0),
        rollouts,
        monkeypatch,
    )
    held, metrics = first_gradients(
        learner(
            referenced(tuning), MonteCarlo(baseline="none"), update_epochs=1, max_grad_norm=0.0, kl_coef=100.0
        ),
        rollouts,
        monkeypatch,
    )
    for agent in AGENTS:
        assert metrics[f"kl_base/{agent}/t0"] == pytest.approx(0.0, abs=1e-6)
        assert max(float(g.abs().max()) for g in plain[agent].values()) > 1e-2
        for name, gradient in plain[agent].items():
            assert torch.allclose(gradient, held[agent][name], atol=2e-3), name


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("reduction", ["sum", "token_mean"])
def test_gradients_of_divergence_and_entropy_are_those_of_the_written_formula(monkeypatch, tuning, reduction):
    players = referenced(tuning, stirred=0.3)
    rollouts = played(players, (3,))
    base, weight = referenced(tuning), rollouts.row_weight()
    expected, divergence = {}, []
    for a, agent in enumerate(AGENTS):
        loss = torch.zeros(())
        for row in np.flatnonzero(rollouts.rows.agent == a):
            prompt, reply = [rollouts.rows.prompt[row]], [rollouts.rows.reply[row]]
            logp, _ = players.logprobs(agent, prompt, reply)
            with torch.no_grad():
                reference, _ = base.logprobs(agent, prompt, reply)  # untrained: the base itself
            logits = players.backbones[agent].reply_logits(agent, prompt, reply)[0]
            banned = torch.ones(logits.shape[-1], dtype=torch.bool)
            banned[: len(players.formats[agent].banned)] = players.formats[agent].banned
            p = logits[:, ~banned].softmax(-1)
            entropy = -(p * p.log()).sum(-1)
            kl = kl_estimate(logp, reference)[0]
            divergence.append(float(kl.detach().mean()))
            count = len(reply[0]) if reduction == "token_mean" else 1
            loss = loss + float(weight[row]) * (0.7 * kl.sum() - 0.3 * entropy.sum()) / count
        parameters = players.backbones[agent].parameters(agent)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        expected[agent] = dict(zip(parameters, found, strict=True))
    made = learner(
        players,
        Fixed(np.zeros(len(rollouts.rows))),
        kl_coef=0.7,
        entropy_coef=0.3,
        reduction=reduction,
        update_epochs=1,
        max_grad_norm=0.0,
    )
    grads, metrics = first_gradients(made, rollouts, monkeypatch)
    known = [metrics[f"kl_base/{agent}/t0"] for agent in AGENTS]
    assert np.mean(known) == pytest.approx(np.mean(divergence), rel=1e-3)
    for agent in AGENTS:
        assert max(float(g.abs().max()) for g in grads[agent].values()) > 1e-3
        for name, gradient in grads[agent].items():
            by_hand = expected[agent][name]
            by_hand = torch.zeros_like(gradient) if by_hand is None else by_hand
            assert torch.allclose(gradient, by_hand, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_reference_stays_the_untrained_base_whatever_is_learned(tuning):
    players = referenced(tuning)
    rollouts = played(players, (3,))
    rows = np.flatnonzero(rollouts.rows.agent == 0)
    asked = [rollouts.rows.prompt[r] for r in rows], [rollouts.rows.reply[r] for r in rows]

    @torch.no_grad()
    def logprobs(**wanted):
        return {
            int(row): scored.logprob[i].tolist()
            for scored in players.score("agent_0", *asked, 10_000, **wanted)
            for i, row in enumerate(scored.rows)
        }

    base, own = logprobs(reference=True), logprobs()
    found = learner(players, MonteCarlo(baseline="none"), lr=0.01, kl_coef=0.1)
    for _ in range(3):
        metrics = found.update(rollouts)
    assert logprobs(reference=True) == base
    moved = max(
        abs(x - y) for row, values in logprobs().items() for x, y in zip(values, own[row], strict=True)
    )
    assert moved > 0.1
    assert metrics["kl_base/agent_0/t0"] > 1e-3


def test_a_strong_pull_brings_a_strayed_policy_back_to_the_base():
    players = referenced("lora", stirred=0.3)
    rollouts = played(players, (8,))
    found = learner(players, Fixed(np.zeros(len(rollouts.rows))), lr=5e-3, kl_coef=1.0, ratio="none")
    first, *_, last = [found.update(rollouts)["kl_base/agent_0/t0"] for _ in range(12)]
    assert first > 0.01
    assert last < 0.3 * first


def test_the_entropy_bonus_raises_entropy():
    players = team(AGENTS, sampling={"temperature": 0.4})  # at 1 random weights spread all but evenly
    rollouts = played(players, (4,))
    found = learner(
        players, Fixed(np.zeros(len(rollouts.rows))), lr=5e-3, entropy_coef=1.0, ratio="none", update_epochs=1
    )
    history = [found.update(rollouts)["entropy/agent_0/t0"] for _ in range(6)]
    assert history[-1] > history[0] + 0.05
    assert np.all(np.diff(history) > 0)
    assert history[-1] < np.log(len(players.formats["agent_0"].banned))


# -- critics -----------------------------------------------------------------------------------------------


def scaled(rollouts, scale, level):
    reward = rollouts.nodes.reward * scale + level
    return dataclasses.replace(rollouts, nodes=dataclasses.replace(rollouts.nodes, reward=reward))


@pytest.mark.parametrize(
    ("estimator", "view"), [(CentralisedCritic(lam=1.0), "joint"), (DecentralisedCritics(lam=1.0), "local")]
)
def test_targets_of_any_scale_are_learned_in_their_own_units(estimator, view):
    players = team(AGENTS)
    rollouts = scaled(played(players, (2, 1), tasks=2), 1000.0, -5000.0)
    values = critic(view, "one" if view == "joint" else "each", AGENTS)
    found = learner(
        players, estimator, values, critic_lr=0.01, value_norm=True, critic_epochs=6, update_epochs=1
    )
    first = found.update(rollouts)
    for _ in range(3):
        last = found.update(rollouts)
    for member in values.members:
        assert 300 < float(values.heads[member].scale) < 3000
        assert first[f"loss/{member}"] < 2.0  # in units of the targets' deviation
        assert last[f"explained_variance/{member}"] > 0.5 > first[f"explained_variance/{member}"]


def test_noting_the_targets_moments_moves_no_value():
    players = team(AGENTS)
    rollouts = scaled(played(players, (2, 1)), 100.0, 30.0)
    values = critic("local", "each", AGENTS)
    for number, head in enumerate(values.heads.values()):
        torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(number))
    estimator = DecentralisedCritics()
    found = learner(players, estimator, values, value_norm=True)
    encoded = values.encode(rollouts, estimator.critic_queries(rollouts))
    before = values.values(encoded, 1000)
    estimate = estimator(rollouts, before)
    share = estimate.target_weight / estimate.target_weight.sum()
    for member in values.members:
        found.sides[member]._track(values.own(member, estimate.target), share)
    assert values.values(encoded, 1000) == pytest.approx(before, rel=1e-4, abs=1e-3)
    for a, member in enumerate(values.members):
        mean = float((share * estimate.target[:, a]).sum())
        assert float(values.heads[member].centre) == pytest.approx(mean, rel=1e-5)
        spread = float((share * (estimate.target[:, a] - mean) ** 2).sum()) ** 0.5
        assert float(values.heads[member].scale) == pytest.approx(spread, rel=1e-4)


def targets_by_pass(monkeypatch, **settings):
    """Targets of each of the critic's passes over one buffer, with the values that they may come from."""
    players = team(AGENTS)
    rollouts = played(players, (2, 1))
    values = critic("joint", "one", AGENTS)
    found = learner(
        players, CentralisedCritic(gamma=0.9), values, critic_lr=0.01, critic_epochs=3, **settings
    )
    encoded = values.encode(rollouts, found.estimator.critic_queries(rollouts))
    seen, known, fit = [], [], CriticSide.fit

    def spied(side, target, *rest, **options):
        seen.append(target.copy())
        known.append((values.values(encoded, 2048), side._before))
        return fit(side, target, *rest, **options)

    monkeypatch.setattr(CriticSide, "fit", spied)
    metrics = found.update(rollouts)
    return rollouts, found.estimator, seen, known, metrics


def test_targets_are_frozen_unless_they_are_to_be_refreshed(monkeypatch):
    _, _, seen, _, frozen = targets_by_pass(monkeypatch)
    assert len(seen) == 3
    assert all(np.array_equal(seen[0], later) for later in seen[1:])
    rollouts, estimator, fresh, known, refreshed = targets_by_pass(monkeypatch, value_targets="refreshed")
    assert fresh[0].tolist() == seen[0].tolist()
    for target, (values, before) in zip(fresh[1:], known[1:], strict=True):
        assert np.abs(target - fresh[0]).max() > 1e-3
        assert target == pytest.approx(estimator(rollouts, values).target, abs=1e-6)
        assert before.tolist() == known[0][1].tolist()  # a value clip is about the rollout's values
    # The agents were trained with the rollout's advantages in both.
    for name in ("advantage_mean/agent_0/t0", "advantage_std/agent_1/t1", "loss/agent_0"):
        assert frozen[name] == refreshed[name]


def test_a_value_clip_holds_values_near_the_rollouts():
    moved = {}
    for clip in (0.0, 0.01):
        players = team(AGENTS)
        rollouts = played(players, (2, 1))
        values = critic("joint", "one", AGENTS)
        found = learner(
            players, CentralisedCritic(), values, critic_lr=0.01, critic_epochs=5, value_clip=clip
        )
        encoded = values.encode(rollouts, found.estimator.critic_queries(rollouts))
        found.update(rollouts)
        start = (
            rollouts.nodes.weight * MonteCarlo(gamma=0.9).gamma ** 0 * 0
        ).sum()  # values start at one bias
        moved[clip] = np.ptp(values.values(encoded, 2048) - start)
    assert moved[0.01] < 0.5 * moved[0.0]


def test_a_buffer_without_a_single_target_leaves_a_q_critic_as_it_is():
    players = team(AGENTS)
    rollouts = played(players, (2,))
    nodes = rollouts.nodes
    cut = np.ones(len(nodes), bool)
    rollouts = dataclasses.replace(rollouts, nodes=dataclasses.replace(nodes, truncated=cut, terminated=~cut))
    values = critic("joint", "one", AGENTS)
    found = learner(players, CentralisedCritic(critic="q"), values, value_norm=True)
    before = weights(values.backbones["critic"], "critic")
    metrics = found.update(rollouts)
    assert "loss/critic" not in metrics
    assert same(before, weights(values.backbones["critic"], "critic"))
    assert all(torch.isfinite(v).all() for v in values.heads["critic"].state_dict().values())
    assert all(np.isfinite(v) for v in metrics.values())
