"""Hostile replies by the thousand: nothing raises, scores stay in range, time stays bounded."""

import math
import time

import numpy as np
import pytest

from collm_envs import list_envs, make

pytestmark = pytest.mark.system

IDS = [spec.id for spec in list_envs("games/") if "-sparse-" not in spec.id]
WORDS = (
    *(
        "/setblock",
        "setblock",
        "/fill",
        "fill",
        "/FILL",
        "/kill",
        "kill",
        "@e[type=spider]",
        "minecraft:stone",
    ),
    *("stone", "oak_planks", "white_concrete", "obsidian", "air", "lava", "p", "s", "w", "o", "b", "g", "x"),
    *(
        "a1",
        "b2",
        "d4",
        "f3",
        "h8",
        "z99",
        "~",
        "~1",
        "^",
        "0",
        "1",
        "2",
        "3",
        "-1",
        "1.5",
        "1e9",
        "nan",
        "+4",
    ),
    *(
        "9" * 400,
        "-" + "9" * 40,
        "0x10",
        "٣",
        "\ud800",
        "\x00",
        "\x1b[31m",
        "```",
        "```mcfunction",
        "- ",
        "1.",
        "2)",
    ),
    *(
        "#",
        "//",
        "[facing=east]",
        ",",
        ";",
        "<think>",
        "@builder_0 turn 1 says:",
        "é",
        "💥",
        "\u2028",
        "{}",
        "%s",
    ),
)
JOINTS = (" ", "\n", "  ", "\t", ",", "\r\n", "")


def reply(rng):
    """Commands, half-commands and noise, at times very many of them."""
    kind = rng.random()
    if kind < 0.02:
        return str(rng.choice(WORDS)) * int(rng.integers(1, 2000))
    if kind < 0.3:  # commands of the right form, with any numbers
        lines = []
        for _ in range(int(rng.integers(1, 12))):
            numbers = " ".join(str(int(n)) for n in rng.integers(-2, 9, size=int(rng.choice((3, 6)))))
            block = WORDS[int(rng.integers(8, 22))]
            lines.append(f"{'/fill' if numbers.count(' ') > 2 else '/setblock'} {numbers} {block}")
        return "\n".join(lines)
    count = int(rng.integers(0, 40)) if kind < 0.98 else 1000
    parts = rng.integers(len(WORDS), size=count)
    joints = rng.integers(len(JOINTS), size=count)
    return "".join(WORDS[i] + JOINTS[j] for i, j in zip(parts, joints, strict=True))


def play(env_id, replies, seed):
    """So many replies, over all numbers of agents, feedback modes, formulas and worlds."""
    rng, said, slowest = np.random.default_rng([seed, len(env_id)]), 0, 0.0
    cls = make(env_id).__class__
    while said < replies:
        env = make(
            env_id,
            num_agents=int(rng.choice(cls.agent_counts)),
            num_turns=int(rng.integers(1, 9)),
            feedback=str(rng.choice(cls.feedback_modes)),
            formula=str(rng.choice(("paper", "release"))),
            world=str(rng.choice(("rebuilt", "kept"))),
        )
        for _ in range(20):
            env.reset(seed=int(rng.integers(2**31)))
            while env.agents:
                actions = {agent: reply(rng) for agent in env.agents}
                begun = time.thread_time()
                observations, _, _, _, infos = env.step(actions)
                slowest = max(slowest, time.thread_time() - begun)
                info = next(iter(infos.values()))
                assert env.low - 1e-6 <= info["score"] <= env.high + 1e-6
                assert all(math.isfinite(value) for value in info["metrics"].values())
                assert all(
                    env.observation_space(agent).contains(text) for agent, text in observations.items()
                )
                said += len(actions)
    return slowest


@pytest.mark.parametrize("env_id", IDS)
def test_twenty_thousand_hostile_replies(env_id):
    assert (
        play(env_id, 20_000, seed=0) < 0.5
    )  # a joint step takes a millisecond; one that hangs takes for ever


@pytest.mark.drill
@pytest.mark.parametrize("env_id", IDS)
def test_a_million_hostile_replies(env_id):
    assert play(env_id, 1_000_000, seed=1) < 1.0
