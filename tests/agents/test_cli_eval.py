"""`collm eval ENV --protocol ...`: what is played, and what is refused."""

import json

import pytest

from collm_agents.cli import main
from collm_agents.eval_commands import PROTOCOL_NAMES
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

ECHO = ["eval", "debug/echo-v0"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def report(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("protocol", PROTOCOL_NAMES)
def test_untrained_models_are_evaluated_in_every_protocol(capsys, protocol, tmp_path):
    found = report(capsys, *ECHO, "--protocol", protocol, "model=builtin", "tasks=5", "track.samples=2")
    assert {stats["n"] for stats in found["metrics"].values()} == {5}
    agents = {f"agent_{i}" for i in range(2) if any(f"@agent_{i} " in s["text"] for s in found["samples"])}
    assert agents == ({"agent_0"} if protocol == "single" else {"agent_0", "agent_1"})
    assert ("drafted_tokens" in found["metrics"]) is (protocol in ("pipeline", "discussion"))
    assert not list(tmp_path.iterdir())


def test_the_table_is_readable(capsys):
    assert main([*ECHO, "--protocol", "discussion", "tasks=2"]) == 0
    out = capsys.readouterr().out
    assert "drafted tokens" in out
    assert "95 % interval" in out


def test_words_of_eval_are_read_as_for_a_run_with_or_without_their_section(capsys):
    plain = report(
        capsys, *ECHO, "--protocol", "parallel", "tasks=3", "seed=7", "split=train[:9]", "samples=2"
    )
    named = report(
        capsys,
        *ECHO,
        "--protocol",
        "parallel",
        *("eval.tasks=3", "eval.seed=7", "eval.split=train[:9]", "eval.samples=2"),
    )
    assert plain == named
    assert {stats["n"] for stats in plain["metrics"].values()} == {3}
    words = ("tasks=3", "split=train[:9]", "samples=2")
    assert report(capsys, *ECHO, "--protocol", "parallel", *words, "--seed", "7") == plain
    assert report(capsys, *ECHO, "--protocol", "parallel", *words, "seed=8") != plain
    train = Experiment(load_config("debug/echo-v0")).env.tasks
    assert plain["samples"][0]["task_id"] == train[0].id


def test_settings_of_the_environment_and_the_team_are_read(capsys):
    words = ("num_turns=2", "num_agents=3", "team.agents.agent_1.script=oracle", "tasks=3")
    found = report(capsys, *ECHO, "--protocol", "pipeline", *words)
    # The oracle is always right, and one of three is worth a third.
    assert found["metrics"]["score"]["low"] >= 1 / 3 - 1e-9
    assert "@agent_2 turn 1" in found["samples"][0]["text"]


def test_a_preset_alone_evaluates_its_models(capsys, tmp_path):
    (tmp_path / "mine.toml").write_text('[team]\nmodel = "builtin"\n[eval]\nfinal_tasks = 2\n')
    found = report(capsys, *ECHO, "--preset", "mine.toml")
    assert found["metrics"]["score"]["n"] == 2
    assert "reply_tokens" in found["metrics"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ECHO, "--protocol", "talk"], "invalid choice: 'talk'"),
        ([*ECHO, "--protocol", "parallel", "--agents", "oracle"], "--agents is for scripted agents"),
        ([*ECHO, "--protocol", "parallel", "--episodes", "3"], "--episodes is for scripted agents"),
        ([*ECHO, "--protocol", "parallel", "--gif", "x.gif"], "--gif is for scripted agents"),
        ([*ECHO, "--protocol", "parallel", "--checkpoint", "3"], "--checkpoint is for a run"),
        ([*ECHO, "--protocol", "single", "num_agents=2"], "leave num_agents out"),
        ([*ECHO, "--protocol", "single", "env.num_agents=2"], "leave num_agents out"),
        ([*ECHO, "--protocol", "single", "team.agents.agent_1.script=oracle"], "no such agent"),
        ([*ECHO, "--protocol", "single", "team.agents.agent_0.script=oracle"], "every agent is scripted"),
        ([*ECHO, "--protocol", "pipeline", "num_turn=2"], "did you mean 'num_turns'"),
        ([*ECHO, "--protocol", "pipeline", "tasks=many"], "must be a whole number"),
        ([*ECHO, "model=builtin"], "--protocol parallel"),
        (["eval", "debug/eco-v0", "--protocol", "single"], "no run in debug/eco-v0"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(capsys, words, message):
    assert main(words) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert found.err.count("\n") == 1
    assert not found.out


def test_a_runs_own_team_is_evaluated_in_a_protocol_but_not_alone_nor_with_scripts(capsys, tmp_path):
    words = ("joint_samples=8", "rollout.buffer=8", "eval.final_tasks=2", "eval.tasks=2", "track.live=false")
    words = ["algorithm=mc", "track.tensorboard=false", *words]
    Experiment(load_config("debug/echo-v0", overrides=[*words, f"out={tmp_path / 'run'}"])).run()
    capsys.readouterr()
    found = report(capsys, "eval", "run", "--protocol", "discussion", "tasks=3")
    assert found["metrics"]["drafted_tokens"]["n"] == 3
    for words, message in (
        (["--protocol", "single"], "a run's team is the one that was trained"),
        (["--protocol", "parallel", "--agents", "oracle"], "--protocol is for the trained agents"),
        (["--checkpoint", "8", "--agents", "oracle"], "--checkpoint is for the trained agents"),
        (["--preset", "paper/writing-mc"], "a run has its own settings"),
        (["--seed", "1"], "--seed is for an environment"),
        (["samples=2", "model=builtin"], "sets nothing of [eval]"),
    ):
        assert main(["eval", "run", *words]) == 2
        assert message in capsys.readouterr().err
