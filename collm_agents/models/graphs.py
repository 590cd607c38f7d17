"""Decode steps that an accelerator records once and then replays: one graph per row and length bucket.

For the decode loop on CUDA, where a step of a few rows takes longer to launch than to compute. A graph replays
fixed addresses, so a step reads and writes buffers that stay: rows are padded to a power of two, columns to a
multiple of 128, masks hide what is not filled yet, and the column to be written is a tensor. Weights are read where
they lie and are therefore those of the last update; what has to be copied (stacked adapters, casts) is copied in
place before each batch. Drawing from the logits stays outside: it depends on settings and costs little.

Without an accelerator the same steps run through `Plainly`, which records nothing: that is how they are tested.

Memory (`buffers`). All keys and values are views of one block, whichever model, member and bucket they belong to,
since one batch is drawn at a time, and all casts of another. Longer buckets are wider views of the same buffers, so
going to the next one copies nothing. All graphs share one private pool for what lives inside a step.
`Graphs.release`, which `AgentTeam` calls when a collection ends and before any update, gives everything back
(blocks, stacks, graphs and their pool) where it is more than `KEEP`; the next collection then records anew. Less is
kept, and with it the graphs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from collm_agents.models.buffers import Casts, HeldCache, StepCache, block_bytes, cut
from collm_agents.models.grouped import GroupedAdapters
from collm_agents.models.kvcache import BufferCache
from collm_agents.models.masks import Masks
from collm_envs.errors import SettingError

log = logging.getLogger(__name__)

COLUMNS = 128  # columns of a length bucket
KEEP = 1 << 30  # most bytes that stay between collections

KV, CASTS = "keys and values", "casts"  # what blocks are for

Run = Callable[[], None]


class Recorder(Protocol):
    """Something that makes a step repeatable."""

    def record(self, run: Run) -> Run:
        """What does again what `run` does, at the same addresses; `run` has been called before."""

    def forget(self) -> None:
        """Give back memory that belongs to nothing that is recorded any more."""


class Plainly:
    """No recording: the step itself is run each time."""

    def record(self, run: Run) -> Run:
        """The step itself."""
        return run

    def forget(self) -> None:
        """Nothing is held."""


class CudaRecorder:
    """CUDA graphs, with one private pool: they are replayed one after another and leave nothing in it.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: Any = None

    def record(self, run: Run) -> Run:
        """Capture a step on a stream of its own."""
        with torch.cuda.device(self.device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # thread_local: what other threads do with the device meanwhile is no part of it and no error.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                run()
        return graph.replay

    def forget(self) -> None:
        """The pool goes with its last graph; the next graphs get another one."""
        self._pool = None


def row_bucket(rows: int) -> int:
    """The least power of two that holds so many rows."""
    return 1 << (rows - 1).bit_length()


def column_bucket(columns: int, size: int = COLUMNS) -> int:
    """The least multiple of `size` that holds so many columns."""
    return -(-columns // size) * size


class Graphs:
    """All steps of a team's models.

    Args:
        recorder: how they are made repeatable.
        insist: whether a step that cannot be recorded is an error; else it is said once and run plainly.
        columns: of a length bucket.
        keep: most bytes that outlast `release`.
    """

    def __init__(
        self, recorder: Recorder, *, insist: bool = False, columns: int = COLUMNS, keep: int = KEEP
    ) -> None:
        self.recorder, self.insist, self.columns, self.keep = recorder, insist, columns, keep
        self.failed = False
        self._steps: dict[tuple[int, tuple[str, ...]], Steps] = {}
        self._blocks: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def opened(
        self, model: Any, adapters: GroupedAdapters | None
    ) -> Iterator[tuple[GroupedAdapters | None, Steps | None]]:
        """The steps of a model for one batch, with the weights as they are now; in `Backbone.drawing`.

        Args:
            model: a causal LM.
            adapters: the members' that share the batch.

        Yields:
            The adapters to be used in place of those given, and the steps; None once recording has failed.
        """
        if self.failed:
            yield adapters, None
            return
        key = (id(model), adapters.members if adapters else ())
        if key not in self._steps:
            self._steps[key] = Steps(self, model, adapters)
        self._steps[key].refresh(adapters)
        with self._steps[key].in_place():
            yield self._steps[key].adapters, self._steps[key]

    def record(self, run: Run) -> Run:
        """A step made repeatable, or itself where that fails."""
        if self.failed:
            return run
        try:
            return self.recorder.record(run)
        except Exception as error:  # models, drivers and versions fail in their own ways
            if self.insist:
                raise
            self.failed = True
            log.warning(
                "decode steps run without CUDA graphs, which is slower: %s: %s", type(error).__name__, error
            )
            return run

    def block(self, name: str, size: int, device: torch.device) -> Tensor:
        """At least so many bytes for what a name says; a larger block than before makes all graphs void."""
        if name not in self._blocks or len(self._blocks[name]) < size:
            for steps in self._steps.values():
                steps.drop()
                if name == CASTS:
                    steps.casts.copies = []
            self._blocks.pop(name, None)  # before the new one is there
            self._blocks[name] = torch.empty(size, dtype=torch.uint8, device=device)
        return self._blocks[name]

    @property
    def bytes(self) -> int:
        """Bytes held, graphs' own pool apart: that is one layer's activations of some rows."""
        return sum(map(len, self._blocks.values())) + sum(steps.bytes for steps in self._steps.values())

    def release(self) -> None:
        """Give memory back: before an update."""
        if self.bytes > self.keep or self.failed:
            self._steps.clear()
            self._blocks.clear()
            self.recorder.forget()


def recording(setting: str, devices: Sequence[str]) -> Graphs | None:
    """What `team.cuda_graphs` asks for; None for the loop without graphs.

    Args:
        setting: auto, true or false.
        devices: of the team's models: one and the same.

    Raises:
        SettingError: when graphs are insisted on where there are none.
    """
    kinds = {torch.device(device).type for device in devices}
    if setting == "true" and not kinds <= {"cuda", "meta"}:  # a rehearsal is on `meta`
        raise SettingError(f"team.cuda_graphs=true: there are none on {devices[0]!r}; leave it at auto")
    if kinds != {"cuda"} or setting == "false":
        return None
    return Graphs(CudaRecorder(torch.device(devices[0])), insist=setting == "true")


class Steps:
    """One model's decode steps for some members.

    Args:
        graphs: that they belong to.
        model: a causal LM; held, so that no other takes its identity.
        adapters: the members', or None where the model is one member's own.

    Attributes:
        adapters: those that stay; each batch's are copied into them.
    """

    def __init__(self, graphs: Graphs, model: Any, adapters: GroupedAdapters | None) -> None:
        self.graphs, self.model, self.adapters = graphs, model, adapters
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.masks = Masks(model.config)
        self.casts = Casts(model, self.device.type)
        self._shapes: list[tuple[int, int, torch.dtype]] = []
        self.drop()

    def drop(self) -> None:
        """Forget the buffers and what was recorded on them."""
        self.rows = self.columns = 0
        self._recorded: dict[tuple[int, int], Run] = {}
        self._tried: set[tuple[int, int]] = set()
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._owned: Tensor | None = None
        self._logits: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all buffers beside the blocks."""
        small = [t for t in (self._owned, self._logits) if t is not None]
        stacks = self.adapters.tensors if self.adapters else []
        return sum(t.numel() * t.element_size() for t in [*small, *stacks])

    def refresh(self, adapters: GroupedAdapters | None) -> None:
        """Take over weights that have changed since."""
        if self.adapters is not None and adapters is not None and adapters is not self.adapters:
            self.adapters.take(adapters)
        if size := self.casts.size:
            self.casts.refresh(self.graphs.block(CASTS, size, self.device))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model computes with what stays: prompts too, or there would be two copies of it all."""
        with self.casts.in_place(), self.adapters.in_place() if self.adapters else contextlib.nullcontext():
            yield

    def cache(self, width: int, length: int) -> BufferCache:
        """A cache for one batch whose buffers are these steps'; see `BufferCache`."""
        return HeldCache(self.carve, width, length)

    def carve(
        self, like: Sequence[tuple[Tensor, Tensor]], rows: int, width: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Zeroed keys and values for a batch, [rows, H, width, D] by layer: views of the block.

        Args:
            like: keys and values of each layer.
            rows: of the batch.
            width: columns that it may fill.
        """
        shapes = [(t.shape[1], t.shape[3], t.dtype) for pair in like for t in pair]
        if rows > self.rows or width > self.columns or shapes != self._shapes:
            rows_held, columns = row_bucket(rows), column_bucket(width, self.graphs.columns)
            sizes = [(rows_held, h, columns, d) for h, d, _ in shapes]
            types = [dtype for _, _, dtype in shapes]
            self.drop()
            found = cut(self.graphs.block(KV, block_bytes(sizes, types), self.device), sizes, types)
            self._shapes, self.rows, self.columns = shapes, rows_held, columns
            self._pairs = list(zip(found[::2], found[1::2], strict=True))
            self._start = torch.zeros(rows_held, dtype=torch.long, device=self.device)
            self._ids = torch.zeros(rows_held, dtype=torch.long, device=self.device)
            self._column = torch.zeros(1, dtype=torch.long, device=self.device)
        for pair in self._pairs:
            for tensor in pair:  # not what another batch or model left: a masked NaN would still spread
                tensor.zero_()
        return [(keys[:rows, :, :width], values[:rows, :, :width]) for keys, values in self._pairs]

    def seat(self, start: Tensor, owner: Tensor) -> None:
        """Say which rows the coming steps are of.

        Args:
            start: column of each row's first token, [B].
            owner: whose each row is, places in `adapters.members`, [B].
        """
        self._start.zero_()  # rows beyond are computed too, on zeros, and nobody looks at them
        self._start[: len(start)] = start
        mask = self.adapters.mask(owner) if self.adapters else None
        if mask is not None:
            if self._owned is None:
                self._owned = mask.new_zeros((self.rows, *mask.shape[1:]))
            self._owned[: len(mask)] = mask

    @torch.no_grad()
    def __call__(self, tokens: Tensor, column: int) -> Tensor:
        """Feed one token per row.

        Args:
            tokens: ids, [B].
            column: where they go.

        Returns:
            Next-token logits, [B, V]; the next call writes over them.
        """
        self._ids[: len(tokens)] = tokens
        self._column.fill_(column)
        key = row_bucket(len(tokens)), column_bucket(column + 1, self.graphs.columns)
        run = self._recorded.get(key)
        if run is None:
            run = partial(self._run, *key)
            # The first time it runs plainly: libraries make their workspaces then, which cannot be recorded; and a
            # bucket that is used once is not worth it.
            if key in self._tried:
                run = self._recorded[key] = self.graphs.record(run)
            self._tried.add(key)
        run()
        assert self._logits is not None
        return self._logits[: len(tokens)]

    def _run(self, rows: int, columns: int) -> None:
        """One step of static shape: nothing in it depends on values outside of the buffers."""
        start = self._start[:rows, None]
        mask = self.masks.at(start, self._column, columns, self.dtype)
        if self.adapters is not None and self._owned is not None:
            self.adapters.hold(self._owned[:rows])
        logits = self.model(
            input_ids=self._ids[:rows, None],
            attention_mask=mask,
            position_ids=self._column - start,
            past_key_values=StepCache(self._pairs, rows, columns, self._column),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if self._logits is None:
            self._logits = logits.new_zeros((self.rows, logits.shape[-1]))
        self._logits[:rows] = logits
