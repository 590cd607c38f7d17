"""What the machine could do, and what a step asks of it: matmul peak, bandwidth, operations, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

FORMULA = (
    "operations of an update = 6 * P * tokens + 12 * layers * heads * head_dim * pairs + 6 * width * vocabulary * "
    "scored; P: weights of linear layers without embeddings and head; tokens: as laid out, what rows share counted "
    "once, padding left out; pairs: (query, key) pairs attended to; scored: reply tokens, where the head is "
    "computed; passes without gradient count a third"
)


def best(run: Callable[[], None], device: str, seconds: float = 1.0) -> float:
    """Shortest time of one call, in seconds."""
    shortest, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def peaks(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Operations per second of a square matmul, and bytes per second of a copy (read and written both counted).

    The best of several sizes: where other work takes turns on the processor, a call of 20 ms is never undisturbed
    and one of 1 ms often is.
    """
    large = device.startswith("cuda")
    numbers = (1 << 30) if large else (1 << 26)
    source, target = torch.ones(2, numbers // 4, device=device).unbind()
    found = []
    for size in (4096, 8192) if large else (384, 512, 768, 1024):
        a, b, out = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(3))
        found.append(2 * size**3 / best(lambda a=a, b=b, out=out: torch.matmul(a, b, out=out), device))
    return {
        "matmul": max(found),
        "bandwidth": 2 * source.numel() * 4 / best(lambda: target.copy_(source), device),
    }


class Shape:
    """Sizes of a causal LM that its costs follow from.

    Args:
        causal: the model.
        dtype: that its weights are read in while drawing, where autocast keeps casts of them; default their own.

    Attributes:
        linear: weights of linear layers without embeddings and head.
        head: weights of the output matrix.
        attention: layers * heads * head_dim.
        kv: keys and values of one token over all layers.
        bytes: of all weights.
    """

    def __init__(self, causal: Any, dtype: torch.dtype | None = None) -> None:
        decoder, text = causal.get_decoder(), causal.config.get_text_config()
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.linear = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, nn.Linear))
        self.head = text.hidden_size * text.vocab_size
        self.attention = text.num_hidden_layers * text.num_attention_heads * head_dim
        self.kv = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
        self.item = (dtype or next(decoder.parameters()).dtype).itemsize
        tied = text.tie_word_embeddings
        self.bytes = (self.linear + self.head * (1 if tied else 2)) * self.item


def laid_out(
    ids: Tensor, mask: Tensor | Mapping[str, Tensor] | None, positions: Tensor | None
) -> tuple[int, int]:
    """Tokens and attended pairs of one forward pass over whole sequences, padding left out.

    Args:
        ids: [R, T].
        mask: [R, T], or [R, 1, T, T] boolean or additive, or a dict of such by layer type, or None for causal.
        positions: [R, T], or None; padding has position 0, as the first token has.
    """
    if isinstance(mask, Mapping):
        mask = mask["full_attention"]
    rows, width = ids.shape
    if mask is not None and mask.ndim == 2:
        lengths = mask.sum(-1)
        return int(lengths.sum()), int((lengths * (lengths + 1) // 2).sum())
    padding = 0 if positions is None else int((positions == 0).sum()) - rows
    if mask is None:
        lengths = width - (torch.zeros(rows) if positions is None else (positions == 0).sum(-1).cpu() - 1)
        return rows * width - padding, int((lengths * (lengths + 1) // 2).sum())
    allowed = mask if mask.dtype == torch.bool else mask == 0
    return rows * width - padding, int(allowed.sum()) - padding  # padding sees itself


class Operations:
    """Counts what passes through some models, by part; see `FORMULA`.

    Args:
        parts: name -> (models, whether passes without gradient count, too).
    """

    def __init__(self, parts: Mapping[str, tuple[Iterable[Any], bool]]) -> None:
        self.counts = dict.fromkeys(parts, 0.0)
        self.tokens = dict.fromkeys(parts, 0)
        for part, (models, plain) in parts.items():
            for causal in models:
                causal.get_decoder().register_forward_pre_hook(
                    self._hook(part, Shape(causal), plain), with_kwargs=True
                )

    def _hook(self, part: str, shape: Shape, plain: bool) -> Callable[..., None]:
        def note(_: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            if not (torch.is_grad_enabled() or plain):
                return
            tokens, pairs = laid_out(
                kwargs["input_ids"], kwargs.get("attention_mask"), kwargs.get("position_ids")
            )
            passes = 3 if torch.is_grad_enabled() else 1
            self.counts[part] += passes * (2 * shape.linear * tokens + 4 * shape.attention * pairs)
            self.tokens[part] += tokens

        return note

    def reset(self) -> None:
        """Forget the warm-up."""
        self.counts, self.tokens = dict.fromkeys(self.counts, 0.0), dict.fromkeys(self.tokens, 0)


def decode_floor(
    shape: Shape, prompts: Sequence[int], replies: Sequence[int], distinct: int, machine: Mapping[str, float]
) -> dict[str, float]:
    """Seconds that drawing one batch of replies takes at least.

    Args:
        shape: the model's.
        prompts: tokens of each row's prompt.
        replies: tokens of each row's reply.
        distinct: tokens of the distinct prompts.
        machine: `peaks`.

    Returns:
        `bandwidth`: weights once for the prompts and once per further token of the longest reply, and every row's
        keys and values at each; `matmul`: 2 * weights per token fed, the head at each token drawn, 4 * attention
        per pair while drawing. The first token of a reply comes with the prompt.
    """
    seen = sum((n - 1) * p + n * (n - 1) // 2 for p, n in zip(prompts, replies, strict=True))
    moved = max(replies) * shape.bytes + seen * shape.kv * shape.item
    drawn = sum(replies)
    fed = distinct + drawn - len(replies)
    work = 2 * shape.linear * fed + 2 * shape.head * drawn + 4 * shape.attention * seen
    return {"bandwidth": moved / machine["bandwidth"], "matmul": work / machine["matmul"]}
