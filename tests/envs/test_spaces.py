"""The text space: any string, bounded, cheap, and a citizen of gymnasium."""

import copy
import pickle

import pytest
from gymnasium.spaces import Dict, Text, flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from collm_envs import UnicodeText

SPACE = UnicodeText(12, seed=0)


@given(st.text(st.characters(codec=None), max_size=14))
def test_membership_is_length_alone(text):
    assert SPACE.contains(text) == (len(text) <= 12)


@pytest.mark.parametrize("text", ["", "a b\n", "漢字 \u202e", "\x00", "\ud800"])
def test_odd_strings_belong(text):
    assert text in SPACE


@pytest.mark.parametrize("other", [None, 3, b"bytes", ["a"], "thirteen char"])
def test_other_things_do_not(other):
    assert other not in SPACE


def test_samples_are_members_seeded_and_varied():
    draws = []
    for _ in range(2):
        space = UnicodeText(40, seed=5)
        draws.append([space.sample() for _ in range(30)])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 20
    assert all(text in UnicodeText(40) for text in draws[0])
    assert max(len(UnicodeText(10_000, sample_length=8, seed=1).sample()) for _ in range(20)) <= 8


def test_it_is_text_compares_by_length_and_travels():
    assert isinstance(SPACE, Text)
    assert UnicodeText(5) == UnicodeText(5) != UnicodeText(6)
    assert UnicodeText(5) != Text(5)
    for twin in (pickle.loads(pickle.dumps(SPACE)), copy.deepcopy(SPACE)):
        assert twin == SPACE
        assert twin.sample_length == SPACE.sample_length
    assert len(pickle.dumps(UnicodeText(1_000_000))) < 10_000
    assert repr(SPACE) == "UnicodeText(12)"


def test_flattening_keeps_the_string():
    assert flatten(SPACE, "é") == unflatten(SPACE, "é") == "é"
    assert flatten_space(SPACE) is SPACE
    with pytest.raises(ValueError, match="no fixed number"):
        flatdim(SPACE)
    assert Dict({"text": SPACE}).contains({"text": "漢"})
    assert "漢" in batch_space(SPACE, 2)[1]
