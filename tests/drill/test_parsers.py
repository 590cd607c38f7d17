"""Texts nobody vouches for, through every parser: broken copies of good ones here, a million each in the drill."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import SEEDS, TARGETS

FUZZ = Path(__file__).with_name("fuzz.py")
SLOW = {"games", "settings"}  # milliseconds each
# What a parser may trip over: signs of every format, ends of lines of every kind, digits and letters that are not.
SHARDS = st.sampled_from(
    [
        *"@#=:,.;/\\'\"`[](){}<>-+~_ \t\n\r\x0b\x0c\x1c\x1f\x85\u2028\u2029\x00\ud800\ufeffıİſß٣²½é💥",
        *(
            "```",
            "~~~",
            "1e999",
            "nan",
            "-1",
            "9" * 400,
            "(" * 200,
            "[" * 3000,
            " " * 500,
            "https://[",
            "0x",
            "null",
        ),
        *("def ", "class ", "return", "turn 1 says:", "@builder_0 turn 1 sees:\n", "/fill", "a1", "{}", "%s"),
    ]
)


@st.composite
def broken(draw, name):
    """A good text with pieces cut out, doubled, and put in; or shards alone."""
    text = draw(st.sampled_from(["", *SEEDS[name]]))
    for _ in range(draw(st.integers(0, 6))):
        start, stop = sorted(draw(st.integers(0, len(text))) for _ in range(2))
        middle = draw(st.one_of(SHARDS, st.text(max_size=6), st.just(text[start:stop] * 2)))
        text = text[:start] + middle + text[stop:]
    return text


@pytest.mark.parametrize("name", TARGETS)
def test_no_broken_text_breaks_a_parser(name):
    @given(broken(name))
    @settings(
        max_examples=60 if name in SLOW else 250,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def try_all(text):
        TARGETS[name](text)

    try_all()


@pytest.mark.drill
@pytest.mark.parametrize("name", TARGETS)
def test_a_million_texts_found_by_coverage(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(FUZZ), name, "1000000", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "number_of_executed_units: 1000000" in done.stderr
