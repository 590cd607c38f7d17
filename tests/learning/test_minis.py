"""CoLLM-CC learns the coding and game minis: quickly in CI, to the bar of a fifth in the slow tests."""

import math
from statistics import mean, stdev

import pytest

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.sandbox import best_tier, probe

pytestmark = pytest.mark.learning

T_975_2 = 4.303  # 0.975 quantile of Student's t with two degrees of freedom
LEAST_GAIN = 0.2
CELLS = {
    "coding/compose-mini-v0": (["num_turns=2"], 960),
    "games/strbuild-mini-v0": (["num_turns=2", "reward=sparse"], 1280),
    "games/housebuild-mini-v0": (["num_turns=2"], 768),
}


def gain(env_id, folder, *settings):
    """The share of the way from start to oracle that one run goes, on held-out tasks, sampled."""
    if env_id.startswith("coding/") and best_tier(probe()) not in ("full", "no-userns"):
        pytest.skip("this host confines nothing")
    fixed = ["algorithm=collm-cc", "track.tensorboard=false", f"out={folder}"]
    result = Experiment(load_config(env_id, overrides=[*settings, *fixed])).run().result
    start, end = (result[edge]["metrics"]["score"]["mean"] for edge in ("start", "end"))
    oracle = result["references"]["oracle"]["metrics"]["score"]["mean"]
    return (end - start) / (oracle - start)


@pytest.mark.parametrize("env_id", CELLS)
def test_a_short_run_gains(env_id, tmp_path):
    settings, samples = CELLS[env_id]
    found = gain(env_id, tmp_path / "run", *settings, f"joint_samples={samples}", f"eval.every={samples}")
    assert found >= LEAST_GAIN


@pytest.mark.slow
@pytest.mark.parametrize("env_id", CELLS)
def test_a_fifth_of_the_way_is_sure(env_id, tmp_path):
    settings, _ = CELLS[env_id]
    gains = [
        gain(env_id, tmp_path / str(seed), *settings, f"seed={seed}", "joint_samples=8000")
        for seed in range(3)
    ]
    assert mean(gains) - T_975_2 * stdev(gains) / math.sqrt(len(gains)) >= LEAST_GAIN, gains
