"""Proposition 4.2: how a value estimate's variance falls with the number of rollouts, as stated and on trees."""

import itertools

import numpy as np
import pytest
from game import Game
from trees import draw

from collm_agents.advantages import child_scan


def moments(game, turn, state, histories):
    """Mean and variance of the return from here, and the chance of every joint reply: exact."""
    mean, square, plan = 0.0, 0.0, []
    for joint in game.joint_actions():
        chance = np.prod([game.policy[i][game.index(i, histories[i]), joint[i]] for i in range(2)])
        own = game.reward[(turn, state, *joint)]
        found = game.after(turn, state, histories, joint)
        later = (0.0, 0.0) if found is None else moments(game, turn + 1, *found)[:2]
        worth = own + game.gamma * later[0]
        mean += chance * worth
        square += chance * (worth**2 + game.gamma**2 * later[1])
        plan.append((chance, worth, found))
    return mean, square - mean**2, plan


def steps(game, turn, state, histories):
    """v_s for s >= turn: the variance that the replies of turn s add on average, its gamma^2 factors included."""
    mean, _, plan = moments(game, turn, state, histories)
    own = [sum(chance * (worth - mean) ** 2 for chance, worth, _ in plan)]
    later = [
        [chance * v for v in steps(game, turn + 1, *found)] for chance, _, found in plan if found is not None
    ]
    return own + [game.gamma**2 * sum(column) for column in itertools.zip_longest(*later, fillvalue=0.0)]


def estimates(game, branching, trees, seed):
    """Value estimates of the first point, one per tree, and the start state of each."""
    rollouts, at = draw(game, branching, trees, seed)
    returns = child_scan(rollouts.nodes.reward, rollouts, game.gamma)
    first = rollouts.nodes.parent < 0
    tree = rollouts.points.tree[rollouts.nodes.point[first]]
    root = np.flatnonzero(rollouts.points.parent < 0)
    state = np.array([at[p][0][0][1] for p in root])
    return np.bincount(tree, weights=returns[first]) / branching[0], state


def z(sample, variance):
    """Distance of a sample variance from a given one, in its standard errors."""
    centred = (sample - sample.mean()) ** 2
    return abs(centred.mean() - variance) / (centred.std() / np.sqrt(len(sample)))


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_independent_rollouts_divide_the_variance_by_their_number(gamma):
    game = Game(4, turns=3, gamma=gamma, early=False)
    values, state = estimates(game, (8, 1, 1), 3000, 2)  # K^(H-t) = 2^3 rollouts of three turns
    for s in range(2):
        exact = moments(game, 0, s, game.first(s))[1]
        assert z(values[state == s], exact / 8) < 4
        assert z(values[state == s], exact / 4) > 8  # the test would notice a wrong divisor


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_a_tree_with_shared_ancestors_divides_each_turns_part_by_its_own_number(gamma):
    game = Game(4, turns=3, gamma=gamma, early=False)
    values, state = estimates(game, (2, 2, 2), 4000, 3)
    for s in range(2):
        parts = steps(game, 0, s, game.first(s))
        exact = sum(v / 2 ** (turn + 1) for turn, v in enumerate(parts))
        assert sum(parts) == pytest.approx(moments(game, 0, s, game.first(s))[1])
        assert z(values[state == s], exact) < 4
        # Far more than the proposition's figure, which takes the leaves for independent.
        assert exact > 1.5 * sum(parts) / 8
        assert z(values[state == s], sum(parts) / 8) > 8


def test_the_formula_holds_from_later_turns_as_well():
    game = Game(4, turns=3, gamma=0.7, early=False)
    start = game.after(0, 1, game.first(1), (0, 1))
    parts = steps(game, 1, *start)
    assert len(parts) == 2
    assert sum(parts) == pytest.approx(moments(game, 1, *start)[1])
