"""Every algorithm on every form of a mini environment: schedules, horizons, worlds.

`python -m benchmarks.minis games --out FILE` runs `examples/compare_seeds.py` once per form and gathers the gains
in one table: the way from the start to the oracle that training covered, on held-out tasks, sampled. A form whose
file is there already is not run again, so a long grid can be stopped and gone on with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = ("mc", "collm-cc", "collm-dc")


def forms(suite: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Environments of a suite with their settings."""
    if suite == "games":
        envs, worlds = ("games/strbuild-mini-v0", "games/housebuild-mini-v0"), ("rebuilt", "kept")
        for env, reward, turns, world in itertools.product(envs, ("dense", "sparse"), (1, 2, 4), worlds):
            yield env, {"reward": reward, "num_turns": str(turns), "world": world}
    else:
        for reward, turns in itertools.product(("dense", "sparse"), (1, 2)):
            yield "coding/compose-mini-v0", {"reward": reward, "num_turns": str(turns)}


def run(env: str, settings: dict[str, str], options: argparse.Namespace) -> dict:
    """One form: its comparison, from its file where it was run before."""
    name = "-".join([env.partition("/")[2], *settings.values()])
    folder = options.runs.absolute() / name  # the comparison runs from the checkout's root
    file = folder / "compare.json"
    if not file.is_file():
        words = [sys.executable, "examples/compare_seeds.py", "--env", env]
        words += ["--seeds", str(options.seeds), "--joint-samples", str(options.joint_samples)]
        words += ["--processes", str(options.processes), "--runs", str(folder / "runs"), "--out", str(file)]
        words += ["--algorithms", options.algorithms, *(f"{key}={value}" for key, value in settings.items())]
        subprocess.run([*words, *options.settings], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return json.loads(file.read_text(encoding="utf-8"))


def row(env: str, settings: dict[str, str], found: dict) -> str:
    """One line of the table: the gains of the algorithms."""
    cells = []
    for name in found["algorithms"]:
        gain = found["algorithms"][name]["gain"]
        spread = f" ({gain['low']:.0%} to {gain['high']:.0%})" if gain["low"] is not None else ""
        cells.append(f"{gain['mean']:.0%}{spread}")
    first = next(iter(found["algorithms"].values()))
    oracle = first["runs"][0]["oracle"]
    seconds = sum(one["wall_s"]["mean"] for one in found["algorithms"].values()) / len(found["algorithms"])
    told = [
        env,
        *settings.values(),
        f"{first['start']['mean']:.2f}",
        f"{oracle:.2f}",
        *cells,
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(told) + " |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", choices=("games", "coding"))
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--joint-samples", type=int, default=3200)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/minis"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="JSON file for all comparisons")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    options = parser.parse_intermixed_args()
    algorithms = options.algorithms.split(",")
    found = []
    for env, settings in forms(options.suite):
        one = run(env, settings, options)
        if not found:
            names = [*settings, "start", "oracle", *(f"{name}: gain" for name in algorithms), "s per run"]
            print("| environment | " + " | ".join(names) + " |\n|" + "---|" * (1 + len(names)))
        print(row(env, settings, one), flush=True)
        found.append({"env": env, "settings": settings, **one})
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
