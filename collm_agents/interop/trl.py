"""Our environments in TRL: data set, rollouts and reward for its `GRPOTrainer`.

For baselines of one policy. It plays one agent beside partners who stay as they are, or every agent of the team,
each from its own prompt. Several policies and critics, which TRL does not have, are this project's own trainer.

`EnvironmentBridge` gives three ways in, from the fastest: `reward` alone (one turn, one agent: TRL generates),
`rollout` (several turns or agents), `environment` (the model calls a tool to reply). Rows of one group share task,
seed and partners' draws, so they differ by the policy's replies alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from collm_agents.interop import need
from collm_envs import CollabEnv, EnvFault, InputError, Score, SettingError
from collm_envs.errors import suggest
from collm_envs.partners import Choice, Company, choose_partners

need("trl")

from datasets import Dataset  # noqa: E402

from collm_agents.chat import ChatFormat, History  # noqa: E402
from collm_agents.draws import derive  # noqa: E402

TOOL_HINT = "\n\nGive each of your replies by calling the tool `reply`; it returns what you see next."
OVER = "The episode is over."
RETURN = "episode_return"


@dataclass(frozen=True)
class Row:
    """One row of the data set: the episode that its completions play, and for whom.

    Attributes:
        task: index of the task.
        agent: whose replies are trained.
        seed: of the environment and of the partners' draws.
    """

    task: int
    agent: str
    seed: int


class EnvironmentBridge:
    """An environment for `GRPOTrainer`.

    Args:
        env: the environment; cloned for every episode, itself never stepped.
        policy: agents that the trained policy plays; default all. More than one needs `rollout`.
        partners: who plays the others (`collm_envs.partners`).
        tasks: how many tasks, from the first; default all.
        seed: episodes are seeded by it and the task.

    Raises:
        SettingError: for unknown agents or kinds, or an agent that nobody plays.
    """

    def __init__(
        self,
        env: CollabEnv,
        policy: str | Sequence[str] | None = None,
        *,
        partners: Choice | Mapping[str, Choice] | None = None,
        tasks: int | None = None,
        seed: int = 0,
    ) -> None:
        names = [policy] if isinstance(policy, str) else list(policy or env.possible_agents)
        for name in names:
            if name not in env.possible_agents:
                raise SettingError(f"{env.env_id} has no agent {name!r}{suggest(name, env.possible_agents)}")
        self.env = env
        self.policy = tuple(agent for agent in env.possible_agents if agent in names)
        self.partners = choose_partners(env, self.policy, partners)
        count = len(env.tasks) if tasks is None else tasks
        if not 1 <= count <= len(env.tasks):
            raise SettingError(f"tasks={tasks}: {env.env_id} has {len(env.tasks)} in {env.split!r}")
        self.rows = [Row(task, agent, derive(seed, task)) for task in range(count) for agent in self.policy]

    def dataset(self) -> Dataset:
        """One row per task and trained agent.

        Returns:
            Columns `prompt` (one chat message: the agent's first observation, and the row's number under
            `episode`), `episode` (the same number), `agent` and `task_id`.
        """
        found = []
        for number, row in enumerate(self.rows):
            game = self.begin(number)
            message = {"role": "user", "content": game.seen[row.agent], "episode": number}
            task = game.env.task
            found.append(
                {"prompt": [message], "episode": number, "agent": row.agent, "task_id": task and task.id}
            )
        return Dataset.from_list(found)

    def begin(self, number: int) -> Game:
        """A fresh episode of a row."""
        row, env = self.rows[number], self.env.clone()
        seen, _ = env.reset(seed=row.seed, options={"task": row.task})
        return Game(row.agent, env, dict(seen), Company(env, self.partners, seen, row.seed))

    def rollout(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list]:
        """Play a batch of episodes with the trainer's model: a `rollout_func`.

        A row trains one agent. Its completion holds that agent's replies of all turns and, between them, what it
        saw next, which `env_mask` leaves out of the loss. Where the policy plays several agents, the others'
        replies are drawn from it as well, each from its own history, and are not trained on in this row.

        Args:
            prompts: messages of `dataset` rows.
            trainer: a `GRPOTrainer`; its model, sampling settings and tokenizer are used.

        Returns:
            `prompt_ids`, `completion_ids`, `env_mask` (1 on own tokens) and `logprobs` (None without vLLM), one
            list per prompt, with `episode_return`, `score`, `success` and `turns` for the reward.

        Raises:
            InputError: for prompts of another data set, or what no longer fits the model's context.
        """
        games = [self.begin(number) for number in map(self._number, prompts)]
        form = ChatFormat(trainer.processing_class, multi_turn=self.env.num_turns > 1)
        limit = _context(trainer) - trainer.max_completion_length
        seats = [_Seat(game, agent, form, limit) for game in games for agent in self.policy]
        while any(game.live for game in games):
            asked = [seat for seat in seats if seat.game.live]
            ids, logprobs = trainer._generate_single_turn(
                [list(seat.memory.ids) for seat in asked], None, {}, 1
            )
            replies: dict[int, dict[str, str]] = {id(seat.game): {} for seat in asked}
            for i, seat in enumerate(asked):
                replies[id(seat.game)][seat.agent] = seat.say(ids[i], logprobs and logprobs[i])
            play(
                [game for game in games if game.live],
                [replies[id(game)] for game in games if game.live],
            )
            for seat in asked:
                if seat.game.live:
                    seat.see()
        own = [seat for seat in seats if seat.agent == seat.game.agent]
        return {
            "prompt_ids": [seat.prompt for seat in own],
            "completion_ids": [seat.completion for seat in own],
            "env_mask": [seat.mask for seat in own],
            "logprobs": [seat.logprobs for seat in own] if all(seat.drawn for seat in own) else None,  # type: ignore[dict-item]  # what TRL calls "none known"
            RETURN: [game.total for game in games],
            "score": [float(game.info["score"]) for game in games],
            "success": [float(game.info["success"]) for game in games],
            "turns": [int(game.info["turn"]) for game in games],
        }

    def reward(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Returns of the episodes: a reward function.

        After `rollout` they are known; otherwise a completion is the reply of its row's agent, and its episode is
        played now. Mean score and success are logged beside, where the trainer offers it.

        Args:
            prompts: of the rows.
            completions: texts, or lists of one message.
            columns: the data set's other columns, and what `rollout` added.

        Returns:
            The sum of each episode's rewards.

        Raises:
            InputError: when the episode has several turns or policy agents and no rollouts were made.
        """
        if RETURN in columns:
            returns, ends = list(columns[RETURN]), columns
        else:
            if self.env.num_turns > 1 or len(self.policy) > 1:
                raise InputError(
                    f"{self.env.env_id}: several turns or agents of the policy need rollout_func=bridge.rollout"
                )
            games = [self.begin(number) for number in map(self._number, prompts)]
            play(games, [{game.agent: _text(c)} for game, c in zip(games, completions, strict=True)])
            returns = [game.total for game in games]
            ends = {name: [float(game.info[name]) for game in games] for name in ("score", "success")}
        log: Callable[[str, float], None] | None = columns.get("log_metric")
        if log is not None:
            for name in ("score", "success"):
                log(f"collm/{name}", sum(ends[name]) / len(ends[name]))
        return returns

    def environment(self) -> ToolEpisode:
        """An episode played by tool calls; the method itself is an `environment_factory`.

        Raises:
            InputError: when the policy plays several agents: TRL generates for one.
        """
        if len(self.policy) > 1:
            raise InputError(
                f"an environment_factory has one agent; the policy plays {', '.join(self.policy)}"
            )
        return ToolEpisode(self)

    def _number(self, prompt: Any) -> int:
        message = prompt[-1] if isinstance(prompt, Sequence) and len(prompt) else None
        number = message.get("episode") if isinstance(message, Mapping) else None
        if not isinstance(number, int) or not 0 <= number < len(self.rows):
            raise InputError("a prompt without its episode's number: train on the rows of bridge.dataset()")
        return number


@dataclass
class Game:
    """An episode being played: its environment, what agents last saw, and what has been paid."""

    agent: str
    env: CollabEnv
    seen: dict[str, str]
    company: Company
    total: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether a turn is left to play."""
        return bool(self.env.agents)


def play(games: Sequence[Game], replies: Sequence[Mapping[str, str]]) -> None:
    """Play one turn of several episodes; slow judges work on all of them at once.

    Args:
        games: live episodes.
        replies: the policy's replies by agent, for each.
    """
    judged: list[Score | Future[Score]] = []
    for game, said in zip(games, replies, strict=True):
        judged.append(game.env.submit({**said, **game.company.replies()}))
    for game, score in zip(games, judged, strict=True):
        seen, rewards, _, _, infos = game.env.resolve(score)
        game.company.observe(seen)
        game.seen, game.info = seen, infos[game.agent]
        game.total += rewards[game.agent]


class _Seat:
    """One agent of the policy in one episode: its memory, and the row of tokens that becomes of it."""

    def __init__(self, game: Game, agent: str, form: ChatFormat, limit: int) -> None:
        self.game, self.agent, self.form, self.limit = game, agent, form, limit
        self.memory = self._observed(History())
        self.prompt = list(self.memory.ids)
        self.completion: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.drawn = True

    def say(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> str:
        self.memory = self.memory.reply(ids)
        self._extend(ids, 1, logprobs)
        return self.form.decode(ids)

    def see(self) -> None:
        before = len(self.memory.ids)
        self.memory = self._observed(self.memory)
        self._extend(self.memory.ids[before:], 0, [0.0] * (len(self.memory.ids) - before))

    def _extend(self, ids: Sequence[int], own: int, logprobs: Sequence[float] | None) -> None:
        self.completion += ids
        self.mask += [own] * len(ids)
        self.drawn = self.drawn and logprobs is not None
        self.logprobs += logprobs or []

    def _observed(self, memory: History) -> History:
        seen = memory.observe(self.game.seen[self.agent], self.form, self.limit, "stop")
        if seen is None:
            env = self.game.env
            raise InputError(
                f"{env.env_id}, task {env.task and env.task.id!r}, turn {env.turn}: what {self.agent} has seen "
                f"leaves no room for max_completion_length tokens (limit {self.limit} before a reply)"
            )
        return seen


class ToolEpisode:
    """An episode that a model plays by calling `reply`; TRL keeps and resets these by itself.

    Args:
        bridge: whose rows are played.
    """

    def __init__(self, bridge: EnvironmentBridge) -> None:
        self._bridge = bridge
        self._game: Game | None = None
        self._fault: EnvFault | None = None

    def reset(self, episode: int | None = None, **columns: Any) -> str:
        """Begin the episode of a row of `dataset`; what it returns TRL puts behind the prompt."""
        if episode is None:
            raise InputError(
                "a group shares its episode, so the rows come from train_dataset=bridge.dataset()"
            )
        self._game, self._fault = self._bridge.begin(self._bridge._number([{"episode": episode}])), None
        return TOOL_HINT

    def reply(self, text: str) -> str:
        """Give your reply of this turn.

        Args:
            text: The reply.

        Returns:
            What you see next.
        """
        game = self._playing()
        if not game.live:
            return OVER
        try:
            play([game], [{game.agent: text if isinstance(text, str) else str(text)}])
        except EnvFault as fault:  # TRL would tell the model and go on
            self._fault = fault
            return OVER
        return game.seen[game.agent] if game.live else OVER

    def get_reward(self) -> float:
        """The sum of rewards; turns that were not played are played with empty replies.

        Raises:
            EnvFault: when a partner, the environment or its judge failed in this episode.
        """
        game = self._playing()
        while game.live and self._fault is None:
            play([game], [{game.agent: ""}])
        if self._fault is not None:
            raise self._fault
        return game.total

    def _playing(self) -> Game:
        if self._game is None:
            raise InputError("reset comes first")
        return self._game


def _context(trainer: Any) -> int:
    return int(getattr(trainer.model.config, "max_position_embeddings", None) or 2**31)


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]
