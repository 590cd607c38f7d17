"""Decode steps that an accelerator records once and then replays: one graph per row and length bucket.

For the decode loop on CUDA, where a step of a few rows takes longer to launch than to compute. A graph replays
fixed addresses, so a step reads and writes buffers that stay: rows are padded to a power of two, columns to a
multiple of 128, masks hide what is not filled yet, and the column to be written is a tensor. Weights are read where
they lie and are therefore those of the last update; what has to be copied (stacked adapters, casts) is copied in
place before each batch. Drawing from the logits stays outside: it depends on settings and costs little.

Without an accelerator the same steps run through `Plainly`, which records nothing: that is how they are tested.

Memory. All keys and values are views of one block, whichever model, member and bucket they belong to, since one
batch is drawn at a time; longer buckets are wider views of the same buffers, so going to the next one copies
nothing. All graphs share one private pool for what lives inside a step. `Graphs.release`, which `AgentTeam` calls
when a collection ends and before any update, gives everything back (block, casts, stacks, graphs and their pool)
where it is more than `KEEP`; the next collection then records anew. Less is kept, and with it the graphs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from collm_agents.models.grouped import GroupedAdapters
from collm_agents.models.kvcache import BufferCache, BufferLayer
from collm_agents.models.masks import Masks
from collm_envs.errors import SettingError

log = logging.getLogger(__name__)

COLUMNS = 128  # columns of a length bucket
KEEP = 1 << 30  # most bytes that stay between collections
ALIGNED = 512  # bytes

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
        self._block: Tensor | None = None

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
        else:
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

    def block(self, size: int, device: torch.device) -> Tensor:
        """At least so many bytes for keys and values; a larger block than before makes all graphs void."""
        if self._block is None or len(self._block) < size or self._block.device != device:
            for steps in self._steps.values():
                steps.drop()
            self._block = None  # before the new one is there
            self._block = torch.empty(size, dtype=torch.uint8, device=device)
        return self._block

    @property
    def bytes(self) -> int:
        """Bytes held, graphs' own pool apart: that is one layer's activations of some rows."""
        held = 0 if self._block is None else len(self._block)
        return held + sum(steps.bytes for steps in self._steps.values())

    def release(self) -> None:
        """Give memory back: before an update."""
        if self.bytes > self.keep or self.failed:
            self._steps.clear()
            self._block = None
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
        self.casts = _Casts(model, self.device.type)
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
        """Bytes of all buffers but keys and values."""
        small = [t for t in (self._owned, self._logits) if t is not None]
        stacks = self.adapters.tensors if self.adapters else []
        return sum(t.numel() * t.element_size() for t in [*small, *stacks, *self.casts.copies])

    def refresh(self, adapters: GroupedAdapters | None) -> None:
        """Take over weights that have changed since."""
        if self.adapters is not None and adapters is not None:
            self.adapters.take(adapters)
        self.casts.refresh()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model computes with what stays: prompts too, or there would be two copies of it all."""
        with self.casts.in_place(), self.adapters.in_place() if self.adapters else contextlib.nullcontext():
            yield

    def cache(self, width: int, length: int) -> BufferCache:
        """A cache for one batch whose buffers are these steps'; see `BufferCache`."""
        return _Held(self, width, length)

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
            sizes = [rows_held * h * columns * d * dtype.itemsize for h, d, dtype in shapes]
            ends = torch.tensor([column_bucket(size, ALIGNED) for size in sizes]).cumsum(0).tolist()
            self.drop()
            block = self.graphs.block(ends[-1], self.device)
            found = [
                block[start : start + size].view(dtype).view(rows_held, h, columns, d)
                for start, size, (h, d, dtype) in zip([0, *ends], sizes, shapes, strict=False)
            ]
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
            past_key_values=_StepCache(self._pairs, rows, columns, self._column),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if self._logits is None:
            self._logits = logits.new_zeros((self.rows, logits.shape[-1]))
        self._logits[:rows] = logits


class _Held(BufferCache):
    """A batch's cache whose buffers outlast it: rows move to the front instead of into new tensors."""

    def __init__(self, steps: Steps, width: int, length: int) -> None:
        super().__init__(width, length)
        self.steps = steps

    def like(self, other: Sequence[tuple[Tensor, Tensor]], rows: int) -> None:
        """Take the steps' buffers."""
        for keys, values in self.steps.carve(other, rows, self.width):
            layer = BufferLayer(self)
            layer.keys, layer.values, layer.is_initialized = keys, values, True
            self.layers.append(layer)

    def select(self, index: Tensor) -> None:
        """Keep these rows only, in this order."""
        for layer in self.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                held[: len(index), :, : self.length] = held[:, :, : self.length].index_select(0, index)
                setattr(layer, name, held[: len(index)])


class _StepLayer(BufferLayer):
    """Buffers that are written in a column that a tensor names, and handed out as a whole."""

    owner: _StepCache

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one column; returns all of them."""
        self.keys.index_copy_(2, self.owner.column, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.owner.column, value_states.to(self.values.dtype))
        return self.keys, self.values


class _StepCache(BufferCache):
    """What one step sees of the buffers: so many rows and columns.

    Args:
        pairs: keys and values by layer.
        rows: seen.
        columns: seen.
        column: to be written, [1].
    """

    def __init__(
        self, pairs: Sequence[tuple[Tensor, Tensor]], rows: int, columns: int, column: Tensor
    ) -> None:
        Cache.__init__(self, layer_class_to_replicate=lambda: _StepLayer(self))
        self.width, self.length, self.column = columns, columns - 1, column
        for keys, values in pairs:
            layer = _StepLayer(self)
            layer.keys, layer.values = keys[:rows, :, :columns], values[:rows, :, :columns]
            layer.is_initialized = True
            self.layers.append(layer)


class _Casts:
    """Linear layers' weights in the type that autocast computes in; none where nothing is cast.

    Autocast makes such copies itself and keeps them until its block ends: a graph would read them at addresses that
    are somebody else's by then, with the values of an old update.
    """

    def __init__(self, model: Any, kind: str) -> None:
        self._kind = kind
        self._dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self._places: list[tuple[nn.Linear, str, nn.Parameter]] = []
        self.copies: list[Tensor] = []
        if self._dtype is None:
            return
        for module in model.modules():
            if isinstance(module, nn.Linear):
                for name, parameter in module.named_parameters(recurse=False):
                    if parameter.dtype != self._dtype:
                        self._places.append((module, name, parameter))
                        self.copies.append(parameter.detach().to(self._dtype))

    def refresh(self) -> None:
        """Copy the weights as they are now."""
        with torch.no_grad():
            for (_, _, parameter), copy in zip(self._places, self.copies, strict=True):
                copy.copy_(parameter)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the layers have the copies for weights, and autocast keeps no copies of its own."""
        if self._dtype is None:
            yield
            return
        for (module, name, _), copy in zip(self._places, self.copies, strict=True):
            module._parameters[name] = copy  # type: ignore[assignment]
        try:
            with torch.autocast(self._kind, dtype=self._dtype, cache_enabled=False):
                yield
        finally:
            for module, name, parameter in self._places:
                module._parameters[name] = parameter
