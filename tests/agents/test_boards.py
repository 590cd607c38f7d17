"""Boards other than TensorBoard, through the real libraries and without a network, each in a process of its own."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb_log

from collm_agents.config import Config, TrackConfig
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.tracking import MetricError, Tracker, check_boards, read_rows, write_table
from collm_envs.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]
# Two parts of one run: killed after 24 joint samples, gone on with from the checkpoint at 16.
PROGRAM = """
import sys
from collm_agents.config import Config, TrackConfig
from collm_agents.tracking import Tracker

track = TrackConfig(tensorboard=False, project="tests", **{sys.argv[2]: True})
config = Config(env={"id": "debug/echo-v0"}, algorithm={"name": "mc"}, track=track)
stats = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
for start, stop in ((8, 24), (24, 32)):
    with Tracker(sys.argv[1], config, 32) as tracker:
        if start > 8:
            tracker.rewind(16)
        tracker.open()
        for at in range(start, stop + 1, 8):
            tracker.update({"reward": float(at), "loss/agent_0": 0.5}, at)
        tracker.evaluation({"metrics": {"score": stats}, "samples": []}, stop)
"""


def environment(tmp_path):
    """Of a process that finds no network and writes nothing outside."""
    homes = {f"WANDB_{name}_DIR": str(tmp_path / "wandb") for name in ("CACHE", "CONFIG", "DATA")}
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    own = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    return {**clean, **homes, **proxies, **own, "PYTHONPATH": str(ROOT)}


def record(tmp_path, board):
    out = tmp_path / "my-run"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), board],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # that is the command's own
    return out, json.loads((out / "boards.json").read_text())


def test_wandb_gets_every_number_and_goes_on_in_one_run(tmp_path):
    pytest.importorskip("wandb")
    out, own = record(tmp_path, "wandb")
    files = sorted((out / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{own['id']}.wandb"] * 2
    for file in files:
        found = wandb_log.run(file)
        assert (found["id"], found["project"], found["name"]) == (own["id"], "tests", own["name"])
        assert found["config"]["algorithm"] == {"name": "mc"}
        assert found["config"]["learner"]["clip"] == 0.2
    one, other = (list(wandb_log.history(file)) for file in files)
    shown = [{k: v for k, v in row.items() if k != "wall_s"} for row in one]
    assert shown[:2] == [
        {"joint_samples": at, "update/reward": float(at), "update/loss/agent_0": 0.5} for at in (8, 16)
    ]
    assert shown[-1] == {
        "joint_samples": 24,
        "eval/score": 0.5,
        "eval/score/low": 0.25,
        "eval/score/high": 0.75,
        "eval/score/n": 8.0,
    }
    assert [row["joint_samples"] for row in other] == [24, 32, 32]
    for file in files:  # nothing of the host, the program or its console
        names = {path.name for path in file.parent.rglob("*") if path.is_file()}
        assert names.isdisjoint({"wandb-metadata.json", "output.log", "diff.patch"})
        assert not list(file.parent.rglob("*.py"))


READ = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
import trackio
(run,) = trackio.Api().runs("tests")
print(json.dumps({"name": run.name, "config": run.config, "rows": SQLiteStorage.get_logs("tests", run.name)}))
"""


def test_trackio_gets_every_number_and_goes_on_in_one_run(tmp_path):
    pytest.importorskip("trackio")
    _, own = record(tmp_path, "trackio")
    done = subprocess.run(
        [sys.executable, "-c", READ], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[0])
    assert found["name"] == own["name"]
    assert own["name"].startswith("my-run-")
    assert found["config"]["env"] == {"id": "debug/echo-v0"}
    rows = [(row["step"], row.get("update/reward"), row.get("eval/score")) for row in found["rows"]]
    # The first part's rows beyond the checkpoint stay: a board cannot forget.
    assert rows == [
        (8, 8.0, None), (16, 16.0, None), (24, 24.0, None), (24, None, 0.5),
        (24, 24.0, None), (32, 32.0, None), (32, None, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize("board", ["tensorboard", "wandb", "trackio"])
def test_a_missing_library_is_told_before_anything_begins(tmp_path, monkeypatch, board):
    monkeypatch.setitem(sys.modules, board, None)  # as where it is not installed
    extra = {"tensorboard": "train"}.get(board, board)
    message = rf"track\.{board}=true needs the package {board}: pip install 'collm\[{extra}\]'"
    words = ["algorithm=mc", f"out={tmp_path / 'run'}", f"track.{board}=true"]
    experiment = Experiment(load_config("debug/echo-v0", overrides=words))
    with pytest.raises(SettingError, match=message):
        experiment.run()
    with pytest.raises(SettingError, match=message):
        experiment.plan()
    assert not (tmp_path / "run").exists()


def test_libraries_that_nobody_asked_for_are_not_looked_at(monkeypatch):
    for board in ("tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, board, None)
    check_boards(TrackConfig(tensorboard=False))
    assert importlib.util.find_spec("wandb") is None


def test_wandb_without_an_account_is_one_clear_error(tmp_path):
    pytest.importorskip("wandb")
    program = "import sys; from collm_agents.cli import main; sys.exit(main())"
    words = ["train", "debug/echo-v0", "algorithm=mc", f"out={tmp_path / 'run'}", "wandb=true"]
    settings = {
        **environment(tmp_path),
        "WANDB_MODE": "online",
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "no"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={k: v for k, v in settings.items() if k != "WANDB_API_KEY"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "collm: error: track.wandb=true: " in done.stderr
    assert "WANDB_MODE=offline needs no account" in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_table_has_the_numbers_of_the_rows(tmp_path):
    config = Config(
        env={"id": "debug/echo-v0"}, algorithm={"name": "mc"}, track=TrackConfig(tensorboard=False)
    )
    stats = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    with Tracker(tmp_path, config, 32) as tracker:
        tracker.update({"reward": 1 / 3, 'odd, "name"': 1e-30}, 8)
        tracker.evaluation({"metrics": {"score": stats}, "samples": []}, 8)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    back = [{k: v if k == "kind" else float(v) for k, v in row.items() if v} for row in table]
    assert back == read_rows(tmp_path / "metrics.jsonl")
    assert list(table[0])[:4] == ["kind", "joint_samples", "wall_s", "reward"]


def test_the_table_is_written_where_a_run_fails_and_again_where_it_goes_on(tmp_path):
    config = Config(
        env={"id": "debug/echo-v0"}, algorithm={"name": "mc"}, track=TrackConfig(tensorboard=False)
    )
    with Tracker(tmp_path, config, 32) as tracker:
        for at in (8, 16, 24):
            tracker.update({"reward": at}, at)
        with pytest.raises(MetricError):
            tracker.update({"reward": float("nan")}, 32)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4
    with Tracker(tmp_path, config, 32) as tracker:
        tracker.rewind(16)
        tracker.update({"reward": 9.0, "loss": 1.0}, 24)
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == "kind,joint_samples,wall_s,reward,loss"
    assert [line.split(",")[3:] for line in lines] == [["8.0", ""], ["16.0", ""], ["9.0", "1.0"]]


def test_a_table_of_a_run_that_goes_on_leaves_out_the_line_that_is_being_written(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"kind": "update", "joint_samples": 8, "wall_s": 1.0, "reward": 1.0}\n{"kind": "upd')
    write_table(file, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "kind,joint_samples,wall_s,reward\nupdate,8,1.0,1.0\n"
