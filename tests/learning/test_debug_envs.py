"""Every algorithm solves both debug environments, from a warm start that seldom does, within a minute."""

import pytest

from collm_agents.algorithms import list_algorithms
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

pytestmark = pytest.mark.learning

# Joint samples, and how many make an update: with fewer, handshake goes on wandering just below the mark.
BUDGET = {"debug/echo-v0": (3840, 128), "debug/handshake-v0": (12800, 256)}


@pytest.mark.parametrize("env", sorted(BUDGET))
@pytest.mark.parametrize("algorithm", [spec.name for spec in list_algorithms()])
def test_the_debug_environments_are_solved(algorithm, env, tmp_path):
    samples, buffer = BUDGET[env]
    config = load_config(
        env,
        overrides=[
            f"algorithm={algorithm}",
            f"joint_samples={samples}",
            f"rollout.buffer={buffer}",
            "team.sampling.max_new_tokens=4",
            "eval.every=1000000",
            "eval.final_tasks=256",
            "run.threads=1",
            f"out={tmp_path / 'run'}",
        ],
    )
    result = Experiment(config).run().result
    start, end = (result[edge]["metrics"]["success"] for edge in ("start", "end"))
    assert start["mean"] <= 0.3
    assert end["mean"] >= 0.9, end
