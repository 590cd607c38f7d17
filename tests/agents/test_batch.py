import dataclasses

import numpy as np
import pytest
from forests import N, forest, tree_2x2
from hypothesis import given
from hypothesis import strategies as st

from collm_agents.batch import token_batches


def test_a_turn_of_a_tree_weighs_the_same_share_where_siblings_ended_early():
    rollouts = tree_2x2()
    assert rollouts.nodes.weight.tolist() == [0.5, 0.25, 0.25, 0.5]
    # A flat mean over the four nodes would give the second turn half of all weight although one branch ended.
    assert rollouts.row_weight().reshape(-1, 2).tolist() == [[0.5] * 2, [0.25] * 2, [0.25] * 2, [0.5] * 2]


def test_row_weights_of_paths_add_up_to_one_per_turn_and_agent_while_nothing_ends():
    rollouts = forest(*[tuple(N(0.0, (N(1.0),)) for _ in range(3))] * 2, branching=(3, 1))
    turn = rollouts.points.turn[rollouts.rows.point]
    for t in (0, 1):
        for agent in (0, 1):
            rows = (turn == t) & (rollouts.rows.agent == agent)
            assert rollouts.row_weight()[rows].sum() == pytest.approx(1.0)


def test_a_row_that_several_nodes_used_weighs_what_they_weigh_together():
    rollouts = forest((N(1.0), N(2.0)), branching=(2,))
    shared = dataclasses.replace(rollouts, row_of=np.array([[0, 1], [0, 3]]))
    assert shared.row_weight().tolist() == [1.0, 0.5, 0.0, 0.5]


def test_leaves_are_ends_that_were_sampled():
    rollouts = forest((N(1.0, (N(2.0), N(4.0, cut=True))), N(3.0), N(0.0, greedy=True)), branching=(2, 2))
    assert rollouts.leaves.tolist() == [1, 2, 3]
    assert rollouts.path(2) == [0, 2]
    assert rollouts.turn.tolist() == [0, 1, 1, 0, 0]
    assert rollouts.joint_samples == 5


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("nodes", "reward", np.array([1.0, np.nan, 4.0, 3.0]), "not finite"),
        ("nodes", "score", np.array([1.0, np.inf, 4.0, 3.0]), "not finite"),
        ("nodes", "parent", np.array([1, 0, 0, -1]), "node comes before its parent"),
        ("points", "parent", np.array([1, 0]), "point comes before its parent"),
        ("nodes", "terminated", np.array([True, True, True, True]), "leads on"),
        ("nodes", "truncated", np.array([False, True, False, False]), "both terminated and truncated"),
        ("rows", "reply", ((3,),) * 7 + ((),), "row is empty"),
        ("rows", "agent", np.array([1, 0] * 4), "another agent or point"),
        ("rows", "point", np.array([0] * 8), "another agent or point"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, field, value, message):
    rollouts = tree_2x2()
    changed = dataclasses.replace(getattr(rollouts, part), **{field: value})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(rollouts, **{part: changed})


def test_row_of_needs_one_row_per_node_and_agent():
    with pytest.raises(ValueError, match=r"not \[M, A\]"):
        dataclasses.replace(tree_2x2(), row_of=np.zeros((4, 1), dtype=int))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_token_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = token_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget


def test_token_batches_count_padding():
    assert token_batches([4, 1, 1, 1], 8) == [[0, 1], [2, 3]]
