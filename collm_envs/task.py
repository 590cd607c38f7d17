"""Tasks and where they come from: built-in rows, files, or a hub data set.

A `Task` is a frozen record. `public` may be shown to agents; `hidden` (tests, references) never is. A
`TaskSource` is a lazy, sliceable sequence of tasks. Every row is checked against the environment's row
formats when it is read, so a bad row is an error that names file, row and field, never a silent skip.

Sources: `"builtin"`; a file (`.jsonl`, `.json`, `.csv`, `.parquet`, the first three also `.gz`); several
files by split, `"train=a.jsonl,test=b.jsonl"`; `"hub"` for the environment's own hub data set, or
`"hub:owner/name"`.
Splits: a name with an optional slice, such as `train[:1000]`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from collm_envs.errors import DataError, SettingError, suggest
from collm_envs.lines import read_lines, read_whole

Row = Mapping[str, Any]


class FrozenDict(dict):
    """A dict that refuses changes; picklable and comparable like any dict."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a task's fields cannot be changed")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple:
        return (FrozenDict, (dict(self),))

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenDict:
        return self


def freeze(value: Any) -> Any:
    """A copy of plain data in which dicts are `FrozenDict` and lists are tuples, at every depth."""
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value


@dataclass(frozen=True)
class Task:
    """One problem to be solved together.

    Attributes:
        id: unique within its source; part of every error, log line and random key.
        public: what prompts may show.
        hidden: what only scorers may read.
    """

    id: str
    public: Mapping[str, Any]
    hidden: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", freeze(self.public))
        object.__setattr__(self, "hidden", freeze(self.hidden))


class FieldError(ValueError):
    """What a `RowFormat.build` raises for a field whose content is wrong; it becomes a `DataError`.

    Args:
        field: the field, with a dot before what lies inside it.
        what: what is wrong with it.
    """

    def __init__(self, field: str, what: str) -> None:
        self.field, self.what = field, what
        super().__init__(f"field {field!r}: {what}")


@dataclass(frozen=True)
class RowFormat:
    """One accepted layout of a data row.

    Attributes:
        columns: required column -> `str`, `int`, `float`, `dict`, or `list` (of strings).
        build: turns a checked row into `(public, hidden)`; may raise `FieldError`.
        id_column: column that names the task; the row number is used where it is absent.
    """

    columns: Mapping[str, type]
    build: Callable[[Row], tuple[Mapping[str, Any], Mapping[str, Any]]]
    id_column: str | None = None


class TaskSource(Sequence[Task]):
    """A lazy sequence of tasks; slices and shuffles are views.

    Args:
        load: gives the task at an index of the underlying data.
        indices: which tasks, in which order.
        name: where they come from, for messages.
    """

    def __init__(self, load: Callable[[int], Task], indices: Sequence[int], name: str) -> None:
        self._load, self._indices, self.name = load, indices, name

    @classmethod
    def of(cls, tasks: Sequence[Task], name: str = "builtin") -> TaskSource:
        """A source over tasks that exist already."""
        kept = tuple(tasks)
        return cls(kept.__getitem__, range(len(kept)), name)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskSource: ...
    def __getitem__(self, index: int | slice) -> Task | TaskSource:
        """The task at a position, or a view of a slice."""
        if isinstance(index, slice):
            return TaskSource(self._load, self._indices[index], self.name)
        return self._load(int(self._indices[index]))

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))

    def shuffle(self, seed: int) -> TaskSource:
        """A view in random order; equal seeds give equal orders."""
        order = np.random.default_rng(seed).permutation(len(self))
        return TaskSource(self._load, [int(self._indices[i]) for i in order], self.name)


_SPLIT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?:\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?")


def parse_split(split: str) -> tuple[str, slice]:
    """Read a split such as `train`, `test[1000:1100]` or `train[:1000]`.

    Returns:
        The split's name and the slice of it.
    """
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if match is None or "-" in (match["start"], match["stop"]):
        raise SettingError(f"split {split!r} is not a name with an optional slice, such as train[:1000]")
    start, stop = (int(match[key]) if match[key] else None for key in ("start", "stop"))
    return match["name"], slice(start, stop)


def load_source(
    source: str,
    split: str,
    formats: Sequence[RowFormat],
    *,
    builtin: Callable[[str], Sequence[Row]] | None = None,
    hub: str | None = None,
) -> TaskSource:
    """Open a source and check its rows.

    Args:
        source: see the module's docstring.
        split: name and slice. One file has the splits `all`, `train` and `test`: the last tenth of its rows
            (at least one) is `test`, the rest `train`.
        formats: accepted row layouts; the first whose columns the first row has is used for all.
        builtin: rows of the environment's own data, by split name.
        hub: the environment's default hub data set.

    Raises:
        DataError: file, row and field of what is wrong.
        SettingError: for a split or source that does not exist.
    """
    if not isinstance(source, str):
        raise SettingError(f"source must be builtin, a file or hub:owner/name, not {source!r}")
    name, part = parse_split(split)
    if source == "builtin":
        if builtin is None:
            raise SettingError("this environment has no built-in tasks; name a file or hub:owner/name")
        rows: Sequence[Row] = builtin(name)
        label, held = f"builtin:{name}", range(len(rows))
    elif source == "hub" or source.startswith("hub:"):
        target = source.partition(":")[2] or hub
        if not target:
            raise SettingError("this environment has no hub data set of its own; name one as hub:owner/name")
        rows = _hub_rows(target, name)
        label, held = f"hub:{target}:{name}", range(len(rows))
    else:
        rows, label, held = _file_rows(source, name)
    if not len(rows):
        raise DataError(f"{label}: no rows")
    if not held[part]:
        raise DataError(f"{label}: split {split!r} is empty; {name!r} has {len(held)} rows")
    layout = _choose_format(rows[0], formats, label)
    if layout.id_column:
        _check_ids(rows, layout.id_column, label)
    # Files of several splits may share a name; one file's splits are told apart by row already.
    ids = f"{name}:{Path(label).name}" if "=" in source else Path(label).name
    return TaskSource(_RowLoader(rows, layout, label, ids), held[part], label)


@dataclass(frozen=True)
class _RowLoader:
    """Row index -> checked task; a class rather than a closure, so that sources can be pickled."""

    rows: Sequence[Row]
    layout: RowFormat
    label: str
    ids: str

    def __call__(self, index: int) -> Task:
        return _to_task(self.rows[index], index, self.layout, self.label, self.ids)


def _choose_format(row: Row, formats: Sequence[RowFormat], label: str) -> RowFormat:
    if not isinstance(row, Mapping):
        raise DataError(f"{label}, row 1: expected an object with named fields, found {type(row).__name__}")
    for layout in formats:
        if set(layout.columns) <= set(row):
            return layout
    wanted = " or ".join("{" + ", ".join(f.columns) + "}" for f in formats)
    raise DataError(f"{label}, row 1: needs the fields {wanted}; found {{{', '.join(map(str, row))}}}")


def _check_ids(rows: Sequence[Row], column: str, label: str) -> None:
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        named = row.get(column) if isinstance(row, Mapping) else None
        if named is not None and first.setdefault(str(named), number) != number:
            raise DataError(
                f"{label}, row {number}, field {column!r}: {named!r} also names row {first[str(named)]}"
            )


def _to_task(row: Row, index: int, layout: RowFormat, label: str, ids: str) -> Task:
    where = f"{label}, row {index + 1}"
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with named fields, found {type(row).__name__}")
    for column, kind in layout.columns.items():
        if row.get(column) is None:
            raise DataError(f"{where}, field {column!r}: missing")
        value = row[column]
        if not _has_kind(value, kind):
            told: dict[type, str] = {list: "a list of strings", dict: "an object"}
            wanted = told.get(kind, kind.__name__)
            raise DataError(f"{where}, field {column!r}: expected {wanted}, found {type(value).__name__}")
        if kind in (str, list) and not "".join(value).strip():
            raise DataError(f"{where}, field {column!r}: empty")
    try:
        public, hidden = layout.build(row)
    except FieldError as error:
        raise DataError(f"{where}, {error}") from None
    except DataError:
        raise
    except Exception as error:  # a row that its reader was not written for
        raise DataError(f"{where}: reading it raised {type(error).__name__}: {error}") from error
    named = row.get(layout.id_column) if layout.id_column else None
    return Task(str(named) if named is not None else f"{ids}#{index}", public, hidden)


def _has_kind(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, (list, tuple, np.ndarray)) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _hub_rows(target: str, split: str) -> Sequence[Row]:
    try:
        import datasets
    except ImportError:
        raise DataError(f"hub:{target} needs the package datasets: pip install 'collm[data]'") from None
    try:
        return datasets.load_dataset(target, split=split)
    except Exception as error:  # the hub's many failures (offline, gated, no such split) become one line
        raise DataError(f"hub:{target}, split {split!r}: {type(error).__name__}: {error}") from error


def source_files(source: str) -> list[Path]:
    """Files that a source reads, there or not; none for built-in rows and hub data sets.

    Raises:
        SettingError: for a source of several files that names none for a split.
    """
    if source in ("builtin", "hub") or source.startswith("hub:"):
        return []
    return [Path(path).expanduser() for path in _files_by_split(source).values() or [source]]


def _files_by_split(source: str) -> dict[str, str]:
    """Split -> file, where a source names several; empty where it is one file."""
    if "=" not in source or Path(source).expanduser().is_file():
        return {}
    items = [item.partition("=") for item in source.split(",")]
    if any(not (key and path) for key, _, path in items):
        raise SettingError(f"source {source!r} does not read split=file,split=file")
    files = {key.strip(): path.strip() for key, _, path in items}
    if len(files) < len(items):
        raise SettingError(f"source {source!r} names a split twice")
    return files


def _file_rows(source: str, split: str) -> tuple[Sequence[Row], str, range]:
    """Rows of a file, its name, and which of the rows belong to the split."""
    if files := _files_by_split(source):
        if split not in files:
            raise SettingError(
                f"source {source!r} names no file for the split {split!r}{suggest(split, files)}"
            )
        rows = read_rows(files[split])
        return rows, files[split], range(len(rows))
    if split not in ("all", "train", "test"):
        raise SettingError(f"one file has the splits all, train and test, not {split!r}")
    rows = read_rows(source)
    if split == "all" or not rows:
        return rows, source, range(len(rows))
    if len(rows) < 2:
        raise DataError(f"{source}: one row cannot be divided into train and test; use split='all'")
    cut = len(rows) - max(1, len(rows) // 10)
    return rows, source, range(cut) if split == "train" else range(cut, len(rows))


def read_rows(path: str | Path) -> Sequence[Row]:
    """Read all rows of a JSONL, JSON, CSV or Parquet file, gzipped or not.

    Raises:
        DataError: when the file is missing, of an unknown kind or cannot be parsed, with the row's number.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"no such file: {path} (for a hub data set write hub:owner/name)")
    kinds = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(kinds) and kinds[-1] == ".gz"
    kind = (kinds[:-1] if zipped else kinds)[-1:] or [""]
    reader = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}.get(kind[0])
    if kind[0] == ".parquet" and not zipped:
        return _read_parquet(path)
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; known: .jsonl, .json, .csv (each also .gz), .parquet")
    return reader(path, zipped)


def _read_jsonl(path: Path, zipped: bool) -> list[Row]:
    rows = []
    for number, line in enumerate(read_lines(path, zipped=zipped), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, row {len(rows) + 1} (line {number}): not JSON ({error})") from None
    return rows


def _read_json(path: Path, zipped: bool) -> list[Row]:
    try:
        rows = json.loads(read_whole(path, zipped=zipped))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of rows, found {type(rows).__name__}")
    return rows


def _read_csv(path: Path, zipped: bool) -> list[Row]:
    # The csv module is given lines as it would find them itself: a carriage return alone ends one, too.
    lines = (part for line in read_lines(path, zipped=zipped) for part in io.StringIO(line, newline=""))
    reader = csv.DictReader(lines, strict=True)
    rows: list[Row] = []
    try:
        names = reader.fieldnames or ()
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise DataError(f"{path}: the header names the field {twice[0]!r} twice")
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, row {len(rows) + 1}: has not as many cells as the header")
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}, row {len(rows) + 1}: {error} (.jsonl holds long and odd texts)") from None
    return rows


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs the package pyarrow: pip install 'collm[data]'") from None
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}") from None
