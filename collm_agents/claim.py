"""Whose folder it is: a run's folder is chosen, made and held, so that no two processes write into one.

For experiments, benchmarks and searches. A lock is the system's, on the open folder or an open file: it ends with
its process, however that ends, and a run's leaves nothing behind.
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

from collm_agents.config import Config
from collm_envs.errors import InputError, SettingError

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: Path, told: str, by: str = "") -> Iterator[int]:
    """Hold a folder.

    Programs that inherit the descriptor hold it too: one that a killed caller left behind holds it to its end.

    Args:
        folder: which is there.
        told: the message where another holds it.
        by: a file in it that is locked, and made, where the folder itself is held by something else.

    Yields:
        The descriptor.

    Raises:
        InputError: when another holds it.
    """
    descriptor = _locked(folder / by, os.O_RDWR | os.O_CREAT if by else os.O_RDONLY, told)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(place: Path, flags: int, told: str) -> int:
    while True:
        descriptor = os.open(place, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                warning = "%s: this file system has no locks (%s), so nothing keeps a second process out"
                log.warning(warning, place, error.strerror)
                return descriptor
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise InputError(told) from None
            raise
        # Whoever held it before may have removed it since it was opened here: then something else has its name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                return descriptor
        os.close(descriptor)


def check_folder(config: Config) -> None:
    """Raise a `SettingError` where `run.out` holds something already, or cannot be made."""
    if not config.run.out:
        return
    folder = Path(config.run.out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"run.out={str(folder)!r} is not an empty folder; to go on with it use --resume")
    above = next(place for place in folder.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        wrong = "cannot be written in" if above.is_dir() else "is a file"
        raise SettingError(f"run.out={str(folder)!r}: {above} {wrong}; name another folder")


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
        with held(folder, f"run.out={str(folder)!r}: another process trains there; name another folder"):
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
    return held(run_dir, told)


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
