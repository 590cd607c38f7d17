"""Small random models of real architectures, saved to a folder as a hub model would be."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}{{ think }}{% endif %}{% endif %}"
)
BRACKETS = (
    "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def byte_tokenizer(rewrites: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte, ChatML turns; `rewrites` adds an empty thought to the last turn, as Qwen3 does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    think = "'<think>\\n\\n</think>\\n\\n'" if rewrites else "''"
    fast.chat_template = "{% set think = " + think + " %}" + CHATML
    return fast


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Characters and a few words over a byte fallback; bracketed turns; texts begin with a BOS token."""
    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("[INST]", 0.0), ("[/INST]", 0.0)]
    vocab += [(f"<0x{i:02X}>", -20.0) for i in range(256)]
    vocab += [(chr(c), -10.0) for c in range(32, 127)]
    vocab += [(w, -1.0) for w in (" the", " letter", " and", " of", "Say")]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|\s|[^\sA-Za-z]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["[INST]", "[/INST]"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = BRACKETS
    return fast


def save_qwen3(folder: Path, *, seed: int = 0, rewrites: bool = False, context: int = 4096) -> Path:
    """A random two-layer Qwen3 with a byte tokenizer."""
    tokenizer = byte_tokenizer(rewrites)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer) + 5,  # rows that no token has, as the real ones
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=context,
            initializer_range=0.1,  # replies then differ in likelihood, as those of trained models do
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder: Path, *, seed: int = 1) -> Path:
    """A random two-layer Llama with another tokenizer and another template."""
    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.1,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_other(kind: str, folder: Path, *, seed: int = 2) -> Path:
    """A random two-layer `qwen2`, `gemma2` (capped logits), `gemma3` or `mistral`.

    Gemmas' first layer sees 12 tokens back, both of Mistral's do.
    """
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**shape, sliding_window=12))
    else:
        local = {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 12,
            "layer_types": ["sliding_attention", "full_attention"],
        }
        if kind == "gemma2":
            model = Gemma2ForCausalLM(Gemma2Config(**shape, **local, final_logit_softcapping=4.0))
        else:
            model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, **local))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WINDOW = 6  # of the models below that have one
_WINDOWED = {"sliding_window": WINDOW}
_MIXED = {**_WINDOWED, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
# Architecture by name, and what is set beside sizes.
ARCHITECTURES = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2-windowed": ("qwen2", {"use_sliding_window": True, **_MIXED}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "mistral": ("mistral", _WINDOWED),  # every layer has the window
    "gemma2": (
        "gemma2",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, **_MIXED},
    ),
    "gemma3": ("gemma3_text", {"head_dim": 8, "query_pre_attn_scalar": 8, **_MIXED}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
}


def random_model(name: str, *, seed: int = 0, vocabulary: int = 50, attention: str | None = None):
    """A random model of one of `ARCHITECTURES` with three layers, in evaluation mode."""
    kind, own = ARCHITECTURES[name]
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    settings = {
        "vocab_size": vocabulary,
        "initializer_range": 0.25,
        **({} if kind == "gpt2" else sizes),
        **own,
    }
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings)
    extra = {"attn_implementation": attention} if attention else {}
    return AutoModelForCausalLM.from_config(config, **extra).eval()
