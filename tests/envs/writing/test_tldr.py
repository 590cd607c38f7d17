"""TLDR scores worked by hand: every expectation is a figure or arithmetic written here."""

from __future__ import annotations

import pickle
from math import log
from pathlib import Path

import numpy as np
import pytest
from handmade import LINKS, Text, change, play, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs import component, make, play_scripted
from collm_envs.task import Task

ID = "writing/tldr-v0"
SCITLDR = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "scitldr_train.jsonl.gz"
NAMES = ("structure", "length_ratio", "unique_ratio", "style")

SUMMARY = Text(words=10, chars=100, unique=10, tag="q")
DETAIL = Text(words=20, chars=200, unique=20, tag="z", lead=("so",))  # one category, no shared word
SO = {"paper": 0.4 * 0.6 * log(2), "release": 0.4 * 0.4}


def same(value: float) -> dict[str, float]:
    return {"paper": value, "release": value}


def case(
    name: str, first: object, second: object, *levels: float, style: dict[str, float] | None = None
) -> object:
    """`levels` as far as scoring goes; where all three open, `style` comes last (SO unless given)."""
    return pytest.param(str(first), str(second), levels, style or SO, id=name)


CASES = [
    # structure: 8 to 256 white-space words of both
    case("first_7_words", Text(7, 80, 7), DETAIL, 0),
    case("first_8_words", Text(8, 100, 8), DETAIL, 0.5, 1, 0.5),
    case("first_256_words", Text(256, 1100, 10), Text(256, 2200, 20, "z", ("so",)), 0.5, 1, 0.5),
    case("first_257_words", Text(257, 1100, 10), Text(256, 2200, 20, "z", ("so",)), 0),
    case("second_7_words", SUMMARY, Text(7, 200, 7, "z", ("so",)), 0),
    case("second_8_words", Text(8, 80, 4), Text(8, 160, 8, "z", ("so",)), 0.5, 1, 0.5),
    case("second_256_words", Text(10, 500, 10), Text(256, 1200, 20, "z", ("so",)), 0.5, 1, 0.5),
    case("second_257_words", Text(10, 500, 10), Text(257, 1200, 20, "z", ("so",)), 0),
    case("both_empty", "", "", 0),
    case("first_empty", "", DETAIL, 0),
    case("second_blank", SUMMARY, " \n\t ", 0),
    # length ratio: knees 1.1, 1.6, 3.2, 5.0
    case("ratio_1.09", SUMMARY, change(DETAIL, chars=109), 0.5, 0),
    case("ratio_1.1", SUMMARY, change(DETAIL, chars=110), 0.5, 0),
    case("ratio_1.35", SUMMARY, change(DETAIL, chars=135), 0.5, 0.25 / 0.5, 0.5),
    case("ratio_1.59", SUMMARY, change(DETAIL, chars=159), 0.5, 0.49 / 0.5, 0.5),
    case("ratio_1.6", SUMMARY, change(DETAIL, chars=160), 0.5, 1, 0.5),
    case("ratio_3.2", SUMMARY, change(DETAIL, chars=320), 0.5, 1, 0.5),
    case("ratio_3.21", SUMMARY, change(DETAIL, chars=321), 0.5, 1 - 0.01 / 1.8, 0.5),
    case("ratio_4.1", SUMMARY, change(DETAIL, chars=410), 0.5, 0.5, 0.5),
    case("ratio_5.0", SUMMARY, change(DETAIL, chars=500), 0.5, 0),
    case("ratio_5.01", SUMMARY, change(DETAIL, chars=501), 0.5, 0),
    case("blanks_at_ends_do_not_count", SUMMARY, f"  {change(DETAIL, chars=135)}\n\n", 0.5, 0.25 / 0.5, 0.5),
    # unique-word ratio: knees 1.3, 2.0
    case("unique_1.2", SUMMARY, change(DETAIL, unique=12), 0.5, 1, 0),
    case("unique_1.3", SUMMARY, change(DETAIL, unique=13), 0.5, 1, 0),
    case("unique_1.4", SUMMARY, change(DETAIL, unique=14), 0.5, 1, 0.5 * 0.1 / 0.7),
    case("unique_1.9", SUMMARY, change(DETAIL, unique=19), 0.5, 1, 0.5 * 0.6 / 0.7),
    case("unique_2.0", SUMMARY, change(DETAIL, unique=20), 0.5, 1, 0.5),
    case("unique_3.0", SUMMARY, change(DETAIL, words=30, unique=30), 0.5, 1, 0.5),
    case(
        "signs_are_no_words", "? " * 7 + "?", "! " * 15 + "!", 0.5, 1, 0
    ),  # 8 and 16 signs: 15 and 31 characters
    # style
    case("no_link_nothing_shared", SUMMARY, change(DETAIL, lead=()), 0.5, 1, 0.5, style=same(0)),
    case(  # 1 of 10 + 19 - 1 = 28 content words: over the cap
        "one_shared_word",
        change(SUMMARY, lead=shared(1)),
        change(DETAIL, lead=("so", *shared(1))),
        *(0.5, 1, 0.5),
        style={name: points + 0.6 for name, points in SO.items()},
    ),
    case(  # 1 of 20 + 40 - 1 = 59 content words: under the cap of 0.03
        "overlap_under_the_cap",
        Text(20, 200, 20, "q", shared(1)),
        Text(40, 400, 40, "z", shared(1)),
        *(0.5, 1, 0.5),
        style=same(0.6 * (1 / 59) / 0.03),
    ),
    case(
        "four_kinds",
        SUMMARY,
        change(DETAIL, lead=("also", "so", "but", "then")),
        *(0.5, 1, 0.5),
        style={"paper": 0.4 * 0.6 * log(5), "release": 0.4 * 0.55},
    ),
    case(  # 0.6 ln 6 = 1.075 is cut to 1
        "five_kinds",
        SUMMARY,
        change(DETAIL, lead=("also", "so", "but", "then", "if")),
        *(0.5, 1, 0.5),
        style={"paper": 0.4, "release": 0.4 * 0.6},
    ),
    case(
        "twelve_kinds",
        SUMMARY,
        change(DETAIL, lead=tuple(LINKS)),
        *(0.5, 1, 0.5),
        style={"paper": 0.4, "release": 0.4 * 0.95},
    ),
    case(
        "twelve_kinds_and_a_shared_word",
        change(SUMMARY, lead=shared(1)),
        change(DETAIL, lead=(*shared(1), *LINKS)),
        *(0.5, 1, 0.5),
        style={"paper": 1, "release": 0.98},
    ),
    case(  # the release looks at the second text alone
        "links_in_the_first_text",
        change(SUMMARY, lead=("so", "but")),
        change(DETAIL, lead=()),
        *(0.5, 1, 0.5),
        style={"paper": 0.4 * 0.6 * log(3), "release": 0},
    ),
    case(
        "one_kind_in_each_text",
        change(SUMMARY, lead=("but",)),
        change(DETAIL, lead=("so",)),
        *(0.5, 1, 0.5),
        style={"paper": 0.4 * 0.6 * log(3), "release": 0.4 * 0.4},
    ),
    case("also_is_not_so", SUMMARY, change(DETAIL, lead=("also",)), 0.5, 1, 0.5),  # one kind, not two
    case("resort_is_not_so", SUMMARY, change(DETAIL, lead=("resort",)), 0.5, 1, 0.5, style=same(0)),
    case("upper_case", SUMMARY, change(DETAIL, lead=("SO",)), 0.5, 1, 0.5),
    # 8 words of 43 code points and 16 of 79: x = 1.837; u = 16 / 8; one kind
    case(
        "unicode",
        "über naïve Öl größe łódź 東京都心 привет ελλάδα",
        "so été çà ñandú þorn əməl ýmir žába 大阪市内 мирный άλφα βήτα γάμμα δέλτα ζήτα ιώτα",
        *(0.5, 1, 0.5),
    ),
]


@pytest.mark.parametrize("formula", ["paper", "release"])
@pytest.mark.parametrize(("first", "second", "levels", "style"), CASES)
def test_hand_worked(first, second, levels, style, formula):
    expected = [*levels, 0, 0, 0, 0][:4]
    if len(levels) == 3 and levels[2]:
        expected[3] = style[formula]
    info = play(ID, formula, first, second)
    assert [info["reward_parts"][name] for name in NAMES] == pytest.approx(expected, abs=1e-12)
    assert info["score"] == pytest.approx(sum(expected), abs=1e-12)
    high = {"paper": 3.0, "release": 2.98}[formula]
    assert info["success"] == (all(expected) and sum(expected) >= 0.95 * high - 1e-9)


def test_lone_surrogates_are_scored():
    info = play(ID, "paper", "\ud800 " * 8, "\udfff so " * 8)
    assert info["reward_parts"]["structure"] == 0.5


@pytest.mark.parametrize(("formula", "high"), [("paper", 3.0), ("release", 2.98)])
@pytest.mark.parametrize("num_agents", [1, 2])
def test_high_is_reached_by_the_oracle(formula, high, num_agents):
    env = make(ID, formula=formula, num_agents=num_agents)
    assert env.high == pytest.approx(high, abs=1e-12)
    assert env.low == 0
    for split in ("train", "test"):
        records = play_scripted(env, "oracle", list(make(ID, split=split).tasks))
        assert [r["score"] for r in records] == pytest.approx([high] * len(records), abs=1e-9)
        assert all(record["success"] for record in records)


@pytest.mark.parametrize("formula", ["paper", "release"])
def test_novice_is_weak_but_not_hopeless(formula):
    env = make(ID, formula=formula)
    records = play_scripted(env, "novice", [task for task in env.tasks for _ in range(6)])
    assert 0.6 < np.mean([r["score"] for r in records]) < 1.4
    assert np.mean([r["success"] for r in records]) <= 0.1


def test_a_low_success_at_still_wants_every_level():
    # 0.5 + 1 + 0.5 of 3 is more than half, yet style is at zero.
    info = play(ID, "paper", str(SUMMARY), str(change(DETAIL, lead=())), success_at=0.5)
    assert info["score"] == pytest.approx(2.0)
    assert not info["success"]
    assert play(ID, "paper", str(SUMMARY), str(DETAIL), success_at=0.5)["success"]


def test_a_level_of_weight_zero_is_left_out():
    info = play(ID, "paper", str(SUMMARY), str(change(DETAIL, lead=())), rewards={"style": 0})
    assert (info["score"], info["success"]) == (2.0, True)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            Text(7, 80, 7),
            DETAIL,
            "Failed level structure: the summary has 7 words, the detail 20; both need 8 to 256.",
        ),
        (
            SUMMARY,
            change(DETAIL, chars=105),
            "Failed level length_ratio: the detail has 1.05 times the characters",
        ),
        (
            SUMMARY,
            change(DETAIL, unique=12),
            "Failed level unique_ratio: the detail has 1.20 times the distinct",
        ),
        (
            SUMMARY,
            change(DETAIL, lead=()),
            "Failed level style: 0 of 12 kinds of connectives, overlap of content words",
        ),
        (SUMMARY, DETAIL, "Weakest level style: 1 of 12 kinds"),
        (
            SUMMARY,
            change(DETAIL, chars=111, lead=(*LINKS,)),
            "Weakest level length_ratio: the detail has 1.11 times",
        ),
    ],
)
def test_feedback_names_the_level_and_its_value(first, second, told):
    env = make(ID, num_turns=2)
    env.reset(seed=0)
    observations, *_ = env.step({"summary_0": str(first), "detail_1": str(second)})
    assert set(observations) == {"summary_0", "detail_1"}
    for text in observations.values():
        assert text.startswith(told)


class WithMore(type(make("writing/tldr-v0"))):
    """The task with one component that is no level, as a subclass may add it."""

    def components(self):
        return (*super().components(), more)


@component("more", low=0, high=1)
def more(pair):
    return 0.25


@pytest.mark.parametrize(
    "weights", [{}, dict.fromkeys(("structure", "length_ratio", "unique_ratio", "style"), 0)]
)
def test_feedback_tells_of_levels_only(weights):
    env = WithMore(num_turns=2, rewards=weights)
    env.reset(seed=0)
    observations, *_ = env.step(dict.fromkeys(env.agents, "too short"))
    told = "Not there yet." if weights else "Failed level structure:"
    assert all(text.startswith(told) for text in observations.values())


def test_plain_feedback_tells_nothing():
    env = make(ID, num_turns=2, feedback="plain")
    env.reset(seed=0)
    observations, *_ = env.step({"summary_0": "a", "detail_1": "b"})
    assert set(observations.values()) == {"Not there yet. Write again."}


def test_alone_the_two_texts_come_in_one_reply():
    env = make(ID, num_agents=1)
    assert env.possible_agents == ["writer_0"]
    observations, _ = env.reset(seed=0)
    assert "===" in observations["writer_0"]
    *_, infos = env.step({"writer_0": f"{SUMMARY}\n  === \n{DETAIL}"})
    both = play(ID, "paper", str(SUMMARY), str(DETAIL))
    assert infos["writer_0"]["reward_parts"] == both["reward_parts"]
    env.reset(seed=0)
    *_, infos = env.step({"writer_0": f"{SUMMARY} === {DETAIL}"})  # no line of its own: one text
    assert infos["writer_0"]["score"] == 0


def test_the_post_is_shown_raw_with_braces_and_markers():
    env = make(ID, num_agents=1)
    post = "Use {post} and {marker} and {0}, they said."
    observations, _ = env.reset(seed=0, options={"task": Task("t", {"post": post})})
    assert post in observations["writer_0"]
    assert env.scripted("oracle", "writer_0", np.random.default_rng(0))


@pytest.mark.skipif(not SCITLDR.exists(), reason="needs the shared data")
@pytest.mark.parametrize("split", ["train[:1000]", "test[50:90]", "all"])
def test_real_text_loads(split):
    env = make(ID, source=str(SCITLDR), split=split, formula="release")
    assert len(env.tasks) == {"train[:1000]": 1000, "test[50:90]": 40, "all": 1992}[split]
    assert "#" not in env.tasks[0].id  # the paper_id, not a row number
    assert env.tasks[0].public["title"]
    records = play_scripted(env, "oracle", [env.tasks[i] for i in range(5)])
    assert [r["score"] for r in records] == pytest.approx([2.98] * 5, abs=1e-9)


def test_the_papers_slices(tmp_path):
    for split in ("train", "test"):
        rows = "".join(f'{{"prompt": "{split} post number {i}"}}\n' for i in range(1100))
        (tmp_path / f"{split}.jsonl").write_text(rows)
    source = ",".join(f"{split}={tmp_path / split}.jsonl" for split in ("train", "test"))
    train = make(ID, source=source, split="train[:1000]").tasks
    test = make(ID, source=source, split="test[1000:1100]").tasks
    assert (len(train), len(test)) == (1000, 100)
    assert test[0].public["post"] == "test post number 1000"


def test_built_in_posts():
    train, test = (make(ID, split=split).tasks for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 8)
    posts = [task.public["post"] for tasks in (train, test) for task in tasks]
    assert len(set(posts)) == 32


def test_pickles_and_keeps_scoring():
    env = pickle.loads(pickle.dumps(make(ID, num_turns=3)))
    env.reset(seed=0)
    *_, infos = env.step({"summary_0": str(SUMMARY), "detail_1": str(DETAIL)})
    assert infos["summary_0"]["score"] == pytest.approx(2 + SO["paper"])


WORDS = st.lists(st.one_of(st.sampled_from(LINKS), st.text(max_size=6)), max_size=40).map(" ".join)
REPLIES = st.one_of(
    WORDS, st.text(max_size=400), st.text(st.characters(categories=["Cs", "L", "M"]), max_size=40)
)


@pytest.mark.parametrize("env_id", [ID, "writing/tldr-mini-v0", "writing/arxiv-v0"])
@pytest.mark.parametrize("formula", ["paper", "release"])
@given(first=REPLIES, second=REPLIES)
@settings(max_examples=40, deadline=None)
def test_any_reply_is_scored_within_range(env_id, formula, first, second):
    info = play(env_id, formula, first, second)
    tops = dict(zip(NAMES, (0.5, 1, 0.5, 1 if formula == "paper" else 0.98), strict=True))
    assert all(0 <= info["reward_parts"][name] <= top for name, top in tops.items())
    assert info["score"] == pytest.approx(sum(info["reward_parts"].values()), abs=1e-12)


@given(
    secret=st.lists(
        st.text("abcxyzäß", min_size=2, max_size=6).map(lambda w: "zq" + w), min_size=1, max_size=30
    ),
    mine=WORDS,
)
@settings(max_examples=60, deadline=None)
def test_feedback_never_holds_the_partners_text(secret, mine):
    for env_id in (ID, "writing/tldr-mini-v0", "writing/arxiv-v0"):
        for swap in (False, True):
            env = make(env_id, num_turns=2)
            env.reset(seed=0)
            texts = (" ".join(secret), mine)
            replies = dict(zip(env.possible_agents, texts[::-1] if swap else texts, strict=True))
            observations, *_ = env.step(replies)
            assert all("zq" not in text for text in observations.values())
