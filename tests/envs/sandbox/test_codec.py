"""Values survive the border; hostile JSON gives CodecError and nothing else."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collm_envs.sandbox.codec import CodecError, decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False, places=5)
    | st.datetimes()
    | st.timedeltas()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
        | st.frozensets(st.tuples(st.integers(), st.text()), max_size=4)
    ),
    max_leaves=12,
)


def through(value):
    return decode(json.loads(json.dumps(encode(value))))


def typed(value):
    """A value with the types of all its parts."""
    if isinstance(value, dict):
        return type(value), {key: (type(key), typed(item)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    return type(value), value


@given(VALUES)
def test_plain_values_come_back_with_their_types(value):
    assert typed(through(value)) == typed(value)


def test_floats_that_json_lacks_and_the_sign_of_zero():
    assert math.isnan(through(math.nan))
    assert through([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert math.copysign(1, through(-0.0)) == -1
    assert json.dumps(encode(math.inf)) == '["f", "inf"]'


def test_aware_datetimes_keep_their_offset():
    moment = datetime(2020, 2, 29, 23, 59, tzinfo=UTC)
    assert through(moment) == moment
    assert through(moment).utcoffset() == timedelta(0)


def test_subclasses_go_by_their_content():
    Point = namedtuple("Point", "x y")
    Colour = IntEnum("Colour", "RED BLUE")

    class Words(list):
        def __iter__(self):
            return iter(["not", "these"])

        def __len__(self):
            return 99

    assert through(Point(1, 2)) == (1, 2)
    assert through(Colour.BLUE) == 2
    assert type(through(Colour.BLUE)) is int
    assert through(defaultdict(list, {1: [2]})) == {1: [2]}
    assert through(Words([1, 2])) == [1, 2]
    assert through(np.float64(0.5)) == 0.5
    assert through(np.arange(3)) == [0, 1, 2]


def test_collections_keep_their_kind():
    assert through(deque([1, 2])) == deque([1, 2])
    assert through(Counter("aab")).most_common(1) == [("a", 2)]
    assert list(through(OrderedDict(b=1, a=2))) == ["b", "a"]
    assert through({"age": int, "error": ValueError}) == {"age": int, "error": ValueError}


@pytest.mark.parametrize("value", [object(), print, lambda: 0, type("C", (), {}), iter([])])
def test_what_is_no_plain_value_is_refused_or_handed_to_the_hook(value):
    with pytest.raises(CodecError):
        encode([value])
    assert encode([value], lambda thing: 7) == ["l", [["o", 7]]]
    assert decode(["l", [["o", 7]]], lambda data: ("handle", data)) == [("handle", 7)]


def test_depth_size_and_cycles_are_refused():
    deep: list = []
    for _ in range(100):
        deep = [deep]
    cycle: list = []
    cycle.append(cycle)
    for value in (deep, cycle, [0] * 500_000, 1 << 400_000, Decimal("1" * 2000)):
        with pytest.raises(CodecError):
            encode(value)


HOSTILE = [
    {},
    {"a": 1},
    [],
    [1],
    [None],
    [["l", []]],
    ["l"],
    ["l", 5],
    ["l", [], []],
    ["l", {}],
    ["nonsense", 1],
    ["o", 1],
    ["m", 0],
    ["m", 0, "l", []],
    ["i", 5],
    ["i", "zz"],
    ["i", "f" * 70_000],
    10**30,
    ["f", "one"],
    ["f", 1],
    ["b", "é"],
    ["b", "a"],
    ["c", "1"],
    ["d", [1]],
    ["d", [["l", []], 1]],
    ["s", [["d", []]]],
    ["r", "0x0", "0xffffffffffff", "0x1"],
    ["r", "0x0", "0x1", "0x0"],
    ["w", 2020, 13, 1, 0, 0, 0, 0, 0, None],
    ["w", "\x00" * 10],
    ["y", "abcd"],
    ["y", 1, 2],
    ["h", 0, 0, 0, 0, 0, 10**9],
    ["h", 0, 0, 0, 0, 0, "x"],
    ["u", 10**10, 0, 0],
    ["u", 1.5, 0, 0],
    ["D", "1E+999999"],
    ["D", "sNaN"],
    ["D", "x"],
    ["Q", "0x1", "0x0"],
    ["T", "os"],
    ["T", "__import__"],
    ["T", ["l"]],
    ["e", 1],
]


@pytest.mark.parametrize("data", HOSTILE, ids=[str(data)[:30] for data in HOSTILE])
def test_hostile_data_is_refused(data):
    with pytest.raises(CodecError):
        decode(data)


def test_data_too_deep_or_too_large_is_refused():
    data: list = ["l", []]
    for _ in range(300):
        data = ["l", [data]]
    for hostile in (data, ["l", [0] * 500_000]):
        with pytest.raises(CodecError):
            decode(hostile)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from("ldstzqCOrwyhuDQTibcf"),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=15,
)


@given(JSON)
def test_any_json_decodes_or_is_refused(data):
    try:
        value = decode(data)
    except CodecError:
        return
    encode(value)


@pytest.mark.parametrize("tag", ["s", "z", "d"])
def test_colliding_keys_cost_no_time(tag):
    modulus = 2**61 - 1
    keys = [["i", hex(7 + modulus * k)] for k in range(20_000)]
    # half of them spread out, so that an average would look harmless
    keys += [10**6 + k for k in range(20_000)]
    items = [part for key in keys for part in (key, 1)] if tag == "d" else keys
    start = time.perf_counter()
    with pytest.raises(CodecError, match="collide"):
        decode([tag, items])
    assert time.perf_counter() - start < 2


def test_honest_keys_with_regular_hashes_are_taken():
    powers = {2**k for k in range(3000)}
    assert through(powers) == powers
    spread = {k * 2**20: 0 for k in range(3000)}
    assert through(spread) == spread


def test_dates_and_fractions():
    assert through(date(2020, 1, 2)) == date(2020, 1, 2)
    assert type(through(date(2020, 1, 2))) is date
    assert through(Fraction(1, 3)) == Fraction(1, 3)
