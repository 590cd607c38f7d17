"""What one measurement is asked for, and what both sides measure in the same way.

Read by `ours` and by `peer`, which runs in an environment without this project's packages: the standard library
alone until a function needs torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import sys
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Spec:
    """One measurement of one side.

    Attributes:
        algorithm: `mc`, `collm-cc` or `collm-dc`, as we name them; the peer plays MAGRPO, MAAC or IAC.
        models: folder of each agent's model.
        critic: folder of every critic's model.
        tasks: JSON lines file, one task a line: `{"prompts": [text of each agent]}`.
        feedback: text that every agent sees in later turns.
        turns: turns of an episode.
        samples: K, joint replies per decision point.
        trees: tasks per update of ours.
        warm: updates before the clock starts.
        updates: updates measured; a multiple of `turns`, as `warm` is.
        max_new_tokens: longest reply.
        device: `cpu` or `cuda`.
        dtype: `float32` or `bfloat16`.
        threads: of torch; 0 leaves it to torch.
        core: the processor that a side may use; -1 for all.
        seed: of draws.
        settings: `section.key=value` for our side beyond what makes the sides equal.
    """

    algorithm: str
    models: tuple[str, ...]
    critic: str
    tasks: str
    feedback: str
    turns: int
    samples: int
    trees: int
    warm: int
    updates: int
    max_new_tokens: int
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    core: int = -1
    seed: int = 0
    settings: tuple[str, ...] = ()

    @property
    def branching(self) -> tuple[int, ...]:
        """Joint replies per turn: a tree for Monte Carlo, paths for critics."""
        later = self.samples if self.algorithm == "mc" else 1
        return (self.samples,) + (later,) * (self.turns - 1)

    @property
    def tree_size(self) -> int:
        """Joint samples of a task."""
        total, width = 0, 1
        for count in self.branching:
            width *= count
            total += width
        return total

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def load(cls, text: str) -> Spec:
        """From JSON."""
        found = json.loads(text)
        lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
        return cls(**{**found, **lists})


def reward(replies: Iterable[str]) -> float:
    """A number in [0, 1) without any sense, the same on both sides; siblings' differ, so all have an advantage."""
    return zlib.crc32("\n".join(replies).encode()) / 2**32


def settle(spec: Spec) -> None:
    """Keep this process to its processor and threads, and off the network; before torch is imported."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        WANDB_MODE="disabled",
        TOKENIZERS_PARALLELISM="false",
    )
    if spec.threads:
        os.environ.update(OMP_NUM_THREADS=str(spec.threads), MKL_NUM_THREADS=str(spec.threads))
    if spec.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {spec.core})
    import torch

    if spec.threads:
        torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)


class Meter:
    """Memory since it was made and optimizer steps since `start`.

    Args:
        device: where the models will live.
        optimizers: by kind (`actor`, `critic`); added when they exist, with `watch`.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.steps = {"actor": 0, "critic": 0}
        self._before = _status("VmRSS")
        self._handles: list[Any] = []

    def watch(self, kind: str, optimizers: Sequence[Any]) -> None:
        """Count the steps of some optimizers."""

        def note(*_: Any) -> None:
            self.steps[kind] += 1

        self._handles += [optimizer.register_step_post_hook(note) for optimizer in optimizers]

    def start(self) -> None:
        """Forget the warm-up."""
        self.steps = dict.fromkeys(self.steps, 0)

    def now(self) -> tuple[float, float]:
        """Wall seconds and the process's processor seconds, everything asked of an accelerator done."""
        self.finish()
        return time.perf_counter(), time.process_time()

    def since(self, before: tuple[float, float]) -> dict[str, float]:
        """Seconds since an earlier `now`."""
        wall, cpu = self.now()
        return {"seconds": wall - before[0], "cpu_s": cpu - before[1]}

    def finish(self) -> None:
        """Wait for what an accelerator has still to do."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def memory(self) -> dict[str, int]:
        """Peak bytes: of the process, and above what it held before its models were loaded."""
        if self.cuda:
            import torch

            peak = torch.cuda.max_memory_allocated()
            return {"peak": peak, "above_start": peak}
        scale = 1 if sys.platform == "darwin" else 1024
        peak = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        return {"peak": peak, "above_start": max(0, peak - self._before)}


def _status(name: str) -> int:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
