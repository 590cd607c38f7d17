"""What a run would do and need, told before any weights are loaded: `collm train --dry-run`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from collm_agents.chat import ChatFormat, History
from collm_agents.config import Config
from collm_agents.models import loading

GIB = 1024**3


@dataclass(frozen=True)
class Plan:
    """A run in numbers.

    Attributes:
        env: id.
        algorithm: its variant.
        agents: (model, tuning) by agent.
        critics: (model, tuning) by critic.
        tasks: training tasks.
        eval_tasks: held-out tasks.
        joint_samples: of the whole run, an upper bound where episodes may end early; 0 where nobody knows.
        budget: what the run may spend otherwise, in words; empty where `joint_samples` says it.
        updates: buffers; 0 where nobody knows.
        samples_per_update: joint samples in a buffer of full trees.
        optimizer_steps: of each agent.
        memory: estimate in bytes by part.
    """

    env: str
    algorithm: str
    agents: Mapping[str, tuple[str, str]]
    critics: Mapping[str, tuple[str, str]]
    tasks: int
    eval_tasks: int
    joint_samples: int
    updates: int
    samples_per_update: int
    optimizer_steps: int
    memory: Mapping[str, float]
    budget: str = ""

    def __str__(self) -> str:
        lines = [f"environment      {self.env}: {self.tasks} training tasks, {self.eval_tasks} held out"]
        lines.append(f"algorithm        {self.algorithm}")
        for name, (model, tuning) in {**self.agents, **self.critics}.items():
            lines.append(f"  {name:<14} {model} ({tuning})")
        if self.budget:
            lines.append(f"budget           {self.budget}")
            lines.append(f"updates          of up to {self.samples_per_update:,} joint samples")
        else:
            lines.append(f"budget           {self.joint_samples:,} joint samples at most")
            lines.append(
                f"updates          {self.updates:,} of up to {self.samples_per_update:,} joint samples"
            )
            lines.append(f"optimizer steps  {self.optimizer_steps:,} per agent")
        lines.append(f"memory           {sum(self.memory.values()) / GIB:.2f} GiB, an estimate:")
        lines.extend(f"  {name:<28} {size / GIB:.3f} GiB" for name, size in self.memory.items())
        return "\n".join(lines)


def estimate_memory(
    config: Config,
    agents: Mapping[str, tuple[str, str]],
    critics: Mapping[str, tuple[str, str]],
    prompts: Sequence[Mapping[str, str]],
    samples_per_update: int,
    device: str,
) -> dict[str, float]:
    """Bytes by part, from model configurations, the first prompts and arithmetic.

    Args:
        config: the run's.
        agents: (model, tuning) by agent.
        critics: (model, tuning) by critic.
        prompts: first observations of some tasks, by agent.
        samples_per_update: joint samples in a buffer.
        device: decides what `dtype=auto` is.

    Returns:
        Weights, gradients with AdamW's two moments, the cache of one agent's sampling, and one micro-batch's
        activations with its logits. Not counted: the Python process itself and the allocator's waste.
    """
    size = torch.finfo(loading.pick_dtype(config.team.dtype, device)).bits / 8
    parts = {"weights": 0.0, "gradients and optimizer": 0.0, "sampling cache": 0.0, "one micro-batch": 0.0}
    groups: dict[tuple[str, str], list[str]] = {}
    for member, base in {**agents, **critics}.items():
        groups.setdefault(base, []).append(member)
    for (name, tuning), members in groups.items():
        model_config = loading.load_config(name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config)
        whole = sum(p.numel() for p in model.parameters())
        if tuning == "full":  # trained in float32 whatever the computation's type
            parts["weights"] += whole * 4 * len(members)
            parts["gradients and optimizer"] += whole * 4 * 3 * len(members)
        else:
            adapter = _adapter_size(model, config.team.lora.rank, config.team.lora.target_modules)
            parts["weights"] += whole * size + adapter * 4 * len(members)
            parts["gradients and optimizer"] += adapter * 4 * 3 * len(members)
        longest = _longest(config, name, prompts)
        text = model_config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token = 2 * text.num_hidden_layers * heads * width * size
        parts["sampling cache"] = max(parts["sampling cache"], token * longest * min(512, samples_per_update))
        # Per token and layer: about 16 values of the hidden width and 3 of the feed-forward's are kept for the
        # backward pass; logits take the vocabulary four times over in float32 (scaled, masked, normalised, grad).
        inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        tokens = min(
            config.learner.microbatch_tokens or (2048 if device == "cpu" else 8192),
            longest * samples_per_update,
        )
        replies = math.ceil(tokens / longest) * config.team.sampling.max_new_tokens
        layers = tokens * text.num_hidden_layers * (16 * text.hidden_size + 3 * inner) * size
        parts["one micro-batch"] = max(parts["one micro-batch"], layers + replies * text.vocab_size * 16)
    return parts


def _longest(config: Config, name: str, prompts: Sequence[Mapping[str, str]]) -> int:
    """Tokens of the longest first prompt and reply; critics read about what all agents have together."""
    form = ChatFormat(loading.load_tokenizer(name), template=config.team.template, multi_turn=False)
    texts = [text for seen in prompts for text in seen.values()]
    lengths = [len(h.ids) for t in texts if (h := History().observe(t, form, 10**9, "error")) is not None]
    return max(lengths, default=0) + config.team.sampling.max_new_tokens


def _adapter_size(model: torch.nn.Module, rank: int, targets: str) -> int:
    """Parameters of one adapter: rank * (inputs + outputs) over the targeted linear layers."""
    names = None if targets == "all-linear" else tuple(name.strip() for name in targets.split(","))
    total = 0
    for name, module in model.named_modules():
        wanted = names is None or name.rsplit(".", 1)[-1] in names
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head") and wanted:
            total += rank * (module.in_features + module.out_features)
    return total
