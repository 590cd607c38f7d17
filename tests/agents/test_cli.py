import json

import pytest

from collm_agents.cli import VERBS, main
from collm_envs import EnvFault

REPLIES = ["--reply", "agent_0=A", "--reply", "agent_1=B"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown verb 'trian'; did you mean 'train'"),
        (["envs", "nothing/"], "unknown environment 'nothing/'"),
        (["envs", "a", "b"], "unrecognized arguments: b (see collm envs --help)"),
        (["play"], "name an environment"),
        (["play", "debug/echo-v0", "debug/handshake-v0"], "one environment is wanted"),
        (["play", "debug/echo-v0", "num_turn=2"], "has no setting 'num_turn'; did you mean 'num_turns'"),
        (["play", "debug/echo-v0", "num_turns=two"], "env.num_turns must be a whole number, not 'two'"),
        (["play", "debug/echo-v0", "num_turns=0"], "num_turns must be a whole number >= 1, not 0"),
        (["play", "debug/echo-v0", "num_agents=9"], "num_agents=9 is not offered"),
        (["play", "debug/echo-v0", "reward=dens"], "unknown reward schedule 'dens'; did you mean 'dense'"),
        (["play", "debug/echo-v0", "split=dev"], "built-in tasks"),
        (
            ["play", "debug/echo-v0", "--agents", "oracel"],
            "'oracel' is no kind of agent; did you mean 'oracle'",
        ),
        (["play", "debug/echo-v0", "--agents", "agent_2=oracle"], "there is no agent 'agent_2'"),
        (["play", "debug/echo-v0", "--agents", "agent_0=oracle"], "nobody plays agent_1"),
        (["play", "debug/echo-v0", "--episodes", "0"], "--episodes must be at least 1"),
        (["play", "debug/echo-v0", "--episodes", "x"], "invalid int value: 'x'"),
        (["play", "no_such_module:Env"], "no module 'no_such_module'"),
        (["check"], "name what to check"),
        (["check", "debug/echo"], "unknown environment 'debug/echo'"),
        (["score", "debug/echo-v0", *REPLIES[:2]], "no reply of agent_1"),
        (["score", "debug/echo-v0", "--reply", "agent_0"], "does not read AGENT=TEXT"),
        (["score", "debug/echo-v0", "--reply", "agent_5=x"], "there is no agent 'agent_5'"),
        (["score", "debug/echo-v0", "--reply", "agent_0=@absent.txt"], "cannot read absent.txt"),
        (["score", "debug/echo-v0", "--task", "100000", *REPLIES], "has no task '100000'"),
        (["train"], "no environment given"),
        (["train", "debug/echo-v1"], "unknown environment 'debug/echo-v1'; did you mean"),
        (["train", "debug/echo-v0", "learner.lrr=1"], "command line: unknown setting 'learner.lrr'"),
        (["train", "debug/echo-v0", "seed=first"], "run.seed must be a whole number, not 'first'"),
        (["train", "debug/echo-v0", "top_p=1.5"], "team.sampling.top_p must be at most 1, not 1.5"),
        (["train", "debug/echo-v0", "algorithm=collm-bb"], "unknown algorithm 'collm-bb'; did you mean"),
        (["train", "debug/echo-v0", "joint_samples=5", "task_passes=1"], "not both"),
        (
            ["train", "debug/echo-v0", "--preset", "papr/writing-cc"],
            "unknown preset 'papr/writing-cc'; did you",
        ),
        (["train", "debug/echo-v0", "--config", "absent.toml"], "no such config file: absent.toml"),
        (["train", "--resume", "absent"], "no run in absent"),
        (["train", "debug/echo-v0", "--resume", "absent"], "--resume keeps the run's own settings"),
        (["eval", "absent"], "no run in absent"),
        (["eval"], "the following arguments are required: RUN"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("collm: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_fault_is_exit_code_one_with_a_hint(monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise EnvFault("the scorer\nbroke", env_id="debug/echo-v0", task_id="t")

    monkeypatch.setattr("collm_envs.debug.letters.Echo.reset", broken)
    assert main(["play", "debug/echo-v0"]) == 1
    err = capsys.readouterr().err
    assert "the scorer broke" in err
    assert "--debug" in err
    assert err.count("\n") == 1


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("collm_envs.debug.letters.Echo.reset", stop)
    assert main(["play", "debug/echo-v0"]) == 1
    assert capsys.readouterr().err == "collm: error: interrupted\n"


def test_overview_names_every_verb(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb}" in out for verb in VERBS)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_verb_teaches_by_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"examples:\n  collm {verb}" in out


def test_help_of_train_lists_every_section_algorithm_and_preset(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for text in (
        "learner.lr ",
        "team.agents.<name>.model",
        "algorithm=mc",
        "paper/writing-cc",
        "(default 0.6)",
    ):
        assert text in out, text


def test_lists_as_json(capsys):
    assert main(["envs", "debug/", "--json"]) == 0
    ids = [row["id"] for row in json.loads(capsys.readouterr().out)]
    assert ids == ["debug/echo-sparse-v0", "debug/echo-v0", "debug/handshake-sparse-v0", "debug/handshake-v0"]
    assert main(["envs", "debug/echo-v0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["num_turns"]["default"] == 1


def test_settings_and_options_may_come_in_any_order(capsys):
    assert main(["play", "--agents", "oracle", "debug/echo-v0", "--seed", "3", "num_agents=3"]) == 0
    assert "agent_2 says" in capsys.readouterr().out


def test_tasks_are_found_by_position_and_by_id(capsys):
    assert main(["score", "debug/echo-v0", "--task", "2", *REPLIES]) == 0
    by_position = capsys.readouterr().out
    name = by_position.split("task ")[1].split("\n")[0]
    assert main(["score", "debug/echo-v0", "--task", name, *REPLIES]) == 0
    assert capsys.readouterr().out == by_position
