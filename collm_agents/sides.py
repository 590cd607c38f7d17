"""What learning does with one member's weights: an agent's policy, or a critic.

For the learner, which asks every side and touches no weight itself. A side needs its own rows and the numbers
that belong to them, and nothing of any other member, so it can be wherever its weights are. How a batch is split
changes nothing but memory: every row's weight is fixed by the whole buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from collm_agents.advantages import explained_variance
from collm_agents.batch import Floats, Ints, Rollouts
from collm_agents.config import LearnerConfig
from collm_agents.critic import Critic
from collm_agents.finite import NonFiniteError
from collm_agents.losses import kl_estimate, per_reply, policy_loss, ratios, value_loss
from collm_agents.models.backbone import Backbone
from collm_agents.models.sharding import merged
from collm_agents.optim import make_optimizer
from collm_agents.signals import RowStats
from collm_agents.team import AgentTeam, Scored

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Answer(Protocol[T_co]):
    """What a side was asked for, which may still be on its way."""

    def result(self) -> T_co:
        """Wait for it; raises what went wrong there."""


class Ask(Protocol):
    """How a member's side is reached, wherever it is. What one member is asked is done in the order of asking."""

    def __call__(
        self, member: str, what: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Answer[T]:
        """Have a side do something: `ask("agent_0", AgentSide.update, rows, ...)`."""


@dataclass(frozen=True)
class Done:
    """An answer that is there."""

    value: Any

    def result(self) -> Any:
        """The answer."""
        return self.value


def token_budget(config: LearnerConfig, device: str) -> int:
    """Most tokens of a micro-batch: caches decide on a CPU, launch times on an accelerator (benchmarks/RUNS.md)."""
    return config.microbatch_tokens or (2048 if torch.device(device).type == "cpu" else 8192)


@dataclass(frozen=True)
class MemberRows:
    """The rows that one member learns from: all it needs of a buffer.

    Attributes:
        prompt: token ids, n lists.
        reply: token ids, n lists.
        logprob: the sampler's own log-probs, n arrays [L].
        tree: index of the row's tree, [n].
        turn: the row's turn, [n].
        tasks: task ids, one per tree of the buffer.
    """

    prompt: tuple[tuple[int, ...], ...]
    reply: tuple[tuple[int, ...], ...]
    logprob: tuple[Floats, ...]
    tree: Ints
    turn: Ints
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tree)

    @classmethod
    def of(cls, rollouts: Rollouts, rows: Ints) -> MemberRows:
        """Some rows of a buffer."""
        own, point = rollouts.rows, rollouts.rows.point[rows]
        return cls(
            tuple(own.prompt[row] for row in rows),
            tuple(own.reply[row] for row in rows),
            tuple(own.logprob[row] for row in rows),
            rollouts.points.tree[point],
            rollouts.points.turn[point],
            rollouts.tasks,
        )

    def named(self, rows: Sequence[int] | np.ndarray) -> str:
        """Where some rows come from, for people."""
        index = np.asarray(rows)
        trees, turns = self.tree[index].tolist(), self.turn[index].tolist()
        places = sorted({(self.tasks[tree], turn) for tree, turn in zip(trees, turns, strict=True)})
        shown = ", ".join(f"task {task!r} turn {turn}" for task, turn in places[:4])
        return shown + (f" and {len(places) - 4} more" if len(places) > 4 else "")


@dataclass(frozen=True)
class Learned:
    """What came of an agent's update.

    Attributes:
        metrics: numbers by name.
        stats: what was measured of its rows, by name, [n] each; NaN where nothing was.
    """

    metrics: Mapping[str, float]
    stats: Mapping[str, Floats]


class Side:
    """One member's weights and their optimizer.

    Args:
        member: its name.
        backbone: that holds it.
        parameters: what it trains.
        lr: its learning rate, before the course of all.
        config: losses and optimizer.
    """

    def __init__(
        self,
        member: str,
        backbone: Backbone,
        parameters: Mapping[str, torch.nn.Parameter],
        lr: float,
        config: LearnerConfig,
    ) -> None:
        self.member, self.backbone, self.config = member, backbone, config
        backbone.checkpointing = config.gradient_checkpointing
        self.budget = token_budget(config, backbone.device)
        self.lr = lr
        self.optimizer = make_optimizer(config.optimizer, parameters.values(), lr, config.weight_decay)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def state(self) -> dict[str, Any]:
        """The optimizer's."""
        found, shards = self.optimizer.state_dict(), self.backbone.shards
        return {**found, "state": {i: shards.whole(own) for i, own in found["state"].items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave; rates, decay, and how this process steps stay as they are here."""
        # A run may be resumed with other settings, or spread over another number of processes; torch would bring
        # the old ones back silently, and with them a kernel that the parameters here may not have.
        kept = ("lr", "weight_decay", "fused", "foreach")
        groups = [
            {**old, **{key: own[key] for key in kept if key in own}}
            for old, own in zip(state["param_groups"], self.optimizer.param_groups, strict=True)
        ]
        shards, places = self.backbone.shards, self.parameters()
        moments = {
            i: shards.own(entry, dict.fromkeys(entry, places[int(i)])) for i, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "param_groups": groups, "state": moments})

    def _set_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor

    def _broken(self, what: str) -> NonFiniteError:
        """The error, with nothing left behind that a later step could take."""
        self.optimizer.zero_grad(set_to_none=True)
        return NonFiniteError(what)

    def _step(self, loss: float, who: str) -> float:
        """Check, clip and step; returns the gradient norm before clipping."""
        optimizer = self.optimizer
        norm = self.backbone.shards.clip(self.parameters(), self.config.max_grad_norm or float("inf"))
        if not np.isfinite(loss) or not np.isfinite(norm):
            raise self._broken(f"loss {loss} with gradient norm {norm} for {self.member}; rows of {who}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm


@dataclass(frozen=True)
class _Batch:
    """What the steps of one update share.

    Attributes:
        rows: the member's.
        advantage: after normalisation and clipping, [n].
        weight: of each row in the loss, [n], above 0.
        stats: what is measured of each row, filled in on the way.
        before: log-probs of the policy that sampled, by row.
        reference: log-probs of the untrained base, by row.
    """

    rows: MemberRows
    advantage: Floats
    weight: Floats
    stats: RowStats
    before: dict[int, Tensor] = field(default_factory=dict)
    reference: dict[int, Tensor] = field(default_factory=dict)


class AgentSide(Side):
    """A policy: of one agent, or of all that share its weights."""

    def __init__(self, member: str, team: AgentTeam, config: LearnerConfig) -> None:
        backbone = team.backbones[team.users[member][0]]
        super().__init__(member, backbone, backbone.parameters(member), config.lr, config)
        self.team = team

    def update(self, rows: MemberRows, advantage: Floats, weight: Floats, factor: float) -> Learned:
        """All passes over a buffer.

        Args:
            rows: the member's, n of them.
            advantage: of each, [n].
            weight: of each in the loss, [n], above 0.
            factor: what the learning rate is multiplied by.

        Raises:
            NonFiniteError: before the step concerned.
        """
        config, every = self.config, np.arange(len(rows))
        self._set_rate(factor)
        batch = _Batch(rows, advantage, weight, RowStats(len(rows)))
        # A row without advantage pulls at nothing, unless it is held to the base or to its entropy.
        regular = config.kl_coef > 0 or config.entropy_coef > 0
        live = every if regular else every[advantage != 0]
        metrics: dict[str, float] = {}
        if config.ratio != "none" and config.old_logprobs == "sampled":
            self._recall(batch, live)
        elif config.ratio != "none":
            metrics["sampler_gap"] = self._look_back(batch, live)
        metrics["prefix_sharing"] = float(self.backbone.packs)
        if config.kl_coef > 0:
            self._look_at_base(batch, live)
        for epoch in range(config.update_epochs):
            for part, scale in self._minibatches(rows, epoch):
                metrics.update(self._learn(batch, part[np.isin(part, live)], scale))
        stats = RowStats(len(rows))
        for found in self.backbone.shards.gathered(batch.stats.found):
            stats.add_known(found)
        return Learned(metrics, stats.found)

    @torch.no_grad()
    def _look_back(self, batch: _Batch, live: Ints) -> float:
        """Teacher-forced log-probs of the policy that sampled; returns how far the sampler's own are from them."""
        worst = 0.0
        for own, scored in self._score(batch.rows, live, entropy=True):
            for i, row in enumerate(own):
                before = scored.logprob[i, scored.mask[i]]
                batch.before[int(row)] = before
                sampled = torch.as_tensor(batch.rows.logprob[row], device=before.device)
                worst = max(worst, float((before - sampled).abs().max()))
            if scored.entropy is not None:
                batch.stats.put("entropy", own, per_reply(scored.entropy, scored.mask, "token_mean"))
        batch.before.update(merged(self.backbone.shards.gathered(batch.before)))
        return max(self.backbone.shards.gathered(worst))

    def _recall(self, batch: _Batch, live: Ints) -> None:
        """The sampler's own log-probs, where the weights that sampled are gone."""
        for row in live:
            noted = torch.as_tensor(batch.rows.logprob[int(row)], device=self.backbone.device)
            batch.before[int(row)] = noted

    @torch.no_grad()
    def _look_at_base(self, batch: _Batch, live: Ints) -> None:
        """Log-probs under the untrained base."""
        for own, scored in self._score(batch.rows, live, reference=True):
            for i, row in enumerate(own):
                batch.reference[int(row)] = scored.logprob[i, scored.mask[i]]
        batch.reference.update(merged(self.backbone.shards.gathered(batch.reference)))

    def _minibatches(self, rows: MemberRows, epoch: int) -> list[tuple[Ints, float]]:
        """Rows dealt out by whole trees, so that siblings stay together, in another order each epoch.

        Returns:
            Rows, and the scale that makes the loss a mean over the part's own trees, per minibatch.
        """
        count, trees, parts = self.config.minibatches, rows.tree, []
        for k in range(count):
            chosen = trees % count == (k + epoch) % count
            if chosen.any():
                parts.append((np.flatnonzero(chosen), len(np.unique(trees)) / len(np.unique(trees[chosen]))))
        return parts

    def _learn(self, batch: _Batch, rows: Ints, scale: float) -> dict[str, float]:
        """One optimizer step on some rows, micro-batch by micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        if not len(rows):  # a gradient of zero is a step, too: the moments decay
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        total, surprisal, tokens = 0.0, 0.0, 0
        for own, scored in self._score(batch.rows, rows, entropy=self.config.entropy_coef > 0):
            loss = self._loss(batch, own, scored, scale)
            total += (value := float(loss.detach()))
            if not np.isfinite(value):  # named here, where fewer rows can be the cause
                raise self._broken(f"loss {value} for {self.member}; rows of {batch.rows.named(own)}")
            loss.backward()
            tokens += int(scored.mask.sum())
            surprisal -= float(scored.logprob.detach().sum())
        found = self.backbone.shards.gathered((total, surprisal, tokens))
        total, surprisal, tokens = (sum(own) for own in zip(*found, strict=True))
        norm = self._step(total, batch.rows.named(rows))
        return {"loss": total, "grad_norm": norm, "surprisal": surprisal / max(tokens, 1)}

    def _loss(self, batch: _Batch, rows: Ints, scored: Scored, scale: float) -> Tensor:
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

    def _score(self, rows: MemberRows, chosen: Ints, **wanted: bool) -> Iterator[tuple[Ints, Scored]]:
        """Batches of the team's choosing, with the rows that each holds."""
        prompts, replies = [rows.prompt[row] for row in chosen], [rows.reply[row] for row in chosen]
        for scored in self.team.score(self.member, prompts, replies, self.budget, **wanted):
            yield chosen[scored.rows], scored


class CriticSide(Side):
    """A critic: one for all agents, or one agent's own."""

    def __init__(self, member: str, critic: Critic, config: LearnerConfig) -> None:
        parameters = critic.parameters(member)
        super().__init__(member, critic.backbones[member], parameters, config.critic_lr, config)
        self.critic = critic
        self._sequences: Sequence[tuple[int, ...]] = ()
        self._before: Floats = np.zeros(0)

    def begin(self, sequences: Sequence[tuple[int, ...]], start: float | None) -> Floats:
        """Values of a buffer's queries, which are kept for the passes over them.

        Args:
            sequences: token ids, Q lists.
            start: value of an untrained head; None leaves it as it is.

        Returns:
            [Q].
        """
        if start is not None:
            self.critic.heads[self.member].set_bias(start)
        self._sequences = sequences
        self._before = self.values()
        return self._before

    def values(self) -> Floats:
        """Values of the queries as they are now, [Q]."""
        return self.critic.valued(self.member, self._sequences, self.budget)

    def fit(self, target: Floats, weight: Floats, factor: float, *, track: bool) -> dict[str, float]:
        """One step on all queries; siblings share a query and its target.

        Args:
            target: of each query, [Q].
            weight: of each in the loss, [Q], not all 0.
            factor: what the learning rate is multiplied by.
            track: first let the head's units follow the targets, where they do (`learner.value_norm`).

        Returns:
            Metrics by name.

        Raises:
            NonFiniteError: before the step.
        """
        critic, config, before = self.critic, self.config, self._before
        self._set_rate(factor)
        self.optimizer.zero_grad(set_to_none=True)
        share = weight / weight.sum()
        if config.value_norm and track:
            self._track(target, share)
        unit = float(critic.heads[self.member].scale) if config.value_norm else 1.0
        use = np.flatnonzero(weight > 0)
        inputs = [self._sequences[int(q)] for q in use]
        total = 0.0
        for chosen, value in critic.score(self.member, inputs, self.budget):
            q = use[chosen]
            goal, part, old = (
                torch.as_tensor(x[q], dtype=torch.float32, device=value.device)
                for x in (target, share, before)
            )
            loss = config.value_coef * value_loss(value, goal, part, old, config.value_clip) / unit**2
            loss.backward()
            total += float(loss.detach())
        total = sum(self.backbone.shards.gathered(total))
        norm = self._step(total, "the whole buffer")
        known = explained_variance(before[use], target[use], weight[use])
        sharing = float(self.backbone.packs)
        return {"loss": total, "grad_norm": norm, "explained_variance": known, "prefix_sharing": sharing}

    def _track(self, target: Floats, share: Floats) -> None:
        """Tell the head the moments of its targets."""
        moments = float((share * target).sum()), float((share * target**2).sum())
        self.critic.heads[self.member].track(*moments)


def sides_of(team: AgentTeam, critic: Critic | None, config: LearnerConfig) -> dict[str, Side]:
    """The sides of all members that learn here, by member."""
    found: dict[str, Side] = {member: AgentSide(member, team, config) for member in team.trained}
    if critic is not None:
        found |= {member: CriticSide(member, critic, config) for member in critic.members}
    return found


def _padded(by_row: Mapping[int, Tensor], rows: Ints, like: Tensor) -> Tensor:
    """Log-probs kept by row as one batch, [B, L], 0 on padding and for rows that were not kept."""
    out = torch.zeros_like(like)
    for i, row in enumerate(rows):
        if int(row) in by_row:
            out[i, : len(by_row[int(row)])] = by_row[int(row)]
    return out
