"""A benchmark's suite: which algorithms meet which environments, how often, and with what budget.

For `benchmark` and its command; `suite_file` reads them. A suite says all its runs, each checked down to its last
setting, so that nothing begins which cannot end. Nothing here runs.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collm_agents.config import Config, RunConfig
from collm_agents.meaning import Meaning, meaning_of
from collm_agents.models.places import resolve
from collm_agents.overrides import load_config
from collm_envs import spec
from collm_envs.errors import InputError

FINAL_TIMES = 10  # the last evaluation has as many times the episodes of the others
WARMSTART = "warmstart:"
WARMSTART_SIZES = ("small", "medium")  # of `models.warmstart`, which needs torch to be asked


@dataclass(frozen=True)
class Contender:
    """An algorithm with its settings, under a label."""

    label: str
    algorithm: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arena:
    """An environment in some forms: rewards and horizons are crossed.

    Attributes:
        env: id.
        reward: schedules; empty leaves it to settings, preset and environment.
        num_turns: horizons; empty likewise.
        settings: of its runs.
        presets: label of an algorithm -> preset that its runs begin with.
        budget: of its runs, where it is not the suite's.
    """

    env: str
    reward: tuple[str, ...] = ()
    num_turns: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    presets: Mapping[str, str] = field(default_factory=dict)
    budget: tuple[str, float] | None = None


def parse_warmstart(model: str) -> tuple[int, str]:
    """Seed and size of `warmstart:SEED` or `warmstart:SEED:SIZE`.

    Raises:
        InputError: for anything else.
    """
    sizes = "|".join(WARMSTART_SIZES)
    found = re.fullmatch(f"{WARMSTART}([0-9]+)(?::({sizes}))?", model)
    if not found:
        raise InputError(f"{model!r} is not {WARMSTART}SEED or {WARMSTART}SEED:SIZE, SIZE being {sizes}")
    return int(found[1]), found[2] or "small"


@dataclass(frozen=True)
class Run:
    """One training run of a suite.

    Attributes:
        environment: id.
        task: its form, such as `dense-h2`.
        algorithm: label.
        seed: of the run.
        settings: `section.key=value` of `collm train`, in order; `warmstart:SEED[:SIZE]` stands for a folder.
        preset: name, or empty.
        greedy: for each evaluation whether it is greedy; one record comes of each.
        meaning: what preset and settings come to, the same for all seeds.
    """

    environment: str
    task: str
    algorithm: str
    seed: int
    settings: tuple[str, ...]
    preset: str = ""
    greedy: tuple[bool, ...] = (False,)
    meaning: Meaning = field(default=Meaning(), compare=False)

    @property
    def key(self) -> str:
        """Its folder's name."""
        place = f"{self.environment}_{self.task}_{self.algorithm}_s{self.seed}"
        return re.sub(r"[^A-Za-z0-9=._+-]+", "-", place)

    @property
    def model(self) -> str:
        """The model that the suite chose; empty where it leaves the choice to settings and preset."""
        words = [word for word in self.settings if word.startswith("team.model=")]
        return words[-1].partition("=")[2] if words else ""

    def task_of(self, greedy: bool) -> str:
        """The form's name in records."""
        return f"{self.task}-greedy" if greedy else self.task


@dataclass(frozen=True)
class Suite:
    """A benchmark before it is run.

    Attributes:
        name: what its folder is called.
        seeds: of every combination.
        budget: (`joint_samples`, `tokens` or `wall_s`, how much) of every run.
        points: evaluations after the start.
        tasks: held-out tasks of each; the last one plays `FINAL_TIMES` as many episodes.
        greedy: whether evaluations are greedy, or both ways.
        settings: of all runs.
        models: starting points; empty leaves them to settings and presets.
        algorithms: what is compared.
        environments: on what.
        source: what messages call it.
    """

    name: str
    algorithms: tuple[Contender, ...]
    environments: tuple[Arena, ...]
    seeds: tuple[int, ...] = tuple(range(5))
    budget: tuple[str, float] = ("joint_samples", RunConfig.joint_samples)
    points: int = 8
    tasks: int = 64
    greedy: tuple[bool, ...] = (False,)
    settings: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    source: str = "command line"

    def runs(self) -> list[Run]:
        """All its runs, seed by seed: stopped early, what is there covers the whole as evenly as can be.

        Raises:
            InputError: for a setting that cannot be used, or two runs that could not be told apart.
        """
        found: dict[str, Run] = {}
        for run in sorted(self._cross(), key=lambda run: self.seeds.index(run.seed)):
            if run.key in found:
                raise InputError(
                    f"{self.source}: two runs of {run.environment}, {run.task}, {run.algorithm}, seed {run.seed}; "
                    "their settings have to differ, or one has to go"
                )
            found[run.key] = run
        return list(found.values())

    def rated_s(self, run: Run) -> float | None:
        """Seconds that a run may take on one core, by rates that were measured once; None where none was."""
        file = Path(__file__).parent / "suites" / "rates.json"
        rates = json.loads(file.read_text("utf-8"))
        words = dict(word.partition("=")[::2] for word in run.settings)
        rate = rates["environments"].get(run.environment)
        shipped = run.model in ("", "builtin") or (
            run.model.startswith(WARMSTART) and parse_warmstart(run.model)[1] == "small"
        )
        if rate is None or run.preset or not shipped:
            return None
        critic = words["algorithm.name"] != "mc"
        train_s = float(words.get("run.joint_samples", 0)) * rate["critic" if critic else "mc"]
        turns = int(re.findall(r"-h([0-9]+)", run.task)[0])
        if "run.wall_s" in words:
            train_s = float(words["run.wall_s"])
        elif "run.joint_samples" not in words:
            return None
        episodes = self.tasks * (self.points + FINAL_TIMES)
        return rates["start_s"] + train_s + episodes * turns * rate["episode_turn"] * len(self.greedy)

    def _cross(self) -> Iterator[Run]:
        places: Iterator[tuple[Any, ...]] = (
            (arena, contender, model, *form)
            for arena in self.environments
            for contender in self.algorithms
            for model in self.models or ("",)
            for form in itertools.product(arena.reward or ("",), arena.num_turns or (0,))
        )
        for arena, contender, model, reward, turns in places:
            settings = self._settings(arena, contender, model, reward, turns)
            preset = arena.presets.get(contender.label, "")
            config, meaning = self._resolved(arena, contender, settings, preset)
            task = self._label(arena, model, config)
            for seed in self.seeds:
                yield Run(
                    arena.env,
                    task,
                    contender.label,
                    seed,
                    (*settings, f"run.seed={seed}"),
                    preset,
                    self.greedy,
                    meaning,
                )

    def _settings(
        self, arena: Arena, contender: Contender, model: str, reward: str, turns: int
    ) -> tuple[str, ...]:
        unit, amount = arena.budget or self.budget
        last = FINAL_TIMES * self.tasks
        named = [f"env.reward={reward}"] * bool(reward) + [f"env.num_turns={turns}"] * bool(turns)
        named += [f"team.model={model}"] * bool(model)
        named += ["eval.greedy=true"] * (self.greedy == (True,)) + ["eval.greedy_too=true"] * (
            len(self.greedy) > 1
        )
        return (
            "run.threads=1",
            "track.tensorboard=false",
            "checkpoint.keep=1",
            *self.settings,
            *arena.settings,
            *contender.settings,
            f"algorithm.name={contender.algorithm}",
            *named,
            f"run.{unit}={amount:g}" if unit == "wall_s" else f"run.{unit}={int(amount)}",
            f"eval.points={self.points}",
            f"eval.tasks={self.tasks}",
            f"eval.final_tasks={self.tasks}",
            f"eval.final_episodes={last}",
        )

    def _resolved(
        self, arena: Arena, contender: Contender, settings: Sequence[str], preset: str
    ) -> tuple[Config, Meaning]:
        try:
            config = load_config(arena.env, presets=[preset] if preset else [], overrides=settings)
            for named in (
                config.team.model,
                config.critic.model,
                *(a.model for a in config.team.agents.values()),
            ):
                if named.startswith((".", "/", "~")):  # a folder, and none that the benchmark makes
                    resolve(named)
            return config, meaning_of(config)
        except InputError as error:
            told = str(error).removeprefix("command line: ")
            raise InputError(f"{self.source}: {arena.env} with {contender.label}: {told}") from error

    def _label(self, arena: Arena, model: str, config: Config) -> str:
        """Reward and horizon as they will be, and what else tells forms of one environment apart."""
        given, known = config.env_kwargs, spec(arena.env)
        form = {
            name: given.get(name, known.kwargs.get(name, known.settings()[name].default))
            for name in ("reward", "num_turns")
        }
        parts = [f"{form['reward']}-h{form['num_turns']}"]
        if len({other.settings for other in self.environments if other.env == arena.env}) > 1:
            parts += arena.settings
        if len(self.models) > 1:
            parts.append(model)
        return "-".join(parts)
