"""`Learner`: rollouts in, one update of agents and critic out.

The same for every algorithm: values of what the estimator asks for, its advantages and targets, normalisation,
policy loss per agent and squared error per critic, micro-batch by micro-batch. How a batch is split changes
nothing but memory: every row's weight is fixed by the whole buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collm_agents.advantages import Estimate, Estimator, child_scan, explained_variance, normalise
from collm_agents.batch import Floats, Rollouts
from collm_agents.clock import Clock
from collm_agents.config import LearnerConfig
from collm_agents.critic import Critic, Encoded
from collm_agents.losses import kl_estimate, per_reply, policy_loss, ratios, value_loss
from collm_agents.optim import make_optimizer, rate_factor
from collm_agents.signals import RowStats, signals
from collm_agents.team import AgentTeam, Scored
from collm_envs.errors import CollmError, SettingError


class NonFiniteError(CollmError, ArithmeticError):
    """A loss or gradient is not finite; names the agent or critic, which was not stepped, and the tasks."""


def token_budget(config: LearnerConfig, device: str) -> int:
    """Most tokens of a micro-batch: caches decide on a CPU, launch times on an accelerator (benchmarks/RUNS.md)."""
    return config.microbatch_tokens or (2048 if torch.device(device).type == "cpu" else 8192)


@dataclass(frozen=True)
class _Batch:
    """What the agents' steps of one update share.

    Attributes:
        rollouts: the buffer.
        advantage: after normalisation and clipping, [N].
        weight: of each row in the loss, [N]; 0 leaves it out.
        stats: what is measured of each row, filled in on the way.
        before: log-probs of the policy that sampled, by row.
        reference: log-probs of the untrained base, by row.
    """

    rollouts: Rollouts
    advantage: Floats
    weight: Floats
    stats: RowStats
    before: dict[int, Tensor] = field(default_factory=dict)
    reference: dict[int, Tensor] = field(default_factory=dict)


class Learner:
    """Updates a team, and its critic where the algorithm has one.

    Args:
        team: the agents.
        critic: or None.
        estimator: the algorithm (`advantages.Estimator`).
        config: losses and optimizer.
        clock: where the time goes is counted here.
    """

    def __init__(
        self,
        team: AgentTeam,
        critic: Critic | None,
        estimator: Estimator,
        config: LearnerConfig,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.team, self.critic, self.estimator, self.config = team, critic, estimator, config
        if not config.lr or not config.critic_lr or config.lr_schedule == "auto":
            raise SettingError("a learning rate or its schedule is open; config.resolved() fills it in")
        self.updates = 0
        backbones = [*team.backbones.values(), *(critic.backbones.values() if critic is not None else ())]
        for backbone in backbones:
            backbone.checkpointing = config.gradient_checkpointing
        self.budget = max(token_budget(config, backbone.device) for backbone in backbones)
        wanted = {m: (team.backbones[team.users[m][0]].parameters(m), config.lr) for m in team.trained}
        if critic is not None:
            wanted |= {member: (critic.parameters(member), config.critic_lr) for member in critic.members}
        self.rates = {member: lr for member, (_, lr) in wanted.items()}
        self.optimizers = {
            member: make_optimizer(config.optimizer, parameters.values(), lr, config.weight_decay)
            for member, (parameters, lr) in wanted.items()
        }

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
        factor = self._set_rates(progress)
        with self.clock.phase("critic"):
            encoded, values = self._values(rollouts)
        estimate = self.estimator(rollouts, values)
        metrics: dict[str, float] = {**estimate.metrics, "lr": self.config.lr * factor}
        advantage, weight = self.row_signals(rollouts, estimate)
        batch = _Batch(rollouts, advantage, weight, RowStats(len(rollouts.rows)))
        if encoded is not None and self.config.critic_warmup > self.updates:
            metrics["warmup"] = 1.0
        else:
            with self.clock.phase("actor"):
                for member in self.team.trained:
                    metrics.update(self._update_agent(member, batch))
        metrics.update(signals(rollouts, advantage, weight, batch.stats, self.estimator.gamma))
        if encoded is not None and values is not None:
            with self.clock.phase("critic"):
                metrics.update(self._update_critic(rollouts, encoded, values, estimate))
        self.updates += 1
        return metrics

    def _set_rates(self, progress: float) -> float:
        config = self.config
        factor = rate_factor(config.lr_schedule, progress, self.updates, config.lr_warmup, config.lr_end)
        for member, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[member] * factor
        return factor

    # -- values ----------------------------------------------------------------------------------------------

    def _values(self, rollouts: Rollouts) -> tuple[Encoded | None, Floats | None]:
        queries = self.estimator.critic_queries(rollouts)
        if queries is None or self.critic is None:
            return None, None
        if self.updates == 0:
            # An untrained value of 0 would make every advantage of a reward schedule <= 0 negative at first.
            nodes = rollouts.nodes
            returns = child_scan(nodes.reward, rollouts, self.estimator.gamma)
            self.critic.set_bias(float((nodes.weight * returns).sum() / max(nodes.weight.sum(), 1e-12)))
        encoded = self.critic.encode(rollouts, queries)
        return encoded, self.critic.values(encoded, self.budget)

    # -- agents ----------------------------------------------------------------------------------------------

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

    def _update_agent(self, member: str, batch: _Batch) -> dict[str, float]:
        """All passes of one member over the buffer."""
        config, rollouts = self.config, batch.rollouts
        users = [self.team.agents.index(agent) for agent in self.team.users[member]]
        rows = np.flatnonzero(np.isin(rollouts.rows.agent, users) & (batch.weight > 0))
        if not len(rows):
            return {}
        # A row without advantage pulls at nothing, unless it is held to the base or to its entropy.
        regular = config.kl_coef > 0 or config.entropy_coef > 0
        live = rows if regular else rows[batch.advantage[rows] != 0]
        metrics: dict[str, float] = {}
        if config.ratio != "none":
            metrics[f"sampler_gap/{member}"] = self._look_back(member, batch, live)
        metrics[f"prefix_sharing/{member}"] = float(self.team.backbones[self.team.users[member][0]].packs)
        if config.kl_coef > 0:
            self._look_at_base(member, batch, live)
        for epoch in range(config.update_epochs):
            for part, scale in self._minibatches(rollouts, rows, epoch):
                found = self._step_agent(member, batch, part[np.isin(part, live)], scale)
                metrics.update({f"{name}/{member}": value for name, value in found.items()})
        return metrics

    @torch.no_grad()
    def _look_back(self, member: str, batch: _Batch, rows: np.ndarray) -> float:
        """Teacher-forced log-probs of the policy that sampled; returns how far the sampler's own are from them."""
        worst = 0.0
        for own, scored in self._score(member, batch.rollouts, rows, entropy=True):
            for i, row in enumerate(own):
                before = scored.logprob[i, scored.mask[i]]
                batch.before[int(row)] = before
                sampled = torch.as_tensor(batch.rollouts.rows.logprob[row], device=before.device)
                worst = max(worst, float((before - sampled).abs().max()))
            if scored.entropy is not None:
                batch.stats.put("entropy", own, per_reply(scored.entropy, scored.mask, "token_mean"))
        return worst

    @torch.no_grad()
    def _look_at_base(self, member: str, batch: _Batch, rows: np.ndarray) -> None:
        """Log-probs under the untrained base."""
        for own, scored in self._score(member, batch.rollouts, rows, reference=True):
            for i, row in enumerate(own):
                batch.reference[int(row)] = scored.logprob[i, scored.mask[i]]

    def _minibatches(
        self, rollouts: Rollouts, rows: np.ndarray, epoch: int
    ) -> list[tuple[np.ndarray, float]]:
        """Rows dealt out by whole trees, so that siblings stay together, in another order each epoch.

        Returns:
            Rows, and the scale that makes the loss a mean over the part's own trees, per minibatch.
        """
        count = self.config.minibatches
        trees = rollouts.points.tree[rollouts.rows.point[rows]]
        parts = []
        for k in range(count):
            chosen = trees % count == (k + epoch) % count
            if chosen.any():
                parts.append((rows[chosen], len(np.unique(trees)) / len(np.unique(trees[chosen]))))
        return parts

    def _step_agent(self, member: str, batch: _Batch, rows: np.ndarray, scale: float) -> dict[str, float]:
        """One optimizer step on some rows, micro-batch by micro-batch."""
        optimizer = self.optimizers[member]
        optimizer.zero_grad(set_to_none=True)
        if not len(rows):  # a gradient of zero is a step, too: the moments decay
            for parameter in self.parameters(member):
                parameter.grad = torch.zeros_like(parameter)
        total, surprisal, tokens = 0.0, 0.0, 0
        for own, scored in self._score(member, batch.rollouts, rows, entropy=self.config.entropy_coef > 0):
            loss = self._loss(batch, own, scored, scale)
            loss.backward()
            total += float(loss.detach())
            tokens += int(scored.mask.sum())
            surprisal -= float(scored.logprob.detach().sum())
        norm = self._step(member, total, self._who(batch.rollouts, rows))
        return {"loss": total, "grad_norm": norm, "surprisal": surprisal / max(tokens, 1)}

    def _loss(self, batch: _Batch, rows: np.ndarray, scored: Scored, scale: float) -> Tensor:
        """Policy loss of a micro-batch, with what is added to it; notes ratios and divergences by row."""
        config, logp, mask = self.config, scored.logprob, scored.mask
        weight = torch.as_tensor(batch.weight[rows] * scale, dtype=torch.float32, device=logp.device)
        before = _padded(batch.before, rows, logp)
        loss = policy_loss(
            logp,
            before,
            mask,
            torch.as_tensor(batch.advantage[rows], dtype=torch.float32, device=logp.device),
            weight,
            ratio=config.ratio,
            clip=config.clip,
            reduction=config.reduction,
        )
        if batch.before:
            batch.stats.put_ratios(
                rows, ratios(logp.detach(), before, mask, config.ratio, config.reduction), mask, config.clip
            )
            # Drawn from the policy before, so the ratio is against the policy now.
            batch.stats.put("kl", rows, per_reply(kl_estimate(before, logp.detach()), mask, "token_mean"))
        if batch.reference:
            kl = kl_estimate(logp, _padded(batch.reference, rows, logp))
            batch.stats.put("kl_base", rows, per_reply(kl.detach(), mask, "token_mean"))
            loss = loss + config.kl_coef * (weight * per_reply(kl, mask, config.reduction)).sum()
        if scored.entropy is not None:
            batch.stats.put("entropy", rows, per_reply(scored.entropy.detach(), mask, "token_mean"))
            loss = (
                loss
                - config.entropy_coef * (weight * per_reply(scored.entropy, mask, config.reduction)).sum()
            )
        return loss

    def _score(
        self, member: str, rollouts: Rollouts, rows: np.ndarray, **wanted: bool
    ) -> Iterator[tuple[np.ndarray, Scored]]:
        """Batches of the team's choosing, with the rows of the buffer that each holds."""
        prompts = [rollouts.rows.prompt[row] for row in rows]
        replies = [rollouts.rows.reply[row] for row in rows]
        for scored in self.team.score(member, prompts, replies, self.budget, **wanted):
            yield rows[scored.rows], scored

    # -- critic ----------------------------------------------------------------------------------------------

    def _update_critic(
        self, rollouts: Rollouts, encoded: Encoded, values: Floats, estimate: Estimate
    ) -> dict[str, float]:
        """All passes of the critics over the buffer's queries."""
        critic, config = self.critic, self.config
        assert critic is not None
        assert estimate.target_weight is not None
        metrics = {"critic_overlong": float(critic.overlong(encoded))}
        if not estimate.target_weight.any():  # such as Q where every episode was cut: there is no target
            return metrics
        if config.value_norm:
            self._track(estimate)
        for epoch in range(config.critic_epochs):
            if epoch and config.value_targets == "refreshed":
                estimate = self.estimator(rollouts, critic.values(encoded, self.budget))
            for member, sequences in encoded.items():
                found = self._step_critic(member, sequences, critic.own(member, values), estimate)
                metrics.update({f"{name}/{member}": value for name, value in found.items()})
        return metrics

    def _track(self, estimate: Estimate) -> None:
        """Tell the heads the moments of their targets."""
        assert self.critic is not None
        target, weight = estimate.target, estimate.target_weight
        assert target is not None
        assert weight is not None
        for member in self.critic.members:
            own, share = self.critic.own(member, target), weight / weight.sum()
            self.critic.heads[member].track(float((share * own).sum()), float((share * own**2).sum()))

    def _step_critic(
        self, member: str, sequences: Sequence[tuple[int, ...]], before: Floats, estimate: Estimate
    ) -> dict[str, float]:
        """One optimizer step of one critic on all its queries; siblings share a query and its target."""
        critic, config = self.critic, self.config
        assert critic is not None
        assert estimate.target is not None
        assert estimate.target_weight is not None
        self.optimizers[member].zero_grad(set_to_none=True)
        target, weight = critic.own(member, estimate.target), estimate.target_weight
        use = np.flatnonzero(weight > 0)
        inputs = [sequences[int(q)] for q in use]
        unit = float(critic.heads[member].scale) if config.value_norm else 1.0
        total = 0.0
        for chosen, value in critic.score(member, inputs, self.budget):
            q = use[chosen]
            goal, share, old = (
                torch.as_tensor(x[q], dtype=torch.float32, device=value.device)
                for x in (target, weight / weight.sum(), before)
            )
            loss = config.value_coef * value_loss(value, goal, share, old, config.value_clip) / unit**2
            loss.backward()
            total += float(loss.detach())
        norm = self._step(member, total, "the whole buffer")
        known = explained_variance(before[use], target[use], weight[use])
        sharing = float(critic.backbones[member].packs)
        return {"loss": total, "grad_norm": norm, "explained_variance": known, "prefix_sharing": sharing}

    # -- steps -----------------------------------------------------------------------------------------------

    def _step(self, member: str, loss: float, who: str) -> float:
        """Check, clip and step; returns the gradient norm before clipping."""
        optimizer = self.optimizers[member]
        parameters = [p for p in self.parameters(member) if p.grad is not None]
        limit = self.config.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit)) if parameters else 0.0
        if not np.isfinite(loss) or not np.isfinite(norm):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(f"loss {loss} with gradient norm {norm} for {member}; rows of {who}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def parameters(self, member: str) -> list[torch.nn.Parameter]:
        """What a member trains."""
        return [p for group in self.optimizers[member].param_groups for p in group["params"]]

    @staticmethod
    def _who(rollouts: Rollouts, rows: Sequence[int] | np.ndarray) -> str:
        points = rollouts.rows.point[np.asarray(rows)]
        places = sorted(
            {(rollouts.tasks[rollouts.points.tree[p]], int(rollouts.points.turn[p])) for p in points}
        )
        shown = ", ".join(f"task {task!r} turn {turn}" for task, turn in places[:4])
        return shown + (f" and {len(places) - 4} more" if len(places) > 4 else "")

    def state_dict(self) -> dict[str, Any]:
        """Optimizers and the count of updates."""
        return {
            "updates": self.updates,
            "optimizer": self.config.optimizer,
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
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
        for name, optimizer in self.optimizers.items():
            own = [{key: group[key] for key in ("lr", "weight_decay")} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            # A run may be resumed with other settings; torch would bring the old ones back silently.
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)


def _padded(by_row: Mapping[int, Tensor], rows: np.ndarray, like: Tensor) -> Tensor:
    """Log-probs kept by row as one batch, [B, L], 0 on padding and for rows that were not kept."""
    out = torch.zeros_like(like)
    for i, row in enumerate(rows):
        if int(row) in by_row:
            out[i, : len(by_row[int(row)])] = by_row[int(row)]
    return out
