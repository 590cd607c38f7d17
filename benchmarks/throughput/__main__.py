"""Our learners beside comlrl 1.4.3, and beside what the machine could do.

`make bench-throughput`, or `python -m benchmarks.throughput [--out FILE]`. Both sides get the same model folders,
the same prompts token for token, joint samples and actor steps (checked), one thread on the same processor (on a
CPU), type and full fine-tuning, one step on what was drawn, temperature 1 without truncation, random rewards.
Models have random weights and are made here; nothing is fetched. Each run is a process that loads, warms up by an
update and then measures; the sides alternate. A ratio is the peer's seconds over ours within a pair; the
one by the processes' own CPU time bears other work on the machine better.

Where the sides differ, and have to: the peer's shared critic steps once per agent, ours once per batch, so critic
steps are told for both; with several turns the peer steps once per turn of a buffer that is as many times longer.
In bfloat16 the peer trains bfloat16 weights, ours float32 weights under autocast.

Reply lengths: `equal`, the end token is never drawn and all replies have `max_new_tokens`; `varied`, the end token
has one probability at every step by the model's own weights, so lengths are geometric, cut at the limit, with the
mean that uniform ones would have. Both sides draw for themselves: `per word` divides by what each drew.

`--sweep` measures our side alone: agents on one base, prompt length, K. `--smoke` is small and quick.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.throughput.run import PEER_OF, SWEEPS, Bench, SideFailed, compare, pairs, spread, sweep
from benchmarks.throughput.shapes import LENGTHS, ROOT, SMOKE, Files, Workload, of_the_paper, on_cpu

HEAD = (
    "| workload | algorithm | peer | lengths | ours s | peer s | ratio (range) | by CPU time | per word "
    "| critic steps | peak MB | update of matmul | decode of floor |\n" + "|---" * 13 + "|"
)


def host() -> dict[str, Any]:
    """What the figures were made with and on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
        "commit": commit,
        "load": os.getloadavg()[0],
    }


def line(row: dict[str, Any]) -> str:
    """A comparison as a line of the table."""
    ours, peer = row["ours"][0], row["peer"][0] if row["peer"] else None
    update, decode = ours["update"] or {}, ours["decode"]
    share = " ".join(f"{part} {found['share_of_matmul']:.0%}" for part, found in update.items())
    megabytes = [
        f"{max(one['memory']['peak'] for one in side) / 1e6:.0f}"
        for side in (row["ours"], row["peer"])
        if side
    ]
    cells = [
        row["workload"],
        row["algorithm"],
        row["peer_algorithm"] if peer else "peer not installed",
        row["lengths"],
        f"{row['ours_s']['median']:.2f}",
        f"{row['peer_s']['median']:.2f}" if peer else "-",
        _range(row["ratio"]) if peer else "-",
        _range(row["ratio_cpu"]) if peer else "-",
        f"{row['ratio_per_word']['median']:.2f}" if peer else "-",
        " / ".join(str(one["steps"]["critic"]) for one in (ours, peer) if one),
        " / ".join(megabytes),
        share or "-",
        f"{decode['share_of_floor']:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _range(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def phases(row: dict[str, Any]) -> str:
    """Where our time went, and the peer's share in `generate`."""
    seconds = row["ours"][-1]["seconds"]
    spent = {name: s for name, s in row["ours"][-1]["phases"].items() if s > 0.002 * seconds}
    told = ", ".join(
        f"{name} {s / seconds:.0%}" for name, s in sorted(spent.items(), key=lambda item: -item[1])
    )
    peer = (
        f"; peer: generate {row['peer'][-1]['generate_s'] / row['peer'][-1]['seconds']:.0%}"
        if row["peer"]
        else ""
    )
    return f"{row['workload']}, {row['algorithm']}, {row['lengths']}: {told}{peer}"


def comparisons(bench: Bench, workloads: list[Workload], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All comparisons, each printed when it is done; what a side cannot do (memory) is told and left out."""
    if bench.peer is None:
        print("peer not installed: our side alone (make bench-throughput installs it)")
    print(HEAD)
    rows = []
    for workload, algorithm, lengths in pairs(workloads, options.algorithms, options.lengths):
        try:
            rows.append(compare(bench, workload, algorithm, lengths))
        except SideFailed as error:
            if not options.go_on:
                raise
            print(f"| {workload.name} | {algorithm} | failed: {str(error).splitlines()[-1]} |", flush=True)
            rows.append(
                {"workload": workload.name, "algorithm": algorithm, "lengths": lengths, "failed": str(error)}
            )
            continue
        print(line(rows[-1]), flush=True)
        _save(options, bench, "comparison", rows)
    print("\nWhere the time goes (last run):")
    for row in rows:
        if "failed" not in row:
            print(f"- {phases(row)}")
    return rows


def sweeps(bench: Bench, base: Workload, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All sweeps, each point printed."""
    rows: list[dict[str, Any]] = []
    print(
        "| axis | value | rows | s per update (range) | words/s | prefill+decode | actor | critic "
        "| peak MB above start |"
    )
    print("|---" * 9 + "|")
    for axis in options.axes:
        values = SWEEPS[axis][:2] if options.smoke else SWEEPS[axis]
        for value in values:
            row = sweep(bench, base, axis, value)
            rows.append(row)
            one = row["runs"][-1]
            spent, count = one["phases"], one["steps"]["critic"]
            words = spread([run["reply_words"] / run["seconds"] for run in row["runs"]])["median"]
            parts = [spent["prefill"] + spent["decode"], spent["actor"], spent["critic"]]
            cells = [axis, str(value), str(row["rows"]), _range(row["update_s"]), f"{words:.0f}"]
            cells += [f"{part / count:.2f}" for part in parts]
            cells.append(f"{max(run['memory']['above_start'] for run in row['runs']) / 1e6:.0f}")
            print("| " + " | ".join(cells) + " |", flush=True)
            _save(options, bench, "sweep", rows)
    return rows


def _save(options: argparse.Namespace, bench: Bench, kind: str, rows: list[dict[str, Any]]) -> None:
    if options.out:
        found = {
            "kind": kind,
            "host": host(),
            "device": bench.device,
            "dtype": bench.dtype,
            "threads": bench.threads,
            "repeats": bench.repeats,
            "settings": bench.settings,
            "peer": "not installed" if bench.peer is None else "comlrl",
            "rows": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(words: list[str] | None) -> argparse.Namespace:
    """The command line."""

    def several(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benchmarks.throughput", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=several, default=["1m", "4m", "25m"], help="models on a CPU")
    parser.add_argument("--algorithms", type=several, default=list(PEER_OF))
    parser.add_argument("--lengths", type=several, default=list(LENGTHS))
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    parser.add_argument("--updates", type=int, default=2, help="updates measured in a run")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="default: float32 on a CPU, else bfloat16"
    )
    parser.add_argument("--threads", type=int, help="default: 1 on a CPU, else torch's choice")
    parser.add_argument("--core", type=int, help="processor to run on; default the last one, on a CPU")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-peer/bin/python", help="its interpreter")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of our side"
    )
    parser.add_argument("--paper-shapes", action="store_true", help="the paper's shapes; default with cuda")
    parser.add_argument("--sweep", action="store_true", help="our side alone: agents, prompt length, K")
    parser.add_argument("--axes", type=several, default=list(SWEEPS))
    parser.add_argument("--go-on", action="store_true", help="tell of what fails (memory) and go on")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one repeat")
    parser.add_argument("--models", type=Path, help="folder for the models; default a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The command line."""
    options = read(words)
    on_a_cpu = options.device == "cpu"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [-1]
    threads = options.threads if options.threads is not None else int(on_a_cpu)
    pinned = on_a_cpu and threads == 1 and not options.smoke
    core = options.core if options.core is not None else (cores[-1] if pinned else -1)
    dtype = options.dtype or ("float32" if on_a_cpu else "bfloat16")
    if options.smoke:
        workloads, base = SMOKE, SMOKE[0]
        options.repeats, options.updates = 1, 2
    elif options.paper_shapes or not on_a_cpu:
        workloads = of_the_paper()
        base = next(w for w in workloads if w.name == "writing, 64")
    else:
        workloads = [on_cpu(size) for size in options.sizes]
        base = on_cpu("4m")
    workloads = [w for w in workloads if options.only in w.name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.models or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(
            Files(folder.resolve(), options.device, dtype),
            options.device,
            dtype,
            threads,
            core,
            options.repeats,
            options.updates,
            options.peer.absolute() if options.peer.is_file() else None,
            tuple(options.set),
        )
        rows = sweeps(bench, base, options) if options.sweep else comparisons(bench, workloads, options)
        _save(options, bench, "sweep" if options.sweep else "comparison", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
