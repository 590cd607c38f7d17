"""What is measured: models, lengths and update sizes, and the files that hold them."""

from __future__ import annotations

import json
import math
import random
import string
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = ("equal", "varied")


@dataclass(frozen=True)
class Workload:
    """One row of the comparison, apart from the algorithm.

    Attributes:
        name: shown in the table.
        models: each agent's, by name in `models.ARCHITECTURES`.
        critic: every critic's.
        prompt: tokens of a prompt.
        feedback: tokens of a later turn's observation.
        reply: tokens of the longest reply.
        turns: turns of an episode.
        samples: K by algorithm.
        rows: joint samples per update by algorithm, rounded up to whole tasks.
    """

    name: str
    models: tuple[str, ...]
    critic: str
    prompt: int
    reply: int
    turns: int
    samples: Mapping[str, int]
    rows: Mapping[str, int]
    feedback: int = 0
    settings: tuple[str, ...] = field(default=())


def _same(count: int) -> dict[str, int]:
    return dict.fromkeys(("mc", "collm-cc", "collm-dc"), count)


def on_cpu(size: str) -> Workload:
    """Two agents, K=4, 32 joint samples per update, prompts of 97 tokens, replies of up to 64."""
    return Workload(size, (size, size), size, 97, 64, 1, _same(4), _same(32))


def of_the_paper() -> list[Workload]:
    """Writing and two-turn coding at the paper's sizes, then at 64 and 256 rows; K=1 with critics, as it had."""
    samples = {"mc": 4, "collm-cc": 1, "collm-dc": 1}
    found = []
    for rows, (writing, coding) in {
        "paper": (_same(4), {"mc": 16, "collm-cc": 4, "collm-dc": 4}),
        "64": (_same(64), _same(64)),
        "256": (_same(256), _same(256)),
    }.items():
        small, coder, large = "qwen3-1.7b", "qwen2.5-3b", "qwen3-4b"
        found += [
            Workload(f"writing, {rows}", (small, small), small, 300, 256, 1, samples, writing),
            Workload(f"coding, {rows}", (coder, large), coder, 400, 256, 2, samples, coding, 100),
        ]
    return found


SMOKE = [
    Workload("tiny", ("tiny", "tiny"), "tiny", 12, 8, 1, _same(2), _same(4)),
    Workload(
        "tiny, turns",
        ("tiny", "tiny3"),
        "tiny",
        12,
        8,
        2,
        {"mc": 2, "collm-cc": 1, "collm-dc": 1},
        {"mc": 6, "collm-cc": 4, "collm-dc": 4},
        5,
    ),
]


class Files:
    """Models and tasks, made when first asked for.

    Args:
        folder: where they lie; what is there already is used again.
        device: where weights are drawn.
        dtype: of saved weights.
    """

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        self.folder, self.device, self.dtype = folder, device, dtype

    def model(self, name: str, reply: int, lengths: str) -> str:
        """Folder of a model whose replies are all `reply` tokens long, or of varied lengths up to it."""
        place = self.folder / f"{name}-{self.dtype}-{lengths}-{reply if lengths == 'varied' else 'any'}"
        if not (place / "tokenizer.json").is_file():  # written last
            from benchmarks.throughput.models import end_probability

            wanted = {
                "name": name,
                "folder": str(place),
                "end": end_probability(reply) if lengths == "varied" else 0.0,
                "dtype": self.dtype,
                "device": self.device,
            }
            # In a process of its own, which gives its memory back.
            words = [sys.executable, "-m", "benchmarks.throughput.models", json.dumps(wanted)]
            subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return str(place)

    def tasks(self, name: str, count: int, agents: int, prompt: int, feedback: int, seed: int = 0) -> Path:
        """JSON lines of random words, one token each."""
        place = self.folder / f"{name}.jsonl"
        draw = random.Random(seed)

        def words(length: int) -> str:
            return "".join(" " + draw.choice(string.ascii_lowercase) for _ in range(length))

        later = words(
            max(1, feedback)
        )  # a row's fields may not be empty; nobody sees it where there is one turn
        rows = [{"prompts": [words(prompt) for _ in range(agents)], "feedback": later} for _ in range(count)]
        place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return place


def trees(rows: int, tree_size: int) -> int:
    """Tasks that make at least so many joint samples."""
    return math.ceil(rows / tree_size)
