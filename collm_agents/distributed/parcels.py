"""Requests, rows and numbers as bytes: what goes between a driver and the processes that members live in.

Token ids go as arrays of the smallest type that holds them, compressed: a prompt begins like its siblings'. What
comes out is equal to what went in, to the bit. Nothing here knows of Ray.
"""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map

from collm_agents.distributed.wire import LEVEL, Ragged, lists, ragged
from collm_agents.sides import MemberRows
from collm_agents.team import Reply, Request

LARGE = 2**24  # bytes; what is larger is weights or moments, which compression does nothing for
PACKED, PLAIN = b"z", b"p"


def pack(value: Any) -> bytes:
    """Rows, requests, replies, lists of token ids, numbers, arrays or tensors as bytes; tensors come from a CPU."""
    data = pickle.dumps(tree_map(_at_home, _lean(value)), protocol=5)
    return PLAIN + data if len(data) > LARGE else PACKED + zlib.compress(data, LEVEL)


def unpack(data: bytes) -> Any:
    """The value again; replies without their texts."""
    body = memoryview(data)[1:]
    return _full(pickle.loads(body if data[:1] == PLAIN else zlib.decompress(body)))


@dataclasses.dataclass(frozen=True)
class _Requests:
    agents: list[str]
    prompts: Ragged
    keys: list[Any]


@dataclasses.dataclass(frozen=True)
class _Replies:
    ids: Ragged
    logprob: np.ndarray
    cut: list[bool]


@dataclasses.dataclass(frozen=True)
class _Rows:
    prompt: Ragged
    reply: Ragged
    logprob: np.ndarray
    lengths: list[int]
    rest: tuple[Any, ...]


def _at_home(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf


def _lean(value: Any) -> Any:
    if isinstance(value, MemberRows):
        return _Rows(
            ragged(value.prompt),
            ragged(value.reply),
            _joined(value.logprob),
            [len(own) for own in value.logprob],
            (value.tree, value.turn, value.tasks),
        )
    if not isinstance(value, list) or not value:
        return value
    if isinstance(value[0], Request):
        return _Requests(
            [one.agent for one in value], ragged([one.prompt for one in value]), [one.key for one in value]
        )
    if isinstance(value[0], Reply):
        ids, logprob = ragged([one.ids for one in value]), _joined([one.logprob for one in value])
        return _Replies(ids, logprob, [one.cut for one in value])
    return ragged(value) if isinstance(value[0], tuple) else value


def _full(value: Any) -> Any:
    if isinstance(value, _Rows):
        logprob = tuple(_apart(value.logprob, value.lengths))
        return MemberRows(tuple(lists(value.prompt)), tuple(lists(value.reply)), logprob, *value.rest)
    if isinstance(value, _Requests):
        return [Request(*one) for one in zip(value.agents, lists(value.prompts), value.keys, strict=True)]
    if isinstance(value, _Replies):
        ids = lists(value.ids)
        drawn = _apart(value.logprob, [len(own) for own in ids])
        return [Reply("", *one) for one in zip(ids, drawn, value.cut, strict=True)]
    return lists(value) if isinstance(value, Ragged) else value


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.float32)


def _apart(joined: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    return np.split(joined, np.cumsum(lengths)[:-1]) if lengths else []
