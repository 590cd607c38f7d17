"""Every algorithm and every baseline on every mini environment: one table.

`python -m benchmarks.learners --out benchmarks/results/FILE.json` trains each entry of `TRAINED` over seeds with
`examples/compare_seeds.py`, plays the untrained teams of `PROTOCOLS`, writes a JSON file and prints a table: start,
end and oracle on held-out tasks, sampled, and the share of the way gained. An environment whose file is there
already is not run again, so it can be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVS = {
    "writing/tldr-mini-v0": [],
    "coding/compose-mini-v0": ["num_turns=2"],
    "games/strbuild-mini-v0": ["num_turns=2", "reward=sparse"],
    "games/housebuild-mini-v0": ["num_turns=2"],
}
TRAINED = {
    "MAGRPO": "mc",
    "MAREINFORCE": "mc+baseline=none",
    "MARLOO": "mc+baseline=leave_one_out",
    "MAREMAX (max of siblings)": "mc+baseline=max",
    "ReMax (greedy)": "mc+baseline=greedy",
    "MC, crossed replies": "mc+rollout.joint_mode=cross+rollout.samples=3",
    "CoLLM-CC": "collm-cc",
    "CoLLM-CC, Q critic": "collm-cc+algorithm.critic=q",
    "CoLLM-DC": "collm-dc",
    "CoLLM-DC, Q critic": "collm-dc+algorithm.critic=q",
    "CoLLM-DC, shared backbone": "collm-dc+critic.share_backbone=true",
    "single agent, GRPO": "mc+num_agents=1",
    "single agent, AC": "collm-cc+num_agents=1",
}
PROTOCOLS = {
    "untrained, single agent": "single",
    "untrained, parallel": "parallel",
    "untrained, pipeline": "pipeline",
    "untrained, discussion": "discussion",
}


def trained(env: str, settings: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """The comparison of all trained entries on one environment, from its file where it was run before."""
    folder = options.runs.absolute() / env.partition("/")[2]
    file = folder / "compare.json"
    if not file.is_file():
        words = [sys.executable, "examples/compare_seeds.py", "--env", env, "--seeds", str(options.seeds)]
        words += ["--joint-samples", str(options.joint_samples), "--processes", str(options.processes)]
        words += ["--runs", str(folder / "runs"), "--out", str(file)]
        words += ["--algorithms", ",".join(TRAINED.values()), *settings, *options.settings]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return json.loads(file.read_text(encoding="utf-8"))


def untrained(env: str, settings: list[str], protocol: str, seed: int) -> dict[str, Any]:
    """One evaluation of models as they come."""
    words = [sys.executable, "-m", "collm_agents.cli", "eval", env, "--protocol", protocol, "--json"]
    words += ["model=builtin", "run.threads=1", f"eval.seed={seed}", *settings]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)["metrics"]["score"]


def spread(found: Mapping[str, Any]) -> str:
    """Mean and interval of a gain, in percent."""
    bounds = f" ({found['low']:.0%} to {found['high']:.0%})" if found["low"] is not None else ""
    return f"{found['mean']:.0%}{bounds}"


def rows(env: str, compared: Mapping[str, Any], plain: Mapping[str, list[float]]) -> list[str]:
    """Lines of the table for one environment."""
    lines = []
    for label, entry in TRAINED.items():
        found = compared["algorithms"][entry]
        gain, oracle = found["gain"], found["runs"][0]["oracle"]
        low = gain["low"] if gain["low"] is not None else gain["mean"]
        high = gain["high"] if gain["high"] is not None else gain["mean"]
        verdict = "improves" if low > 0 else "gets worse" if high < 0 else "no sure improvement"
        lines.append(
            f"| {env} | {label} | {found['start']['mean']:.2f} | {found['end']['mean']:.2f} | {oracle:.2f} "
            f"| {spread(gain)} | {found['runs'][0]['joint_samples']} | {found['wall_s']['mean']:.0f} | {verdict} |"
        )
    for label in PROTOCOLS:
        scores = plain[label]
        mean = sum(scores) / len(scores)
        lines.append(f"| {env} | {label} | {mean:.2f} | – | {oracle:.2f} | – | 0 | – | not trained |")
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--envs", default=",".join(ENVS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--joint-samples", type=int, default=1280)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/learners"), help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all numbers")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all trained runs")
    options = parser.parse_intermixed_args()
    header = ("environment", "algorithm", "start", "end", "oracle", "gain", "joint samples", "s per run", "")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    found = []
    for env in options.envs.split(","):
        compared = trained(env, ENVS[env], options)
        seeds = range(options.seeds)
        scores = {
            label: [untrained(env, ENVS[env], protocol, seed)["mean"] for seed in seeds]
            for label, protocol in PROTOCOLS.items()
        }
        print("\n".join(rows(env, compared, scores)), flush=True)
        found.append({"env": env, "settings": ENVS[env], "trained": compared, "untrained": scores})
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
