"""Echo and handshake: who is paid what, and how good the scripts are."""

import numpy as np
import pytest

from collm_envs import SettingError, make, play_scripted
from collm_envs.debug.letters import LETTERS


def started(id, **kwargs):
    env = make(id, **kwargs)
    observations, _ = env.reset(seed=4)
    return env, observations


def test_echo_pays_the_fraction_that_is_right():
    env, observations = started("debug/echo-v0", num_agents=4, reward="final")
    shown = [text[-1] for text in observations.values()]
    assert len(set(shown)) == 4
    replies = [shown[0], f" {shown[1]}\n", shown[2].lower(), shown[3] + "."]
    _, rewards, ended, _, infos = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    assert set(rewards.values()) == {0.5}  # space around a letter is forgiven, case and points are not
    assert all(ended.values())
    assert infos["agent_0"]["reward_parts"] == {"echoed": 0.5}


@pytest.mark.parametrize(
    ("pick", "score"), [((0, 1, 2), 1), ((2, 0, 1), 1), ((0, 0, 1), 0), ((0, 1, None), 0), ((0, 1), 0)]
)
def test_handshake_pays_only_the_whole_set(pick, score):
    env, observations = started("debug/handshake-v0", num_agents=3)
    assert len(set(observations.values())) == 1
    letters = observations["agent_0"].split(": ")[1].split()
    wrong = next(letter for letter in LETTERS if letter not in letters)
    replies = [letters[i] if i is not None else wrong for i in pick] + [""] * (3 - len(pick))
    _, _, _, _, infos = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    assert infos["agent_0"]["score"] == score
    assert infos["agent_0"]["success"] is bool(score)


def test_feedback_and_horizon():
    for feedback, expected in (("score", "Score 0.50. Try again."), ("plain", "Try again.")):
        env, observations = started("debug/echo-v0", num_turns=2, feedback=feedback)
        later, *_ = env.step({"agent_0": observations["agent_0"][-1], "agent_1": "?"})
        assert later == {"agent_0": expected, "agent_1": expected}


def test_the_novice_errs_as_often_as_said():
    env = make("debug/echo-v0")
    scores = [r["score"] for r in play_scripted(env, "novice", env.tasks[:192], seed=0)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.08)  # 2 x 192 draws: 0.026 standard error
    env = make("debug/handshake-v0")
    scores = [r["score"] for r in play_scripted(env, "novice", env.tasks[:192], seed=0)]
    assert np.mean(scores) == pytest.approx(0.7**2 / 2, abs=0.09)  # both take one, and not the same


@pytest.mark.parametrize("id", ["debug/echo-v0", "debug/handshake-v0"])
@pytest.mark.parametrize("count", range(1, 9))
def test_the_oracle_solves_every_team_size_on_held_out_tasks(id, count):
    env = make(id, num_agents=count, split="test")
    assert all(r["score"] == 1 and r["success"] for r in play_scripted(env, "oracle", env.tasks[:8]))


def test_splits_share_no_task():
    words = {
        split: {t.public["letters"] for t in make("debug/echo-v0", split=split).tasks}
        for split in ("train", "test")
    }
    assert len(words["train"]) == 3 * len(words["test"]) > 100
    assert not words["train"] & words["test"]
    assert all(len(set(word)) == 8 for word in words["train"])
    with pytest.raises(SettingError):
        len(make("debug/echo-v0", split="dev").tasks)
