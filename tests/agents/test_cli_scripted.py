"""`collm eval ENV` and `collm play` with pictures: scripted agents, without a run."""

import json

import pytest

from collm_agents.cli import main

PIL_Image = pytest.importorskip("PIL.Image")


def test_scripted_agents_are_evaluated_on_held_out_tasks(capsys):
    words = ["eval", "debug/echo-v0", "--agents", "oracle,novice", "--episodes", "60", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert 0.6 < found["score"]["mean"] < 0.9  # one always right, one every other time
    assert found["score"]["n"] == 60
    assert found["score"]["low"] < found["score"]["mean"] < found["score"]["high"]
    assert main([*words, "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] != found


def test_tasks_that_come_again_count_once(capsys):
    words = ["eval", "writing/tldr-v0", "--agents", "novice", "--episodes", "40", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["score"]["n"] == 8  # all there are held out


def test_a_game_reports_what_it_measures_and_is_drawn(tmp_path, capsys):
    file = tmp_path / "wall.gif"
    words = ["eval", "games/strbuild-mini-v0", "num_turns=2", "--agents", "oracle,novice", "--episodes", "20"]
    assert main([*words, "--gif", str(file)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("measured/iou", "measured/dropped", "95 % interval"))
    with PIL_Image.open(file) as picture:
        assert picture.n_frames == 3  # the empty wall and two turns
        assert min(picture.size) > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["debug/echo-v0"], "name scripted agents"),
        (["debug/echo-v0", "--agents", "oracle,oracle,oracle"], "3 kinds for 2 agents"),
        (["debug/echo-v0", "--agents", "human"], "no kind of agent"),
        (["debug/echo-v0", "--agents", "oracle", "--episodes", "0"], "--episodes must be at least 1"),
        (["debug/echo-v0", "--agents", "oracle", "--checkpoint", "3"], "--checkpoint is for a run"),
        (["debug/echo-v0", "--agents", "oracle", "--gif", "x.gif"], "draws no pictures"),
        (["debug/echo-v0", "num_turn=2", "--agents", "oracle"], "num_turns"),
        (["games/strbuild-mini-v0", "--agents", "oracle", "--gif", "no/such/x.gif"], "cannot write no/such"),
        (
            ["debug/ech-v0", "--agents", "oracle"],
            "no run in debug/ech-v0, and no environment of that name; did you mean 'debug/echo-v0'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, message, capsys):
    assert main(["eval", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", ["3", "builtin:train#3"])
def test_a_named_task_is_played_in_every_episode(task, capsys):
    assert main(["play", "debug/echo-v0", "--task", task, "--episodes", "2", "--seed", "9"]) == 0
    played = [line for line in capsys.readouterr().out.splitlines() if line.startswith("== ")]
    assert played == [f"== episode {n}, task builtin:train#3" for n in (1, 2)]
    assert main(["play", "debug/echo-v0", "--task", "absent"]) == 2
    assert "has no task 'absent'" in capsys.readouterr().err


def test_play_shows_the_picture_of_every_turn(capsys):
    assert main(["play", "games/strbuild-mini-v0", "num_turns=2", "--agents", "novice,oracle"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\x1b[0m") > 3  # colours, and they are put out again
    assert "builder_1 says" in shown
    assert main(["play", "debug/echo-v0", "--agents", "oracle"]) == 0
    assert "\x1b" not in capsys.readouterr().out
