"""`Backbone`: one base model and its members.

For teams and critics. A member is what one agent or critic trains: a LoRA adapter on the shared frozen base
(`tuning="lora"`) or a copy of the model (`tuning="full"`). Every caller names the member; nothing above knows
which of the two it is. Modules stay in `eval()` with gradients on: peft refuses mixed batches in training mode,
and sampler and learner must see the same function (no dropout).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from collm_agents.config import LoraConfig
from collm_agents.draws import derive
from collm_agents.models import loading
from collm_agents.models.decode import misfit
from collm_agents.models.grouped import GroupedAdapters, groupable
from collm_agents.models.logprob import Head
from collm_agents.models.masks import Masks
from collm_agents.models.packing import Pack, pack
from collm_agents.models.sharding import Whole
from collm_envs.errors import InputError, SettingError

log = logging.getLogger(__name__)

BASE = "__base__"  # names the base as it was loaded, where a member's name is asked for


class Backbone:
    """One base model and its members.

    Args:
        name: `builtin`, a hub name or a folder.
        members: names of what is trained on it, at least one.
        tuning: `lora` or `full`.
        lora: size of the adapters.
        dtype: what is computed in. Frozen weights are kept in it; trained ones stay in float32 under autocast,
            since updates of usual size are lost to bfloat16's rounding.
        device: where the model lives.
        seed: an adapter's initial weights are drawn from it and the member's name.
        reference: whether the untrained base will be asked for (`BASE`): adapters leave it as it is, full tuning
            needs one more copy for it.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[str],
        *,
        tuning: str,
        lora: LoraConfig,
        dtype: torch.dtype,
        device: str,
        seed: int = 0,
        reference: bool = False,
    ) -> None:
        self.name, self.tuning, self.device = name, tuning, device
        self.members = tuple(members)
        self.tokenizer = loading.load_tokenizer(name)
        full = tuning == "full"
        base = loading.load_model(name, torch.float32 if full else dtype, device)
        self._autocast = dtype if full and dtype is not torch.float32 else None
        named = getattr(base.generation_config, "eos_token_id", None)
        several = named if isinstance(named, (list, tuple)) else [named]
        self.stop_ids = tuple(int(id) for id in several if id is not None)
        self.config = base.config
        self.hidden_size = int(base.get_input_embeddings().weight.shape[1])
        if base.get_input_embeddings().weight.shape[0] < len(self.tokenizer):
            raise InputError(
                f"model {name!r}: its tokenizer has {len(self.tokenizer)} tokens, "
                f"the model only {base.get_input_embeddings().weight.shape[0]}"
            )
        self.context_length = loading.context_length(base.config)
        self.checkpointing = False  # recompute activations in the backward pass
        self.shards = Whole()
        self.together = tuning == "lora"  # whether rows of several members may share a batch
        self._peft: Any = None
        self._based = False  # whether the adapters are switched off
        self._copies: dict[str, Any] = {}
        self._misfit: str | None = None
        if tuning == "lora":
            self._peft = _with_adapters(base, self.members, lora, seed)
            self.together = groupable(self._peft)
        else:
            # The last member takes the loaded model itself, so no idle copy is kept.
            for member in self.members[:-1]:
                self._copies[member] = copy.deepcopy(base)
            self._copies[self.members[-1]] = base
            for model in self._copies.values():
                model.requires_grad_(True)
            if reference:
                self._copies[BASE] = copy.deepcopy(base).requires_grad_(False)

    def module(self, member: str) -> Any:
        """The causal LM as this member has it, ready to be called. Valid until another member is asked for.

        `BASE` is the base without any training, the reference of KL terms.
        """
        known = self._copies if self._peft is None else (*self.members, BASE)
        if member not in known:
            raise KeyError(f"backbone {self.name!r} has no member {member!r}")
        if self._peft is None:
            return self._copies[member]
        if member == BASE:
            self._peft.base_model.disable_adapter_layers()
            self._based = True
            return self._peft
        if self._based:
            self._peft.base_model.enable_adapter_layers()
        self._based = False
        # peft lets gradients into the active adapter only, which is what a member's pass should do.
        self._peft.set_adapter(member)
        return self._peft

    def models(self) -> list[Any]:
        """The models that are held: one with all adapters, or each member's own and the base's copy."""
        return list(self._copies.values()) if self._peft is None else [self._peft]

    def assume_fast(self) -> None:
        """Take it that the fast paths fit, as on `meta`, where nothing can be tried."""
        plain = self.head(self.members[0], 1.0, torch.zeros(1, dtype=torch.bool)) is not None
        self.packs, self._misfit = plain and Masks(self.config).known, ""

    def computing(self) -> contextlib.AbstractContextManager:
        """The context that forward passes run in: autocast where weights and computation differ in type."""
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=self._autocast)

    @contextlib.contextmanager
    def drawing(self, members: Sequence[str]) -> Iterator[tuple[Any, GroupedAdapters | None]]:
        """The causal LM for drawing replies of some members, with their weights as they are now.

        Args:
            members: who; one alone unless the backbone can do several `together`.

        Yields:
            The model, and the members' adapters, to which rows are to be assigned; None where the model is the
            one member's own.
        """
        with self.computing():
            if not self.together:
                (member,) = members
                yield self.module(member), None
                return
            causal = self._peft.get_base_model()
            adapters = GroupedAdapters(causal, members)
            with adapters.in_place():
                yield causal, adapters

    def decodable(self) -> bool:
        """Whether the fast decode loop fits the model; tried once, and said where it does not."""
        if self._misfit is None:
            with self.drawing(self.members[:1]) as (model, _):
                self._misfit = misfit(model, self.pad_id)
            if self._misfit:
                log.warning("model %r is decoded by the slow loop: %s", self.name, self._misfit)
        return not self._misfit

    def reply_logits(
        self, member: str, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> Tensor:
        """Next-token logits at every reply position, teacher-forced.

        Prompts are padded on the left and replies on the right, so all replies start in one column.

        Args:
            member: whose weights.
            prompts: B lists of token ids.
            replies: B lists of token ids.

        Returns:
            [B, L, V] for L the longest reply; positions beyond a reply's own length hold padding.
        """
        ids, mask = _join(prompts, replies, self.pad_id)
        longest = max(len(reply) for reply in replies)
        ids, mask = ids.to(self.device), mask.to(self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        module = self.module(member)
        causal = module.get_base_model() if self._peft is not None else module
        with self.computing(), self._checkpointed(causal):
            logits = module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=longest + 1,
            ).logits
        return logits[:, :-1]

    def packed_hidden(self, member: str, batch: Pack) -> Tensor:
        """Hidden states of every token of a batch of trees: [R, T, hidden_size]."""
        device = self.device
        ids, depth = torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.depth).to(device)
        mask: Any = None
        if batch.attends is not None:
            seen = torch.from_numpy(batch.attends).to(device)[:, None]
            masks = Masks(self.config)
            near = seen
            if masks.window:
                near = seen & (depth[:, None, :, None] - depth[:, None, None, :] < masks.window)
            mask = masks.given(seen, near, torch.float32)
        module = self.module(member)
        causal = module.get_base_model() if self._peft is not None else module
        with self.computing(), self._checkpointed(causal):
            return causal.get_decoder()(
                input_ids=ids, attention_mask=mask, position_ids=depth, use_cache=False
            ).last_hidden_state

    def head(self, member: str, temperature: float, banned: Tensor) -> Head | None:
        """The output matrix of a member, where it is a plain one."""
        module = self.module(member)
        out = (module.get_base_model() if self._peft is not None else module).get_output_embeddings()
        if type(out) is not nn.Linear:
            return None
        text = self.config.get_text_config()
        return Head(
            out.weight,
            out.bias,
            float(getattr(text, "final_logit_softcapping", None) or 0.0),
            temperature,
            banned.to(self.device),
            self._autocast or out.weight.dtype,
        )

    @functools.cached_property
    def packs(self) -> bool:
        """Whether the model computes trees as it computes their sequences: tried once, on a small tree.

        Models that take no mask of four dimensions, or do something else to their logits than `Head` does, fail;
        their rows are then computed one by one, which is slower and gives the same. The log says so.
        """
        try:
            reason = self._unpackable()
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            log.warning("%s: updates compute every row alone, without sharing (%s)", self.name, reason)
        return not reason

    @torch.no_grad()
    def _unpackable(self) -> str:
        """Why trees cannot be computed; empty where they can."""
        member, size = self.members[0], min(len(self.tokenizer), 64)
        head = self.head(member, 1.0, torch.zeros(size, dtype=torch.bool))
        if head is None:
            return "its output matrix is no plain linear map"
        if not Masks(self.config).known:
            return "its attention takes masks of another kind"
        draw = np.random.default_rng(0).integers(0, size, size=12).tolist()
        prompts = [tuple(draw[:4]), tuple(draw[:4]), tuple(draw[:7])]
        replies = [tuple(draw[4:9]), tuple(draw[9:12]), (draw[3],)]
        rows = [p + r for p, r in zip(prompts, replies, strict=True)]
        (batch,) = pack(rows, 10**6, width=10**6)
        hidden, plain = self.packed_hidden(member, batch), self.reply_logits(member, prompts, replies)
        # Alone, a later reply would see its siblings: a model that ignored the mask would be far off.
        near = 1e-3 if self._exact else 0.1 * float(plain.float().std())
        for row, tree, path in zip(batch.rows, batch.tree, batch.path, strict=True):
            count = len(replies[row])
            found = head.logits(hidden[tree, path[-count - 1 : -1]])
            if not torch.allclose(found, plain[row, :count].float(), atol=near):
                return "its logits on a tree are not those of single rows"
        return ""

    @property
    def _exact(self) -> bool:
        weights = next(iter(self.module(self.members[0]).parameters()))
        return self._autocast is None and weights.dtype == torch.float32

    @contextlib.contextmanager
    def _checkpointed(self, causal: Any) -> Iterator[None]:
        """Let the layers recompute their activations in the backward pass, where asked for and gradients are on.

        transformers does so in training mode only, which everything else here must not be in: a layer is, until the
        recomputing begins.

        Raises:
            SettingError: when the model has no layers that can.
        """
        if not (self.checkpointing and torch.is_grad_enabled()):
            yield
            return
        layers = [layer for layer in causal.modules() if isinstance(layer, GradientCheckpointingLayer)]
        if not layers:
            raise SettingError(f"learner.gradient_checkpointing: the layers of {self.name!r} cannot do it")

        def recompute(layer: Any, forward: Any, *words: Any) -> Any:
            layer.training = False  # so that no dropout wakes up inside
            try:
                return checkpoint(forward, *words, use_reentrant=False)
            finally:
                layer.training = True

        for layer in layers:
            layer.training = layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = functools.partial(recompute, layer)
        try:
            yield
        finally:
            for layer in layers:
                layer.training = layer.gradient_checkpointing = False

    def last_hidden(self, member: str, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Hidden state at each sequence's last token: [B, hidden_size].

        Padding stands on the right, behind what a causal model can see from the last token.
        """
        width = max(len(s) for s in sequences)
        ids = torch.full((len(sequences), width), self.pad_id)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence)] = torch.tensor(sequence)
            mask[i, : len(sequence)] = 1
        module = self.module(member)
        causal = module.get_base_model() if self._peft is not None else module
        with self.computing(), self._checkpointed(causal):
            hidden = causal.get_decoder()(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False
            ).last_hidden_state
        last = torch.tensor([len(s) - 1 for s in sequences], device=hidden.device)
        return hidden[torch.arange(len(sequences), device=hidden.device), last]

    @property
    def pad_id(self) -> int:
        """Token id that fills padding; never attended to, never trained on."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def parameters(self, member: str) -> dict[str, nn.Parameter]:
        """What a member trains, by name."""
        if self._peft is None:
            return dict(self._copies[member].named_parameters())
        return {
            n: p for n, p in self._peft.named_parameters() if re.search(rf"\.lora_\w+\.{member}(\.|$)", n)
        }

    def save(self, member: str, folder: Path) -> None:
        """Write a member as plain transformers or peft would load it."""
        if self._peft is None:
            state = self.shards.whole(self._copies[member].state_dict())
            if self.shards.rank:  # the first process writes for all
                return
            self._copies[member].save_pretrained(folder, state_dict=state)
            self.tokenizer.save_pretrained(folder)
            return
        # peft writes a non-default adapter into a sub-folder of its own name, and a model card beside it.
        self._peft.save_pretrained(folder, selected_adapters=[member])
        for file in (folder / member).iterdir():
            file.rename(folder / file.name)
        (folder / member).rmdir()

    @torch.no_grad()
    def load(self, member: str, folder: Path) -> None:
        """Read a member's weights back, exactly.

        Raises:
            InputError: when the folder holds other parameters than the member has, or a damaged file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        def read(file: Path) -> dict[str, Tensor]:
            try:
                return load_file(file)
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{file}: cannot be read ({error}); it is damaged: take another copy"
                ) from None

        if self._peft is None:
            files = sorted(folder.glob("model*.safetensors"))
            saved = {k: v for file in files for k, v in read(file).items()}
            own = self._copies[member].state_dict()
            tied = set(own) - set(saved)
            missing = sorted(
                k for k in tied if not any(own[k].data_ptr() == own[s].data_ptr() for s in saved if s in own)
            )
        else:
            files = list(folder.glob("adapter_model.safetensors"))
            saved = {k: v for file in files for k, v in read(file).items()}
            own = peft.get_peft_model_state_dict(self._peft, adapter_name=member)
            missing = sorted(set(own) - set(saved))
        if not files:
            kind = "a whole model" if self._peft is None else "an adapter"
            raise InputError(f"{folder}: there are no weights of {kind} in it (tuning={self.tuning!r})")
        unknown = sorted(set(saved) - set(own))
        other = [k for k in saved if k in own and saved[k].shape != own[k].shape]
        if missing or unknown or other:
            raise InputError(
                f"{folder}: does not fit {self.name!r}: {[*missing, *unknown, *other][0]} is missing, unknown "
                "or of another shape"
            )
        if self._peft is None:
            self._copies[member].load_state_dict(self.shards.own(saved, own), strict=False)
        else:
            peft.set_peft_model_state_dict(self._peft, saved, adapter_name=member)


def _with_adapters(base: Any, members: Sequence[str], lora: LoraConfig, seed: int) -> Any:
    targets: Any = lora.target_modules
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
    model: Any = None
    for member in members:
        config = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=targets,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        # peft draws from torch's global generator; the draw is fenced so that nothing else is disturbed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "adapter", member))
            try:
                if model is None:
                    model = peft.get_peft_model(base, config, adapter_name=member)
                else:
                    model.add_adapter(member, config)
            except ValueError as error:
                raise InputError(f"team.lora.target_modules={lora.target_modules!r}: {error}") from error
    return model.eval()


def _join(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], pad: int
) -> tuple[Tensor, Tensor]:
    left, right = max(map(len, prompts)), max(map(len, replies))
    ids = torch.full((len(prompts), left + right), pad)
    mask = torch.zeros_like(ids)
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        ids[i, left - len(prompt) : left + len(reply)] = torch.tensor([*prompt, *reply])
        mask[i, left - len(prompt) : left + len(reply)] = 1
    return ids, mask
