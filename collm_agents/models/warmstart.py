"""Rebuild the built-in model: `python -m collm_agents.models.warmstart --out <folder>`.

A small Llama is taught by behaviour cloning what scripted novices say in the mini and debug environments, so that
it speaks each format badly and sampled learning has something to begin with. Demonstrations are tokenised by
`ChatFormat` and `History`, as at run time; only the tokens of replies are learned. One thread and fixed seeds:
a rebuild on one machine is equal bit by bit.
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
from collm_agents.config import SamplingConfig
from collm_agents.draws import DrawKey
from collm_agents.models import loading
from collm_agents.models.sampler import draw
from collm_agents.models.vocabulary import ROLES, build_tokenizer, fingerprint, warm_envs
from collm_envs.env import CollabEnv
from collm_envs.registry import EnvSpec
from collm_envs.scripted import KINDS, play_scripted
from collm_envs.task import Task

VERSION = "0.1.0"
CONTEXT = 1024
HORIZONS = (1, 2, 4)
AGENT_COUNTS = (1, 2, 3, 4)
IGNORED = -100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How the warm start is trained.

    Attributes:
        seed: of weights, demonstrations and draws.
        steps: optimizer steps.
        lr: greatest learning rate; it rises for a twentieth of the steps, then falls along a cosine.
        rows: memories of single agents per step and environment, by prefix of its id.
    """

    seed: int = 0
    steps: int = 1500
    lr: float = 3e-3
    rows: Mapping[str, int] = None  # type: ignore[assignment]  # filled below

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", {"debug/": 48, "": 48})


def model_config(vocabulary: int, tokenizer: Any) -> LlamaConfig:
    """The built-in architecture: a Llama of about 0.45 million parameters."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def variants(env: EnvSpec) -> list[CollabEnv]:
    """The environment with every horizon, feedback mode and number of agents that the warm start covers."""
    counts = [n for n in AGENT_COUNTS if n in env.env_class.agent_counts]
    settings = itertools.product(HORIZONS, env.env_class.feedback_modes, counts)
    return [build(env, num_turns=t, feedback=f, num_agents=n) for t, f, n in settings]


def build(env: EnvSpec, **settings: Any) -> CollabEnv:
    """One environment of a spec."""
    from collm_envs.registry import make

    return make(env.id, **settings)


def demonstrations(
    env: CollabEnv, form: ChatFormat, rng: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """One episode of novices: the ids and labels of each agent's memory, only replies being labelled."""
    task = env.tasks[int(rng.integers(len(env.tasks)))]
    seen, _ = env.reset(seed=int(rng.integers(2**31)), options={"task": task})
    memory = {agent: History() for agent in env.agents}
    labels: dict[str, list[int]] = {agent: [] for agent in env.agents}
    while env.agents:
        replies = {}
        for agent in env.agents:
            memory[agent] = memory[agent].observe(seen[agent], form, CONTEXT, "error")  # type: ignore[assignment]
            replies[agent] = env.scripted("novice", agent, rng)
            ids = (*form.encode(replies[agent]), form.tokenizer.eos_token_id)
            labels[agent] += [IGNORED] * (len(memory[agent].ids) - len(labels[agent])) + list(ids)
            memory[agent] = memory[agent].reply(ids)
        seen, *_ = env.step(replies)
    return [(list(memory[agent].ids), labels[agent]) for agent in memory]


def batches(
    env: EnvSpec, form: ChatFormat, rows: int, seed: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of one environment, each of one variant so that lengths are alike: ids and labels."""
    rng = np.random.default_rng(list(seed))
    envs = variants(env)
    while True:
        played = envs[int(rng.integers(len(envs)))]
        # Long episodes bring more tokens a row: fewer of them keep the steps equally dear.
        count = max(4, rows // math.isqrt(played.num_turns))
        found: list[tuple[list[int], list[int]]] = []
        while len(found) < count:
            found += demonstrations(played, form, rng)
        width = max(len(ids) for ids, _ in found)
        pad = form.tokenizer.pad_token_id
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in found])
        labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in found])
        yield ids, labels


def reply_loss(model: Any, ids: Tensor, labels: Tensor, banned: Tensor) -> Tensor:
    """Mean negative log-probability of the reply tokens, as they are drawn at run time: special tokens masked.

    Args:
        model: the causal LM.
        ids: [B, L], padded on the right, where a causal model does not look.
        labels: [B, L], `IGNORED` outside replies.
        banned: tokens that are never drawn, [V] bool.
    """
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    learned = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][learned]).masked_fill(banned, float("-inf"))
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned])


def train(model: Any, form: ChatFormat, envs: Sequence[EnvSpec], plan: Plan) -> None:
    """Teach the model, in place. Each environment weighs the same in every step."""
    streams = {
        env.id: batches(
            env, form, next(n for p, n in plan.rows.items() if env.id.startswith(p)), (plan.seed, number)
        )
        for number, env in enumerate(envs)
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, betas=(0.9, 0.98), weight_decay=0.01)
    rise = max(1, plan.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / plan.steps)),
    )
    model.train()
    for step in range(plan.steps):
        optimizer.zero_grad(set_to_none=True)
        losses = {}
        for name, stream in streams.items():
            loss = reply_loss(model, *next(stream), form.banned)
            (loss / len(streams)).backward()
            losses[name] = loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == plan.steps - 1:
            log.info("step %d: %s", step, ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))
    model.eval()


def play_sampled(
    model: Any, form: ChatFormat, env: CollabEnv, tasks: Sequence[Task], seed: int, limit: int = 40
) -> list[dict[str, Any]]:
    """Play one-turn episodes with sampled replies, all agents driven by one model.

    Args:
        model: the causal LM.
        form: its chat format.
        env: an environment of one turn.
        tasks: one episode is played for each.
        seed: of the draws.
        limit: most tokens of a reply.

    Returns:
        One record per episode: `score`, `success`, and `replies`, the drawn replies by agent.
    """
    seen, prompts, keys = [], [], []
    for number, task in enumerate(tasks):
        observations, _ = env.reset(seed=seed, options={"task": task})
        seen.append(task)
        for agent in env.possible_agents:
            history = History().observe(observations[agent], form, CONTEXT - limit, "error")
            prompts.append(history.ids if history else ())
            keys.append(DrawKey(seed, -1, f"{task.id}#{number}", (0,), agent))
    drawn = draw(
        model,
        prompts,
        np.stack([key.uniforms(limit) for key in keys]),
        SamplingConfig(max_new_tokens=limit),
        stop_ids=form.stop_ids,
        banned=form.banned,
        pad_id=form.tokenizer.pad_token_id,
    )
    records, width = [], len(env.possible_agents)
    for number, task in enumerate(seen):
        env.reset(seed=seed, options={"task": task})
        replies = dict(zip(env.possible_agents, drawn[number * width : (number + 1) * width], strict=True))
        *_, infos = env.step({agent: form.decode(reply.ids) for agent, reply in replies.items()})
        info = infos[env.possible_agents[0]]
        records.append({"score": info["score"], "success": info["success"], "replies": replies})
    return records


def report(model: Any, form: ChatFormat, envs: Sequence[EnvSpec], seed: int, episodes: int = 512) -> str:
    """A Markdown table: score and success of the sampled model beside the scripted agents, on held-out tasks."""
    lines = [
        "| environment | random | novice | warm start | oracle | success of novice | of warm start | cut |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for spec in envs:
        env = build(spec, split="test")
        tasks = [env.tasks[i % len(env.tasks)] for i in range(episodes)]
        scripted = {kind: play_scripted(env, kind, tasks, seed=seed) for kind in KINDS}
        sampled = play_sampled(model, form, env, tasks, seed)
        score = {kind: float(np.mean([r["score"] for r in records])) for kind, records in scripted.items()}
        mine = float(np.mean([r["score"] for r in sampled]))
        novice = float(np.mean([r["success"] for r in scripted["novice"]]))
        success = float(np.mean([r["success"] for r in sampled]))
        cut = float(np.mean([reply.cut for r in sampled for reply in r["replies"].values()]))
        lines.append(
            f"| `{spec.id}` | {score['random']:.2f} | {score['novice']:.2f} | {mine:.2f} | {score['oracle']:.2f} "
            f"| {novice:.3f} | {success:.3f} | {cut:.3f} |"
        )
    return "\n".join(lines)


def rebuild(out: Path, plan: Plan) -> str:
    """Build tokenizer and model, train, and write everything but the card.

    Args:
        out: folder to write to.
        plan: how to train.

    Returns:
        The table of `report`.
    """
    torch.manual_seed(plan.seed)
    tokenizer = build_tokenizer(context=CONTEXT)
    form = ChatFormat(tokenizer)
    model = LlamaForCausalLM(model_config(len(tokenizer), tokenizer))
    log.info("%d parameters, %d tokens", sum(p.numel() for p in model.parameters()), len(tokenizer))
    envs = warm_envs()
    started = time.monotonic()
    train(model, form, envs, plan)
    log.info("trained in %.0f s", time.monotonic() - started)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    log.info("vocabulary sha256 %s", fingerprint(tokenizer))
    return report(model, form, envs, plan.seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rebuild the built-in model.")
    parser.add_argument("--out", type=Path, default=loading.BUILTIN_FOLDER, help="folder to write to")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="seed of everything")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    log.info("%s", rebuild(options.out, Plan(seed=options.seed, steps=options.steps)))


if __name__ == "__main__":
    main()
