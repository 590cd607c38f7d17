"""Training with workers on a cluster of three nodes: the same run, whoever plays it and whoever dies."""

import json
import re
from pathlib import Path

import pytest
import ray
from builders import folder
from run_files import rows, saved

from collm_agents.callbacks import Callback
from collm_agents.distributed.collector import WorkersLost
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs import EnvFault

TIMED = ("prefill", "decode", "env", "judge_wait")  # left out of `rows`
pytestmark = pytest.mark.system


def run(out, workers, *more, env="failing_env:Doomed", callbacks=(), **doomed):
    words = [f"model={folder('qwen3')}", "tuning=lora", "team.lora.rank=2", "team.sampling.max_new_tokens=5"]
    words += [
        "algorithm=collm-cc",
        "num_turns=2",
        "rollout.samples=2",
        "rollout.buffer=16",
        "joint_samples=48",
    ]
    words += ["eval.every=32", "eval.tasks=3", "eval.final_tasks=3", "learner.lr=0.01", "run.threads=1"]
    words += ["track.tensorboard=false", "runner.shard=1", f"workers={workers}", f"out={out}", *more]
    experiment = Experiment(load_config(env, overrides=words))
    vars(experiment.env).update(doomed)
    return experiment.run(callbacks)


def plain(folder):
    """Rows without what is about workers."""
    return [{k: v for k, v in row.items() if not k.startswith("workers/")} for row in rows(folder)]


def told(folder, name):
    """A number of every update."""
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [row[name] for row in map(json.loads, lines) if row["kind"] == "update"]


def assert_same_run(one, other):
    assert plain(one) == plain(other)
    assert len(plain(one)) > 4
    first, second = saved(one), saved(other)
    assert first.keys() == second.keys()
    assert not [name for name in first if not first[name].equal(second[name])]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The run that all others are compared with: no Ray."""
    out = tmp_path_factory.mktemp("local") / "run"
    run(out, 0)
    return out


def test_one_worker_gives_the_run_of_this_process_bit_for_bit(cluster, local, tmp_path):
    run(tmp_path / "run", 1)
    assert_same_run(tmp_path / "run", local)
    assert told(tmp_path / "run", "workers/lost_samples") == [0, 0, 0]
    assert told(tmp_path / "run", "workers/up") == [1, 1, 1]
    assert ray.available_resources()["CPU"] == 6  # the worker has gone
    written = {name for row in rows(tmp_path / "run") for name in row if name.startswith("workers/")}
    page = (Path(__file__).parents[3] / "docs" / "signals.md").read_text(encoding="utf-8")
    assert written | {f"workers/{n}_s" for n in TIMED} == set(
        re.findall(r"^\| `(workers/\w+)`", page, re.MULTILINE)
    )


@pytest.mark.parametrize(("workers", "doom"), [(4, "worker"), (2, "node")])
def test_what_is_killed_costs_nothing_but_what_it_was_at(cluster, local, tmp_path, workers, doom):
    # A driver does not outlive its own node.
    spared = ray.get_runtime_context().get_node_id() if doom == "node" else ""
    run(tmp_path / "run", workers, doom=doom, once=str(tmp_path / "once"), spared=spared)
    assert (tmp_path / "once").exists()
    assert_same_run(tmp_path / "run", local)
    lost = sum(told(tmp_path / "run", "workers/lost_samples"))
    # A task is two paths of two turns. Both workers may have been on the node.
    assert lost in ({4} if doom == "worker" else {4, 8})


def test_what_goes_wrong_in_a_worker_is_told_as_if_it_had_happened_here(cluster, tmp_path):
    with pytest.raises(EnvFault, match=r"failing_env:Failing, task .*the scorer broke"):
        run(tmp_path / "run", 1, env="failing_env:Failing")


def test_a_shard_that_kills_its_workers_ends_the_run_and_is_named(cluster, tmp_path):
    with pytest.raises(WorkersLost, match="3 workers died at the tasks builtin:train#"):
        run(tmp_path / "run", 1, doom="worker")


def test_without_room_for_a_worker_the_run_says_what_is_missing(cluster, tmp_path):
    with pytest.raises(
        WorkersLost, match="no worker came up in 1 s; each asks for CPU 64, and the cluster has"
    ):
        run(tmp_path / "run", 1, "runner.cpus=64", "runner.patience_s=1")


# -- played ahead ---------------------------------------------------------------------------------------------

AHEAD = ("runner.staleness=1", "run.joint_samples=80")


class Interrupted(Exception):
    """What ends a run half-way."""


class Interrupt(Callback):
    """Ends a run after an update, while the next one is being played."""

    def __init__(self, joint_samples):
        self.at = joint_samples

    def on_step(self, run, metrics):
        if run.progress.joint_samples == self.at:
            raise Interrupted


class Mark(Callback):
    """Writes a file at the first update's end: from then on workers die."""

    def __init__(self, file):
        self.file = file

    def on_step(self, run, metrics):
        self.file.touch()


@pytest.fixture(scope="module")
def ahead(cluster, tmp_path_factory):
    """Five updates, those between evaluations played by the weights of the update before."""
    out = tmp_path_factory.mktemp("ahead") / "run"
    run(out, 2, *AHEAD)
    return out


def test_nothing_is_played_ahead_of_an_evaluation_and_never_by_more_than_one_update(ahead, local, tmp_path):
    # Evaluations follow the second and the fourth update, and the fifth is the last.
    assert told(ahead, "workers/staleness") == [0, 1, 0, 1, 0]
    assert all(
        0 <= share <= 1 for name in ("idle", "learner_idle") for share in told(ahead, f"workers/{name}")
    )
    first, later = ([row for row in plain(out) if row["kind"] == "update"] for out in (local, ahead))
    # The same weights play the first update of both; the second one's are older here.
    assert first[0]["score"] == later[0]["score"]
    assert not any(name.startswith("sampler_gap") for name in later[0])
    assert max(abs(row["ratio/agent_0/t0"] - 1) for row in later if "ratio/agent_0/t0" in row) > 1e-3


def test_ahead_too_the_number_of_workers_changes_nothing(ahead, cluster, tmp_path):
    run(tmp_path / "run", 4, *AHEAD)
    assert_same_run(tmp_path / "run", ahead)
    assert told(tmp_path / "run", "workers/staleness") == [0, 1, 0, 1, 0]


def test_a_run_that_was_interrupted_while_it_played_ahead_goes_on_as_if_it_had_not(ahead, cluster, tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path / "run", 2, *AHEAD, callbacks=[Interrupt(48)])
    assert told(tmp_path / "run", "workers/staleness") == [0, 1, 0]
    Experiment.resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", ahead)


def test_what_goes_wrong_ahead_is_told_at_the_next_update(cluster, tmp_path):
    with pytest.raises(WorkersLost, match="3 workers died at the tasks builtin:train#"):
        run(
            tmp_path / "run",
            1,
            *AHEAD,
            doom="worker",
            after=str(tmp_path / "after"),
            callbacks=[Mark(tmp_path / "after")],
        )
    assert told(tmp_path / "run", "workers/staleness") == [0]
