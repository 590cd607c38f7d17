"""What a run left in its folder, without times: two runs that are the same leave the same."""

import json

import torch
from safetensors.torch import load_file

from collm_agents import checkpoint
from collm_agents.tensor_file import read_state

TIMES = ("_s", "_per_s")


def rows(folder):
    """The rows of `metrics.jsonl`, times left out."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in found]


def saved(folder):
    """Every weight and optimizer number of the newest checkpoint."""
    place = checkpoint.pick(folder)
    tensors = {}
    for file in sorted(file for file in place.rglob("*.safetensors") if file.name != checkpoint.LEARNER):
        tensors |= {f"{file.relative_to(place)}:{k}": v for k, v in load_file(file).items()}
    state = read_state(place / checkpoint.LEARNER)
    for name, optimizer in state["optimizers"].items():
        for number, entry in optimizer["state"].items():
            tensors |= {f"{name}:{number}:{k}": torch.as_tensor(v) for k, v in entry.items()}
    return tensors
