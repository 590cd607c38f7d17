"""Updates on CUDA: a CPU's gradients, with recomputed activations too, in planned memory; and something learned."""

import json
import subprocess
import sys

import builders
import numpy as np
import pytest
import torch

from benchmarks.throughput.models import make_model
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

pytestmark = pytest.mark.gpu

AGENTS = ("agent_0", "agent_1")


def gradients(players, rollouts, checkpointing=False):
    """Gradients of a weighted sum of log-probs and entropies, by agent and name, on the CPU in float64."""
    rows, found = rollouts.rows, {}
    for backbone in players.backbones.values():
        backbone.checkpointing = checkpointing
    for a, agent in enumerate(rollouts.agents):
        own = np.flatnonzero(rows.agent == a)
        picked = [rows.prompt[i] for i in own], [rows.reply[i] for i in own]
        for scored in players.score(agent, *picked, 10**6, entropy=True):
            weight = torch.as_tensor(np.cos(scored.rows + 1.0), dtype=torch.float32)[:, None]
            weight = weight.to(scored.logprob.device)
            (weight * scored.logprob + 0.1 * scored.entropy).sum().backward()
        for name, parameter in players.backbones[agent].parameters(agent).items():
            if parameter.grad is not None:
                found[agent, name] = parameter.grad.double().cpu()
            parameter.grad = None
    return found


def distance(one, other):
    """Norm of the difference as a share of the norm."""
    assert one.keys() == other.keys()
    apart = sum(float((one[k] - other[k]).square().sum()) for k in one)
    return (apart / sum(float(g.square().sum()) for g in one.values())) ** 0.5


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("model", ["qwen3", "llama", "gemma2"])
def test_packed_gradients_are_those_of_a_cpu(device, model, tuning):
    here = builders.team(AGENTS, model, tuning, num_turns=2)
    there = builders.team(AGENTS, model, tuning, num_turns=2, device=device, dtype="float32")
    rollouts = builders.played(here, (4, 2), tasks=4)
    assert all(b.packs for b in there.backbones.values())
    assert distance(gradients(here, rollouts), gradients(there, rollouts)) <= 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_recomputed_activations_give_the_same_gradients(device, tuning, dtype):
    players = builders.team(AGENTS, "qwen3", tuning, num_turns=2, device=device, dtype=dtype)
    rollouts = builders.played(players, (4, 2), tasks=4)
    stored, again = (gradients(players, rollouts, on) for on in (False, True))
    assert distance(stored, again) <= (1e-5 if dtype == "float32" else 1e-2)  # sums of bfloat16 in any order


# One process, so that the peak is the run's; see tests/system/test_memory.py.
RUN = """
import json, sys
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
experiment = Experiment(load_config("writing/tldr-v0", overrides=sys.argv[1:]))
plan = experiment.plan().memory
print(json.dumps({"plan": plan.peak, "measured": experiment.run().result["peak_memory"], "parts": vars(plan)}))
"""


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_the_plan_is_within_15_percent_of_the_peak(device, tmp_path, checkpointing):
    folder = tmp_path / "model"
    make_model("25m" if device == "cuda" else "1m", folder, end=0.0)
    words = [
        "algorithm=collm-cc", "tuning=lora", f"model={folder}", f"run.device={device}", f"out={tmp_path / 'run'}",
        "team.sampling.max_new_tokens=128", "rollout.samples=4", "rollout.buffer=64", "joint_samples=128",
        "learner.entropy_coef=0.001", "eval.tasks=4", "eval.final_tasks=4", "run.threads=1",
        f"learner.gradient_checkpointing={checkpointing}",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["plan"] == pytest.approx(found["measured"], rel=0.15), found


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("algorithm", ["mc", "collm-cc"])
def test_a_short_run_learns(device, tmp_path, algorithm, tuning):
    words = [
        f"algorithm={algorithm}", f"team.tuning={tuning}", f"critic.tuning={tuning}", "joint_samples=3840",
        "rollout.buffer=128", "team.sampling.max_new_tokens=4", "eval.every=1000000", "eval.final_tasks=256",
        f"run.device={device}", "run.threads=1", f"out={tmp_path / 'run'}",
    ]  # fmt: skip
    if algorithm == "mc":
        words.remove(f"critic.tuning={tuning}")
    if tuning == "lora":
        words += ["learner.lr=5e-3", "learner.critic_lr=5e-3", "learner.lr_schedule=linear"]
    result = Experiment(load_config("debug/echo-v0", overrides=words)).run().result
    start, end = (result[edge]["metrics"]["success"]["mean"] for edge in ("start", "end"))
    assert start <= 0.3
    assert end >= 0.9
