"""Every algorithm learns to write: a fifth of the way from start to oracle, far within the demo's budget."""

import math
from statistics import mean, stdev

import pytest

from collm_agents.algorithms import list_algorithms
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

pytestmark = pytest.mark.learning

SEEDS = (0, 1, 2)
T_975_2 = 4.303  # 0.975 quantile of Student's t with two degrees of freedom
LEAST_GAIN = 0.2


@pytest.mark.parametrize("algorithm", [spec.name for spec in list_algorithms()])
def test_a_fifth_of_the_way_to_the_oracle_is_gained(algorithm, tmp_path):
    gains = []
    for seed in SEEDS:
        overrides = [f"algorithm={algorithm}", f"seed={seed}", "joint_samples=640", "eval.every=640"]
        config = load_config(
            None, presets=["builtin-writing"], overrides=[*overrides, f"out={tmp_path / str(seed)}"]
        )
        result = Experiment(config).run().result
        start, end = (result[edge]["metrics"]["score"]["mean"] for edge in ("start", "end"))
        oracle = result["references"]["oracle"]["metrics"]["score"]["mean"]
        gains.append((end - start) / (oracle - start))
    lower = mean(gains) - T_975_2 * stdev(gains) / math.sqrt(len(gains))
    assert lower >= LEAST_GAIN, gains
