import dataclasses

import numpy as np
import pytest
import torch
from forests import N, forest, tree_2x2

from collm_agents.signals import RowStats, signals

AGENTS = ("a_0", "b_1")


def found(rollouts, advantage=None, weight=None, stats=None, gamma=0.5):
    count = len(rollouts.rows)
    advantage = np.zeros(count) if advantage is None else np.asarray(advantage, dtype=float)
    weight = rollouts.row_weight() if weight is None else np.asarray(weight, dtype=float)
    return signals(rollouts, advantage, weight, stats or RowStats(count), gamma)


def with_rows(rollouts, **columns):
    return dataclasses.replace(rollouts, rows=dataclasses.replace(rollouts.rows, **columns))


def with_nodes(rollouts, **columns):
    return dataclasses.replace(rollouts, nodes=dataclasses.replace(rollouts.nodes, **columns))


def test_rewards_scores_parts_and_success_turn_by_turn():
    rollouts = tree_2x2()  # A=1 and B=3 at the first turn, C=2 and D=4 at the second
    rollouts = with_nodes(
        rollouts, score=rollouts.nodes.reward + 10, success=np.array([False, False, True, True])
    )
    numbers = found(rollouts)
    assert (numbers["reward/t0"], numbers["reward/t1"]) == (2.0, 3.0)
    assert (numbers["score/t0"], numbers["score/t1"]) == (12.0, 13.0)
    assert (numbers["success/t0"], numbers["success/t1"]) == (0.5, 0.5)
    assert (numbers["parts/only/t0"], numbers["parts/only/t1"]) == (2.0, 3.0)


def test_greedy_baselines_are_part_of_no_signal():
    rollouts = forest((N(1.0), N(3.0), N(100.0, greedy=True)), branching=(2,))
    numbers = found(rollouts, advantage=[1, 1, 3, 3, 50, 50])
    assert numbers["reward/t0"] == 2.0
    assert numbers["advantage_mean/a_0/t0"] == 2.0
    assert numbers["group_equal/a_0/t0"] == 0.0
    same_but_greedy = forest((N(2.0), N(2.0), N(100.0, greedy=True)), branching=(2,))
    assert found(same_but_greedy)["group_equal/a_0/t0"] == 1.0


def test_lengths_and_cuts_by_agent_and_turn():
    rollouts = tree_2x2()
    reply = tuple((3,) * (1 + row) for row in range(8))  # rows A: 0, 1; C: 2, 3; D: 4, 5; B: 6, 7
    numbers = found(with_rows(rollouts, reply=reply, cut=np.arange(8) == 6))
    assert numbers["reply_tokens/a_0/t0"] == (1 + 7) / 2
    assert numbers["reply_tokens/b_1/t1"] == (4 + 6) / 2
    assert (numbers["truncated_replies/a_0/t0"], numbers["truncated_replies/b_1/t0"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("trees", "branching", "equal"),
    [
        ([(N(1.0), N(1.0)), (N(0.0), N(1.0))], (2,), {"t0": 0.5}),
        ([(N(1.0), N(1.0)), (N(2.0), N(2.0))], (2,), {"t0": 1.0}),
        # Rewards differ and returns do not: 1 + 0.5 * mean(2, 4) = 2.5. Below A they do.
        ([(N(1.0, (N(2.0), N(4.0))), N(2.5))], (2, 2), {"t0": 1.0, "t1": 0.0}),
        # Equal rewards whose returns differ.
        ([(N(1.0, (N(0.0), N(0.0))), N(1.0, (N(1.0), N(1.0))))], (2, 2), {"t0": 0.0, "t1": 1.0}),
        # A group of one says nothing: the first turn has none, the second neither.
        ([(N(1.0, (N(1.0),)),)], (1, 1), {}),
        # Truncated siblings have no return: whom they leave alone is no group.
        ([(N(1.0, cut=True), N(1.0)), (N(0.0), N(1.0))], (2,), {"t0": 0.0}),
    ],
)
def test_groups_whose_returns_are_all_equal(trees, branching, equal):
    numbers = found(forest(*trees, branching=branching))
    for agent in AGENTS:
        assert {
            name.rpartition("/")[2]: value
            for name, value in numbers.items()
            if name.startswith(f"group_equal/{agent}/")
        } == equal


def test_groups_of_crossed_replies_are_compared_row_by_row():
    # Replies (0,0), (0,1), (1,0), (1,1) with rewards 1, 2, 1, 2: only the second agent's matter.
    rollouts = forest((N(1.0), N(2.0), N(1.0), N(2.0)), branching=(4,))
    row_of = np.array([[0, 1], [0, 3], [4, 1], [4, 3]])
    keep = [0, 1, 3, 4]
    place = {row: i for i, row in enumerate(keep)}
    rows = {
        name: column[keep] if isinstance(column, np.ndarray) else tuple(column[i] for i in keep)
        for name, column in vars(rollouts.rows).items()
    }
    rollouts = dataclasses.replace(
        rollouts,
        rows=type(rollouts.rows)(**rows),
        row_of=np.vectorize(place.__getitem__)(row_of),
    )
    numbers = found(rollouts)
    assert numbers["group_equal/a_0/t0"] == 1.0
    assert numbers["group_equal/b_1/t0"] == 0.0


def test_advantages_are_those_of_rows_that_were_trained():
    rollouts = forest((N(1.0), N(2.0), N(3.0)), branching=(3,))
    numbers = found(rollouts, advantage=[1, 5, 0, 5, 99, 7], weight=[1, 0, 1, 0, 0, 0])
    assert numbers["advantage_mean/a_0/t0"] == 0.5
    assert numbers["advantage_std/a_0/t0"] == 0.5
    assert numbers["advantage_zero/a_0/t0"] == 0.5
    assert not [name for name in numbers if name.startswith("advantage") and "b_1" in name]
    assert "reply_tokens/b_1/t0" in numbers  # sampled, if not trained


def test_ratios_and_how_many_are_beyond_the_clip():
    rollouts = forest((N(1.0), N(2.0)), branching=(2,))  # rows 0, 2 of a_0 and 1, 3 of b_1
    stats = RowStats(4)
    ratio = torch.tensor([[1.0, 1.3, 1.1], [0.5, 1.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    stats.put_ratios(np.array([0, 2]), ratio, mask, 0.2)
    stats.put_ratios(np.array([3]), torch.tensor([1.5]), torch.ones(1, 4, dtype=torch.bool), 0.2)
    numbers = found(rollouts, stats=stats)
    assert numbers["ratio/a_0/t0"] == pytest.approx((3.4 / 3 + 1.5 / 2) / 2)
    assert numbers["clip_fraction/a_0/t0"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert numbers["ratio/b_1/t0"] == pytest.approx(1.5)
    assert numbers["clip_fraction/b_1/t0"] == 1.0


def test_without_a_clip_there_is_no_fraction_of_it():
    stats = RowStats(2)
    stats.put_ratios(np.array([0]), torch.tensor([3.0]), torch.ones(1, 1, dtype=torch.bool), 0.0)
    numbers = found(forest((N(1.0),), branching=(1,)), stats=stats)
    assert numbers["ratio/a_0/t0"] == 3.0
    assert not [name for name in numbers if "clip_fraction" in name]


def test_the_last_pass_counts():
    stats = RowStats(2)
    for value in (5.0, 7.0):
        stats.put("kl", np.array([1]), torch.tensor([value]))
    numbers = found(forest((N(1.0),), branching=(1,)), stats=stats)
    assert numbers["kl/b_1/t0"] == 7.0
    assert "kl/a_0/t0" not in numbers


def test_scripted_replies_have_neither_tokens_nor_signals():
    rollouts = with_rows(
        forest((N(1.0), N(2.0)), branching=(2,)),
        prompt=((1, 2), (), (1, 2), ()),
        reply=((3,), (), (3, 4), ()),
    )
    numbers = found(rollouts, advantage=[1, 2, 3, 4], weight=[1, 0, 1, 0])
    assert numbers["reply_tokens/a_0/t0"] == 1.5
    assert not [name for name in numbers if "b_1" in name]
