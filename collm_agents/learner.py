"""`Learner`: rollouts in, one update of agents and critic out.

The same for every algorithm: values of what the estimator asks for, its advantages and targets, normalisation; then
every member learns from its own rows. What touches weights is a side's (`sides`), and sides may be elsewhere: all
are asked before any is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from collm_agents.advantages import Estimate, Estimator, child_scan, normalise
from collm_agents.batch import Floats, Ints, Rollouts
from collm_agents.clock import Clock
from collm_agents.config import LearnerConfig
from collm_agents.critic import Critic, Encoded
from collm_agents.finite import check_estimate, check_values
from collm_agents.optim import rate_factor
from collm_agents.sides import AgentSide, Answer, Ask, CriticSide, Done, Learned, MemberRows, Side, sides_of
from collm_agents.signals import RowStats, signals
from collm_agents.team import AgentTeam
from collm_envs.errors import SettingError


class Learner:
    """Updates a team, and its critic where the algorithm has one.

    Args:
        team: the agents.
        critic: or None.
        estimator: the algorithm (`advantages.Estimator`).
        config: losses and optimizer.
        clock: where the time goes is counted here.
        ask: reaches members that are elsewhere; team and critic then hold no weights. Default: all are here.

    Attributes:
        sides: by member, those that are here.
    """

    def __init__(
        self,
        team: AgentTeam,
        critic: Critic | None,
        estimator: Estimator,
        config: LearnerConfig,
        clock: Clock | None = None,
        *,
        ask: Ask | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.team, self.critic, self.estimator, self.config = team, critic, estimator, config
        if not config.lr or not config.critic_lr or config.lr_schedule == "auto":
            raise SettingError("a learning rate or its schedule is open; config.resolved() fills it in")
        self.updates = 0
        self.members = [*team.trained, *(critic.members if critic is not None else ())]
        self.sides: dict[str, Side] = {} if ask is not None else sides_of(team, critic, config)
        self.ask: Ask = ask if ask is not None else self._here

    def _here(self, member: str, what: Any, *args: Any, **kwargs: Any) -> Answer[Any]:
        return Done(what(self.sides[member], *args, **kwargs))

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By member, those that are here."""
        return {member: side.optimizer for member, side in self.sides.items()}

    def update(self, rollouts: Rollouts, progress: float = 0.0) -> dict[str, float]:
        """Learn from one buffer.

        Args:
            rollouts: what was sampled by the present policy.
            progress: share of the run's budget spent before this update, for the learning rates' schedule.

        Returns:
            Metrics by name.

        Raises:
            NonFiniteError: before any step of the agent or critic concerned.
        """
        config = self.config
        factor = rate_factor(config.lr_schedule, progress, self.updates, config.lr_warmup, config.lr_end)
        with self.clock.phase("critic"):
            encoded, values = self._values(rollouts)
        estimate = self.estimator(rollouts, values)
        check_estimate(estimate, rollouts)
        metrics: dict[str, float] = {**estimate.metrics, "lr": config.lr * factor}
        advantage, weight = self.row_signals(rollouts, estimate)
        learning: list[tuple[str, Ints, Answer[Learned]]] = []
        if encoded is not None and config.critic_warmup > self.updates:
            metrics["warmup"] = 1.0
        else:
            with self.clock.phase("actor"):
                learning = self._ask_agents(rollouts, advantage, weight, factor)
        critics: dict[str, float] = {}
        if encoded is not None and values is not None:
            with self.clock.phase("critic"):
                critics = self._update_critic(rollouts, encoded, estimate, factor)
        stats = RowStats(len(rollouts.rows))
        with self.clock.phase("actor"):
            for member, rows, answer in learning:
                learned = answer.result()
                metrics.update({f"{name}/{member}": value for name, value in learned.metrics.items()})
                stats.add(rows, learned.stats)
        metrics.update(signals(rollouts, advantage, weight, stats, self.estimator.gamma))
        self.updates += 1
        return {**metrics, **critics}

    # -- agents ----------------------------------------------------------------------------------------------

    def _ask_agents(
        self, rollouts: Rollouts, advantage: Floats, weight: Floats, factor: float
    ) -> list[tuple[str, Ints, Answer[Learned]]]:
        """Let every member learn from its rows: its name, the rows, and what will come of it."""
        found = []
        for member in self.team.trained:
            users = [self.team.agents.index(agent) for agent in self.team.users[member]]
            rows = np.flatnonzero(np.isin(rollouts.rows.agent, users) & (weight > 0))
            if len(rows):
                own = MemberRows.of(rollouts, rows)
                answer = self.ask(member, AgentSide.update, own, advantage[rows], weight[rows], factor)
                found.append((member, rows, answer))
        return found

    def row_signals(self, rollouts: Rollouts, estimate: Estimate) -> tuple[Floats, Floats]:
        """What each row is trained with, after normalisation, clipping and weighing.

        Returns:
            Advantage and weight per row, [N] each; rows that are not trained weigh 0.
        """
        config = self.config
        turn = rollouts.points.turn[rollouts.rows.point]
        learns = np.isin(rollouts.agents, self.team.learners)
        weight = rollouts.row_weight() * estimate.keep * learns[rollouts.rows.agent]
        if config.mask_truncated_replies:
            weight = weight * ~rollouts.rows.cut
        mode = self.estimator.advantage_norm if config.advantage_norm == "auto" else config.advantage_norm
        sample = np.zeros(len(rollouts.rows), dtype=np.int64)
        sample[rollouts.row_of] = np.arange(len(rollouts.nodes))[:, None]
        advantage = normalise(estimate.advantage, weight, turn, rollouts.rows.agent, sample, mode)
        if config.advantage_clip > 0:
            advantage = advantage.clip(-config.advantage_clip, config.advantage_clip)
        if config.turn_weight == "discounted":
            weight = weight * self.estimator.gamma**turn
        return advantage, weight

    # -- critic ----------------------------------------------------------------------------------------------

    def _values(self, rollouts: Rollouts) -> tuple[Encoded | None, Floats | None]:
        queries = self.estimator.critic_queries(rollouts)
        if queries is None or self.critic is None:
            return None, None
        start = None
        if self.updates == 0:
            # An untrained value of 0 would make every advantage of a reward schedule <= 0 negative at first.
            nodes = rollouts.nodes
            returns = child_scan(nodes.reward, rollouts, self.estimator.gamma)
            start = float((nodes.weight * returns).sum() / max(nodes.weight.sum(), 1e-12))
        encoded = self.critic.encode(rollouts, queries)
        asked = {m: self.ask(m, CriticSide.begin, own, start) for m, own in encoded.items()}
        values = self._joined(asked)
        check_values(values, queries, rollouts)
        return encoded, values

    def _joined(self, asked: Mapping[str, Answer[Floats]]) -> Floats:
        assert self.critic is not None
        return self.critic.joined({member: answer.result() for member, answer in asked.items()})

    def _update_critic(
        self, rollouts: Rollouts, encoded: Encoded, estimate: Estimate, factor: float
    ) -> dict[str, float]:
        """All passes of the critics over the buffer's queries, which they were asked to value."""
        critic, config = self.critic, self.config
        assert critic is not None
        assert estimate.target_weight is not None
        metrics = {"critic_overlong": float(critic.overlong(encoded))}
        if not estimate.target_weight.any():  # such as Q where every episode was cut: there is no target
            return metrics
        for epoch in range(config.critic_epochs):
            if epoch and config.value_targets == "refreshed":
                values = self._joined({member: self.ask(member, CriticSide.values) for member in encoded})
                estimate = self.estimator(rollouts, values)
            target, weight = estimate.target, estimate.target_weight
            assert target is not None
            assert weight is not None
            asked = {
                m: self.ask(m, CriticSide.fit, critic.own(m, target), weight, factor, track=not epoch)
                for m in encoded
            }
            for member, answer in asked.items():
                metrics.update({f"{name}/{member}": value for name, value in answer.result().items()})
        return metrics

    # -- state -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Optimizers and the count of updates."""
        return {
            "updates": self.updates,
            "optimizer": self.config.optimizer,
            "optimizers": {member: self.ask(member, Side.state).result() for member in self.members},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; rates and decay stay as configured.

        Raises:
            SettingError: when it is of another kind of optimizer.
        """
        kind = state.get("optimizer", "adamw")
        if kind != self.config.optimizer:
            raise SettingError(
                f"learner.optimizer={self.config.optimizer!r}: the checkpoint's moments are {kind}'s; leave it so"
            )
        self.updates = int(state["updates"])
        for member in self.members:
            self.ask(member, Side.load_state, state["optimizers"][member]).result()
