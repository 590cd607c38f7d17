"""Generated tasks for `coding/compose-mini-v0`: integer functions made of a few steps in a row.

Thousands of distinct tasks, each fixed by its first two steps, so that a small model learns the rule instead of the
tasks. Tests are computed here, from trusted steps; nothing is run.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from collm_envs.task import FieldError, Row

ROW_STEPS = 4  # steps of a row: as many as agents are used, at least two
INPUTS = 4
GREATEST = 12  # constant
_RANGE = range(-9, 31)  # inputs
_TRIES = 24


@dataclass(frozen=True)
class Operation:
    """One kind of step: its word in prompts, how it is written around a value, and what it computes."""

    word: str
    code: str
    apply: Callable[[int, int], int]
    least: int = 1  # smallest constant that changes anything


OPERATIONS = {
    operation.word: operation
    for operation in (
        Operation("add", "{0} + {1}", operator.add),
        Operation("minus", "{0} - {1}", operator.sub),
        Operation("times", "{0} * {1}", operator.mul, 2),
        Operation("over", "{0} // {1}", operator.floordiv, 2),
        Operation("mod", "{0} % {1}", operator.mod, 2),
        Operation("max", "max({0}, {1})", max),
        Operation("min", "min({0}, {1})", min),
    )
}
Step = tuple[str, int]
STEPS: tuple[Step, ...] = tuple(
    (word, constant)
    for word, operation in OPERATIONS.items()
    for constant in range(operation.least, 1 + GREATEST)
)


def written(step: Step, inner: str) -> str:
    """A step as Python, applied to an expression that needs no brackets."""
    return OPERATIONS[step[0]].code.format(inner, step[1])


def value(steps: Sequence[Step], x: int) -> int:
    """What steps in a row make of an input."""
    for word, constant in steps:
        x = OPERATIONS[word].apply(x, constant)
    return x


def read_steps(text: str) -> tuple[Step, ...]:
    """Steps written as `add 3 times 2`.

    Raises:
        FieldError: for anything else.
    """
    words = text.split()
    pairs = list(zip(words[::2], words[1::2], strict=False))
    if not pairs or len(words) % 2 or any(w not in OPERATIONS or not c.isdecimal() for w, c in pairs):
        raise FieldError("steps", f"{text!r} does not read 'add 3 times 2'")
    steps = tuple((word, int(constant)) for word, constant in pairs)
    if any(constant < OPERATIONS[word].least for word, constant in steps):
        raise FieldError("steps", f"a step of {text!r} changes nothing")
    return steps


def _fits(first: Step, second: Step, inputs: Sequence[int]) -> bool:
    """Whether tests on these inputs tell the two steps in order from all that is likely to be written instead."""
    right = [value((first, second), x) for x in inputs]

    def differs(*steps: Step) -> int:
        return sum(a != value(steps, x) for a, x in zip(right, inputs, strict=True))

    halves = ((), (first,), (second,), (first, first), (second, second))
    swapped = differs(second, first)
    return len(set(right)) > 1 and swapped > 0 and min(differs(*half) for half in halves) >= INPUTS - 1


@lru_cache(maxsize=4)
def rows(test: int = 128, seed: int = 5) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Train and test rows; no two share their first two steps.

    Args:
        test: number of test rows.
        seed: seed of the generator.
    """
    rng = random.Random(seed)
    made: list[Row] = []
    pairs = list(itertools.product(STEPS, STEPS))
    rng.shuffle(pairs)
    for first, second in pairs:
        for _ in range(_TRIES):
            inputs = rng.sample(_RANGE, INPUTS)
            if _fits(first, second, inputs):
                further = rng.choices(STEPS, k=ROW_STEPS - 2)
                steps = " ".join(f"{word} {constant}" for word, constant in (first, second, *further))
                made.append({"steps": steps, "inputs": " ".join(map(str, inputs))})
                break
    return tuple(made[test:]), tuple(made[:test])
