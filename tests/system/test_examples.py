"""Every example runs as its docstring says, on a tiny budget."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = REPO / "examples"
# Arguments that keep an example short, and what it must print.
RUNS = {
    "scripted_agents.py": (["--episodes", "5", "--turns", "2"], "oracle   score 3.000  success 100%"),
    "one_episode.py": (["--turns", "2", "--task", "1"], "== the joint history"),
    "reward_schedules.py": (["--episodes", "5"], "in every episode: yes"),
    "train_in_python.py": (["--joint-samples", "64"], "greedy score"),
    "custom_environment.py": (["--joint-samples", "64"], "after 64 joint samples"),
    "custom_reward.py": ([], "on_topic of the oracle"),
    "callbacks.py": (["--joint-samples", "64"], "# 0 joint samples, success"),
    "export_for_finetuning.py": (["--joint-samples", "64"], "agent_1 replies"),
    "custom_algorithm.py": (["--env", "debug/echo-v0", "--joint-samples", "64"], "coma[q0"),
    "turn_by_turn.py": ([], "detail_1 was paid 0.000; score 3.000, success True"),
    "one_agent.py": (["--episodes", "5"], "oracle "),
    "torchrl_collector.py": (["--frames", "16"], "frames 16, episodes 16"),
    "trl_grpo.py": (["--steps", "1", "--max-new-tokens", "4"], "step   1  reward -"),
}

pytestmark = pytest.mark.system


def run(name, *words, cwd, code=0):
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_no_example_is_left_out():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*RUNS, "compare_seeds.py"}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_says_how_it_is_run(name):
    doc = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8")))
    assert f"python examples/{name}" in doc


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name, tmp_path):
    words, printed = RUNS[name]
    assert printed in run(name, *words, cwd=tmp_path).stdout


def test_the_custom_environment_goes_by_its_name(tmp_path):
    path = os.pathsep.join([str(REPO), str(EXAMPLES)])
    done = subprocess.run(
        [sys.executable, "-m", "collm_agents.cli", "check", "custom_environment:ShareOut"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_seeds_are_compared(tmp_path):
    words = ("--env", "debug/echo-v0", "--algorithms", "mc,collm-dc", "--seeds", "2", "--joint-samples", "64")
    done = run(
        "compare_seeds.py",
        *words,
        "--out",
        "made/out.json",
        "eval.tasks=8",
        "eval.final_tasks=8",
        cwd=tmp_path,
    )
    assert "mc[mean, branching 4]" in done.stdout
    report = json.loads((tmp_path / "made" / "out.json").read_text())
    assert {"command", "commit", "env", "interval", "algorithms", "versions", "machine"} == set(report)
    for name in ("mc", "collm-dc"):
        found = report["algorithms"][name]
        assert [own["seed"] for own in found["runs"]] == [0, 1]
        for own in found["runs"]:
            assert own["command"].startswith(
                f"collm train debug/echo-v0 algorithm={name} seed={own['seed']} "
            )
            assert own["gain"] == pytest.approx((own["end"] - own["start"]) / (own["oracle"] - own["start"]))
            assert (own["joint_samples"], own["oracle"], own["tasks"]) == (64, 1.0, 8)
        one, other = (own["gain"] for own in found["runs"])
        gain, half = found["gain"], 12.706 * abs(one - other) / 2  # t(1) times the standard error of two
        assert gain["mean"] == pytest.approx((one + other) / 2)
        assert gain["high"] - gain["mean"] == pytest.approx(half)
        assert gain["mean"] - gain["low"] == pytest.approx(half)


def test_a_comparison_that_cannot_run_says_why(tmp_path):
    done = run("compare_seeds.py", "--env", "debug/ecko-v0", "--seeds", "1", cwd=tmp_path, code=1)
    assert "unknown environment 'debug/ecko-v0'" in done.stderr
    assert "Traceback" not in done.stderr
