"""Agents and critics in processes of their own, on a cluster of three nodes: the same run, and what is where.

Kinds of teams and critics are `test_homes`'.
"""

import gc
import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest
import ray
import torch
from run_files import rows, saved

from collm_agents import cli
from collm_agents.callbacks import Callback
from collm_agents.distributed.parcels import unpack
from collm_agents.distributed.placement import KINDS, Homes, MemberLost
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.errors import InputError

pytestmark = pytest.mark.system
APART = "placement.apart=true"
DOCS = Path(__file__).parents[3] / "docs"


def words(algorithm, *more):
    plain = [f"algorithm={algorithm}", "num_turns=2", "rollout.samples=2", "rollout.buffer=16"]
    plain += ["joint_samples=64", "eval.every=32", "eval.tasks=4", "eval.final_tasks=4", "run.threads=1"]
    plain += ["learner.kl_coef=0.01", "learner.minibatches=2", "learner.value_targets=refreshed"]
    return [*plain, "checkpoint.every=1", "track.tensorboard=false", *more]


def experiment(algorithm, *more):
    return Experiment(load_config("debug/handshake-v0", overrides=words(algorithm, *more)))


def assert_same_run(one, other):
    first, second = (
        [{k: v for k, v in row.items() if not k.startswith("placement/")} for row in rows(folder)]
        for folder in (one, other)
    )
    assert first == second
    assert len(first) > 5
    assert any(row.get("grad_norm/agent_0", 0) > 1e-3 for row in first)
    here, there = saved(one), saved(other)
    assert here.keys() == there.keys()
    assert not [name for name in here if not here[name].equal(there[name])]


class At(Callback):
    """Does something at an update."""

    def __init__(self, update, do):
        self.update, self.do = update, do

    def on_step(self, run, metrics):
        if metrics["updates"] == self.update:
            self.do(run)


def kill(run, home):
    os.kill(int(run.team.homes.where[home].split()[0]), signal.SIGKILL)


def stop(run):
    raise KeyboardInterrupt


def wait_until_all_have_gone():
    until = time.monotonic() + 20  # the cluster hears of the dead after a while
    while ray.available_resources()["CPU"] < 6:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_run_apart_outlives_its_processes_and_goes_on_here_and_apart_again(cluster, tmp_path, capsys):
    """CoLLM-CC, two agents and the critic on nodes of their choice: equal to one process left in peace."""
    experiment("collm-cc", f"out={tmp_path / 'one'}").run()
    out, found = tmp_path / "run", {}

    def look(run):
        found.update(run.team.homes.where)
        kill(run, "agent_1")

    nodes = ["placement.agents.agent_0.node=node2", "placement.critic.node=node3", APART]
    with pytest.raises(MemberLost, match=r"the process of agent_1 \(\d+ at .*--resume") as lost:
        experiment("collm-cc", *nodes, f"out={out}").run([At(2, look)])
    assert len(str(lost.value).splitlines()) == 1
    assert len({*found.values(), f"{os.getpid()} here"}) == 4
    wait_until_all_have_gone()
    with pytest.raises(KeyboardInterrupt):
        Experiment.resume(out, ["placement.apart=false"], [At(3, stop)])
    Experiment.resume(out, [APART])
    assert_same_run(tmp_path / "one", out)
    updates = [row for row in rows(out) if row["kind"] == "update"]
    assert ["placement/rows_bytes" in row for row in updates] == [True, False, True, True, True]


# -- what is where -------------------------------------------------------------------------------------------


LEAST = 5000  # numbers of a tensor that is looked at: small ones may be alike by chance


def digest(tensor):
    return hashlib.sha256(
        tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    ).hexdigest()


def tensors_here(_=None):
    """Bytes of all tensors of a process that could be weights or moments, by their digests."""
    found = {}
    for thing in gc.get_objects():
        try:
            fits = isinstance(thing, torch.Tensor) and thing.device.type != "meta" and thing.numel() > LEAST
        except ReferenceError:  # a weak one whose object has gone
            continue
        if fits:
            found[digest(thing)] = thing.nbytes
    return found


def learned(home):
    """Digests of all that has been changed by learning: weights, and their moments."""
    found = []
    for side in home._sides.values():
        moved = side.optimizer.state
        found += [digest(p) for p in moved if p.numel() > LEAST]
        found += [digest(x) for own in moved.values() for x in own.values() if x.numel() > LEAST]
    return found


class Tapped(Homes):
    """Keeps what goes out and what comes back."""

    tape: ClassVar[list] = []

    def call(self, home, method, *args):
        self.tape.append((home, method, args))
        return super().call(home, method, *args)

    def heard(self, home, kind, given):
        self.tape.append((home, "answer", (kind, given.data)))
        return super().heard(home, kind, given)


def asked(tape, home, what):
    """Unpacked arguments of what a home's members were asked."""
    found = [args for name, method, args in tape if (name, method) == (home, "ask")]
    return [[unpack(data) for data in args[2]] for args in found if args[1] == what]


def test_with_critics_of_their_own_agents_share_nothing_but_texts_and_rewards(cluster, tmp_path, monkeypatch):
    """CoLLM-DC: no process holds another's weights or moments, and none is sent what is another's."""
    experiment("collm-dc", f"out={tmp_path / 'one'}").run()
    monkeypatch.setattr("collm_agents.distributed.placement.Homes", Tapped)
    Tapped.tape.clear()
    homes, seen = ("agent_0", "agent_1"), {}

    def look(run):
        for home in homes:
            (actor,) = run.team.homes._actors[home]
            seen[home] = [ray.get(actor.__ray_call__.remote(find)) for find in (tensors_here, learned)]
        seen["driver"] = tensors_here(), []
        seen["told"], seen["tape"] = run.team.homes.told(), list(Tapped.tape)

    experiment("collm-dc", APART, f"out={tmp_path / 'apart'}").run([At(1, look)])
    assert_same_run(tmp_path / "one", tmp_path / "apart")
    for home in homes:
        held, own = seen[home]
        assert len(own) == len(set(own)) > 60  # weights and two moments, of the agent and its critic
        assert set(own) <= held.keys()
        for other in {*homes, "driver"} - {home}:
            assert not set(own) & seen[other][0].keys()
    check_tape(seen["tape"], seen["told"], sum(seen["agent_0"][0].values()))


def check_tape(tape, told, weights):
    """What went between the start and the first update's end: each agent's own rows, queries and numbers."""
    # The first checkpoint ends with the moments.
    begun = max(i for i, (_, method, args) in enumerate(tape) if (method, args[:1]) == ("answer", ("other",)))
    since = tape[begun + 1 :]
    assert {method for _, method, _ in since} == {"act", "ask", "release", "answer"}
    for number, home in enumerate(("agent_0", "agent_1")):
        requests = [unpack(args[0]) for name, method, args in since if (name, method) == (home, "act")]
        assert {one.agent for batch in requests for one in batch} == {home}
        ((rows_, advantage, weight, _),) = asked(since, home, "update")
        assert len(rows_) == len(advantage) == len(weight) > 4
        drawn = {one.prompt for batch in requests for one in batch}
        assert set(rows_.prompt) <= drawn
        ((queries, _),) = asked(since, home, "begin")
        ((other, _),) = asked(since, f"agent_{1 - number}", "begin")
        assert len(queries) == len(other)
        assert not set(queries) & set(other)  # its own history names it
        assert [len(target) for target, *_ in asked(since, home, "fit")] == [len(queries)] * 2
    sent = sum(len(data) for _, method, args in since for data in _packed(method, args))
    counted = {kind: told[f"placement/{kind}_bytes"] for kind in KINDS}
    assert sum(counted.values()) == sent
    assert all(counted.values())
    assert sent < weights / 100


def _packed(method, args):
    if method == "answer":
        return [args[1]]
    return [args[0]] if method == "act" else [*args[2], args[3]] if method == "ask" else []


# -- the command, its metrics, and what goes wrong -----------------------------------------------------------


def test_the_command_leaves_the_same_run_and_tells_what_was_sent(cluster, tmp_path, capsys):
    for name, more in (("one", []), ("apart", [APART])):
        given = words("mc", *more, f"out={tmp_path / name}")
        assert cli.main(["train", "debug/handshake-v0", *given]) == 0
    assert_same_run(tmp_path / "one", tmp_path / "apart")
    lines = (tmp_path / "apart" / "metrics.jsonl").read_text("utf-8").splitlines()
    updates = [row for row in map(json.loads, lines) if row["kind"] == "update"]
    for row in updates:
        for home in ("agent_0", "agent_1"):
            worked, idle = row[f"placement/worked_s/{home}"], row[f"placement/idle/{home}"]
            assert 0 < worked < row["update_s"]
            assert idle == pytest.approx(1 - worked / row["update_s"], abs=0.1)
        assert row["placement/rows_bytes"] > row["placement/advantages_bytes"] > 0
        assert row["placement/queries_bytes"] == row["placement/targets_bytes"] == 0  # there is no critic
    written = {re.sub("agent_.$", "<member>", name) for name in updates[0] if name.startswith("placement/")}
    page = (DOCS / "signals.md").read_text(encoding="utf-8")
    assert written == set(re.findall(r"^\| `(placement/[^`]+)`", page, re.MULTILINE))


def test_what_cannot_be_had_is_one_line(cluster, tmp_path):
    out = f"out={tmp_path / 'run'}"
    with pytest.raises(
        MemberLost, match=r"no process for agent_0 in 1 s: it asks for CPU 64, and the cluster"
    ):
        experiment("mc", APART, "placement.cpus=64", "runner.patience_s=1", out).run()
    with pytest.raises(MemberLost, match=r"no process for agent_0 in 1 s: it asks for CPU 1, nowhere 0.001"):
        experiment("mc", APART, "placement.agents.agent_0.node=nowhere", "runner.patience_s=1", out).run()
    wrong = ["tuning=lora", "team.lora.target_modules=nothing", "team.agents.agent_1.script=novice"]
    with pytest.raises(InputError, match=r"team.lora.target_modules='nothing'"):  # told by the process
        experiment("mc", APART, *wrong, out).run()
    assert not (tmp_path / "run").exists()
    wait_until_all_have_gone()
