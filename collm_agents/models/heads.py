"""The value head of critics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """A linear map from the last hidden state to one value, starting at zero.

    Args:
        hidden_size: width of the backbone.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values, [B], of hidden states, [B, hidden_size]; float32."""
        return self.linear(hidden.float()).squeeze(-1)

    @torch.no_grad()
    def set_bias(self, value: float) -> None:
        """Let an untrained head start at a value, such as the mean return."""
        self.linear.bias.fill_(value)
