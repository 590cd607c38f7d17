"""`Learner`: rollouts in, one update of agents and critic out.

The same for every algorithm: values of what the estimator asks for, its advantages and targets, normalisation,
policy loss per agent and squared error per critic, micro-batch by micro-batch. How a batch is split changes
nothing but memory: every row's weight is fixed by the whole buffer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collm_agents.advantages import Estimate, Estimator, child_scan, normalise
from collm_agents.batch import Floats, Rollouts
from collm_agents.config import LearnerConfig
from collm_agents.critic import Critic, Encoded
from collm_agents.losses import policy_loss, value_loss
from collm_agents.optim import make_optimizer, rate_factor
from collm_agents.team import AgentTeam, Scored
from collm_envs.errors import CollmError, SettingError


class NonFiniteError(CollmError, ArithmeticError):
    """A loss or gradient is not finite; names the agent or critic, which was not stepped, and the tasks."""


class Learner:
    """Updates a team, and its critic where the algorithm has one.

    Args:
        team: the agents.
        critic: or None.
        estimator: the algorithm (`advantages.Estimator`).
        config: losses and optimizer.
    """

    def __init__(
        self, team: AgentTeam, critic: Critic | None, estimator: Estimator, config: LearnerConfig
    ) -> None:
        self.team, self.critic, self.estimator, self.config = team, critic, estimator, config
        if not config.lr or not config.critic_lr or config.lr_schedule == "auto":
            raise SettingError("a learning rate or its schedule is open; config.resolved() fills it in")
        self.updates = 0
        wanted = {m: (team.backbones[users[0]].parameters(m), config.lr) for m, users in team.users.items()}
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
        start = time.perf_counter()
        factor = self._set_rates(progress)
        encoded, values = self._values(rollouts)
        estimate = self.estimator(rollouts, values)
        metrics: dict[str, float] = {"values_s": time.perf_counter() - start, **estimate.metrics}
        metrics["lr"] = self.config.lr * factor
        start = time.perf_counter()
        if encoded is not None and self.config.critic_warmup > self.updates:
            metrics["warmup"] = 1.0
        else:
            metrics.update(self._update_agents(rollouts, estimate))
        metrics["actor_s"] = time.perf_counter() - start
        start = time.perf_counter()
        if encoded is not None:
            metrics.update(self._update_critic(encoded, estimate))
        metrics["critic_s"] = time.perf_counter() - start
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
        return encoded, self.critic.values(encoded, self.config.microbatch_tokens)

    # -- agents ----------------------------------------------------------------------------------------------

    def row_signals(self, rollouts: Rollouts, estimate: Estimate) -> tuple[Floats, Floats]:
        """What each row is trained with, after normalisation, clipping and weighing.

        Returns:
            Advantage and weight per row, [N] each; rows that are not trained weigh 0.
        """
        config = self.config
        turn = rollouts.points.turn[rollouts.rows.point]
        weight = rollouts.row_weight() * estimate.keep
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

    def _update_agents(self, rollouts: Rollouts, estimate: Estimate) -> dict[str, float]:
        advantage, weight = self.row_signals(rollouts, estimate)
        metrics = {
            "advantage_abs": float(np.abs(advantage[weight > 0]).mean()) if (weight > 0).any() else 0.0
        }
        for member, users in self.team.users.items():
            own = np.isin(rollouts.rows.agent, [self.team.agents.index(agent) for agent in users])
            rows = np.flatnonzero(own & (weight > 0))
            if not len(rows):
                continue
            old = self._old_logprobs(member, rollouts, rows, metrics)
            for epoch in range(self.config.update_epochs):
                for part, scale in self._minibatches(rollouts, rows, epoch):
                    found = self._step_agent(member, rollouts, part, advantage, weight * scale, old)
                    metrics.update({f"{name}/{member}": value for name, value in found.items()})
        return metrics

    @torch.no_grad()
    def _old_logprobs(
        self, member: str, rollouts: Rollouts, rows: np.ndarray, metrics: dict[str, float]
    ) -> dict[int, Tensor]:
        """Teacher-forced log-probs of the policy that sampled, by row; compared with the sampler's own."""
        old: dict[int, Tensor] = {}
        if self.config.ratio == "none":
            return old
        worst = 0.0
        for batch, scored in self._score(member, rollouts, rows):
            for i, row in enumerate(batch):
                old[int(row)] = scored.logprob[i, scored.mask[i]]
                sampled = torch.as_tensor(rollouts.rows.logprob[row], device=scored.logprob.device)
                worst = max(worst, float((old[int(row)] - sampled).abs().max()))
        metrics[f"sampler_gap/{member}"] = worst
        return old

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

    def _step_agent(
        self,
        member: str,
        rollouts: Rollouts,
        rows: np.ndarray,
        advantage: Floats,
        weight: Floats,
        old: dict[int, Tensor],
    ) -> dict[str, float]:
        config, optimizer = self.config, self.optimizers[member]
        optimizer.zero_grad(set_to_none=True)
        total, surprisal, tokens, drift = 0.0, 0.0, 0, 0.0
        for batch, scored in self._score(member, rollouts, rows):
            logp, mask = scored.logprob, scored.mask
            before = torch.zeros_like(logp)
            for i, row in enumerate(batch):
                if old:
                    before[i, : len(old[int(row)])] = old[int(row)]
            loss = policy_loss(
                logp,
                before,
                mask,
                torch.as_tensor(advantage[batch], dtype=torch.float32, device=logp.device),
                torch.as_tensor(weight[batch], dtype=torch.float32, device=logp.device),
                ratio=config.ratio,
                clip=config.clip,
                reduction=config.reduction,
            )
            loss.backward()
            total += float(loss.detach())
            tokens += int(mask.sum())
            surprisal -= float(logp.detach().sum())
            if old:
                drift += float(((logp.detach() - before).masked_fill(~mask, 0.0)).abs().sum())
        norm = self._step(member, total, self._who(rollouts, rows))
        found = {"loss": total, "grad_norm": norm, "surprisal": surprisal / max(tokens, 1)}
        return {**found, "drift": drift / max(tokens, 1)} if old else found

    def _score(
        self, member: str, rollouts: Rollouts, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Scored]]:
        """Batches of the team's choosing, with the rows of the buffer that each holds."""
        prompts = [rollouts.rows.prompt[row] for row in rows]
        replies = [rollouts.rows.reply[row] for row in rows]
        for scored in self.team.score(member, prompts, replies, self.config.microbatch_tokens):
            yield rows[scored.rows], scored

    # -- critic ----------------------------------------------------------------------------------------------

    def _update_critic(self, encoded: Encoded, estimate: Estimate) -> dict[str, float]:
        critic, config = self.critic, self.config
        assert critic is not None
        assert estimate.target is not None
        assert estimate.target_weight is not None
        use = np.flatnonzero(estimate.target_weight > 0)
        weight = estimate.target_weight / estimate.target_weight.sum()
        metrics = {"critic_overlong": float(critic.overlong(encoded))}
        for number, (member, sequences) in enumerate(encoded.items()):
            target = estimate.target if estimate.target.ndim == 1 else estimate.target[:, number]
            for _ in range(config.critic_epochs):
                self.optimizers[member].zero_grad(set_to_none=True)
                total = 0.0
                for batch, value in critic.score(
                    member, [sequences[q] for q in use], config.microbatch_tokens
                ):
                    q = use[batch]
                    goal = torch.as_tensor(target[q], dtype=torch.float32, device=value.device)
                    scale = torch.as_tensor(weight[q], dtype=torch.float32, device=value.device)
                    loss = config.value_coef * value_loss(value, goal, scale)
                    loss.backward()
                    total += float(loss.detach())
                norm = self._step(member, total, "the whole buffer")
            metrics.update({f"loss/{member}": total, f"grad_norm/{member}": norm})
        return metrics

    # -- steps -----------------------------------------------------------------------------------------------

    def _step(self, member: str, loss: float, who: str) -> float:
        """Check, clip and step; returns the gradient norm before clipping."""
        optimizer = self.optimizers[member]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = self.config.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit)) if parameters else 0.0
        if not np.isfinite(loss) or not np.isfinite(norm):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(f"loss {loss} with gradient norm {norm} for {member}; rows of {who}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

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
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; rates and decay stay as configured."""
        self.updates = int(state["updates"])
        for name, optimizer in self.optimizers.items():
            own = [{key: group[key] for key in ("lr", "weight_decay")} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            # A run may be resumed with other settings; torch would bring the old ones back silently.
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)
