"""The mini environment: closed vocabulary, small limits, the scoring of its big sister."""

from __future__ import annotations

import re

import numpy as np
import pytest
from handmade import Text, change, play

from collm_envs import make, play_scripted
from collm_envs.text import pieces
from collm_envs.writing.tldr import Tldr, TldrMini

ID = "writing/tldr-mini-v0"
SUMMARY = Text(words=5, chars=30, unique=5, tag="q")
DETAIL = Text(words=12, chars=60, unique=12, tag="z", lead=("so",))


@pytest.mark.parametrize(
    ("first", "second", "structure"),
    [
        (Text(3, 30, 3), DETAIL, 0),
        (Text(4, 30, 4), DETAIL, 0.5),
        (Text(28, 120, 5), DETAIL, 0.5),
        (Text(29, 120, 5), DETAIL, 0),
        (SUMMARY, Text(3, 60, 3), 0),
        (SUMMARY, Text(4, 60, 4), 0.5),
        (SUMMARY, change(DETAIL, words=28, chars=130), 0.5),
        (SUMMARY, change(DETAIL, words=29, chars=130), 0),
    ],
)
def test_limits(first, second, structure):
    assert play(ID, "paper", str(first), str(second))["reward_parts"]["structure"] == structure


@pytest.mark.parametrize("formula", ["paper", "release"])
def test_scores_as_the_big_one_beyond_structure(formula):
    first, second = (
        str(change(SUMMARY, words=9, chars=50, unique=9)),
        str(change(DETAIL, words=20, chars=150)),
    )
    assert (
        play(ID, formula, first, second)["reward_parts"]
        == (play("writing/tldr-v0", formula, first, second)["reward_parts"])
    )
    assert issubclass(TldrMini, Tldr)
    assert make(ID, formula=formula).high == make("writing/tldr-v0", formula=formula).high


def test_posts_are_many_distinct_and_short():
    train, test = ([t.public["post"] for t in make(ID, split=s).tasks] for s in ("train", "test"))
    assert (len(train), len(test)) == (4096, 96)
    assert len({*train, *test}) == 4192
    assert all(12 <= len(post.split()) <= 24 for post in [*train, *test])
    again = [t.public["post"] for t in make(ID).tasks]
    assert again == train


def test_every_text_stays_within_the_vocabulary():
    known = set(TldrMini.vocabulary())
    assert len(known) <= 300
    rng = np.random.default_rng(0)
    for num_agents in (1, 2):
        for feedback in ("level_feedback", "plain"):
            for kind in ("novice", "oracle"):
                env = make(ID, num_agents=num_agents, num_turns=3, feedback=feedback)
                for index in range(0, 4096, 85):
                    observations, _ = env.reset(seed=index, options={"task": index})
                    texts = list(observations.values())
                    while env.agents:
                        replies = {a: env.scripted(kind, a, rng) for a in env.agents}
                        observations, *_ = env.step(replies)
                        texts += [*replies.values(), *observations.values()]
                    for text in texts:
                        assert set(pieces(text)) <= known
                        assert set(re.findall(r"\s", text)) <= {" ", "\n"}


@pytest.mark.parametrize("numbers", [(0, 0), (39, 200), (10_000, 3)])
def test_feedback_numbers_have_tokens(numbers):
    known = set(TldrMini.vocabulary())
    env = make(ID, num_turns=2)
    env.reset(seed=0)
    replies = dict(zip(env.possible_agents, ("a " * count for count in numbers), strict=True))
    observations, *_ = env.step(replies)
    assert set(pieces(observations["summary_0"])) <= known
    assert all(TldrMini.show(value) in known for value in (0.0, 0.03, 1.29, 1.3, 5.99, 123.4, 0, 41))


def test_prompts_are_terse():
    env = make(ID)
    observations, _ = env.reset(seed=0, options={"task": 0})
    post = env.tasks[0].public["post"]
    for text in observations.values():
        assert post in text
        assert len(text.split()) - len(post.split()) <= 12


def test_scripted_replies_are_small():
    rng = np.random.default_rng(1)
    env = make(ID)
    for index in range(200):
        env.reset(seed=0, options={"task": index})
        for agent in env.agents:
            assert len(env.scripted("novice", agent, rng).split()) <= 18
            assert len(env.scripted("oracle", agent, rng).split()) <= 28


@pytest.mark.parametrize(("formula", "high"), [("paper", 3.0), ("release", 2.98)])
@pytest.mark.parametrize("num_agents", [1, 2])
def test_oracle_and_novice(formula, high, num_agents):
    env = make(ID, formula=formula, num_agents=num_agents)
    tasks = [env.tasks[i] for i in range(0, len(env.tasks), 8)]
    oracle = play_scripted(env, "oracle", tasks)
    assert [r["score"] for r in oracle] == pytest.approx([high] * 512, abs=1e-9)
    assert all(r["success"] for r in oracle)
    novice = play_scripted(env, "novice", tasks)
    assert 0.7 <= np.mean([r["score"] for r in novice]) <= 1.3
    assert np.mean([r["success"] for r in novice]) <= 0.1


def test_sparse_pays_success_alone():
    env = make("writing/tldr-mini-sparse-v0")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    _, rewards, *_ = env.step({a: env.scripted("oracle", a, rng) for a in env.agents})
    assert set(rewards.values()) == {1.0}
