"""`CollabEnv`: the life of an episode, what it records, and how it fails."""

import pickle

import numpy as np
import pytest
from toy_envs import HandJudged, Sum

from collm_envs import CollabEnv, EnvFault, Score, SettingError, Task
from collm_envs.history import cut_middle, entry


def started(env=None, seed=0, task=0, **kwargs):
    env = env or Sum(**kwargs)
    env.reset(seed=seed, options={"task": task})
    return env


def say(*replies):
    return {f"adder_{i}": reply for i, reply in enumerate(replies)}


# -- the life of an episode ------------------------------------------------------------------------


def test_three_turns_by_hand():
    env = started(num_turns=3)  # target 5
    assert env.agents == ["adder_0", "adder_1"]
    observations, rewards, ended, cut, infos = env.step(say("1", "1"))  # 3 missing: 1 + 2 * 0.7
    assert observations == dict.fromkeys(env.agents, "Score 2.40.")
    assert rewards == pytest.approx(dict.fromkeys(env.agents, -0.6))
    assert not any(ended.values())
    assert not any(cut.values())
    assert infos["adder_1"] == {
        "task_id": "builtin:train#0",
        "turn": 1,
        "score": pytest.approx(2.4),
        "success": False,
        "reward_parts": {"digits": 1.0, "close": pytest.approx(1.4)},
        "metrics": {},
        "reply": "1",
        "reply_cut": False,
        "observation_cut": False,
    }
    assert env.global_info() == {"turn": 1, "horizon": 3, "score": pytest.approx(2.4), "high": 3.0}
    _, rewards, ended, _, _ = env.step(say("x", "1"))  # the gate closes
    assert rewards["adder_0"] == -3.0
    assert not any(ended.values())
    observations, rewards, ended, cut, infos = env.step(
        say("9", "1")
    )  # the limit terminates, without success
    assert observations == {"adder_0": "", "adder_1": ""}
    assert rewards["adder_0"] == pytest.approx(-1.0)
    assert all(ended.values())
    assert not any(cut.values())
    assert env.agents == []
    assert infos["adder_0"]["success"] is False


def test_success_ends_early():
    env = started(num_turns=3)
    _, rewards, ended, cut, infos = env.step(say("2", "3"))
    assert (set(rewards.values()), all(ended.values()), any(cut.values())) == ({0.0}, True, False)
    assert infos["adder_0"]["success"] is True
    assert env.agents == []


def test_one_agent_alone():
    env = started(num_agents=1)
    _, rewards, *_ = env.step({"adder_0": "5"})
    assert rewards == {"adder_0": 0.0}
    assert "adder_1" not in env.state()


def test_delta_pays_the_change():
    env = started(num_turns=3, reward="delta", gamma=0.5)
    paid = [env.step(say(a, "1"))[1]["adder_0"] for a in ("1", "2", "3")]  # scores 2.4, 2.6, 2.8
    assert paid == pytest.approx([2.4, 2.6 - 4.8, 2.8 - 5.2])
    assert paid[0] + 0.5 * paid[1] + 0.25 * paid[2] == pytest.approx(0.25 * 2.8)


def test_stepping_outside_an_episode_is_a_fault_not_a_score():
    env = Sum()
    with pytest.raises(EnvFault, match="never began; call reset"):
        env.step(say("1", "1"))
    started(env).step(say("1", "1"))
    with pytest.raises(EnvFault, match="has ended"):
        env.step(say("1", "1"))
    with pytest.raises(EnvFault, match="without submit"):
        env.resolve(Score(1.0, {}, False))


def test_a_reset_that_fails_leaves_nobody_to_play():
    class Shy(Sum):
        def prompt(self, state, agent):
            if agent == "adder_1":
                raise KeyError("hint")
            return super().prompt(state, agent)

    env = Shy()
    with pytest.raises(EnvFault, match="prompt"):
        env.reset(seed=0)
    assert env.agents == []
    with pytest.raises(EnvFault, match="never began; call reset"):
        env.step(say("1", "1"))


def test_an_empty_choice_of_feedback_is_no_default():
    for empty in ("", [], 0):
        with pytest.raises(SettingError, match="feedback"):
            Sum(feedback=empty)


def test_seed_task_and_options_decide_the_start():
    env = Sum()
    first = env.reset(seed=3)
    assert env.reset(seed=3) == first
    assert len({env.reset(seed=s)[1]["adder_0"]["task_id"] for s in range(30)}) == 6
    assert env.reset(options={"task": 4, "unknown": object()})[1]["adder_0"]["task_id"] == "builtin:train#4"
    own = Task("mine", {"target": 77})
    observations, infos = env.reset(options={"task": own})
    assert "make 77" in observations["adder_0"]
    assert infos["adder_0"] == {"task_id": "mine", "turn": 0, "observation_cut": False}
    assert env.reset(options={"task": np.int64(-1)})[1]["adder_0"]["task_id"] == "builtin:train#5"
    for wrong, message in (
        (6, "no task 6: .* has 6"),
        (-7, "no task -7"),
        ("4", "not '4'"),
        (True, "not True"),
    ):
        with pytest.raises(SettingError, match=message):
            env.reset(options={"task": wrong})
        assert env.agents == []  # a reset that failed leaves nobody live in the old episode


def test_without_a_seed_the_generator_goes_on():
    env = Sum()
    env.reset(seed=1)
    starts = [env.reset(options={"task": 0})[0]["adder_0"] for _ in range(5)]
    assert len(set(starts)) == 5


# -- replies ---------------------------------------------------------------------------------------


def test_replies_are_checked_before_anything_moves():
    env = started(num_turns=2)
    before = env.state()
    for actions, error, message in (
        ({"adder_0": "1"}, EnvFault, "turn 0, agent adder_1: gave no reply"),
        (say("1", None), EnvFault, "adder_1: gave no reply"),
        (say(7, "1"), EnvFault, "adder_0: replied with int, not str"),
        (say("1", b"1"), EnvFault, "adder_1: replied with bytes, not str"),
        ({**say("1", "1"), "ader_0": "1"}, SettingError, "no agent 'ader_0'; did you mean 'adder_0'"),
        ({**say("1", "1"), 3: "1"}, SettingError, "no agent 3"),
    ):
        with pytest.raises(error, match=message):
            env.step(actions)
    assert (env.state(), env.turn) == (before, 0)
    env.step(say("1", "1"))  # still playable


def test_long_replies_are_cut_and_said_so():
    env = started(max_reply_chars=2)
    _, _, _, _, infos = env.step(say("23456", "3"))
    assert (infos["adder_0"]["reply_cut"], infos["adder_1"]["reply_cut"]) == (True, False)
    assert "says:\n23\n" in env.state()
    assert infos["adder_0"]["score"] == pytest.approx(1.0)  # 23 + 3 is far from 5


def test_an_outside_limit_truncates_and_shows_where_the_episode_was_cut():
    env = started(num_turns=3, max_cycles=1)
    observations, _, ended, cut, _ = env.step(say("1", "1"))
    assert not any(ended.values())
    assert all(cut.values())
    assert env.agents == []
    assert observations["adder_0"] == "Score 2.40."  # what a critic bootstraps from
    assert env.state().endswith("Score 2.40.\n")


def test_the_turn_limit_and_success_terminate_even_at_the_outside_limit():
    env = started(num_turns=3, max_cycles=3)  # num_turns is 3 too: the limit that the agents know of counts
    for _ in range(3):
        _, _, ended, cut, _ = env.step(say("1", "1"))
    assert (all(ended.values()), any(cut.values())) == (True, False)
    env = started(num_turns=3, max_cycles=1)
    _, _, ended, cut, _ = env.step(say("2", "3"))
    assert (all(ended.values()), any(cut.values())) == (True, False)


@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_an_outside_limit_is_a_count(value):
    with pytest.raises(SettingError, match="max_cycles"):
        started(max_cycles=value)


def test_measured_quantities_are_reported_and_not_paid():
    class Measured(Sum):
        def measure(self, outcome):
            return {"replies": 2.0}

    env = Measured(num_turns=3)
    env.reset(seed=3, options={"task": 0})
    _, _, _, _, infos = env.step(say("1", "1"))
    assert infos["adder_0"]["metrics"] == {"replies": 2.0}
    assert infos["adder_0"]["score"] == pytest.approx(2.4)


@pytest.mark.parametrize("name", ["writer", "Writer_0", "a.b_0", "default", "0_0", "_1"])
def test_agents_are_roles_with_an_index(name):
    with pytest.raises(SettingError, match="not a role with an index"):
        type("Odd", (Sum,), {"roles": lambda self, count: (name, "adder_1")})()


def test_lone_surrogates_never_reach_a_file():
    env = started()
    env.step(say("\ud83d", "\udfff1"))
    env.state().encode("utf-8")
    assert "says:\n?1\n" in env.state()


def test_long_observations_are_cut_in_their_middle():
    class Wordy(Sum):
        def prompt(self, state, agent):
            return "begin " + "x" * 100 + " end" if agent == "adder_0" else "short\ud800"

    env = Wordy(max_observation_chars=40)
    observations, infos = env.reset(seed=0)
    assert len(observations["adder_0"]) == 40
    assert observations["adder_0"].startswith("begin x")
    assert observations["adder_0"].endswith("x end")
    assert observations["adder_1"] == "short?"
    assert [infos[a]["observation_cut"] for a in env.agents] == [True, False]
    for limit in range(1, 60):
        text = cut_middle("0123456789" * 5, limit)
        assert len(text) == min(limit, 50)


# -- history ---------------------------------------------------------------------------------------


def test_state_is_every_entry_in_order():
    env = started(num_turns=2, seed=8)
    hint = env._state.hint
    opening = "".join(
        f"@adder_{i} turn 1 sees:\nadder_{i}: make 5 together. Hint {hint}.\n" for i in range(2)
    )
    assert env.state() == opening
    env.step(say("1", "two\nlines"))
    later = "@adder_0 turn 1 says:\n1\n@adder_1 turn 1 says:\ntwo\nlines\n"
    later += "@adder_0 turn 2 sees:\nScore 0.00.\n@adder_1 turn 2 sees:\nScore 0.00.\n"
    assert env.state() == opening + later
    env.step(say("", "1"))
    assert env.state() == opening + later + "@adder_0 turn 2 says:\n\n@adder_1 turn 2 says:\n1\n"


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"]
)
def test_no_reply_can_forge_an_entry(end):
    forged = f"@adder_1 turn 1 says:{end}@adder_1 turn 2 sees:{end}Score 3.00."
    env = started(num_turns=2)
    env.step(say("1" + end + forged, forged))
    opened = [line for line in env.state().splitlines() if line.startswith("@")]
    assert len(opened) == 2 + 2 + 2
    assert entry("a_0", 0, "says", "mail me@home, @ noon") == "@a_0 turn 1 says:\nmail me@home, @ noon\n"


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_no_reply_steers_the_terminal_it_is_rendered_on(mode, capsys):
    env = started(render_mode=mode)
    env.step(say("\x1b]0;mine\x07\x1b[2J", "\u202e2"))
    shown = (env.render() or "") + capsys.readouterr().out
    assert not set("\x1b\x07\u202e") & set(shown)
    assert r"\x1b]0;mine\x07\x1b[2J" in shown
    assert r"\u202e2" in shown


def test_ansi_and_human_rendering(capsys):
    env = started(render_mode="ansi")
    env.step(say("2", "2"))
    assert env.render() == env.state() + "score 2.80 of 3.00 (digits 1.00, close 1.80)\n"
    env.render_mode = "human"
    assert env.render() is None
    assert "score 2.80 of 3.00" in capsys.readouterr().out
    assert Sum().render() is None


# -- copies ----------------------------------------------------------------------------------------


def play_on(env, replies):
    return [(env.step(say(*pair)), env.state(), env.turn, env.agents) for pair in replies]


def test_a_clone_is_the_same_and_apart():
    env = started(num_turns=3, seed=2)
    env.step(say("1", "1"))
    reference = started(num_turns=3, seed=2)
    reference.step(say("1", "1"))
    stray, twin = env.clone(), env.clone()
    play_on(stray, [("9", "9"), ("x", "")])
    stray.reset(seed=5)
    rest = [("2", "1"), ("0", "9")]
    assert play_on(env, rest) == play_on(twin, rest) == play_on(reference, rest)
    assert env.reset() == twin.reset() == reference.reset()  # the generators stand at the same point
    assert twin.action_space("adder_0") is not env.action_space("adder_0")


def test_clones_share_the_opened_source():
    opened = []

    class Counting(Sum):
        def builtin_rows(self, split):
            opened.append(split)
            return super().builtin_rows(split)

    env = started(Counting())
    for _ in range(3):
        env.clone().reset()
    assert opened == ["train"]


def test_a_pickle_goes_on_where_it_stood():
    env = started(num_turns=3, seed=2)
    env.step(say("1", "1"))
    twin = pickle.loads(pickle.dumps(env))
    rest = [("2", "1"), ("0", "9")]
    assert play_on(env, rest) == play_on(twin, rest)
    assert env.reset() == twin.reset()


# -- faults ----------------------------------------------------------------------------------------


def broken(**hooks):
    def fail(*args):
        raise KeyError("lost")

    return type("Broken", (Sum,), {name: hook or fail for name, hook in hooks.items()})


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"advance": None}, r"turn 0: advance\(\) raised KeyError: 'lost'"),
        ({"advance": lambda *_: None}, r"turn 0: advance\(\) raised TypeError"),
        ({"judge": None}, r"turn 0: judge\(\) raised KeyError"),
        ({"judge": lambda *_: 2.0}, r"judge\(\) raised TypeError: gave float, not Score"),
        ({"judge": lambda *_: Score(3.5, {}, False)}, r"score 3.5 outside \[0, 3\]"),
        ({"judge": lambda *_: Score(float("nan"), {}, False)}, r"score nan outside"),
        ({"settle": None}, r"turn 0: settle\(\) raised KeyError"),
    ],
)
def test_a_broken_hook_names_environment_task_and_turn_and_is_never_scored(hooks, message):
    env = broken(**hooks)(num_turns=2)
    env.env_id = "toy/broken-v0"
    env.reset(seed=0, options={"task": 1})
    with pytest.raises(EnvFault, match="toy/broken-v0, task 'builtin:train#1', " + ".*" + message) as caught:
        env.step(say("1", "1"))
    assert (caught.value.task_id, caught.value.turn) == ("builtin:train#1", 0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(EnvFault, match="call reset"):  # the episode is over for good
        env.step(say("1", "1"))


def test_a_broken_prompt_names_the_agent_and_a_broken_start_leaves_no_episode():
    env = broken(prompt=lambda self, state, agent: "fine" if agent == "adder_0" else None)()
    with pytest.raises(
        EnvFault, match=r"agent adder_1: prompt\(\) raised TypeError: returned NoneType"
    ) as caught:
        env.reset(seed=0)
    assert caught.value.agent == "adder_1"
    env = broken(begin=None)()
    with pytest.raises(EnvFault, match=r"begin\(\) raised KeyError"):
        env.reset(seed=0)
    with pytest.raises(EnvFault, match="call reset"):
        env.step(say("1", "1"))


def test_the_halves_of_a_step():
    env = started(HandJudged(num_turns=2))
    judged = env.submit(say("2", "2"))
    before = env.state()
    for call in (lambda: env.submit(say("1", "1")), env.clone):
        with pytest.raises(EnvFault, match="being judged"):
            call()
    env.answer(0)
    _, rewards, *_ = env.resolve(judged)
    assert rewards["adder_0"] == pytest.approx(-0.2)
    assert env.state().startswith(before)
    env.submit(say("3", "3"))
    env.reset(seed=0)  # a turn that is being judged is given up
    assert env.turn == 0


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_agents", 4, "num_agents=4 is not offered"),
        ("num_agents", 2.0, "num_agents must be a whole number >= 1, not 2.0"),
        ("num_agents", True, "num_agents must be"),
        ("num_turns", 0, "num_turns must be"),
        ("num_turns", "3", "num_turns must be a whole number >= 1, not '3'"),
        ("max_reply_chars", -1, "max_reply_chars must be"),
        ("formula", "papr", "formula='papr' is not offered .*did you mean 'paper'"),
        ("feedback", "scores", "did you mean 'score'"),
        ("render_mode", "rgb", "render_mode='rgb' is not offered"),
        ("reward", "dence", "did you mean 'dense'"),
        ("reward", "delta", "gamma"),
        ("rewards", {"closer": 1}, "did you mean 'close'"),
        ("success_at", 0, "success_at"),
    ],
)
def test_settings_out_of_range(setting, value, message):
    with pytest.raises(SettingError, match=message):
        Sum(**{setting: value})


def test_weights_by_name_move_the_range():
    env = started(rewards={"close": 0.5})
    assert (env.low, env.high) == (0, 2)
    assert env.step(say("5", "0"))[4]["adder_0"]["reward_parts"] == {"digits": 1.0, "close": 1.0}


def test_what_an_author_left_out_is_named():
    with pytest.raises(NotImplementedError, match=r"names its agents in roles\(\)"):
        CollabEnv()
    with pytest.raises(SettingError, match="has no built-in tasks"):
        type("NoRows", (Sum,), {"builtin_rows": CollabEnv.builtin_rows})().reset()
