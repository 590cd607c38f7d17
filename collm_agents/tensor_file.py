"""Plain data with tensors in it as one safetensors file, so that no pickle is ever read from a disk.

For the optimizers' part of a checkpoint. The tensors are the file's own; what they are in is JSON in its header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

HEADER = "state"
_TENSOR, _DICT, _TUPLE = "tensor", "dict", "tuple"


def write_state(file: Path, state: Any) -> None:
    """Write dicts, lists and tuples of tensors, numbers, texts, booleans and None.

    Raises:
        TypeError: for anything else in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    told = json.dumps(_told(state, tensors))
    save_file(tensors, file, metadata={HEADER: told})


def read_state(file: Path) -> Any:
    """What `write_state` wrote, tensors on the CPU.

    Raises:
        SafetensorError: when it is no such file.
        ValueError: when its header says nothing of a state.
    """
    with safe_open(file, framework="pt", device="cpu") as found:
        told = (found.metadata() or {}).get(HEADER)
        if told is None:
            raise ValueError("its header holds no state")
        return _plain(json.loads(told), found)


def _told(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # the format knows no shared memory
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {_DICT: [[_key(key), _told(own, tensors)] for key, own in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_told(own, tensors) for own in value]}
    if isinstance(value, list):
        return [_told(own, tensors) for own in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be part of a state")


def _key(key: Any) -> Any:
    if type(key) in (int, str):
        return key
    raise TypeError(f"a {type(key).__name__} cannot be a key of a state")


def _plain(told: Any, found: Any) -> Any:
    if isinstance(told, list):
        return [_plain(own, found) for own in told]
    if not isinstance(told, dict):
        return told
    ((kind, own),) = told.items()
    if kind == _TENSOR:
        return found.get_tensor(own)
    if kind == _TUPLE:
        return tuple(_plain(one, found) for one in own)
    return {key: _plain(one, found) for key, one in own}
