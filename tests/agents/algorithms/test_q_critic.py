"""Critics of replies, `critic="q"`: targets and advantages by hand."""

import dataclasses

import numpy as np
import pytest
from builders import ScriptedTeam
from forests import N, forest, tree_2x2

from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.collect import Collector
from collm_envs import VecEnv, make

Q = np.array([1.0, 3.0, 0.5, 2.0])


def by_node(rollouts, per_row, agent=0):
    return per_row[rollouts.row_of[:, agent]].tolist()


def test_on_a_tree_targets_bootstrap_from_the_next_replies_and_baselines_are_the_others_values():
    rollouts = tree_2x2()  # A=1 -> (C=2, D=4), B=3, as nodes 0, 1, 2, 3
    estimate = CentralisedCritic(gamma=0.5, critic="q")(rollouts, Q)
    assert estimate.target.tolist() == pytest.approx([1 + 0.5 * (3 + 0.5) / 2, 2, 4, 3])
    assert estimate.target_weight.tolist() == pytest.approx([0.5, 0.25, 0.25, 0.5])
    # A against Q of B, C against Q of D, and so on.
    assert by_node(rollouts, estimate.advantage) == pytest.approx([1.875 - 2, 2 - 0.5, 4 - 3, 3 - 1])
    assert by_node(rollouts, estimate.advantage, 1) == by_node(rollouts, estimate.advantage)
    assert estimate.keep.all()


@pytest.mark.parametrize(("lam", "first"), [(0.5, 2.1875), (1.0, 1 + 0.5 * 3)])
def test_targets_may_look_further_ahead(lam, first):
    # lam 0.5: Q + delta + 0.25 * mean of the children's deltas = 1 + 0.875 + 0.25 * (-1 + 3.5) / 2. 1: the return.
    estimate = CentralisedCritic(gamma=0.5, lam=lam, critic="q")(tree_2x2(), Q)
    assert estimate.target.tolist() == pytest.approx([first, 2, 4, 3])


def test_on_paths_single_children_are_compared_across_their_parents():
    rollouts = forest((N(1.0, (N(4.0),)), N(2.0), N(3.0, (N(-2.0),))), branching=(3, 1))
    estimate = CentralisedCritic(gamma=0.5, critic="q")(rollouts, np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert estimate.target.tolist() == pytest.approx([1.5, 4, 2, 5, -2])
    expected = [1.5 - 2.5, 4 - 4, 2 - 1.5, 5 - 1, -2 - 1]
    assert by_node(rollouts, estimate.advantage) == pytest.approx(expected)


def test_a_truncated_reply_is_left_out_and_its_parent_takes_its_value_as_it_is():
    rollouts = forest((N(1.0, (N(2.0, cut=True), N(4.0))), N(3.0, cut=True)), branching=(2, 2))
    estimate = CentralisedCritic(gamma=0.5, critic="q")(rollouts, Q)
    assert estimate.target[[0, 2]].tolist() == pytest.approx([1.875, 4])
    assert estimate.target_weight.tolist() == pytest.approx([0.5, 0, 0.25, 0])
    assert by_node(rollouts, estimate.keep) == [True, False, True, False]
    # Nobody is left to compare with: the baseline is 0.
    assert by_node(rollouts, estimate.advantage) == pytest.approx([1.875, 0, 4, 0])
    whole = CentralisedCritic(gamma=0.5, lam=1.0, critic="q")(rollouts, Q)
    assert whole.target[0] == pytest.approx(1 + 0.5 * (3 + 4) / 2)


def test_a_group_of_one_has_no_baseline():
    rollouts = forest((N(-1.0, (N(-2.0),)),), branching=(1, 1))
    estimate = CentralisedCritic(gamma=0.5, critic="q")(rollouts, np.array([9.0, -4.0]))
    assert by_node(rollouts, estimate.advantage) == pytest.approx([-1 - 2, -2])


def test_greedy_baselines_are_no_targets_and_part_of_no_mean():
    plain = tree_2x2()
    rollouts = forest((N(1.0, (N(2.0), N(4.0), N(9.0, greedy=True))), N(3.0)), branching=(2, 2))
    one = CentralisedCritic(gamma=0.5, critic="q")(plain, Q)
    two = CentralisedCritic(gamma=0.5, critic="q")(rollouts, np.array([1.0, 3.0, 0.5, 77.0, 2.0]))
    assert two.target[[0, 1, 2, 4]].tolist() == one.target.tolist()
    assert two.target_weight[3] == 0
    kept = [0, 1, 2, 4]
    assert [by_node(rollouts, two.advantage)[i] for i in kept] == by_node(plain, one.advantage)
    assert not two.keep[rollouts.row_of[3]].any()


def test_each_agents_own_values_of_its_own_replies():
    rollouts = tree_2x2()
    q = np.stack([Q, [0.0, 1.0, -1.0, 5.0]], axis=1)
    estimate = DecentralisedCritics(gamma=0.5, critic="q")(rollouts, q)
    assert by_node(rollouts, estimate.advantage, 0) == pytest.approx([-0.125, 1.5, 1, 2])
    assert by_node(rollouts, estimate.advantage, 1) == pytest.approx([1 + 0 - 5, 2 + 1, 4 - 1, 3 - 0])
    assert estimate.target[:, 1].tolist() == pytest.approx([1.0, 2, 4, 3])


def test_every_joint_action_is_asked_for_with_the_replies_that_made_it():
    rollouts = tree_2x2()
    queries = CentralisedCritic(critic="q").critic_queries(rollouts)
    assert queries.point.tolist() == rollouts.nodes.point.tolist()
    assert queries.replies[2] == {0: "reply 4", 1: "reply 5"}


def crossed(reward, width=2, agents=("agent_0", "agent_1")):
    env = make("debug/echo-v0", num_agents=len(agents))
    players = ScriptedTeam(agents, lambda agent, prompt, node: f"{agent} {node}")
    found = Collector(VecEnv(env), players, (width,), 0, joint_mode="cross").collect([env.tasks[0]], 0)
    nodes = dataclasses.replace(found.nodes, reward=np.array(reward, dtype=float))
    return dataclasses.replace(found, nodes=nodes)


def test_where_replies_are_crossed_values_and_targets_are_means_over_the_partners_replies():
    rollouts = crossed([5, 6, 7, 8])  # replies (0, 0), (0, 1), (1, 0), (1, 1)
    estimate = CentralisedCritic(critic="q")(rollouts, np.array([1.0, 2.0, 3.0, 4.0]))
    assert by_node(rollouts, estimate.advantage, 0) == pytest.approx([5.5 - 3.5, 2, 7.5 - 1.5, 6])
    assert by_node(rollouts, estimate.advantage, 1) == pytest.approx([6 - 3, 7 - 2, 3, 5])
    assert estimate.target_weight.tolist() == pytest.approx([0.25] * 4)


def test_where_replies_are_crossed_monte_carlo_baselines_are_taken_over_rows():
    rollouts = crossed([5, 6, 7, 8])
    mean = MonteCarlo(baseline="mean")(rollouts).advantage
    assert by_node(rollouts, mean, 0) == pytest.approx([-1, -1, 1, 1])
    assert by_node(rollouts, mean, 1) == pytest.approx([-0.5, 0.5, -0.5, 0.5])
    others = MonteCarlo(baseline="leave_one_out")(rollouts).advantage
    assert by_node(rollouts, others, 0) == pytest.approx([-2, -2, 2, 2])


def test_where_replies_are_crossed_one_value_serves_all_joint_replies_of_a_point():
    rollouts = crossed([5, 6, 7, 8])
    estimate = CentralisedCritic()(rollouts, np.array([6.0]))
    assert by_node(rollouts, estimate.advantage, 0) == pytest.approx([-0.5, -0.5, 1.5, 1.5])
    assert estimate.target.tolist() == pytest.approx([6.5])
