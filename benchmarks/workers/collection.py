"""Throughput of collection by the number of workers, and what playing ahead gains, where scoring waits."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from collm_agents.distributed.collector import on_workers
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

ENV = "benchmarks.workers.waiting:Waiting"
PROFILE = Path(__file__).parents[1] / "results" / "2026-11-26-profile.json"
SHARD, SHARDS = 2, 8
GENERATION = ("prefill", "decode", "env")


def measured_ratio() -> dict[str, float]:
    """Seconds of waiting for the sandbox over those of generation, by algorithm, in the profile's coding runs.

    They were made one after the other in one process, and the sandbox runs equal programs once: the first, `mc`,
    is the only one whose programs had not been run before. It is the algorithm that is measured here, too.
    """
    rows = [row for row in json.loads(PROFILE.read_text())["rows"] if row["env"].startswith("coding/")]
    waits = {row["algorithm"]: row["ms_per_joint_sample"] * row["share"]["judge_wait"] for row in rows}
    works = {
        row["algorithm"]: row["ms_per_joint_sample"] * sum(row["share"][name] for name in GENERATION)
        for row in rows
    }
    return {name: waits[name] / works[name] for name in waits}


def experiment(workers: int, wait_s: float, *more: str) -> Experiment:
    """A run of the waiting game."""
    words = ["num_turns=2", "algorithm=mc", "rollout.samples=4", f"rollout.buffer={8 * SHARD * SHARDS}"]
    words += ["joint_samples=1000000", "run.threads=1", f"workers={workers}", f"runner.shard={SHARD}"]
    made = Experiment(load_config(ENV, overrides=[*words, *more]))
    made.env.wait_s = wait_s
    return made


def throughput(workers: int, wait_s: float, updates: int) -> dict[str, Any]:
    """Joint samples a second over some updates' collection, after one to warm up."""
    own = experiment(workers, wait_s)
    made = own.build()
    tasks = [own.env.tasks[i % len(own.env.tasks)] for i in range(SHARD * SHARDS)]
    with on_workers(own, made.team, made.clock) as collector:
        first, up = 0, 0.0
        while up < workers:
            collector.collect(tasks, first)
            first, up = first + 1, collector.metrics["workers/up"]
        rates, told = [], []
        for update in range(first, first + updates):
            start = time.perf_counter()
            rollouts = collector.collect(tasks, update)
            rates.append(len(rollouts.nodes) / (time.perf_counter() - start))
            told.append(collector.metrics)

    def mean(name: str) -> float:
        return statistics.mean(one[name] for one in told)

    work_s = sum(mean(f"workers/{name}_s") for name in GENERATION)
    return {
        "workers": workers,
        "wait_s": wait_s,
        "per_second": rates,
        "median": statistics.median(rates),
        "busy": mean("workers/busy"),
        "work_s": work_s,
        "waited_s": mean("workers/judge_wait_s"),
        "ratio": mean("workers/judge_wait_s") / work_s,
        "load": os.getloadavg()[0],
    }


def efficiency(counts: tuple[int, ...], ratio: float, updates: int, rounds: int) -> dict[str, Any]:
    """Throughput a worker relative to one worker's, at the same shard; the counts alternate.

    Args:
        counts: workers, one first.
        ratio: seconds of waiting over those of generation in one worker.
        updates: of each measurement.
        rounds: measurements of each count.
    """
    alone = throughput(1, 0.0, updates)
    turns = SHARDS * 2
    wait_s = ratio * alone["work_s"] / turns  # all programs of a shard's turn are waited for at once
    found = [throughput(count, wait_s, updates) for _ in range(rounds) for count in counts]
    by_count = {c: [r for r in found if r["workers"] == c] for c in counts}
    medians = {c: statistics.median(r["median"] for r in rows) for c, rows in by_count.items()}
    # Within a round, so that both bore the same other work on the machine.
    shares = {
        c: [r["median"] / (c * one["median"]) for r, one in zip(rows, by_count[counts[0]], strict=True)]
        for c, rows in by_count.items()
    }
    return {
        "asked_ratio": ratio,
        "wait_s": wait_s,
        "without_wait": alone,
        "rows": found,
        "median": medians,
        "efficiency": {c: statistics.median(own) for c, own in shares.items()},
        "efficiency_by_round": shares,
        "busy": {c: statistics.median(r["busy"] for r in rows) for c, rows in by_count.items()},
        # Equal work that takes more seconds with more workers: they wait for cores.
        "work_s": {c: statistics.median(r["work_s"] for r in rows) for c, rows in by_count.items()},
    }


def overlap(workers: int, wait_s: float, updates: int) -> dict[str, Any]:
    """Seconds of an update with and without playing ahead, in whole runs."""
    found: dict[str, Any] = {}
    for staleness in (0, 1):
        with tempfile.TemporaryDirectory() as folder:
            samples = 8 * SHARD * SHARDS * updates
            more = (f"run.joint_samples={samples}", f"runner.staleness={staleness}", "eval.points=1")
            more += ("eval.tasks=2", "eval.final_tasks=2", "track.tensorboard=false", f"out={folder}/run")
            result = experiment(workers, wait_s, *more).run()
            lines = (result.run_dir / "metrics.jsonl").read_text("utf-8").splitlines()
            rows = [row for row in map(json.loads, lines) if row["kind"] == "update"][2:-1]
        medians = {
            name: statistics.median(row[name] for row in rows)
            for name in ("update_s", "workers_s", "actor_s", "workers/idle", "workers/learner_idle")
        }
        found[str(staleness)] = {
            **medians,
            "stale": [row["workers/staleness"] for row in rows],
            "load": os.getloadavg()[0],
        }
    found["gain"] = found["0"]["update_s"] / found["1"]["update_s"]
    return found
