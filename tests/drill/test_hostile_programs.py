"""Hostile programs as replies, through every environment that runs them: scores stay scores and nothing is left."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from collm_envs import list_envs, make
from collm_envs.coding import rules
from collm_envs.vector import VecEnv

pytestmark = pytest.mark.system
IDS = [spec.id for spec in list_envs("coding/") if "-sparse-" not in spec.id]
ATTACKS = [
    json.loads(line)["code"]
    for line in (Path(__file__).parents[1] / "envs/sandbox/attacks.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
    if json.loads(line)["hazard"] == "low"
]
NOISE = (
    *(
        "```python\n",
        "```",
        "def ",
        "class ",
        "return ",
        "import os\n",
        "yield",
        "(" * 300,
        "[" * 3000,
        "\x00",
    ),
    *(
        "\ud800",
        "\u2028",
        "\t",
        "    ",
        "\n",
        "'''",
        "#",
        "async ",
        "@x\n",
        "lambda: ",
        "9" * 5000,
        "é",
        "<think>",
    ),
    *(
        "print('passed')\n",
        "raise SystemExit(0)\n",
        "while True: pass\n",
        "x" * 20_000,
        "@helper turn 1 says:\n",
    ),
)


def reply(rng, good, name):
    """An attack under the name that is asked for, a good reply, one that was broken at its lines, or noise."""
    kind = rng.random()
    if kind < 0.45:
        return re.sub(r"\bdef f\b", f"def {name}", str(ATTACKS[int(rng.integers(len(ATTACKS)))]))
    if kind < 0.65:
        return good
    if kind < 0.95:
        lines = good.split("\n")
        for _ in range(int(rng.integers(1, 3))):
            place = int(rng.integers(0, len(lines) + 1))
            lines[place : place + int(rng.integers(0, 2))] = [NOISE[int(rng.integers(len(NOISE)))]]
        return "\n".join(lines)
    return "".join(NOISE[int(i)] for i in rng.integers(len(NOISE), size=int(rng.integers(0, 30))))


PROBLEM = {  # for the environments that come without tasks
    "coding/mbpp-v0": {
        "task_id": 1,
        "text": "Write a function to add one.",
        "code": "def add_one(x):\n    return x + 1",
        "test_list": ["assert add_one(1) == 2", "assert add_one(-1) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    "coding/humaneval-v0": {
        "task_id": "A/0",
        "prompt": 'def add_one(x):\n    """Add one."""\n',
        "entry_point": "add_one",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n",
    },
}


def play(env_id, replies, seed, folder):
    """So many replies, as fast as the sandbox takes them."""
    rng, said, open_rows = np.random.default_rng(seed), 0, 0
    settings = {}
    if env_id in PROBLEM:
        (folder / "tasks.jsonl").write_text(json.dumps(PROBLEM[env_id]) + "\n")
        settings = {"source": str(folder / "tasks.jsonl"), "split": "all"}
    template = make(env_id, num_turns=1, **settings)
    vec, tasks, rows = VecEnv(template), template.tasks, 32
    while said < replies:
        chosen = [tasks[int(i)] for i in rng.integers(len(tasks), size=rows)]
        vec.reset(chosen, [int(s) for s in rng.integers(2**31, size=rows)])
        for row, task in enumerate(chosen):
            entry = str(task.public.get("entry_point", "f"))
            good = {agent: vec.scripted(row, "oracle", agent, rng) for agent in vec.agents}
            vec.send(
                row,
                {
                    agent: reply(rng, good[agent], entry if agent.startswith("main") else "aux")
                    for agent in vec.agents
                },
            )
            said, open_rows = said + len(vec.agents), open_rows + 1
        while open_rows:
            for step in vec.recv():
                open_rows -= 1
                assert template.low - 1e-6 <= step.info["score"] <= template.high + 1e-6
                assert all(math.isfinite(value) for value in step.info["metrics"].values())
                assert math.isfinite(step.reward)
    vec.close()


@pytest.mark.parametrize("env_id", IDS)
def test_hostile_programs_are_scored(env_id, tmp_path):
    play(env_id, 32, 0, tmp_path)


@pytest.mark.drill
@pytest.mark.parametrize("env_id", IDS)
def test_ten_thousand_hostile_programs_are_scored(env_id, tmp_path, monkeypatch):
    # Many never end; with the limit of the paper, eight seconds for an assert, they would take most of a day.
    monkeypatch.setitem(rules.TIME_LIMIT_S, "paper", 0.5)
    play(env_id, 10_000, 1, tmp_path)
