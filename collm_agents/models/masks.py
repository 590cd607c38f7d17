"""Attention masks of the decode loop and of packed updates, in the form that a model takes.

Notation: B rows, S new tokens, K columns seen. Columns are those of `kvcache`: a row's tokens stand side by side,
so distances between columns are distances between tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KINDS = {"full_attention", "sliding_attention"}


class Masks:
    """Which masks a model wants: kinds of its layers, its window, and its attention's type of mask.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: Any) -> None:
        config = config.get_text_config()
        named = getattr(config, "layer_types", None)
        self.window: int | None = getattr(config, "sliding_window", None)
        self.kinds = set(named or ["sliding_attention" if self.window else "full_attention"])
        # Models whose configuration names its layers' kinds take a mask for each where they differ.
        self.several = bool(named) and self.kinds != {"full_attention"}
        if "sliding_attention" not in self.kinds:
            self.window = None
        self.additive = config._attn_implementation == "eager"
        self.known = self.kinds <= KINDS and config._attn_implementation in ("eager", "sdpa")

    def prefill(self, valid: Tensor, new: int, dtype: torch.dtype) -> Any:
        """Mask of the last `new` columns' queries.

        Args:
            valid: columns that hold tokens, [B, K] bool.
            new: number of queries, S; the last columns are theirs.
            dtype: of the model's weights.

        Returns:
            What to pass as `attention_mask`.
        """
        width = valid.shape[1]
        column = torch.arange(width, device=valid.device)
        query = column[width - new :, None]
        seen = valid[:, None, None] & (column <= query)
        # A query on padding sees itself, since a softmax over nothing is NaN.
        own = column == query
        near = seen & (column > query - self.window) if self.window else seen
        return self.given(seen | own, near | own, dtype)

    def step(self, valid: Tensor | None, length: int, device: torch.device, dtype: torch.dtype) -> Any:
        """Mask of one new token per row, in the last of `length` columns.

        Args:
            valid: columns that hold tokens, [B, at least `length`] bool; None where all do.
            length: columns seen, K.
            device: where the model lives.
            dtype: of the model's weights.

        Returns:
            What to pass as `attention_mask`; None where every token sees all columns.
        """
        far = self.window is not None and length > self.window
        if valid is None and not far:
            return None
        seen = (
            torch.ones((1, 1, 1, length), dtype=torch.bool, device=device)
            if valid is None
            else valid[:, None, None, :length]
        )
        near = seen
        if far and self.window is not None:
            near = seen & (torch.arange(length, device=device) >= length - self.window)
        return self.given(seen, near, dtype)

    def at(self, start: Tensor, column: Tensor, columns: int, dtype: torch.dtype) -> Any:
        """Mask of one new token per row, in a column that a tensor names: the same shape at every step.

        Args:
            start: column of each row's first token, [B, 1].
            column: the new tokens', [1].
            columns: those there are, filled or not, K.
            dtype: of the model's weights.

        Returns:
            What to pass as `attention_mask`.
        """
        place = torch.arange(columns, device=column.device)
        seen = ((place >= start) & (place <= column))[:, None, None]
        return self.given(seen, seen & (place > column - self.window) if self.window else seen, dtype)

    def given(self, seen: Tensor, near: Tensor, dtype: torch.dtype) -> Any:
        """What to pass for a mask of all layers and one of those with a window, [B, 1, S, K] bool each."""
        if self.several:
            same = near is seen
            full = self._typed(seen, dtype)
            return {
                "full_attention": full,
                "sliding_attention": full if same else self._typed(near, dtype),
            }
        return self._typed(near, dtype)

    def _typed(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        if not self.additive:
            return mask
        zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return zeros.masked_fill(~mask, torch.finfo(dtype).min)
