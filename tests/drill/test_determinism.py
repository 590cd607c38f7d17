"""The same seed on the same machine gives the same run, for every algorithm and environment, bit for bit.

In two processes that hash strings differently, so that no order of a set or a future decides anything.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_files import rows, saved

from collm_agents.algorithms import list_algorithms
from collm_envs import list_envs

pytestmark = pytest.mark.system
RUN = """
import sys
from pathlib import Path
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
for pair in sys.argv[2:]:
    algorithm, env = pair.split("@")
    words = [f"algorithm={algorithm}", f"out={Path(sys.argv[1]) / pair.replace('/', '-')}", "joint_samples=16"]
    words += ["rollout.samples=2", "rollout.buffer=8", "eval.points=1", "eval.tasks=2", "eval.final_tasks=4"]
    words += ["team.sampling.max_new_tokens=16", "track.tensorboard=false", "run.threads=1", "team.max_context=900"]
    words += ["team.prompt_overflow=clip"]
    Experiment(load_config(env, overrides=words)).run()
"""
ALGORITHMS = [
    spec.name for spec in list_algorithms() if spec.estimator.__module__.startswith("collm_agents.")
]
WITHOUT_TASKS = ("coding/humaneval", "coding/mbpp", "writing/arxiv")  # come from files or a hub
ENVS = [spec.id for spec in list_envs() if not spec.id.startswith(WITHOUT_TASKS)]
MINI = ["debug/echo-v0", "debug/handshake-sparse-v0", *(id for id in ENVS if "-mini-v0" in id)]


def twice(pairs, folder):
    """Run all pairs in two processes; returns the pairs whose runs differ."""
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(folder / seed), *pairs],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return [pair for pair in pairs if different(folder / "1", folder / "2", pair.replace("/", "-"))]


def different(one: Path, other: Path, name: str) -> bool:
    here, there = saved(one / name), saved(other / name)
    told = [json.loads((place / name / "evaluations.json").read_text("utf-8")) for place in (one, other)]
    for report in itertools.chain(*told):
        del report["wall_s"]
    assert len(rows(one / name)) > 2  # an evaluation before and after, and an update at least
    same = here.keys() == there.keys() and all(here[key].equal(there[key]) for key in here)
    return not same or rows(one / name) != rows(other / name) or told[0] != told[1]


def test_every_small_environment_gives_the_same_run_again(tmp_path):
    pairs = [f"{algorithm}@{env}" for algorithm, env in zip(itertools.cycle(ALGORITHMS), MINI, strict=False)]
    assert len({pair.partition("@")[0] for pair in pairs}) >= 3
    assert twice(pairs, tmp_path) == []


@pytest.mark.drill
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_environment_gives_the_same_run_again(algorithm, tmp_path):
    assert twice([f"{algorithm}@{env}" for env in ENVS], tmp_path) == []
