"""What `--dry-run` says a run will take, beside what it then takes."""

import json
import subprocess
import sys

import pytest

from benchmarks.throughput.models import make_model

pytestmark = pytest.mark.system

# One process per run: what another one's allocator kept would be counted. Everything is imported before the meter
# starts, so that only models and what is done with them is measured.
RUN = """
import json, sys
import collm_agents.collect, peft, tensorboard, torch, transformers.models.qwen2.modeling_qwen2
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
experiment = Experiment(load_config("writing/tldr-v0", overrides=sys.argv[1:]))
plan = experiment.plan().memory
measured = experiment.run().result["peak_memory"]
print(json.dumps({"plan": plan.peak, "measured": measured, "parts": vars(plan)}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model("4m", folder, end=0.0)  # replies of full length, as the plan assumes
    return folder


@pytest.mark.parametrize(
    ("algorithm", "tuning", "more"),
    [
        ("mc", "full", ()),
        ("collm-cc", "full", ()),
        ("mc", "lora", ()),
        ("collm-cc", "lora", ("learner.gradient_checkpointing=true",)),
    ],
    ids=lambda value: "checkpointing" if value and isinstance(value, tuple) else None,
)
def test_the_plan_is_within_15_percent_of_the_peak(model, tmp_path, algorithm, tuning, more):
    words = [
        f"algorithm={algorithm}",
        f"tuning={tuning}",
        f"model={model}",
        f"out={tmp_path / 'run'}",
        "team.sampling.max_new_tokens=64",
        "rollout.samples=4",
        "rollout.buffer=16",
        "joint_samples=32",
        "learner.entropy_coef=0.001",  # so that no row is skipped for want of an advantage
        "eval.tasks=4",
        "eval.final_tasks=4",
        "run.threads=1",
        *more,
    ]
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["plan"] == pytest.approx(found["measured"], rel=0.15), found
