import dataclasses

import numpy as np
import pytest
from forests import N, forest, tree_2x2

from collm_agents.advantages import (
    child_mean,
    child_scan,
    complete_nodes,
    explained_variance,
    normalise,
    row_mean,
    subtract_baseline,
)


def approx(*values):
    return pytest.approx(list(values))


def test_returns_on_a_tree_average_over_children_and_a_sibling_that_ended_early_keeps_its_reward():
    rollouts = tree_2x2()  # A=1 -> (C=2, D=4), B=3
    returns = child_scan(rollouts.nodes.reward, rollouts, 0.5)
    assert returns.tolist() == approx(1 + 0.5 * (2 + 4) / 2, 2, 4, 3)


def test_returns_of_three_turns_discount_twice():
    rollouts = forest((N(1.0, (N(2.0, (N(8.0),)),)),), branching=(1, 1, 1))
    assert child_scan(rollouts.nodes.reward, rollouts, 0.5).tolist() == approx(4.0, 6.0, 8.0)


def test_returns_on_paths_are_those_of_each_path_alone():
    rollouts = forest((N(1.0, (N(4.0),)), N(2.0), N(3.0, (N(-2.0),))), branching=(3, 1))
    assert child_scan(rollouts.nodes.reward, rollouts, 0.5).tolist() == approx(3.0, 4.0, 2.0, 2.0, -2.0)


def test_a_scan_takes_columns_by_agent():
    rollouts = tree_2x2()
    x = np.stack([rollouts.nodes.reward, -rollouts.nodes.reward], axis=1)
    y = child_scan(x, rollouts, 0.5)
    assert y[:, 0].tolist() == approx(2.5, 2, 4, 3)
    assert (y[:, 1] == -y[:, 0]).all()


def test_greedy_nodes_never_count_as_children_of_sampled_ones():
    tree = (
        N(1.0, (N(2.0), N(4.0), N(100.0, greedy=True))),
        N(2.0, (N(4.0, greedy=True),), greedy=True),
    )
    rollouts = forest(tree, branching=(2, 2))
    returns = child_scan(rollouts.nodes.reward, rollouts, 0.5)
    assert returns.tolist() == approx(2.5, 2.0, 4.0, 100.0, 4.0, 4.0)  # the greedy path has its own return


def test_a_scan_leaves_its_input_alone():
    rollouts = tree_2x2()
    reward = rollouts.nodes.reward.copy()
    child_scan(rollouts.nodes.reward, rollouts, 0.9)
    assert (rollouts.nodes.reward == reward).all()


def test_a_cut_spoils_the_returns_of_what_led_to_it_and_of_nothing_else():
    rollouts = forest((N(1.0, (N(2.0), N(4.0, cut=True))), N(3.0, (N(1.0), N(1.0)))), branching=(2, 2))
    assert complete_nodes(rollouts).tolist() == [False, True, False, True, True, True]


def test_a_cut_greedy_baseline_spoils_no_sampled_node():
    rollouts = forest((N(1.0, (N(2.0), N(9.0, cut=True, greedy=True))),), branching=(1, 1))
    assert complete_nodes(rollouts).tolist() == [True, True, False]


def test_row_means_run_over_the_nodes_that_used_a_row():
    rollouts = forest((N(1.0), N(5.0)), branching=(2,))
    shared = dataclasses.replace(rollouts, row_of=np.array([[0, 1], [0, 3]]))  # agent 0 said one thing twice
    mean, used = row_mean(shared.nodes.reward, shared, np.array([True, True]))
    assert mean.tolist() == approx(3.0, 1.0, 0.0, 5.0)
    assert used.tolist() == [True, True, False, True]
    mean, used = row_mean(np.array([[1.0, 2.0], [3.0, 4.0]]), shared, np.array([False, True]))
    assert mean.tolist() == approx(3.0, 0.0, 0.0, 4.0)
    assert used.tolist() == [True, False, False, True]


RETURNS, GROUP = np.array([1.0, 2.0, 6.0, 5.0]), np.array([7, 7, 7, 2])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [1.0, 2.0, 6.0, 5.0]),
        ("mean", [-2.0, -1.0, 3.0, 0.0]),
        ("leave_one_out", [-3.0, -1.5, 4.5, 5.0]),  # 6 - (1 + 2) / 2 = 4.5; nobody to compare the last with
        ("max", [-5.0, -4.0, 0.0, 0.0]),
        ("greedy", [-2.0, -1.0, 3.0, 1.0]),
    ],
)
def test_baselines(kind, expected):
    greedy = np.array([3.0, 3.0, 3.0, 4.0])
    assert subtract_baseline(RETURNS, GROUP, kind, greedy).tolist() == pytest.approx(expected)


def test_leave_one_out_is_the_return_minus_the_mean_of_the_others():
    found = subtract_baseline(RETURNS, GROUP, "leave_one_out")
    for i in range(3):
        others = [RETURNS[j] for j in range(3) if j != i]
        assert found[i] == pytest.approx(RETURNS[i] - np.mean(others))


def test_the_greedy_baseline_needs_greedy_returns():
    with pytest.raises(ValueError, match="greedy"):
        subtract_baseline(RETURNS, GROUP, "greedy")


def test_baselines_of_no_rows_are_no_rows():
    empty = np.zeros(0)
    for kind in ("none", "mean", "max", "leave_one_out"):
        assert len(subtract_baseline(empty, empty.astype(int), kind)) == 0


ADVANTAGE = np.array([1.0, 3.0, 10.0, 30.0, 99.0])
TURN, AGENT = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0])
SAMPLE = np.arange(5)


def test_no_normalisation_is_the_identity():
    weight = np.ones(5)
    assert normalise(ADVANTAGE, weight, TURN, AGENT, SAMPLE, "none").tolist() == ADVANTAGE.tolist()


def test_batch_normalisation_is_turn_by_turn_and_rows_of_weight_zero_do_not_count():
    weight = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    found = normalise(ADVANTAGE, weight, TURN, AGENT, SAMPLE, "batch")
    assert found.tolist() == approx(-1.0, 1.0, -1.0, 1.0, 99.0)


def test_normalisation_weighs_rows():
    weight = np.array([3.0, 1.0, 1.0, 1.0, 0.0])
    found = normalise(ADVANTAGE, weight, TURN, AGENT, SAMPLE, "batch")
    # Mean 1.5; variance (3 * 0.25 + 2.25) / 4 = 0.75.
    assert found[:2].tolist() == approx(-0.5 / 0.75**0.5, 1.5 / 0.75**0.5)


def test_agent_turn_normalisation_keeps_agents_apart_and_leaves_single_rows_as_they_are():
    found = normalise(ADVANTAGE, np.ones(5), TURN, AGENT, SAMPLE, "agent_turn")
    assert found.tolist() == approx(1.0, 3.0, -1.0, 30.0, 1.0)


def test_the_agents_rows_of_one_joint_action_are_one_sample():
    """A lone survivor's success is not centred away."""
    found = normalise(np.full(2, 0.8), np.ones(2), np.zeros(2, int), np.arange(2), np.zeros(2, int), "batch")
    assert found.tolist() == [0.8, 0.8]


def test_noise_of_a_solved_task_is_not_blown_up():
    noise = np.array([1e-5, -1e-5, 1e-5, -1e-5])
    found = normalise(noise, np.ones(4), np.zeros(4, int), np.zeros(4, int), np.arange(4), "batch")
    assert found.tolist() == pytest.approx((noise / 0.01).tolist())


def test_equal_advantages_become_zero_not_nan():
    found = normalise(np.full(4, 0.3), np.ones(4), np.zeros(4, int), np.zeros(4, int), np.arange(4), "batch")
    assert found.tolist() == pytest.approx([0.0] * 4, abs=1e-6)


def test_means_over_children_are_zero_at_leaves_and_leave_greedy_nodes_to_themselves():
    rollouts = tree_2x2()  # A=0 -> C=1, D=2; B=3
    assert child_mean(np.array([1.0, 2.0, 4.0, 3.0]), rollouts).tolist() == approx(3, 0, 0, 0)
    by_agent = child_mean(np.array([[1.0, 0], [2, 5], [4, 7], [3, 0]]), rollouts)
    assert by_agent[0].tolist() == approx(3, 6)
    greedy = forest((N(1.0, (N(2.0),)), N(5.0, (N(9.0, greedy=True),), greedy=True)), branching=(1, 1))
    assert child_mean(greedy.nodes.reward, greedy).tolist() == approx(2, 0, 9, 0)


def test_explained_variance_is_one_for_perfect_values_and_zero_for_constants():
    target, weight = np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 2.0])
    assert explained_variance(target, target, weight) == pytest.approx(1.0)
    assert explained_variance(target - 3.0, target, weight) == pytest.approx(
        1.0
    )  # an offset explains all the same
    assert explained_variance(np.zeros(3), target, weight) == pytest.approx(0.0)
    assert explained_variance(-target, target, weight) == pytest.approx(-3.0)
    assert explained_variance(np.zeros(2), np.ones(2), np.ones(2)) == 0.0
