"""The value head of critics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TRACKING = 0.95  # weight of the past in the running moments of targets, per update
LEAST_SCALE = 0.01


class ValueHead(nn.Module):
    """A linear map from the last hidden state to one value, starting at zero.

    The linear map works in units of the targets' running deviation where `track` is called (PopArt, van Hasselt
    et al. 2016): when the units change, its weights are changed with them and the values stay what they were.

    Args:
        hidden_size: width of the backbone.
    """

    centre: Tensor
    scale: Tensor
    moments: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        # Running mean, square, and the weight of both so far; in float32 a small variance of large targets is lost.
        self.register_buffer("moments", torch.zeros(3, dtype=torch.float64))

    def forward(self, hidden: Tensor) -> Tensor:
        """Values, [B], of hidden states, [B, hidden_size]; float32."""
        return self.linear(hidden.float()).squeeze(-1) * self.scale + self.centre

    @torch.no_grad()
    def set_bias(self, value: float) -> None:
        """Let an untrained head start at a value, such as the mean return."""
        self.linear.bias.fill_((value - self.centre) / self.scale)

    @torch.no_grad()
    def track(self, mean: float, square: float) -> None:
        """Move the units to the targets' running mean and deviation; values stay what they were.

        Args:
            mean: mean of this update's targets.
            square: mean of their squares.
        """
        fresh = self.moments.new_tensor([mean, square, 1.0])
        self.moments.mul_(TRACKING).add_((1 - TRACKING) * fresh)
        first, second = (self.moments[:2] / self.moments[2]).unbind()
        scale = (second - first**2).clamp(min=LEAST_SCALE**2).sqrt()
        self.linear.weight.mul_(self.scale / scale)
        self.linear.bias.copy_((self.linear.bias * self.scale + self.centre - first) / scale)
        self.centre.copy_(first)
        self.scale.copy_(scale)
