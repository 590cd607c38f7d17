"""A benchmark on a cluster: the same results as on this machine, whatever dies on the way."""

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from clusters import three_nodes

from collm_agents.bench_command import places
from collm_agents.benchmark import Benchmark, Stopped
from collm_agents.distributed import pool
from collm_agents.pool import OnRay
from collm_agents.records import read_results
from collm_agents.suite_file import suite_of_words, with_words
from collm_envs.errors import InputError

pytestmark = pytest.mark.system

# "Trains" in eight steps, each of which goes on from the number before; a checkpoint after four.
FAKE = textwrap.dedent(
    """
    import json, os, pathlib, signal, sys, time
    control, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
    resumed = words[0] == "--resume"
    out = pathlib.Path(words[1] if resumed else words[-1].partition("=")[2])
    place, step, number = out / "checkpoints" / "000000004", 0, 1
    if resumed:
        config = json.loads((out / "config.json").read_text())
        step, number = json.loads((place / "progress.json").read_text())
    else:
        config = {"out": str(out), "seed": [w for w in words if w.startswith("run.seed=")][0][9:]}
        out.mkdir(parents=True)
        (out / "config.json").write_text(json.dumps(config))
    assert config["out"] == str(out), config  # a text that names the folder moves with it
    told = {"seed": config["seed"], "resumed": resumed, "out": str(out), "raylet": os.environ.get("RAY_RAYLET_PID")}
    with (control / "calls").open("a") as calls:
        calls.write(json.dumps({**told, "threads": os.environ["OMP_NUM_THREADS"]}) + "\\n")
    if (control / f"fail-{config['seed']}").exists():
        print("collm: error: the loss is nan", file=sys.stderr)
        sys.exit(1)
    if (control / f"deadly-{config['seed']}").exists():
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            busy = (process / "cmdline").read_text().startswith("ray::play")
            if parent == os.environ["RAY_RAYLET_PID"] and busy:
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(60)
    while step < 8:
        step, number = step + 1, number * 31 % 1009 + int(config["seed"])
        if step == 4:
            place.mkdir(parents=True)
            (place / "weights").write_bytes(bytes(100_000))
            (place / "progress.json").write_text(json.dumps([step, number]))
            while (control / f"hold-{config['seed']}").exists():
                time.sleep(0.05)
    report = {"metrics": {"score": {"mean": number}, "success": {"mean": 0.5}}, "episodes": 2, "samples": []}
    kept = [{"joint_samples": 4 * n, "tokens": n, "wall_s": 1.0 * n, "edge": True, **report} for n in range(2)]
    (out / "evaluations.json").write_text(json.dumps(kept))
    row = {"task_id": "t", "score": 1.0, "success": 0.0, "return": -1.0, "turns": 2.0, "reply_tokens": 3.0}
    (out / "episodes.jsonl").write_text(json.dumps({**row, "greedy": False}) + "\\n")
    result = {"references": {"oracle": report}, "high": 9.0, "variant": "mc[x]", "versions": {"torch": "2"}}
    (out / "result.json").write_text(json.dumps(result))
    """
)
START = """
import sys
from pathlib import Path
from test_pool import Bench
Bench(Path(sys.argv[1])).make(sys.argv[2]).run()
"""


class Bench:
    """A folder with a control folder, and benchmarks of two seeds in it."""

    def __init__(self, folder):
        self.folder, self.out, self.control = folder, folder / "out", folder / "control"
        self.control.mkdir(exist_ok=True)
        (self.control / "trainer.py").write_text(FAKE, "utf-8")

    def make(self, address=None, **more):
        suite = with_words(suite_of_words("mc", "debug/echo-v0"), (), "2")
        trainer = (sys.executable, str(self.control / "trainer.py"), str(self.control))
        ray = OnRay(address) if address else None
        return Benchmark(suite, self.out, **{"trainer": trainer, "processes": 2, "ray": ray, **more})

    def calls(self):
        lines = (self.control / "calls").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def hold(self, *seeds):
        for seed in seeds:
            (self.control / f"hold-{seed}").touch()

    def let_go(self):
        for file in self.control.glob("hold-*"):
            file.unlink()

    def came_home(self, seed):
        """Whether the checkpoint of a run that goes on is here."""
        return (self.place(seed) / "train" / "checkpoints" / "000000004" / "progress.json").exists()

    def place(self, seed):
        return self.out / "runs" / f"debug-echo-v0_dense-h1_mc_s{seed}"

    def state(self, seed):
        file = self.place(seed) / "run.json"
        return json.loads(file.read_text("utf-8"))["state"] if file.exists() else "new"


def until(holds, timeout_s=120.0):
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster():
    found = three_nodes(cpus=(0, 1, 1))
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What this machine's own pool gives."""
    bench = Bench(tmp_path_factory.mktemp("local"))
    return bench.make().run(), bench.out


def assert_same(bench, results, local):
    assert results.records == local[0].records
    assert read_results(bench.out).records == results.records
    names = [
        sorted(str(file.relative_to(out)) for file in (out / "runs").rglob("*") if file.is_file())
        for out in (bench.out, local[1])
    ]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith("config.json"):
            assert json.loads((bench.out / name).read_text())["out"] == str((bench.out / name).parent)
        elif not name.endswith("run.json"):
            assert (bench.out / name).read_bytes() == (local[1] / name).read_bytes(), name


def test_runs_on_a_cluster_leave_what_they_leave_here(cluster, local, tmp_path):
    bench = Bench(tmp_path)
    assert_same(bench, bench.make(cluster.address, processes=0).run(), local)
    calls = bench.calls()
    assert [call["threads"] for call in calls] == ["1", "1"]
    assert all(call["raylet"] for call in calls)
    assert not any(Path(call["out"]).is_relative_to(bench.out) for call in calls)
    until(lambda: not any(Path(call["out"]).parents[1].exists() for call in calls), 10)
    bench.make(cluster.address).run()
    assert bench.calls() == calls  # nothing was done again


def test_a_node_that_dies_costs_what_was_done_after_the_last_checkpoint(cluster, local, tmp_path):
    bench = Bench(tmp_path)
    bench.hold(0, 1)

    def kill():
        until(lambda: bench.came_home(0) and bench.came_home(1))
        first = bench.calls()[0]
        assert first["raylet"] != bench.calls()[1]["raylet"]
        os.kill(int(first["raylet"]), signal.SIGKILL)
        os.waitpid(int(first["raylet"]), 0)  # its workers ask whether it lives, and the undead do
        until(lambda: not Path(first["out"]).parents[1].exists())  # the program, too
        bench.let_go()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        results = bench.make(cluster.address).run()
    finally:
        bench.let_go()
        thread.join()
    assert_same(bench, results, local)
    calls = bench.calls()
    assert [call["resumed"] for call in calls] == [False, False, True]
    assert calls[2]["seed"] == calls[0]["seed"]
    assert calls[2]["raylet"] == calls[1]["raylet"]
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)


def test_what_fails_is_told_and_what_kills_its_workers_fails(cluster, tmp_path):
    bench = Bench(tmp_path)
    (bench.control / "fail-0").touch()
    (bench.control / "deadly-1").touch()
    results = bench.make(cluster.address).run()
    assert results.records[0].error == "the loss is nan"
    assert results.records[1].error.startswith("3 workers died at it; the last one: ")
    calls = bench.calls()
    assert sorted(call["seed"] for call in calls) == ["0", "1", "1", "1"]
    until(lambda: not any(Path(call["out"]).parents[1].exists() for call in calls), 10)
    for file in bench.control.glob("*-?"):
        file.unlink()
    assert len(bench.make(cluster.address).run().done) == 2


def test_a_cluster_that_went_down_with_its_driver_and_came_back(cluster, local, tmp_path):
    bench = Bench(tmp_path)
    bench.hold(1)
    own = three_nodes(cpus=(1, 1))
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    driver = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path), own.address], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        until(lambda: bench.state(0) == "done" and bench.came_home(1))
    finally:
        driver.kill()
        driver.wait()
        own.shutdown()
    until(lambda: not any(Path(call["out"]).parents[1].exists() for call in bench.calls()))
    assert bench.state(1) == "started"
    bench.let_go()
    assert_same(bench, bench.make(cluster.address).run(), local)
    assert [(call["seed"], call["resumed"]) for call in bench.calls()[2:]] == [("1", True)]


def test_a_signal_stops_what_runs_elsewhere(cluster, tmp_path):
    bench = Bench(tmp_path)
    bench.hold(0, 1)

    def stop():
        until(lambda: bench.came_home(0) and bench.came_home(1))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped) as stopped:
        bench.make(cluster.address).run()
    thread.join()
    assert stopped.value.code == 130
    assert not any(Path(call["out"]).parents[1].exists() for call in bench.calls())
    bench.let_go()
    assert len(bench.make(cluster.address).run().done) == 2
    assert [call["resumed"] for call in bench.calls()] == [False, False, True, True]


def test_a_cluster_that_could_never_take_a_run_is_told(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE_S", 0.5)
    monkeypatch.setattr(pool, "ROOM_S", 0.1)
    bench = Bench(tmp_path)
    with pytest.raises(pool.NoRoom, match="asks for CPU 1, GPU 1, and the cluster has CPU 2, "):
        bench.make(ray=OnRay(cluster.address, gpus=1)).run()
    assert {bench.state(seed) for seed in (0, 1)} <= {"new", "started"}


def test_checkpoints_that_are_too_large_stay_behind(tmp_path):
    place = tmp_path / "train"
    (place / "checkpoints" / "000000004").mkdir(parents=True)
    (place / "checkpoints" / "000000004" / "weights").write_bytes(bytes(1000))
    (place / "result.json").write_text(f'"{tmp_path}/train"')
    (place / "checkpoints" / "000000004" / "adapter.json").write_text(str(tmp_path))
    (tmp_path / "other.bin").write_bytes(str(tmp_path).encode())
    back = {str(tmp_path): "/home/there"}
    whole = pool.news("here", tmp_path, back, most=10_000, code=0)
    assert whole.files == {
        "train/checkpoints/000000004/weights": bytes(1000),
        "train/checkpoints/000000004/adapter.json": str(tmp_path).encode(),  # it has a checksum
        "train/result.json": b'"/home/there/train"',
        "other.bin": str(tmp_path).encode(),  # only texts are touched
    }
    assert whole.left == 0
    small = pool.news("here", tmp_path, back, most=500, code=0)
    assert small.left == 1000 + len(str(tmp_path))
    assert set(small.files) == {"train/result.json", "other.bin"}


def test_what_comes_home_replaces_what_was_there_and_nothing_else(tmp_path):
    (tmp_path / "run.json").write_text("kept")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "old").write_text("gone")
    pool.unpack({"train/new/file": b"x", "stderr.txt": b""}, tmp_path)
    found = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == {"run.json": b"kept", "train/new/file": b"x", "stderr.txt": b""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"gpus": "0,1", "ray": "auto"}, "with --ray say --run-gpus"),
        ({"run_gpus": 1.0}, "it goes with --ray"),
        ({"ray": "auto", "run_cpus": 0.0}, "one of them more"),
        ({"ray": "auto", "run_gpus": -1.0}, "at least 0"),
    ],
)
def test_what_does_not_go_together(words, message):
    plain = {"processes": 0, "gpus": "", "ray": "", "run_cpus": None, "run_gpus": None}
    with pytest.raises(InputError, match=message):
        places(argparse.Namespace(**{**plain, **words}))
