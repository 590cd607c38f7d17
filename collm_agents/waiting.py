"""A bar on stderr for what takes longer than two seconds; nothing in logs and CI.

For commands that read or make much. Only a terminal gets it, and it is gone when the work is done.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

QUIET_S = 2.0
EVERY_S = 0.1
WIDTH = 30


class Waiting:
    """How far a piece of work is.

    Args:
        what: it, in a few words.
        quiet_s: how long nothing is said.
    """

    def __init__(self, what: str, quiet_s: float = QUIET_S) -> None:
        self._what = what
        self._next = time.monotonic() + quiet_s if sys.stderr.isatty() else float("inf")
        self._drawn = False

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def at(self, share: float) -> None:
        """Say that a share of the work is done, 0 to 1; call it as often as you like."""
        if time.monotonic() < self._next:
            return
        self._next, self._drawn = time.monotonic() + EVERY_S, True
        share = min(max(share, 0.0), 1.0)
        bar = "#" * round(share * WIDTH)
        sys.stderr.write(f"\r{self._what} [{bar:<{WIDTH}}] {share:4.0%}\x1b[K")
        sys.stderr.flush()
