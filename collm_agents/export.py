"""Episodes as Parquet, for whoever analyses them elsewhere. The one place that knows pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_parquet(columns: Mapping[str, Sequence[Any]], file: Path) -> None:
    """Write columns of one length; the file is whole or not there.

    Args:
        columns: values by name.
        file: to write.

    Raises:
        ImportError: where pyarrow is not installed.
    """
    import pyarrow
    import pyarrow.parquet

    part = file.with_name(f".{file.name}.part")
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), part)
    part.replace(file)
