"""`Critic`: a view of the history × ownership -> values.

For learners. The joint view reads `env.state()`; the local view reads one agent's own history and nothing of its
partners. One critic for all agents gives [Q] values, one per agent gives [Q, A]. Its text is role-labelled
plain text in its own tokenizer, encoded piece by piece as histories grow, so what a turn adds is all that is
tokenised; the paper's m_t (turn and last score) is appended when asked for and never becomes history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from collm_agents.advantages import Queries
from collm_agents.batch import Floats, Rollouts, token_batches
from collm_agents.chat import ChatFormat
from collm_agents.integrity import read
from collm_agents.models.backbone import Backbone
from collm_agents.models.heads import ValueHead
from collm_agents.models.packing import pack
from collm_envs.history import entry

CENTRAL, HEAD = "critic", "value_head.safetensors"
Encoded = dict[str, list[tuple[int, ...]]]


def critic_members(owners: str, agents: Sequence[str]) -> list[str]:
    """Member names of the critics: one `critic`, or one `critic_<agent>` per agent."""
    return [CENTRAL] if owners == "one" else [f"{CENTRAL}_{agent}" for agent in agents]


class Critic:
    """Values of histories.

    Args:
        view: `joint` or `local`.
        owners: `one` or `each`. A local view needs one critic per agent.
        agents: agent names.
        backbones: backbone by member name (`critic_members`), or by agent where they are shared.
        learners: agents that learn; with one critic per agent only they have one. Default: all.
        share: read through each agent's own weights, which the critic's steps then change as well.
        global_info: append turn and last score (the paper's m_t) to the text.
    """

    def __init__(
        self,
        view: str,
        owners: str,
        agents: Sequence[str],
        backbones: Mapping[str, Backbone],
        *,
        learners: Sequence[str] | None = None,
        share: bool = False,
        global_info: bool,
    ) -> None:
        if view == "local" and owners == "one":
            raise ValueError("a local view needs one critic per agent: histories differ")
        self.view, self.owners, self.agents, self.share = view, owners, tuple(agents), share
        own = self.agents if learners is None else tuple(learners)
        self.members = critic_members(owners, own)
        # Whose history each critic reads and whose column it fills; with one critic for all there is no such agent.
        self.agent_of = (
            dict(zip(self.members, map(self.agents.index, own), strict=False)) if owners == "each" else {}
        )
        self.weights_of = dict(zip(self.members, own, strict=True)) if share else {m: m for m in self.members}
        self.backbones = {member: backbones[self.weights_of[member]] for member in self.members}
        self.heads = {m: ValueHead(b.hidden_size).to(b.device) for m, b in self.backbones.items()}
        self.global_info = global_info
        self._formats = {id(b): ChatFormat(b.tokenizer, template="none") for b in self.backbones.values()}

    def encode(self, rollouts: Rollouts, queries: Queries) -> Encoded:
        """Token ids of the queries, for every critic.

        Raises:
            ValueError: when a history does not start with the one before it.
        """
        return {member: self._encode(member, rollouts, queries) for member in self.members}

    def _encode(self, member: str, rollouts: Rollouts, queries: Queries) -> list[tuple[int, ...]]:
        backbone = self.backbones[member]
        form = self._formats[id(backbone)]
        begin = form.beginning
        history: dict[int, tuple[int, ...]] = {}
        points = rollouts.points

        def ids_of(point: int) -> tuple[int, ...]:
            if point not in history:
                before: tuple[int, ...] = ()
                parent = int(points.parent[point])
                text, old = self._text(member, rollouts, point), ""
                if parent >= 0:
                    before, old = ids_of(parent), self._text(member, rollouts, parent)
                if not text.startswith(old):
                    raise ValueError(
                        f"a joint history of {rollouts.tasks[points.tree[point]]} is not append-only"
                    )
                history[point] = before + form.encode(text[len(old) :])
            return history[point]

        found = []
        for q, point in enumerate(queries.point):
            ids = ids_of(int(point))
            if queries.replies is not None:
                turn = int(points.turn[point])
                # A local view is shown its own agent's reply and nothing of the partners'.
                own = None if self.view == "joint" else self.agent_of[member]
                said = (
                    entry(rollouts.agents[a], turn, "says", text)
                    for a, text in sorted(queries.replies[q].items())
                    if own in (None, a)
                )
                ids += form.encode("".join(said))
            tail = form.encode(info_text(points.info[point])) if self.global_info else ()
            # The newest part of a history too long for the context; `overlong` counts them.
            around = len(begin) + len(tail)
            room = (backbone.context_length or len(ids) + around) - around
            found.append(begin + ids[max(0, len(ids) - room) :] + tail)
        return found

    def overlong(self, encoded: Encoded) -> int:
        """Inputs that fill their critic's whole context, so that older history may have been left out."""
        return sum(
            len(ids) >= self.backbones[m].context_length > 0
            for m, inputs in encoded.items()
            for ids in inputs
        )

    def _text(self, member: str, rollouts: Rollouts, point: int) -> str:
        if self.view == "joint":
            return rollouts.points.state[point]
        return rollouts.points.local[point][self.agent_of[member]]

    def forward(self, member: str, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Values of token sequences under one critic: [B]. Gradients flow."""
        return self.heads[member](self.backbones[member].last_hidden(self.weights_of[member], sequences))

    def score(
        self, member: str, sequences: Sequence[Sequence[int]], budget: int
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Values of many sequences under one critic, a batch at a time.

        The critic chooses the batches, so that histories which share a beginning may share its computation.

        Args:
            member: whose values.
            sequences: Q lists of token ids.
            budget: most tokens per batch.

        Yields:
            Indices of the sequences, [B], and their values, [B]; every sequence comes once. Gradients flow, so
            use a batch before asking for the next.
        """
        backbone, weights = self.backbones[member], self.weights_of[member]
        if not backbone.packs:
            batches = token_batches([len(s) for s in sequences], budget)
            for rows in backbone.shards.deal(batches, backbone, weights):
                yield np.array(rows), self.forward(member, [sequences[i] for i in rows])
            return
        packs = pack(sequences, budget, width=backbone.hidden_size)
        for batch in backbone.shards.deal(packs, backbone, weights):
            hidden = backbone.packed_hidden(weights, batch)
            last = torch.tensor([path[-1] for path in batch.path], device=hidden.device)
            yield batch.rows, self.heads[member](hidden[torch.from_numpy(batch.tree).to(hidden.device), last])

    @torch.no_grad()
    def valued(self, member: str, sequences: Sequence[Sequence[int]], budget: int) -> Floats:
        """Values of many sequences under one critic, without gradients.

        Args:
            member: whose values.
            sequences: Q lists of token ids.
            budget: most tokens per forward pass.

        Returns:
            [Q].
        """
        found = np.zeros(len(sequences))
        for rows, value in self.score(member, sequences, budget):
            found[rows] = value.double().cpu().numpy()
        return np.sum(self.backbones[member].shards.gathered(found), axis=0)

    def values(self, encoded: Encoded, budget: int) -> Floats:
        """Values of encoded queries, from `encode`, under all critics, as `joined` has them."""
        return self.joined({member: self.valued(member, own, budget) for member, own in encoded.items()})

    def joined(self, per_member: Mapping[str, Floats]) -> Floats:
        """What an estimator is given of each critic's values, [Q].

        Returns:
            [Q] for one critic, [Q, A] for one per agent; 0 for agents that have none.
        """
        if self.owners == "one":
            (values,) = per_member.values()
            return values
        found = np.zeros((len(next(iter(per_member.values()))), len(self.agents)))
        for member, values in per_member.items():
            found[:, self.agent_of[member]] = values
        return found

    def own(self, member: str, per_query: Floats) -> Floats:
        """One critic's part of what an estimator gives for all: [Q] or [Q, A] -> [Q]."""
        return per_query if per_query.ndim == 1 else per_query[:, self.agent_of[member]]

    def save(self, member: str, folder: Path) -> None:
        """Write one critic: its head, and its model where that is no agent's."""
        if not self.share:
            self.backbones[member].save(member, folder)
        folder.mkdir(parents=True, exist_ok=True)
        head = {k: v.detach().cpu().contiguous() for k, v in self.heads[member].state_dict().items()}
        save_file(head, folder / HEAD)

    def load(self, member: str, folder: Path) -> None:
        """Read it back."""
        if not self.share:
            self.backbones[member].load(member, folder)
        self.heads[member].load_state_dict(read(folder / HEAD, load_file))

    def parameters(self, member: str) -> dict[str, torch.nn.Parameter]:
        """What one critic trains: its member of the backbone and its head."""
        head = {f"head.{name}": p for name, p in self.heads[member].named_parameters()}
        return {**self.backbones[member].parameters(self.weights_of[member]), **head}


def info_text(info: Mapping[str, float]) -> str:
    """The paper's m_t as text: turn out of horizon, last score out of the greatest."""
    return (
        f"turn {int(info['turn']) + 1} of {int(info['horizon'])} "
        f"score {float(info['score']):.2f} of {float(info['high']):.2f}\n"
    )
