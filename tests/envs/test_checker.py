"""`check_env` finds each broken promise, says where to mend it, and passes what is sound."""

import inspect
import os
import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from toy_envs import Sum, SumState

from collm_envs import CollabEnv, InputError, Score, UnknownEnvError, check_env
from collm_envs.checker import CheckError
from collm_envs.spaces import UnicodeText


def failed(report):
    return {finding.check for finding in report.findings if not finding.ok}


@pytest.mark.parametrize("what", [Sum, "toy_envs:Sum", "debug/handshake-v0", lambda: Sum(num_turns=2)])
def test_a_sound_environment_passes_as_class_id_or_instance(what):
    report = check_env(what() if callable(what) and not isinstance(what, type) else what)
    assert report.ok, str(report)
    assert report.raise_if_failed() is report
    assert len({finding.check for finding in report.findings}) == 16
    assert "all 16 hold" in str(report)


def test_settings_are_kept_and_an_instance_takes_none():
    assert check_env(Sum, num_turns=1, reward="outcome", num_agents=3).ok
    with pytest.raises(InputError, match="for ids and classes"):
        check_env(Sum(), num_turns=1)


def test_what_is_no_environment_is_an_error_not_a_report():
    with pytest.raises(UnknownEnvError, match="did you mean 'debug/echo-v0'"):
        check_env("debug/eco-v0")
    with pytest.raises(InputError, match="not 3"):
        check_env(3)
    with pytest.raises(InputError, match="num_turns"):
        check_env(Sum, num_turns=0)


class NoScripts(Sum):
    __doc__ = Sum.__doc__
    novice = CollabEnv.novice
    oracle = CollabEnv.oracle


def test_an_env_without_scripts_gets_a_note():
    report = check_env(NoScripts)
    assert report.ok, str(report)
    (note,) = (f for f in report.findings if f.check == "scripted agents")
    assert "no novice and no oracle" in note.message


# -- one broken promise each -----------------------------------------------------------------------


class NewSpaces(Sum):
    def action_space(self, agent):
        return UnicodeText(10)


class NarrowSpace(Sum):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_spaces = {agent: UnicodeText(20) for agent in self.possible_agents}


class StrictReset(Sum):
    def reset(self, seed=None, options=None):
        if set(options or ()) - {"task"}:
            raise ValueError("unknown option")
        return super().reset(seed, options)


class LaterChance(Sum):
    """The first turn is seeded, the second is not: what a test of the first step cannot see."""

    def prompt(self, state, agent):
        return super().prompt(state, agent) if state.turn < 2 else str(random.random())


class SeedsTheWorld(Sum):
    def begin(self, task, rng):
        random.seed(3)
        return super().begin(task, rng)


@dataclass(frozen=True)
class ListState(SumState):
    seen: list = field(default_factory=list)


class ChangesState(Sum):
    def begin(self, task, rng):
        return ListState(task.public["target"], 0)

    def advance(self, state, actions):
        state.seen.append(tuple(actions.values()))
        return replace(state, turn=state.turn + 1), super().advance(state, actions)[1]

    def prompt(self, state, agent):
        return f"{len(state.seen)} turns so far, make {state.target}"


class ChangesStateInSettle(ChangesState):
    def advance(self, state, actions):
        state, outcome = Sum.advance(self, state, actions)
        return replace(state, seen=list(state.seen)), outcome

    def settle(self, state, outcome, score):
        state.seen.append(score.total)
        return state


class KeepsOnSelf(Sum):
    def advance(self, state, actions):
        self.said = dict(actions)
        return super().advance(state, actions)


class SharedLog(Sum):
    """Clones share a list that decides what is shown."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.log = []

    def reset(self, seed=None, options=None):
        self.log.clear()
        return super().reset(seed, options)

    def submit(self, actions):
        self.log.append(1)
        return super().submit(actions)

    def prompt(self, state, agent):
        return super().prompt(state, agent) + "!" * len(self.log)


class NoPickle(Sum):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.measure = lambda text: len(text)


class WrongParts(Sum):
    def judge(self, outcome):
        score = super().judge(outcome)
        return Score(score.total, {**score.parts, "digits": score.parts["digits"] / 2}, score.success)


class MissingParts(Sum):
    def judge(self, outcome):
        score = super().judge(outcome)
        return Score(score.total, {"all": score.total}, score.success)


class ChokesOnNul(Sum):
    def advance(self, state, actions):
        if any("\x00" in reply for reply in actions.values()):
            raise ValueError("embedded null byte")
        return super().advance(state, actions)


class ChokesOnLength(Sum):
    def advance(self, state, actions):
        assert all(len(reply) < 10_000 for reply in actions.values())
        return super().advance(state, actions)


class ForgetsHistory(Sum):
    def state(self):
        return super().state()[-200:]


class RawHistory(Sum):
    def state(self):
        return self._history.replace("\n @", "\n@")


class Leaks(Sum):
    def prompt(self, state, agent):
        text = super().prompt(state, agent)
        return text + (self.task.hidden["recipe"] if state.turn else "")


class GoesOn(Sum):
    def resolve(self, judged):
        observations, rewards, ended, cut, infos = super().resolve(judged)
        if self.turn == self.num_turns:
            ended = dict.fromkeys(ended, False)
        return observations, rewards, ended, cut, infos


class BothEnds(Sum):
    def resolve(self, judged):
        observations, rewards, ended, _, infos = super().resolve(judged)
        return observations, rewards, ended, ended, infos


class WeakOracle(Sum):
    def oracle(self, state, agent, rng):
        return str(state.target - 1) if agent == "adder_0" else "0"


class StrongNovice(Sum):
    novice = Sum.oracle


class OracleForTwo(Sum):
    def oracle(self, state, agent, rng):
        low, high = state.target // 2, -(-state.target // 2)
        return str({"adder_0": low, "adder_1": high}.get(agent, 1))


class OwnPay(Sum):
    def resolve(self, judged):
        observations, rewards, *rest = super().resolve(judged)
        return observations, {agent: reward + 1 for agent, reward in rewards.items()}, *rest


class UnequalPay(Sum):
    def resolve(self, judged):
        observations, rewards, *rest = super().resolve(judged)
        return observations, {**rewards, "adder_0": -1.5}, *rest


@pytest.mark.parametrize(
    ("env_class", "check", "place"),
    [
        (NewSpaces, "agents and spaces", "NewSpaces.action_space()"),
        (NarrowSpace, "agents and spaces", "NarrowSpace.prompt()"),
        (StrictReset, "reset options", "StrictReset.reset()"),
        (LaterChance, "determinism", "LaterChance.begin()"),
        (SeedsTheWorld, "determinism", "SeedsTheWorld.begin()"),
        (ChangesState, "pure hooks", "ChangesState.advance()"),
        (ChangesStateInSettle, "pure hooks", "ChangesStateInSettle.settle()"),
        (KeepsOnSelf, "pure hooks", "KeepsOnSelf.advance()"),
        (LaterChance, "pure hooks", "LaterChance.prompt()"),
        (SharedLog, "clone", "SharedLog.clone()"),
        (NoPickle, "pickling", "NoPickle"),
        (WrongParts, "scores", "WrongParts.judge()"),
        (MissingParts, "scores", "MissingParts.judge()"),
        (UnequalPay, "scores", "UnequalPay.step()"),
        (ChokesOnNul, "hostile replies", "ChokesOnNul"),
        (ChokesOnLength, "hostile replies", "ChokesOnLength"),
        (ForgetsHistory, "joint history", "ForgetsHistory.state()"),
        (RawHistory, "joint history", "RawHistory.state()"),
        (Leaks, "hidden fields", "Leaks.prompt()"),
        (GoesOn, "endings", "GoesOn.step()"),
        (BothEnds, "endings", "BothEnds.step()"),
        (WeakOracle, "scripted agents", "WeakOracle.oracle()"),
        (StrongNovice, "scripted agents", "StrongNovice.novice()"),
        (OwnPay, "reward schedules", "OwnPay.step()"),
        (OracleForTwo, "turns and team sizes", "OracleForTwo.oracle()"),
        (GoesOn, "docstring", "GoesOn.__doc__"),
    ],
)
def test_each_broken_promise_is_found_and_placed(env_class, check, place):
    report = check_env(env_class)
    assert check in failed(report), str(report)
    assert any(place in f.remedy for f in report.findings if f.check == check and not f.ok), str(report)
    with pytest.raises(CheckError, match=check):
        report.raise_if_failed()


def test_a_failure_found_before_a_note_is_kept():
    class OnlyABadOracle(WeakOracle):
        novice = CollabEnv.novice

    messages = [(f.ok, f.message) for f in check_env(OnlyABadOracle).findings if f.check == "scripted agents"]
    assert [ok for ok, _ in messages] == [False, True]


def test_a_check_that_crashes_is_a_finding_and_the_rest_still_run():
    class NoStart(Sum):
        def begin(self, task, rng):
            raise LookupError("no board")

    report = check_env(NoStart)
    assert any("begin() raised LookupError: no board" in finding.message for finding in report.findings)
    assert len({finding.check for finding in report.findings}) == 16


def test_it_does_not_touch_the_global_generators():
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    check_env(Sum)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002


class NoTests(Sum):
    def builtin_rows(self, split):
        return super().builtin_rows(split) if split == "train" else []


class SplitBySplit(Sum):
    def builtin_rows(self, split):
        rows = super().builtin_rows(split)
        return rows[:4] if split == "train" else rows[3:]


class NoRoles(Sum):
    def roles(self, num_agents):
        return ("adder", "adder_1")


class Breaks(Sum):
    def advance(self, state, actions):
        return super().advance(state, {name: str(int(text)) for name, text in actions.items()})


def of(report, check):
    return next(finding for finding in report.findings if finding.check == check)


def line(cls, text):
    """Where a text stands in this file's class, as a report names it."""
    source, start = inspect.getsourcelines(cls)
    number = next(i for i, own in enumerate(source, start) if text in own)
    return f"{os.path.relpath(__file__)}:{number}"


def test_splits_that_cannot_be_read_fail_and_shared_tasks_are_said():
    found = of(check_env(NoTests), "splits")
    assert (found.ok, found.where) == (False, line(NoTests, "def builtin_rows"))
    assert "'test' cannot be read: builtin:test: no rows" in found.message
    found = of(check_env(SplitBySplit), "splits")
    assert found.ok
    assert "1 tasks of 'test' are in 'train' too, such as 'builtin:train#3'" in found.message
    assert "source and split are given" in of(check_env(Sum, split="train"), "splits").message


def test_an_environment_that_cannot_be_built_is_a_finding_unless_a_setting_is_wrong():
    report = check_env(NoRoles)
    assert [finding.check for finding in report.findings] == ["construction"]
    assert "agent name 'adder' is not a role with an index" in report.findings[0].message
    with pytest.raises(InputError, match="agent name"):
        check_env(NoRoles, num_turns=2)


def test_a_finding_names_file_and_line():
    report = check_env(Breaks)
    raised = line(Breaks, "int(text)")
    assert {f.where for f in report.findings if f.check == "hostile replies" and not f.ok} == {raised}
    assert of(check_env(WeakOracle), "scripted agents").where == line(WeakOracle, "def oracle")
    assert of(check_env(GoesOn), "docstring").where == line(GoesOn, "class GoesOn")
    assert all(f.where and f.remedy for f in report.findings if not f.ok)


def test_the_table_wraps_and_puts_failures_first():
    report = check_env(Breaks)
    lines = report.table(100).splitlines()
    assert all(len(own) <= 100 for own in lines)
    assert lines[0].split() == ["check", "what", "is", "seen", "where", "how", "to", "mend", "it"]
    states = [own.split()[0] for own in lines[2:] if own[:4].strip()]
    assert states == sorted(states, key=lambda state: state != "FAIL")
    assert len(states) == len(report.findings)
