"""pass@k against the enumeration of all subsets, and at the ends of its range."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import prod

import pytest

from collm_envs.errors import InputError
from collm_envs.rates import pass_at_k


@pytest.mark.parametrize("n", range(1, 7))
def test_is_the_share_of_subsets_with_a_pass(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * c + [False] * (n - c), k))
            share = Fraction(sum(map(any, subsets)), len(subsets))
            assert pass_at_k(n, c, k) == float(share)


def test_hand_worked():
    # five samples, two pass: of the ten pairs, three hold neither
    assert pass_at_k(5, 2, 2) == 0.7
    assert pass_at_k(10, 3, 1) == 0.3
    assert pass_at_k(10, 1, 10) == 1.0
    assert pass_at_k(10, 0, 10) == 0.0


def test_large_numbers_lose_nothing():
    # the product form of the paper, in floats; and a chance far below what 1 - (1 - p) can tell
    assert pass_at_k(2000, 70, 100) == pytest.approx(
        1 - prod(1 - 100 / i for i in range(1931, 2001)), rel=1e-12
    )
    assert pass_at_k(10**18, 1, 1) == 1e-18


@pytest.mark.parametrize(
    ("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (0, 0, 1), (3, 1, 0), (3, 1, 4), (3, 1, -1)]
)
def test_impossible_numbers_are_refused(n, c, k):
    with pytest.raises(InputError, match="cannot pass" if c not in (0, 1) else f"pass@{k} needs"):
        pass_at_k(n, c, k)
