import numpy as np
import pytest
from forests import N, forest, tree_2x2

from collm_agents.algorithms import find_algorithm, list_algorithms
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics

V = np.array([0.5, 1.5])  # at the root, and where A led


def by_node(rollouts, estimate, agent=0):
    return estimate.advantage[rollouts.row_of[:, agent]].tolist()


def test_td_advantages_and_targets_on_a_tree_by_hand():
    rollouts = tree_2x2()  # A=1 -> (C=2, D=4), B=3
    estimate = CentralisedCritic(gamma=0.5)(rollouts, V)
    # A: 1 + 0.5 * 1.5 - 0.5; C: 2 - 1.5; D: 4 - 1.5; B ended: 3 - 0.5.
    assert by_node(rollouts, estimate) == pytest.approx([1.25, 0.5, 2.5, 2.5])
    assert by_node(rollouts, estimate, 1) == by_node(rollouts, estimate)
    # Root: mean of A's 1 + 0.75 and B's 3; A's point: mean of 2 and 4. The point of turn 1 weighs half.
    assert estimate.target.tolist() == pytest.approx([2.375, 3.0])
    assert estimate.target_weight.tolist() == pytest.approx([1.0, 0.5])


def test_gae_on_a_tree_by_hand():
    rollouts = tree_2x2()
    estimate = CentralisedCritic(gamma=0.5, lam=0.5)(rollouts, V)
    # A: 1.25 + 0.25 * mean(0.5, 2.5).
    assert by_node(rollouts, estimate) == pytest.approx([1.625, 0.5, 2.5, 2.5])
    assert estimate.target.tolist() == pytest.approx([(1.625 + 0.5 + 3.0) / 2, 3.0])


def test_td_on_paths_by_hand():
    rollouts = forest((N(1.0, (N(4.0),)), N(2.0), N(3.0, (N(-2.0),))), branching=(3, 1))
    v = np.array([1.0, 2.0, -1.0])  # root, after the first reply, after the third
    estimate = CentralisedCritic(gamma=0.5)(rollouts, v)
    assert by_node(rollouts, estimate) == pytest.approx([1 + 1 - 1, 4 - 2, 2 - 1, 3 - 0.5 - 1, -2 + 1])
    assert estimate.target.tolist() == pytest.approx([(2 + 2 + 2.5) / 3, 4.0, -2.0])
    assert estimate.target_weight.tolist() == pytest.approx([1.0, 1 / 3, 1 / 3])


def test_a_truncated_node_bootstraps_from_where_it_was_cut_and_that_point_is_no_target():
    rollouts = forest((N(1.0, cut=True), N(3.0)), branching=(2,))
    estimate = CentralisedCritic(gamma=0.5)(rollouts, np.array([0.5, 4.0]))
    assert by_node(rollouts, estimate) == pytest.approx([1 + 2 - 0.5, 2.5])
    assert estimate.keep.all()
    assert estimate.target_weight.tolist() == pytest.approx([1.0, 0.0])


def test_each_agents_own_values_give_its_own_advantages_and_targets():
    rollouts = tree_2x2()
    v = np.stack([V, [0.0, -1.0]], axis=1)
    estimate = DecentralisedCritics(gamma=0.5)(rollouts, v)
    assert by_node(rollouts, estimate, 0) == pytest.approx([1.25, 0.5, 2.5, 2.5])
    assert by_node(rollouts, estimate, 1) == pytest.approx([0.5, 3.0, 5.0, 3.0])
    assert estimate.target[:, 0].tolist() == pytest.approx([2.375, 3.0])
    assert estimate.target[:, 1].tolist() == pytest.approx([1.75, 3.0])


def test_every_point_is_valued_once():
    rollouts = tree_2x2()
    assert CentralisedCritic().critic_queries(rollouts).point.tolist() == [0, 1]


def test_values_are_needed():
    with pytest.raises(ValueError, match="values"):
        CentralisedCritic()(tree_2x2(), None)


def test_cc_and_dc_differ_in_the_critic_alone():
    cc, dc = find_algorithm("collm-cc"), find_algorithm("collm-dc")
    assert (cc.view, cc.owners, dc.view, dc.owners) == ("joint", "one", "local", "each")
    assert cc.estimator.__call__ is dc.estimator.__call__
    assert {"mc", "collm-cc", "collm-dc"} <= {spec.name for spec in list_algorithms()}
    assert all(spec.summary for spec in list_algorithms())
