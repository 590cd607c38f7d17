"""The decode loop: replies for a batch of prompts, drawn by inverse CDF from given uniforms.

The uniforms come from outside (`draws`), one per row and token, so a row's reply does not depend on what else
is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collm_agents.config import SamplingConfig
from collm_agents.losses import masked_log_softmax


@dataclass(frozen=True)
class Drawn:
    """One reply as tokens.

    Attributes:
        ids: token ids, the end token included where it was drawn.
        logprob: log-probability of each under the distribution it was drawn from, [L].
        cut: the token limit ended it.
    """

    ids: tuple[int, ...]
    logprob: np.ndarray
    cut: bool


@torch.no_grad()
def draw(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    sampling: SamplingConfig,
    *,
    stop_ids: set[int],
    banned: Tensor,
    pad_id: int,
    greedy: bool = False,
) -> list[Drawn]:
    """Draw one reply per prompt.

    Args:
        model: a Hugging Face causal LM.
        prompts: B lists of token ids.
        uniforms: draws in [0, 1), [B, max_new_tokens].
        sampling: temperature, truncation and the longest reply.
        stop_ids: tokens that end a reply.
        banned: tokens of probability 0, [V] bool.
        pad_id: fills padding.
        greedy: take the likeliest token instead.

    Returns:
        B replies, in order.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros((len(prompts), width + sampling.max_new_tokens), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) : width] = 1
    mask[:, width:] = 1
    ids, mask, banned = ids.to(device), mask.to(device), banned.to(device)
    u = torch.as_tensor(uniforms, dtype=torch.float64, device=device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    position = mask[:, :width].sum(-1, keepdim=True)
    step_ids, step_positions = ids, (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
    cache, tokens, logprobs = None, [], []
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for step in range(sampling.max_new_tokens):
        out = model(
            input_ids=step_ids,
            attention_mask=mask[:, : width + step],
            position_ids=step_positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        logp = masked_log_softmax(out.logits[:, -1], sampling.temperature, banned)
        if not greedy:
            logp = truncate(logp, sampling.top_p, sampling.top_k)
        token = logp.argmax(-1) if greedy else inverse_cdf(logp, u[:, step])
        tokens.append(token)
        logprobs.append(logp.gather(-1, token[:, None]).squeeze(-1))
        alive &= ~torch.isin(token, stops)
        if not alive.any():
            break
        step_ids, step_positions = token[:, None], position + step
    return gather(torch.stack(tokens, 1), torch.stack(logprobs, 1), stop_ids)


def gather(tokens: Tensor, logprobs: Tensor, stop_ids: set[int]) -> list[Drawn]:
    """Replies from the tokens drawn for each row, [B, T] with their log-probs: up to the first end token."""
    drawn = []
    for ids, logprob in zip(tokens.tolist(), logprobs.cpu().numpy(), strict=True):
        end = next((i + 1 for i, token in enumerate(ids) if token in stop_ids), None)
        drawn.append(Drawn(tuple(ids[:end]), logprob[:end].copy(), cut=end is None))
    return drawn


def inverse_cdf(logp: Tensor, u: Tensor) -> Tensor:
    """Tokens at the given quantiles.

    Args:
        logp: log-probs, [B, V]; -inf for tokens that cannot be drawn.
        u: quantiles in [0, 1), [B].

    Returns:
        Token ids, [B]; never one of probability 0. Where log-probs are NaN it is any token, whose NaN tells.
    """
    cdf = logp.exp().cumsum(-1, dtype=torch.float64)
    total = cdf[:, -1:]
    # Below the total even when rounded: the first sum above it is then one that its token has added to.
    wanted = torch.minimum(u[:, None] * total, total.nextafter(torch.zeros_like(total)))
    # A NaN sorts behind everything: kept within the vocabulary, or a device would fail where nothing can be named.
    return torch.searchsorted(cdf, wanted, right=True).squeeze(-1).clamp(max=logp.shape[-1] - 1)


def truncate(logp: Tensor, top_p: float, top_k: int) -> Tensor:
    """Keep the `top_k` likeliest tokens and, of those, the least set with mass `top_p`; renormalised.

    Args:
        logp: log-probs, [B, V].
        top_p: least mass kept; 1 keeps all.
        top_k: tokens kept; 0 keeps all.
    """
    if top_k > 0 and top_k < logp.shape[-1]:
        kth = logp.topk(top_k, dim=-1).values[:, -1:]
        logp = torch.log_softmax(logp.masked_fill(logp < kth, float("-inf")), dim=-1)
    if top_p < 1.0:
        ordered, index = logp.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        drop = torch.zeros_like(logp, dtype=torch.bool).scatter(-1, index, before >= top_p)
        logp = torch.log_softmax(logp.masked_fill(drop, float("-inf")), dim=-1)
    return logp
