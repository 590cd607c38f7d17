"""A small game whose scoring waits, as one does that asks a sandbox or a server elsewhere."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from collm_envs import make
from collm_envs.reward import Score

Game = type(make("games/strbuild-mini-v0"))


class Waiting(Game):  # type: ignore[misc, valid-type]
    """The mini of string building; a score is ready only `wait_s` after it was asked for, and costs no time of a
    processor meanwhile.

    Attributes:
        wait_s: seconds.
    """

    wait_s = 0.0

    def judge(self, outcome: Any) -> Future[Score]:
        """The game's own score, later."""
        later: Future[Score] = Future()
        threading.Timer(self.wait_s, lambda: later.set_result(super(Waiting, self).judge(outcome))).start()
        return later
