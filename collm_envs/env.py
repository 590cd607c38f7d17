"""`CollabEnv`: PettingZoo's parallel API around three hooks.

For task authors: subclass, write `begin`, `prompt` and `advance`, name the reward components, register. The
base class keeps the books: the current task, the turn, the seeded generator, the joint history, the reward
schedule, and who has ended. It knows nothing of tokens, models or learning.

The hooks and their contracts are in `hooks`; `check_env` tests that they are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from pettingzoo import ParallelEnv

from collm_envs.errors import (
    CollmError,
    EnvFault,
    SettingError,
    require_choice,
    require_count,
    require_role,
    suggest,
)
from collm_envs.history import cut_middle, encodable, entry, terminal_safe
from collm_envs.hooks import TaskHooks
from collm_envs.reward import RewardModel, Schedule, Score
from collm_envs.scripted import KINDS, random_reply
from collm_envs.spaces import UnicodeText
from collm_envs.task import Row, RowFormat, Task, TaskSource, load_source

FORMULAS = ("paper", "release")


class CollabEnv(TaskHooks, ParallelEnv[str, str, str]):
    """A collaborative text task in which all agents reply at once and are paid one joint reward.

    Subclasses set the class attributes and write the hooks `begin`, `prompt` and `advance`. A slow judge
    (a sandbox) overrides `judge` to return a future; feedback that needs the score overrides `settle`.

    Args:
        num_agents: how many agents play; 1 is the single-agent form of the task.
        num_turns: turn limit. It belongs to the task, so reaching it terminates the episode.
        reward: schedule, one of `dense`, `sparse`, `final`, `outcome`, `delta` (see `reward.Schedule`).
        gamma: discount for `reward="delta"` only.
        formula: `paper` or `release` scoring, where the two differ.
        feedback: what a later turn's observation says; one of `feedback_modes`.
        success_at: fraction of the greatest score that counts as solved, where the env has no own predicate.
        rewards: weight by component name; 0 leaves one out.
        source: where tasks come from (see `task`).
        split: which of them, such as `train[:1000]`.
        render_mode: `ansi` (text) or `human` (printed), or None.
        max_observation_chars: longer observations are cut in their middle and flagged in `infos`.
        max_reply_chars: longer replies are cut at the end and flagged in `infos`.
        max_cycles: an outside limit in turns, of which the agents know nothing: reaching it truncates the
            episode. None or -1 for no such limit (PettingZoo's name and meaning).

    Raises:
        SettingError: for values out of range.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "collab",
        "render_modes": ["ansi", "human"],
        "is_parallelizable": True,
        "render_fps": 1,
    }
    env_id: str = "unregistered"
    agent_counts: ClassVar[Sequence[int]] = (2,)
    feedback_modes: ClassVar[Sequence[str]] = ("plain",)
    row_formats: ClassVar[Sequence[RowFormat]] = ()
    builtin_splits: ClassVar[Sequence[str]] = ("train", "test")
    hub_dataset: ClassVar[str | None] = None
    reply_words: int | None = None
    """Words of the longest reply that can be of use, where it is short: trainers may limit replies by it."""

    def __init__(
        self,
        *,
        num_agents: int = 2,
        num_turns: int = 1,
        reward: str = "dense",
        gamma: float | None = None,
        formula: str = "paper",
        feedback: str | None = None,
        success_at: float = 0.95,
        rewards: Mapping[str, float] | None = None,
        source: str = "builtin",
        split: str = "train",
        render_mode: str | None = None,
        max_observation_chars: int = 20_000,
        max_reply_chars: int = 20_000,
        max_cycles: int | None = None,
    ) -> None:
        for name, value in (
            ("num_agents", num_agents),
            ("num_turns", num_turns),
            ("max_observation_chars", max_observation_chars),
            ("max_reply_chars", max_reply_chars),
        ):
            require_count(name, value)
        if max_cycles not in (None, -1):
            require_count("max_cycles", max_cycles)
        feedback = self.feedback_modes[0] if feedback is None else feedback
        for name, chosen, options in (
            ("num_agents", num_agents, self.agent_counts),
            ("formula", formula, FORMULAS),
            ("feedback", feedback, self.feedback_modes),
            ("render_mode", render_mode, (None, *self.metadata["render_modes"])),
        ):
            require_choice(name, chosen, options, self.env_id)
        self.num_turns, self.formula, self.feedback = num_turns, formula, feedback
        self.render_mode, self.max_cycles = render_mode, max_cycles
        self.source, self.split = source, split
        self.max_observation_chars, self.max_reply_chars = max_observation_chars, max_reply_chars
        self.possible_agents = list(self.roles(num_agents))
        for role in self.possible_agents:
            require_role(role)
        self.agents: list[str] = []
        self.reward_model = RewardModel(
            self.components(),
            weights=rewards,
            success=self.success_rule(),
            success_at=success_at,
            measure=self.measure,
        )
        self.schedule = Schedule(reward, self.reward_model.high, num_turns, gamma)
        space = {a: UnicodeText(max_observation_chars) for a in self.possible_agents}
        self.observation_spaces: dict[str, Any] = space
        self.action_spaces: dict[str, Any] = {a: UnicodeText(max_reply_chars) for a in self.possible_agents}
        self.np_random = np.random.default_rng()
        self._tasks: TaskSource | None = None
        self.task: Task | None = None
        self.turn = 0
        self._state: Any = None
        self._history = ""
        self._score: Score | None = None
        self._pending: tuple[Any, Any, dict[str, str], dict[str, bool]] | None = None

    # -- PettingZoo ------------------------------------------------------------------------------------------

    def observation_space(self, agent: str) -> UnicodeText:
        """The agent's observation space: the same object at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> UnicodeText:
        """The agent's action space: the same object at every call."""
        return self.action_spaces[agent]

    @property
    def tasks(self) -> TaskSource:
        """The tasks of `source` and `split`, opened at first use."""
        if self._tasks is None:
            self._tasks = load_source(
                self.source, self.split, self.row_formats, builtin=self._builtin, hub=self.hub_dataset
            )
        return self._tasks

    def _builtin(self, split: str) -> Sequence[Row]:
        if split not in self.builtin_splits:
            known = ", ".join(self.builtin_splits)
            raise SettingError(f"{self.env_id} has built-in tasks of the splits {known}, not {split!r}")
        return self.builtin_rows(split)

    @property
    def high(self) -> float:
        """Greatest score of a turn."""
        return self.reward_model.high

    @property
    def low(self) -> float:
        """Least score of a turn."""
        return self.reward_model.low

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict]]:
        """Start an episode.

        Args:
            seed: reseeds the environment's own generator; None goes on with it.
            options: `{"task": Task | int}` picks the task, else one is drawn. Other keys are ignored.

        Returns:
            Observations and infos by agent; an info holds `task_id` and `turn`.
        """
        if seed is not None:
            self.np_random = np.random.default_rng(seed)
        self.agents, self._pending = [], None  # nobody is live until the new episode has begun
        self.task = self._pick_task((options or {}).get("task"))
        self.turn, self._history, self._score = 0, "", None
        self._state = self._hook("begin", self.begin, self.task, self.np_random)
        self.agents = list(self.possible_agents)
        with self._over_on_fault():
            observations, cut = self._observe()
        infos = {a: {"task_id": self.task.id, "turn": 0, "observation_cut": cut[a]} for a in self.agents}
        return observations, infos

    def step(self, actions: Mapping[str, str]) -> tuple[dict, dict, dict, dict, dict]:
        """Play one turn; see `submit` and `resolve`, which it joins.

        Args:
            actions: the reply of every live agent.

        Returns:
            Observations, rewards, terminations, truncations and infos by agent.
        """
        return self.resolve(self.submit(actions))

    def submit(self, actions: Mapping[str, str]) -> Score | Future[Score]:
        """First half of a step: apply the joint action and hand the outcome to the judge.

        Returns:
            The score, or a future of it, to be passed to `resolve`.
        """
        if not self.agents or self._pending is not None:
            idle = "the episode has ended or never began; call reset"
            why = "a turn is being judged" if self._pending else idle
            raise EnvFault(why, env_id=self.env_id, task_id=self._task_id(), turn=self.turn)
        replies, cut = self._read_replies(actions)
        with self._over_on_fault():
            state, outcome = self._hook("advance", self._advance, self._state, replies)
            judged = self._hook("judge", self.judge, outcome)
        self._pending = (state, outcome, replies, cut)
        return judged

    def resolve(self, judged: Score | Future[Score]) -> tuple[dict, dict, dict, dict, dict]:
        """Second half of a step: wait for the score if need be, pay the reward, observe the new state.

        Raises:
            EnvFault: when the judge failed or its score is out of range. The episode is then over for good:
                a fault is never scored.
        """
        if self._pending is None:
            raise EnvFault("resolve() without submit()", env_id=self.env_id, turn=self.turn)
        pending, self._pending = self._pending, None
        with self._over_on_fault():
            return self._close_turn(judged, *pending)

    def _close_turn(
        self,
        judged: Score | Future[Score],
        state: Any,
        outcome: Any,
        replies: Mapping[str, str],
        cut: Mapping[str, bool],
    ) -> tuple[dict, dict, dict, dict, dict]:
        score = self._hook("judge", judged.result) if isinstance(judged, Future) else judged
        self._check_score(score)
        self._state = self._hook("settle", self.settle, state, outcome, score)
        for agent in self.agents:
            self._history += entry(agent, self.turn, "says", replies[agent])
        previous = self._score.total if self._score else 0.0
        self._score = score
        self.turn += 1
        over = score.success or self.turn >= self.num_turns
        reward = self.schedule.pay(score.total, previous, last=over, success=score.success)
        live = self.agents
        stopped = not over and self.max_cycles not in (None, -1) and self.turn >= (self.max_cycles or 0)
        if over:
            observations, seen_cut = dict.fromkeys(live, ""), dict.fromkeys(live, False)
        else:  # an episode cut from outside is observed once more: critics bootstrap from there
            observations, seen_cut = self._observe()
        if over or stopped:
            self.agents = []
        infos = {
            a: {
                "task_id": self.task.id if self.task else None,
                "turn": self.turn,
                "score": score.total,
                "success": score.success,
                "reward_parts": dict(score.parts),
                "metrics": dict(score.metrics),
                "reply": replies[a],
                "reply_cut": cut[a],
                "observation_cut": seen_cut[a],
            }
            for a in live
        }
        ended, truncated = dict.fromkeys(live, over), dict.fromkeys(live, stopped)
        return observations, dict.fromkeys(live, reward), ended, truncated, infos

    def state(self) -> str:  # PettingZoo types it as an array; ours is text
        """The joint history so far: every observation and reply in order, labelled by role. Append-only."""
        return self._history

    def global_info(self) -> dict[str, float]:
        """What a critic may be told beside the history (the paper's m_t, section 5).

        Returns:
            `turn` and `horizon` in turns, `score` (the last one, 0 before any) and `high`.
        """
        score = self._score.total if self._score else 0.0
        return {"turn": self.turn, "horizon": self.num_turns, "score": score, "high": self.high}

    def clone(self) -> CollabEnv:
        """An independent copy at the same point of the episode, generator included.

        States are shared, since hooks do not change them; spaces are the clone's own.
        """
        if self._pending is not None:
            raise EnvFault("clone() while a turn is being judged", env_id=self.env_id, turn=self.turn)
        twin = copy.copy(self)
        twin._tasks = self._tasks
        twin.agents = list(self.agents)
        twin.possible_agents = list(self.possible_agents)
        twin.np_random = copy.deepcopy(self.np_random)
        twin.observation_spaces = copy.deepcopy(self.observation_spaces)
        twin.action_spaces = copy.deepcopy(self.action_spaces)
        return twin

    @property
    def scripted_kinds(self) -> tuple[str, ...]:
        """Scripted agents that this environment has."""
        written = [k for k in ("novice", "oracle") if getattr(type(self), k) is not getattr(CollabEnv, k)]
        return ("random", *written)

    def scripted(self, kind: str, agent: str, rng: np.random.Generator) -> str:
        """The reply of a scripted agent at this point.

        Args:
            kind: `random`, `novice` or `oracle`.
            agent: who replies.
            rng: the script's own generator.
        """
        if kind == "random":
            return random_reply(self._hook("prompt", self.prompt, self._state, agent, agent=agent), rng)
        script = {"novice": self.novice, "oracle": self.oracle}.get(kind)
        if script is None:
            raise SettingError(f"unknown scripted agent {kind!r}{suggest(kind, KINDS)}")
        return self._hook(kind, script, self._state, agent, rng, agent=agent)

    def render(self) -> str | None:
        """The joint history as text: returned in `ansi` mode, printed in `human` mode.

        Control characters in what agents wrote are written out.
        """
        if self.render_mode is None:
            return None
        text = terminal_safe(self._history)
        if self._score is not None:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in self._score.parts.items())
            text += f"score {self._score.total:.2f} of {self.high:.2f} ({parts})\n"
        if self.render_mode == "ansi":
            return text
        print(text)  # noqa: T201  # what `human` means
        return None

    def look(self) -> str:
        """A drawing of the present state as lines of terminal text; "" where there is nothing to draw."""
        return ""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tasks": None}  # the source is opened again where it is needed

    # -- bookkeeping -----------------------------------------------------------------------------------------

    def _observe(self) -> tuple[dict[str, str], dict[str, bool]]:
        observations, cut = {}, {}
        for agent in self.agents:
            text = self._hook("prompt", self.prompt, self._state, agent, agent=agent)
            if not isinstance(text, str):
                raise self._fault("prompt", TypeError(f"returned {type(text).__name__}, not str"), agent)
            text = encodable(text)
            observations[agent] = cut_middle(text, self.max_observation_chars)
            cut[agent] = observations[agent] != text
            self._history += entry(agent, self.turn, "sees", observations[agent])
        return observations, cut

    def _pick_task(self, chosen: Any) -> Task:
        if chosen is None:
            chosen = int(self.np_random.integers(len(self.tasks)))
        if isinstance(chosen, Task):
            return chosen
        if not isinstance(chosen, (int, np.integer)) or isinstance(chosen, bool):
            raise SettingError(f"options['task'] must be a Task or an index, not {chosen!r}")
        if not -len(self.tasks) <= chosen < len(self.tasks):
            raise SettingError(f"no task {chosen}: {self.tasks.name} has {len(self.tasks)} in {self.split!r}")
        return self.tasks[int(chosen)]

    def _advance(self, state: Any, replies: Mapping[str, str]) -> tuple[Any, Any]:
        state, outcome = self.advance(state, replies)
        return state, outcome

    def _read_replies(self, actions: Mapping[str, str]) -> tuple[dict[str, str], dict[str, bool]]:
        unknown = [name for name in actions if name not in self.possible_agents]
        if unknown:
            hint = suggest(str(unknown[0]), self.possible_agents)
            raise SettingError(f"{self.env_id} has no agent {unknown[0]!r}{hint}")
        replies, cut = {}, {}
        for agent in self.agents:
            text = actions.get(agent)
            if not isinstance(text, str):
                what = "gave no reply" if text is None else f"replied with {type(text).__name__}, not str"
                raise EnvFault(what, env_id=self.env_id, task_id=self._task_id(), turn=self.turn, agent=agent)
            replies[agent] = encodable(text[: self.max_reply_chars])
            cut[agent] = len(text) > self.max_reply_chars
        return replies, cut

    def _check_score(self, score: Score) -> None:
        if not isinstance(score, Score):
            raise self._fault("judge", TypeError(f"gave {type(score).__name__}, not Score"))
        if not math.isfinite(score.total) or not self.low - 1e-6 <= score.total <= self.high + 1e-6:
            wrong = ValueError(f"score {score.total} outside [{self.low:.4g}, {self.high:.4g}]")
            raise self._fault("judge", wrong)
        for name, value in (*score.parts.items(), *score.metrics.items()):
            if not math.isfinite(value):
                raise self._fault("judge", ValueError(f"{name} is {value}; leave out what does not apply"))

    @contextmanager
    def _over_on_fault(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.agents, self._pending = [], None
            raise

    def _task_id(self) -> str | None:
        return self.task.id if self.task else None

    def _fault(self, where: str, error: BaseException, agent: str | None = None) -> EnvFault:
        what = f"{where}() raised {type(error).__name__}: {error}"
        return EnvFault(what, env_id=self.env_id, task_id=self._task_id(), turn=self.turn, agent=agent)

    def _hook(self, name: str, hook: Callable, *args: Any, agent: str | None = None) -> Any:
        try:
            return hook(*args)
        except EnvFault:
            raise
        except CollmError as error:
            if (
                name == "judge"
            ):  # what the tests or the sandbox lack is this task's fault, not the user's words
                raise self._fault(name, error, agent) from error
            raise
        except Exception as error:
            raise self._fault(name, error, agent) from error
