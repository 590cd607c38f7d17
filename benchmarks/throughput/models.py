"""Random models of real architectures whose replies have a chosen length, with a tokenizer of one token a word.

One coordinate of the hidden state is kept for this: embeddings are large there, nothing writes to it, and the rest
stays small beside it, so behind the last norm it is the same whatever came before. Input and output embeddings are
tied; what a token's embedding has there is its bias, and the end token gets the probability it is asked to have, at
every step. No hook and no forced token: both sides draw. Costs do not depend on weights.

`python -m benchmarks.throughput.models '{"folder": ..., "name": ..., "end": ..., "dtype": ..., "device": ...}'`
"""

from __future__ import annotations

import json
import math
import string
import sys
from collections import deque
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer
from transformers.utils import logging

PAD, END = "<|pad|>", "<|end|>"
PAD_ID, END_ID = 0, 1  # not 0 for the end: the peer takes a 0 for none
FIRST_WORD = 2 + 256  # before it: the two above, and single bytes
WORD = 30.0  # logit of every word, but for noise
LESS = 0.4  # of it: the logit of tokens that are not to be drawn, one in 10^9 then
SIZES = ("kind", "vocab", "width", "inner", "layers", "heads", "kv", "head")
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(zip(SIZES, ("qwen2", 512, 32, 64, 2, 4, 2, 8), strict=True)),
    "tiny3": dict(zip(SIZES, ("qwen3", 512, 32, 48, 2, 2, 1, 24), strict=True)),
    "1m": dict(zip(SIZES, ("qwen2", 4096, 128, 384, 3, 4, 2, 32), strict=True)),
    "4m": dict(zip(SIZES, ("qwen2", 4096, 256, 768, 4, 4, 2, 64), strict=True)),
    "25m": dict(zip(SIZES, ("qwen2", 4096, 512, 1536, 8, 8, 2, 64), strict=True)),
    # The paper's: Qwen3-1.7B, Qwen2.5-Coder-3B, Qwen3-4B-Instruct-2507.
    "qwen3-1.7b": dict(zip(SIZES, ("qwen3", 151936, 2048, 6144, 28, 16, 8, 128), strict=True)),
    "qwen2.5-3b": dict(zip(SIZES, ("qwen2", 151936, 2048, 11008, 36, 16, 2, 128), strict=True)),
    "qwen3-4b": dict(zip(SIZES, ("qwen3", 151936, 2560, 9728, 36, 32, 8, 128), strict=True)),
}


def words(count: int) -> list[str]:
    """Distinct words of small letters, every beginning of a word before it: `a`, `b`, ..., `aa`, ..."""
    found, waiting = [], deque([""])
    while len(found) < count:
        start = waiting.popleft()
        for letter in string.ascii_lowercase:
            found.append(start + letter)
            waiting.append(start + letter)
    return found[:count]


def word_tokenizer(vocab: int) -> Qwen2Tokenizer:
    """One token per word with the space before it, as many as the model has: all that is drawn is words."""
    known = {PAD: PAD_ID, END: END_ID}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        known[byte] = len(known)
    merges = []
    for word in words(vocab - FIRST_WORD):
        known["Ġ" + word] = len(known)  # as byte-level tokenizers write a space
        merges.append(("Ġ" + word[:-1], word[-1]))
    return Qwen2Tokenizer(
        vocab=known,
        merges=merges,
        unk_token=END,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )


def end_probability(longest: int) -> float:
    """Probability of the end token at which replies of at most `longest` tokens have the uniform lengths' mean.

    Lengths are then geometric, cut at `longest`: their mean (1 - (1 - p)^longest) / p is (longest + 1) / 2.
    """
    low, high = 1e-9, 1.0
    for _ in range(100):
        p = (low + high) / 2
        mean = (1 - (1 - p) ** longest) / p
        low, high = (p, high) if mean > (longest + 1) / 2 else (low, p)
    return p


def model_config(name: str) -> Any:
    """The configuration of one of `ARCHITECTURES`."""
    shape = ARCHITECTURES[name]
    return AutoConfig.for_model(
        shape["kind"],
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv"],
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        **({"head_dim": shape["head"]} if shape["kind"] == "qwen3" else {}),
    )


def make_model(
    name: str, folder: Path, *, end: float, dtype: str = "float32", device: str = "cpu", seed: int = 0
) -> Path:
    """Save a random model and its tokenizer.

    Args:
        name: one of `ARCHITECTURES`.
        folder: where to.
        end: probability of the end token; 0 for never.
        dtype: of the saved weights.
        device: where the weights are drawn.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(model_config(name), dtype=torch.float32).eval()
    model.to(getattr(torch, dtype))
    _set_ends(model, end)
    model.generation_config.update(eos_token_id=END_ID, pad_token_id=PAD_ID, bos_token_id=None)
    model.save_pretrained(folder)
    word_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return folder


@torch.no_grad()
def _set_ends(model: Any, end: float) -> None:
    embedding, decoder = model.get_input_embeddings().weight, model.get_decoder()
    width, depth = embedding.shape[1], len(decoder.layers)
    for layer in decoder.layers:
        for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
            out.weight.mul_(0.02 / math.sqrt(2 * depth))
            out.weight[0] = 0.0
    embedding[:, 0] = math.sqrt(width)
    embedding[:FIRST_WORD, 0] *= LESS
    embedding[:2, 1:] = 0.0
    decoder.norm.weight[0] = WORD / width
    if end:
        wanted = math.log(end / (1 - end))
        for _ in range(3):  # the words' noise and the norm differ a little from the first guess
            embedding[END_ID, 0] += (wanted - log_odds(model)) * math.sqrt(width) / WORD


@torch.no_grad()
def log_odds(model: Any, rows: int = 8, length: int = 16) -> float:
    """Mean log-odds of the end token after random words."""
    embedding = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_WORD, embedding.shape[0], (rows, length), generator=generator)
    logits = model(input_ids=ids.to(embedding.device), use_cache=False).logits.float()
    others = logits.clone()
    others[..., END_ID] = float("-inf")
    return float((logits[..., END_ID] - others.logsumexp(-1)).mean())


if __name__ == "__main__":
    logging.disable_progress_bar()
    wanted = json.loads(sys.argv[1])
    make_model(wanted.pop("name"), Path(wanted.pop("folder")), **wanted)
