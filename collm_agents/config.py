"""Every setting of a run, declared once, with its default, its limits and a line of doc.

For readers of configs and writers of code alike: `overrides.py` fills these dataclasses from TOML files and
`section.key=value`, `collm train --help` prints them, and each run saves the resolved whole as `config.toml`.
The sections `env` and `algorithm` are open: their settings are the keyword arguments of the chosen environment
and the fields of the chosen estimator. No torch here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collm_agents.config_places import PlacementConfig, RemoteConfig, RunnerConfig
from collm_agents.sections import Section, check_limits, setting
from collm_envs.errors import SettingError

DEFAULT_ALGORITHM = "collm-cc"


@dataclass(frozen=True)
class RunConfig(Section):
    """The run as a whole: budget, seed, place."""

    _where = "run"
    seed: int = setting(0, "seed that all random draws of the run are derived from", low=0)
    joint_samples: int = setting(
        6400,
        "training budget: joint actions scored by the environment; or one of the next three",
        low=0,
    )
    task_passes: float = setting(0.0, "training budget in passes over the tasks", low=0)
    tokens: int = setting(
        0, "training budget in reply tokens drawn in training, those of all agents together", low=0
    )
    wall_s: float = setting(
        0.0,
        "training budget in seconds, over all parts of a resumed run; evaluations, checkpoints and loading "
        "are not counted",
        low=0,
    )
    patience: int = setting(
        0,
        "early stopping: evaluations in a row with no better `eval.monitor`, after which the run ends; 0 is off",
        low=0,
    )
    min_delta: float = setting(
        0.0, "how much greater a mean has to be to count as better for patience", low=0
    )
    out: str = setting("", "folder of the run; default runs/<env>-<algorithm>-s<seed>")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    threads: int = setting(
        0,
        "CPU threads of torch; 0: one where models have a few million parameters, else torch's choice",
        low=0,
        high=1024,
    )


@dataclass(frozen=True)
class SamplingConfig(Section):
    """How replies are drawn."""

    _where = "team.sampling"
    temperature: float = setting(1.0, "softmax temperature, in sampling and teacher forcing alike", above=0)
    top_p: float = setting(1.0, "nucleus: least probability mass kept; 1 keeps all", above=0, high=1)
    top_k: int = setting(0, "number of likeliest tokens kept; 0 keeps all", low=0)
    max_new_tokens: int = setting(
        0, "longest reply, in tokens, the end token included; 0: 40 for the built-in model, else 256", low=0
    )


@dataclass(frozen=True)
class LoraConfig(Section):
    """Size of the adapters where `tuning="lora"`."""

    _where = "team.lora"
    rank: int = setting(16, "rank of the adapters", low=1)
    alpha: float = setting(32.0, "scale numerator: updates are scaled by alpha / rank", above=0)
    target_modules: str = setting(
        "all-linear", "modules that get adapters: all-linear, or names joined by commas"
    )


@dataclass(frozen=True)
class AgentConfig(Section):
    """What one agent does otherwise than the team; empty fields follow the team."""

    _where = "team.agents"
    model: str = setting("", "this agent's base model")
    tuning: str = setting("", "this agent's tuning", choices=("", "auto", "lora", "full"))
    trainable: bool = setting(True, "false: a teammate that never learns")
    weights: str = setting(
        "", "folder of saved weights to begin with, such as runs/NAME/checkpoints/N/agents/ROLE"
    )
    script: str = setting(
        "",
        "a scripted teammate in place of a model: random, novice or oracle",
        choices=("", "random", "novice", "oracle"),
    )


@dataclass(frozen=True)
class TeamConfig(Section):
    """The agents' models."""

    _where = "team"
    model: str = setting(
        "builtin",
        "builtin, builtin:FOLDER (from `python -m collm_agents.models.warmstart`), or a Hugging Face causal LM "
        "by name or folder",
    )
    tuning: str = setting(
        "auto", "lora (adapters on one frozen base), full (own copy each), auto (full for builtin, else lora)",
        choices=("auto", "lora", "full"),
    )  # fmt: skip
    dtype: str = setting(
        "auto",
        "computation: auto (bfloat16 on an accelerator, else float32) or as named; trained weights are float32",
        choices=("auto", "float32", "bfloat16"),
    )
    template: str = setting("auto", "auto: the tokenizer's chat template where it has one; none: plain text",
                            choices=("auto", "none"))  # fmt: skip
    enable_thinking: bool = setting(False, "passed to chat templates that know it (Qwen3)")
    rewriting_template: str = setting(
        "error",
        "for templates that rewrite past turns: error, or keep (past turns stay as they were generated)",
        choices=("error", "keep"),
    )
    shared: bool = setting(False, "one set of trained weights for all agents (parameter sharing)")
    prompt_overflow: str = setting(
        "clip",
        "a prompt too long for the context: clip (cut its newest observation in the middle), stop (truncate the "
        "episode) or error",
        choices=("clip", "stop", "error"),
    )
    max_context: int = setting(0, "context length in tokens; 0 takes the model's", low=0)
    kv_budget: int = setting(
        4096,
        "memory, in MB, for keys and values of past turns, which later turns go on from; 0 keeps none",
        low=0,
    )
    cuda_graphs: str = setting(
        "auto",
        "decode steps as CUDA graphs: auto (on CUDA; where a model's cannot be recorded the log says so), true (an "
        "error where they cannot be) or false",
        choices=("auto", "true", "false"),
    )
    sampling: SamplingConfig = setting(SamplingConfig(), "how replies are drawn")
    lora: LoraConfig = setting(LoraConfig(), "size of the adapters")
    agents: Mapping[str, AgentConfig] = setting({}, "what single agents do otherwise, by agent name")


@dataclass(frozen=True)
class CriticConfig(Section):
    """The critic's model, for algorithms that have one; others do not read it."""

    _where = "critic"
    model: str = setting(
        "",
        "base model; default: that of the first agent that learns (the agent's own, for one critic per agent)",
    )
    tuning: str = setting("auto", "lora, full, or auto as for the team", choices=("auto", "lora", "full"))
    share_backbone: bool = setting(
        False,
        "collm-dc: a value head on each agent's own model; cheaper, but the critic's steps move the agent",
    )
    global_info: bool = setting(True, "append turn and last score to the critic's text (the paper's m_t)")


@dataclass(frozen=True)
class RolloutConfig(Section):
    """What is sampled for one update."""

    _where = "rollout"
    samples: int = setting(4, "K, joint replies drawn per decision point", low=1)
    branching: str | Sequence[int] = setting(
        "auto",
        "tree (K at every turn), paths (K at the first, then 1), a list per turn, auto (the algorithm's)",
    )
    joint_mode: str = setting(
        "aligned",
        "how replies pair up: aligned (g-th with g-th) or cross (all K^agents combinations; alike for one agent)",
        choices=("aligned", "cross"),
    )
    buffer: int = setting(64, "joint samples per update, rounded up to whole tasks", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.branching, str):
            check_limits("rollout.branching", self.branching, {"choices": ("auto", "tree", "paths")})
        elif not self.branching or min(self.branching) < 1:
            raise SettingError("rollout.branching as a list needs one whole number >= 1 per turn")


@dataclass(frozen=True)
class LearnerConfig(Section):
    """How rollouts become updates."""

    _where = "learner"
    lr: float = setting(
        0.0,
        "learning rate of the agents; 0: 5e-4 for the built-in model, else 5e-5 (lora) or 5e-6 (full)",
        low=0,
    )
    critic_lr: float = setting(
        0.0,
        "learning rate of the critic; 0: 1e-3 for the built-in model, else 3e-5 (lora) or 3e-6 (full)",
        low=0,
    )
    weight_decay: float = setting(0.0, "decoupled weight decay", low=0)
    optimizer: str = setting(
        "adamw",
        "adamw; adamw8bit (moments in 8 bits, with bitsandbytes on an accelerator); adafactor (almost no memory)",
        choices=("adamw", "adamw8bit", "adafactor"),
    )
    lr_schedule: str = setting(
        "auto",
        "course of all learning rates over the budget: constant (the paper), linear or cosine down to lr_end; "
        "auto: linear for the built-in model, else constant",
        choices=("auto", "constant", "linear", "cosine"),
    )
    lr_end: float = setting(0.0, "where linear and cosine end, as a share of the rates", low=0, high=1)
    lr_warmup: int = setting(0, "first updates, over which learning rates rise from 0", low=0)
    update_epochs: int = setting(2, "passes over a buffer", low=1)
    critic_epochs: int = setting(2, "passes of the critic over a buffer", low=1)
    minibatches: int = setting(
        1, "parts a buffer is split into by whole trees, one optimizer step each", low=1
    )
    ratio: str = setting(
        "token",
        "importance ratio to the policy that sampled: none, sequence (the paper), token",
        choices=("none", "sequence", "token"),
    )
    old_logprobs: str = setting(
        "auto",
        "what ratios are over: computed (log-probs of the present weights, before they learn), sampled (those that "
        "were noted when the replies were drawn); auto: sampled with runner.staleness, else computed",
        choices=("auto", "computed", "sampled"),
    )
    clip: float = setting(0.2, "ratio clip (PPO style); 0 is off; ratio=none has nothing to clip", low=0)
    advantage_norm: str = setting(
        "auto",
        "auto (the algorithm's), none, batch (centred and scaled turn by turn), agent_turn (by agent and turn)",
        choices=("auto", "none", "batch", "agent_turn"),
    )
    advantage_clip: float = setting(0.0, "largest advantage in absolute value; 0 is off", low=0)
    reduction: str = setting(
        "sum",
        "a reply's log-prob: sum of its tokens (the paper), or token_mean",
        choices=("sum", "token_mean"),
    )
    turn_weight: str = setting(
        "uniform", "weight of a turn: uniform, or discounted (gamma^t)", choices=("uniform", "discounted")
    )
    kl_coef: float = setting(
        0.0, "weight of the divergence from the untrained base (k3 estimate per token); 0 is off", low=0
    )
    entropy_coef: float = setting(0.0, "weight of the entropy bonus per token; 0 is off", low=0)
    mask_truncated_replies: bool = setting(False, "leave replies cut by the token limit out of the loss")
    value_coef: float = setting(0.6, "scale of the critic's loss", above=0)
    value_clip: float = setting(
        0.0, "furthest a value may move from its rollout's and still gain, from pass two on; 0 is off", low=0
    )
    value_norm: bool = setting(
        False,
        "let critics learn targets in units of their running deviation, values kept as they are (PopArt)",
    )
    value_targets: str = setting(
        "frozen",
        "targets of the critic's passes: frozen at rollout, or refreshed before each pass after the first",
        choices=("frozen", "refreshed"),
    )
    critic_warmup: int = setting(0, "first updates, in which only the critic learns", low=0)
    max_grad_norm: float = setting(1.0, "gradient norm clip per agent and critic; 0 is off", low=0)
    microbatch_tokens: int = setting(
        0,
        "most tokens in one forward pass; does not change the result; 0: 2048 on a CPU, 8192 on an accelerator",
        low=0,
    )
    gradient_checkpointing: bool = setting(
        False, "compute activations again on the way back: less memory, a third more time, the same result"
    )


@dataclass(frozen=True)
class EvalConfig(Section):
    """Evaluation on held-out tasks."""

    _where = "eval"
    every: int = setting(0, "joint samples between evaluations; 0: see points", low=0)
    points: int = setting(
        10, "evaluations after the start, at equal shares of the budget, where every is 0", low=1
    )
    monitor: str = setting(
        "score",
        "what run.patience and checkpoint.best compare, over the first `tasks` tasks",
        choices=("score", "success", "return"),
    )
    split: str = setting("test", "split of the environment's source that is held out")
    source: str = setting("", "another source for evaluation; default the environment's own")
    tasks: int = setting(64, "tasks played per evaluation, the first ones of the split; 0 plays all", low=0)
    final_tasks: int = setting(0, "tasks of the first and last evaluation; 0 plays all", low=0)
    final_episodes: int = setting(
        0,
        "episodes of the last evaluation: as many tasks, and where the split has fewer, several of each; 0: see "
        "final_tasks and samples",
        low=0,
    )
    samples: int = setting(1, "episodes per task", low=1)
    greedy: bool = setting(False, "likeliest tokens instead of draws, so one episode per task")
    greedy_too: bool = setting(
        False, "evaluate with the likeliest tokens as well, beside draws, into evaluations.json"
    )
    seed: int = setting(1_000_003, "seed of the draws: the same at every evaluation", low=0)


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """What is kept on disk."""

    _where = "checkpoint"
    every: int = setting(
        0, "joint samples between checkpoints beside those at evaluations; 0 for none", low=0
    )
    keep: int = setting(2, "newest checkpoints kept; the last one always is", low=1)
    best: bool = setting(
        False, "also keep the agents of the evaluation with the greatest `eval.monitor`: `--checkpoint best`"
    )


@dataclass(frozen=True)
class TrackConfig(Section):
    """Who is told about progress."""

    _where = "track"
    tensorboard: bool = setting(True, "write a TensorBoard folder")
    wandb: bool = setting(
        False, "also tell Weights & Biases (extra `wandb`; WANDB_MODE=offline needs no account)"
    )
    trackio: bool = setting(False, "also tell trackio, on this machine (extra `trackio`)")
    project: str = setting("collm", "project that wandb and trackio file the run under")
    live: bool = setting(True, "live view where the output is a terminal")
    samples: int = setting(4, "conversations kept per evaluation, for samples.jsonl and `collm view`", low=0)


@dataclass(frozen=True)
class Config:
    """A whole run. `env` and `algorithm` hold an id or name and the settings that it takes."""

    env: Mapping[str, Any] = field(default_factory=dict)
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)
    team: TeamConfig = field(default_factory=TeamConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    @property
    def env_id(self) -> str:
        """Id of the environment."""
        return str(self.env["id"])

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Settings given to the environment."""
        return {key: value for key, value in self.env.items() if key != "id"}

    @property
    def algorithm_name(self) -> str:
        """Name of the algorithm."""
        return str(self.algorithm["name"])


def is_builtin(model: str) -> bool:
    """Whether it is the built-in model: the shipped one, or another warm start of it, `builtin:FOLDER`."""
    return model.partition(":")[0] == "builtin"


def resolve_tuning(tuning: str, model: str) -> str:
    """`auto` resolved: full for the small built-in model, adapters for all else."""
    if tuning != "auto":
        return tuning
    return "full" if is_builtin(model) else "lora"


# Longest reply and learning rates of agents and critic where the user leaves them open. `full` has the paper's
# (appendix C, writing); adapters take ten times as much; the built-in model's were found on its own tasks.
_DEFAULTS = {"builtin": (40, 5e-4, 1e-3), "lora": (256, 5e-5, 3e-5), "full": (256, 5e-6, 3e-6)}


def _kind(model: str, tuning: str) -> str:
    return "builtin" if is_builtin(model) else resolve_tuning(tuning, model)


SPARE_TOKENS = 4  # beyond the longest useful reply, so that its end is the agent's choice


def resolved(config: Config, reply_words: int | None = None, agents: Sequence[str] | None = None) -> Config:
    """The config with what depends on models and environment filled in; this is what a run saves.

    Teams of several bases take the most careful defaults among them.

    Args:
        config: as it was written.
        reply_words: words of the environment's longest useful reply; the built-in model has a token for each.
        agents: the environment's; where nobody knows them, those that are named and one of the team's default.
    """
    team, critic = config.team, config.critic
    named = [*team.agents, ""] if agents is None else agents
    own = [agent for name in named if not (agent := team.agents.get(name, AgentConfig())).script]
    bases = [(agent.model or team.model, agent.tuning or team.tuning) for agent in own]
    bases = bases or [(team.model, team.tuning)]
    kinds = [_kind(*base) for base in bases]
    if critic.share_backbone:
        critics = kinds
    else:
        tuning = team.tuning if critic.tuning == "auto" else critic.tuning
        critics = [_kind(critic.model or model, tuning) for model, _ in bases]
    schedule = config.learner.lr_schedule
    if schedule == "auto":
        schedule = "linear" if set(kinds) == {"builtin"} else "constant"
    order = list(_DEFAULTS).index
    tokens, lr, _ = _DEFAULTS[max(kinds, key=order)]
    critic_lr = _DEFAULTS[max(critics, key=order)][2]
    if reply_words and set(kinds) == {"builtin"}:
        tokens = min(tokens, reply_words + SPARE_TOKENS)
    sampling = dataclasses.replace(team.sampling, max_new_tokens=team.sampling.max_new_tokens or tokens)
    stale = "sampled" if config.runner.staleness else "computed"
    learner = dataclasses.replace(
        config.learner,
        old_logprobs=stale if config.learner.old_logprobs == "auto" else config.learner.old_logprobs,
        lr=config.learner.lr or lr,
        critic_lr=config.learner.critic_lr or critic_lr,
        lr_schedule=schedule,
    )
    return dataclasses.replace(config, team=dataclasses.replace(team, sampling=sampling), learner=learner)
