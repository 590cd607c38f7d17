"""Small teams and learners on tiny models, as `Experiment` would build them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tiny_models import byte_tokenizer, save_llama, save_other, save_qwen3
from transformers import AutoModelForCausalLM, AutoTokenizer

from collm_agents.chat import ChatFormat
from collm_agents.collect import Collector
from collm_agents.config import LearnerConfig, LoraConfig, SamplingConfig, TeamConfig
from collm_agents.critic import Critic, critic_members
from collm_agents.learner import Learner
from collm_agents.members import build_backbones
from collm_agents.models.backbone import Backbone
from collm_agents.team import AgentTeam, Reply
from collm_envs import VecEnv, make

_HELD: list[tempfile.TemporaryDirectory] = []


@functools.cache
def folder(name: str) -> str:
    """Folder of a tiny model, made once per session; `wordy-qwen3` puts spaces into what it says."""
    _HELD.append(tempfile.TemporaryDirectory())
    kind = name.removeprefix("wordy-")
    makers = {"qwen3": save_qwen3, "llama": save_llama}
    place = makers.get(kind, functools.partial(save_other, kind))(Path(_HELD[-1].name))
    if kind != name:
        _make_wordy(place)
    return str(place)


@torch.no_grad()
def _make_wordy(place: Path) -> None:
    """Let many tokens begin a word: a part of the hidden state is constant, and those tokens read it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    seen, said = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    seen[:, 0] = 1.0
    said[:, 0] = 0.0 if said is not seen else 1.0
    starts = [i for i in range(len(tokenizer)) if tokenizer.decode([i]).startswith(" ")]
    said[starts, 0] += 1.3 if len(starts) == 1 else 1.6
    said[tokenizer.eos_token_id, 0] -= 0.5  # and let an end be rare
    model.save_pretrained(place)


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
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
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
    device="cpu",
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
    backbones = build_backbones(wanted, settings, device, 0)
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
    return Learner(
        found_team,
        found_critic,
        estimator,
        LearnerConfig(**{"lr": 1e-3, "critic_lr": 1e-3, "lr_schedule": "constant", **settings}),
    )


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


class ScriptedTeam:
    """A team without models: a function of agent, prompt text and branch path says what is replied.

    Args:
        agents: agent names.
        say: `(agent, prompt, node) -> text`; `node` is None for greedy replies.
        limit: most tokens (characters) of a prompt.
        overflow: as in `team.prompt_overflow`.
    """

    def __init__(self, agents, say, *, limit=100_000, overflow="error"):
        self.agents, self.say, self.limit, self.overflow = tuple(agents), say, limit, overflow
        self.form = ChatFormat(byte_tokenizer())
        self.scripted = {}
        self.requests = []

    def observe(self, agent, history, text):
        return history.observe(text, self.form, self.limit, self.overflow)

    def holding(self):
        return contextlib.nullcontext(SimpleNamespace())

    def timed(self, clock):
        return contextlib.nullcontext()

    def act(self, requests, on_reply=None):
        self.requests.append(list(requests))
        replies = []
        for number, request in enumerate(requests):
            prompt = self.form.tokenizer.decode(request.prompt, skip_special_tokens=False)
            text = self.say(request.agent, prompt, request.key and request.key.node)
            ids = (*self.form.encode(text), self.form.tokenizer.eos_token_id)
            replies.append(Reply(text, ids, np.full(len(ids), -0.5, dtype=np.float32), cut=False))
            if on_reply is not None:
                on_reply(number, replies[-1])
        return replies


def played(
    players,
    branching=(2,),
    *,
    env="debug/echo-v0",
    tasks=2,
    seed=0,
    update=0,
    greedy_sibling=False,
    **settings,
):
    """Rollouts of a team, with random rewards in place of the environment's (random models earn nothing)."""
    made = make(env, num_agents=len(players.agents), num_turns=len(branching), **settings)
    collector = Collector(VecEnv(made), players, branching, seed, greedy_sibling=greedy_sibling)
    rollouts = collector.collect([made.tasks[i] for i in range(tasks)], update)
    reward = np.random.default_rng(seed).normal(size=len(rollouts.nodes))
    return dataclasses.replace(rollouts, nodes=dataclasses.replace(rollouts.nodes, reward=reward))
