"""Sides run in turn as processes, and what their figures say of each other."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.throughput.shapes import ROOT, Files, Workload, trees
from benchmarks.throughput.spec import Spec

PEER_OF = {"mc": "MAGRPO", "collm-cc": "MAAC", "collm-dc": "IAC"}


class SideFailed(RuntimeError):
    """One side's process ended with an error."""


@dataclass(frozen=True)
class Bench:
    """How everything is measured.

    Attributes:
        files: models and tasks.
        device: `cpu` or `cuda`.
        dtype: of both sides' computation.
        threads: of torch; 0 leaves it to torch.
        core: the processor a side may use; -1 for all.
        repeats: pairs of runs.
        updates: measured in a run.
        peer: interpreter that has comlrl, or None.
        settings: further settings of our side.
    """

    files: Files
    device: str
    dtype: str
    threads: int
    core: int
    repeats: int
    updates: int
    peer: Path | None
    settings: tuple[str, ...] = ()

    def spec(self, workload: Workload, algorithm: str, lengths: str) -> Spec:
        """One side's measurement of a workload; models and tasks are made."""
        models = tuple(self.files.model(name, workload.reply, lengths) for name in workload.models)
        warm = workload.turns  # the peer's buffer is as many of ours as there are turns
        spec = Spec(
            algorithm,
            models,
            self.files.model(workload.critic, workload.reply, lengths),
            "",
            "",
            workload.turns,
            workload.samples[algorithm],
            1,
            warm,
            workload.turns * max(1, round(self.updates / workload.turns)),
            workload.reply,
            self.device,
            self.dtype,
            self.threads,
            self.core,
            settings=(*workload.settings, *self.settings),
        )
        count = trees(workload.rows[algorithm], spec.tree_size)
        # One update's tasks more: the next ones are looked at ahead.
        name = f"{workload.name}-{algorithm}".replace(", ", "-")
        tasks = self.files.tasks(
            name, count * (warm + spec.updates + 1), len(models), workload.prompt, workload.feedback
        )
        feedback = json.loads(tasks.read_text(encoding="utf-8").splitlines()[0])["feedback"]
        return dataclasses.replace(spec, trees=count, tasks=str(tasks), feedback=feedback)


def run_side(module: str, python: str | Path, spec: Spec) -> dict[str, Any]:
    """One side's figures."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [str(python), "-m", f"benchmarks.throughput.{module}", spec.dump()]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SideFailed(f"{module} failed on {spec}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(bench: Bench, workload: Workload, algorithm: str, lengths: str) -> dict[str, Any]:
    """Both sides in turn, as often as asked.

    Raises:
        SideFailed: when one side cannot do it, or the sides did not do the same amount.
    """
    spec = bench.spec(workload, algorithm, lengths)
    ours, peer = [], []
    for number in range(bench.repeats):
        once = dataclasses.replace(spec, seed=number)
        ours.append(run_side("ours", sys.executable, once))
        if bench.peer is not None:
            peer.append(run_side("peer", bench.peer, once))
            check_equal(ours[-1], peer[-1], spec, lengths)
    row: dict[str, Any] = {
        "workload": workload.name,
        "algorithm": algorithm,
        "peer_algorithm": PEER_OF[algorithm],
        "lengths": lengths,
        "spec": {
            **dataclasses.asdict(spec), "models": workload.models, "critic": workload.critic,
            "tasks": "", "feedback": "",
        },
        "ours": ours,
        "peer": peer,
        "ours_s": spread([one["seconds"] for one in ours]),
    }  # fmt: skip
    if peer:
        row["peer_s"] = spread([one["seconds"] for one in peer])
        row["ratio"] = spread([b["seconds"] / a["seconds"] for a, b in zip(ours, peer, strict=True)])
        row["ratio_cpu"] = spread([b["cpu_s"] / a["cpu_s"] for a, b in zip(ours, peer, strict=True)])
        row["ratio_per_word"] = spread([rate(a) / rate(b) for a, b in zip(ours, peer, strict=True)])
    return row


def rate(one: Mapping[str, Any]) -> float:
    """Words of replies per second, drawn and learned from."""
    return one["reply_words"] / one["seconds"]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def check_equal(ours: Mapping[str, Any], peer: Mapping[str, Any], spec: Spec, lengths: str) -> None:
    """Raise unless both sides played as many joint samples and words, and stepped their agents as often."""
    same = ["joint_samples", *(["reply_words"] if lengths == "equal" else [])]
    found = {key: (ours[key], peer[key]) for key in same}
    found["actor steps"] = (ours["steps"]["actor"], peer["steps"]["actor"])
    if wrong := {key: pair for key, pair in found.items() if pair[0] != pair[1]}:
        raise SideFailed(f"the sides did not do the same (ours, peer): {wrong} on {spec}")
    if lengths == "equal":
        full = ours["joint_samples"] * len(spec.models) * spec.max_new_tokens
        if ours["reply_words"] != full:
            raise SideFailed(f"replies of {ours['reply_words']} words in all, not {full}")


SWEEPS: dict[str, tuple[int, ...]] = {
    "agents": (1, 2, 4, 8),
    "prompt": (128, 256, 512, 1024, 2048, 4096),
    "samples": (1, 2, 4, 8, 16),
    "rows": (8, 16, 32, 64, 128),
}


def sweep_spec(bench: Bench, base: Workload, axis: str, value: int) -> Spec:
    """Our side's measurement at one place of an axis; see `sweep`."""
    changed: dict[str, Any] = {"name": f"{base.name}-{axis}-{value}"}
    if axis == "agents":
        rows = base.rows["collm-cc"] * len(base.models) // value
        changed |= {
            "models": base.models[:1] * value,
            "settings": ("team.tuning=lora",),
            "rows": {"collm-cc": rows},
        }
    elif axis == "rows":
        changed["rows"] = {"collm-cc": value}
    elif axis == "prompt":
        changed["prompt"] = value
    else:
        changed["samples"] = {"collm-cc": value}
    return bench.spec(dataclasses.replace(base, **changed), "collm-cc", "equal")


def sweep(bench: Bench, base: Workload, axis: str, value: int) -> dict[str, Any]:
    """Our side alone at one place of an axis, CoLLM-CC throughout.

    Args:
        bench: how.
        base: what the axis is varied on.
        axis: `agents` (adapters on one base; replies drawn at once are kept, so joint samples fall), `prompt`
            (tokens), `samples` (K; the joint samples of an update are kept) or `rows` (joint samples).
        value: the place.
    """
    spec = sweep_spec(bench, base, axis, value)
    runs = [run_side("ours", sys.executable, dataclasses.replace(spec, seed=n)) for n in range(bench.repeats)]
    seconds = spread([one["seconds"] / spec.updates for one in runs])
    rows = spec.trees * spec.tree_size
    shape = {"axis": axis, "value": value, "rows": rows, "agents": len(spec.models), "siblings": spec.samples}
    return {**shape, "update_s": seconds, "runs": runs}


def pairs(workloads: Sequence[Workload], algorithms: Sequence[str], lengths: Sequence[str]) -> Any:
    """Every combination, in the order of the table."""
    return itertools.product(workloads, algorithms, lengths)
