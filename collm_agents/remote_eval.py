"""Evaluation of agents that live behind servers, each on its own: what decentralised execution is.

For `collm eval --agents NAME=http://...`. Every agent is sent its own conversation and nothing else; no model is
loaded here. Tasks, seeds and report are those of `evaluate`, so that a team behind servers can be laid beside the
same team in this process. Scripted agents may play along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from collm_agents.config import Config, RemoteConfig, SamplingConfig
from collm_agents.draws import DrawKey, derive
from collm_agents.evaluate import EPISODE, Extent, Report, extent_of, held_out_env, summarise, tree_means
from collm_agents.remote import Answer, Endpoint, Message, RemoteAgent, RemoteError, endpoint
from collm_agents.shards import occurrences
from collm_envs.env import CollabEnv
from collm_envs.errors import SettingError, suggest
from collm_envs.history import entry
from collm_envs.scripted import KINDS
from collm_envs.task import Task

DEFAULT_TOKENS = 256  # of a reply, where nobody says
SEED_BITS = 31  # servers take no longer seeds
T = TypeVar("T")


def parse_players(text: str, agents: Sequence[str]) -> dict[str, Endpoint | str]:
    """Who plays whom: `name=URL` or `name=kind` of a scripted agent, joined by commas.

    Raises:
        SettingError: for an agent that is unknown, left out or named twice, or a kind that does not exist.
        InputError: for a broken address.
    """
    found: dict[str, Endpoint | str] = {}
    for item in text.split(","):
        name, sign, value = (part.strip() for part in item.partition("="))
        if not sign or name not in agents:
            raise SettingError(
                f"--agents: {item.strip()!r} does not read NAME=URL for one of {', '.join(agents)}"
            )
        if name in found:
            raise SettingError(f"--agents: {name} is named twice")
        if "://" in value:
            found[name] = endpoint(name, value)
        elif value in KINDS:
            found[name] = value
        else:
            raise SettingError(
                f"--agents: {value!r} is no address and no kind of agent{suggest(value, KINDS)}"
            )
    if missing := [name for name in agents if name not in found]:
        raise SettingError(f"--agents: nobody plays {', '.join(missing)}")
    return {name: found[name] for name in agents}


def evaluate_remote(config: Config, agents: str) -> Report:
    """The report of agents behind servers on held-out tasks.

    Args:
        config: of the environment, of `eval`, `remote` and `team.sampling`.
        agents: as `parse_players` reads it.

    Returns:
        A report as `evaluate`'s; `reply_tokens` is missing where a server does not count, and beside the usual
        metrics stand `tries` (requests per reply) and `reply_s` (seconds per reply).

    Raises:
        RemoteError: when a reply could not be had; names agent, address, task and turn.
    """
    env = held_out_env(config)
    players = parse_players(agents, env.possible_agents)
    extent = extent_of(config.eval, env.tasks, config.eval.final_tasks, last=True)
    sampling = config.team.sampling
    settings = _Settings(
        SamplingConfig(
            sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens or DEFAULT_TOKENS
        ),
        config.remote,
        config.eval.seed,
        config.eval.greedy,
    )
    return asyncio.run(_evaluate(env, players, extent, settings, config.track.samples))


@dataclass(frozen=True)
class _Settings:
    sampling: SamplingConfig
    remote: RemoteConfig
    seed: int
    greedy: bool


@dataclass
class _Episode:
    """One episode: what was said, what it led to, what it cost."""

    task: Task
    turns: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    text: str = ""
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """Its metrics, named as `evaluate`'s."""
        info, counts = self.info, [one.tokens for one in self.answers]
        found = {
            "score": info["score"],
            "success": info["success"],
            "return": sum(turn["reward"] for turn in self.turns),
            "score_sum": sum(turn["score"] for turn in self.turns),
            "turns": len(self.turns),
            **{f"parts/{name}": value for name, value in info["reward_parts"].items()},
            **{f"measured/{name}": value for name, value in info["metrics"].items()},
            "truncated_episodes": self.truncated,
            "truncated_replies": np.mean([one.cut for one in self.answers]),
            "empty_replies": np.mean([not one.text.strip() for one in self.answers]),
            "tries": np.mean([one.tries for one in self.answers]),
            "reply_s": np.mean([one.seconds for one in self.answers]),
        }
        known = [count for count in counts if count is not None]
        if len(known) == len(counts):
            found["reply_tokens"] = np.mean(known)
        return {name: float(value) for name, value in found.items()}

    def conversation(self) -> dict[str, Any]:
        """The episode as `evaluate` keeps it."""
        told = {"score": float(self.info["score"]), "success": bool(self.info["success"])}
        return {"task_id": self.task.id, "text": self.text, **told, "turns": self.turns}


async def _evaluate(
    env: CollabEnv,
    players: Mapping[str, Endpoint | str],
    extent: Extent,
    settings: _Settings,
    keep: int,
) -> Report:
    tasks, samples = extent
    samples = 1 if settings.greedy else samples
    chosen = [tasks[i] for i in range(len(tasks))]
    names = occurrences([task.id for task in chosen])
    room = asyncio.Semaphore(2 * settings.remote.at_once)  # episodes under way
    async with AsyncExitStack() as stack:
        remote = {
            name: await stack.enter_async_context(RemoteAgent(place, settings.sampling, settings.remote))
            for name, place in players.items()
            if isinstance(place, Endpoint)
        }
        kinds = {name: kind for name, kind in players.items() if isinstance(kind, str)}

        async def play(task: Task, name: str, sample: int) -> _Episode:
            async with room:
                return await _play(env.clone(), task, name, sample, remote, kinds, settings)

        # One that fails ends the others: a report on what is left would be of other tasks.
        played = await _together(
            play(task, name, sample)
            for task, name in zip(chosen, names, strict=True)
            for sample in range(samples)
        )
    return _report([played[i : i + samples] for i in range(0, len(played), samples)], keep)


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of all; the first failure ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            going = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [one.result() for one in going]


async def _play(
    env: CollabEnv,
    task: Task,
    name: str,
    sample: int,
    remote: Mapping[str, RemoteAgent],
    kinds: Mapping[str, str],
    settings: _Settings,
) -> _Episode:
    """One episode; all agents of a turn are asked at once."""
    episode, path = _Episode(task), [sample]
    seen, _ = env.reset(seed=derive(settings.seed, "env", -1, name), options={"task": task})
    talks: dict[str, list[Message]] = {agent: [] for agent in remote}
    while env.agents:
        turn, state = env.turn, env.state()
        keys = {a: DrawKey(settings.seed, -1, name, tuple(path), a) for a in env.possible_agents}
        for agent, talk in talks.items():
            talk.append({"role": "user", "content": seen[agent]})
        try:
            asked = await _together(
                agent.reply(talks[a], None if settings.greedy else derive(*keys[a].parts) >> (63 - SEED_BITS))
                for a, agent in remote.items()
            )
        except RemoteError as error:
            raise RemoteError(f"{env.env_id}, task {task.id!r}, turn {turn}: {error}") from None
        answers = dict(zip(remote, asked, strict=True))
        replies = {a: answer.text for a, answer in answers.items()}
        for agent, talk in talks.items():
            talk.append({"role": "assistant", "content": replies[agent]})
        for agent, kind in kinds.items():
            replies[agent] = env.scripted(kind, agent, np.random.default_rng(derive(*keys[agent].parts)))
        judged = env.submit(replies)
        if isinstance(judged, Future):
            await asyncio.gather(
                asyncio.wrap_future(judged), return_exceptions=True
            )  # `resolve` says what broke
        seen, rewards, _, cut, infos = env.resolve(judged)
        info = next(iter(infos.values()))
        said = (entry(a, turn, "says", infos[a]["reply"]) for a in env.possible_agents)
        episode.text, episode.info = state + "".join(said), info
        episode.truncated = any(cut.values())
        episode.answers += answers.values()
        episode.turns.append(_turn(info, float(next(iter(rewards.values()))), answers))
        path.append(0)
    return episode


def _turn(info: Mapping[str, Any], reward: float, answers: Mapping[str, Answer]) -> dict[str, Any]:
    return {
        "reward": reward,
        "score": float(info["score"]),
        "parts": {name: float(value) for name, value in info["reward_parts"].items()},
        "measured": {name: float(value) for name, value in info["metrics"].items()},
        "replies": {
            agent: {"tokens": one.tokens or 0, "cut": one.cut, "clipped": False}
            for agent, one in answers.items()
        },
    }


def _report(episodes: Sequence[Sequence[_Episode]], keep: int) -> Report:
    """A report of the episodes of each task."""
    values = [[episode.values() for episode in own] for own in episodes]
    everywhere = set.intersection(*(set(one) for own in values for one in own))
    names = [name for name in values[0][0] if name in everywhere]
    by_task = {name: [[one[name] for one in own] for own in values] for name in names}
    rows = [
        {"task_id": episode.task.id, **{name: one[name] for name in EPISODE if name in names}}
        for own, told in zip(episodes, values, strict=True)
        for episode, one in zip(own, told, strict=True)
    ]
    conversations = [episode.conversation() for own in episodes for episode in own][:keep]
    return {**summarise(tree_means(by_task), conversations), "episodes": rows}
