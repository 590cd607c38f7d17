"""Empty a folder that a hostile program has filled: any depth, any names, folders without any rights.

For `confine`. Nobody else may be writing below the folder meanwhile. It never follows a link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from itertools import count, islice

BATCH = 4096  # entries held in memory at a time


def untouched(folder: str) -> bool:
    """Whether a folder is empty; one system call or two."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def remove_few(folder: str, most: int) -> bool:
    """Remove plain entries where there are only a few of them and no folder.

    Returns:
        Whether the folder is empty now; where not, nothing was removed.
    """
    with os.scandir(folder) as entries:
        found = list(islice(entries, most + 1))
    if len(found) > most or any(entry.is_dir(follow_symlinks=False) for entry in found):
        return False
    for entry in found:
        os.unlink(entry.path)
    return True


def empty(folder: str) -> None:
    """Remove all that is in a folder, but not itself.

    Folders met are moved to the top and emptied there, so that neither the length of a path nor the depth of
    the tree sets a limit.
    """
    os.chmod(folder, 0o700)
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    token, numbers = os.urandom(8).hex(), count()
    waiting: list[str] = []

    def lift(name: str, parent: int) -> None:
        os.chmod(name, 0o700, dir_fd=parent)  # moving a folder writes into it
        lifted = f"{token}-{next(numbers)}"
        os.rename(name, lifted, src_dir_fd=parent, dst_dir_fd=top)
        waiting.append(lifted)

    try:
        _clear(top, lift, token)
        while waiting:
            name = waiting.pop()
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                _clear(inner, lift, token)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def remove_folder(folder: str) -> None:
    """Remove a folder with all that is in it, as far as it still exists; "" for none.

    Several processes may do it at once, when one of them has died.
    """
    with contextlib.suppress(OSError):
        if folder:
            empty(folder)
            os.rmdir(folder)


def _clear(fd: int, lift: Callable[[str, int], None], token: str) -> None:
    """Unlink the files of a folder and lift its folders; those that carry the token wait already."""
    while True:
        with os.scandir(fd) as entries:
            batch = list(islice((entry for entry in entries if not entry.name.startswith(token)), BATCH))
        if not batch:
            return
        for entry in batch:
            if entry.is_dir(follow_symlinks=False):
                lift(entry.name, fd)
            else:
                os.unlink(entry.name, dir_fd=fd)
