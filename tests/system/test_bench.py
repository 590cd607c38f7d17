"""`collm bench` as a user runs it: stopped half-way and called again, it gives what an undisturbed call gives."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest
from cli_process import REPO, assert_bad_input, collm

from collm_agents.records import read_results

pytestmark = pytest.mark.system

SUITE = """
name = "tiny"
seeds = 1
settings = ["rollout.buffer=8", "rollout.samples=2"]
[budget]
joint_samples = 576
[evaluation]
points = 6
tasks = 8
greedy = [false, true]
[algorithms.mc]
[algorithms.collm-cc]
[[environments]]
env = "debug/handshake-v0"
num_turns = 2
"""
BENCH = ("bench", "tiny.toml", "--processes", "2")
SMOKE = ("bench", "smoke", "--processes", "2")


def start(folder, words):
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "collm_agents.cli", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def checkpoints(place):
    return sorted(int(path.name) for path in place.glob("runs/*/train/checkpoints/[0-9]*"))


def untimed(place):
    """All records, times left out."""

    def still(point):
        return dataclasses.replace(point, wall_s=0.0)

    return [
        dataclasses.replace(record, points=tuple(map(still, record.points)), final=still(record.final))
        for record in read_results(place).done
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed call: the folder it was made in, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(SUITE, "utf-8")
    done = collm(*BENCH, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def stopped_and_called_again(folder, words, place, budget, records):
    """Stop a call once a run has a checkpoint before its last one, then make the same call again.

    Args:
        folder: to call from.
        words: of the call.
        place: where its results lie.
        budget: joint samples of a run; its last checkpoint is there.
        records: how many there are in the end.
    """
    stopped = start(folder, words)
    until = time.monotonic() + 120
    while not any(0 < at < budget for at in checkpoints(place)) and time.monotonic() < until:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 143, err
    assert out == ""
    assert "the same command goes on from here" in err.splitlines()[-1]
    if (place / "results.json").exists():
        assert len(read_results(place).done) < records  # a run may just have ended
    assert any(0 < at < budget for at in checkpoints(place)), "it was stopped too late to be half-way"
    again = collm(*words, cwd=folder, timeout_s=600)
    assert again.returncode == 0, again.stderr
    assert len(read_results(place).done) == records


def test_interrupted_and_called_again_is_the_undisturbed_call(whole, tmp_path):
    (tmp_path / "tiny.toml").write_text(SUITE, "utf-8")
    places = [folder / "bench" / "tiny" for folder in (tmp_path, whole[0])]
    stopped_and_called_again(tmp_path, BENCH, places[0], budget=576, records=4)
    assert untimed(places[0]) == untimed(places[1])
    tables = [pyarrow.parquet.read_table(place / "episodes.parquet") for place in places]
    assert tables[0].equals(tables[1])


def test_the_smoke_suite_interrupted_is_the_smoke_suite_undisturbed(tmp_path):
    done = collm(*SMOKE, "--out", "whole", cwd=tmp_path, timeout_s=600)
    assert done.returncode == 0, done.stderr
    words = (*SMOKE, "--out", "stopped")
    stopped_and_called_again(tmp_path, words, tmp_path / "stopped", budget=256, records=8)
    assert untimed(tmp_path / "stopped") == untimed(tmp_path / "whole")


def test_what_is_there_afterwards(whole):
    folder, done = whole
    records = read_results(folder / "bench" / "tiny").done
    assert [(r.task, r.algorithm) for r in records] == [
        *(("dense-h2", "collm-cc"), ("dense-h2", "mc")),
        *(("dense-h2-greedy", "collm-cc"), ("dense-h2-greedy", "mc")),
    ]
    sampled, greedy = records[0], records[2]
    assert [point.episodes for point in sampled.points] == [8, 8, 8, 8, 8, 8, 80]
    assert sampled.points[0].joint_samples == sampled.points[0].tokens == 0
    for before, after in zip(sampled.points, sampled.points[1:], strict=False):
        assert before.joint_samples < after.joint_samples
        assert before.tokens < after.tokens
        assert before.wall_s < after.wall_s
    assert sampled.points[-1].joint_samples >= 192
    assert greedy.final.metrics != sampled.final.metrics
    assert set(sampled.references) == {"random", "novice", "oracle"}
    rows = pyarrow.parquet.read_table(folder / "bench" / "tiny" / "episodes.parquet").to_pylist()
    for record in records:
        own = [row for row in rows if (row["task"], row["algorithm"]) == (record.task, record.algorithm)]
        assert len(own) == 80
        for name in ("score", "success", "return", "turns"):
            mean = sum(row[name] for row in own) / len(own)
            assert mean == pytest.approx(record.final.metrics[name])
    assert "4 done, 0 failed" in done.stdout
    assert "collm report bench/tiny" in done.stdout
    assert done.stderr.count("\n") == 2  # a line per run, nothing drawn
    assert "\x1b" not in done.stdout + done.stderr


def test_a_second_call_does_nothing_again(whole):
    folder, first = whole
    files = sorted((folder / "bench" / "tiny" / "runs").rglob("run.json"))
    before = [file.stat().st_mtime_ns for file in files]
    done = collm(*BENCH, cwd=folder)
    assert (done.returncode, done.stdout) == (0, first.stdout)
    assert done.stderr == ""
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_failed_run_is_told_and_the_rest_goes_on(tmp_path):
    words = ("--algorithms", "mc,mc+rollout.branching=[2,2,2]", "--envs", "debug/echo-v0", "--seeds", "1")
    done = collm("bench", *words, "joint_samples=8", "tasks=2", "points=1", "rollout.buffer=4", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 done, 1 failed" in done.stdout
    assert "rollout.branching" in done.stdout.partition("failed: debug")[2]
    (place,) = (tmp_path / "bench").iterdir()
    about = json.loads((place / "results-about.json").read_text("utf-8"))
    assert [run["algorithm"] for run in about["runs"] if run["error"]] == ["mc+rollout.branching=[2,2,2]"]


def test_bad_input_is_one_line_and_nothing_written(tmp_path):
    assert_bad_input(collm("bench", "nowhere", cwd=tmp_path), tmp_path)
    (tmp_path / "tiny.toml").write_text(SUITE.replace("seeds", "seed"), "utf-8")
    done = collm(*BENCH, cwd=tmp_path)
    assert_bad_input(done, tmp_path, kept=["tiny.toml"])
    assert "tiny.toml: seed: there is no such key" in done.stderr
