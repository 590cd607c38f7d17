"""The mean of every estimator that claims to be unbiased is the policy gradient; of those that do not, it is not.

The exact gradient comes from enumeration. Means are taken over thousands of trees with fixed seeds and compared
coordinate by coordinate, in standard errors; the bound is far beyond chance for the number of coordinates, and the
biased estimators, under the same test, are found out.
"""

import functools

import numpy as np
import pytest
from forests import tree_2x2
from game import Game
from trees import draw, far_from, tree_gradients

from collm_agents.advantages import RolloutNeeds
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.config import LearnerConfig
from collm_agents.learner import Learner
from examples.custom_algorithm import Coma

TREES = 4000
BOUND = 4.6  # two-sided chance 4e-6 per coordinate; at most 60 coordinates a test


@functools.cache
def game(gamma=1.0, turns=2, seen=False, early=True):
    return Game(3, turns=turns, gamma=gamma, seen=seen, early=early)


@functools.cache
def sampled(branching, gamma=1.0, mode="aligned", greedy=False, seen=False, early=True, seed=1):
    """Rollouts of a game, drawn once for all tests that use them."""
    own = game(gamma, len(branching), seen, early)
    per_tree = np.prod(branching) ** (2 if mode == "cross" else 1)
    return draw(own, branching, int(TREES // max(1, per_tree / 8)), seed, mode=mode, greedy_sibling=greedy)


class Plain:
    """As much of a team as `Learner.row_signals` reads."""

    learners = ("a_0", "b_1")


def signals(estimator, rollouts, values=None, **settings):
    """What rows are trained with: advantage and weight."""
    settings = {
        "advantage_norm": "none",
        "turn_weight": "discounted",
        "lr": 1.0,
        "critic_lr": 1.0,
        **settings,
    }
    learner = Learner.__new__(Learner)
    learner.team, learner.estimator, learner.config = Plain(), estimator, LearnerConfig(**settings)
    return learner.row_signals(rollouts, estimator(rollouts, values))


def distance(own, found, estimator, values=None, scale=1.0, **settings):
    """Standard errors between the estimator's mean and the exact gradient."""
    rollouts, _ = found
    advantage, weight = signals(estimator, rollouts, values, **settings)
    return far_from(scale * tree_gradients(own, rollouts, advantage, weight), own.gradient())


SHAPES = {
    "tree": ((3, 2), "aligned"),
    "paths": ((3, 1), "aligned"),
    "one reply": ((1, 1), "aligned"),
    "cross": ((2, 2), "cross"),
    "crossed paths": ((2, 1), "cross"),
    "three turns": ((2, 2, 2), "aligned"),
}


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "greedy"])
def test_monte_carlo_is_unbiased(baseline, shape, gamma):
    branching, mode = SHAPES[shape]
    found = sampled(branching, gamma, mode, greedy=baseline == "greedy")
    own = game(gamma, len(branching))
    assert distance(own, found, MonteCarlo(gamma=gamma, baseline=baseline)) < BOUND


@pytest.mark.parametrize(("shape", "scale"), [("tree", (3, 2)), ("cross", (2, 2))])
def test_the_mean_of_siblings_is_unbiased_up_to_k_minus_one_over_k_at_every_turn(shape, scale):
    branching, mode = SHAPES[shape]
    own, (rollouts, _) = game(), sampled(branching, 1.0, mode)
    advantage, weight = signals(MonteCarlo(gamma=1.0, baseline="mean"), rollouts)
    turn = rollouts.points.turn[rollouts.rows.point]
    mended = advantage * np.array([k / (k - 1) for k in scale])[turn]
    assert far_from(tree_gradients(own, rollouts, mended, weight), own.gradient()) < BOUND
    assert far_from(tree_gradients(own, rollouts, advantage, weight), own.gradient()) > 2 * BOUND


def perfect(own, at, kind):
    """Values without error: of joint or own histories, at every point."""
    if kind == "joint":
        return np.array([own.value[histories] for histories in at])
    return np.array([[own.local[i][histories[i]] for i in range(2)] for histories in at])


def perfect_q(own, found, kind):
    """Values without error of what was replied, at every node."""
    rollouts, at = found
    values = []
    for node, rows in enumerate(rollouts.row_of):
        histories = at[rollouts.nodes.point[node]]
        joint = tuple(rollouts.rows.reply[row][0] for row in rows)
        if kind == "joint":
            values.append(own.q[(histories, joint)])
        else:
            values.append([own.local_q[i][(histories[i], joint[i])] for i in range(2)])
    return np.array(values)


CRITICS = {"joint": CentralisedCritic, "local": DecentralisedCritics}


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", ["tree", "paths", "one reply", "cross"])
@pytest.mark.parametrize("kind", CRITICS)
def test_with_perfect_values_both_critics_follow_the_policy_gradient(kind, shape, lam, seen):
    branching, mode = SHAPES[shape]
    own, found = game(0.8, 2, seen), sampled(branching, 0.8, mode, seen=seen)
    values = perfect(own, found[1], kind)
    assert distance(own, found, CRITICS[kind](gamma=0.8, lam=lam), values) < BOUND


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("shape", ["tree", "paths", "cross"])
@pytest.mark.parametrize("kind", CRITICS)
def test_with_perfect_values_of_replies_they_do_too(kind, shape, lam):
    branching, mode = SHAPES[shape]
    own, found = game(0.8), sampled(branching, 0.8, mode)
    values = perfect_q(own, found, kind)
    assert distance(own, found, CRITICS[kind](gamma=0.8, lam=lam, critic="q"), values) < BOUND


def test_the_example_of_an_algorithm_from_outside_does_too():
    own, found = game(0.8), sampled((3, 2), 0.8)
    estimator = Coma(gamma=0.8)
    queries = estimator.critic_queries(found[0])
    values = [
        own.q[(found[1][point], tuple(int(said[i]) for i in range(2)))]
        for point, said in zip(queries.point, queries.replies, strict=True)
    ]
    assert distance(own, found, estimator, np.array(values)) < BOUND


@pytest.mark.parametrize("kind", CRITICS)
def test_any_values_will_do_with_lambda_one_and_not_with_lambda_zero(kind):
    own, found = game(0.8), sampled((3, 1), 0.8)
    wrong = 3.0 * np.sin(7.0 * perfect(own, found[1], kind) + 1.0)
    assert distance(own, found, CRITICS[kind](gamma=0.8, lam=1.0), wrong) < BOUND
    assert distance(own, found, CRITICS[kind](gamma=0.8, lam=0.0), wrong) > 2 * BOUND


BIASED = {
    "uniform turns under a discount": {"turn_weight": "uniform"},
    "batch-normalised": {"advantage_norm": "batch"},
    "normalised by agent and turn": {"advantage_norm": "agent_turn"},
    "clipped advantages": {"advantage_clip": 0.3},
}


@pytest.mark.parametrize("how", BIASED)
def test_what_claims_to_be_biased_is(how):
    own = Game(3, gamma=0.5, scale=3.0)
    found = draw(own, (3, 2), 2000, 1)
    assert distance(own, found, MonteCarlo(gamma=0.5, baseline="none")) < BOUND
    assert distance(own, found, MonteCarlo(gamma=0.5, baseline="none"), **BIASED[how]) > 2 * BOUND


def test_normalisation_of_a_large_buffer_is_a_factor_and_an_offset_per_turn():
    own, (rollouts, _) = game(0.5), sampled((3, 2), 0.5)
    plain, weight = signals(MonteCarlo(gamma=0.5, baseline="none"), rollouts)
    scaled, _ = signals(MonteCarlo(gamma=0.5, baseline="none"), rollouts, advantage_norm="batch")
    turn = rollouts.points.turn[rollouts.rows.point]
    mended = scaled.copy()
    for t in (0, 1):
        mended[turn == t] *= np.ptp(plain[turn == t]) / np.ptp(scaled[turn == t])
    assert far_from(tree_gradients(own, rollouts, mended, weight), own.gradient()) < BOUND


def test_the_best_of_the_siblings_is_a_biased_baseline():
    own, found = game(), sampled((3, 2))
    assert distance(own, found, MonteCarlo(gamma=1.0, baseline="max")) > 2 * BOUND


def test_a_flat_mean_over_rows_would_be_biased():
    own, (rollouts, _) = game(), sampled((3, 2))
    advantage, weight = signals(MonteCarlo(gamma=1.0, baseline="none"), rollouts)
    flat = np.full(len(weight), 2 / len(weight))
    assert far_from(tree_gradients(own, rollouts, advantage, flat), own.gradient()) > 2 * BOUND


def test_no_turn_weight_is_needed_without_a_discount():
    own, found = game(), sampled((3, 2))
    assert distance(own, found, MonteCarlo(gamma=1.0, baseline="none"), turn_weight="uniform") < BOUND


def test_with_agent_turn_the_four_baselines_are_one_and_with_none_they_differ():
    """One sibling group per agent and turn, as in the release: centring and scaling undo what a baseline does."""
    rollouts = draw(game(1.0, 1, False, False), (4,), 1, 5)[0]
    kinds = ("mean", "none", "leave_one_out", "max")
    alike = [signals(MonteCarlo(baseline=k), rollouts, advantage_norm="agent_turn")[0] for k in kinds]
    apart = [signals(MonteCarlo(baseline=k), rollouts, advantage_norm="none")[0] for k in kinds]
    assert np.abs(alike[0]).max() > 0.1
    for i in range(4):
        assert np.allclose(alike[0], alike[i], atol=1e-9)
        assert all(not np.allclose(apart[i], apart[j], atol=1e-3) for j in range(i))


def test_every_estimator_says_which_pairings_its_arithmetic_is_right_for():
    for estimator in (MonteCarlo(), CentralisedCritic(), DecentralisedCritics()):
        assert estimator.rollout_needs.joint_modes == ("aligned", "cross")
    assert Coma().rollout_needs.joint_modes == ("aligned",)
    assert RolloutNeeds().joint_modes == ("aligned",)


def test_rows_of_a_tree_weigh_as_the_branching_says():
    rollouts = tree_2x2()
    _, weight = signals(MonteCarlo(gamma=1.0, baseline="none"), rollouts)
    assert weight[rollouts.row_of[:, 0]].tolist() == pytest.approx([0.5, 0.25, 0.25, 0.5])
