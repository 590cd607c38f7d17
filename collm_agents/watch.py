"""What says that a run has collapsed: one warning of each kind, with what to try.

For experiments, which give it to every run. It reads the numbers of the updates and changes nothing; a run that is
as good as solved is left in peace, since equal returns and certain replies are then what was wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from collm_agents.callbacks import Callback, RunState

log = logging.getLogger(__name__)

UPDATES = 3  # in a row, before anything is said
SOLVED = 0.95  # success of an update from which on nothing is
CERTAIN = 0.01  # nats per token, below which a policy leaves nothing to chance
Metrics = Mapping[str, float]


def _where(metrics: Metrics, signal: str, holds: Callable[[float], bool]) -> list[str]:
    """Agents and turns of which a signal holds."""
    return [
        name.partition("/")[2]
        for name, value in metrics.items()
        if name.startswith(f"{signal}/") and holds(value)
    ]


def _constant(run: RunState, metrics: Metrics) -> str:
    return ", ".join(_where(metrics, "distinct_replies", lambda share: share == 0))


def _certain(run: RunState, metrics: Metrics) -> str:
    return ", ".join(_where(metrics, "entropy", lambda nats: nats < CERTAIN))


def _alike(run: RunState, metrics: Metrics) -> str:
    every = _where(metrics, "group_equal", lambda share: True)
    return ", ".join(every) if every == _where(metrics, "group_equal", lambda share: share == 1) else ""


def _still(run: RunState, metrics: Metrics) -> str:
    norms = {member: metrics.get(f"grad_norm/{member}", 1.0) for member in run.team.trained}
    return ", ".join(norms) if not any(norms.values()) else ""


# Kind -> whom it concerns in an update (empty: nobody), and what is said.
SIGNS: dict[str, tuple[Callable[[RunState, Metrics], str], str]] = {
    "constant replies": (
        _constant,
        "says the same whatever it is asked; lower learner.lr, or go back to an earlier checkpoint with "
        "learner.entropy_coef=0.01 or learner.kl_coef",
    ),
    "entropy near zero": (
        _certain,
        "leaves nothing to chance, so nothing new is tried; lower learner.lr, learner.entropy_coef=0.001 to 0.01, "
        "or a higher team.sampling.temperature",
    ),
    "equal rewards": (
        _alike,
        "siblings are all paid alike, so nothing tells a better reply from a worse one; more rollout.samples, a "
        "higher team.sampling.temperature, a denser env.reward, or rollout.joint_mode=cross",
    ),
    "zero gradient": (
        _still,
        "has a gradient of exactly zero, so it does not learn; look at advantage_zero and group_equal, and at "
        "learner.mask_truncated_replies beside truncated_replies",
    ),
}


class Watch(Callback):
    """Warns once of each kind of collapse, when it has lasted some updates."""

    def __init__(self) -> None:
        self.lasted = dict.fromkeys(SIGNS, 0)
        self.told: list[str] = []

    def on_step(self, run: RunState, metrics: Metrics) -> None:
        """Look at the numbers of an update."""
        solved = metrics["success"] >= SOLVED
        for kind, (concerns, says) in SIGNS.items():
            whom = "" if solved else concerns(run, metrics)
            self.lasted[kind] = self.lasted[kind] + 1 if whom else 0
            if self.lasted[kind] >= UPDATES and kind not in self.told:
                self.told.append(kind)
                log.warning(
                    "%s in %d updates up to update %d (%s): %s. See docs/signals.md",
                    kind,
                    UPDATES,
                    run.progress.updates,
                    whom,
                    says,
                )

    def state_dict(self) -> dict[str, Any]:
        """How long each kind has lasted, and which were told."""
        return {"lasted": self.lasted, "told": self.told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.lasted = {kind: int(state["lasted"].get(kind, 0)) for kind in SIGNS}
        self.told = list(state["told"])
