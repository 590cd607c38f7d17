"""Joint steps per second of every registered environment, on one core, with the oracle's replies.

`python -m benchmarks.environments` takes the oracle's replies to a set of tasks first, and times steps alone:
parsing, scoring, feedback, prompts, history. Resets are timed apart. Where replies are programs (`coding/`), a step
waits for the sandbox, which then has the same core; equal programs are remembered there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from collm_envs import list_envs, make

TASKS = 64


def measure(env_id: str, seconds: float) -> dict[str, float]:
    """Steps and resets per second of one environment at its usual horizon.

    Args:
        env_id: the environment.
        seconds: how long to go on, about.

    Returns:
        `steps_per_s`, `resets_per_s`, `reply_chars` (mean per agent), `steps`.
    """
    env = make(env_id)
    rng = np.random.default_rng(0)
    scripts = []
    for index in range(min(TASKS, len(env.tasks))):
        env.reset(seed=index, options={"task": index})
        scripts.append({agent: env.scripted("oracle", agent, rng) for agent in env.agents})
    spent, resetting, steps, resets = 0.0, 0.0, 0, 0
    while spent + resetting < seconds:
        index = resets % len(scripts)
        begun = time.perf_counter()
        env.reset(seed=index, options={"task": index})
        middle = time.perf_counter()
        while env.agents:
            env.step(scripts[index])
            steps += 1
        spent += time.perf_counter() - middle
        resetting += middle - begun
        resets += 1
    chars = statistics.fmean(len(text) for replies in scripts for text in replies.values())
    return {
        "steps_per_s": steps / spent,
        "resets_per_s": resets / resetting,
        "reply_chars": chars,
        "steps": steps,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix", nargs="?", default="", help="only ids that begin so")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the median is shown")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    ids = [spec.id for spec in list_envs(options.prefix) if "-sparse-" not in spec.id]
    found: dict[str, list[dict[str, Any]]] = {env_id: [] for env_id in ids}
    for _ in range(options.rounds):
        for env_id in ids:
            found[env_id].append(measure(env_id, options.seconds))
    print("| environment | joint steps/s (median, range) | resets/s | characters per reply |")
    print("|---|---|---|---|")
    for env_id, rounds in found.items():
        rates = [one["steps_per_s"] for one in rounds]
        resets = statistics.median(one["resets_per_s"] for one in rounds)
        print(
            f"| `{env_id}` | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {resets:,.0f} | {rounds[0]['reply_chars']:.0f} |"
        )
    if options.out:
        host = {
            "machine": platform.machine(),
            "system": platform.release(),
            "python": platform.python_version(),
        }
        options.out.write_text(json.dumps({"host": host, "rounds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
