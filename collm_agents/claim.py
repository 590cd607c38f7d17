"""Whose folder it is: a run's folder is chosen, made and held, so that no two processes write into one.

For experiments, benchmarks and searches. A lock is the system's, on an open file: it ends with the process, however
that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from collm_agents.config import Config
from collm_envs.errors import InputError, SettingError

log = logging.getLogger(__name__)

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(lock: Path, told: str) -> Iterator[int]:
    """Hold a folder by a file in it, which goes when the block ends.

    Programs that inherit the file hold it too, so that one which a killed caller left behind holds it to its end.

    Args:
        lock: the file; its folder is made where it is missing.
        told: the message where another holds it.

    Yields:
        The file's descriptor.

    Raises:
        InputError: when another holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(lock, told)
    try:
        yield file.fileno()
    finally:
        with contextlib.suppress(OSError):  # such as on a disk that has become one for reading only
            lock.unlink(missing_ok=True)
        file.close()


def _locked(lock: Path, told: str) -> IO[str]:
    while True:
        file = lock.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(told) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
            log.warning(
                "%s: this file system has no locks (%s), so nothing keeps a second process out of the folder",
                lock.parent,
                error.strerror,
            )
            return file
        # Whoever held it before may have removed it since it was opened here: then it is no longer the folder's.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()


def check_folder(config: Config) -> None:
    """Raise a `SettingError` where `run.out` holds something already, or cannot be made."""
    if not config.run.out:
        return
    folder = Path(config.run.out).expanduser()
    if folder.exists() and (not folder.is_dir() or _filled(folder)):
        raise SettingError(f"run.out={str(folder)!r} is not an empty folder; to go on with it use --resume")
    above = next(place for place in folder.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        wrong = "cannot be written in" if above.is_dir() else "is a file"
        raise SettingError(f"run.out={str(folder)!r}: {above} {wrong}; name another folder")


def _filled(folder: Path) -> bool:
    return any(path.name != LOCK for path in folder.iterdir())


@contextlib.contextmanager
def claimed(config: Config, algorithm: str) -> Iterator[Path]:
    """The folder of a new run, made and held: `run.out`, or the first free name under `runs`.

    Where the block ends without having written anything, what was made for it goes again.

    Raises:
        SettingError: when `run.out` cannot be made or holds something.
        InputError: when another process trains there.
    """
    folder, made = _made(config, algorithm)
    try:
        with held(
            folder / LOCK, f"run.out={str(folder)!r}: another process trains there; name another folder"
        ):
            check_folder(config)  # under the lock, so that who comes second sees what the first has written
            yield folder
    finally:
        for place in made:
            with contextlib.suppress(OSError):  # there is something in it
                place.rmdir()


def _made(config: Config, algorithm: str) -> tuple[Path, list[Path]]:
    """A new run's folder, and those that are made for it, the lowest first."""
    if config.run.out:
        folder = Path(config.run.out).expanduser()
        made = _missing(folder)
        _make(folder)
        return folder, made
    name = config.env_id.replace("/", "-").replace(":", "-")
    base = f"{name}-{algorithm}-s{config.run.seed}"
    number = 1
    while True:
        folder = Path("runs") / (base if number == 1 else f"{base}-{number}")
        made = _missing(folder)
        if made and _make(folder):
            return folder, made
        number += 1


def held_run(run_dir: Path) -> contextlib.AbstractContextManager[int]:
    """Hold the folder of a run that is gone on with.

    Raises:
        InputError: when another process trains there.
    """
    told = f"{run_dir}: another process trains there; wait until it ends, or stop it"
    return held(run_dir / LOCK, told)


def _missing(folder: Path) -> list[Path]:
    """A folder and those above it, the lowest first, as far as they are not there."""
    return list(itertools.takewhile(lambda place: not place.exists(), [folder, *folder.parents]))


def _make(folder: Path) -> bool:
    """Make a folder; False where there is one, so of two processes only one is told that it made it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.exists():
            return False
        told = f"run.out={str(folder)!r}: cannot be made ({error.strerror}); name another folder"
        raise SettingError(told) from None
    return True
