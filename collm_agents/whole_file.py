"""Files that are there whole or not at all, and errors of writing that say which file they are of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text so that a kill or a full disk leaves the old file or the new one, never half of one.

    Raises:
        OSError: naming `file`.
    """
    with whole(file) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` when the block ends well and is removed otherwise.

    Raises:
        OSError: naming `file`, where it was writing that failed.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        with naming(file, part):
            yield part
            part.replace(file)
    finally:
        with contextlib.suppress(OSError):  # a disk for reading only says so even of a file that is not there
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(file: Path, part: Path | None = None) -> Iterator[None]:
    """Inside, the system's errors that name no file, or the part written first, come out naming `file`.

    Opening fails with a name and writing without one.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and str(error.filename) != str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error
