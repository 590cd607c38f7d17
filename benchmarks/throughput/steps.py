"""One decode step beside the time that its bytes take: recorded steps and plain ones, by model and rows.

`python -m benchmarks.throughput.steps --device cuda --out FILE` (`make gpu-steps`). The product's own decode loop
on random models of the paper's shapes, four rows to a prompt, replies of full length. `floor`: all weights and all
rows' keys and values, read once per step at the bandwidth that a large copy reaches. `recorded` on a CPU records
nothing: the same static steps are run, which shows that the command works and says nothing about graphs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.throughput.__main__ import host
from benchmarks.throughput.machine import Shape, decode_floor, peaks
from benchmarks.throughput.models import FIRST_WORD, model_config
from collm_agents.clock import Clock
from collm_agents.config import SamplingConfig
from collm_agents.models.decode import Row, Setting, decode
from collm_agents.models.graphs import Graphs, Plainly, recording

SIBLINGS = 4  # rows that share a prompt


def requests(rows: int, prompt: int, tokens: int, vocabulary: int) -> list[Row]:
    """Random prompts with `SIBLINGS` rows each."""
    rng = np.random.default_rng(0)
    first = min(FIRST_WORD, vocabulary - 2)
    prompts = [tuple(rng.integers(first, vocabulary, prompt).tolist()) for _ in range(-(-rows // SIBLINGS))]
    return [Row("m", prompts[i // SIBLINGS], rng.random(tokens)) for i in range(rows)]


def once(model: Any, asked: list[Row], tokens: int, graphs: Graphs | None) -> dict[str, float]:
    """Seconds of one batch: of its prompts, and of a step."""
    device, clock = next(model.parameters()).device, Clock()
    banned = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    with graphs.opened(model, None) if graphs else contextlib.nullcontext((None, None)) as (_, steps):
        setting = Setting(
            SamplingConfig(max_new_tokens=tokens), set(), banned, 0, clock=clock, budget=16384, steps=steps
        )
        with clock.phase("decode"):
            decode(model, asked, setting, lambda number, reply: None)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    spent = clock.read()
    return {"prefill_s": spent["prefill"], "step_s": spent["decode"] / (tokens - 1)}


def measure(model: Any, options: argparse.Namespace, rows: int, machine: dict[str, float]) -> dict[str, Any]:
    """Both kinds of step at so many rows."""
    asked = requests(rows, options.prompt, options.tokens, model.config.vocab_size)
    found: dict[str, Any] = {"rows": rows}
    shape, distinct = Shape(model), options.prompt * -(-rows // SIBLINGS)
    floors = [
        decode_floor(shape, [options.prompt] * rows, [n] * rows, distinct, machine)["bandwidth"]
        for n in (1, options.tokens)
    ]
    found["floor_s"] = (floors[1] - floors[0]) / (options.tokens - 1)  # prompts left out
    for kind in ("plain", "recorded"):
        graphs = None
        if kind == "recorded":
            graphs = recording("auto", [options.device]) or Graphs(Plainly())
        first = once(model, asked, options.tokens, graphs)  # records, and warms up
        runs = [once(model, asked, options.tokens, graphs) for _ in range(options.repeats)]
        found[kind] = {
            "first": first,
            "runs": runs,
            "step_s": statistics.median(run["step_s"] for run in runs),
            "failed": bool(graphs and graphs.failed),
        }
        found[kind]["of_floor"] = found["floor_s"] / found[kind]["step_s"]
        if graphs:
            graphs.keep = 0
            graphs.release()
    return found


def read(words: list[str] | None) -> argparse.Namespace:
    """The command line."""

    def several(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(
        prog="benchmarks.throughput.steps", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--models", type=several, default=["qwen3-1.7b", "qwen2.5-3b", "qwen3-4b"])
    parser.add_argument("--rows", type=several, default=["4", "16", "64", "256"])
    parser.add_argument("--prompt", type=int, default=300, help="tokens")
    parser.add_argument("--tokens", type=int, default=256, help="of a reply")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: as in a run")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one repeat")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The command line."""
    options = read(words)
    if options.smoke:
        options.models, options.rows = ["tiny", "tiny3"], ["2", "5"]
        options.prompt, options.tokens, options.repeats = 12, 8, 1
    name = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    dtype = getattr(torch, name)
    machine = peaks(options.device, dtype)
    print("| model | rows | floor ms | plain ms | recorded ms | recorded of floor |\n" + "|---" * 6 + "|")
    found: list[dict[str, Any]] = []
    for model_name in options.models:
        torch.manual_seed(0)
        with torch.device(options.device):
            model = AutoModelForCausalLM.from_config(model_config(model_name), dtype=dtype).eval()
        for rows in map(int, options.rows):
            row = {"model": model_name, **measure(model, options, rows, machine)}
            found.append(row)
            plain, recorded = row["plain"]["step_s"], row["recorded"]["step_s"]
            cells = [f"{1000 * s:.2f}" for s in (row["floor_s"], plain, recorded)]
            share = f"{row['recorded']['of_floor']:.0%}"
            print("| " + " | ".join([model_name, str(rows), *cells, share]) + " |", flush=True)
        del model
    if options.out:
        gpu = torch.cuda.get_device_name() if options.device == "cuda" else None
        figures = {
            "kind": "steps", "host": host(), "gpu": gpu, "device": options.device, "dtype": name,
            "prompt": options.prompt, "tokens": options.tokens, "machine": machine, "rows": found,
        }  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
