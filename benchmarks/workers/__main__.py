"""What workers on Ray send, and what they gain: `python -m benchmarks.workers [--only PART ...] [--out FILE]`.

- `wire`: bytes of an update beside the least that there is to send, with adapters, on a cluster of two nodes here.
- `paper`: the same on paper, for eight agents of 4B parameters on two nodes.
- `collection`: throughput of 1, 2 and 4 workers where scoring waits as long, beside what is computed, as the
  sandbox was measured to. Without waiting, workers on one machine only share its cores.
- `overlap`: seconds of an update with `runner.staleness` 0 and 1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.throughput.__main__ import host

PARTS = ("wire", "paper", "collection", "overlap")
COUNTS = (1, 2, 4)


def wire() -> list[dict[str, Any]]:
    """Measure and print."""
    from benchmarks.workers.wire import ENVS, measure

    head = (
        "environment",
        "joint samples",
        "weights",
        "tasks",
        "rollouts",
        "least: weights",
        "ids",
        "log-probs",
    )
    print("| " + " | ".join([*head, "texts", "sent / least", "rollouts alone"]) + " |")
    print("|---" * 11 + "|")
    rows = []
    for env, settings in ENVS.items():
        row = measure(env, settings)
        sent, least = row["sent"], row["least"]
        cells = [env, row["joint_samples"], *sent.values(), *least.values()]
        print(
            "| " + " | ".join(map(str, cells)) + f" | {row['ratio']:.3f} | {row['rollouts_ratio']:.2f} |",
            flush=True,
        )
        rows.append(row)
    return rows


def paper() -> dict[str, Any]:
    """Compute and print."""
    from benchmarks.workers.paper import Cluster, model

    own = Cluster()
    found = model(own)
    for name in ("adapter_numbers", "weights_bytes", "rollout_bytes", "total_bytes", "full_weights_bytes"):
        print(f"{name}: {found[name]:,.0f}")
    for gigabits, seconds in found["seconds"].items():
        print(
            f"at {gigabits} Gb/s: {seconds:.2f} s with adapters, {found['seconds_full'][gigabits]:.0f} s in full"
        )
    return {"assumed": asdict(own), **found}


def collection(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print."""
    from benchmarks.workers.collection import efficiency, measured_ratio

    ratios = measured_ratio()
    print("waiting over generation, measured:", ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))
    found = efficiency(COUNTS, options.ratio or ratios["mc"], options.updates, options.rounds)
    print(f"wait {found['wait_s']:.3f} s a turn")
    for row in found["rows"]:
        print(
            f"{row['workers']} workers: {row['median']:.1f} joint samples/s, ratio {row['ratio']:.2f}, "
            f"load {row['load']:.1f}"
        )
    for count, share in found["efficiency"].items():
        rounds = ", ".join(f"{own:.2f}" for own in found["efficiency_by_round"][count])
        work_s = found["work_s"][count]
        busy = found["busy"][count]
        print(
            f"{count} workers: efficiency {share:.2f} ({rounds}); computing {work_s:.2f} s, busy {busy:.0%}",
            flush=True,
        )
    return {"measured_ratios": ratios, **found}


def overlapped(options: argparse.Namespace, wait_s: float) -> dict[str, Any]:
    """Measure and print."""
    from benchmarks.workers.collection import overlap

    found = {}
    for workers in (1, 2):
        found[str(workers)] = own = overlap(workers, wait_s, 8)
        for staleness in ("0", "1"):
            told = {k: round(v, 3) for k, v in own[staleness].items() if k != "stale"}
            print(f"{workers} workers, staleness {staleness}: {told}")
        print(f"{workers} workers: {own['gain']:.2f} times as fast", flush=True)
    return {"wait_s": wait_s, **found}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--updates", type=int, default=4, help="of each measurement of collection")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each number of workers")
    parser.add_argument("--ratio", type=float, help="waiting over generation, in place of what was measured")
    parser.add_argument("--wait", type=float, default=0.25, help="seconds, for overlap without collection")
    parser.add_argument(
        "--out", type=Path, help="JSON file of all numbers; parts that were not asked for stay"
    )
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.out and options.out.exists():
        found = json.loads(options.out.read_text("utf-8"))

    def keep(part: str, what: Any) -> None:
        found[part] = what
        if options.out:
            found.setdefault("host", {})[part] = host()
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    if "wire" in options.only:
        keep("wire", wire())
    if "paper" in options.only:
        keep("paper", paper())
    if "collection" in options.only:
        keep("collection", collection(options))
    if "overlap" in options.only:
        keep("overlap", overlapped(options, found.get("collection", {}).get("wait_s", options.wait)))


if __name__ == "__main__":
    main()
