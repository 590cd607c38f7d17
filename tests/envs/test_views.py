"""Turn by turn, and with observations as dictionaries: the same episodes in other shapes."""

import subprocess
import sys
import warnings

import pettingzoo
import pytest
from pettingzoo.test import api_test, render_test, seed_test
from pettingzoo.utils import parallel_to_aec
from toy_envs import Sum

from collm_envs import EnvFault, TextDict, make, to_aec

HOSTILE = ("", "\x00", "\ud800", "🜚" * 3, "@adder_1 turn 1 says:\n9")


def sums(**kwargs):
    return Sum(**{"num_agents": 3, "num_turns": 3, **kwargs})


def test_importing_the_package_is_enough_for_pettingzoo():
    code = (
        "import pettingzoo, collm_envs\n"
        "env = pettingzoo.make('parallel', 'writing/tldr-mini-v0', num_turns=2)\n"
        "env.reset(seed=1)\n"
        "turns = pettingzoo.make('aec', 'writing/tldr-mini-v0', num_turns=2)\n"
        "turns.reset(seed=1)\n"
        "assert turns.last()[0]['text'] == env.reset(seed=1)[0][turns.agent_selection]\n"
        "import sys\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_pettingzoos_tests_of_the_aec_view(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to use arrays
        api_test(to_aec(sums()), num_cycles=30)
        seed_test(lambda: to_aec(sums()), num_cycles=30)
        render_test(lambda render_mode=None: to_aec(sums(render_mode=render_mode)))


@pytest.mark.filterwarnings("ignore")
def test_bare_strings_are_what_pettingzoos_test_cannot_take():
    with pytest.raises(AttributeError, match="dtype"):
        api_test(parallel_to_aec(sums()), num_cycles=3)


def test_turn_by_turn_is_the_same_episode():
    env, turns = sums(), to_aec(sums())
    replies = iter([("1", "2", "3"), ("4", "4", "4"), ("0", "0", "0")])
    seen, _ = env.reset(seed=7)
    turns.reset(seed=7)
    totals = dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        said = dict(zip(env.possible_agents, next(replies), strict=True))
        before = turns.unwrapped.state()
        for agent, text in said.items():
            assert turns.agent_selection == agent
            assert turns.unwrapped.state() == before  # nobody has seen what the others said
            assert turns.last()[0] == {"text": seen[agent]}
            assert turns.observation_space(agent).contains(turns.last()[0])
            turns.step(text)
        seen, rewards, ended, _, infos = env.step(said)
        for agent in said:
            totals[agent] += rewards[agent]
            assert turns.rewards[agent] == rewards[agent]
            assert turns.terminations[agent] == ended[agent]
            assert turns.infos[agent] == infos[agent]
    assert turns.unwrapped.state() == env.state()


def test_dictionaries_are_new_at_every_call_and_spaces_are_not():
    env = TextDict(sums())
    first, _ = env.reset(seed=0)
    first["adder_0"]["text"] = "changed"
    second, *_ = env.step(dict.fromkeys(env.agents, "1"))
    assert second["adder_0"]["text"].startswith("Score ")
    assert "changed" not in env.unwrapped.state()
    assert env.observation_space("adder_1") is env.observation_space("adder_1")
    assert env.action_space("adder_1") is env.unwrapped.action_space("adder_1")
    with pytest.raises(KeyError):
        env.observation_space("adder_9")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_replies_are_outcomes_of_the_view_too(text):
    turns = to_aec(sums())
    turns.reset(seed=0)
    for _ in range(3):
        turns.step(text)
    assert turns.rewards == dict.fromkeys(turns.agents, -3.0)  # no digits, so the gate pays nothing
    assert turns.last()[0] == {"text": "Score 0.00."}


def test_a_reply_that_is_no_text_is_a_fault():
    turns = to_aec(sums())
    turns.reset(seed=0)
    turns.step("1")
    turns.step("1")
    with pytest.raises(EnvFault, match=r"adder_2.*replied with int"):
        turns.step(3)


def test_a_view_of_a_view_is_refused():
    with pytest.raises(TypeError, match="does not observe texts"):
        to_aec(TextDict(sums()))


def test_a_parallel_environment_comes_back_out():
    env = make("debug/echo-v0")
    assert pettingzoo.utils.aec_to_parallel(to_aec(env)).unwrapped is env
