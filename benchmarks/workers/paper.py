"""A cluster on paper: eight agents of 4B parameters with adapters, on eight GPUs in two nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.workers.shapes import QWEN3_4B, Shape


@dataclass(frozen=True)
class Cluster:
    """What is assumed.

    Attributes:
        shape: of each agent's base model.
        rank: of the adapters.
        agents: A.
        nodes: with the learner's own.
        joint_samples: of an update.
        turns: T of an episode.
        prompt: new prompt tokens of an agent and turn.
        reply: reply tokens of an agent and turn.
        text: UTF-8 bytes of a token's text.
        gigabits: bandwidths between the nodes, in Gb/s.
    """

    shape: Shape = field(default_factory=lambda: QWEN3_4B)
    rank: int = 16
    agents: int = 8
    nodes: int = 2
    joint_samples: int = 128
    turns: int = 2
    prompt: int = 512
    reply: int = 256
    text: float = 4.0
    gigabits: tuple[float, ...] = (1.0, 10.0, 100.0)


def model(own: Cluster) -> dict[str, Any]:
    """Bytes of an update between nodes, and seconds at each bandwidth; every line is a formula of the docs."""
    numbers = own.shape.adapter(own.rank)
    weights = 4 * numbers * own.agents  # float32
    copies = own.nodes - 1
    rows = own.joint_samples * own.agents  # a joint sample is one reply of each agent
    id_bytes = -(-(own.shape.vocab - 1).bit_length() // 8)
    row = own.reply * (id_bytes + 4 + own.text) + own.prompt * (id_bytes + own.text)
    elsewhere = rows * row * copies / own.nodes  # what other nodes play
    total = copies * weights + elsewhere
    return {
        "adapter_numbers": numbers,
        "weights_bytes": weights,
        "rollout_bytes_a_row": row,
        "rollout_bytes": elsewhere,
        "total_bytes": total,
        "full_weights_bytes": 4 * own.shape.parameters() * own.agents,
        "seconds": {f"{g:g}": total / (g * 1e9 / 8) for g in own.gigabits},
        "seconds_full": {
            f"{g:g}": 4 * own.shape.parameters() * own.agents / (g * 1e9 / 8) for g in own.gigabits
        },
    }
