"""Attention of one new token per row in bfloat16 on a CPU, by plain products in float32.

For the decode loop. The fused kernel of a CPU works in blocks of queries, of which a decode step fills one row: in
bfloat16 it takes two to six times as long as in float32, and a step of 32 rows a quarter longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "collm_one_token"


def one_token(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; anything but one query of 16 bits without extras goes to its own.

    Args:
        module: the layer.
        query: [B, H, S, D].
        key: [B, G, L, D] with G dividing H.
        value: [B, G, L, D].
        attention_mask: [B or 1, 1, S, at least L], boolean or added; None where all may be seen.
        dropout: of the weights.
        scaling: of the scores; default 1 / √D.
        more: what else the caller gives.

    Returns:
        [B, S, H, D], and no weights.
    """
    extras = any(more.get(name) is not None for name in ("position_bias", "cache", "s_aux", "softcap"))
    plain = query.shape[2] == 1 and query.dtype.itemsize == 2 and not (dropout or torch.is_grad_enabled())
    if not plain or extras:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    rows, heads, _, size = query.shape
    with torch.autocast(query.device.type, enabled=False):
        # Heads that share keys stand together, as if they were several queries.
        asked = query.float().view(rows, key.shape[1], -1, size) * (
            size**-0.5 if scaling is None else scaling
        )
        scores = asked @ key.float().transpose(-1, -2)
        if attention_mask is not None:
            seen = attention_mask[..., : key.shape[2]]
            scores = scores.masked_fill_(~seen, -torch.inf) if seen.dtype == torch.bool else scores.add_(seen)
        found = scores.softmax(-1) @ value.float()
    return found.view(rows, 1, heads, size).to(query.dtype), None


AttentionInterface.register(NAME, one_token)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def one_token_at_a_time(model: Any) -> Iterator[None]:
    """Inside, a model on a CPU that would use `sdpa` uses `one_token`."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or next(model.parameters()).device.type != "cpu":
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
