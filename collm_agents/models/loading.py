"""Loading a base model and its tokenizer, by name, from a folder, or the one shipped with the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from collm_agents.models.places import BUILTIN_FOLDER as BUILTIN_FOLDER
from collm_agents.models.places import resolve as resolve
from collm_envs.errors import InputError

# Bars for reading and writing single files would bury a run's own output; downloads keep theirs.
transformers_logging.disable_progress_bar()
# An unreachable hub is reported once, as one line, not at every retry.
hub_logging.set_verbosity_error()

SMALL_MODEL = 5_000_000  # parameters; several threads only get in each other's way below


def load_config(name: str) -> Any:
    """The model's configuration; no weights are read."""
    return _guarded(name, "a model configuration", lambda: AutoConfig.from_pretrained(resolve(name)))


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer.

    Raises:
        InputError: when there is none.
    """
    load_config(name)  # or what is wrong with it would be told as the tokenizer's
    tokenizer = _guarded(name, "a tokenizer", lambda: AutoTokenizer.from_pretrained(resolve(name)))
    # Without tokenizer files some architectures give a tokenizer of nothing but special tokens.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise InputError(f"model {name!r}: has no tokenizer, or an empty one; tokenizer.json is wanted")
    if not tokenizer.is_fast:
        raise InputError(f"model {name!r}: needs a fast tokenizer (tokenizer.json)")
    return tokenizer


def load_model(name: str, dtype: torch.dtype, device: str) -> Any:
    """The causal LM in evaluation mode; safetensors only, no remote code.

    On the device `meta` it is made from its configuration alone: shapes without weights.

    Raises:
        InputError: when it cannot be loaded.
    """

    def load() -> Any:
        if device == "meta":
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(load_config(name), dtype=dtype)
        model, info = AutoModelForCausalLM.from_pretrained(
            resolve(name),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are named below, and not in a table on stderr
            output_loading_info=True,
        )
        _check_whole(name, model, info)
        return model

    what = "a causal language model in safetensors"
    model = _guarded(name, what, load).to(device).eval()
    if device != "meta" and _looks_ahead(model):
        raise InputError(f"model {name!r}: sees what comes later (an encoder?); {what} is wanted")
    return model


def _check_whole(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Raise where weights were not in the files: transformers would go on with random ones."""
    kind = type(model).__name__
    if lacking := sorted(info["missing_keys"]):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InputError(
            f"model {name!r}: its files lack {lacking[0]}{more}, which a {kind} has; copy the model again, or "
            "mend its config.json"
        )
    if other := sorted(info["mismatched_keys"], key=str):
        key = other[0] if isinstance(other[0], str) else other[0][0]
        raise InputError(
            f"model {name!r}: {key} has another shape than its config.json says; the two are not of one model"
        )


@torch.no_grad()
def _looks_ahead(model: Any) -> bool:
    """Whether a token's logits depend on later ones: then it draws replies in a way that it does not score them."""
    count = min(8, model.config.get_text_config().vocab_size)
    ids = torch.arange(count, device=next(model.parameters()).device)[None]
    try:
        whole = model(input_ids=ids, use_cache=False).logits[0, 0].float()
        alone = model(input_ids=ids[:, :1], use_cache=False).logits[0, 0].float()
    except (TypeError, ValueError, RuntimeError):  # such models fail, or are slow, further on and say why
        return False
    # Rounding only: a token more in sight moves logits by about their own spread.
    return bool((whole - alone).abs().max() > 0.3 * (alone.std() + 1e-3))


def context_length(config: Any) -> int:
    """Longest sequence the model is made for, in tokens; 0 where its configuration does not say."""
    return int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 0)


def pick_device(name: str) -> str:
    """`auto` resolved: cuda where there is one, else cpu.

    Raises:
        InputError: for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"run.device={name!r} is not a device; try auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"run.device={name!r}: there are {torch.cuda.device_count()} CUDA devices; try auto or cpu"
        )
    return name


def choose_threads(models: Iterable[Any], device: str, threads: int) -> None:
    """Set torch's threads: as many as asked for, else one where all models are small and on a CPU."""
    largest = max(sum(weights.numel() for weights in model.parameters()) for model in models)
    if count := threads or int(device == "cpu" and largest < SMALL_MODEL):
        torch.set_num_threads(count)


def pick_dtype(name: str, device: str) -> torch.dtype:
    """`auto` resolved: bfloat16 on an accelerator, else float32."""
    if name == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _guarded(name: str, what: str, load: Any) -> Any:
    try:
        return load()
    except InputError:
        raise
    except Exception as error:  # hub, file and format errors of many kinds become one clear line
        raise InputError(
            f"model {name!r}: cannot load {what}: {_told(error)}{_remedy(name, error)}"
        ) from error


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError):
        return f"{type(error).__name__} {''.join(lines)}".strip()
    # A headline whose list would follow says nothing on its own.
    told = " ".join(lines[:4]) if lines[0].endswith(":") else lines[0]
    return told if len(told) <= 300 else f"{told[:300]}..."


def _remedy(name: str, error: Exception) -> str:
    """What would do, for what happens most."""
    if isinstance(error, SafetensorError):
        return "; the file is damaged: copy or download it again"
    if "safetensors" in str(error) and list(Path(resolve(name)).glob("*.bin")):
        return "; it holds pickled weights, which may run code: convert them to safetensors"
    return "; look at its tokenizer.json" if isinstance(error, KeyError) else ""
