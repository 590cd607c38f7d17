"""The peer's side of a measurement: comlrl's own trainers, on the same tasks and models.

`PEER_PYTHON -m benchmarks.throughput.peer SPEC` in an environment that has comlrl; prints one line of JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.spec import Meter, Spec, reward, settle


def make_trainer(spec: Spec, pay: Callable[..., list[float]]) -> Any:
    """The trainer of the algorithm, set to do what ours does; its other settings are its own defaults.

    It steps once per turn of its buffer, so the buffer is as many times longer as there are turns: steps and joint
    samples of both sides are then equal in number.
    """
    from comlrl.trainers.actor_critic import IACConfig, IACTrainer, MAACConfig, MAACTrainer
    from comlrl.trainers.reinforce import MAGRPOConfig, MAGRPOTrainer
    from transformers import AutoTokenizer

    count, trees = len(spec.models), spec.trees * spec.turns
    # Its Monte Carlo buffer counts nodes of the tree, each K joint samples; its others count samples of an agent.
    length = trees * spec.tree_size // (spec.samples if spec.algorithm == "mc" else 1)
    common: dict[str, Any] = {
        "num_train_epochs": 1,
        "agent_learning_rate": 5e-6,
        "num_agents": count,
        "agent_devices": spec.device,
        "num_generations": spec.samples,
        "max_new_tokens": spec.max_new_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "num_turns": spec.turns,
        "early_termination_threshold": None,
        "eval_interval": 0,
        "rollout_buffer_size": length,
    }
    parts: dict[str, Any] = {
        "agents": list(spec.models),
        "tokenizer": AutoTokenizer.from_pretrained(spec.models[0]),
        "model_config": {"torch_dtype": spec.dtype},
        "reward_func": pay,
        "formatters": [_formatter(i) for i in range(count)],
        "external_transition": _continue(spec.feedback) if spec.turns > 1 else None,
    }
    if spec.algorithm == "mc":
        return MAGRPOTrainer(num_agents=count, args=MAGRPOConfig(**common), **parts)
    common |= {"critic_learning_rate": 5e-6, "critic_devices": spec.device}
    if spec.algorithm == "collm-cc":
        return MAACTrainer(critics=[spec.critic], args=MAACConfig(**common), **parts)
    return IACTrainer(critics=[spec.critic] * count, args=IACConfig(**common), **parts)


def _formatter(agent: int) -> Callable[..., str]:
    """The agent's prompt with the newline that our plain format ends it with."""

    def prompt(item: dict[str, Any], external_prompts: str | None = None) -> str:
        return external_prompts if external_prompts is not None else item["prompts"][agent] + "\n"

    return prompt


def _continue(feedback: str) -> Callable[..., list[str]]:
    """Later prompts hold all that came before, as an agent's memory does on our side."""

    def prompts(
        prompt_history_per_agent: Sequence[Sequence[str]],
        response_history_per_agent: Sequence[Sequence[str]],
        **_: Any,
    ) -> list[str]:
        pairs = zip(prompt_history_per_agent, response_history_per_agent, strict=True)
        return [f"{seen[-1]}{said[-1]}\n{feedback}\n" for seen, said in pairs]

    return prompts


def measure(spec: Spec) -> dict[str, Any]:
    """Train, and say what it took."""
    from datasets import Dataset

    meter = Meter(spec.device)
    counted = {"joint_samples": 0, "reply_words": 0}

    def pay(*completions: Sequence[str]) -> list[float]:
        joint = list(zip(*completions, strict=True))
        counted["joint_samples"] += len(joint)
        counted["reply_words"] += sum(len(text.split()) for replies in joint for text in replies)
        return [reward(replies) for replies in joint]

    trainer = make_trainer(spec, pay)
    trainer.verbose = False
    monte_carlo = spec.algorithm == "mc"
    meter.watch("actor", trainer.optimizers if monte_carlo else trainer.agent_optimizers)
    if not monte_carlo:
        single = spec.algorithm == "collm-cc"
        meter.watch("critic", [trainer.critic_optimizer] if single else trainer.critic_optimizers)
    drawing = _time_drawing(trainer.agents, meter)
    with Path(spec.tasks).open(encoding="utf-8") as lines:
        rows = [{"prompt": "", **json.loads(line)} for line in lines]
    split = spec.warm * spec.trees
    trainer.train_dataset = Dataset.from_list(rows[:split])
    trainer.train()
    meter.start()
    counted.update(joint_samples=0, reply_words=0)
    drawing[0] = 0.0
    trainer.train_dataset = Dataset.from_list(rows[split : split + spec.updates * spec.trees])
    begun = meter.now()
    trainer.train()
    spent = meter.since(begun)
    return {
        **spent,
        **counted,
        "steps": meter.steps,
        "memory": meter.memory(),
        "generate_s": drawing[0],
        "versions": {name: importlib.metadata.version(name) for name in ("comlrl", "torch", "transformers")},
    }


def _time_drawing(agents: Sequence[Any], meter: Meter) -> list[float]:
    """Seconds in `generate`, kept up to date in the list's only place."""
    spent = [0.0]

    def timed(generate: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = generate(*args, **kwargs)
            meter.finish()
            spent[0] += time.perf_counter() - start
            return found

        return run

    for agent in agents:
        agent.generate = timed(agent.generate)
    return spent


if __name__ == "__main__":
    asked = Spec.load(sys.argv[1])
    settle(asked)
    print(json.dumps(measure(asked)))
