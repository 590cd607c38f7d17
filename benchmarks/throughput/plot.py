"""Growth along the axes of a sweep as one picture: `python -m benchmarks.throughput.plot SWEEP.json OUT.png`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "agents": "agents on one base (replies at once kept)",
    "prompt": "tokens of a prompt",
    "samples": "K (joint samples of an update kept)",
    "rows": "joint samples per update",
}


def cells(row: dict[str, Any]) -> dict[str, float]:
    """What is drawn of one place: seconds and peak memory, per 1,000 tokens and per joint sample as well."""
    one, seconds = row["runs"][-1], row["update_s"]["median"]
    # Every joint sample of CoLLM-CC is a prompt and a reply of each agent; siblings share the prompt.
    updates = one["joint_samples"] / row["rows"]
    tokens = (
        one["joint_samples"] * row["agents"] * one["prompt_tokens"] / row["siblings"] + one["reply_words"]
    ) / updates
    return {
        "s per update": seconds,
        "ms per joint sample": 1e3 * seconds / row["rows"],
        "ms per 1,000 distinct tokens": 1e6 * seconds / tokens,
        "peak MB above start": max(run["memory"]["above_start"] for run in row["runs"]) / 1e6,
    }


def draw(found: dict[str, Any], out: Path) -> None:
    """One row of charts per axis."""
    rows = found["rows"]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    names = list(cells(rows[0]))
    figure, charts = plt.subplots(
        len(axes), len(names), figsize=(3.4 * len(names), 2.6 * len(axes)), squeeze=False
    )
    for line, axis in zip(charts, axes, strict=True):
        own = [row for row in rows if row["axis"] == axis]
        for chart, name in zip(line, names, strict=True):
            chart.plot(
                [row["value"] for row in own], [cells(row)[name] for row in own], marker="o", color="#0072b2"
            )
            chart.set_xscale("log", base=2)
            chart.set_ylim(bottom=0)
            chart.set_xlabel(LABELS[axis])
            chart.set_title(name, fontsize=9)
            chart.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
