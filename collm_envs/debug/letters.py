"""Echo and handshake: the smallest tasks that show whether a learner learns.

For tests of learners, not for results. Echo needs no coordination; handshake needs roles that break a
symmetry. The agents reply with one letter; whatever else stands around it counts as a wrong reply.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.registry import register
from collm_envs.reward import Score, component
from collm_envs.task import Row, RowFormat, Task
from collm_envs.text import pieces

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWX"
NOVICE_SKILL = {"echo": 0.5, "handshake": 0.7}


@dataclass(frozen=True)
class LettersState:
    """Letters by agent, the turn, and the score of the last one."""

    letters: tuple[str, ...]
    turn: int = 0
    last: float = 0.0


@dataclass(frozen=True)
class LettersOutcome:
    """What was shown and what was said, by agent index."""

    letters: tuple[str, ...]
    replies: tuple[str, ...]


@component("echoed", low=0, high=1)
def echoed(outcome: LettersOutcome) -> float:
    """Fraction of agents whose reply is the letter they were shown."""
    right = sum(said == shown for said, shown in zip(outcome.replies, outcome.letters, strict=True))
    return right / len(outcome.letters)


@component("covered", low=0, high=1)
def covered(outcome: LettersOutcome) -> float:
    """1 when the replies are exactly the shown letters, one each, else 0."""
    return float(sorted(outcome.replies) == sorted(outcome.letters))


def _letters_row(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"letters": row["letters"]}, {}


@functools.cache
def _all_rows(split: str, count: int, seed: int) -> list[Row]:
    """Distinct strings of eight different letters; the splits share none.

    Thousands of them: with a few hundred, a small model learns the strings instead of the rule.
    """
    rng = np.random.default_rng(seed)
    seen: dict[str, None] = {}
    while len(seen) < count:
        seen["".join(rng.permutation(list(LETTERS))[:8])] = None
    words = list(seen)
    cut = count * 3 // 4
    return [{"letters": word} for word in (words[:cut] if split == "train" else words[cut:])]


class _Letters(CollabEnv):
    """Common part of the two: a task is a string of distinct letters."""

    agent_counts = tuple(range(1, 9))
    row_formats = (RowFormat({"letters": str}, _letters_row),)
    feedback_modes = ("score", "plain")

    def roles(self, num_agents: int) -> Sequence[str]:
        return tuple(f"agent_{i}" for i in range(num_agents))

    def builtin_rows(self, split: str) -> Sequence[Row]:
        return _all_rows(split, count=4096, seed=7)

    def begin(self, task: Task, rng: np.random.Generator) -> LettersState:
        return LettersState(tuple(task.public["letters"][: len(self.possible_agents)]))

    def advance(self, state: LettersState, actions: Mapping[str, str]) -> tuple[LettersState, LettersOutcome]:
        replies = tuple(actions[a].strip() for a in self.possible_agents)
        return replace(state, turn=state.turn + 1), LettersOutcome(state.letters, replies)

    def settle(self, state: LettersState, outcome: Any, score: Score) -> LettersState:
        return replace(state, last=score.total)

    def _later(self, state: LettersState) -> str:
        if self.feedback == "plain":
            return "Try again."
        return f"Score {state.last:.2f}. Try again."

    @classmethod
    def vocabulary(cls) -> list[str]:
        """Every word and sign that prompts, feedback and right replies can hold, sorted."""
        texts = ("Say the letter:", "Share the letters:", "Score . Try again.", " ".join(LETTERS))
        shown = {f"{right / n:.2f}" for n in cls.agent_counts for right in range(n + 1)}
        return sorted({*pieces(" ".join(texts)), *shown})

    def _other_letter(self, state: LettersState, rng: np.random.Generator) -> str:
        return str(rng.choice([letter for letter in LETTERS if letter not in state.letters]))


@register("debug/echo-v0")
class Echo(_Letters):
    """Each agent is shown a letter and must reply with it.

    Observations: turn 0 shows the agent's own letter; later turns give the last score (`feedback="score"`)
    or nothing (`"plain"`).

    Actions: one letter.

    Rewards: `echoed`, the fraction of agents that are right. Success when all are.

    Scripted: `novice` is right half of the time; `oracle` always.

    Example:
        >>> from collm_envs import make
        >>> env = make("debug/echo-v0")
        >>> observations, _ = env.reset(seed=0)
        >>> _, rewards, *_ = env.step({a: text[-1] for a, text in observations.items()})
        >>> rewards
        {'agent_0': 0.0, 'agent_1': 0.0}

    Version history: v0.
    """

    def components(self) -> Sequence[Any]:
        return (echoed,)

    def prompt(self, state: LettersState, agent: str) -> str:
        if state.turn:
            return self._later(state)
        return f"Say the letter: {state.letters[self.possible_agents.index(agent)]}"

    def success_rule(self) -> Any:
        return _perfect

    def novice(self, state: LettersState, agent: str, rng: np.random.Generator) -> str:
        mine = state.letters[self.possible_agents.index(agent)]
        return mine if rng.random() < NOVICE_SKILL["echo"] else self._other_letter(state, rng)

    def oracle(self, state: LettersState, agent: str, rng: np.random.Generator) -> str:
        return state.letters[self.possible_agents.index(agent)]


@register("debug/handshake-v0")
class Handshake(_Letters):
    """All agents are shown the same letters and must share them out, one each, without talking.

    Observations: turn 0 shows as many letters as there are agents; later turns give the last score
    (`feedback="score"`) or nothing (`"plain"`).

    Actions: one letter.

    Rewards: `covered`, 1 when the replies are the shown letters, one each, else 0. Success likewise. Nothing
    in the observation says who takes which: the roles must break the symmetry.

    Scripted: `novice` takes one of the letters at random 7 times in 10, else a wrong one; `oracle` takes the
    letter at its own index.

    Example:
        >>> from collm_envs import make
        >>> env = make("debug/handshake-v0")
        >>> observations, _ = env.reset(seed=0)
        >>> len(set(observations.values()))
        1

    Version history: v0.
    """

    def components(self) -> Sequence[Any]:
        return (covered,)

    def prompt(self, state: LettersState, agent: str) -> str:
        if state.turn:
            return self._later(state)
        return "Share the letters: " + " ".join(state.letters)

    def success_rule(self) -> Any:
        return _perfect

    def novice(self, state: LettersState, agent: str, rng: np.random.Generator) -> str:
        if rng.random() < NOVICE_SKILL["handshake"]:
            return str(rng.choice(state.letters))
        return self._other_letter(state, rng)

    def oracle(self, state: LettersState, agent: str, rng: np.random.Generator) -> str:
        return state.letters[self.possible_agents.index(agent)]


def _perfect(outcome: LettersOutcome, total: float, parts: Mapping[str, float]) -> bool:
    return total >= 1.0 - 1e-9
