"""Rollouts as bytes, and adapters as bytes: what goes between a driver and its workers.

For the Ray collector. Nearly all of a forest is said several times: a joint history begins with that of the point
before, a prompt with the prompt and reply before, and every text stands in both histories. Each is sent once, and
what comes out is equal to what went in, to the bit. Nothing here knows of Ray.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from collm_agents.batch import Ints, Nodes, Points, Rollouts, Rows
from collm_agents.draws import derive
from collm_agents.models.backbone import Backbone
from collm_envs.errors import InputError

Ids = tuple[int, ...]
LEVEL = 1  # of zlib: texts shrink by more than half, at about 100 MB a second


@dataclass(frozen=True)
class Weights:
    """One member's trained numbers.

    Attributes:
        data: all its parameters one after the other, as bytes, [n].
        layout: a digest of their names, shapes and types.
    """

    data: np.ndarray
    layout: int


@torch.no_grad()
def take(backbone: Backbone, member: str) -> Weights:
    """A copy of what a member trains: its adapter, or its whole model where tuning is full."""
    parameters = backbone.parameters(member)
    flat = [p.detach().cpu().contiguous().view(-1).view(torch.uint8) for p in parameters.values()]
    return Weights(torch.cat(flat).numpy(), _layout(parameters))


@torch.no_grad()
def put(backbone: Backbone, member: str, weights: Weights) -> None:
    """Give a member those numbers.

    Raises:
        InputError: when the member has other parameters.
    """
    parameters = backbone.parameters(member)
    if _layout(parameters) != weights.layout:
        raise InputError(
            f"model {backbone.name!r} is another one here: the parameters of {member!r} have other names, shapes "
            "or types than the driver's"
        )
    start = 0
    for parameter in parameters.values():
        size = parameter.numel() * parameter.element_size()
        own = torch.from_numpy(weights.data[start : start + size].copy()).view(parameter.dtype)
        parameter.copy_(own.view(parameter.shape))
        start += size


def _layout(parameters: dict[str, Any]) -> int:
    return derive(*(f"{name} {tuple(p.shape)} {p.dtype}" for name, p in parameters.items()))


@dataclass(frozen=True)
class Ragged:
    """Lists of whole numbers as one array, in the smallest type that holds them."""

    flat: np.ndarray
    lengths: np.ndarray


def ragged(ids: Sequence[Sequence[int]]) -> Ragged:
    """Lists of whole numbers as one array."""
    flat = np.array([i for own in ids for i in own], dtype=np.int64)
    return Ragged(_small(flat), _small(np.array([len(own) for own in ids], dtype=np.int64)))


def _small(values: Ints) -> np.ndarray:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    return values.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))


def lists(own: Ragged) -> list[Ids]:
    """The lists again."""
    ends = np.cumsum(own.lengths, dtype=np.int64)
    return [tuple(own.flat[e - n : e].tolist()) for e, n in zip(ends, own.lengths, strict=True)]


def pack(rollouts: Rollouts) -> bytes:
    """Rollouts as bytes."""
    points, nodes, rows = (_columns(part) for part in (rollouts.points, rollouts.nodes, rollouts.rows))
    histories = list(zip(points.pop("state"), *zip(*points.pop("local"), strict=True), strict=True))
    # A point's texts stand side by side, where the compression sees that they are the same.
    points["histories"] = [
        tuple(_after(histories[parent] if parent >= 0 else ("",) * len(own), own))
        for own, parent in zip(histories, points["parent"], strict=True)
    ]
    prompts, replies = rows.pop("prompt"), rows["reply"]
    kept, rest = [], []
    for row, source in enumerate(_sources(rows, nodes, rollouts.row_of)):
        kept.append(_shared(_before(source, prompts, replies), prompts[row]))
        rest.append(prompts[row][kept[-1] :])
    rows["rest"], rows["kept"], rows["reply"] = ragged(rest), kept, ragged(replies)
    rows["lengths"] = [len(own) for own in rows["logprob"]]
    rows["logprob"] = np.concatenate(rows["logprob"])
    head = (rollouts.agents, rollouts.tasks, rollouts.branching, rollouts.row_of)
    return zlib.compress(pickle.dumps((head, points, nodes, rows), protocol=5), LEVEL)


def unpack(data: bytes) -> Rollouts:
    """The rollouts again."""
    (agents, tasks, branching, row_of), points, nodes, rows = pickle.loads(zlib.decompress(data))
    histories: list[tuple[str, ...]] = []
    for own, parent in zip(points.pop("histories"), points["parent"], strict=True):
        earlier = histories[parent] if parent >= 0 else ("",) * len(own)
        histories.append(tuple(old[:n] + new for old, (n, new) in zip(earlier, own, strict=True)))
    points["state"] = tuple(own[0] for own in histories)
    points["local"] = tuple(own[1:] for own in histories)
    replies, rest, kept = lists(rows["reply"]), lists(rows.pop("rest")), rows.pop("kept")
    prompts: list[tuple[int, ...]] = []
    for row, source in enumerate(_sources(rows, nodes, row_of)):
        prompts.append(_before(source, prompts, replies)[: kept[row]] + rest[row])
    ends = np.cumsum(rows.pop("lengths"))[:-1]
    rows["logprob"] = tuple(np.split(rows["logprob"], ends))
    rows["prompt"], rows["reply"] = tuple(prompts), tuple(replies)
    return Rollouts(agents, tasks, branching, Points(**points), Nodes(**nodes), Rows(**rows), row_of)


def _columns(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _after(earlier: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Of each text, how much of the earlier one it begins with (all of it, or none), and what comes then."""
    for old, text in zip(earlier, texts, strict=True):
        begin = len(old) if text.startswith(old) else 0
        yield begin, text[begin:]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    if other[: len(one)] == one:  # nearly always
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


Source = tuple[int, bool] | None  # a row, and whether its reply is part of what is meant


def _sources(rows: Mapping[str, Any], nodes: Mapping[str, Any], row_of: Ints) -> Iterator[Source]:
    """What each row's prompt begins like: a sibling's, or the prompt and reply that led to its point."""
    led = {int(point): node for node, point in enumerate(nodes["next_point"]) if point >= 0}
    siblings: dict[tuple[int, int], int] = {}
    for row, place in enumerate(zip(rows["point"].tolist(), rows["agent"].tolist(), strict=True)):
        if place in siblings:
            yield siblings[place], False
            continue
        siblings[place] = row
        point, agent = place
        yield (int(row_of[led[point], agent]), True) if point in led else None


def _before(source: Source, prompts: Sequence[Ids], replies: Sequence[Ids]) -> Ids:
    if source is None:
        return ()
    row, replied = source
    return prompts[row] + replies[row] if replied else prompts[row]
