"""What ends a run from outside: a signal, or a disk that takes no more. A line says what is kept and how to go on.

For the command line. Nothing is saved at the last moment: the newest checkpoint is whole, and a resumed run is the
uninterrupted one bit for bit, so at most the work since then is done again.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from collm_agents import checkpoint
from collm_agents.callbacks import Callback, RunState
from collm_envs.errors import CollmError, InputError

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # beside SIGINT, which Python raises itself


class StoppedError(CollmError):
    """A run ended before its end.

    Attributes:
        code: exit code of the program: 128 + signal, or 1.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Signalled(KeyboardInterrupt):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Whereabouts(Callback):
    """Remembers which folder a run is in."""

    run_dir: Path | None = None

    def on_start(self, run: RunState) -> None:
        """Training begins, or goes on."""
        self.run_dir = run.run_dir

    def told(self) -> str:
        """What is kept of the run, and how to go on."""
        if self.run_dir is None:
            return "training had not begun"
        kept = checkpoint.found(self.run_dir)
        if not kept:
            return f"{self.run_dir} has no checkpoint yet; begin it anew"
        return (
            f"{self.run_dir} keeps its checkpoint at {checkpoint.samples_of(kept[-1])}; to go on: "
            f"collm train --resume {self.run_dir}"
        )


@contextlib.contextmanager
def stoppable() -> Iterator[Whereabouts]:
    """Inside, signals that end programs and failing writes become a `StoppedError` that says what is kept.

    Yields:
        A callback for the run.

    Raises:
        StoppedError: in their place.
    """
    place = Whereabouts()
    before = {}
    if threading.current_thread() is threading.main_thread():
        # What is ignored stays so: nohup's runs outlive the terminal.
        before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, _raise)
    try:
        yield place
    except KeyboardInterrupt as stop:
        ended_by = stop.number if isinstance(stop, _Signalled) else int(signal.SIGINT)
        name = signal.Signals(ended_by).name
        raise StoppedError(f"stopped by {name}; {place.told()}", 128 + ended_by) from stop
    except OSError as error:
        if isinstance(error, (InputError, BrokenPipeError)):
            raise
        raise StoppedError(f"{_written(error)}; {place.told()}", 1) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise _Signalled(number)


def _written(error: OSError) -> str:
    if isinstance(error, CollmError) or not error.strerror:
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror}"
