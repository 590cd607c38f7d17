"""Scripted agents: whole episodes of them, seeded, mixed and counted."""

import numpy as np
import pytest
from toy_envs import Sum

from collm_envs import CollabEnv, EnvFault, SettingError, Task, play_scripted
from collm_envs.scripted import parse_kinds, random_reply


def test_random_replies_are_words_of_the_observation():
    rng = np.random.default_rng(0)
    replies = [random_reply("alpha beta\ngamma", rng) for _ in range(60)]
    assert {word for reply in replies for word in reply.split()} == {"alpha", "beta", "gamma"}
    assert {len(reply.split()) for reply in replies} == set(range(13))
    assert set(random_reply("", rng).split()) <= {"word"}


def test_records_of_an_oracle_episode():
    env = Sum(num_turns=3)
    record = play_scripted(env, "oracle", [env.tasks[2]])
    assert record == [
        {
            "task_id": "builtin:train#2",
            "score": 3.0,
            "success": True,
            "turns": 1,
            "return": 0.0,
            "parts": {"digits": 1.0, "close": 2.0},
            "metrics": {},
        }
    ]


def test_return_sums_the_rewards_and_score_is_the_last():
    class Stubborn(Sum):
        def novice(self, state, agent, rng):
            return "1"  # two agents: 2 of 5, 0.4 missing -> 1 + 2 * 0.7 = 2.4 each turn

    record = play_scripted(Stubborn(num_turns=3), "novice", [Sum().tasks[0]])[0]
    assert record["score"] == pytest.approx(2.4)
    assert record["return"] == pytest.approx(3 * -0.6)
    assert (record["turns"], record["success"]) == (3, False)


def test_episodes_depend_on_seed_and_place_alone():
    env = Sum(num_turns=2)
    tasks = list(env.tasks)
    first = play_scripted(env, "novice", tasks, seed=1)
    assert first == play_scripted(Sum(num_turns=2), "novice", tasks, seed=1)
    assert first != play_scripted(env, "novice", tasks, seed=2)
    assert first[:2] == play_scripted(env, "novice", tasks[:2], seed=1)


def test_kinds_by_agent():
    env = Sum()
    team = {"adder_0": "oracle", "adder_1": "random"}
    scores = [r["score"] for r in play_scripted(env, team, list(env.tasks), seed=0)]
    assert max(scores) < 3.0  # random words are not digits


def test_unknown_kinds_and_missing_scripts():
    env = Sum()
    env.reset(seed=0)
    with pytest.raises(SettingError, match="unknown scripted agent 'orcale'; did you mean 'oracle'"):
        env.scripted("orcale", "adder_0", np.random.default_rng())

    class NoScripts(Sum):
        novice = CollabEnv.novice

    env = NoScripts()
    env.reset(options={"task": Task("t", {"target": 1})})
    with pytest.raises(EnvFault, match="has no novice agent"):
        env.scripted("novice", "adder_0", np.random.default_rng())


def test_who_plays_whom():
    agents, both = ("a_0", "b_1"), ("random", "novice", "oracle", "human")
    assert parse_kinds("oracle", agents) == {"a_0": "oracle", "b_1": "oracle"}
    assert parse_kinds("oracle, novice", agents) == {"a_0": "oracle", "b_1": "novice"}
    assert parse_kinds("b_1=human, a_0=novice", agents, both) == {"a_0": "novice", "b_1": "human"}
    for text, message in (
        ("a_0=novice", "nobody plays b_1"),
        ("oracle,oracle,oracle", "3 kinds for 2 agents"),
        ("human", "'human' is no kind of agent"),
        ("c_2=oracle", "there is no agent 'c_2'"),
    ):
        with pytest.raises(SettingError, match=message):
            parse_kinds(text, agents)


def test_a_watcher_sees_the_reset_and_every_turn():
    seen = []
    play_scripted(Sum(num_turns=3), "novice", [Sum().tasks[0]], watch=lambda env: seen.append(env.turn))
    assert seen[0] == 0
    assert seen == list(range(len(seen)))
    assert len(seen) > 1
