"""Log-probs of given tokens from hidden states, without keeping logits over the vocabulary.

For backbones. The same numbers as `losses.masked_log_softmax` and a gather; forward and backward go through the
output matrix chunk by chunk, so that [tokens, vocabulary] exists for one chunk only. Where the whole is small it is
kept, which saves the backward pass a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**24  # logits at a time
KEEP = 2**24  # logits that may be kept for the backward pass


@dataclass(frozen=True)
class Head:
    """What turns hidden states into next-token distributions.

    Attributes:
        weight: output matrix, [V, d].
        bias: [V], or None.
        softcap: logits are c * tanh(logits / c); 0 for none (Gemma 2).
        temperature: softmax temperature.
        banned: tokens of probability 0, [W] bool with W <= V; rows of the matrix beyond are banned as well.
        dtype: the matrix products' type; all else is float32.
    """

    weight: Tensor
    bias: Tensor | None
    softcap: float
    temperature: float
    banned: Tensor
    dtype: torch.dtype

    def logits(self, hidden: Tensor) -> Tensor:
        """Capped logits, [B, V] float32, before temperature and ban."""
        raw = (hidden.to(self.dtype) @ self.weight.to(self.dtype).T).float()
        if self.bias is not None:
            raw = raw + self.bias.float()
        return self.softcap * torch.tanh(raw / self.softcap) if self.softcap else raw


def token_logprobs(
    hidden: Tensor, target: Tensor, head: Head, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probs of target tokens, and the entropy of their distributions in nats.

    Args:
        hidden: [S, d].
        target: token ids, [S].
        head: the output matrix and what is done to its logits.
        entropy: whether it is wanted.

    Returns:
        Log-probs, [S] float32, -inf for banned targets, and entropies, [S] float32, or None. Gradients flow into
        hidden states, matrix and bias.
    """
    logprob, spread = _TokenLogprobs.apply(hidden, head.weight, head.bias, target, head, entropy)
    return logprob, (spread if entropy else None)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        head: Head,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        size = weight.shape[0]
        banned = torch.ones(size, dtype=torch.bool, device=hidden.device)
        banned[: head.banned.shape[0]] = head.banned[:size]
        keep = hidden.shape[0] * size <= KEEP and any(ctx.needs_input_grad)
        logprob, spread, total = (hidden.new_zeros(len(target), dtype=torch.float32) for _ in range(3))
        kept = []
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(target), size):
                raw = head.logits(hidden[part])
                scaled = (raw / head.temperature).masked_fill_(banned, float("-inf"))
                total[part] = torch.logsumexp(scaled, -1)
                logprob[part] = scaled.gather(-1, target[part, None]).squeeze(-1) - total[part]
                if entropy:
                    spread[part] = total[part] - _mean(scaled, total[part])
                if keep:
                    kept.append(raw if head.softcap else scaled)
        ctx.save_for_backward(hidden, weight, bias, target, total, spread, banned, *kept)
        ctx.head, ctx.entropy = head, entropy
        return logprob, spread

    @staticmethod
    def backward(ctx: Any, d_logprob: Tensor, d_spread: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, total, spread, banned, *kept = ctx.saved_tensors
        head: Head = ctx.head
        d_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        matrix = weight.to(head.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for number, part in enumerate(_chunks(len(target), weight.shape[0])):
                held = kept[number] if kept else head.logits(hidden[part])
                scaled = (
                    held
                    if kept and not head.softcap
                    else (held / head.temperature).masked_fill(banned, float("-inf"))
                )
                share = (scaled - total[part, None]).exp_()
                d_logits = share * -d_logprob[part, None]
                d_logits.scatter_add_(-1, target[part, None], d_logprob[part, None])
                if ctx.entropy:
                    surprise = (scaled - total[part, None]).masked_fill_(banned, 0.0)
                    d_logits -= d_spread[part, None] * share * (surprise + spread[part, None])
                d_logits.masked_fill_(banned, 0.0).div_(head.temperature)
                if head.softcap:
                    d_logits *= 1.0 - (held / head.softcap) ** 2
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
                slim = d_logits.to(head.dtype)
                if d_hidden is not None:
                    d_hidden[part] = (slim @ matrix).to(hidden.dtype)
                if d_weight is not None:
                    d_weight += slim.T @ hidden[part].to(head.dtype)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _mean(scaled: Tensor, total: Tensor) -> Tensor:
    """Expected logit, banned tokens left out: [B, V], [B] -> [B]."""
    share = (scaled - total[:, None]).exp()
    return (share * scaled.masked_fill(share == 0, 0.0)).sum(-1)


def _chunks(count: int, size: int) -> list[slice]:
    step = max(1, CHUNK // size)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
