"""Where the time of a run goes, by domain: `python -m benchmarks.profile --out FILE`.

One short run of each algorithm per environment, of the built-in model, on one thread; the phases of `result.json`
(exclusive seconds of the main thread), evaluations and checkpoints left out, as shares of what training took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.learners import ENVS
from benchmarks.throughput.__main__ import host
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

ALGORITHMS = ("mc", "collm-cc", "collm-dc")
SHOWN = ("prefill", "decode", "env", "judge_wait", "actor", "critic", "other")


def profile(env: str, settings: list[str], algorithm: str, samples: int, folder: Path) -> dict[str, Any]:
    """Phases of one run."""
    words = [f"algorithm={algorithm}", f"joint_samples={samples}", "run.threads=1", "eval.tasks=4"]
    words += ["eval.final_tasks=4", "track.tensorboard=false", f"out={folder}", *settings]
    result = Experiment(load_config(env, overrides=words)).run().result
    spent = {name: result["phases_s"][name] for name in SHOWN}
    total = sum(spent.values())
    return {
        "env": env,
        "settings": settings,
        "algorithm": algorithm,
        "joint_samples": result["joint_samples"],
        "ms_per_joint_sample": 1e3 * total / result["joint_samples"],
        "share": {name: seconds / total for name, seconds in spent.items()},
        "overlapped_s": result["overlapped_s"],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--joint-samples", type=int, default=640)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all numbers")
    options = parser.parse_args()
    head = ("environment", "algorithm", "ms per joint sample", *SHOWN, "judged meanwhile, s")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    rows = []
    for env, settings in ENVS.items():
        for algorithm in ALGORITHMS:
            with tempfile.TemporaryDirectory() as scratch:
                row = profile(env, settings, algorithm, options.joint_samples, Path(scratch) / "run")
            shares = [f"{row['share'][name]:.0%}" for name in SHOWN]
            cells = [
                env,
                algorithm,
                f"{row['ms_per_joint_sample']:.1f}",
                *shares,
                f"{row['overlapped_s']:.1f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
            rows.append(row)
    options.out.write_text(json.dumps({"host": host(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
