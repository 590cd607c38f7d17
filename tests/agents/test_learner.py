import dataclasses
import math

import numpy as np
import pytest
import torch
from builders import backbone, critic, learner, played, same, stir, team, weights

from collm_agents.advantages import Estimate
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.config import SamplingConfig, TeamConfig
from collm_agents.finite import NonFiniteError
from collm_agents.sides import CriticSide, MemberRows
from collm_agents.team import AgentTeam

AGENTS = ("agent_0", "agent_1")


def estimate(rollouts, advantage=None, keep=None):
    count = len(rollouts.rows)
    advantage = np.arange(count, dtype=float) if advantage is None else advantage
    return Estimate(advantage, np.ones(count, bool) if keep is None else keep)


class Fixed:
    """An estimator that answers what it was given."""

    gamma, advantage_norm = 1.0, "none"

    def __init__(self, given):
        self.given = given

    def critic_queries(self, rollouts):
        return None

    def __call__(self, rollouts, values):
        return self.given


def update_with(found, rollouts, given):
    found.estimator = Fixed(given)
    return found.update(rollouts)


@pytest.fixture(scope="module")
def rollouts():
    return played(team(AGENTS), (2, 2))


@pytest.fixture(scope="module")
def players():
    return team(AGENTS)


def test_rows_weigh_as_the_forest_says_and_dropped_ones_nothing(players, rollouts):
    keep = np.ones(len(rollouts.rows), bool)
    keep[[0, 5]] = False
    _, weight = learner(players, MonteCarlo()).row_signals(rollouts, estimate(rollouts, keep=keep))
    assert (weight[~keep] == 0).all()
    assert weight[keep].tolist() == rollouts.row_weight()[keep].tolist()


def test_the_algorithms_normalisation_is_the_default_and_the_setting_wins(players, rollouts):
    plain = estimate(rollouts)
    as_mc, _ = learner(players, MonteCarlo()).row_signals(rollouts, plain)
    as_cc, _ = learner(players, CentralisedCritic()).row_signals(rollouts, plain)
    forced, _ = learner(players, CentralisedCritic(), advantage_norm="none").row_signals(rollouts, plain)
    assert as_mc.tolist() == forced.tolist() == plain.advantage.tolist()
    turn = rollouts.points.turn[rollouts.rows.point]
    assert [as_cc[turn == t].mean() for t in (0, 1)] == pytest.approx([0, 0], abs=1e-9)
    assert [as_cc[turn == t].std() for t in (0, 1)] == pytest.approx([1, 1])


def test_advantages_are_clipped_after_normalisation(players, rollouts):
    found, _ = learner(players, CentralisedCritic(), advantage_clip=0.2).row_signals(
        rollouts, estimate(rollouts)
    )
    assert set(np.abs(found).round(9)) <= {0.2, *np.abs(found[np.abs(found) < 0.2]).round(9)}
    assert np.abs(found).max() == pytest.approx(0.2)


def test_later_turns_may_be_discounted(players, rollouts):
    _, uniform = learner(players, MonteCarlo(gamma=0.5)).row_signals(rollouts, estimate(rollouts))
    _, found = learner(players, MonteCarlo(gamma=0.5), turn_weight="discounted").row_signals(
        rollouts, estimate(rollouts)
    )
    turn = rollouts.points.turn[rollouts.rows.point]
    assert found.tolist() == (uniform * 0.5**turn).tolist()


def test_replies_cut_by_the_token_limit_may_be_left_out(players, rollouts):
    cut = np.arange(len(rollouts.rows)) % 3 == 0
    marked = dataclasses.replace(rollouts, rows=dataclasses.replace(rollouts.rows, cut=cut))
    _, all_in = learner(players, MonteCarlo()).row_signals(marked, estimate(marked))
    _, masked = learner(players, MonteCarlo(), mask_truncated_replies=True).row_signals(
        marked, estimate(marked)
    )
    assert (all_in > 0).all()
    assert (masked > 0).tolist() == (~cut).tolist()


def direct_gradient(players, agent, rollouts, advantage):
    """The gradient of -sum(weight * A * log pi) by one pass over each row alone."""
    parameters = players.backbones[agent].parameters(players.member[agent])
    loss, weight = 0.0, rollouts.row_weight()
    for row in np.flatnonzero(rollouts.rows.agent == players.agents.index(agent)):
        logp, _ = players.logprobs(agent, [rollouts.rows.prompt[row]], [rollouts.rows.reply[row]])
        loss = loss - float(weight[row] * advantage[row]) * logp.sum()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return float(loss.detach()), dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("ratio", ["none", "sequence", "token"])
def test_the_first_gradient_is_the_policy_gradient_whatever_the_ratio(monkeypatch, ratio):
    players = team(AGENTS)
    rollouts = played(players, (3,))
    estimator = MonteCarlo(baseline="none")
    expected = {a: direct_gradient(players, a, rollouts, estimator(rollouts).advantage)[1] for a in AGENTS}
    found = learner(players, estimator, ratio=ratio, clip=0.2, update_epochs=1, max_grad_norm=0.0)
    grads = {}
    for agent in AGENTS:
        optimizer = found.optimizers[agent]
        parameters = players.backbones[agent].parameters(agent)

        def keep(agent=agent, parameters=parameters):
            grads[agent] = {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}

        monkeypatch.setattr(optimizer, "step", keep)
    metrics = found.update(rollouts)
    for agent in AGENTS:
        for name, grad in grads[agent].items():
            assert torch.allclose(grad, expected[agent][name], atol=1e-5), name
        assert metrics[f"grad_norm/{agent}"] > 0


def test_the_gradient_norm_is_clipped_per_agent_and_reported_before():
    players = team(AGENTS)
    rollouts = played(players, (3,))
    found = learner(players, MonteCarlo(baseline="none"), max_grad_norm=1e-3, update_epochs=1)
    seen = {}
    for agent in AGENTS:
        optimizer = found.optimizers[agent]

        def norm(optimizer=optimizer, agent=agent):
            grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            seen[agent] = math.sqrt(sum(float((g**2).sum()) for g in grads))

        optimizer.step = norm
    metrics = found.update(rollouts)
    for agent in AGENTS:
        assert seen[agent] == pytest.approx(1e-3, rel=1e-3)
        assert metrics[f"grad_norm/{agent}"] > 1e-2


def test_raising_the_advantage_of_one_reply_makes_it_likelier_and_the_others_of_its_group_less_likely():
    players = team(AGENTS)
    rollouts = played(players, (4,), tasks=1)
    rollouts = dataclasses.replace(
        rollouts, nodes=dataclasses.replace(rollouts.nodes, reward=np.array([1.0, 0.0, 0.0, 0.0]))
    )

    def logprobs(agent):
        rows = rollouts.row_of[:, players.agents.index(agent)]
        with torch.no_grad():
            logp, _ = players.logprobs(
                agent, [rollouts.rows.prompt[r] for r in rows], [rollouts.rows.reply[r] for r in rows]
            )
        return logp.sum(-1)

    before = {a: logprobs(a) for a in AGENTS}
    found = learner(players, MonteCarlo(), lr=1e-4, update_epochs=4, max_grad_norm=0.0)
    found.update(rollouts)
    for agent in AGENTS:
        change = logprobs(agent) - before[agent]
        assert change[0] > 0
        assert change[1:].mean() < 0


@pytest.mark.parametrize(
    ("estimator", "view"), [(CentralisedCritic(), "joint"), (DecentralisedCritics(), "local")]
)
def test_a_critic_moves_towards_its_targets(estimator, view):
    players = team(AGENTS)
    rollouts = played(players, (2, 1))
    values = critic(view, "one" if view == "joint" else "each", AGENTS)
    found = learner(players, estimator, values, critic_lr=1e-3, critic_epochs=1)
    found.update(rollouts)
    losses = [found._update_critic(rollouts, *fixed_targets(found, rollouts), 1.0) for _ in range(20)]
    for member in values.members:
        assert losses[-1][f"loss/{member}"] < 0.8 * losses[0][f"loss/{member}"]


def fixed_targets(found, rollouts):
    queries = found.estimator.critic_queries(rollouts)
    encoded = found.critic.encode(rollouts, queries)
    count = len(queries.point)
    target = (
        np.linspace(-1, 1, count)
        if found.critic.owners == "one"
        else np.tile(np.linspace(-1, 1, count)[:, None], 2)
    )
    for member, own in encoded.items():
        found.ask(member, CriticSide.begin, own, None)
    return encoded, Estimate(np.zeros(0), np.zeros(0, bool), target, np.ones(count))


def test_the_first_values_are_the_mean_return_of_the_first_buffer():
    players = team(AGENTS)
    rollouts = played(players, (2,))
    values = critic("joint", "one", AGENTS)
    found = learner(players, CentralisedCritic(gamma=0.9), values)
    _, v = found._values(rollouts)
    assert v.tolist() == pytest.approx([rollouts.nodes.reward.mean()] * len(v))


def test_only_the_critic_learns_during_its_warm_up():
    players = team(AGENTS)
    rollouts = played(players, (2,))
    values = critic("joint", "one", AGENTS)
    found = learner(players, CentralisedCritic(), values, critic_warmup=1)
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    head = values.heads["critic"].linear.weight.detach().clone()
    metrics = found.update(rollouts)
    assert metrics["warmup"] == 1.0
    assert all(same(before[a], weights(players.backbones[a], a)) for a in AGENTS)
    assert not torch.equal(head, values.heads["critic"].linear.weight)
    found.update(rollouts)
    assert not any(same(before[a], weights(players.backbones[a], a)) for a in AGENTS)


def test_a_shared_critic_is_stepped_once_per_pass_over_the_buffer(monkeypatch):
    players = team(AGENTS)
    rollouts = played(players, (2,))
    found = learner(
        players, CentralisedCritic(), critic("joint", "one", AGENTS), critic_epochs=2, update_epochs=3
    )
    steps = []
    for name, side in found.sides.items():
        step = side._step
        monkeypatch.setattr(
            side, "_step", lambda *rest, name=name, step=step: steps.append(name) or step(*rest)
        )
    found.update(rollouts)
    assert steps == ["agent_0"] * 3 + ["agent_1"] * 3 + ["critic"] * 2


def dealt(found, rollouts, epoch=0):
    """Rows of agent 0, and how its side deals them out."""
    rows = MemberRows.of(rollouts, np.flatnonzero(rollouts.rows.agent == 0))
    return rows, found.sides["agent_0"]._minibatches(rows, epoch)


def test_minibatches_hold_every_row_once_keep_trees_together_and_change_places(players):
    rollouts = played(players, (2, 2), tasks=5)
    found = learner(players, MonteCarlo(), minibatches=2)
    (rows, first), (_, second) = (dealt(found, rollouts, epoch) for epoch in (0, 1))
    assert sorted(np.concatenate([part for part, _ in first])) == list(range(len(rows)))
    groups = [set(rows.tree[part]) for part, _ in first]
    assert not groups[0] & groups[1]
    assert [scale for _, scale in first] == [5 / 3, 5 / 2]
    assert [set(rows.tree[part]) for part, _ in second] == groups[::-1]


def test_more_minibatches_than_trees_skip_the_empty_ones(players):
    _, parts = dealt(learner(players, MonteCarlo(), minibatches=5), played(players, (2,), tasks=2))
    assert len(parts) == 2


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_an_error_that_names_agent_and_tasks_and_steps_nothing(value):
    players = team(AGENTS)
    rollouts = played(players, (2,))
    found = learner(players, MonteCarlo())
    broken = estimate(rollouts, np.full(len(rollouts.rows), value))
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    with pytest.raises(NonFiniteError, match="agent_0") as caught:
        update_with(found, rollouts, broken)
    assert rollouts.tasks[0] in str(caught.value)
    assert all(same(before[a], weights(players.backbones[a], a)) for a in AGENTS)
    assert all(p.grad is None for a in AGENTS for p in players.backbones[a].parameters(a).values())


def test_metrics_are_finite_numbers_with_the_samplers_gap_at_zero(players):
    rollouts = played(players, (2,))
    metrics = learner(players, MonteCarlo()).update(rollouts)
    assert all(isinstance(v, float) and math.isfinite(v) for v in metrics.values())
    assert metrics["sampler_gap/agent_0"] < 1e-5
    assert {"loss/agent_0", "grad_norm/agent_1", "surprisal/agent_0", "entropy/agent_1/t0"} <= set(metrics)


def test_noted_log_probs_stand_for_those_of_the_weights_that_sampled():
    """Rows that older weights drew: the ratio is the present policy's over the noted one's, row by row."""
    players = team(AGENTS)
    rollouts = played(players, (2,))
    same_policy = learner(players, MonteCarlo(), old_logprobs="sampled", update_epochs=1, lr=1e-12).update(
        rollouts
    )
    assert same_policy["ratio/agent_0/t0"] == pytest.approx(1, abs=1e-5)
    assert not any(name.startswith("sampler_gap") for name in same_policy)
    stir(players.backbones["agent_0"], scale=0.1, seed=5)
    rows = np.flatnonzero(rollouts.rows.agent == 0)
    prompts, replies = (
        [column[row] for row in rows] for column in (rollouts.rows.prompt, rollouts.rows.reply)
    )
    means = []
    with torch.no_grad():
        for scored in players.score("agent_0", prompts, replies, 4096):
            for i, own in enumerate(scored.rows):
                noted = torch.as_tensor(rollouts.rows.logprob[rows[own]])
                means.append(float((scored.logprob[i, scored.mask[i]] - noted).exp().mean()))
    settings = {"update_epochs": 1, "lr": 1e-12, "kl_coef": 1e-9}  # so that rows without advantage count, too
    stale = learner(players, MonteCarlo(), old_logprobs="sampled", **settings).update(rollouts)
    assert stale["ratio/agent_0/t0"] == pytest.approx(np.mean(means), rel=1e-5)
    assert abs(np.mean(means) - 1) > 1e-3
    computed = learner(players, MonteCarlo(), old_logprobs="computed", **settings).update(rollouts)
    assert computed["ratio/agent_0/t0"] == pytest.approx(1, abs=1e-5)
    assert computed["sampler_gap/agent_0"] > 1e-3


def test_a_buffer_in_which_nothing_may_be_trained_changes_nothing():
    players = team(AGENTS)
    rollouts = played(players, (2,))
    before = {a: weights(players.backbones[a], a) for a in AGENTS}
    nothing = estimate(rollouts, keep=np.zeros(len(rollouts.rows), bool))
    metrics = update_with(learner(players, MonteCarlo()), rollouts, nothing)
    assert "loss/agent_0" not in metrics
    assert "advantage_mean/agent_0/t0" not in metrics
    assert all(same(before[a], weights(players.backbones[a], a)) for a in AGENTS)


def test_the_state_of_a_learner_comes_back():
    rollouts = played(team(AGENTS), (2,))
    first, second = (learner(team(AGENTS), MonteCarlo()) for _ in range(2))
    first.update(rollouts)
    second.load_state_dict(first.state_dict())
    assert second.updates == 1
    for agent in AGENTS:
        one, other = (x.optimizers[agent].state_dict()["state"] for x in (first, second))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k]["exp_avg"], other[k]["exp_avg"]) for k in one)


def shared_team():
    """Both agents on one set of trained weights."""
    model = stir(backbone("qwen3", ("team",)))
    config = TeamConfig(sampling=SamplingConfig(max_new_tokens=6))
    return AgentTeam(AGENTS, dict.fromkeys(AGENTS, model), config, members=dict.fromkeys(AGENTS, "team"))


def test_agents_that_share_weights_are_one_member_with_one_optimizer_and_one_step(monkeypatch):
    players = shared_team()
    assert players.users == {"team": AGENTS}
    found = learner(players, MonteCarlo(baseline="none"), update_epochs=1, max_grad_norm=0.0, ratio="none")
    assert list(found.optimizers) == ["team"]
    rollouts = played(players, (3,))
    apart = {a: direct_gradient(players, a, rollouts, rollouts_return(rollouts))[1] for a in AGENTS}
    grads = {}
    parameters = players.backbones["agent_0"].parameters("team")
    monkeypatch.setattr(
        found.optimizers["team"],
        "step",
        lambda: grads.update({n: p.grad.clone() for n, p in parameters.items()}),
    )
    found.update(rollouts)
    for name, grad in grads.items():
        expected = apart["agent_0"][name] + apart["agent_1"][name]
        assert torch.allclose(grad, expected, atol=1e-5)


def rollouts_return(rollouts):
    return MonteCarlo(baseline="none")(rollouts).advantage


def test_a_run_resumed_with_another_learning_rate_uses_it():
    first, second = (learner(team(AGENTS), MonteCarlo(), lr=lr) for lr in (1e-3, 1e-5))
    first.update(played(first.team, (2,)))
    second.load_state_dict(first.state_dict())
    assert {group["lr"] for o in second.optimizers.values() for group in o.param_groups} == {1e-5}
