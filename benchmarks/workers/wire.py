"""Bytes of an update over the wire, beside the least that there is to send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray
from ray.cluster_utils import Cluster

from collm_agents.batch import Rollouts
from collm_agents.distributed.collector import on_workers
from collm_agents.distributed.worker import Played
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.shards import split

ENVS = {
    "writing/tldr-mini-v0": (),
    "games/strbuild-mini-v0": ("num_turns=4",),
    "games/housebuild-mini-v0": ("num_turns=4",),
    "debug/handshake-v0": ("num_turns=2",),
}
NODE = {"object_store_memory": 100_000_000, "include_dashboard": False}


def floor(rollouts: Rollouts, vocab: int) -> dict[str, int]:
    """Bytes of what is new in rollouts, each thing once and nothing compressed.

    Args:
        rollouts: a forest.
        vocab: size of the models' vocabulary, [V].

    Returns:
        `ids`: token ids in the fewest whole bytes that hold V; `logprobs`: 4 bytes a reply token; `texts`: UTF-8 of
        what points of the joint histories add to those before, which has prompts and replies.
    """
    width = max(1, -(-(vocab - 1).bit_length() // 8))
    tokens = sum(map(len, rollouts.rows.reply))
    texts = sum(len(text.encode(errors="surrogatepass")) for text in _texts(rollouts))
    return {
        "ids": width * (tokens + sum(_new_prompt(rollouts))),
        "logprobs": 4 * tokens,
        "texts": texts,
    }


def _new_prompt(rollouts: Rollouts) -> Iterator[int]:
    """Of each agent's prompt at each point, tokens that its prompt and reply before did not have."""
    rows, nodes = rollouts.rows, rollouts.nodes
    led = {int(point): node for node, point in enumerate(nodes.next_point) if point >= 0}
    seen = set()
    for row, (point, agent) in enumerate(zip(rows.point.tolist(), rows.agent.tolist(), strict=True)):
        if (point, agent) in seen:
            continue
        seen.add((point, agent))
        earlier: tuple[int, ...] = ()
        if point in led:
            before = int(rollouts.row_of[led[point], agent])
            earlier = rows.prompt[before] + rows.reply[before]
        prompt = rows.prompt[row]
        same = next(
            (i for i, (a, b) in enumerate(zip(earlier, prompt, strict=False)) if a != b), len(earlier)
        )
        yield len(prompt) - min(same, len(prompt))


def _texts(rollouts: Rollouts) -> Iterator[str]:
    """What each point's joint history adds, and the last replies, which no history has."""
    points = rollouts.points
    for point, parent in enumerate(points.parent.tolist()):
        earlier = points.state[parent] if parent >= 0 else ""
        state = points.state[point]
        yield state[len(earlier) :] if state.startswith(earlier) else state
        if parent < 0:  # first prompts are each agent's own
            yield from points.local[point]
    went_on = {int(row) for node in range(len(rollouts.nodes)) if rollouts.nodes.next_point[node] >= 0
               for row in rollouts.row_of[node]}  # fmt: skip
    yield from (text for row, text in enumerate(rollouts.rows.text) if row not in went_on)


def size(value: Any) -> int:
    """Bytes that Ray makes of a value."""
    return int(ray._private.worker.global_worker.get_serialization_context().serialize(value).total_bytes)


def measure(env: str, settings: tuple[str, ...], updates: int = 3) -> dict[str, Any]:
    """What the last of some updates sent, on a cluster of two nodes: the driver's, and one with two workers."""
    cluster = Cluster()
    cluster.add_node(num_cpus=0, **NODE)
    cluster.add_node(num_cpus=2, **NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        words = [
            "tuning=lora",
            "algorithm=mc",
            "joint_samples=64",
            "workers=2",
            "runner.shard=4",
            "run.threads=1",
        ]
        experiment = Experiment(load_config(env, overrides=[*words, *settings]))
        made = experiment.build()
        count = experiment.tasks_per_update
        with on_workers(experiment, made.team, made.clock) as collector:
            for update in range(updates):
                places = range(update * count, (update + 1) * count)
                tasks = [experiment.env.tasks[i % len(experiment.env.tasks)] for i in places]
                rollouts = collector.collect(tasks, update)
            told, weights = collector.metrics, collector._weights(made.team.trained)
        shards = split(tasks, 4)
        around = size(Played(b"", "0" * 56, 0.0, dict.fromkeys(made.clock.read(), 0.0), 0.0))
        backbones = [made.team.backbones[made.team.users[m][0]] for m in made.team.trained]
        least = {
            "weights": sum(
                p.numel() * p.element_size()
                for member, own in zip(made.team.trained, backbones, strict=True)
                for p in own.parameters(member).values()
            ),
            **floor(rollouts, len(backbones[0].tokenizer)),
        }
        nodes = int(told["workers/nodes"])
        sent = {
            "weights": nodes * size(weights),
            "tasks": sum(map(size, shards)),
            "rollouts": int(told["workers/rollout_bytes"]) + around * len(shards),
        }
        return {
            "env": env,
            "settings": list(settings),
            "joint_samples": rollouts.joint_samples,
            "nodes": nodes,
            "sent": sent,
            "least": least,
            "ratio": sum(sent.values()) / (sum(least.values()) - least["logprobs"]),
            "rollouts_ratio": (sent["rollouts"] + sent["tasks"]) / (sum(least.values()) - least["weights"]),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
