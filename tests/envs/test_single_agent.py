"""One agent acts, the others are scripts, functions or frozen policies."""

import copy
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from toy_envs import Sum

from collm_envs import EnvFault, SettingError, SingleAgentEnv, make


def sums(**kwargs):
    return Sum(**{"num_agents": 3, "num_turns": 3, **kwargs})


def view(partners="novice", agent="adder_1", **kwargs):
    return SingleAgentEnv(sums(**kwargs), agent, partners)


def zero(history, rng):
    return "0"


@pytest.mark.parametrize(
    "partners", ["novice", "oracle", "random", zero, {"adder_0": zero, "adder_2": "novice"}]
)
def test_gymnasiums_own_test(partners, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Not able to test alternative render modes")  # no spec
        check_env(view(partners))
        check_env(view(partners, render_mode="ansi"))


def test_made_by_its_id_it_passes_without_a_warning(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make("debug/handshake-v0", agent="agent_1", partners="novice", num_turns=2)
        check_env(made.unwrapped)  # renders in every mode, too
        assert made.unwrapped.spec.id == "debug/handshake-v0"
        gymnasium.make("debug/handshake-v0", partners=zero)


def test_it_is_the_episode_that_the_agent_has_in_the_parallel_environment():
    env, one = sums(), view({"adder_0": lambda h, rng: "2", "adder_2": lambda h, rng: "3"})
    seen, infos = env.reset(seed=5)
    assert one.reset(seed=5) == (seen["adder_1"], infos["adder_1"])
    for text in ("900", "\ud800", ""):
        step = env.step({"adder_0": "2", "adder_1": text, "adder_2": "3"})
        assert one.step(text) == tuple(part["adder_1"] for part in step)
    assert one.env.state() == env.state()
    assert step[2]["adder_1"]


def test_a_partner_sees_its_own_history_and_nothing_else():
    heard = []

    def listener(history, rng):
        heard.append(history)
        return f"{len(history)}"

    one = view({"adder_0": listener, "adder_2": zero})
    one.reset(seed=1, options={"task": 0})
    for _ in range(3):
        one.step("secret")
    first, second, third = heard
    assert len(first) == 1
    assert first[0].startswith("adder_0: make 5 together")
    assert second[:2] == (*first, "1")
    assert third == (*second, "3", third[-1])
    assert "secret" not in "".join(third)
    one.reset(seed=1)
    one.step("x")
    assert len(heard[-1]) == 1  # an episode does not remember the last one


def noisy(history, rng):
    return str(rng.integers(10**9))


def replies(one, seed, turns=3):
    one.reset(seed=seed)
    for _ in range(turns):
        one.step("1")
    return one.env.state()


def test_a_seed_fixes_the_partners_and_resets_go_on():
    one, other = view(noisy), view(noisy)
    first = replies(one, 3)
    assert first == replies(other, 3)
    assert replies(one, None) == replies(other, None) != first
    assert replies(one, 4) != first
    assert replies(one, 3) == first
    lines = first.splitlines()
    said = [lines[i + 1] for i, line in enumerate(lines) if " says:" in line and "adder_1" not in line]
    assert len(set(said)) == 6  # each partner has draws of its own


def test_partners_do_not_touch_global_chance():
    np.random.seed(0)  # noqa: NPY002
    before = copy.deepcopy(np.random.get_state())  # noqa: NPY002
    replies(view("novice"), 0)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def broken(history, rng):
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("partner", "message"),
    [
        (broken, r"adder_2: this partner raised KeyError: 'lost'"),
        (
            lambda history, rng: None,
            "adder_2: this partner raised TypeError: it replied with NoneType, not str",
        ),
        (lambda history: "1", "adder_2: this partner raised TypeError"),
    ],
)
def test_a_partner_that_fails_ends_the_episode_and_is_named(partner, message):
    one = view({"adder_0": "novice", "adder_2": partner})
    one.reset(seed=0)
    with pytest.raises(EnvFault, match=message) as fault:
        one.step("1")
    assert fault.value.agent == "adder_2"
    assert fault.value.turn == 0
    assert fault.value.task_id == one.env.task.id
    with pytest.raises(EnvFault, match="call reset"):
        one.step("1")
    one.reset(seed=0)  # and the next one can begin


def test_an_interrupt_is_not_turned_into_a_fault():
    def stopped(history, rng):
        raise KeyboardInterrupt

    one = view(stopped)
    one.reset(seed=0)
    with pytest.raises(KeyboardInterrupt):
        one.step("1")


def test_no_step_before_a_reset_and_none_after_the_end():
    one = view(num_turns=1)
    with pytest.raises(EnvFault, match="call reset"):
        one.step("1")
    one.reset(seed=0)
    *_, ended, cut, _ = one.step("1")
    assert (ended, cut) == (True, False)
    with pytest.raises(EnvFault, match="call reset"):
        one.step("1")


def test_an_outside_limit_truncates():
    one = view(max_cycles=1)
    one.reset(seed=0)
    *_, ended, cut, _ = one.step("1")
    assert (ended, cut) == (False, True)


def test_a_reply_that_is_no_text_is_the_callers_fault():
    one = view()
    one.reset(seed=0)
    with pytest.raises(EnvFault, match=r"adder_1: replied with int"):
        one.step(1)


@pytest.mark.parametrize(
    ("agent", "partners", "message"),
    [
        ("adder_9", "novice", "has no agent 'adder_9'; did you mean"),
        (
            "adder_1",
            None,
            "nobody plays adder_0, adder_2: partners='random', 'novice', 'oracle', or a function",
        ),
        ("adder_1", "novise", "has no scripted agent 'novise'; did you mean 'novice'"),
        ("adder_1", {"adder_0": "novice"}, "nobody plays adder_2"),
        ("adder_1", {"adder_0": "novice", "adder_1": "novice"}, "adder_1 acts from outside"),
        (
            "adder_1",
            {"adder_0": "novice", "ader_2": "novice"},
            "has no agent 'ader_2'; did you mean 'adder_2'",
        ),
        ("adder_1", 3, "a function is wanted, not 3"),
        ("adder_1", {"adder_0": None, "adder_2": "novice"}, "a function is wanted, not None"),
    ],
)
def test_who_plays_must_be_clear(agent, partners, message):
    with pytest.raises(SettingError, match=message):
        SingleAgentEnv(sums(), agent, partners)


def test_a_view_of_something_else_is_refused():
    with pytest.raises(SettingError, match="takes a CollabEnv"):
        SingleAgentEnv("debug/echo-v0")


def test_one_agent_alone_needs_no_partners():
    one = SingleAgentEnv(make("debug/echo-v0", num_agents=1))
    text, _ = one.reset(seed=0)
    assert text
    assert one.partners == {}
    one.step("A")


def test_the_callers_mapping_is_copied():
    partners = {"adder_0": "oracle", "adder_2": "novice"}
    one = view(partners)
    partners["adder_0"] = "nonsense"
    assert one.partners["adder_0"] == "oracle"
