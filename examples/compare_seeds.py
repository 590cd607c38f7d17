"""Compare algorithms over seeds on one environment: a table with 95 % intervals, and a JSON file.

Every run is a `collm train` of its own; the JSON holds its command, its scores and what it was made with. What
is compared is the *gain*: the fraction of the distance from the start to the oracle that training has covered,
on held-out tasks. Intervals are Student's t over seeds, so at least two seeds are needed for one.

    python examples/compare_seeds.py --env writing/tldr-mini-v0 --seeds 3 --joint-samples 6400 --out compare.json
    python examples/compare_seeds.py --seeds 2 --algorithms mc,collm-cc gamma=1   # settings for all runs
    python examples/compare_seeds.py --algorithms mc,mc+baseline=none,collm-cc+num_agents=1   # and for single ones
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from collm_agents.stats import t_quantile


def interval(values):
    """Mean over seeds with its 95 % t interval; no interval for a single seed.

    Args:
        values: one per seed.
    """
    mean, n = statistics.fmean(values), len(values)
    half = t_quantile(n - 1) * statistics.stdev(values) / n**0.5 if n > 1 else None
    return {
        "mean": mean,
        "low": mean - half if n > 1 else None,
        "high": mean + half if n > 1 else None,
        "n": n,
    }


def command(args, entry, seed, folder):
    """Words of one run after `collm`; an entry is an algorithm and settings of its own, joined by `+`."""
    algorithm, *own = entry.split("+")
    settings = [
        f"algorithm={algorithm}",
        f"seed={seed}",
        f"joint_samples={args.joint_samples}",
        "run.threads=1",
        "track.tensorboard=false",
        *args.settings,
        *own,
        f"out={folder}",
    ]
    return ["train", args.env, *settings]


def run(words, folder):
    """One run in a process of its own, with one thread; what its `result.json` says."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "collm_agents.cli"]
    done = subprocess.run([*start, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"collm {shlex.join(words)}\n{done.stderr.strip()}")
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def measured(result, words):
    """The scores of one run, and the fraction of the way to the oracle that it went."""
    start, end, oracle = (
        report["metrics"]["score"]["mean"]
        for report in (result["start"], result["end"], result["references"]["oracle"])
    )
    return {
        "seed": result["seed"],
        "variant": result["variant"],
        "command": f"collm {shlex.join(words)}",
        "joint_samples": result["joint_samples"],
        "start": start,
        "end": end,
        "oracle": oracle,
        "gain": (end - start) / (oracle - start),
        "success": result["end"]["metrics"]["success"]["mean"],
        "wall_s": result["wall_s"],
        "tasks": result["end"]["metrics"]["score"]["n"],
    }


def git_commit():
    """The checkout's commit, with a mark where files differ from it; None outside a checkout."""
    place = Path(__file__).resolve().parent

    def git(*words):
        return subprocess.run(["git", *words], cwd=place, capture_output=True, text=True, check=True).stdout

    try:
        dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no").strip() else ""
        return git("rev-parse", "HEAD").strip() + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


def fresh_folder(wanted):
    """`wanted`, or `wanted-2` and so on where it exists."""
    folder, number = Path(wanted), 1
    while folder.exists():
        number += 1
        folder = Path(f"{wanted}-{number}")
    return folder


def table(algorithms):
    """The summary as text."""

    def cell(found, percent=False):
        scale, form = (100, ".1f") if percent else (1, ".3f")
        told = f"{found['mean'] * scale:{form}}"
        if found["low"] is not None:
            told += f" [{found['low'] * scale:{form}}, {found['high'] * scale:{form}}]"
        return told

    header = ("algorithm", "start", "end", "gain, % of the way to the oracle", "seeds", "s per run")
    rows = [
        (
            " ".join([found["variant"], *name.split("+")[1:]]),
            cell(found["start"]),
            cell(found["end"]),
            cell(found["gain"], percent=True),
            str(found["gain"]["n"]),
            f"{found['wall_s']['mean']:.0f}",
        )
        for name, found in algorithms.items()
    ]
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "  ".join(word.ljust(w) for word, w in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    )


def main():
    """Run algorithms x seeds, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument(
        "--algorithms",
        default="mc,collm-cc,collm-dc",
        help="names joined by commas, each with settings of its own behind a +, such as mc+baseline=none",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (default 3)")
    parser.add_argument("--joint-samples", type=int, default=6400)
    parser.add_argument(
        "--processes", type=int, default=2, help="runs at a time, one thread each (default 2)"
    )
    parser.add_argument("--runs", default="runs/compare", help="folder of the runs")
    parser.add_argument(
        "--out", help="path of the JSON file (default compare.json in the folder of the runs)"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    args = parser.parse_args()
    if args.seeds < 1 or args.processes < 1:
        parser.error("--seeds and --processes must be at least 1")

    names, folder = args.algorithms.split(","), fresh_folder(args.runs)
    plan = [
        (name, command(args, name, seed, folder / f"{name}-s{seed}"), folder / f"{name}-s{seed}")
        for seed in range(args.seeds)
        for name in names
    ]
    with ThreadPoolExecutor(args.processes) as pool:
        results = list(pool.map(lambda item: run(item[1], item[2]), plan))

    algorithms = {}
    for name in names:
        runs = [
            measured(result, words)
            for (own, words, _), result in zip(plan, results, strict=True)
            if own == name
        ]
        means = {
            key: interval([r[key] for r in runs]) for key in ("start", "end", "gain", "success", "wall_s")
        }
        algorithms[name] = {"variant": runs[0]["variant"], **means, "runs": runs}
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": git_commit(),
        "env": args.env,
        "interval": "95 %, Student's t over seeds",
        "algorithms": algorithms,
        "versions": results[0]["versions"],
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "processes": args.processes,
            "threads": 1,
        },
    }
    out = Path(args.out) if args.out else folder / "compare.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(algorithms))
    print(f"\nruns in {folder}, numbers in {out}")


if __name__ == "__main__":
    main()
