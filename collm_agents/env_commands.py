"""The verbs that need an environment and no model: `envs`, `play`, `check`, `score`.

For `cli`, which dispatches to them. Everything here works with the base installation, without torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import collm_envs
from collm_agents import terminal
from collm_agents.overrides import load_env_settings
from collm_envs import CollabEnv, InputError
from collm_envs.errors import suggest
from collm_envs.history import terminal_safe
from collm_envs.render import scripted_frames, write_gif
from collm_envs.scripted import KINDS, parse_kinds


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The environment, where one is named, and the `key=value` items."""
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InputError(f"one environment is wanted, not {' and '.join(names)}; settings read key=value")
    return (names[0] if names else None), [word for word in words if "=" in word]


def make_env(words: Sequence[str]) -> CollabEnv:
    """The environment that the words of a command line name, with its settings."""
    env_id, items = split_words(words)
    if env_id is None:
        raise InputError("name an environment, such as writing/tldr-mini-v0 (`collm envs` lists them)")
    return collm_envs.make(env_id, **load_env_settings(env_id, items))


def add_env(parser: argparse.ArgumentParser) -> None:
    """Arguments of a verb that takes an environment and its settings."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ENV key=value",
        help="id or module:Class, then settings such as num_turns=2",
    )


def build_envs(parser: argparse.ArgumentParser) -> None:
    """Arguments of `envs`."""
    parser.add_argument(
        "prefix", nargs="?", default="", metavar="PREFIX|ID", help="part of the list, or one id"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_envs(args: argparse.Namespace) -> int:
    """List environments, or show the page of one."""
    found = collm_envs.list_envs(args.prefix)
    if not found or args.prefix in [spec.id for spec in found]:
        spec = collm_envs.spec(args.prefix)  # an unknown id fails here, with suggestions
        if args.json:
            rows = terminal.env_settings(spec)
            told = {row.key: {"default": row.default, "doc": row.doc} for row in rows}
            print(
                json.dumps({"id": spec.id, "summary": spec.summary, "settings": told}, indent=2, default=str)
            )
        else:
            print(terminal.env_page(spec))
    elif args.json:
        print(json.dumps([{"id": spec.id, "summary": spec.summary} for spec in found], indent=2))
    else:
        print(terminal.env_list(found))
    return 0


def build_play(parser: argparse.ArgumentParser) -> None:
    """Arguments of `play`."""
    add_env(parser)
    parser.add_argument(
        "--agents",
        default="novice",
        help="random, novice, oracle or human: for all, one each in the agents' order, or name=kind,...",
    )
    parser.add_argument("--task", help="the task of all episodes, by id or position from 0 (default: drawn)")
    parser.add_argument("--episodes", type=int, default=1, help="episodes to play (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of tasks and scripts (default 0)")


def run_play(args: argparse.Namespace) -> int:
    """Play episodes and print them."""
    if args.episodes < 1 or args.seed < 0:
        raise InputError("--episodes must be at least 1 and --seed at least 0")
    env = make_env(args.words)
    kinds = parse_kinds(args.agents, env.possible_agents, (*KINDS, "human"))
    chosen = None if args.task is None else {"task": _find_task(env, args.task)}
    for episode in range(args.episodes):
        rng = np.random.default_rng([args.seed, episode])
        observations, infos = env.reset(seed=int(rng.integers(2**31)), options=chosen)
        print(f"== episode {episode + 1}, task {next(iter(infos.values()))['task_id']}")
        _show_picture(env)
        while env.agents:
            number, seen = env.turn, observations
            replies = {}
            for agent, kind in kinds.items():
                human = kind == "human"
                replies[agent] = _ask(agent, seen[agent]) if human else env.scripted(kind, agent, rng)
            observations, _, _, _, infos = env.step(replies)
            humans = [agent for agent in replies if kinds[agent] == "human" and sys.stdin.isatty()]
            print(terminal.turn(number, seen, replies, humans))
            _show_picture(env)
            print(terminal.score(env, next(iter(infos.values()))) + "\n")
    return 0


def _show_picture(env: CollabEnv) -> None:
    if drawn := env.look():
        print(drawn)


def _ask(agent: str, observation: str) -> str:
    """A human's reply: lines up to an empty one."""
    if sys.stdin.isatty():
        print(f"\n{agent} sees:\n{terminal_safe(observation)}\n{agent} says (an empty line ends the reply):")
    lines: list[str] = []
    for line in sys.stdin:
        if not line.strip():
            return "\n".join(lines)
        lines.append(line.rstrip("\n"))
    if not lines:
        raise InputError(f"the input ended before {agent} had replied")
    return "\n".join(lines)


def eval_scripted(args: argparse.Namespace) -> Mapping[str, Any]:
    """The report of scripted agents on an environment's held-out tasks, and a picture of one episode."""
    episodes = 100 if args.episodes is None else args.episodes
    seed = args.seed or 0
    if episodes < 1 or seed < 0:
        raise InputError("--episodes must be at least 1 and --seed at least 0")
    if args.checkpoint is not None:
        raise InputError("--checkpoint is for a run, not for an environment")
    if args.agents is None:
        raise InputError(
            "name scripted agents (--agents oracle, or --agents oracle,novice in their order) or how untrained "
            "models reply (--protocol parallel)"
        )
    held_out = [] if any(word.startswith("split=") for word in args.words) else ["split=test"]
    env = make_env([args.run, *args.words, *held_out])
    kinds = parse_kinds(args.agents, env.possible_agents)
    tasks = [env.tasks[i % len(env.tasks)] for i in range(episodes)]

    from collm_agents.evaluate import evaluate_scripted  # imports torch

    if args.gif:
        write_gif(scripted_frames(env, kinds, tasks[0], seed=seed), args.gif)
    return evaluate_scripted(env, kinds, tasks, seed)


def build_check(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    add_env(parser)
    parser.add_argument(
        "--probe-rewards",
        action="store_true",
        help="also let degenerate agents play (nothing, the prompt, the partner's words, one token, another task's "
        "solution), and warn where one is paid more than the novice",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_check(args: argparse.Namespace) -> int:
    """Print `check_env`'s report and what degenerate agents earn; 1 where a check fails, whatever is warned of."""
    env_id, items = split_words(args.words)
    if env_id is None:
        raise InputError("name what to check: an id or module:Class")
    settings = load_env_settings(env_id, items)
    report = collm_envs.check_env(env_id, **settings)
    buildable = not any(finding.check == "construction" for finding in report.findings)
    probed = collm_envs.probe_rewards(env_id, **settings) if args.probe_rewards and buildable else None
    if args.json:
        told: dict[str, Any] = {"env": report.name, "ok": report.ok}
        told["findings"] = [dataclasses.asdict(finding) for finding in report.findings]
        print(json.dumps(told | ({"probe": probed.to_json()} if probed else {}), indent=2))
    else:
        print(report)
        if probed:
            print(f"\n{probed}")
    return 0 if report.ok and (probed is None or probed.ok) else 1


def build_score(parser: argparse.ArgumentParser) -> None:
    """Arguments of `score`."""
    add_env(parser)
    parser.add_argument("--task", default="0", help="a task's id, or its position from 0 (default 0)")
    parser.add_argument(
        "--reply",
        action="append",
        default=[],
        metavar="AGENT=TEXT",
        help="one agent's reply; @FILE reads it from a file, @@ stands for a leading @",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_score(args: argparse.Namespace) -> int:
    """Score given replies at the first turn of a task."""
    env = make_env(args.words)
    replies = dict(_read_reply(item, env.possible_agents) for item in args.reply)
    missing = [agent for agent in env.possible_agents if agent not in replies]
    if missing:
        raise InputError(f"no reply of {missing[0]}; give one with --reply {missing[0]}=TEXT")
    env.reset(seed=0, options={"task": _find_task(env, args.task)})
    _, rewards, _, _, infos = env.step(replies)
    info = next(iter(infos.values()))
    if args.json:
        told = {key: info[key] for key in ("task_id", "score", "success")}
        told |= {"env": env.env_id, "high": env.high, "reward": next(iter(rewards.values()))}
        print(json.dumps({**told, "parts": info["reward_parts"]}, indent=2))
    else:
        print(f"{env.env_id}, task {info['task_id']}\n{terminal.score(env, info)}")
    return 0


def _read_reply(item: str, agents: Sequence[str]) -> tuple[str, str]:
    name, sign, text = item.partition("=")
    if not sign:
        raise InputError(f"--reply {item!r} does not read AGENT=TEXT or AGENT=@FILE")
    if name not in agents:
        raise InputError(f"--reply: there is no agent {name!r}{suggest(name, agents)}")
    if text.startswith("@@"):
        return name, text[1:]
    if not text.startswith("@"):
        return name, text
    try:
        return name, Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--reply {name}: cannot read {text[1:]} ({error})") from None


def _find_task(env: CollabEnv, wanted: str) -> collm_envs.Task:
    tasks = env.tasks
    if re.fullmatch(r"\d+", wanted) and int(wanted) < len(tasks):
        return tasks[int(wanted)]
    for task in tasks:
        if task.id == wanted:
            return task
    raise InputError(
        f"{tasks.name} has no task {wanted!r}; it has {len(tasks)}, from {tasks[0].id!r} to {tasks[-1].id!r}"
    )
