"""Losses over token rows: pure functions of tensors.

Notation: B rows of a batch, L reply tokens (padded), V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_log_softmax(logits: Tensor, temperature: float, banned: Tensor) -> Tensor:
    """Temperature-scaled log-probs in which banned tokens have probability 0.

    Args:
        logits: [..., V].
        temperature: softmax temperature, > 0.
        banned: [V] bool, or [W] with W < V: ids from W on are rows of the output matrix that no token has, and
            are banned too.

    Returns:
        [..., V] float32.
    """
    scaled = logits.float()
    if temperature != 1.0:
        scaled = scaled / temperature
    if banned.shape[0] < scaled.shape[-1]:
        banned = torch.nn.functional.pad(banned, (0, scaled.shape[-1] - banned.shape[0]), value=True)
    return torch.log_softmax(scaled.masked_fill(banned[: scaled.shape[-1]], float("-inf")), dim=-1)


def token_entropy(logp: Tensor) -> Tensor:
    """Entropy in nats of distributions given as log-probs, [..., V] -> [...]; banned tokens (-inf) count 0."""
    return -(logp.exp() * logp.masked_fill(logp == float("-inf"), 0.0)).sum(-1)


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    mask: Tensor,
    advantage: Tensor,
    weight: Tensor,
    *,
    ratio: str,
    clip: float,
    reduction: str,
) -> Tensor:
    """Policy-gradient loss, summed over rows (paper section 4: -rho * A).

    Args:
        logprob: log-probs under the policy being trained, [B, L].
        old_logprob: those under the policy that sampled, [B, L]; not read for `ratio="none"`.
        mask: reply tokens, the end token included and padding not, [B, L] bool.
        advantage: [B].
        weight: [B].
        ratio: `none`: -log pi * A; `sequence`: one rho per reply; `token`: one rho per token.
        clip: PPO clip of rho; 0 is off.
        reduction: `sum` over a reply's tokens, or `token_mean`.

    Returns:
        Scalar.
    """
    if ratio == "none":
        signal = per_reply(logprob, mask, reduction) * advantage
    elif ratio == "sequence":
        signal = clipped_gain(ratios(logprob, old_logprob, mask, ratio, reduction), advantage, clip)
    else:
        gain = clipped_gain(ratios(logprob, old_logprob, mask, ratio, reduction), advantage[:, None], clip)
        signal = per_reply(gain, mask, reduction)
    return -(weight * signal).sum()


def ratios(logprob: Tensor, old_logprob: Tensor, mask: Tensor, ratio: str, reduction: str) -> Tensor:
    """Importance ratios: [B] for `sequence` (of the mean log-prob under `token_mean`), [B, L] for `token`."""
    # masked_fill, not a product: padding may hold -inf, and 0 * inf is NaN.
    change = (logprob - old_logprob).masked_fill(~mask, 0.0)
    return (per_reply(change, mask, reduction) if ratio == "sequence" else change).exp()


def clipped_gain(rho: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Rho * A, or with `clip` > 0 the lesser of it and clip(rho, 1 - clip, 1 + clip) * A."""
    gain = rho * advantage
    return torch.minimum(gain, rho.clamp(1 - clip, 1 + clip) * advantage) if clip > 0 else gain


def per_reply(per_token: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """Sum over each reply's tokens, or their mean for `token_mean`: [B, L] -> [B]."""
    total = per_token.masked_fill(~mask, 0.0).sum(-1)
    return total / mask.sum(-1).clamp(min=1) if reduction == "token_mean" else total


def kl_estimate(logprob: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) at tokens drawn from the policy: exp(d) - 1 - d with d = ref - logp.

    Never negative, and of little variance (known as k3; Schulman, "Approximating KL divergence", 2020).

    Args:
        logprob: log-probs under the policy, [B, L].
        reference: those under the reference, [B, L].

    Returns:
        [B, L].
    """
    difference = reference - logprob
    return difference.exp() - 1.0 - difference


def value_loss(
    value: Tensor, target: Tensor, weight: Tensor, before: Tensor | None = None, clip: float = 0.0
) -> Tensor:
    """Weighted squared error, summed (the paper's squared TD error).

    Args:
        value: [B].
        target: [B].
        weight: [B].
        before: values at rollout, [B], for `clip`.
        clip: the loss is that of the worse of the value and the value held within `clip` of `before`, so nothing is
            gained by moving further; 0 is off.

    Returns:
        Scalar.
    """
    error = (value.float() - target) ** 2
    if clip > 0 and before is not None:
        held = before + (value.float() - before).clamp(-clip, clip)
        error = torch.maximum(error, (held - target) ** 2)
    return (weight * error).sum()
