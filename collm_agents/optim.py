"""Optimizers by name, and the learning rate's course over a run.

For the learner. The course is a function of the share of the budget that is spent, not of a counter, since
episodes that end early change how many updates a budget holds; a resumed run is at the same place in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor

from collm_envs.errors import SettingError


def make_optimizer(
    kind: str, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """One member's optimizer.

    Args:
        kind: `adamw`; `adamw8bit` (moments in 8 bits, from bitsandbytes, on an accelerator); `adafactor` (a
            factored second moment and no first one, at the given rate).
        parameters: what it steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.

    Raises:
        SettingError: when the library of `adamw8bit` is not installed.
    """
    if kind == "adamw":
        given = list(parameters)
        if any(
            isinstance(parameter, DTensor) for parameter in given
        ):  # shards, which only a plain loop can step
            return torch.optim.AdamW(given, lr=lr, weight_decay=weight_decay, foreach=False, fused=False)
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in given)
        return torch.optim.AdamW(given, lr=lr, weight_decay=weight_decay, fused=fused)
    if kind == "adafactor":
        from transformers.optimization import Adafactor

        # Its own relative step and its scaling by the weights' size would override the learning rate given.
        return Adafactor(
            parameters, lr=lr, weight_decay=weight_decay, relative_step=False, scale_parameter=False
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise SettingError(
            "learner.optimizer='adamw8bit' needs the package bitsandbytes: pip install bitsandbytes"
        ) from error
    return AdamW8bit(parameters, lr=lr, weight_decay=weight_decay)


def rate_factor(schedule: str, progress: float, update: int, warmup: int, end: float) -> float:
    """What the learning rates are multiplied by.

    Args:
        schedule: `constant`, `linear` or `cosine` from 1 to `end`.
        progress: share of the budget spent before this update, 0 to 1.
        update: updates done before this one.
        warmup: updates over which the rates rise linearly to the schedule's.
        end: share of the rates left at the end of the budget.

    Returns:
        The factor; never 0 before the budget is spent unless `end` and the schedule say so.
    """
    done = min(max(progress, 0.0), 1.0)
    left = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]
    factor = 1.0 if schedule == "constant" else end + (1.0 - end) * left
    return factor * min(1.0, (update + 1) / (warmup + 1))
