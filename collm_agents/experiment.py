"""`Experiment`: from a config to objects, and from objects to a run folder.

For the command line and for scripts. Everything that can be wrong with a config (an id, a setting, a file, a
model) is found before the run's folder is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collm_agents import checkpoint, runner
from collm_agents.advantages import Estimator
from collm_agents.algorithms import AlgorithmSpec, build_estimator, find_algorithm
from collm_agents.branching import resolve_branching, tree_size
from collm_agents.budget import Budget, read_budget
from collm_agents.callbacks import Callback, Callbacks, RunState, from_settings
from collm_agents.claim import check_folder, claimed, held_run
from collm_agents.clock import Clock
from collm_agents.collect import Collector
from collm_agents.combinations import check_training
from collm_agents.config import Config, resolved
from collm_agents.critic import Critic
from collm_agents.evaluate import Extent, Report, evaluate, evaluate_scripted, extent_of, held_out_env
from collm_agents.footprint import RehearsingTeam, rehearse
from collm_agents.learner import Learner
from collm_agents.memory import MemoryMeter, steady_heap
from collm_agents.models.backbone import Backbone
from collm_agents.models.loading import pick_device
from collm_agents.overrides import save_config
from collm_agents.plan import Plan
from collm_agents.recipe import Recipe
from collm_agents.results import Evaluations, stored_config, versions, write_result
from collm_agents.sides import Ask
from collm_agents.sites import check_sites
from collm_agents.team import AgentTeam
from collm_agents.tracking import Tracker, check_boards
from collm_agents.trainer import Progress, Trainer
from collm_envs import CollabEnv, SettingError, VecEnv, make
from collm_envs.scripted import parse_kinds


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and what its `result.json` holds."""

    run_dir: Path
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """What a run learns with."""

    team: AgentTeam
    critic: Critic | None
    learner: Learner
    clock: Clock


class Experiment:
    """One run of one algorithm on one environment.

    Args:
        config: the whole configuration.

    Raises:
        InputError: for anything in it that cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self.env: CollabEnv = make(config.env_id, **config.env_kwargs)
        self.config = config = resolved(config, self.env.reply_words, self.env.possible_agents)
        self.algorithm: AlgorithmSpec = find_algorithm(config.algorithm_name)
        self.estimator: Estimator = build_estimator(config.algorithm)
        schedule = self.env.schedule
        if schedule.resolved == "delta" and schedule.gamma != self.estimator.gamma:
            raise SettingError(
                f"env.gamma={schedule.gamma} but algorithm.gamma={self.estimator.gamma}: "
                "reward='delta' telescopes only under the learner's own discount"
            )
        self.device = pick_device(config.run.device)
        self.meter: MemoryMeter | None = None  # runs from when models are loaded
        needs = self.estimator.rollout_needs
        if config.rollout.joint_mode not in needs.joint_modes:
            raise SettingError(
                f"rollout.joint_mode={config.rollout.joint_mode!r} does not go with {self.algorithm.name}: "
                f"it takes {', '.join(needs.joint_modes)}"
            )
        self.branching = resolve_branching(
            config.rollout.branching, config.rollout.samples, needs.branching, self.env.num_turns
        )
        if self.branching[0] < needs.min_siblings:
            raise SettingError(
                f"{self.algorithm.name} with {self.estimator.variant!r} compares siblings: rollout.samples (or the "
                f"first number of rollout.branching) must be at least {needs.min_siblings}"
            )
        cross = config.rollout.joint_mode == "cross"
        self.tree_size = tree_size(
            self.branching, needs.greedy, len(self.env.possible_agents) if cross else 1
        )
        self.tasks_per_update = math.ceil(config.rollout.buffer / self.tree_size)
        self.specs, self.learners = self.recipe.specs, self.recipe.learners

    @property
    def variant(self) -> str:
        """Algorithm with what changes its estimate: named in every result."""
        shape = "x".join(map(str, self.branching))
        mode = "" if self.config.rollout.joint_mode == "aligned" else f", {self.config.rollout.joint_mode}"
        return f"{self.algorithm.name}[{self.estimator.variant}, branching {shape}{mode}]"

    # -- parts -----------------------------------------------------------------------------------------------

    def eval_env(self, overrides: Mapping[str, Any] | None = None) -> CollabEnv:
        """The environment on the held-out split."""
        return held_out_env(self.config, overrides)

    @property
    def recipe(self) -> Recipe:
        """What the run's models are."""
        return Recipe(
            self.config,
            tuple(self.env.possible_agents),
            self.env.num_turns,
            self.algorithm.view,
            self.algorithm.owners,
            self.device,
        )

    def critic_base(self) -> dict[str, tuple[str, str]]:
        """Member name -> (model, tuning) of the critics (`Recipe.critic_base`)."""
        return self.recipe.critic_base()

    def agent_base(self) -> dict[str, tuple[str, str]]:
        """Member name -> (model, tuning) of the agents (`Recipe.agent_base`)."""
        return self.recipe.agent_base()

    def check_training(self) -> None:
        """Raise an `InputError` where nothing could be trained with these settings."""
        check_boards(self.config.track)
        needs, count = self.estimator.rollout_needs, len(self.env.possible_agents)
        cross = self.config.rollout.joint_mode == "cross"
        least = tree_size(self.branching[:1], needs.greedy, count if cross else 1)
        updates = self.budget.updates(least, self.tasks_per_update)
        check_training(self.config, self.algorithm, self.learners, updates)
        check_sites(self.config, self.recipe)
        runner.check_runner(self.config)

    def build_team(self, protocol: str = "parallel", *, stored: bool = False) -> AgentTeam:
        """Load the agents' models, without a critic.

        Args:
            protocol: how the agents come to a joint reply.
            stored: all weights will come from a checkpoint, so those to begin with are not read.
        """
        recipe = self.recipe
        return recipe.team(recipe.backbones(recipe.agent_base()), protocol=protocol, stored=stored)

    def backbones(self, wanted: Mapping[str, tuple[str, str]]) -> dict[str, Backbone]:
        """Load models by member, and choose torch's threads for them."""
        return self.recipe.backbones(wanted)

    def build(self, *, stored: bool = False, rehearsal: bool = False) -> Built:
        """Load all models and make the learner.

        Args:
            stored: see `build_team`.
            rehearsal: without weights, for `footprint.rehearse`.
        """
        self.check_training()
        kind = RehearsingTeam if rehearsal else AgentTeam
        return self.assembled(
            *self.recipe.models(stored=stored or rehearsal, weightless=rehearsal, kind=kind)
        )

    def assembled(self, team: AgentTeam, critic: Critic | None, ask: Ask | None = None) -> Built:
        """A team and its critic with their learner; `ask` as for `Learner`."""
        team.clock = clock = Clock()
        return Built(
            team, critic, Learner(team, critic, self.estimator, self.config.learner, clock, ask=ask), clock
        )

    def collector(self, team: AgentTeam, clock: Clock, kind: type[Collector] = Collector) -> Collector:
        """What plays the training tasks."""
        return kind(
            VecEnv(self.env),
            team,
            self.branching,
            self.config.run.seed,
            joint_mode=self.config.rollout.joint_mode,
            greedy_sibling=self.estimator.rollout_needs.greedy,
            shard=self.config.runner.shard,
            clock=clock,
        )

    @property
    def budget(self) -> Budget:
        """How long the run trains."""
        return read_budget(self.config.run, len(self.env.tasks))

    def expected_samples(self) -> int:
        """Joint samples of the whole run: an upper bound where episodes may end early, 0 where nobody knows."""
        return self.budget.joint_samples(self.tree_size)

    def plan(self) -> Plan:
        """What `run` would do, from configurations and tokenizers alone: no weights are loaded."""
        self.check_training()
        samples = self.expected_samples()
        per_update = self.tasks_per_update * self.tree_size
        updates, learner = math.ceil(samples / per_update), self.config.learner
        return Plan(
            env=self.config.env_id,
            algorithm=self.variant,
            agents=self.agent_base(),
            critics=self.critic_base(),
            tasks=len(self.env.tasks),
            eval_tasks=len(self.eval_env().tasks),
            joint_samples=samples,
            budget="" if samples else str(self.budget),
            updates=updates,
            samples_per_update=per_update,
            optimizer_steps=updates * learner.update_epochs * min(learner.minibatches, self.tasks_per_update),
            memory=rehearse(self),
        )

    # -- runs ------------------------------------------------------------------------------------------------

    def run(self, callbacks: Sequence[Callback] = ()) -> RunResult:
        """Train, evaluate and write the run's folder.

        Args:
            callbacks: called along the run, beside those that the settings ask for.
        """
        check_folder(self.config)
        held_out = self.eval_env()
        for source in (self.env.tasks, held_out.tasks):
            for _ in source:  # every row is checked here, so that a bad one stops nothing that has begun
                pass
        steady_heap()
        self.meter = MemoryMeter(self.device)
        with runner.built(self) as made, claimed(self.config, self.algorithm.name) as run_dir:
            return self._train(run_dir, made, held_out, callbacks)

    @classmethod
    def resume(
        cls, run_dir: str | Path, overrides: Sequence[str] = (), callbacks: Sequence[Callback] = ()
    ) -> RunResult:
        """Go on with a run from its newest checkpoint; a longer budget may be given.

        Args:
            run_dir: the run's folder.
            overrides: `section.key=value`, such as a greater `run.joint_samples`.
            callbacks: as those the run was begun with; each gets back what it remembered at the checkpoint.
        """
        run_dir = Path(run_dir)
        experiment = cls(stored_config(run_dir, overrides))
        with held_run(run_dir):
            folder = checkpoint.newest_whole(run_dir)
            steady_heap()
            experiment.meter = MemoryMeter(experiment.device)
            held_out = experiment.eval_env()
            with runner.built(experiment, stored=True) as made:
                return experiment._train(run_dir, made, held_out, callbacks, folder)

    def _train(
        self,
        run_dir: Path,
        built: Built,
        held_out: CollabEnv,
        callbacks: Sequence[Callback],
        folder: Path | None = None,
    ) -> RunResult:
        """Train on from a checkpoint's folder, or from the beginning."""
        config, parts, progress = self.config, (built.team, built.critic, built.learner), Progress()
        judged, _ = extent_of(config.eval, held_out.tasks, config.eval.tasks)
        seen = RunState(run_dir, config, built.team, progress, len(judged))
        hooks = Callbacks(seen, [*from_settings(config), *callbacks])
        if folder is not None:
            progress = Progress(**checkpoint.load(folder, *parts))
            hooks.load_state_dict(checkpoint.callback_states(folder))
        reports = Evaluations(run_dir / "evaluations.json")
        tracker = Tracker(run_dir, config, self.expected_samples())
        if folder is not None:
            tracker.rewind(progress.joint_samples)
            reports.rewind(progress.joint_samples)
        save_config(config, run_dir / "config.toml")

        def judge(progress: Progress, edge: bool) -> None:
            count = config.eval.final_tasks if edge else config.eval.tasks
            extent = extent_of(config.eval, held_out.tasks, count, last=edge and progress.joint_samples > 0)
            report = self._evaluate(held_out, built.team, extent)
            if config.eval.greedy_too:
                report["greedy"] = self._evaluate(held_out, built.team, extent, greedy=True)
            reports.add(progress, report, edge)
            tracker.evaluation(report, progress.joint_samples)
            hooks.tell("on_evaluate", report)

        def save(state: dict[str, Any]) -> None:
            place = checkpoint.save(run_dir, *parts, state, config.checkpoint.keep, hooks.state_dict())
            hooks.tell("on_checkpoint", place)

        with tracker, runner.collecting(self, built) as collector:
            trainer = Trainer(
                collector,
                built.learner,
                self.env.tasks,
                seed=config.run.seed,
                tasks_per_update=self.tasks_per_update,
                budget=self.budget,
                eval_every=config.eval.every,
                eval_points=config.eval.points,
                save_every=config.checkpoint.every,
                evaluate=judge,
                save=save,
                tracker=tracker,
                clock=built.clock,
                callbacks=hooks,
                progress=progress,
            )
            tracker.open()
            done = trainer.run()
        made = {
            "algorithm": self.algorithm.name,
            "variant": self.variant,
            "stopped": seen.stopped,
            "peak_memory": self.meter.peak() if self.meter else None,
            "versions": versions(self.device),
        }
        tasks, _ = self._last_extent(held_out)
        return RunResult(run_dir, write_result(run_dir, config, done, reports, held_out, tasks, made))

    def evaluate_untrained(self, protocol: str = "parallel") -> Report:
        """Evaluate the team as its models come, such as the paper's prompting baselines.

        Args:
            protocol: how the agents come to a joint reply (`protocols.PROTOCOLS`).
        """
        team = self.build_team(protocol)
        env = self.eval_env()
        return self._evaluate(env, team, self._last_extent(env), protocol=protocol)

    def _last_extent(self, env: CollabEnv) -> Extent:
        return extent_of(self.config.eval, env.tasks, self.config.eval.final_tasks, last=True)

    def _evaluate(
        self,
        env: CollabEnv,
        team: AgentTeam,
        extent: Extent,
        *,
        greedy: bool = False,
        protocol: str = "parallel",
    ) -> Report:
        config, (tasks, samples) = self.config.eval, extent
        return evaluate(
            env,
            team,
            tasks,
            seed=config.seed,
            samples=samples,
            greedy=config.greedy or greedy,
            keep=self.config.track.samples,
            protocol=protocol,
        )

    @classmethod
    def evaluate(
        cls,
        run_dir: str | Path,
        *,
        checkpoint_at: int | str | None = None,
        overrides: Sequence[str] = (),
        scripted: str | Mapping[str, str] | None = None,
        protocol: str = "parallel",
    ) -> Report:
        """Evaluate a run's agents, or scripted ones in their place.

        Args:
            run_dir: the run's folder.
            checkpoint_at: joint samples of the checkpoint, or `best`; default the newest.
            overrides: such as `eval.greedy=true` or `env.num_turns=2`.
            scripted: `random`, `novice` or `oracle`, for all agents or by agent, or as text that `parse_kinds`
                reads: then no model is loaded.
            protocol: how the agents come to a joint reply (`protocols.PROTOCOLS`).
        """
        run_dir = Path(run_dir)
        experiment = cls(stored_config(run_dir, overrides))
        env = experiment.eval_env()
        config = experiment.config.eval
        if scripted is not None:
            tasks, _ = experiment._last_extent(env)
            kinds = parse_kinds(scripted, env.possible_agents) if isinstance(scripted, str) else scripted
            return evaluate_scripted(env, kinds, tasks, config.seed)
        folder = checkpoint.pick(run_dir, checkpoint_at)
        team = experiment.build_team(protocol, stored=True)
        checkpoint.load_team(folder, team)
        return experiment._evaluate(env, team, experiment._last_extent(env), protocol=protocol)
