"""Cross-play: teams whose agents come from different runs, beside the teams that were trained together.

For the command line and for scripts. Runs of one environment (other seeds, other algorithms) are loaded once; every
team is put together from their agents and plays the same tasks with the same draws, so the teams that are a run's
own score what `collm eval` reports of it. Runs are refused where their agents could not sit at one table as they
were trained: other environments, other roles, other ways of drawing replies. Nothing here trains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collm_agents import checkpoint, terminal
from collm_agents.evaluate import RATES, interval, summarise, task_values
from collm_agents.experiment import Experiment
from collm_agents.models.backbone import Backbone
from collm_agents.results import stored_config, versions
from collm_agents.team import AgentTeam
from collm_envs import spec
from collm_envs.errors import InputError

METRICS = ("score", "success")  # compared between teams; all others are told team by team
# Settings of [team] and [eval] that one evaluation has one value of.
_SAMPLING = ("temperature", "top_p", "top_k", "max_new_tokens")
_TEAM = ("template", "enable_thinking", "rewriting_template", "prompt_overflow", "max_context")
_EVAL = ("split", "source", "final_tasks", "samples", "greedy", "seed")


@dataclass(frozen=True)
class Player:
    """A run whose agents play: its name among the runs, its experiment, the checkpoint that is read."""

    name: str
    experiment: Experiment
    checkpoint: Path

    @property
    def roles(self) -> tuple[str, ...]:
        """Agents that are models, in the environment's order."""
        return tuple(agent.name for agent in self.experiment.specs if not agent.script)

    def saved(self, role: str) -> str:
        """The name that a role's weights are saved under."""
        return "team" if self.experiment.config.team.shared else role


@dataclass(frozen=True)
class Lineup:
    """One team: the entry of the matrix that it counts for, and the run of each role."""

    entry: tuple[int, int]
    runs: tuple[int, ...]


Seats = list[dict[str, tuple[Backbone, str]]]  # run -> role -> backbone and its member


def crossplay(
    run_dirs: Sequence[str | Path],
    *,
    overrides: Sequence[str] = (),
    checkpoint_at: int | str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Play all teams of the runs' agents.

    Args:
        run_dirs: folders of the runs, at least two.
        overrides: such as `eval.greedy=true`; applied to every run.
        checkpoint_at: joint samples of the checkpoints, or `best`; default each run's newest.
        tell: told what is about to be done, one line each.

    Returns:
        Plain data: `runs`; `teams` with all metrics; by metric the `matrix` of intervals over tasks, row and column
        being runs, and `comparisons` of self-play with cross-play.

    Raises:
        InputError: when the runs cannot be compared, naming two of them and what differs.
    """
    players = read_runs(run_dirs, overrides, checkpoint_at)
    first = players[0].experiment
    config, roles = first.config.eval, players[0].roles
    env = first.eval_env()
    tasks = env.tasks[: config.final_tasks] if config.final_tasks else env.tasks
    seats = load_agents(players, tell)
    teams: list[dict[str, Any]] = []
    by_entry: dict[tuple[int, int], list[dict[str, list[float]]]] = {}
    plan = lineups(len(roles), len(players))
    for number, lineup in enumerate(plan, 1):
        names = ", ".join(f"{r} of {players[i].name}" for r, i in zip(roles, lineup.runs, strict=True))
        tell(f"team {number} of {len(plan)}, {len(tasks)} tasks: {names}")
        values, conversations = task_values(
            env,
            seat(players, seats, lineup),
            tasks,
            seed=config.seed,
            samples=config.samples,
            greedy=config.greedy,
            keep=first.config.track.samples,
        )
        by_entry.setdefault(lineup.entry, []).append(values)
        teams.append(
            {
                "entry": list(lineup.entry),
                "agents": dict(zip(roles, lineup.runs, strict=True)),
                **summarise(values, conversations),
                "per_task": {metric: values[metric] for metric in METRICS},
            }
        )
    cells = {metric: _cells(by_entry, metric, len(players)) for metric in METRICS}
    algorithms = [player.experiment.algorithm.name for player in players]
    return {
        "env": first.config.env_id,
        "high": env.high,
        "roles": list(roles),
        "scripted": {s.name: s.script for s in first.specs if s.script},
        "tasks": [tasks[i].id for i in range(len(tasks))],
        "eval": {name: getattr(config, name) for name in _EVAL},
        "runs": [_told(player) for player in players],
        "teams": teams,
        "matrix": {
            metric: [[interval(cell, rate=metric in RATES) for cell in row] for row in found]
            for metric, found in cells.items()
        },
        "comparisons": {metric: comparisons(found, algorithms, metric) for metric, found in cells.items()},
        "versions": versions(first.device),
    }


def _told(player: Player) -> dict[str, Any]:
    experiment = player.experiment
    return {
        "name": player.name,
        "algorithm": experiment.algorithm.name,
        "variant": experiment.variant,
        "seed": experiment.config.run.seed,
        "joint_samples": checkpoint.samples_of(player.checkpoint),
        "shared": experiment.config.team.shared,
    }


# -- runs --------------------------------------------------------------------------------------------------


def read_runs(
    run_dirs: Sequence[str | Path], overrides: Sequence[str] = (), checkpoint_at: int | str | None = None
) -> list[Player]:
    """The runs, checked against each other; no weights are loaded.

    Raises:
        InputError: when there are fewer than two, one comes twice, or two differ in what a team has one of.
    """
    folders = [Path(folder) for folder in run_dirs]
    if len(folders) < 2:
        raise InputError("cross-play wants at least two runs; `collm eval` evaluates one")
    players = [
        Player(name, Experiment(stored_config(folder, overrides)), checkpoint.pick(folder, checkpoint_at))
        for folder, name in zip(folders, short_names(folders), strict=True)
    ]
    one, mine = players[0], terms(players[0].experiment)
    for other in players[1:]:
        theirs = terms(other.experiment)
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            if mine.get(key) != theirs.get(key):
                settled = "" if key in ("env.id", "agents") else f"; {key}=VALUE settles it for all runs"
                raise InputError(
                    f"{one.name} and {other.name} cannot play together: {key} is {mine.get(key)!r} in the one "
                    f"and {theirs.get(key)!r} in the other{settled}"
                )
    if len(one.roles) < 2:
        raise InputError(
            f"{one.name} has one agent that is a model ({', '.join(one.roles) or 'none'}), so there is nobody to "
            "swap; cross-play wants two"
        )
    return players


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders, as many as tell them apart.

    Raises:
        InputError: when a folder comes twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for one, other in itertools.combinations(range(len(parts)), 2):
        if parts[one] == parts[other]:
            raise InputError(f"{folders[other]} is named twice; a run plays with itself in any case")
    kept = 1
    while len({own[-kept:] for own in parts}) < len(parts):
        kept += 1
    return ["/".join(own[-kept:]) for own in parts]


def terms(experiment: Experiment) -> dict[str, Any]:
    """What runs must agree on to play together: setting -> value, the most telling first."""
    config, env = experiment.config, experiment.env
    found = {
        "env.id": config.env_id,
        "agents": ", ".join(env.possible_agents),
        "env.num_turns": env.num_turns,
    }
    defaults = {row.key: row.default for row in terminal.env_settings(spec(config.env_id))}
    # The split that was trained on is not played; neither is its source where evaluation has one of its own.
    unplayed = {"split", "num_agents", "num_turns"} | ({"source"} if config.eval.source else set())
    for key, value in {**defaults, **config.env_kwargs}.items():
        if key in unplayed:
            continue
        if value is None:  # the environment's own choice, which another run may have written out
            chosen = getattr(env, key, None)
            value = chosen if isinstance(chosen, (str, int, float)) else None
        found[f"env.{key}"] = tuple(value) if isinstance(value, list) else value
    found |= {f"team.sampling.{name}": getattr(config.team.sampling, name) for name in _SAMPLING}
    found |= {f"team.{name}": getattr(config.team, name) for name in _TEAM}
    found |= {f"team.agents.{agent.name}.script": agent.script for agent in experiment.specs}
    found |= {f"eval.{name}": getattr(config.eval, name) for name in _EVAL}
    return found


# -- teams -------------------------------------------------------------------------------------------------


def lineups(roles: int, runs: int) -> list[Lineup]:
    """All teams that are played, entry by entry.

    Args:
        roles: agents that are models, at least two.
        runs: where they are from.

    Returns:
        For two roles one team per entry: the first is of the row's run, the second of the column's. For more, off
        the diagonal one team per role: that role is of the row's run, all others of the column's.
    """
    found = []
    for row, column in itertools.product(range(runs), repeat=2):
        if row == column:
            teams = [(row,) * roles]
        elif roles == 2:
            teams = [(row, column)]
        else:
            teams = [tuple(row if role == odd else column for role in range(roles)) for odd in range(roles)]
        found += [Lineup((row, column), team) for team in teams]
    return found


def load_agents(players: Sequence[Player], tell: Callable[[str], None] = lambda text: None) -> Seats:
    """Load every run's agents once.

    Runs that name one base with adapters of one size share it in memory; full copies are as many as agents.

    Returns:
        By run and role, the backbone and the member of it that the role uses.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, player in enumerate(players):
        team = player.experiment.config.team
        groups.setdefault((team.lora, team.dtype, player.experiment.device), []).append(i)
    seats: Seats = [{} for _ in players]
    for numbers in groups.values():
        tell("loading models of " + ", ".join(players[i].name for i in numbers))
        wanted = {
            _member(i, saved): base
            for i in numbers
            for saved, base in players[i].experiment.agent_base().items()
        }
        backbones = players[numbers[0]].experiment.backbones(wanted)
        for i in numbers:
            player = players[i]
            for saved in player.experiment.agent_base():
                member = _member(i, saved)
                checkpoint.load_member(player.checkpoint, saved, backbones[member], member)
            for role in player.roles:
                member = _member(i, player.saved(role))
                seats[i][role] = (backbones[member], member)
    return seats


def _member(run: int, saved: str) -> str:
    """A name for a run's weights that no other run's have, so that nothing computed with one serves another."""
    return f"run{run}_{saved}"


def seat(players: Sequence[Player], seats: Seats, lineup: Lineup) -> AgentTeam:
    """The team of a lineup; scripted teammates are as in every run."""
    first = players[0]
    chosen = {role: seats[i][role] for role, i in zip(first.roles, lineup.runs, strict=True)}
    return AgentTeam(
        first.experiment.env.possible_agents,
        {role: backbone for role, (backbone, _) in chosen.items()},
        first.experiment.config.team,
        members={role: member for role, (_, member) in chosen.items()},
        scripted={agent.name: agent.script for agent in first.experiment.specs if agent.script},
        num_turns=first.experiment.env.num_turns,
    )


# -- numbers -----------------------------------------------------------------------------------------------


def _cells(
    by_entry: Mapping[tuple[int, int], Sequence[Mapping[str, Sequence[float]]]], metric: str, runs: int
) -> np.ndarray:
    """One metric by row, column and task, [R, R, tasks]; the teams of an entry are averaged."""
    return np.array(
        [
            [np.mean([values[metric] for values in by_entry[row, column]], axis=0) for column in range(runs)]
            for row in range(runs)
        ]
    )


def comparisons(cells: np.ndarray, algorithms: Sequence[str], metric: str = "score") -> list[dict[str, Any]]:
    """Self-play beside cross-play: over all pairs of runs, and within and across algorithms.

    Self-play is that of the very runs whose pairs are compared, each as often as it is in a pair. Intervals are
    over tasks; that of the difference is over each task's own difference, since all teams play the same ones.

    Args:
        cells: [R, R, tasks].
        algorithms: of each run.
        metric: what it is; rates have intervals of their own.

    Returns:
        For each group that has a pair: `pairs` (its name), `entries` (of the matrix: ordered pairs of runs), and
        `self_play`, `cross_play` and `difference` (self-play minus cross-play) as intervals.
    """
    pairs = list(itertools.permutations(range(len(algorithms)), 2))
    alike = [(i, j) for i, j in pairs if algorithms[i] == algorithms[j]]
    several = list(dict.fromkeys(algorithms[i] for i, _ in alike))
    groups = {"all": pairs}
    groups |= {f"within {a}": [(i, j) for i, j in alike if algorithms[i] == a] for a in several}
    if len(several) > 1:
        groups["within an algorithm"] = alike
    groups["across algorithms"] = [pair for pair in pairs if pair not in alike]
    found = []
    for name, own in groups.items():
        if not own:
            continue
        together = np.mean([(cells[i, i] + cells[j, j]) / 2 for i, j in own], axis=0)
        crossed = np.mean([cells[i, j] for i, j in own], axis=0)
        found.append(
            {
                "pairs": name,
                "entries": len(own),
                "self_play": interval(together, rate=metric in RATES),
                "cross_play": interval(crossed, rate=metric in RATES),
                "difference": interval(together - crossed),
            }
        )
    return found
