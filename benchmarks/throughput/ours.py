"""Our side of a measurement: the product's own experiment, collector and learner on `env.Given`.

`python -m benchmarks.throughput.ours SPEC` with the spec as JSON; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.throughput.spec import Meter, Spec, settle

ENV = "benchmarks.throughput.env:Given"


def settings(spec: Spec) -> list[str]:
    """The run's settings: what the peer does, in our words."""
    words = [
        f"env.source={spec.tasks}",
        "env.split=train",
        f"env.num_agents={len(spec.models)}",
        f"env.num_turns={spec.turns}",
        f"algorithm.name={spec.algorithm}",
        f"run.seed={spec.seed}",
        f"run.device={spec.device}",
        f"run.threads={spec.threads}",
        f"run.joint_samples={spec.trees * spec.tree_size * (spec.warm + spec.updates)}",
        f"team.model={spec.models[0]}",
        "team.tuning=full",
        f"team.dtype={spec.dtype}",
        f"team.sampling.max_new_tokens={spec.max_new_tokens}",
        f"critic.model={spec.critic}",
        "critic.global_info=false",  # the peer's critics are told nothing beside the prompts
        f"rollout.samples={spec.samples}",
        f"rollout.buffer={spec.trees * spec.tree_size}",
        "learner.lr=5e-6",
        "learner.critic_lr=5e-6",
        "learner.update_epochs=1",  # one step on what was drawn, as the peer takes
        "learner.critic_epochs=1",
        "learner.ratio=none",
    ]
    words += [
        f"team.agents.agent_{i}.model={model}"
        for i, model in enumerate(spec.models)
        if model != spec.models[0]
    ]
    if spec.algorithm == "mc":
        words = [word for word in words if not word.startswith("critic.")]
    return [*words, *spec.settings]


def measure(spec: Spec) -> dict[str, Any]:
    """Train, and say what it took."""
    import torch

    from benchmarks.throughput.machine import FORMULA, Operations, Shape, peaks
    from collm_agents.collect import Collector
    from collm_agents.experiment import Experiment
    from collm_agents.models.loading import pick_dtype
    from collm_agents.overrides import load_config
    from collm_envs import VecEnv

    meter = Meter(spec.device)
    experiment = Experiment(load_config(ENV, overrides=settings(spec)))
    built = experiment.build()
    team, critic, learner = built.team, built.critic, built.learner
    agents = {m: team.backbones[team.users[m][0]] for m in team.trained}
    critics = {} if critic is None else critic.backbones
    for kind, members in (("actor", agents), ("critic", critics)):
        meter.watch(kind, [learner.optimizers[member] for member in members if member in learner.optimizers])
    full = all(b.tuning == "full" for b in (*agents.values(), *critics.values()))
    work = Operations(
        {
            "actor": ([b.module(m) for m, b in agents.items()], False),
            "critic": ([b.module(m) for m, b in critics.items()], True),
        }
        if full
        else {}
    )
    collector = Collector(VecEnv(experiment.env), team, experiment.branching, spec.seed, clock=built.clock)
    tasks, played = experiment.env.tasks, []

    def update(number: int) -> None:
        first = number * spec.trees
        upcoming = tasks[first + spec.trees : first + 2 * spec.trees]
        rollouts = collector.collect(tasks[first : first + spec.trees], number, upcoming)
        learner.update(rollouts, number / (spec.warm + spec.updates))
        if number >= spec.warm:
            played.append(rollouts)

    for number in range(spec.warm):
        update(number)
    meter.start()
    work.reset()
    before, begun = built.clock.read(), meter.now()
    for number in range(spec.warm, spec.warm + spec.updates):
        update(number)
    spent = meter.since(begun)
    phases, memory = built.clock.since(before), meter.memory()
    dtype = pick_dtype(spec.dtype, spec.device)
    machine = peaks(spec.device, dtype)
    shapes = {m: Shape(_causal(b, m), dtype) for m, b in agents.items()}
    return {
        **spent,
        "joint_samples": sum(len(r.nodes) for r in played),
        "steps": meter.steps,
        "reply_words": sum(len(text.split()) for r in played for text in r.rows.text),
        "prompt_tokens": float(np.mean([len(p) for r in played for p in r.rows.prompt])),
        "memory": memory,
        "phases": phases,
        "machine": machine,
        "update": _update_share(work, phases, machine, shapes, played, team) if full else None,
        "decode": _decode_share(phases, machine, shapes, played, team),
        "formula": FORMULA,
        "gpu": torch.cuda.get_device_name() if meter.cuda else None,
    }


def _causal(backbone: Any, member: str) -> Any:
    module = backbone.module(member)
    return module.get_base_model() if backbone.tuning == "lora" else module


def _update_share(
    work: Any,
    phases: Mapping[str, float],
    machine: Mapping[str, float],
    shapes: Mapping[str, Any],
    played: Sequence[Any],
    team: Any,
) -> dict[str, Any]:
    """Operations of agents' and critics' updates, and their share of the matmul peak over those phases."""
    scored = dict.fromkeys(shapes, 0)
    for rollouts in played:
        for agent, reply in zip(rollouts.rows.agent, rollouts.rows.reply, strict=True):
            scored[team.member[rollouts.agents[agent]]] += len(reply)
    counts = dict(work.counts)
    counts["actor"] += sum(6 * shapes[m].head * n for m, n in scored.items())
    return {
        part: {
            "tokens": work.tokens[part],
            "operations": counts[part],
            "seconds": phases[part],
            "share_of_matmul": counts[part] / phases[part] / machine["matmul"],
        }
        for part in counts
        if counts[part]
    }


def _decode_share(
    phases: Mapping[str, float],
    machine: Mapping[str, float],
    shapes: Mapping[str, Any],
    played: Sequence[Any],
    team: Any,
) -> dict[str, Any]:
    """Seconds that drawing took, and the floors for them: each agent's replies of a turn as one batch."""
    from benchmarks.throughput.machine import decode_floor

    floor = {"bandwidth": 0.0, "matmul": 0.0}
    for rollouts in played:
        rows = rollouts.rows
        turns = rollouts.points.turn[rows.point]
        for a, agent in enumerate(rollouts.agents):
            for turn in np.unique(turns):
                own = np.flatnonzero((rows.agent == a) & (turns == turn))
                prompts = [rows.prompt[row] for row in own]
                found = decode_floor(
                    shapes[team.member[agent]],
                    [len(prompt) for prompt in prompts],
                    [len(rows.reply[row]) for row in own],
                    sum(len(prompt) for prompt in set(prompts)),
                    machine,
                )
                floor = {name: floor[name] + found[name] for name in floor}
    seconds = phases["prefill"] + phases["decode"]
    return {"seconds": seconds, "floor": floor, "share_of_floor": max(floor.values()) / seconds}


if __name__ == "__main__":
    asked = Spec.load(sys.argv[1])
    settle(asked)
    print(json.dumps(measure(asked)))
