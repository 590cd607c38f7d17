"""How much memory a run will take, told before any weights are loaded.

For plans. Some trees are played with made-up replies of full length, so prompts, histories and their sharing are
the environment's own; one update's largest batches then go through the real team and critic on tensors without
data (`models.hollow`). What decoding takes is arithmetic on the batches that were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from collm_agents.batch import Rollouts, token_batches
from collm_agents.critic import Critic
from collm_agents.draws import derive
from collm_agents.evaluate import TASKS_AT_ONCE, extent_of
from collm_agents.learner import Learner
from collm_agents.models import loading
from collm_agents.models.backbone import Backbone
from collm_agents.models.graphs import column_bucket, row_bucket
from collm_agents.models.hollow import LiveBytes, hollow
from collm_agents.models.packing import pack
from collm_agents.models.sampler import Drawn
from collm_agents.sides import token_budget
from collm_agents.team import PREFILL_TOKENS, AgentTeam, Request

if TYPE_CHECKING:
    from collm_agents.experiment import Experiment

ALL = 10**9  # tokens: one batch
DRAWING = 28  # bytes per logit: raw, scaled, log-softmax and their sums in float64
TREES = 8  # played at most; what comes after is much like them
MOMENTS = {"adamw": 8, "adamw8bit": 2, "adafactor": 0}  # bytes per trained parameter
# What a CPU's heap holds beyond tensors, as measured (benchmarks/RUNS.md): what libraries keep once they were
# used, holes that an update's small blocks leave, and part of what sampling took. An accelerator's allocator is
# asked for tensors' bytes alone. Recomputed activations leave more holes: each layer's come and go twice.
LIBRARIES, HOLES, RECOMPUTED_HOLES, LEFT = 25 * 10**6, 0.65, 1.2, 0.5


@dataclass(frozen=True)
class Footprint:
    """Bytes by part. Sampling and learning take turns; the rest is there throughout.

    Attributes:
        weights: of all models, adapters, heads and reference copies.
        optimizer: moments of all that is trained, from the first step on.
        sampling: keys and values, those kept between turns, logits and prefill of the largest decode batch.
        gradients: of the member whose update takes most; one is updated at a time.
        activations: what that update keeps for its backward pass, logits and temporaries included.
        slack: what a CPU's heap holds beyond that.
    """

    weights: float
    optimizer: float
    sampling: float
    gradients: float
    activations: float
    slack: float

    @property
    def peak(self) -> float:
        """The most at any time."""
        return (
            self.weights + self.optimizer + max(self.sampling, self.gradients + self.activations) + self.slack
        )


class RehearsingTeam(AgentTeam):
    """A team that says something of full length made of words it was shown, and notes what decoding would take.

    Attributes:
        batches: (backbone, rows, tokens of the longest prompt) of every decode batch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[tuple[Backbone, int, int]] = []
        for backbone in dict.fromkeys(self.backbones.values()):
            backbone.assume_fast()

    def _act(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        numbers: Sequence[int],
        tell: Callable[[int, str, Drawn], None],
    ) -> None:
        count = self.sampling.max_new_tokens
        self.batches.append((backbone, len(numbers), max(len(requests[i].prompt) for i in numbers)))
        special = set(backbone.tokenizer.all_special_ids)
        for i in numbers:
            request = requests[i]
            key = request.key.parts if request.key is not None else (i,)
            known = [id for id in request.prompt if id not in special] or [0]
            rng = np.random.default_rng(derive(*key))
            ids = tuple(known[place] for place in rng.integers(0, len(known), size=count))
            tell(i, request.agent, Drawn(ids, np.zeros(count, dtype=np.float32), cut=True))


def rehearse(experiment: Experiment) -> Footprint:
    """What a run of an experiment takes; no weights are loaded.

    Args:
        experiment: its environment is played on.
    """
    config, branching = experiment.config, experiment.branching
    built = experiment.build(rehearsal=True)
    tasks, trees = experiment.env.tasks, min(TREES, experiment.tasks_per_update)
    collector = experiment.collector(built.team, built.clock)
    rollouts = collector.collect([tasks[i % len(tasks)] for i in range(trees)], 0)
    held_out = experiment.eval_env().tasks
    extents = [
        extent_of(config.eval, held_out, config.eval.tasks),
        extent_of(config.eval, held_out, config.eval.final_tasks, last=True),
    ]
    judged = max(min(len(played), TASKS_AT_ONCE) * episodes for played, episodes in extents)
    leaves = math.prod(branching)
    most = max(experiment.tasks_per_update * leaves, judged)
    item = torch.finfo(loading.pick_dtype(config.team.dtype, experiment.device)).bits / 8
    team, kind = built.team, torch.device(experiment.device).type
    assert isinstance(team, RehearsingTeam)
    recorded = kind == "cuda" and config.team.cuda_graphs != "false"
    sampling = sampling_bytes(team, most / (trees * leaves), item, kind, len(branching) > 1, recorded)
    return footprint(team, built.critic, built.learner, rollouts, experiment.device, sampling)


def footprint(
    team: AgentTeam,
    critic: Critic | None,
    learner: Learner,
    rollouts: Rollouts,
    device: str,
    sampling: float,
) -> Footprint:
    """All parts from one, by learning from some trees.

    Args:
        team: the agents, made on `meta`.
        critic: or None; on `meta` as well. All are of no use afterwards.
        learner: of both.
        rollouts: trees of full length.
        device: where the run will be; it decides the token budget.
        sampling: bytes that decoding takes.
    """
    backbones = list(
        dict.fromkeys([*team.backbones.values(), *(critic.backbones.values() if critic else ())])
    )
    modules = [*(model for backbone in backbones for model in backbone.models())]
    modules += critic.heads.values() if critic else []
    everything = {id(p): p for module in modules for p in module.parameters()}
    weights = _bytes(everything.values())
    trained = sum(_bytes(side.parameters()) for side in learner.sides.values())
    members = _members(team, critic, learner, rollouts)
    with hollow(modules):
        for backbone in backbones:
            backbone.device = "cpu"
        work = [_update(member, token_budget(learner.config, device)) for member in members]
    gradients, activations, small = max(work, key=sum, default=(0, 0, 0))
    cpu = torch.device(device).type == "cpu"
    holes = RECOMPUTED_HOLES if learner.config.gradient_checkpointing else HOLES
    return Footprint(
        weights=weights,
        optimizer=trained / 4 * MOMENTS[learner.config.optimizer],
        sampling=sampling,
        gradients=gradients,
        activations=activations,
        slack=LIBRARIES + holes * small + LEFT * min(sampling, activations) if cpu else 0.0,
    )


def sampling_bytes(
    team: RehearsingTeam, scale: float, item: float, kind: str, several: bool, recorded: bool = False
) -> float:
    """Bytes that decoding takes at most, by the batches that the rehearsal asked for.

    Args:
        team: having played.
        scale: times as many rows as there were.
        item: bytes of a number.
        kind: of device.
        several: whether turns follow that take up what earlier ones computed.
        recorded: whether decode steps have the shapes of buckets.
    """
    limit, found, kept = team.sampling.max_new_tokens, 0.0, 0.0
    for backbone, rows, longest in team.batches:
        text = backbone.config.get_text_config()
        heads = text.num_attention_heads
        own = getattr(text, "num_key_value_heads", None) or heads
        size = item * (getattr(text, "head_dim", None) or text.hidden_size // heads)
        rows = min(team.batch_rows, round(rows * scale))
        held = rows * (longest + limit)
        if recorded:
            held = row_bucket(rows) * column_bucket(longest + limit)
        state = held * 2 * text.num_hidden_layers * own * size
        # One layer's keys and values are repeated for each query head; logits and what is drawn from.
        repeated = held * 2 * heads * size if own < heads else 0.0
        drawing = max(repeated, rows * text.vocab_size * DRAWING)
        # Prompts are computed some at a time: their keys and values, and what one layer makes of them.
        fed = min(PREFILL_TOKENS[kind == "cpu"], rows * longest)
        inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        prompts = fed * (state / held + (3 * inner + 8 * text.hidden_size) * item)
        found = max(found, state + drawing + prompts)
        kept += state
    return found + (min(kept, team.store.budget) if several else 0.0)


@dataclass(frozen=True)
class _Member:
    """One member's rows: what it reads, what gives a loss for some of them, and what it trains."""

    backbone: Backbone
    sequences: Sequence[Sequence[int]]
    loss: Callable[[np.ndarray], Tensor]
    trained: Callable[[], dict[str, torch.nn.Parameter]]


def _members(team: AgentTeam, critic: Critic | None, learner: Learner, rollouts: Rollouts) -> list[_Member]:
    found = [_agent(team, member, rollouts, learner.config.entropy_coef > 0) for member in team.trained]
    queries = learner.estimator.critic_queries(rollouts)
    if critic is not None and queries is not None:
        found += [
            _judge(critic, member, inputs) for member, inputs in critic.encode(rollouts, queries).items()
        ]
    return found


def _agent(team: AgentTeam, member: str, rollouts: Rollouts, entropy: bool) -> _Member:
    agents = [rollouts.agents.index(agent) for agent in team.users[member]]
    own = np.flatnonzero(np.isin(rollouts.rows.agent, agents))
    prompts, replies = [rollouts.rows.prompt[i] for i in own], [rollouts.rows.reply[i] for i in own]
    backbone = team.backbones[team.users[member][0]]

    def loss(chosen: np.ndarray) -> Tensor:
        picked = [prompts[i] for i in chosen], [replies[i] for i in chosen]
        (scored,) = team.score(member, *picked, ALL, entropy=entropy)
        return scored.logprob.sum() + (0.0 if scored.entropy is None else scored.entropy.sum())

    sequences = [(*p, *r) for p, r in zip(prompts, replies, strict=True)]
    return _Member(backbone, sequences, loss, partial(backbone.parameters, member))


def _judge(critic: Critic, member: str, inputs: Sequence[Sequence[int]]) -> _Member:
    def loss(chosen: np.ndarray) -> Tensor:
        ((_, value),) = critic.score(member, [inputs[i] for i in chosen], ALL)
        return value.sum()

    return _Member(critic.backbones[member], inputs, loss, partial(critic.parameters, member))


def _update(member: _Member, budget: int) -> tuple[int, int, int]:
    """Bytes of gradients, of all else that an update's passes hold at most, and those of all in small blocks."""
    if member.backbone.packs:
        packs = pack(member.sequences, budget, width=member.backbone.hidden_size)
        batches = [(batch.ids.size, batch.rows) for batch in packs]
    else:
        lengths = np.array([len(s) for s in member.sequences])
        rows = [np.array(batch) for batch in token_batches(lengths.tolist(), budget)]
        batches = [(len(own) * int(lengths[own].max()), own) for own in rows]
    batches.sort(key=lambda batch: -batch[0])
    trained = list(member.trained().values())
    with LiveBytes() as live:
        live.known(trained)
        for _, own in batches[:2]:  # the second one has the first one's gradients beside it
            member.loss(own).backward()
    gradients = _bytes(p.grad for p in trained if p.grad is not None)
    for parameter in trained:
        parameter.grad = None
    return gradients, max(0, live.peak - gradients), live.small


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
