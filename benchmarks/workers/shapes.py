"""Sizes of decoder models by their configurations: parameters, and numbers of their adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A decoder of the Qwen3 or Llama family, as its `config.json` has it.

    Attributes:
        hidden: width.
        layers: blocks.
        heads: of queries.
        groups: of keys and values.
        head: width of a head.
        inner: width of the feed-forward layers.
        vocab: size of the vocabulary.
        tied: one matrix embeds and reads out.
        head_norms: queries and keys are normalised by head.
    """

    hidden: int
    layers: int
    heads: int
    groups: int
    head: int
    inner: int
    vocab: int
    tied: bool
    head_norms: bool = True

    @classmethod
    def of(cls, config: Any) -> Shape:
        """That of a transformers configuration."""
        return cls(
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
            config.tie_word_embeddings,
            config.model_type == "qwen3",
        )

    def linear(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a block's seven linear layers."""
        q, kv = self.heads * self.head, self.groups * self.head
        return [
            *((self.hidden, out) for out in (q, kv, kv)),
            (q, self.hidden),
            *((self.hidden, self.inner),) * 2,
            (self.inner, self.hidden),
        ]

    def adapter(self, rank: int) -> int:
        """Numbers of an adapter on all linear layers of all blocks: rank * (inputs + outputs) each."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self.linear())

    def parameters(self) -> int:
        """Of the whole model."""
        norms = 2 * self.hidden + (2 * self.head if self.head_norms else 0)
        block = sum(inputs * outputs for inputs, outputs in self.linear()) + norms
        return self.layers * block + (1 if self.tied else 2) * self.vocab * self.hidden + self.hidden


QWEN3_4B = Shape(2560, 36, 32, 8, 128, 9728, 151_936, tied=True)
