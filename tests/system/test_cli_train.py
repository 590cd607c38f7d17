import json

import pytest
from cli_process import assert_bad_input, collm

pytestmark = pytest.mark.system

TINY = [
    "debug/echo-v0",
    "algorithm=mc",
    "rollout.buffer=16",
    "eval.tasks=4",
    "eval.final_tasks=4",
    "eval.every=32",
]


def rows(run_dir, kind):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run in a folder of its own: the folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = collm("train", *TINY, "joint_samples=64", "out=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_everything_in_its_folder(trained):
    folder, _ = trained
    assert [path.name for path in folder.iterdir()] == ["run"]
    names = {path.name for path in (folder / "run").iterdir()}
    assert {
        "config.toml",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "tensorboard",
        "samples.jsonl",
    } <= names
    assert list((folder / "run" / "tensorboard").glob("events.out.tfevents.*"))
    result = json.loads((folder / "run" / "result.json").read_text())
    assert (result["env"], result["algorithm"], result["joint_samples"]) == ("debug/echo-v0", "mc", 64)
    for report in (result["start"], result["end"], *result["references"].values()):
        assert {"mean", "low", "high", "n"} <= set(report["metrics"]["score"])
        assert "parts/echoed" in report["metrics"]
    assert result["references"]["oracle"]["metrics"]["success"]["mean"] == 1.0
    updates = rows(folder / "run", "update")
    assert [row["joint_samples"] for row in updates] == [16, 32, 48, 64]
    assert [row["joint_samples"] for row in rows(folder / "run", "eval")] == [0, 32, 64]


def test_a_run_ends_with_a_table_a_curve_a_conversation_and_its_place(trained):
    folder, done = trained
    assert "score" in done.stdout
    assert "95 % interval of end" in done.stdout
    assert "oracle" in done.stdout
    assert "A conversation (task" in done.stdout
    assert (folder / "run" / "curve.png").is_file()
    assert "curve.png" in done.stdout
    assert "collm train --resume run" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr  # not a terminal: no live view
    assert done.stderr.count("joint samples") == 3


def test_the_saved_config_is_the_whole_and_trains_again(trained, tmp_path):
    from collm_agents.overrides import load_config

    folder, _ = trained
    config = load_config(None, files=[folder / "run" / "config.toml"])
    assert (config.run.joint_samples, config.rollout.buffer, config.team.model) == (64, 16, "builtin")
    saved = str(folder / "run" / "config.toml")
    done = collm("train", "--config", saved, "joint_samples=16", "out=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_can_be_evaluated(trained):
    folder, _ = trained
    done = collm("eval", "run", "tasks=3", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["score"]["n"] == 3
    done = collm("eval", "run", "tasks=3", "--agents", "oracle", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout


def test_evaluation_refuses_other_settings_and_missing_checkpoints(trained):
    folder, _ = trained
    assert_bad_input(collm("eval", "run", "lr=1", cwd=folder), folder, kept=["run"])
    assert_bad_input(collm("eval", "run", "--checkpoint", "7", cwd=folder), folder, kept=["run"])


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    done = collm("train", *TINY, "joint_samples=32", "out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = collm("train", "--resume", "run", "joint_samples=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["joint_samples"] for row in rows(tmp_path / "run", "update")] == [16, 32, 48, 64]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["joint_samples"] == 64


def test_an_existing_run_is_not_written_over(trained):
    folder, _ = trained
    before = (folder / "run" / "result.json").read_bytes()
    assert_bad_input(collm("train", *TINY, "out=run", cwd=folder), folder, kept=["run"])
    assert (folder / "run" / "result.json").read_bytes() == before


def test_a_dry_run_says_what_would_happen_and_writes_nothing(tmp_path):
    done = collm("train", *TINY, "joint_samples=64", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "64" in done.stdout
    assert "builtin" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["debug/echo-v0", "num_turns=0"], "num_turns must be a whole number >= 1"),
        (["debug/echo-v0", "branching=[4,4]"], "branching"),
        (["debug/echo-v0", "device=warp"], "device"),
        (["debug/echo-v0", "team.agents.agent_7.model=builtin"], "agent_7"),
        (["debug/echo-v0", "model=no/such/folder"], "no/such/folder"),
        (["debug/echo-v0", "eval.split=nowhere"], "built-in tasks"),
        (["debug/echo-v0", "reward=delta", "env.gamma=0.5", "num_turns=2"], "gamma"),
        (["writing/tldr-v0", "source=absent.jsonl"], "no such file: absent.jsonl"),
    ],
)
def test_what_only_the_objects_can_judge_is_one_line_and_nothing_written(tmp_path, words, message):
    done = collm("train", *words, "algorithm=mc", "joint_samples=8", cwd=tmp_path)
    assert_bad_input(done, tmp_path)
    assert message in done.stderr


def test_bad_rows_and_a_model_without_a_tokenizer_write_nothing(tmp_path):
    (tmp_path / "posts.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    kept = ["model", "posts.jsonl"]
    done = collm(
        "train", "writing/tldr-v0", "source=posts.jsonl", "split=all", "eval.split=all", cwd=tmp_path
    )
    assert_bad_input(done, tmp_path, kept)
    assert "posts.jsonl, row 2, field 'prompt': missing" in done.stderr
    done = collm("train", "debug/echo-v0", "model=model", cwd=tmp_path)
    assert_bad_input(done, tmp_path, kept)
    assert "model" in done.stderr
    assert "tokenizer" in done.stderr
