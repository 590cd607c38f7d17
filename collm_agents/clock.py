"""Where a run's time goes: exclusive seconds of the main thread by phase.

For trainer, collector, team and learner, which share one. Phases nest, and only the innermost one runs, so the
seconds of all phases add up to the wall time and none is counted twice. What other threads and processes do
meanwhile is no phase of the main thread; it is measured where it happens (`VecEnv.judging_s`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# In the order they are shown. `other` is the loop itself: choosing tasks, logging, arithmetic between phases.
PHASES = ("prefill", "decode", "env", "judge_wait", "workers", "actor", "critic", "evaluate", "save", "other")


class Clock:
    """A stopwatch with one running phase at a time."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._running = ["other"]
        self._since = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is inside as `name`, and not as the phase around it."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def move(self, seconds: float, source: str, target: str) -> None:
        """Count time that was measured elsewhere as another phase's."""
        self._switch()
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def read(self) -> dict[str, float]:
        """Seconds by phase so far."""
        self._switch()
        return dict(self.seconds)

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Seconds by phase since an earlier `read`."""
        return {name: total - before[name] for name, total in self.read().items()}

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now
