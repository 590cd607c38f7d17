"""`AgentTeam`: which agent uses which model, and how replies are drawn and scored.

For collectors and learners. Each agent uses a member of a `Backbone` (`members`); teams of different bases and
tokenizers are several backbones on the same code path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collm_agents.batch import token_batches
from collm_agents.chat import ChatFormat, History
from collm_agents.clock import Clock
from collm_agents.config import SamplingConfig, TeamConfig
from collm_agents.draws import DrawKey
from collm_agents.finite import check_drawn
from collm_agents.losses import masked_log_softmax, token_entropy
from collm_agents.models.backbone import BASE, Backbone
from collm_agents.models.decode import Row, Setting, decode, plainly
from collm_agents.models.graphs import recording
from collm_agents.models.kvcache import PrefixStore
from collm_agents.models.logprob import token_logprobs
from collm_agents.models.packing import pack
from collm_agents.models.sampler import Drawn
from collm_envs.errors import InputError, SettingError

# Most prompt tokens computed at once, by whether it is on a CPU: there larger batches miss its caches.
PREFILL_TOKENS = {True: 2048, False: 16384}


@dataclass(frozen=True)
class Request:
    """One reply asked for.

    Attributes:
        agent: who replies.
        prompt: token ids of everything the agent has seen and said.
        key: what its draws are keyed by; None takes the likeliest tokens.
    """

    agent: str
    prompt: tuple[int, ...]
    key: DrawKey | None


@dataclass(frozen=True)
class Reply:
    """One reply given: its text, token ids, the sampler's log-probs [L], and whether the token limit cut it."""

    text: str
    ids: tuple[int, ...]
    logprob: np.ndarray
    cut: bool


def scripted_reply(text: str) -> Reply:
    """What a scripted agent says: text without tokens."""
    return Reply(text, (), np.zeros(0, dtype=np.float32), cut=False)


@dataclass(frozen=True)
class Scored:
    """A batch of teacher-forced rows.

    Attributes:
        rows: which ones, [B].
        logprob: log-probs of their tokens, [B, L], 0 on padding.
        mask: reply tokens, [B, L].
        entropy: entropy of each token's distribution in nats, [B, L], 0 on padding; None where not asked for.
    """

    rows: np.ndarray
    logprob: Tensor
    mask: Tensor
    entropy: Tensor | None = None


class AgentTeam:
    """The agents of one environment.

    Args:
        agents: agent names in the environment's order.
        backbones: backbone by agent; scripted ones have none.
        members: the backbone's member that each agent uses; agents that name one share its weights. Default:
            each agent's own, of its name.
        config: templates, sampling and what happens to overlong prompts.
        scripted: kind of script by agent, for those that are no models; they have no memory and no weights.
        frozen: agents that are models and never learn.
        num_turns: turns of an episode; templates that cannot render later turns matter only beyond one.
        batch_rows: most rows decoded at once.
        clock: where the time goes is counted here.
    """

    def __init__(
        self,
        agents: Sequence[str],
        backbones: Mapping[str, Backbone],
        config: TeamConfig,
        *,
        members: Mapping[str, str] | None = None,
        scripted: Mapping[str, str] | None = None,
        frozen: Collection[str] = (),
        num_turns: int = 1,
        batch_rows: int = 512,
        clock: Clock | None = None,
    ) -> None:
        self.agents = tuple(agents)
        self.scripted = dict(scripted or {})
        self.models = tuple(agent for agent in agents if agent not in self.scripted)
        self.member = {agent: (members or {}).get(agent, agent) for agent in self.models}
        self.users = {m: tuple(a for a in self.models if self.member[a] == m) for m in self.member.values()}
        self.learners = tuple(agent for agent in self.models if agent not in frozen)
        self.trained = tuple(dict.fromkeys(self.member[agent] for agent in self.learners))
        self.backbones = dict(backbones)
        self.sampling: SamplingConfig = config.sampling
        if not self.sampling.max_new_tokens:
            raise SettingError("team.sampling.max_new_tokens is open; config.resolved() fills it in")
        self.overflow = config.prompt_overflow
        self.batch_rows, self.clock = batch_rows, clock or Clock()
        self.store, self._holding = PrefixStore(config.kv_budget * 1_000_000), False
        self.graphs = recording(config.cuda_graphs, [b.device for b in self.backbones.values()])
        formats: dict[int, ChatFormat] = {}
        self.formats: dict[str, ChatFormat] = {}
        self.limits: dict[str, int] = {}
        for agent in self.models:
            backbone = self.backbones[agent]
            self.formats[agent] = formats.setdefault(
                id(backbone),
                ChatFormat(
                    backbone.tokenizer,
                    template=config.template,
                    enable_thinking=config.enable_thinking,
                    rewriting=config.rewriting_template,
                    multi_turn=num_turns > 1,
                    stop_ids=backbone.stop_ids,
                ),
            )
            known = backbone.context_length
            if known and config.max_context > known:
                raise InputError(
                    f"team.max_context={config.max_context}: the model of agent {agent} was made for {known} tokens"
                )
            context = config.max_context or known or 2048
            self.limits[agent] = context - self.sampling.max_new_tokens
            if self.limits[agent] < 8:
                raise InputError(
                    f"a context of {context} tokens leaves no room beside max_new_tokens="
                    f"{self.sampling.max_new_tokens} (agent {agent}): raise team.max_context, or lower "
                    "team.sampling.max_new_tokens"
                )

    @contextlib.contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """Inside, the time that drawing takes is counted on another clock."""
        before, self.clock = self.clock, clock
        try:
            yield
        finally:
            self.clock = before

    def observe(self, agent: str, history: History, text: str) -> History | None:
        """An agent's memory with a new observation; None where the episode has to stop (`History.observe`)."""
        if agent in self.scripted:
            return history
        return history.observe(text, self.formats[agent], self.limits[agent], self.overflow)

    def act(
        self, requests: Sequence[Request], on_reply: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """Draw one reply per request.

        Args:
            requests: in any order and number; a reply depends on its own request only.
            on_reply: told a request's number and its reply as soon as it is drawn, in any order.

        Returns:
            Replies in the order of the requests.

        Raises:
            NonFiniteError: for logits that are not finite; names agent, task, turn and branch.
        """
        replies: list[Reply | None] = [None] * len(requests)

        def tell(number: int, agent: str, drawn: Drawn) -> None:
            check_drawn(agent, requests[number].key, drawn.logprob, self._weights)
            text = self.formats[agent].decode(drawn.ids)
            replies[number] = reply = Reply(text, drawn.ids, drawn.logprob, drawn.cut)
            if on_reply is not None:
                on_reply(number, reply)

        for backbone in dict.fromkeys(self.backbones[agent] for agent in self.models):
            users = [agent for agent in self.models if self.backbones[agent] is backbone]
            rows = [i for i, request in enumerate(requests) if request.agent in users]
            rows.sort(key=lambda i: len(requests[i].prompt))  # like lengths together: less padding
            members = dict.fromkeys(self.member[requests[i].agent] for i in rows)
            together = backbone.together and backbone.decodable() if rows else False
            for shared in [tuple(members)] if together else [(member,) for member in members]:
                own = [i for i in rows if self.member[requests[i].agent] in shared]
                for start in range(0, len(own), self.batch_rows):
                    self._act(backbone, requests, own[start : start + self.batch_rows], tell)
        unknown = {r.agent for r in requests} - set(self.models)
        if unknown:
            raise KeyError(f"the team has no model for agent {unknown.pop()!r}")
        if not self._holding:
            self._release()
        return [reply for reply in replies if reply is not None]

    def _weights(self) -> dict[str, Iterable[Tensor]]:
        return {m: self.backbones[users[0]].parameters(m).values() for m, users in self.users.items()}

    def _act(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        numbers: Sequence[int],
        tell: Callable[[int, str, Drawn], None],
    ) -> None:
        """Draw some requests in one batch: of members that may share one."""
        asked = [requests[i] for i in numbers]
        form, count = self.formats[asked[0].agent], self.sampling.max_new_tokens
        rows = [
            Row(self.member[r.agent], r.prompt, None if r.key is None else r.key.uniforms(count))
            for r in asked
        ]
        setting = Setting(
            self.sampling,
            form.stop_ids,
            form.banned,
            backbone.pad_id,
            store=self.store if self._holding else None,
            clock=self.clock,
            budget=PREFILL_TOKENS[torch.device(backbone.device).type == "cpu"],
        )
        draw = decode if (fits := backbone.decodable()) else plainly
        members = [m for m in backbone.members if any(row.member == m for row in rows)]  # in a fixed order
        with contextlib.ExitStack() as stack:
            model, adapters = stack.enter_context(backbone.drawing(members))
            steps = None
            if fits and self.graphs is not None:
                adapters, steps = stack.enter_context(self.graphs.opened(model, adapters))
            setting = replace(setting, adapters=adapters, steps=steps)
            draw(model, rows, setting, lambda i, drawn: tell(numbers[i], asked[i].agent, drawn))

    @contextlib.contextmanager
    def holding(self) -> Iterator[PrefixStore]:
        """Inside, what a turn computed is kept for later turns that go on from it; weights must not change.

        Yields:
            The store, which is emptied at the end.
        """
        self._holding = True
        try:
            yield self.store
        finally:
            self._holding = False
            self._release()

    def _release(self) -> None:
        self.store.release()
        if self.graphs is not None:
            self.graphs.release()

    def save(self, member: str, folder: Path) -> None:
        """Write a member's weights as `Backbone.save` does."""
        self.backbones[self.users[member][0]].save(member, folder)

    def load(self, member: str, folder: Path) -> None:
        """Read them back, as `Backbone.load` does."""
        self.backbones[self.users[member][0]].load(member, folder)

    def logprobs(
        self, agent: str, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced log-probs of replies: temperature-scaled, untruncated, special tokens masked.

        This, not the sampler's, is what ratios are taken of.

        Args:
            agent: whose policy.
            prompts: B lists of token ids.
            replies: B lists of token ids.

        Returns:
            Log-probs, [B, L], 0 on padding, and the mask of reply tokens, [B, L]. Gradients flow.
        """
        scored = self._scored(agent, self.member[agent], prompts, replies, entropy=False)
        return scored.logprob, scored.mask

    def _scored(
        self,
        agent: str,
        weights: str,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        *,
        entropy: bool,
    ) -> Scored:
        """One batch under the given weights of the agent's backbone."""
        logits = self.backbones[agent].reply_logits(weights, prompts, replies)
        longest = logits.shape[1]
        target = torch.zeros((len(replies), longest), dtype=torch.long)
        mask = torch.zeros((len(replies), longest), dtype=torch.bool)
        for i, reply in enumerate(replies):
            target[i, : len(reply)] = torch.tensor(reply)
            mask[i, : len(reply)] = True
        target, mask = target.to(logits.device), mask.to(logits.device)
        banned = self.formats[agent].banned.to(logits.device)
        logp = masked_log_softmax(logits, self.sampling.temperature, banned)
        picked = logp.gather(-1, target[..., None]).squeeze(-1).masked_fill(~mask, 0.0)
        spread = token_entropy(logp).masked_fill(~mask, 0.0) if entropy else None
        return Scored(np.arange(len(replies)), picked, mask, spread)

    def score(
        self,
        member: str,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        budget: int,
        *,
        entropy: bool = False,
        reference: bool = False,
    ) -> Iterator[Scored]:
        """Log-probs of many rows of one member's agents, a batch at a time.

        The team chooses the batches, so that rows which share a beginning may share its computation.

        Args:
            member: whose policy.
            prompts: N lists of token ids.
            replies: N lists of token ids.
            budget: most tokens per batch.
            entropy: also give the entropy of each token's distribution.
            reference: under the base's weights as they were before training, in place of the member's.

        Yields:
            Batches; every row is in exactly one. Gradients flow, so use a batch before asking for the next.
        """
        agent = self.users[member][0]
        weights = BASE if reference else member
        if not prompts:
            return
        if self.backbones[agent].packs:
            yield from self._scored_packed(agent, weights, prompts, replies, budget, entropy=entropy)
            return
        lengths = [len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)]
        backbone = self.backbones[agent]
        for rows in backbone.shards.deal(token_batches(lengths, budget), backbone, weights):
            scored = self._scored(
                agent, weights, [prompts[i] for i in rows], [replies[i] for i in rows], entropy=entropy
            )
            yield replace(scored, rows=np.array(rows))

    def _scored_packed(
        self,
        agent: str,
        weights: str,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        budget: int,
        *,
        entropy: bool,
    ) -> Iterator[Scored]:
        """The same as `_scored` in batches of trees: what rows share is computed once."""
        backbone = self.backbones[agent]
        sequences = [(*prompt, *reply) for prompt, reply in zip(prompts, replies, strict=True)]
        packs = pack(sequences, budget, width=backbone.hidden_size)
        for batch in backbone.shards.deal(packs, backbone, weights):
            hidden = backbone.packed_hidden(weights, batch)
            lengths = np.array([len(replies[row]) for row in batch.rows])
            # The state before a token predicts it.
            place = np.concatenate([path[-n - 1 : -1] for path, n in zip(batch.path, lengths, strict=True)])
            tree = torch.from_numpy(np.repeat(batch.tree, lengths)).to(hidden.device)
            target = torch.tensor([id for row in batch.rows for id in replies[row]], device=hidden.device)
            head = backbone.head(weights, self.sampling.temperature, self.formats[agent].banned)
            assert head is not None
            found, spread = token_logprobs(
                hidden[tree, torch.from_numpy(place).to(hidden.device)], target, head, entropy=entropy
            )
            mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).to(hidden.device)
            logprob = torch.zeros(mask.shape, device=hidden.device).masked_scatter(mask, found)
            yield Scored(
                batch.rows,
                logprob,
                mask,
                None if spread is None else torch.zeros_like(logprob).masked_scatter(mask, spread),
            )
