"""Environments that break while they are played, for whoever has to say so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from paying_env import Judged, Paying


class Failing(Paying):
    """As `Paying`, with a scorer that breaks.

    Observations: a word.

    Actions: any text.

    Rewards: none.

    Example: none.
    """

    def judge(self, outcome):
        raise RuntimeError("the scorer broke")


class Doomed(Judged):
    """As `Judged`; its scorer ends what `doom` says, with SIGKILL.

    Observations: a word.

    Actions: any text.

    Rewards: `luck`.

    Example: none.

    Attributes:
        doom: `worker` (the process that plays) or `node` (the Ray daemon above it).
        once: file that is written at the first time, after which nothing more happens; empty: every time.
        spared: Ray's id of a node where nothing happens.
        after: file without which nothing happens; empty: at once.
    """

    doom, once, spared, after = "", "", "", ""

    def judge(self, outcome):
        if self.doom and self._due():
            os.kill(os.getpid() if self.doom == "worker" else os.getppid(), signal.SIGKILL)
        return super().judge(outcome)

    def _due(self):
        import ray

        if self.after and not os.path.exists(self.after):
            return False
        if ray.get_runtime_context().get_node_id() == self.spared:
            if not os.path.exists(self.once):
                time.sleep(0.2)  # or this node's workers would have done all before others are up
            return False
        try:
            return not self.once or bool(os.open(self.once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False


class Held(Judged):
    """As `Judged`; once a run has a checkpoint after its start, its scorer waits while a file is there.

    Observations: a word.

    Actions: any text.

    Rewards: `luck`.

    Example: none.

    The file is COLLM_TEST_HOLD's, the run's folder is beside it.
    """

    def judge(self, outcome):
        hold = Path(os.environ.get("COLLM_TEST_HOLD", "nowhere"))
        while hold.exists() and any(
            int(place.name) > 0 for place in hold.parent.glob("run/checkpoints/[0-9]*")
        ):
            time.sleep(0.05)
        return super().judge(outcome)
