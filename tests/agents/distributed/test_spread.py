"""A model that is spread over two processes: the run of one, within rounding, and its checkpoints go both ways."""

import os
import signal

import pytest
import ray
import torch
from run_files import rows, saved

from collm_agents.callbacks import Callback
from collm_agents.distributed.placement import MemberLost
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

pytestmark = pytest.mark.system
SPREAD = ["placement.apart=true", "placement.agents.agent_0.ranks=2"]


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def experiment(out, *more):
    # An odd number of batches, so that one process has fewer, and a critic beside the agent.
    words = [
        "algorithm=collm-dc",
        "num_turns=2",
        "joint_samples=72",
        "rollout.samples=2",
        "rollout.buffer=16",
        "run.threads=1",
    ]
    words += [
        "rollout.buffer=16",
        "learner.microbatch_tokens=96",
        "learner.kl_coef=0.01",
        "learner.value_norm=true",
    ]
    words += ["learner.lr=1e-4", "learner.critic_lr=1e-4", "learner.lr_schedule=constant", "eval.every=1000"]
    words += ["eval.tasks=4", "eval.final_tasks=4", "checkpoint.every=1", "track.tensorboard=false"]
    words += ["team.agents.agent_1.script=novice", f"out={out}", *more]
    return Experiment(load_config("debug/handshake-v0", overrides=words))


class Kill(Callback):
    """Kills the second process of the agent at the third update, after looking at what each holds."""

    def __init__(self):
        self.held = []

    def on_step(self, run, metrics):
        if metrics["updates"] < 3:
            return
        for actor in run.team.homes._actors["agent_0"]:
            self.held.append(ray.get(actor.__ray_call__.remote(numbers)))
        os.kill(ray.get(actor.__ray_call__.remote(lambda home: os.getpid())), signal.SIGKILL)


class Stop(Callback):
    """Ends a run at an update, which is then not kept."""

    def __init__(self, at):
        self.at = at

    def on_step(self, run, metrics):
        if metrics["updates"] == self.at:
            raise KeyboardInterrupt


def numbers(home):
    """How many numbers of the agent's model are here, and how many there are."""
    trained = home._sides["agent_0"].parameters()
    here = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in trained)
    return here, sum(p.numel() for p in trained)


def test_two_processes_hold_one_model_and_learn_what_one_learns(cluster, tmp_path):
    """In one, spread until one is killed, spread again, then in one: within rounding the run always in one."""
    one, two, kill = tmp_path / "one", tmp_path / "two", Kill()
    experiment(one).run()
    with pytest.raises(KeyboardInterrupt):
        experiment(two).run([Stop(2)])
    with pytest.raises(MemberLost, match=r"the process of agent_0 .* died.*--resume"):
        Experiment.resume(two, SPREAD, callbacks=[kill])
    with pytest.raises(KeyboardInterrupt):
        Experiment.resume(two, callbacks=[Stop(4)])
    Experiment.resume(two, ["placement.apart=false"])
    (first, whole), (second, _) = kill.held
    assert max(first, second) < 0.75 * whole < first + second  # embeddings are in both
    mine, theirs = rows(one), rows(two)
    updates = [row for row in theirs if row["kind"] == "update"]
    assert ["placement/rows_bytes" in row for row in updates] == [False, True, True, False, False, False]
    assert len(mine) == len(theirs) > 4
    for row, other in zip(mine, theirs, strict=True):
        assert row.pop("kind") == other.pop("kind")
        found = {k: v for k, v in other.items() if not k.startswith("placement/")}
        assert found == pytest.approx(row, rel=2e-3, abs=2e-4)
    weights, others = saved(one), saved(two)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert value.shape == others[name].shape
        assert torch.allclose(value.float(), others[name].float(), rtol=1e-3, atol=2e-5), name
