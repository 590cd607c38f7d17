"""Loading a base model and its tokenizer, by name, from a folder, or the one shipped with the package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from collm_envs.errors import InputError

# Bars for reading and writing single files would bury a run's own output; downloads keep theirs.
transformers_logging.disable_progress_bar()
# An unreachable hub is reported once, as one line, not at every retry.
hub_logging.set_verbosity_error()

SMALL_MODEL = 5_000_000  # parameters; several threads only get in each other's way below
BUILTIN_FOLDER = Path(__file__).parent / "builtin"


def resolve(name: str) -> str:
    """What Hugging Face is asked for: the shipped folder for `builtin`, FOLDER for `builtin:FOLDER`, else the name.

    Raises:
        InputError: for a path that is not there.
    """
    if name == "builtin":
        return str(BUILTIN_FOLDER)
    if name.startswith("builtin:"):
        name = str(Path(name.removeprefix("builtin:")).expanduser().absolute())
    looks_like_path = (
        name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).expanduser().exists()
    )
    if "/" in name and looks_like_path:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise InputError(f"model folder {name!r} does not exist")
        return str(folder)
    return name


def load_config(name: str) -> Any:
    """The model's configuration; no weights are read."""
    return _guarded(name, "a model configuration", lambda: AutoConfig.from_pretrained(resolve(name)))


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer.

    Raises:
        InputError: when there is none.
    """
    tokenizer = _guarded(name, "a tokenizer", lambda: AutoTokenizer.from_pretrained(resolve(name)))
    # Without tokenizer files some architectures give a tokenizer of nothing but special tokens.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise InputError(f"model {name!r}: has no tokenizer, or an empty one")
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
        return AutoModelForCausalLM.from_pretrained(
            resolve(name), dtype=dtype, use_safetensors=True, trust_remote_code=False
        )

    model = _guarded(name, "a causal language model in safetensors", load)
    return model.to(device).eval()


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
        raise InputError(f"run.device={name!r}: there are {torch.cuda.device_count()} CUDA devices")
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
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if first.endswith(":"):  # a headline whose list would follow; on its own it says nothing
            first = "the files it needs are not there"
        raise InputError(f"model {name!r}: cannot load {what}: {first}") from error
