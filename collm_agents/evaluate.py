"""Evaluation on fixed tasks with fixed seeds, and the report that every table and curve is made of.

A report is plain data: `{"metrics": {name: {"mean", "low", "high", "n"}}, "samples": [...], "episodes": [...]}`,
the last, with one entry per episode, only where models played. Intervals are 95 % bootstrap intervals of the mean
over tasks, widened for few of them; rates with one episode per task use Wilson's interval, which does not collapse
when all are equal. n is the number of tasks, never of episodes; of one task there is no interval but Wilson's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collm_agents.batch import Rollouts
from collm_agents.clock import Clock
from collm_agents.collect import Collector
from collm_agents.config import Config, EvalConfig
from collm_agents.resampling import STATISTICS, resampled
from collm_agents.team import AgentTeam
from collm_envs.env import CollabEnv
from collm_envs.history import entry
from collm_envs.registry import make
from collm_envs.scripted import play_scripted
from collm_envs.task import Task, TaskSource
from collm_envs.vector import VecEnv

Report = dict[str, Any]
Extent = tuple[TaskSource, int]  # the tasks of an evaluation, and the episodes of each
TASKS_AT_ONCE = 256
EPISODE = (
    "score",
    "success",
    "return",
    "turns",
    "reply_tokens",
)  # what a report tells of each single episode
RATES = ("success", "truncated_episodes")


def interval(
    values: Sequence[float] | np.ndarray, *, rate: bool = False, seed: int = 0, draws: int = 2000
) -> dict[str, float | None]:
    """Mean with a 95 % interval.

    Args:
        values: one per task, [n].
        rate: the values are yes or no, where Wilson's interval is right; means of several are bootstrapped, within
            0 and 1.
        seed: seed of the bootstrap.
        draws: bootstrap resamples.

    Returns:
        `mean`, `low`, `high`, `n`. Percentiles of the bootstrap are widened as `resampling.resampled` says. Of a
        single value, whose spread is unknown, `low` and `high` are None.
    """
    x = np.asarray(values, dtype=float)
    mean, n = float(x.mean()), len(x)
    if rate and np.isin(x, (0.0, 1.0)).all():
        low, high = _wilson(mean, n)
    else:
        _, low, high, *_ = resampled([x], STATISTICS["mean"], "widened", 0.95, seed, draws)
        if rate:  # the widening need not know where a rate ends
            low, high = np.clip((low, high), 0.0, 1.0).tolist()
    known = n > 1 or not math.isnan(low)
    return {"mean": mean, "low": low if known else None, "high": high if known else None, "n": n}


def _wilson(mean: float, n: int) -> tuple[float, float]:
    z = 1.959964
    centre, spread = mean + z * z / (2 * n), z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Where all are equal one bound is the mean itself; rounding may not put the mean outside.
    return min(mean, max(0.0, (centre - spread) / scale)), max(mean, min(1.0, (centre + spread) / scale))


def summarise(per_task: Mapping[str, Sequence[float]], samples: Sequence[Mapping[str, Any]] = ()) -> Report:
    """A report from one value per task and metric."""
    return {
        "metrics": {name: interval(values, rate=name in RATES) for name, values in per_task.items()},
        "samples": list(samples),
    }


def evaluate(
    env: CollabEnv,
    team: AgentTeam,
    tasks: Sequence[Task],
    *,
    seed: int,
    samples: int = 1,
    greedy: bool = False,
    keep: int = 4,
    protocol: str = "parallel",
) -> Report:
    """The report of a team on given tasks; arguments and metrics as in `task_values`."""
    episodes: list[dict[str, Any]] = []
    values, conversations = task_values(
        env,
        team,
        tasks,
        seed=seed,
        samples=samples,
        greedy=greedy,
        keep=keep,
        protocol=protocol,
        episodes=episodes,
    )
    return {**summarise(values, conversations), "episodes": episodes}


def held_out_env(config: Config, overrides: Mapping[str, Any] | None = None) -> CollabEnv:
    """A run's environment on its held-out split; overrides are settings of the environment."""
    held_out = {"split": config.eval.split}
    if config.eval.source:
        held_out["source"] = config.eval.source
    return make(config.env_id, **{**config.env_kwargs, **held_out, **(overrides or {})})


def extent_of(config: EvalConfig, tasks: TaskSource, count: int, *, last: bool = False) -> Extent:
    """What one evaluation plays.

    Args:
        config: of evaluations.
        tasks: all that are held out.
        count: how many of them, where `final_episodes` does not say; 0 for all.
        last: whether this is the last evaluation, of `final_episodes`.

    Returns:
        The tasks, and the episodes of each.
    """
    if last and config.final_episodes:
        count = min(config.final_episodes, len(tasks))
        return tasks[:count], -(-config.final_episodes // count)
    return (tasks[:count] if count else tasks), config.samples


def task_values(
    env: CollabEnv,
    team: AgentTeam,
    tasks: Sequence[Task],
    *,
    seed: int,
    samples: int = 1,
    greedy: bool = False,
    keep: int = 4,
    protocol: str = "parallel",
    episodes: list[dict[str, Any]] | None = None,
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Play whole episodes on given tasks.

    Args:
        env: the environment, in the form that is evaluated.
        team: the agents.
        tasks: all of them are played.
        seed: seed of the draws; equal seeds give equal draws whatever was trained in between.
        samples: episodes per task; a task's values are their mean.
        greedy: likeliest tokens instead of draws, one episode per task.
        keep: conversations put into the report.
        protocol: how the agents come to a joint reply (`protocols.PROTOCOLS`).
        episodes: where each single episode is put, as its `task_id` and `EPISODE`.

    Returns:
        One value per task by metric, and the conversations. The metrics are `score` (last turn), `score_sum`,
        `return` (sum of rewards), `success`, `turns`, `parts/<component>`, `measured/<quantity>`, `reply_tokens`,
        `truncated_replies`, `empty_replies`, `truncated_episodes`, `clipped_prompts`, and with another protocol
        than `parallel` `drafted_tokens` (per joint reply, of what was drawn and not played).
    """
    branching = (1 if greedy else samples,) + (1,) * (env.num_turns - 1)
    clock = Clock()  # of its own: drawing here is no part of training
    collector = Collector(VecEnv(env), team, branching, seed, greedy=greedy, protocol=protocol, clock=clock)
    per_task: dict[str, list[float]] = {}
    conversations: list[dict[str, Any]] = []
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        some = [tasks[i] for i in range(start, min(start + TASKS_AT_ONCE, len(tasks)))]
        with team.timed(clock):
            rollouts = collector.collect(some, -1)
        by_tree = episode_values(rollouts)
        if episodes is not None:
            episodes += episode_rows(rollouts.tasks, by_tree)
        metrics = tree_means(by_tree)
        if protocol != "parallel":
            played = np.bincount(rollouts.points.tree[rollouts.nodes.point], minlength=len(rollouts.tasks))
            metrics["drafted_tokens"] = list(collector.drafted / played)
        for name, values in metrics.items():
            per_task.setdefault(name, []).extend(values)
        leaves = rollouts.leaves[: max(0, keep - len(conversations))]
        conversations += [conversation(rollouts, int(leaf)) for leaf in leaves]
    return per_task, conversations


def tree_means(values: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """The mean over each tree's episodes, by metric."""
    return {name: [float(np.mean(tree)) for tree in trees] for name, trees in values.items()}


def episode_rows(
    tasks: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]]
) -> list[dict[str, Any]]:
    """One row per episode, tree by tree: the task's id, and what `EPISODE` names."""
    return [
        {"task_id": task, **{name: values[name][tree][i] for name in EPISODE}}
        for tree, task in enumerate(tasks)
        for i in range(len(values["score"][tree]))
    ]


def episode_values(rollouts: Rollouts) -> dict[str, list[list[float]]]:
    """Metrics of whole episodes: name -> values of each tree's episodes."""
    nodes, rows, drawn = rollouts.nodes, rollouts.rows, rollouts.rows.drawn
    found: dict[str, list[list[float]]] = {}
    for leaf in rollouts.leaves:
        path = rollouts.path(int(leaf))
        used = rollouts.row_of[path].ravel()
        used = used[drawn[used]]  # scripted teammates' replies have no tokens
        values = {
            "score": nodes.score[leaf],
            "success": float(nodes.success[leaf]),
            "return": nodes.reward[path].sum(),
            "score_sum": nodes.score[path].sum(),
            "turns": len(path),
            **{f"parts/{name}": value for name, value in nodes.parts[leaf].items()},
            **{f"measured/{name}": value for name, value in nodes.metrics[leaf].items()},
            "reply_tokens": np.mean([len(rows.reply[r]) for r in used]),
            "truncated_replies": rows.cut[used].mean(),
            "empty_replies": np.mean([not rows.text[r].strip() for r in used]),
            "truncated_episodes": float(nodes.truncated[leaf]),
            "clipped_prompts": rows.clipped[used].mean(),
        }
        tree = rollouts.points.tree[nodes.point[leaf]]
        for name, value in values.items():
            found.setdefault(name, [[] for _ in rollouts.tasks])[tree].append(float(value))
    return found


def conversation(rollouts: Rollouts, leaf: int) -> dict[str, Any]:
    """One episode: the joint history as text, its task, score and success, and what each turn was worth.

    A turn says what it was paid and scored, and of each agent how many tokens it drew, whether the limit `cut` its
    reply and whether its observation was `clipped`; who saw and said what stands in the history.
    """
    nodes = rollouts.nodes
    point = nodes.point[leaf]
    turn = int(rollouts.points.turn[point])
    said = (
        entry(agent, turn, "says", rollouts.rows.text[row])
        for agent, row in zip(rollouts.agents, rollouts.row_of[leaf], strict=True)
    )
    return {
        "task_id": rollouts.tasks[rollouts.points.tree[point]],
        "text": rollouts.points.state[point] + "".join(said),
        "score": float(nodes.score[leaf]),
        "success": bool(nodes.success[leaf]),
        "turns": [_turn(rollouts, node) for node in rollouts.path(leaf)],
    }


def _turn(rollouts: Rollouts, node: int) -> dict[str, Any]:
    nodes, rows = rollouts.nodes, rollouts.rows
    return {
        "reward": float(nodes.reward[node]),
        "score": float(nodes.score[node]),
        "parts": {name: float(value) for name, value in nodes.parts[node].items()},
        "measured": {name: float(value) for name, value in nodes.metrics[node].items()},
        "replies": {
            agent: {
                "tokens": len(rows.reply[row]),
                "cut": bool(rows.cut[row]),
                "clipped": bool(rows.clipped[row]),
            }
            for agent, row in zip(rollouts.agents, rollouts.row_of[node], strict=True)
        },
    }


def evaluate_scripted(
    env: CollabEnv, kinds: str | Mapping[str, str], tasks: Sequence[Task], seed: int
) -> Report:
    """The same report for scripted agents (`random`, `novice`, `oracle`), without token counts.

    A task that comes more than once counts once, with the mean of its episodes.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for record in play_scripted(env, kinds, tasks, seed=seed):
        values = {k: float(record[k]) for k in ("score", "success", "return", "turns")}
        values.update({f"parts/{k}": float(v) for k, v in record["parts"].items()})
        values.update({f"measured/{k}": float(v) for k, v in record["metrics"].items()})
        for name, value in values.items():
            found.setdefault(name, {}).setdefault(record["task_id"], []).append(value)
    per_task = {name: [float(np.mean(own)) for own in by_task.values()] for name, by_task in found.items()}
    return summarise(per_task)
