"""The program around Ray: what it leaves behind, how it goes on after a kill, what it says where Ray is missing."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from builders import folder
from cli_process import REPO, assert_bad_input, collm, environment, marked
from run_files import rows, saved

pytestmark = [pytest.mark.system, pytest.mark.slow]
SETTINGS = ("algorithm=mc", "num_turns=2", "rollout.samples=2", "rollout.buffer=8", "joint_samples=96")
SETTINGS += (
    "eval.every=16",
    "eval.tasks=3",
    "eval.final_tasks=3",
    "track.tensorboard=false",
    "run.threads=1",
)
SETTINGS += ("tuning=lora", "team.lora.rank=2", "team.sampling.max_new_tokens=5", "learner.lr=0.01")


def places(mark):
    """The environment of a program that finds the tests' own environments, marked for what it starts."""
    path = os.pathsep.join([environment()["PYTHONPATH"], str(REPO / "tests")])
    return {"PYTHONPATH": path, "COLLM_TEST_MARK": mark}


def settings(out, *more):
    return ["train", "failing_env:Held", *SETTINGS, f"model={folder('qwen3')}", f"out={out}", *more]


def plain(run_dir):
    return [{k: v for k, v in row.items() if not k.startswith("workers/")} for row in rows(run_dir)]


def quiet(mark, timeout_s):
    """Wait for the last process with the mark to end; what is left then."""
    until = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def test_a_killed_driver_takes_everything_with_it_and_goes_on_from_its_checkpoint(tmp_path):
    """Three minutes beside other work: Ray's own agents look for their daemon for more than one."""
    mark, out, hold = uuid.uuid4().hex, tmp_path / "run", tmp_path / "hold"
    hold.touch()
    words = settings(out, "workers=2", "runner.shard=1")
    env = {**environment(), **places(mark), "COLLM_TEST_HOLD": str(hold)}
    process = subprocess.Popen([sys.executable, "-m", "collm_agents.cli", *words], cwd=tmp_path, env=env)
    until = time.monotonic() + 300
    while not any(int(place.name) > 0 for place in (out / "checkpoints").glob("[0-9]*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    assert any("ray::Worker" in line for line in marked(mark))  # at the next update, which waits for `hold`
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert quiet(mark, 300) == []
    assert not (out / "result.json").exists()
    hold.unlink()

    done = collm("train", "--resume", str(out), cwd=tmp_path, env=places(mark))
    assert done.returncode == 0, done.stderr
    assert quiet(mark, 60) == []
    local = collm(*settings(tmp_path / "local", "runner.shard=1"), cwd=tmp_path, env=places(""))
    assert local.returncode == 0, local.stderr
    assert plain(out) == plain(tmp_path / "local")
    first, second = saved(out), saved(tmp_path / "local")
    assert first.keys() == second.keys()
    assert not [name for name in first if not first[name].equal(second[name])]
    updates = [row for row in rows(out) if row["kind"] == "update"]
    assert all(row["workers/up"] for row in updates)


def test_programs_of_agents_are_run_in_the_sandbox_by_workers(tmp_path):
    mark, out = uuid.uuid4().hex, tmp_path / "run"
    words = ("joint_samples=8", "rollout.buffer=8", "eval.tasks=2", "eval.final_tasks=2")
    words += ("track.tensorboard=false", "algorithm=mc", "runner.shard=1")
    own = ("workers=2", f"out={out}")
    done = collm("train", "coding/compose-mini-v0", *words, *own, cwd=tmp_path, env=places(mark))
    assert done.returncode == 0, done.stderr
    assert quiet(mark, 60) == []  # no sandbox outlives its worker
    here = collm("train", "coding/compose-mini-v0", *words, f"out={tmp_path / 'local'}", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    assert plain(out) == plain(tmp_path / "local")
    assert json.loads((out / "result.json").read_text("utf-8"))["peak_memory"]


WITHOUT = (
    "import sys; sys.modules['ray'] = None; from collm_agents.cli import main; sys.exit(main(sys.argv[1:]))"
)


def test_without_ray_the_extra_is_named_before_anything_is_written(tmp_path):
    done = collm("train", "debug/echo-v0", "workers=2", cwd=tmp_path, code=WITHOUT)
    assert_bad_input(done, tmp_path)
    assert "this needs Ray: pip install 'collm[ray]'" in done.stderr


def test_a_cluster_that_is_not_there(tmp_path):
    done = collm("train", "debug/echo-v0", "workers=1", "runner.address=127.0.0.1:1", "out=run", cwd=tmp_path)
    assert done.returncode == 2
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr


SUITE = """
name = "tiny"
seeds = 1
settings = ["rollout.buffer=8", "rollout.samples=2"]
budget = { joint_samples = 320 }
evaluation = { points = 4, tasks = 4 }
[algorithms.mc]
[[environments]]
env = "debug/handshake-v0"
num_turns = 2
"""


def test_a_bench_on_ray_that_is_interrupted_leaves_nothing_and_ends_as_one_on_this_machine(tmp_path):
    """As a terminal does it: Ctrl-C reaches the whole process group, Ray's processes too."""
    mark = uuid.uuid4().hex
    (tmp_path / "tiny.toml").write_text(SUITE, "utf-8")
    words = ("bench", "tiny.toml", "--ray", "local", "--processes", "1", "--out", "ray")
    env = {**environment(), **places(mark)}
    process = subprocess.Popen(
        [sys.executable, "-m", "collm_agents.cli", *words], cwd=tmp_path, env=env, start_new_session=True
    )
    until = time.monotonic() + 300
    while not any(int(place.name) > 0 for place in tmp_path.glob("ray/runs/*/train/checkpoints/[0-9]*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    guards = [line.split() for line in marked(mark) if "guard.py" in line]
    [scratch] = {word for line in guards for word in line if Path(word).name.startswith("collm-run-")}
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not os.path.exists(scratch)
    assert quiet(mark, 300) == []

    done = collm(*words, cwd=tmp_path, env=places(mark))
    assert done.returncode == 0, done.stderr
    here = collm("bench", "tiny.toml", "--processes", "1", "--out", "here", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    [one], [other] = (
        [plain(place) for place in tmp_path.glob(f"{out}/runs/*/train")] for out in ("ray", "here")
    )
    assert one == other
    [stored] = [json.loads(file.read_text("utf-8")) for file in tmp_path.glob("ray/runs/*/run.json")]
    assert stored["state"] == "done"
