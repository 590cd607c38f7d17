"""Small teams and learners on tiny models, as `Experiment` would build them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch
from tiny_models import save_llama, save_qwen3

from collm_agents.config import LearnerConfig, LoraConfig, SamplingConfig, TeamConfig
from collm_agents.critic import Critic, critic_members
from collm_agents.learner import Learner
from collm_agents.models.backbone import Backbone
from collm_agents.team import AgentTeam, build_backbones

_HELD: list[tempfile.TemporaryDirectory] = []


@functools.cache
def folder(name: str) -> str:
    """Folder of a tiny `qwen3` or `llama`, made once per session."""
    _HELD.append(tempfile.TemporaryDirectory())
    return str({"qwen3": save_qwen3, "llama": save_llama}[name](Path(_HELD[-1].name)))


def backbone(name="qwen3", members=("a_0", "b_1"), tuning="lora", **kwargs) -> Backbone:
    """A tiny backbone in float32."""
    settings = {"lora": LoraConfig(rank=4, alpha=8.0), "dtype": torch.float32, "device": "cpu", **kwargs}
    return Backbone(folder(name), members, tuning=tuning, **settings)


@torch.no_grad()
def stir(model: Backbone, scale=0.3, seed=0) -> Backbone:
    """Random weights on all members, so that adapters are not the zero map they start as."""
    generator = torch.Generator().manual_seed(seed)
    for member in model.members:
        for parameter in model.parameters(member).values():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (scale if model.tuning == "lora" else 0.02))
    return model


def team(
    agents=("a_0", "b_1"),
    models="qwen3",
    tuning="lora",
    *,
    num_turns=1,
    stirred=True,
    batch_rows=512,
    **config,
):
    """A team on tiny models; `models` is one name or one per agent."""
    names = [models] * len(agents) if isinstance(models, str) else models
    sampling = config.pop("sampling", {})
    settings = TeamConfig(
        tuning=tuning,
        lora=LoraConfig(rank=4, alpha=8.0),
        sampling=SamplingConfig(**{"max_new_tokens": 6, **sampling}),
        **config,
    )
    wanted = {agent: (folder(name), tuning) for agent, name in zip(agents, names, strict=True)}
    backbones = build_backbones(wanted, settings, "cpu", 0)
    if stirred:
        for number, found in enumerate(dict.fromkeys(backbones.values())):
            stir(found, seed=number)
    return AgentTeam(agents, backbones, settings, num_turns=num_turns, batch_rows=batch_rows)


def critic(
    view, owners, agents=("a_0", "b_1"), models="qwen3", tuning="lora", *, global_info=True, stirred=True
):
    """A critic on tiny models."""
    members = critic_members(owners, agents)
    names = [models] * len(members) if isinstance(models, str) else models
    settings = TeamConfig(lora=LoraConfig(rank=4, alpha=8.0))
    wanted = {m: (folder(name), tuning) for m, name in zip(members, names, strict=True)}
    backbones = build_backbones(wanted, settings, "cpu", 1)
    if stirred:
        for number, found in enumerate(dict.fromkeys(backbones.values())):
            stir(found, seed=10 + number)
    return Critic(view, owners, agents, backbones, global_info=global_info)


def learner(found_team, estimator, found_critic=None, **settings) -> Learner:
    """A learner with small, plain settings."""
    return Learner(found_team, found_critic, estimator, LearnerConfig(**{"lr": 1e-3, **settings}))


def weights(model: Backbone, member: str) -> dict[str, torch.Tensor]:
    """A copy of what a member trains."""
    return {name: p.detach().clone() for name, p in model.parameters(member).items()}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are bit for bit equal."""
    return before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference between two sets of weights."""
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)
