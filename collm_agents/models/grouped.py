"""Rows of several LoRA adapters in one batch.

For the decode loop. All adapters' down-projections stand under each other in one matrix and all up-projections
beside each other in another, so each linear layer takes two products whatever the number of adapters; between
them a mask clears what belongs to adapters that are not the row's. Rows may stand in any order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor


class GroupedAdapters:
    """The adapters of some members, read when made.

    Args:
        model: the base with its adapters in place (as `PeftModel.get_base_model()` gives it).
        members: names of the adapters; rows refer to them by their place here.
    """

    @torch.no_grad()
    def __init__(self, model: Any, members: Sequence[str]) -> None:
        self.members = tuple(members)
        self._mask: Tensor | None = None  # [B, 1, members x rank]
        self._stacks: list[tuple[Any, Tensor, Tensor]] = []
        self._ranks: list[int] = []
        for layer in _layers(model):
            down = torch.cat([layer.lora_A[m].weight for m in members])
            up = torch.cat([layer.lora_B[m].weight * layer.scaling[m] for m in members], dim=1)
            self._stacks.append((layer, down.t(), up.t()))
            self._ranks = [layer.lora_A[m].weight.shape[0] for m in members]

    def assign(self, owner: Tensor) -> None:
        """Say whose each row of the coming passes is: places in `members`, [B]."""
        self._mask = self.mask(owner)

    def mask(self, owner: Tensor) -> Tensor | None:
        """What `assign` makes of some rows, [B, 1, members x rank]; None for one member, who needs none."""
        if len(self.members) == 1:
            return None
        ranks = torch.tensor(self._ranks, device=owner.device)
        columns = torch.arange(len(self.members), device=owner.device).repeat_interleave(ranks)
        dtype = self._stacks[0][1].dtype
        return (owner[:, None, None] == columns).to(dtype)

    def hold(self, mask: Tensor) -> None:
        """Use this tensor of `mask` for the coming passes; what is written to it later counts."""
        self._mask = mask

    @property
    def tensors(self) -> list[Tensor]:
        """All stacked projections."""
        return [tensor for _, down, up in self._stacks for tensor in (down, up)]

    @torch.no_grad()
    def take(self, other: GroupedAdapters) -> None:
        """Copy the weights of others of the same members, in place."""
        for own, new in zip(self.tensors, other.tensors, strict=True):
            own.copy_(new)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's adapted layers compute with these in place of the active adapter."""
        before = [layer.__dict__.get("forward") for layer, _, _ in self._stacks]
        for layer, down, up in self._stacks:
            layer.forward = self._forward(layer.base_layer, down, up)
        try:
            yield
        finally:
            for (layer, _, _), own in zip(self._stacks, before, strict=True):
                if own is None:
                    del layer.forward
                else:
                    layer.forward = own

    def _forward(self, base: Any, down: Tensor, up: Tensor) -> Any:
        def forward(x: Tensor) -> Tensor:
            result = base(x)
            inner = x.to(down.dtype) @ down
            if self._mask is not None:
                inner = inner * self._mask
            return (result + inner @ up).to(result.dtype)

        return forward


def groupable(model: Any) -> bool:
    """Whether all adapters of a model are plain low-rank ones on linear layers."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return all(
        isinstance(layer, LoraLinear) and not layer.lora_variant and not any(layer.lora_bias.values())
        for layer in layers
    )


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, LoraLinear)]
