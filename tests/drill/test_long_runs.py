"""What a long run holds does not grow: memory, open files, threads, children and the time of a step.

Hours in all. Each prints what it measured; run with `-s` to read it.
"""

import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from collm_agents.records import Point, Record, Results, write_results
from collm_envs.sandbox import Asserts, Program, Sandbox

pytestmark = pytest.mark.drill

STEPS, EVERY = 20_000, 100
TRAIN = f"""
import json, sys, time
from collm_agents.callbacks import Callback
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
sys.path.insert(0, sys.argv[1])
from test_long_runs import holdings, usual
seen = []
class Look(Callback):
    at, spent = time.process_time(), []
    def on_step(self, run, metrics):
        self.spent.append(time.process_time() - self.at)
        if metrics["updates"] % {EVERY} == 0:
            seen.append([metrics["updates"], usual(self.spent), *holdings()])
            self.spent.clear()
        self.at = time.process_time()
Experiment(load_config("debug/echo-v0", overrides=sys.argv[2:])).run([Look()])
print(json.dumps(seen))
"""


def usual(seconds):
    """What a step takes where nothing disturbs it: the lower decile of its neighbours, evaluations left out so."""
    return float(np.quantile(seconds, 0.1))


def holdings():
    """MiB resident, open files, threads, children."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(children),
    ]


def slopes(seen):
    """Least-squares growth per 10,000 steps after the first tenth, by what it is of, and the seconds of a step.

    That of the seconds is a share of their median.
    """
    rows = np.array(seen, dtype=float)[len(seen) // 10 :]
    names = ("step", "MiB", "files", "threads", "children")
    found = {
        name: float(np.polyfit(rows[:, 0], rows[:, 1 + i], 1)[0]) * 10_000 for i, name in enumerate(names)
    }
    typical = float(np.median(rows[:, 1]))
    return {**found, "step": found["step"] / typical, "step_s": typical}


def check_flat(found, mib):
    sys.stdout.write(json.dumps(found) + "\n")
    assert found["MiB"] < mib
    assert abs(found["files"]) < 0.5
    assert abs(found["threads"]) < 0.5
    assert abs(found["children"]) < 0.5
    assert found["step"] < 0.05  # of a step's time


@pytest.mark.parametrize("algorithm", ["mc", "collm-cc", "collm-dc"])
def test_twenty_thousand_updates_hold_no_more_than_a_few(algorithm, tmp_path):
    settings = [
        f"algorithm={algorithm}",
        f"run.joint_samples={2 * STEPS}",
        "rollout.samples=2",
        "rollout.buffer=2",
        "team.sampling.max_new_tokens=2",
        "eval.tasks=4",
        "eval.final_tasks=8",
        "run.threads=1",
        f"out={tmp_path / 'run'}",
    ]
    words = [sys.executable, "-c", TRAIN, str(Path(__file__).parent), *settings]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen[-1][0] == STEPS
    check_flat(slopes(seen), mib=8.0)


def test_a_hundred_thousand_programs_leave_nothing_behind():
    seen, batch = [], 500
    with Sandbox(workers=2) as sandbox:
        for start in range(0, 100_000, batch):
            jobs = [
                (Program(f"def f(x):\n    return x + {n}\n"), Asserts((f"assert f(1) == {n + 1}",)))
                for n in range(start, start + batch)
            ]
            begun = time.process_time()
            assert all(result.passed for result in sandbox.run_many(jobs))
            seen.append([start + batch, (time.process_time() - begun) / batch, *holdings()])
    check_flat(slopes(seen), mib=2.0)


def test_a_million_lines_of_metrics_are_shown(tmp_path):
    out = tmp_path / "run"
    small = ["rollout.samples=2", "rollout.buffer=2", "joint_samples=8", "eval.tasks=4", "eval.final_tasks=4"]
    collm("train", "debug/echo-v0", *small, f"out={out}")
    file = out / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    last = next(row for row in reversed(rows) if "reward" in row)
    with file.open("w") as lines:
        for number in range(1_000_000):
            lines.write(json.dumps({**last, "joint_samples": 2 * number}) + "\n")
    begun = time.monotonic()
    collm("view", str(out), "--out", str(tmp_path / "page.html"))
    sys.stdout.write(f"{file.stat().st_size / 2**20:.0f} MiB, {time.monotonic() - begun:.0f} s\n")
    assert (tmp_path / "page.html").stat().st_size < 20e6


def test_a_million_evaluations_are_reported(tmp_path):
    points = [Point(4 * i, 40 * i, i / 2, 8, {"score": i % 97 / 97, "return": i % 97}) for i in range(10_000)]
    levels = {"novice": {"score": 0.1, "return": 1.0}, "oracle": {"score": 1.0, "return": 97.0}}
    runs = tuple(
        Record(f"env/e{e}-v0", "dense-h1", algorithm, seed, tuple(points), points[-1 - seed], levels, 1.0)
        for e, algorithm, seed in itertools.product(range(5), ("a", "b"), range(10))
    )
    write_results(Results(runs), tmp_path / "results.json")
    begun = time.monotonic()
    collm("report", str(tmp_path))
    seconds, page = time.monotonic() - begun, tmp_path / "report" / "report.html"
    sys.stdout.write(f"{(tmp_path / 'results.json').stat().st_size / 2**20:.0f} MiB, {seconds:.0f} s\n")
    assert page.stat().st_size < 20e6


def collm(*words):
    done = subprocess.run(
        [sys.executable, "-m", "collm_agents.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
