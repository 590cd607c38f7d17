"""Rewards: named components, the score they add up to, and the schedules that pay it.

For task authors. A component is one measurable aspect of an outcome with a name and a range; a `RewardModel`
runs them in order and returns a `Score` with every part, so that a total is never seen without its reasons.
What a component may not do: clamp, guess, or return a value outside its declared range. That is a broken
scorer and raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from collm_envs.errors import SettingError, suggest

Scorer = Callable[[Any], float]
F = TypeVar("F", bound=Any)


@dataclass(frozen=True)
class Score:
    """What one joint action earned.

    Attributes:
        total: the score, within the reward model's `[low, high]`.
        parts: weighted contribution of each component by name; they sum to `total`.
        success: whether the outcome counts as solved. Reported apart from the score.
        metrics: measured quantities that are reported but not paid (a ratio, a pass rate), by name.
        details: evidence for feedback (measured values, failing tests); never shown unless an env does so.
    """

    total: float
    parts: Mapping[str, float]
    success: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def component(name: str, low: float, high: float, *, gate: bool = False) -> Callable[[F], F]:
    """Declare a function, or a frozen dataclass with `__call__`, as a reward component.

    The object itself is returned with its declaration attached, so it stays picklable.

    Args:
        name: the name under which its part is reported and weighed.
        low: least value it returns.
        high: greatest value it returns.
        gate: stop scoring after it when it returns zero or less; later components then contribute nothing.
    """

    def attach(scorer: F) -> F:
        scorer.component_name, scorer.low, scorer.high, scorer.gate = name, low, high, gate
        return scorer

    return attach


class RewardModel:
    """An ordered list of components, summed with weights into a `Score`.

    Args:
        components: objects declared with `component`, in scoring order.
        weights: weight by component name; unnamed components weigh 1. A weight of 0 leaves a component
            out (its gate included).
        success: predicate `(outcome, total, parts) -> bool`; default `total >= success_at * high`.
        success_at: fraction of `high` that counts as solved where there is no predicate.
        measure: outcome -> measured quantities by name, reported beside the parts.

    Raises:
        SettingError: for an unknown name, a negative weight, weights that leave nothing to earn, or two
            components of one name.
    """

    def __init__(
        self,
        components: Iterable[Scorer],
        *,
        weights: Mapping[str, float] | None = None,
        success: Callable[[Any, float, Mapping[str, float]], bool] | None = None,
        success_at: float = 0.95,
        measure: Callable[[Any], Mapping[str, float]] | None = None,
    ) -> None:
        self.components: tuple[Any, ...] = tuple(components)
        self.names = tuple(_declared(scorer, "component_name") for scorer in self.components)
        if len(set(self.names)) != len(self.names):
            raise SettingError(f"two reward components share a name: {', '.join(self.names)}")
        self.weights = dict.fromkeys(self.names, 1.0)
        whole = self.high
        if not isinstance(weights or {}, Mapping):
            raise SettingError(f"rewards must give a weight by component name, not {weights!r}")
        for name, weight in (weights or {}).items():
            if name not in self.weights:
                raise SettingError(f"unknown reward component {name!r}{suggest(str(name), self.names)}")
            if not _is_number(weight) or not math.isfinite(weight) or weight < 0:
                raise SettingError(
                    f"weight of reward component {name!r} must be a number >= 0, not {weight!r}"
                )
            self.weights[name] = float(weight)
        if whole > 0 >= self.high:  # or doing nothing would be success
            raise SettingError(
                f"rewards={dict(weights or {})} leave nothing to earn: the greatest score is {self.high:g}; one of "
                f"{', '.join(self.names)} has to weigh more"
            )
        if not _is_number(success_at) or not 0 < success_at <= 1:
            raise SettingError(f"success_at must lie in (0, 1], not {success_at!r}")
        self.success_at = success_at
        self._success = success
        self._measure = measure

    @property
    def high(self) -> float:
        """Greatest score that the components can add up to."""
        return self._range()[1]

    @property
    def low(self) -> float:
        """Least score: gates stop early, so a prefix of the components may be all that counts."""
        return self._range()[0]

    def _range(self) -> tuple[float, float]:
        low = high = 0.0
        ends = []
        for name, scorer in zip(self.names, self.components, strict=True):
            weight = self.weights[name]
            least, most = weight * scorer.low, weight * scorer.high
            if scorer.gate and weight:
                if least <= 0:  # the gate can close: the score then ends here
                    ends.append((low + least, high + min(most, 0.0)))
                if most <= 0:  # and can do nothing else
                    break
                least = max(least, 0.0)
            low, high = low + least, high + most
        else:
            ends.append((low, high))
        return min(end[0] for end in ends), max(end[1] for end in ends)

    def __call__(self, outcome: Any) -> Score:
        """Score an outcome.

        Args:
            outcome: whatever the environment's `advance` returned.

        Returns:
            The score; parts of components behind a closed gate are 0.

        Raises:
            ValueError: when a component returns a value outside its declared range, or not a finite number.
        """
        parts = dict.fromkeys(self.names, 0.0)
        for name, scorer in zip(self.names, self.components, strict=True):
            weight = self.weights[name]
            if not weight:
                continue
            value = float(scorer(outcome))
            if not scorer.low - 1e-9 <= value <= scorer.high + 1e-9:
                wanted = f"[{scorer.low}, {scorer.high}]"
                raise ValueError(f"reward component {name!r} returned {value}, outside its range {wanted}")
            parts[name] = weight * value
            if scorer.gate and value <= 0:
                break
        total = math.fsum(parts.values())
        if self._success is not None:
            success = bool(self._success(outcome, total, parts))
        else:
            success = total >= self.success_at * self.high - 1e-9
        return Score(total, parts, success, dict(self._measure(outcome)) if self._measure else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _declared(scorer: Any, attribute: str) -> Any:
    try:
        return getattr(scorer, attribute)
    except AttributeError:
        raise SettingError(
            f"{scorer!r} is not a reward component; declare it with @component(name, low, high)"
        ) from None


SCHEDULES = ("dense", "sparse", "final", "outcome", "delta")


@dataclass(frozen=True)
class Schedule:
    """How the scores of the turns are paid as rewards.

    Attributes:
        kind: `dense` pays `score - high` each turn (at most 0: an unfinished turn costs, so finishing early
            is never punished). `final` pays the last score at the end and 0 before. `outcome` pays 1 for
            success at the end, else 0. `delta` pays `score_t - score_{t-1} / gamma`, which telescopes:
            its discounted sum equals that of `final`. `sparse` is `final` for several turns and `outcome`
            for one, where `final` would equal `dense` up to a constant.
        high: greatest score of a turn.
        gamma: the discount `delta` telescopes under.
        num_turns: turn limit, which decides what `sparse` means.
    """

    kind: str
    high: float
    num_turns: int = 1
    gamma: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise SettingError(f"unknown reward schedule {self.kind!r}{suggest(str(self.kind), SCHEDULES)}")
        if self.kind == "delta" and self.gamma is None:
            raise SettingError("reward='delta' needs gamma in (0, 1]: the discount the learner will use")
        if self.gamma is not None and not (_is_number(self.gamma) and 0 < float(self.gamma) <= 1):
            raise SettingError(f"gamma must lie in (0, 1], not {self.gamma!r}")

    @property
    def resolved(self) -> str:
        """The schedule with `sparse` replaced by what it stands for at this number of turns."""
        if self.kind != "sparse":
            return self.kind
        return "final" if self.num_turns > 1 else "outcome"

    def pay(self, score: float, previous: float, *, last: bool, success: bool) -> float:
        """Reward of one turn.

        Args:
            score: this turn's score.
            previous: the turn's before, 0 at the first turn.
            last: whether the episode ends with this turn.
            success: whether this turn solved the task.
        """
        kind = self.resolved
        if kind == "dense":
            return score - self.high
        if kind == "delta":
            assert self.gamma is not None
            return score - previous / self.gamma
        if not last:
            return 0.0
        return score if kind == "final" else float(success)


def completed(result: Score | Future[Score]) -> bool:
    """Whether a judge's result can be read without waiting."""
    return result.done() if isinstance(result, Future) else True
