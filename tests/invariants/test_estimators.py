"""What must hold between estimators on any forest of episodes."""

import dataclasses

import numpy as np
import pytest
from forests import random_forest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_agents.advantages import BASELINES, child_scan
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo

seeds = st.integers(0, 10_000)
gammas = st.sampled_from([0.0, 0.5, 0.9, 1.0])
some = settings(max_examples=30, deadline=None)


def draw(seed, **kwargs):
    rng = np.random.default_rng(seed)
    return random_forest(rng, **kwargs), rng


@given(seeds, gammas, st.booleans())
@some
def test_a_centralised_critic_of_zero_with_lambda_one_is_monte_carlo_without_a_baseline(seed, gamma, paths):
    rollouts, _ = draw(seed, paths=paths)
    cc = CentralisedCritic(gamma=gamma, lam=1.0)(rollouts, np.zeros(len(rollouts.points)))
    mc = MonteCarlo(gamma=gamma, baseline="none")(rollouts)
    assert cc.advantage == pytest.approx(mc.advantage)
    assert (cc.keep == mc.keep).all()


@given(seeds, gammas, st.booleans())
@some
def test_gae_of_lambda_one_is_the_return_minus_the_value(seed, gamma, paths):
    rollouts, rng = draw(seed, paths=paths)
    v = rng.normal(size=len(rollouts.points))
    found = CentralisedCritic(gamma=gamma, lam=1.0)(rollouts, v).advantage[rollouts.row_of[:, 0]]
    returns = child_scan(rollouts.nodes.reward, rollouts, gamma)
    assert found == pytest.approx(returns - v[rollouts.nodes.point])


@given(seeds, gammas, st.sampled_from([0.0, 0.5, 1.0]))
@some
def test_joint_values_give_all_agents_the_same_advantage(seed, gamma, lam):
    rollouts, rng = draw(seed, cuts=True, agents=("a", "b", "c"))
    found = CentralisedCritic(gamma=gamma, lam=lam)(rollouts, rng.normal(size=len(rollouts.points)))
    by_agent = found.advantage[rollouts.row_of]
    assert (by_agent == by_agent[:, :1]).all()


@given(seeds, gammas, st.sampled_from([0.0, 0.5, 1.0]))
@some
def test_equal_values_of_all_agents_make_dc_what_cc_is(seed, gamma, lam):
    rollouts, rng = draw(seed, cuts=True)
    v = rng.normal(size=len(rollouts.points))
    cc = CentralisedCritic(gamma=gamma, lam=lam)(rollouts, v)
    dc = DecentralisedCritics(gamma=gamma, lam=lam)(rollouts, np.stack([v, v], axis=1))
    assert (dc.advantage == cc.advantage).all()
    assert (dc.target == cc.target[:, None]).all()
    assert (dc.target_weight == cc.target_weight).all()


@given(seeds, st.sampled_from([0.0, 0.7, 1.0]))
@some
def test_one_agents_values_say_nothing_of_another_agents_advantage(seed, lam):
    rollouts, rng = draw(seed, cuts=True)
    v = rng.normal(size=(len(rollouts.points), 2))
    other = v.copy()
    other[:, 1] = rng.normal(size=len(rollouts.points))
    one, two = (DecentralisedCritics(lam=lam)(rollouts, values) for values in (v, other))
    mine = rollouts.row_of[:, 0]
    assert (one.advantage[mine] == two.advantage[mine]).all()
    assert (one.target[:, 0] == two.target[:, 0]).all()


@given(seeds, gammas, st.booleans(), st.sampled_from(["mean", "leave_one_out"]))
@some
def test_group_baselines_sum_to_zero_in_every_group_of_every_agent(seed, gamma, paths, baseline):
    rollouts, _ = draw(seed, paths=paths, trees=3)
    found = MonteCarlo(gamma=gamma, baseline=baseline)(rollouts)
    for group in np.unique(rollouts.nodes.group):
        nodes = np.flatnonzero(rollouts.nodes.group == group)
        if len(nodes) > 1:
            assert found.advantage[rollouts.row_of[nodes]].sum(0) == pytest.approx([0, 0], abs=1e-9)


@given(seeds, st.sampled_from(BASELINES[:-1]))
@some
def test_a_constant_added_to_all_final_rewards_leaves_group_advantages_alone_on_one_turn(seed, baseline):
    rollouts, _ = draw(seed, turns=1)
    shifted = dataclasses.replace(
        rollouts, nodes=dataclasses.replace(rollouts.nodes, reward=rollouts.nodes.reward + 7.0)
    )
    one, two = (MonteCarlo(baseline=baseline)(r).advantage for r in (rollouts, shifted))
    assert two == pytest.approx(one + (7.0 if baseline == "none" else 0.0))


@given(seeds, gammas)
@some
def test_a_tree_of_single_replies_is_a_path(seed, gamma):
    rollouts, rng = draw(seed, width=1, turns=4, trees=3)
    v = rng.normal(size=len(rollouts.points))
    for node in range(len(rollouts.nodes)):
        path = rollouts.path(node)
        assert (rollouts.nodes.weight[path] == rollouts.nodes.weight[path[0]]).all()
    found = CentralisedCritic(gamma=gamma, lam=1.0)(rollouts, v).advantage[rollouts.row_of[:, 0]]
    for leaf in rollouts.leaves:
        path = rollouts.path(int(leaf))
        reward = rollouts.nodes.reward[path]
        returns = [sum(reward[t:] * gamma ** np.arange(len(path) - t)) for t in range(len(path))]
        assert found[path] == pytest.approx(np.array(returns) - v[rollouts.nodes.point[path]])


@given(seeds, gammas)
@some
def test_td_errors_add_up_to_gae_along_a_path(seed, gamma):
    rollouts, rng = draw(seed, width=1, turns=4, trees=2)
    v = rng.normal(size=len(rollouts.points))
    td, gae = (CentralisedCritic(gamma=gamma, lam=lam)(rollouts, v).advantage for lam in (0.0, 0.6))
    for leaf in rollouts.leaves:
        rows = rollouts.row_of[rollouts.path(int(leaf)), 0]
        expected = [sum(td[rows[t:]] * (gamma * 0.6) ** np.arange(len(rows) - t)) for t in range(len(rows))]
        assert gae[rows] == pytest.approx(expected)


@given(seeds)
@some
def test_truncation_never_leaks_into_monte_carlo_and_every_other_row_is_kept(seed):
    rollouts, _ = draw(seed, cuts=True)
    spoiled = dataclasses.replace(
        rollouts,
        nodes=dataclasses.replace(
            rollouts.nodes, reward=np.where(rollouts.nodes.truncated, 1e6, rollouts.nodes.reward)
        ),
    )
    one, two = MonteCarlo()(rollouts), MonteCarlo()(spoiled)
    assert (one.advantage == two.advantage).all()
    below = {n for cut in np.flatnonzero(rollouts.nodes.truncated) for n in rollouts.path(int(cut))}
    kept = one.keep[rollouts.row_of[:, 0]]
    assert set(np.flatnonzero(~kept)) == below
    assert one.metrics["dropped_nodes"] == len(below)
