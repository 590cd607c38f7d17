"""One model over several processes: its layers in shards, and batches dealt out.

For members that live in more than one process (`placement.*.ranks`). All of them are called alike; each computes
its share of an update's batches, and gradients are added up (FSDP). Layers are gathered one at a time where they
are computed; embeddings, heads and norms beside the layers are whole everywhere. Whoever is alone has `Whole`,
which does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from collm_envs.errors import SettingError

if TYPE_CHECKING:
    from collm_agents.models.backbone import Backbone

T = TypeVar("T")


class Whole:
    """A model that is all in this process."""

    rank, size = 0, 1

    def deal(self, batches: Iterable[T], backbone: Backbone, member: str) -> Iterator[T]:
        """The batches that are computed in this process.

        Args:
            batches: all of them, the same in every process.
            backbone: that computes them.
            member: whose weights.
        """
        yield from batches

    def gathered(self, own: T) -> list[T]:
        """What every process has, in the order of their ranks."""
        return [own]

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Add up gradients, then clip them by their norm; returns the norm before."""
        known = [p for p in parameters if p.grad is not None]
        return float(nn.utils.clip_grad_norm_(known, limit)) if known else 0.0

    def whole(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by name, put together from all processes."""
        return dict(state)

    def own(self, state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        """This process's part of whole tensors, laid out like others of the same names."""
        return dict(state)


class Shards(Whole):
    """A model that is spread over the processes of torch's default group, which this one has joined.

    Args:
        device: where its shards live.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = device
        self._mesh = torch.distributed.init_device_mesh(torch.device(device).type, (self.size,))

    def deal(self, batches: Iterable[T], backbone: Backbone, member: str) -> Iterator[T]:
        """As `Whole.deal`: this process's share."""
        every = list(batches)
        own = every[self.rank :: self.size]
        yield from own
        # Layers are gathered by all at once: whoever has fewer batches passes a token through for nothing.
        for _ in range(-(-len(every) // self.size) - len(own)):
            hidden = backbone.last_hidden(member, [[backbone.pad_id]])
            if torch.is_grad_enabled():
                (0.0 * hidden.sum()).backward()

    def spread(self, backbone: Backbone) -> None:
        """Leave to this process its shard of each layer of a backbone's models.

        Raises:
            SettingError: when the models' layers are not known.
        """
        for model in backbone.models():
            layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
            if not layers:
                raise SettingError(
                    f"placement: the layers of {backbone.name!r} cannot be spread over processes"
                )
            for layer in layers:
                fully_shard(layer, mesh=self._mesh)
            model.to(self.device)
        backbone.shards, backbone.device = self, self.device

    def gathered(self, own: T) -> list[T]:
        """What every process has; small things only."""
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, own)
        return found

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """As `Whole.clip`. Shards have been added up on the way back; what is whole everywhere is added up here."""
        known = np.any(self.gathered([p.grad is not None for p in parameters]), axis=0)
        square = torch.zeros(())
        trained = [p for p, has in zip(parameters, known, strict=True) if has]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if isinstance(parameter, DTensor):
                parameter.grad.mul_(self.size)  # what was added up is a mean
            else:
                torch.distributed.all_reduce(parameter.grad)
            square = square + float(_full(parameter.grad.norm())) ** 2
        norm = float(square.sqrt())
        if norm > limit:
            for parameter in trained:
                assert parameter.grad is not None
                parameter.grad.mul_(limit / (norm + 1e-6))
        return norm

    def whole(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by name, on a CPU; every process has to ask for them."""
        return {name: _full(value) for name, value in state.items()}

    def own(self, state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        """Shards of those that are like shards; every process has the whole of them."""
        return {name: _like(value, like[name]) if name in like else value for name, value in state.items()}


def _full(value: Any) -> Any:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _like(value: Any, other: Any) -> Any:
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def join(address: str, rank: int, size: int, device: str) -> Shards:
    """Join the processes of a model.

    Args:
        address: HOST:PORT of the first one, which listens there.
        rank: this one's number.
        size: how many there are.
        device: where shards live.
    """
    backend = "gloo" if torch.device(device).type == "cpu" else "nccl"
    torch.distributed.init_process_group(backend, init_method=f"tcp://{address}", rank=rank, world_size=size)
    return Shards(device)


def merged(parts: Iterable[Mapping[int, T]]) -> dict[int, T]:
    """One table of all."""
    return {key: value for part in parts for key, value in part.items()}
