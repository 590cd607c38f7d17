"""Measures of text on small inputs whose values can be counted by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collm_envs.text import (
    CONNECTIVES,
    STOP_WORDS,
    Knees,
    char_count,
    char_ratio,
    connective_categories,
    content_words,
    jaccard,
    pieces,
    split_at_marker,
    trapezoid,
    unique_word_ratio,
    word_count,
    words,
)


def test_words():
    assert words("Don't stop, it’s 3 o'clock_now!") == ["don't", "stop", "it’s", "3", "o'clock", "now"]
    assert words("¿Qué tal, Straße? 東京") == ["qué", "tal", "strasse", "東京"]
    assert words("... !!! --") == []
    assert word_count(" a  -- b\n\tc ") == 4
    assert char_count("  añb \n") == 3


def test_content_words_and_overlap():
    assert content_words("The dog and the DOG saw a cat, it’s so.") == {"dog", "saw", "cat"}
    assert jaccard("red dog", "red cat") == pytest.approx(1 / 3)
    assert jaccard("", "") == jaccard("the", "and") == jaccard("dog", "") == 0


def test_ratios():
    assert char_ratio("abcd", "abcdef") == 1.5
    assert char_ratio("", "abc") == char_ratio(" ", "abc") == 0
    assert unique_word_ratio("a b a", "c d e e") == 1.5
    assert unique_word_ratio("!!", "a") == 0


@pytest.mark.parametrize(
    ("x", "height"),
    [(0, 0), (1, 0), (1.5, 0.5), (2, 1), (3, 1), (4, 1), (5, 0.75), (8, 0), (9, 0), (math.inf, 0), (-1, 0)],
)
def test_trapezoid(x, height):
    assert trapezoid(x, Knees(1, 2, 4, 8)) == pytest.approx(height)


def test_trapezoid_without_an_end():
    assert [trapezoid(x, Knees(1, 2)) for x in (1, 1.25, 2, 1e9)] == [0, 0.25, 1, 1]


def test_connective_lists():
    assert len(CONNECTIVES) == 12
    assert all(10 <= len(phrases) <= 20 for phrases in CONNECTIVES.values())
    everything = [phrase for phrases in CONNECTIVES.values() for phrase in phrases]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("category", CONNECTIVES)
def test_a_phrase_counts_for_its_category_alone(category):
    for phrase in CONNECTIVES[category]:
        assert connective_categories(f"Well, {phrase.upper()}, yes.") == {category}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("also", {"elaboration"}),
        ("so", {"cause_effect"}),
        ("So!", {"cause_effect"}),
        ("absolute sofa resort", set()),
        ("butter, thence, iffy, 1st", set()),
        ("so-called", {"cause_effect"}),
        ("for\n  example", {"examples"}),
        ("for an example", set()),
        ("e.g. this", {"examples"}),
        ("although", {"concession"}),
        ("größer_so soße", set()),
        ("", set()),
    ],
)
def test_whole_words_only(text, found):
    assert connective_categories(text) == found


def test_a_phrase_does_not_span_two_texts():
    assert connective_categories("good for", "example one") == frozenset()
    assert connective_categories("so", "but") == {"cause_effect", "contrast"}


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("a\n===\nb", ("a", "b")),
        ("a\nb\n  ===\t\nc\n===\nd", ("a\nb", "c\n===\nd")),
        ("a === b", ("a === b", "")),
        ("===", ("", "")),
        ("", ("", "")),
        ("a\r\n===\r\nb", ("a\r", "b")),
        ("a\n====\nb", ("a\n====\nb", "")),
    ],
)
def test_split_at_marker(reply, parts):
    assert split_at_marker(reply, "===") == parts


def test_pieces():
    assert pieces("post: the dog. length 1.2\n===") == [
        "post",
        ":",
        "the",
        "dog",
        ".",
        "length",
        "1.2",
        "===",
    ]


ANY = st.text(st.characters(), max_size=200)  # lone surrogates included


@given(ANY, ANY)
def test_total_functions(a, b):
    assert word_count(a) >= 0
    assert 0 <= jaccard(a, b) <= 1
    assert jaccard(a, b) == jaccard(b, a)
    for value in (char_ratio(a, b), unique_word_ratio(a, b)):
        assert value >= 0
        assert math.isfinite(value)
    assert len(connective_categories(a, b)) <= 12
    assert not content_words(a) & STOP_WORDS
    first, second = split_at_marker(f"{a}\n===\n{b}", "===")
    assert f"{first}\n===\n{second}".count("===") >= 1


@given(st.floats(0, 10), st.lists(st.floats(0.1, 2), min_size=3, max_size=3))
def test_trapezoid_stays_in_range(x, gaps):
    knees = Knees(1, 1 + gaps[0], 1 + gaps[0] + gaps[1], 1 + sum(gaps))
    assert 0 <= trapezoid(x, knees) <= 1
