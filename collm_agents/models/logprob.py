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

CHUNK = 2**24  # logits at a time on an accelerator
CACHED, ROWS = 2**19, 128  # logits at a time on a CPU, and the fewest rows
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
        shift = _shift(head, bias, size)
        keep = hidden.shape[0] * size <= KEEP and any(ctx.needs_input_grad) and not head.softcap
        logprob, spread = (hidden.new_zeros(len(target), dtype=torch.float32) for _ in range(2))
        kept = []
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(target), size, hidden.device):
                logp, _ = _log_softmax(hidden[part], head, shift)
                logprob[part] = logp.gather(-1, target[part, None]).squeeze(-1)
                if entropy:
                    spread[part] = -_surprise(logp).sum(-1)
                if keep:
                    kept.append(logp)
        ctx.save_for_backward(hidden, weight, bias, target, spread, shift, *kept)
        ctx.head, ctx.entropy = head, entropy
        return logprob, spread

    @staticmethod
    def backward(ctx: Any, d_logprob: Tensor, d_spread: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, spread, shift, *kept = ctx.saved_tensors
        head: Head = ctx.head
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        matrix = weight.to(head.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for number, part in enumerate(_chunks(len(target), weight.shape[0], hidden.device)):
                logp, capped = (kept[number], None) if kept else _log_softmax(hidden[part], head, shift)
                # What reaches the capped logits, which the temperature divides.
                pull = d_logprob[part, None] / head.temperature
                added = None
                if ctx.entropy:
                    push = d_spread[part, None] / head.temperature
                    added = _surprise(logp).add_(logp.exp() * spread[part, None]).mul_(push)
                d_logits = logp.exp().mul_(-pull)
                chosen = target[part, None]
                d_logits.scatter_add_(-1, chosen, pull.masked_fill(shift[chosen] == float("-inf"), 0.0))
                if added is not None:
                    d_logits -= added
                if capped is not None:
                    d_logits *= 1.0 - (capped / head.softcap) ** 2
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
                slim = d_logits.to(head.dtype)
                if d_hidden is not None:
                    d_hidden[part] = slim @ matrix
                if d_weight is not None:
                    _add_product(d_weight, slim, hidden[part].to(head.dtype))
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _shift(head: Head, bias: Tensor | None, size: int) -> Tensor:
    """What is added to raw logits: the bias, and -inf for what is banned, so that no pass of its own is needed."""
    shift = torch.zeros(size, device=head.weight.device) if bias is None else bias.detach().float().clone()
    banned = torch.ones(size, dtype=torch.bool, device=shift.device)
    banned[: head.banned.shape[0]] = head.banned[:size]
    return shift.masked_fill_(banned, float("-inf"))


def _log_softmax(hidden: Tensor, head: Head, shift: Tensor) -> tuple[Tensor, Tensor | None]:
    """Log-probs, [B, V] float32, and the capped logits where they are capped."""
    matrix = head.weight.detach().to(head.dtype).T
    slim = hidden.to(head.dtype)
    exact = head.dtype == torch.float32
    raw = torch.addmm(shift, slim, matrix) if exact else (slim @ matrix).float().add_(shift)
    capped = None
    if head.softcap:
        banned = raw == float("-inf")
        capped = head.softcap * torch.tanh(raw / head.softcap)
        raw = capped.masked_fill(banned, float("-inf"))
    if head.temperature != 1.0:
        raw = raw / head.temperature
    return torch.log_softmax(raw, -1), capped


def _surprise(logp: Tensor) -> Tensor:
    """Probability times log-prob; 0 for banned tokens."""
    return logp.exp().mul_(logp.masked_fill(logp == float("-inf"), 0.0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total` += left^T right, summed in float32 over chunks."""
    if left.dtype == torch.float32:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right


def _chunks(count: int, size: int, device: torch.device) -> list[slice]:
    """Rows at a time: on a CPU few enough for its caches, but not so few that matrix products suffer."""
    step = max(ROWS, CACHED // size) if device.type == "cpu" else max(1, CHUNK // size)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
