import numpy as np
import pytest
from forests import N, forest, tree_2x2

from collm_agents.advantages import BASELINES
from collm_agents.algorithms.mc import MonteCarlo
from collm_envs.errors import SettingError

# Greedy siblings at both points: at the root one that goes on greedily (return 2 + 0.5 * 4 = 4), at A's one (3).
WITH_GREEDY = forest(
    (
        N(1.0, (N(2.0), N(4.0), N(3.0, greedy=True))),
        N(3.0),
        N(2.0, (N(4.0, greedy=True),), greedy=True),
    ),
    branching=(2, 2),
)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [  # nodes A (return 2.5), C (2), D (4), B (3)
        ("none", [2.5, 2.0, 4.0, 3.0]),
        ("mean", [-0.25, -1.0, 1.0, 0.25]),
        ("leave_one_out", [-0.5, -2.0, 2.0, 0.5]),
        ("max", [-0.5, -2.0, 0.0, 0.0]),
    ],
)
def test_advantages_on_a_tree_by_hand(baseline, expected):
    rollouts = tree_2x2()
    estimate = MonteCarlo(gamma=0.5, baseline=baseline)(rollouts)
    for agent in (0, 1):
        assert estimate.advantage[rollouts.row_of[:, agent]].tolist() == pytest.approx(expected)
    assert estimate.keep.all()
    assert estimate.target is None


def test_the_greedy_baseline_is_the_return_of_the_greedy_reply_at_the_same_point():
    estimate = MonteCarlo(gamma=0.5, baseline="greedy")(WITH_GREEDY)
    by_node = estimate.advantage[WITH_GREEDY.row_of[:, 0]]
    assert by_node[[0, 1, 2, 4]].tolist() == pytest.approx([2.5 - 4, 2 - 3, 4 - 3, 3 - 4])


@pytest.mark.parametrize("baseline", BASELINES)
def test_greedy_replies_are_never_trained_nor_part_of_a_group(baseline):
    estimate = MonteCarlo(gamma=0.5, baseline=baseline)(WITH_GREEDY)
    greedy_rows = WITH_GREEDY.row_of[WITH_GREEDY.nodes.greedy].ravel()
    assert not estimate.keep[greedy_rows].any()
    assert WITH_GREEDY.row_weight()[greedy_rows].tolist() == [0.0] * len(greedy_rows)
    if baseline != "greedy":
        plain = MonteCarlo(gamma=0.5, baseline=baseline)(tree_2x2())
        assert estimate.advantage[estimate.keep].tolist() == pytest.approx(plain.advantage.tolist())


def test_single_children_of_siblings_are_compared_with_each_other_on_paths():
    rollouts = forest((N(0.0, (N(1.0),)), N(0.0, (N(3.0),)), N(8.0)), branching=(3, 1))
    advantage = MonteCarlo(gamma=1.0)(rollouts).advantage[rollouts.row_of[:, 1]]
    # Returns 1, 1, 3, 3, 8: the first turn's mean is 4; the second turn's two replies have mean 2.
    assert advantage.tolist() == pytest.approx([-3.0, -1.0, -1.0, 1.0, 4.0])


def test_groups_of_two_tasks_are_not_mixed():
    rollouts = forest((N(0.0), N(2.0)), (N(10.0), N(14.0)), branching=(2,))
    advantage = MonteCarlo()(rollouts).advantage[rollouts.row_of[:, 0]]
    assert advantage.tolist() == pytest.approx([-1.0, 1.0, -2.0, 2.0])


def test_truncated_subtrees_are_dropped_and_counted_and_spoil_no_baseline():
    rollouts = forest((N(1.0, (N(2.0), N(4.0, cut=True))), N(3.0), N(5.0)), branching=(3, 2))
    estimate = MonteCarlo(gamma=0.5)(rollouts)
    kept = estimate.keep[rollouts.row_of[:, 0]]
    assert kept.tolist() == [False, True, False, True, True]
    assert estimate.advantage[rollouts.row_of[:, 0]][kept].tolist() == pytest.approx([0.0, -1.0, 1.0])
    assert estimate.metrics["dropped_nodes"] == 2.0
    assert np.isfinite(estimate.advantage).all()


def test_replies_whose_greedy_baseline_was_cut_are_dropped():
    rollouts = forest((N(1.0), N(2.0), N(9.0, cut=True, greedy=True)), branching=(2,))
    estimate = MonteCarlo(baseline="greedy")(rollouts)
    assert not estimate.keep.any()
    assert np.isfinite(estimate.advantage).all()


def test_only_the_greedy_baseline_asks_for_greedy_replies():
    assert [MonteCarlo(baseline=b).rollout_needs.greedy for b in BASELINES] == [
        b == "greedy" for b in BASELINES
    ]
    assert MonteCarlo().rollout_needs.branching == "tree"
    assert MonteCarlo().critic_queries(tree_2x2()) is None


@pytest.mark.parametrize("settings", [{"baseline": "median"}, {"gamma": 1.5}, {"gamma": -0.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError):
        MonteCarlo(**settings)
