"""Text files read within bounds, so that a file which is not what its name says is refused before it costs memory.

For `task`, which reads data of unknown origin: plain or gzipped, a line at a time or as one document.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from collm_envs.errors import DataError

LONGEST_LINE = 64 * 2**20  # bytes; a row of text, code and tests stays far below
LONGEST_WHOLE = 256 * 2**20  # bytes of a file that can only be read as one


def read_lines(path: Path, *, zipped: bool) -> Iterator[str]:
    r"""The lines of a file with their ends; only "\n" ends one, since U+2028 and its like are legal inside a row.

    Args:
        path: the file.
        zipped: whether it is gzipped.

    Raises:
        DataError: for a line beyond the bound, what is not UTF-8 or not gzip; names the file and the place.
    """
    done = 0
    with _opened(path, zipped) as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                return
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path}: line {number} is longer than {LONGEST_LINE >> 20} MB; a row is one line: break it"
                )
            yield _decoded(line, path, done)
            done += len(line)


def read_whole(path: Path, *, zipped: bool) -> str:
    """A file as one text; otherwise as `read_lines`.

    Raises:
        DataError: for a file beyond the bound, and as `read_lines`.
    """
    with _opened(path, zipped) as file:
        size = 0 if zipped else path.stat().st_size
        raw = b"" if size > LONGEST_WHOLE else file.read(LONGEST_WHOLE + 1)
    if max(size, len(raw)) > LONGEST_WHOLE:
        raise DataError(
            f"{path}: larger than {LONGEST_WHOLE >> 20} MB, too much for one document; write .jsonl, a row a line"
        )
    return _decoded(raw, path, 0)


@contextlib.contextmanager
def _opened(path: Path, zipped: bool) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as plain:
            if not zipped:
                yield plain
                return
            with gzip.open(plain, "rb") as opened:
                yield cast(IO[bytes], opened)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as gzip ({error}); copy it again, or take .gz off its name if it is plain"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: {error}") from None


def _decoded(raw: bytes, path: Path, before: int) -> str:
    """Text of some bytes that stand behind `before` others; a byte order mark is no part of it."""
    try:
        return (raw.removeprefix(codecs.BOM_UTF8) if not before else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        place = before + error.start
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason} at byte {place}); save it as UTF-8"
        ) from None
