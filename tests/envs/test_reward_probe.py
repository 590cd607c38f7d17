"""Degenerate agents: each is caught by a reward that can be had without work, and by that one only."""

import itertools
import json
import os

import numpy as np
import pytest
from toy_envs import Sum

from collm_agents.cli import main
from collm_envs import CollabEnv, InputError, RowFormat, component, probe_rewards
from collm_envs.reward_probe import AGENTS

WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron", "inlet", "koala", "lemon"]


@component("solved", low=0, high=1)
def solved(outcome):
    """1 when the agents say the task's two words, one each, in order."""
    wanted, said = outcome
    return float(wanted == said)


class Sound(CollabEnv):
    """The words are shown in the middle of a prompt, the second agent says the second."""

    row_formats = (RowFormat({"words": str}, lambda row: (dict(row), {})),)

    def roles(self, num_agents):
        return "one_0", "two_1"

    def components(self):
        return (solved,)

    def builtin_rows(self, split):
        return [{"words": f"{a} {b}"} for a, b in itertools.pairwise(WORDS)]

    def begin(self, task, rng):
        return tuple(task.public["words"].split())

    def prompt(self, state, agent):
        return f"Say {' '.join(state)} in turn"

    def advance(self, state, actions):
        return state, (state, tuple(actions[agent] for agent in self.possible_agents))

    def novice(self, state, agent, rng):
        return str(rng.choice(state))

    def oracle(self, state, agent, rng):
        return state[self.possible_agents.index(agent)]


def paying(pay):
    """The sound task with one more component, paid for what was said alone."""

    @component("cheap", low=0, high=3)
    def cheap(outcome):
        return 3.0 * pay(*outcome[1])

    class Paying(Sound):
        def components(self):
            return solved, cheap

    return Paying


def warned(env_class, **settings):
    return {one.name for one in probe_rewards(env_class, **settings).warnings}


def test_a_sound_reward_is_not_warned_of():
    report = probe_rewards(Sound)
    assert report.ok
    assert not report.warnings
    assert [one.name for one in report.played] == ["novice", *AGENTS]
    assert (report.reference, report.tasks, report.high) == ("novice", 10, 1)
    by_name = {one.name: one for one in report.played}
    assert by_name["copies the partner"].score == 0
    assert {one.status for one in report.played[1:]} <= {"ok", "even"}
    assert by_name["empty"].score == by_name["another task's oracle"].score == 0
    novice, empty = by_name["novice"], by_name["empty"]
    assert empty.over == pytest.approx(empty.paid - novice.paid)
    assert empty.paid == pytest.approx(empty.score - report.high)


@pytest.mark.parametrize(
    ("pay", "names"),
    [
        (lambda a, b: not a and not b, {"empty"}),
        (lambda a, b: a.startswith("Say ") and len(a) < 40, {"copies the prompt"}),
        (lambda a, b: a == b and a in WORDS, {"copies the partner"}),
        (lambda a, b: len(a) == len(b) > 15_000, {"longest"}),
        (lambda a, b: len(a.split()) == 12 and len(set(a.split())) == 1, {"one token"}),
        (lambda a, b: a != b and {a, b} <= set(WORDS), {"another task's oracle"}),
    ],
)
def test_each_degenerate_agent_finds_the_reward_made_for_it(pay, names):
    report = probe_rewards(paying(pay))
    assert {one.name for one in report.warnings} == names
    (one,) = report.warnings
    assert one.parts["cheap"] > 0
    assert one.where.startswith(f"{os.path.relpath(__file__)}:")
    assert "cheap +" in str(report)
    assert "1 degenerate agents beat the novice" in str(report)


def test_pay_is_what_training_raises_not_the_score():
    cheap = paying(lambda a, b: not a and not b)
    assert warned(cheap) == {"empty"}
    assert warned(cheap, reward="outcome") == set()  # it never solves the task, which alone is paid


def test_what_earns_as_much_as_the_novice_is_even_and_no_warning():
    class Flat(paying(lambda a, b: True)):
        def components(self):
            return super().components()[1:]

    report = probe_rewards(Flat)
    assert {one.status for one in report.played[1:]} == {"even"}
    assert not report.warnings


def test_without_scripts_random_words_are_the_reference():
    class Bare(Sound):
        novice = CollabEnv.novice
        oracle = CollabEnv.oracle

    report = probe_rewards(Bare)
    assert report.reference == "random"
    assert "another task's oracle" not in {one.name for one in report.played}
    assert len(report.notes) == 2
    assert "note: there is no novice" in str(report)


def test_an_agent_that_breaks_the_scorer_is_a_failure_with_its_place():
    class Breaks(Sound):
        def advance(self, state, actions):
            return super().advance(
                state, {name: text[:9] + "" * (1 // len(text)) for name, text in actions.items()}
            )

    report = probe_rewards(Breaks)
    assert not report.ok
    (broken,) = (one for one in report.played if one.fault)
    assert broken.name == "empty"
    assert "ZeroDivisionError" in broken.fault
    assert broken.where.startswith(os.path.relpath(__file__))
    told = {one["name"]: one for one in report.to_json()["agents"]}
    assert told["empty"]["score"] is None


def test_several_turns_are_played_and_nothing_is_left_to_chance():
    report = probe_rewards(Sum, num_turns=3)
    assert report == probe_rewards(Sum, num_turns=3)
    assert all(np.isfinite(one.paid) for one in report.played)
    assert json.loads(json.dumps(report.to_json()))["tasks"] == 6


def test_what_cannot_be_built_or_is_no_number_is_an_error():
    class NoRoles(Sound):
        def roles(self, num_agents):
            return ("one", "two")

    with pytest.raises(InputError, match="not a role with an index"):
        probe_rewards(NoRoles)
    with pytest.raises(InputError, match="tasks must be"):
        probe_rewards(Sound, tasks=0)


def test_the_command_warns_in_a_table_and_a_warning_is_no_failure(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["check", "debug/echo-v0", "--probe-rewards"]) == 0
    told = capsys.readouterr().out
    assert "debug/echo-v0: all 16 hold" in told
    assert "rewards: 1 degenerate agents beat the novice (24 tasks, score at most 1)" in told
    assert "collm_envs/debug/letters.py:" in told
    assert main(["check", "debug/handshake-v0", "num_turns=2", "--probe-rewards", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["probe"]["reference"] == "novice"
    assert len(told["findings"]) == 16
    assert main(["check", "debug/handshake-v0", "--json"]) == 0
    assert "probe" not in json.loads(capsys.readouterr().out)
