"""Whether files are what was written: their SHA-256, kept beside them, and readers that say which file is damaged.

For checkpoints. It tells damage (a copy that broke off, a disk that failed, a file that was changed) from another
version; it proves nothing about who wrote them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from collm_envs.errors import InputError

HASHES = "sha256.json"
REMEDY = "take another checkpoint, or another copy"
T = TypeVar("T")


class DamagedError(InputError):
    """A file is missing, or not what was written; names it."""


def seal(folder: Path) -> None:
    """Write down what the files of a folder are, and bring all to the disk."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != HASHES)
    known = {file.relative_to(folder).as_posix(): _digest(file) for file in files}
    (folder / HASHES).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def verify(folder: Path, under: str = "") -> None:
    """Look whether files are what was written; a folder without hashes passes.

    Args:
        folder: that was sealed.
        under: only files whose path in it begins so.

    Raises:
        DamagedError: names the first that is not, or is missing.
    """
    if not (folder / HASHES).is_file():
        return
    known = read(folder / HASHES, lambda file: dict(json.loads(file.read_text(encoding="utf-8"))))
    for name, digest in known.items():
        if name.startswith(under):
            file = folder / name
            if not file.is_file():
                raise DamagedError(f"{folder} is damaged: {name} is missing; {REMEDY}")
            if _digest(file) != digest:
                raise DamagedError(f"{folder} is damaged: {name} is not what was written (SHA-256); {REMEDY}")


def read(file: Path, reader: Callable[[Path], T]) -> T:
    """Read a file.

    Raises:
        DamagedError: when the reader cannot.
    """
    try:
        return reader(file)
    except FileNotFoundError:
        raise DamagedError(f"{file.parent} is damaged: {file.name} is missing; {REMEDY}") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"{file}: is damaged and cannot be read ({first[:200]})") from error


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
