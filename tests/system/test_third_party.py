"""The example package is really installed, into a fresh environment without network, and trained from there."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from cli_process import REPO

pytestmark = pytest.mark.system
EXAMPLE = REPO / "examples" / "third_party_task"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Runs Python of an environment that holds the package; what the package needs comes from that of the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"  # a build leaves files beside its source
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    home = folder / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    own = next(home.glob("lib/python*/site-packages"))
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = folder / "elsewhere"
    where.mkdir()
    env = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
        "HF_HUB_OFFLINE": "1",
    }

    def run(*words, python=home / "bin" / "python", code=0):
        done = subprocess.run(
            [str(python), *map(str, words)],
            cwd=where,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    run("-m", "pip", "--python", home / "bin" / "python", "install", *offline, source, python=sys.executable)
    run.home, run.where, run.tests, run.site = home, where, source / "tests", own
    return run


def test_it_lies_in_the_fresh_environment_with_its_entry_points(fresh):
    assert (fresh.site / "week_plan" / "task.py").is_file()
    (entries,) = fresh.site.glob("week_plan-*.dist-info/entry_points.txt")
    assert "planning/week-v0 = week_plan.task:WeekPlan" in entries.read_text()


def test_the_command_line_and_pettingzoo_know_it(fresh):
    assert "planning/week-v0         from week-plan" in fresh("-m", "collm_agents.cli", "envs", "planning/")
    assert "one JSON object of the jobs" in fresh("-m", "collm_agents.cli", "envs", "planning/week-v0")
    told = fresh(
        "-c",
        "import collm_envs, sys, pettingzoo\n"
        "assert 'week_plan' not in sys.modules\n"
        "env = pettingzoo.make('parallel', 'planning/week-v0')\n"
        "print(sys.modules['week_plan'].__file__, *env.reset(seed=0)[0])",
    )
    assert told.startswith(str(fresh.home))
    assert told.endswith("planner_0 planner_1 planner_2\n")


def test_it_keeps_the_contract_and_its_rewards_stand_the_probe(fresh):
    told = fresh("-m", "collm_agents.cli", "check", "planning/week-v0", "--probe-rewards")
    assert "all 16 hold" in told
    assert "none beats the novice" in told


def test_its_own_tests_pass(fresh):
    assert " passed" in fresh("-m", "pytest", "-q", "-p", "no:cacheprovider", fresh.tests)


def test_three_agents_are_trained_for_a_few_steps(fresh):
    settings = (
        "joint_samples=32",
        "rollout.buffer=8",
        "eval.final_tasks=4",
        "out=runs/week",
        "run.threads=1",
    )
    told = fresh("-m", "collm_agents.cli", "train", "planning/week-v0", *settings)
    assert "on planning/week-v0, seed 0" in told
    result = json.loads((fresh.where / "runs" / "week" / "result.json").read_text())
    assert result["updates"] > 1
    assert result["references"]["oracle"]["metrics"]["score"]["mean"] == 5
    assert "score" in fresh("-m", "collm_agents.cli", "eval", "runs/week", "tasks=2")
