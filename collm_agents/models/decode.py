"""The fast decode loop: replies for many prompts on any Hugging Face causal LM.

For teams. Each distinct prompt is computed once and its keys and values are copied to the rows that share it;
what earlier turns computed is taken up where prompts go on from it (`kvcache`); keys and values are written in
place; finished rows leave the batch. Rows of several adapters may share a batch (`grouped`). What is drawn equals
`sampler.draw`, its slow twin: a row's reply depends on its prompt, its uniforms and its weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collm_agents.clock import Clock
from collm_agents.config import SamplingConfig
from collm_agents.losses import masked_log_softmax
from collm_agents.models import sampler
from collm_agents.models.attention import one_token_at_a_time
from collm_agents.models.graphs import Steps
from collm_agents.models.grouped import GroupedAdapters
from collm_agents.models.kvcache import BufferCache, Prefix, PrefixStore
from collm_agents.models.masks import Masks
from collm_agents.models.sampler import Drawn, gather, inverse_cdf, truncate

DENSE = 0.75  # the batch is made smaller once at most this share of it is unfinished
POLL = 8  # tokens between looks at an accelerator's results: each look waits for it


@dataclass(frozen=True)
class Row:
    """One reply to draw.

    Attributes:
        member: whose weights.
        prompt: token ids.
        uniforms: draws in [0, 1), one per token; None takes the likeliest tokens.
    """

    member: str
    prompt: Sequence[int]
    uniforms: np.ndarray | None


@dataclass(frozen=True)
class Setting:
    """How a batch is drawn.

    Attributes:
        sampling: temperature, truncation and the longest reply.
        stop_ids: tokens that end a reply.
        banned: tokens of probability 0, [V] bool.
        pad_id: fills padding.
        adapters: the members' adapters where rows of several share the batch.
        store: what earlier turns computed; finished rows are added to it.
        clock: prefill is counted apart here.
        budget: most tokens of prompts computed at once.
        steps: of static shape, for accelerators; None takes each step as it comes.
    """

    sampling: SamplingConfig
    stop_ids: set[int]
    banned: Tensor
    pad_id: int
    adapters: GroupedAdapters | None = None
    store: PrefixStore | None = None
    clock: Clock = field(default_factory=Clock)
    budget: int = 2048
    steps: Steps | None = None


Tell = Callable[[int, Drawn], None]


@torch.no_grad()
def decode(model: Any, rows: Sequence[Row], setting: Setting, tell: Tell) -> None:
    """Draw one reply per row.

    Args:
        model: a Hugging Face causal LM that `misfit` finds nothing wrong with.
        rows: what to draw; all in one batch.
        setting: how.
        tell: told a row's number and its reply as soon as it is known to be finished, in any order.
    """
    with setting.clock.phase("prefill"):
        batch = _Batch(model, rows, setting, tell)
        logits = batch.prefill()
        if logits.is_cuda:
            torch.cuda.synchronize(logits.device)  # or its time would be counted as decoding
    poll = poll_every(logits.device)
    limit = setting.sampling.max_new_tokens
    with one_token_at_a_time(model):
        for step in range(limit):
            batch.draw(logits, step)
            if step + 1 == limit:
                batch.finish(step, everything=True)
            elif (step + 1) % poll == 0 and batch.finish(step):
                return
            elif step + 1 < limit:
                logits = batch.forward(step)


def poll_every(device: torch.device) -> int:
    """Tokens between looks at which rows have ended."""
    return 1 if device.type == "cpu" else POLL


def plainly(model: Any, rows: Sequence[Row], setting: Setting, tell: Tell) -> None:
    """`decode` for models that it does not fit: by the slow loop, sampled and greedy rows apart."""
    for greedy in (False, True):
        own = [i for i, row in enumerate(rows) if (row.uniforms is None) is greedy]
        if not own:
            continue
        if setting.adapters:
            owners = [setting.adapters.members.index(rows[i].member) for i in own]
            setting.adapters.assign(torch.tensor(owners, device=next(model.parameters()).device))
        zeros = np.zeros(setting.sampling.max_new_tokens)
        drawn = sampler.draw(
            model,
            [rows[i].prompt for i in own],
            np.stack([zeros if (u := rows[i].uniforms) is None else u for i in own]),
            setting.sampling,
            stop_ids=setting.stop_ids,
            banned=setting.banned,
            pad_id=setting.pad_id,
            greedy=greedy,
        )
        for i, reply in zip(own, drawn, strict=True):
            tell(i, reply)


class _Batch:
    """Rows that are being drawn, as tensors that shrink when rows finish.

    Columns: prompts end in column `width`, and token t of a reply stands in column `width + t`.
    """

    def __init__(self, model: Any, rows: Sequence[Row], setting: Setting, tell: Tell) -> None:
        self.model, self.all, self.setting, self.tell = model, rows, setting, tell
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.masks = Masks(model.config)
        known = setting.adapters.members if setting.adapters else [row.member for row in rows]
        self.members = list(dict.fromkeys(known))
        self.limit = setting.sampling.max_new_tokens
        self.width = max(len(row.prompt) for row in rows)
        self.number = np.arange(len(rows))  # of each row of the batch
        self.told = np.zeros(len(rows), dtype=bool)
        buffers = setting.steps.cache if setting.steps else BufferCache
        self.cache = buffers(self.width + self.limit, self.width)
        lengths = [len(row.prompt) for row in rows]
        self.length = torch.tensor(lengths, device=self.device)
        self.owner = torch.tensor([self.members.index(row.member) for row in rows], device=self.device)
        self.valid: Tensor | None = None
        if min(lengths) < self.width:
            column = torch.arange(self.width + self.limit, device=self.device)
            self.valid = column >= self.width - self.length[:, None]
        draws = np.stack([np.zeros(self.limit) if r.uniforms is None else r.uniforms for r in rows])
        self.uniforms = torch.as_tensor(draws, dtype=torch.float64, device=self.device)
        greedy = [row.uniforms is None for row in rows]
        self.some_greedy, self.all_greedy = any(greedy), all(greedy)
        self.greedy = torch.tensor(greedy, device=self.device)
        self.banned = setting.banned.to(self.device)
        self.stops = torch.tensor(sorted(setting.stop_ids), device=self.device)
        self.tokens = torch.zeros((len(rows), self.limit), dtype=torch.long, device=self.device)
        self.logprob = torch.zeros((len(rows), self.limit), device=self.device)
        self.done = torch.zeros(len(rows), dtype=torch.bool, device=self.device)

    # -- prompts ------------------------------------------------------------------------------------------------

    def prefill(self) -> Tensor:
        """Compute all prompts; returns next-token logits, [B, V]."""
        users: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for i, row in enumerate(self.all):
            users.setdefault((row.member, tuple(row.prompt)), []).append(i)
        store = self.setting.store
        lengths = {member: store.lengths(member) if store else [] for member in self.members}
        found = {
            key: store.find(*key, lengths[key[0]]) if store and lengths[key[0]] else None for key in users
        }
        # Those with as much left to compute together: a group computes as many tokens of each.
        left = {key: len(key[1]) - (place.length if place else 0) for key, place in found.items()}
        order = sorted(users, key=lambda key: (left[key], len(key[1])))
        logits: Tensor | None = None
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * left[order[end]] <= self.setting.budget:
                end += 1
            group = order[start:end]
            fresh = self._prompts(group, [found[key] for key in group], left[group[-1]])
            if logits is None:
                logits = fresh.new_zeros((len(self.all), fresh.shape[-1]))
            source = [i for i, key in enumerate(group) for _ in users[key]]
            target = torch.tensor([row for key in group for row in users[key]], device=self.device)
            logits[target] = fresh[torch.tensor(source, device=self.device)]
            self._expand(target, torch.tensor(source, device=self.device))
            start = end
        del self.group
        self._seat()
        assert logits is not None
        return logits

    def _prompts(
        self, group: Sequence[tuple[str, tuple[int, ...]]], found: Sequence[Prefix | None], new: int
    ) -> Tensor:
        """Compute the last `new` tokens of some prompts, and take what comes before from where it was found."""
        width = max(len(prompt) for _, prompt in group)
        self.group = BufferCache(width, width - new)
        ids = torch.full((len(group), new), self.setting.pad_id)
        for i, ((_, prompt), place) in enumerate(zip(group, found, strict=True)):
            tail = prompt[-new:]
            ids[i, new - len(tail) :] = torch.tensor(tail)
            if place is not None and len(prompt) > new:
                if not self.group.layers:
                    self.group.like(place.slab, len(group))
                place.copy_to(self.group, i, width - len(prompt), len(prompt) - new)
        length = torch.tensor([len(prompt) for _, prompt in group], device=self.device)
        column = torch.arange(width, device=self.device)
        position = (column[width - new :] - (width - length[:, None])).clamp(min=0)
        ragged = any(len(prompt) < width for _, prompt in group)
        mask = None
        if ragged or new < width or self.masks.window:
            mask = self.masks.prefill(column >= width - length[:, None], new, self.dtype)
        if self.setting.adapters:
            owners = [self.members.index(member) for member, _ in group]
            self.setting.adapters.assign(torch.tensor(owners, device=self.device))
        return self._call(ids.to(self.device), position, mask, self.group)

    def _expand(self, target: Tensor, source: Tensor) -> None:
        """Copy a group of prompts to the rows that share them."""
        if not self.cache.layers:
            self.cache.like(self.group.tensors, len(self.all))
        span = slice(self.width - self.group.width, self.width)
        for mine, theirs in zip(self.cache.tensors, self.group.tensors, strict=True):
            for into, out in zip(mine, theirs, strict=True):
                into[:, :, span].index_copy_(0, target, out.index_select(0, source))

    # -- replies ------------------------------------------------------------------------------------------------

    def forward(self, step: int) -> Tensor:
        """Feed each row's token of a step; returns next-token logits, [B, V]."""
        if self.setting.steps:
            self.cache.length = self.width + step + 1
            return self.setting.steps(self.tokens[:, step], self.width + step)
        mask = self.masks.step(self.valid, self.width + step + 1, self.device, self.dtype)
        return self._call(self.tokens[:, step : step + 1], (self.length + step)[:, None], mask, self.cache)

    def _call(self, ids: Tensor, position: Tensor, mask: Any, cache: BufferCache) -> Tensor:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.length += ids.shape[1]
        return out.logits[:, -1]

    def draw(self, logits: Tensor, step: int) -> None:
        """Draw each row's token of a step."""
        sampling = self.setting.sampling
        full = masked_log_softmax(logits, sampling.temperature, self.banned)
        logp = full
        if not self.all_greedy:
            logp = truncate(full, sampling.top_p, sampling.top_k)
            token = inverse_cdf(logp, self.uniforms[:, step])
        if self.some_greedy:
            likeliest = full.argmax(-1)
            token = likeliest if self.all_greedy else torch.where(self.greedy, likeliest, token)
            logp = torch.where(self.greedy[:, None], full, logp)
        self.tokens[:, step] = token
        self.logprob[:, step] = logp.gather(-1, token[:, None]).squeeze(-1)
        self.done |= torch.isin(token, self.stops)

    def finish(self, step: int, everything: bool = False) -> bool:
        """Tell the replies that have ended and take their rows out once they are many; whether none is left."""
        done = np.ones(len(self.number), dtype=bool) if everything else self.done.cpu().numpy()
        fresh = np.flatnonzero(done & ~self.told)
        thin = (~done).sum() <= DENSE * len(done)
        if thin and self.setting.store is not None:
            self._keep(np.flatnonzero(done), step)
        if len(fresh):
            index = torch.as_tensor(fresh, device=self.device)
            drawn = gather(
                self.tokens[index, : step + 1], self.logprob[index, : step + 1], self.setting.stop_ids
            )
            self.told[fresh] = True
            for row, reply in zip(self.number[fresh].tolist(), drawn, strict=True):
                self.tell(row, reply)
        if thin and not done.all():
            self._select(np.flatnonzero(~done))
        return bool(done.all())

    def _keep(self, rows: np.ndarray, step: int) -> None:
        """Hand rows that leave to the store; a reply's last token was never computed on."""
        store = self.setting.store
        assert store is not None
        index = torch.as_tensor(rows, device=self.device)
        drawn = gather(self.tokens[index, : step + 1], self.logprob[index, : step + 1], self.setting.stop_ids)
        asked = [self.all[i] for i in self.number[rows]]
        store.keep(
            self.cache,
            index,
            [row.member for row in asked],
            [(*row.prompt, *reply.ids[:-1]) for row, reply in zip(asked, drawn, strict=True)],
            [self.width - len(row.prompt) for row in asked],
        )

    def _select(self, rows: np.ndarray) -> None:
        index = torch.as_tensor(rows, device=self.device)
        self.number, self.told = self.number[rows], self.told[rows]
        for name in ("length", "owner", "uniforms", "greedy", "tokens", "logprob", "done"):
            setattr(self, name, getattr(self, name).index_select(0, index))
        if self.valid is not None:
            self.valid = self.valid.index_select(0, index)
        self.cache.select(index)
        self._seat()

    def _seat(self) -> None:
        if self.setting.adapters:
            self.setting.adapters.assign(self.owner)
        if self.setting.steps:
            self.setting.steps.seat(self.width - self.length, self.owner)


@torch.no_grad()
def misfit(model: Any, pad_id: int) -> str:
    """Why a model cannot be decoded by this loop; empty where it can.

    A few tokens are computed both ways: models that refuse given masks, or read them in some way of their own,
    differ or fail.
    """
    masks = Masks(model.config)
    if not masks.known:
        return f"layers of kinds {sorted(masks.kinds)} with {model.config._attn_implementation} attention"
    device = next(model.parameters()).device
    ids = [i % model.config.get_text_config().vocab_size for i in range(3, 11)]
    prompts, continuation = [ids[:7], ids[2:6]], ids[7]
    setting = Setting(SamplingConfig(max_new_tokens=2), set(), torch.zeros(1, dtype=torch.bool), pad_id)
    batch = _Batch(model, [Row("", prompt, None) for prompt in prompts], setting, lambda row, reply: None)
    try:
        found = [batch.prefill()]
        batch.tokens[:, 0] = continuation
        found.append(batch.forward(0))
    except torch.OutOfMemoryError:  # says nothing of the model
        raise
    except Exception as error:  # models refuse in their own ways
        return f"{type(error).__name__}: {error}"
    for i, prompt in enumerate(prompts):
        given = torch.tensor([[*prompt, continuation]], device=device)
        plain = model(input_ids=given, use_cache=False).logits[0, -2:].float()
        difference = (torch.stack([one[i] for one in found]).float() - plain).abs().max()
        # Rounding only: a token more or less in sight moves logits by about their own spread.
        tolerance = 1e-3 if found[0].dtype is torch.float32 else 0.3
        if not difference <= tolerance * (plain.std() + 1e-3):
            return f"logits differ by {float(difference):.2g} from those of a plain forward pass"
    return ""
