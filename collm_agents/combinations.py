"""Settings that are right one by one and make no sense together: refused before anything is loaded.

For experiments. What one setting alone allows stands beside it in `config.py`; what an algorithm does not read
(such as a critic's settings under `mc`) is no error, so that one file serves a comparison of algorithms.
"""

from __future__ import annotations

from collections.abc import Sequence

from collm_agents.algorithms import AlgorithmSpec
from collm_agents.config import Config
from collm_envs.errors import SettingError


def check_training(
    config: Config, algorithm: AlgorithmSpec, learners: Sequence[str], most_updates: float
) -> None:
    """Raise where there is nothing to train, or what was asked for could not be had.

    Args:
        config: resolved settings.
        algorithm: the chosen one.
        learners: agents that learn.
        most_updates: updates of the run if every episode ended at its first turn; infinite where nobody knows.

    Raises:
        SettingError: with the reason.
    """
    if not learners:
        raise SettingError("nobody learns: every agent is scripted or has trainable=false")
    _check_rates(config, most_updates)
    _check_ratios(config)
    if algorithm.view is not None:
        _check_critic(config, most_updates)
        if config.critic.share_backbone:
            _check_sharing(config, algorithm)


def _check_rates(config: Config, most_updates: float) -> None:
    learner = config.learner
    if learner.lr_end and learner.lr_schedule == "constant":
        raise SettingError(
            f"learner.lr_end={learner.lr_end} is where a linear or cosine course ends; "
            "learner.lr_schedule is constant"
        )
    if learner.lr_warmup >= most_updates:
        raise SettingError(
            f"learner.lr_warmup={learner.lr_warmup}: the run has at most {most_updates} updates, so learning rates "
            "would never reach what they rise to"
        )


def _check_ratios(config: Config) -> None:
    learner, sampling = config.learner, config.team.sampling
    steps = {"update_epochs": learner.update_epochs, "minibatches": learner.minibatches}
    for name, count in steps.items():
        if learner.ratio == "none" and count > 1:
            raise SettingError(
                f"learner.ratio=none is right for one step after sampling, and learner.{name} is {count}: set it "
                "to 1, or take learner.ratio=sequence"
            )
    if config.runner.staleness:
        ahead = "runner.staleness=1: workers play ahead"
        if not config.runner.workers:
            raise SettingError("runner.staleness=1 lets workers play ahead; runner.workers is 0")
        if learner.ratio == "none":
            raise SettingError(
                f"{ahead} with weights that are gone when the rollouts are learned from; learner.ratio=none would "
                "take them for the present policy's"
            )
        if learner.old_logprobs == "computed":
            raise SettingError(
                f"{ahead}, so the weights that sampled are gone when log-probs would be computed; "
                "learner.old_logprobs has to be sampled"
            )
        if config.run.wall_s:
            raise SettingError(
                f"{ahead} where no evaluation or checkpoint comes next, which a budget in seconds does not tell"
            )
    if learner.old_logprobs == "sampled" and (sampling.top_p < 1 or sampling.top_k):
        raise SettingError(
            "learner.old_logprobs=sampled: what was noted is the truncated policy's; team.sampling.top_p has to be "
            "1 and top_k 0"
        )


def _check_sharing(config: Config, algorithm: AlgorithmSpec) -> None:
    critic = config.critic
    if (algorithm.view, algorithm.owners) != ("local", "each"):
        raise SettingError(
            f"critic.share_backbone=true: {algorithm.name} has no critic per agent that reads only what the agent "
            "reads; it goes with collm-dc"
        )
    if critic.model or critic.tuning != "auto" or config.team.shared:
        raise SettingError(
            "critic.share_backbone=true: the critics' model, tuning and weights are the agents' own; "
            "leave critic.model, critic.tuning and team.shared alone"
        )
    if config.learner.critic_warmup:
        raise SettingError(
            f"learner.critic_warmup={config.learner.critic_warmup} keeps agents as they are while critics learn; "
            "with critic.share_backbone=true a critic's steps change its agent"
        )


def _check_critic(config: Config, most_updates: float) -> None:
    learner = config.learner
    if learner.critic_warmup >= most_updates:
        raise SettingError(
            f"learner.critic_warmup={learner.critic_warmup}: the run has at most {most_updates} updates, so the "
            "agents would never learn"
        )
    if learner.critic_epochs > 1:
        return
    # At the first pass values stand where they stood at rollout.
    if learner.value_targets == "refreshed":
        raise SettingError(
            "learner.value_targets='refreshed' renews targets between a critic's passes; learner.critic_epochs is 1"
        )
    if learner.value_clip:
        raise SettingError(
            f"learner.value_clip={learner.value_clip} holds values from a critic's second pass on; "
            "learner.critic_epochs is 1"
        )
