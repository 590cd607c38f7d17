"""Rebuild the built-in model, or a larger one: `python -m collm_agents.models.warmstart --out <folder>`.

A small Llama is taught by behaviour cloning what scripted novices say in the mini and debug environments, so
that it speaks each format badly and sampled learning has something to begin with. Demonstrations are tokenised
by `ChatFormat` and `History`, as at run time, and only the tokens of replies are learned; some joint histories,
as critics read them, are learned whole. One thread and fixed seeds: a rebuild of the small model on one machine is
equal bit by bit.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from collm_agents.chat import ChatFormat, History
from collm_agents.config import SamplingConfig, TeamConfig
from collm_agents.critic import info_text
from collm_agents.evaluate import Report, evaluate, evaluate_scripted
from collm_agents.losses import masked_log_softmax
from collm_agents.members import build_backbones
from collm_agents.models import loading
from collm_agents.models.vocabulary import build_tokenizer, fingerprint, pieces, warm_envs
from collm_agents.team import AgentTeam
from collm_envs.env import CollabEnv
from collm_envs.registry import EnvSpec, make
from collm_envs.scripted import KINDS

CONTEXT = 1024
HORIZONS = (1, 2, 4)
AGENT_COUNTS = (1, 2, 3, 4)
WORLDS = ("rebuilt", "kept")
REPLY_TOKENS = 40
NOT_LEARNED = -100  # label of what is not a reply

Batch = tuple[Tensor, Tensor]  # ids and labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    """A Llama that can be built, and how it is taught.

    Attributes:
        width: of the residual stream.
        inner: width within a feed-forward layer.
        layers: how many.
        heads: of attention.
        scale: standard deviation of fresh weights.
        lr: greatest learning rate.
        steps: optimizer steps.
    """

    width: int
    inner: int
    layers: int
    heads: int
    scale: float
    lr: float
    steps: int


# At a width of 96 the usual scale of 0.02 leaves copying from the prompt undiscovered for hundreds of steps. Scales
# fall with the root of the width.
SIZES = {
    "small": Size(96, 256, 3, 4, 0.1, 3e-3, 1200),  # 0.45 million parameters: the built-in model
    "medium": Size(512, 1376, 8, 8, 0.043, 1e-3, 1200),  # 26 million: for an accelerator
}


@dataclass(frozen=True)
class Plan:
    """How the warm start is trained.

    Attributes:
        seed: of weights and demonstrations.
        steps: optimizer steps; each sees a batch of every mini environment, and one of a debug environment or
            of joint histories in turn.
        lr: greatest learning rate; it rises for a twentieth of the steps, then falls along a cosine.
        rows: memories of one or two turns per batch; of four turns it holds half as many.
        histories: joint histories per batch.
    """

    seed: int = 0
    steps: int = SIZES["small"].steps
    lr: float = SIZES["small"].lr
    rows: int = 32
    histories: int = 12


def build_model(tokenizer: Any, size: Size = SIZES["small"]) -> LlamaForCausalLM:
    """The untrained Llama. Draws from torch's global generator."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=size.scale,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # Layers that add nothing at first leave each token's identity clear, which halves the time.
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
    return model


def variants(spec: EnvSpec) -> list[CollabEnv]:
    """The environment with every horizon, feedback mode, number of agents and world that the warm start covers."""
    counts = [n for n in AGENT_COUNTS if n in spec.env_class.agent_counts]
    worlds: list[dict[str, str]] = [{"world": w} for w in WORLDS] if "world" in spec.settings() else [{}]
    settings = itertools.product(HORIZONS, spec.env_class.feedback_modes, counts, worlds)
    return [make(spec.id, num_turns=t, feedback=f, num_agents=n, **w) for t, f, n, w in settings]


def demonstrations(
    env: CollabEnv, form: ChatFormat, rng: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """One episode of novices: token ids and labels of each agent's memory, only replies being labelled."""
    task = int(rng.integers(len(env.tasks)))
    seen, _ = env.reset(seed=int(rng.integers(2**31)), options={"task": task})
    memory = {agent: History() for agent in env.agents}
    labels: dict[str, list[int]] = {agent: [] for agent in env.agents}
    while env.agents:
        said = {}
        for agent in env.agents:
            shown = memory[agent].observe(seen[agent], form, CONTEXT, overflow="error")
            assert shown is not None  # only overflow="stop" returns None
            said[agent] = env.scripted("novice", agent, rng)
            reply = (*form.encode(said[agent]), form.tokenizer.eos_token_id)
            labels[agent] += [NOT_LEARNED] * (len(shown.ids) - len(labels[agent])) + list(reply)
            memory[agent] = shown.reply(reply)
        if env.turn == env.num_turns - 1:
            break  # what the last reply is worth is not shown to anybody
        seen, *_ = env.step(said)
    return [(list(memory[agent].ids), labels[agent]) for agent in memory]


def joint_history(env: CollabEnv, form: ChatFormat, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """One episode of novices as a critic reads it, all of it labelled."""
    env.reset(seed=int(rng.integers(2**31)), options={"task": int(rng.integers(len(env.tasks)))})
    info: Mapping[str, float] = {}
    while env.agents:
        info = env.global_info()
        env.step({agent: env.scripted("novice", agent, rng) for agent in env.agents})
    ids = list(form.encode(env.state() + info_text(info)))[:CONTEXT]
    return ids, ids


def batches(spec: EnvSpec, form: ChatFormat, rows: int, seed: Sequence[int]) -> Iterator[Batch]:
    """Batches of one environment's demonstrations without end, each of one variant, so of like lengths."""
    rng = np.random.default_rng(list(seed))
    envs = variants(spec)
    while True:
        env = envs[int(rng.integers(len(envs)))]
        found: list[tuple[list[int], list[int]]] = []
        while len(found) < rows // math.isqrt(env.num_turns):
            found += demonstrations(env, form, rng)
        yield padded(found, form.tokenizer.pad_token_id)


def history_batches(
    specs: Sequence[EnvSpec], form: ChatFormat, rows: int, seed: Sequence[int]
) -> Iterator[Batch]:
    """Batches of joint histories without end, each of one variant of one environment."""
    rng = np.random.default_rng(list(seed))
    envs = [variants(spec) for spec in specs]
    while True:
        kind = envs[int(rng.integers(len(envs)))]
        env = kind[int(rng.integers(len(kind)))]
        yield padded([joint_history(env, form, rng) for _ in range(rows)], form.tokenizer.pad_token_id)


def padded(found: Sequence[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Token ids and labels of one length, [B, L] each, padded on the right."""
    width = max(len(ids) for ids, _ in found)
    return (
        torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in found]),
        torch.tensor([labels + [NOT_LEARNED] * (width - len(labels)) for _, labels in found]),
    )


def labelled_loss(model: Any, ids: Tensor, labels: Tensor, banned: Tensor) -> Tensor:
    """Mean negative log-probability of labelled tokens under the distribution that replies are drawn from.

    Args:
        model: the causal LM.
        ids: [B, L].
        labels: [B, L], `NOT_LEARNED` where nothing is to be learned.
        banned: tokens that are never drawn, [V] bool.
    """
    # Padding stands on the right, where a causal model does not look: no mask is needed.
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    learned = labels[:, 1:] != NOT_LEARNED
    logp = masked_log_softmax(model.lm_head(hidden[:, :-1][learned]), 1.0, banned)
    return -logp.gather(-1, labels[:, 1:][learned][:, None]).mean()


def train(model: Any, form: ChatFormat, specs: Sequence[EnvSpec], plan: Plan) -> None:
    """Teach the model the novices of some environments, in place."""
    streams = {
        spec.id: batches(spec, form, plan.rows, (plan.seed, number)) for number, spec in enumerate(specs)
    }
    # Critics start from these weights. Having read histories, they need a quarter of the updates to tell good
    # replies from bad ones, and agents lose next to nothing by it.
    streams["histories"] = history_batches(specs, form, plan.histories, (plan.seed, len(specs)))
    always = [name for name in streams if "-mini-" in name]
    in_turn = [name for name in streams if name not in always]
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, betas=(0.9, 0.95), weight_decay=0.01)
    rise = max(1, plan.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / plan.steps))
    )
    model.train()
    banned = form.banned.to(model.device)
    losses: dict[str, float] = {}
    for step in range(plan.steps):
        optimizer.zero_grad(set_to_none=True)
        for name in (*always, in_turn[step % len(in_turn)]):
            ids, labels = (part.to(model.device) for part in next(streams[name]))
            loss = labelled_loss(model, ids, labels, banned)
            loss.backward()
            losses[name] = loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            log.info("step %d: %s", step + 1, ", ".join(f"{k} {v:.2f}" for k, v in losses.items()))
    model.eval()


def sampled(env: CollabEnv, model: str, episodes: int, seed: int) -> Report:
    """How a team does whose agents all are the given model, untrained, with sampled replies (`evaluate`)."""
    config = TeamConfig(model=model, tuning="full", sampling=SamplingConfig(max_new_tokens=REPLY_TOKENS))
    backbones = build_backbones(dict.fromkeys(env.possible_agents, (model, "full")), config, "cpu", seed)
    team = AgentTeam(env.possible_agents, backbones, config, num_turns=env.num_turns)
    return evaluate(
        env, team, [env.tasks[i] for i in range(min(episodes, len(env.tasks)))], seed=seed, samples=4
    )


def report(model: str, specs: Sequence[EnvSpec], seed: int, episodes: int = 256) -> str:
    """A Markdown table on held-out tasks, one turn: the sampled model beside the scripted agents."""
    lines = [
        "| environment | score: random | novice | warm start | oracle | success: novice | warm start "
        "| tokens per reply | cut replies |",
        "|---" * 9 + "|",
    ]
    for spec in specs:
        env = make(spec.id, split="test")
        tasks = [env.tasks[i % len(env.tasks)] for i in range(4 * episodes)]
        scripted = {kind: evaluate_scripted(env, kind, tasks, seed)["metrics"] for kind in KINDS}
        mine = sampled(env, model, episodes, seed)["metrics"]
        score = {kind: f"{found['score']['mean']:.2f}" for kind, found in scripted.items()}
        lines.append(
            f"| `{spec.id}` | {score['random']} | {score['novice']} | {mine['score']['mean']:.2f} "
            f"| {score['oracle']} | {scripted['novice']['success']['mean']:.2f} "
            f"| {mine['success']['mean']:.2f} | {mine['reply_tokens']['mean']:.1f} "
            f"| {mine['truncated_replies']['mean']:.3f} |"
        )
    return "\n".join(lines)


def rebuild(out: Path, plan: Plan, size: Size = SIZES["small"], device: str = "cpu") -> None:
    """Build tokenizer and model, train, and write everything but the card.

    Args:
        out: folder to write to.
        plan: how to train.
        size: of the model.
        device: to train on.
    """
    torch.manual_seed(plan.seed)
    tokenizer = build_tokenizer(pieces(), CONTEXT)
    form = ChatFormat(tokenizer)
    model = build_model(tokenizer, size).to(device)
    log.info("%d parameters, %d tokens", sum(p.numel() for p in model.parameters()), len(tokenizer))
    started = time.monotonic()
    train(model, form, warm_envs(), plan)
    log.info("trained in %.0f s", time.monotonic() - started)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # weights are written for their owner alone, and a package is read by others
    log.info("vocabulary sha256 %s", fingerprint(tokenizer))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rebuild the built-in model, or a larger one of its kind.")
    parser.add_argument("--out", type=Path, default=loading.BUILTIN_FOLDER, help="folder to write to")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="seed of weights and demonstrations")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="of the model")
    parser.add_argument("--steps", type=int, help="optimizer steps; default: the size's")
    parser.add_argument("--device", default="auto", help="auto (the small model on the CPU), cpu, cuda")
    parser.add_argument("--no-report", action="store_true", help="leave out the table of scores")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    size = SIZES[options.size]
    device = (
        "cpu" if (options.size, options.device) == ("small", "auto") else loading.pick_device(options.device)
    )
    torch.use_deterministic_algorithms(device == "cpu")
    plan = Plan(seed=options.seed, steps=options.steps or size.steps, lr=size.lr)
    rebuild(options.out, plan, size, device)
    if not options.no_report:
        log.info("%s", report(str(options.out), warm_envs(), options.seed))


if __name__ == "__main__":
    main()
