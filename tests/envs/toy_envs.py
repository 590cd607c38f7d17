"""A small environment with known numbers, which the tests of the package's spine play and break."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

from collm_envs import CollabEnv, RewardModel, RowFormat, Score, component


@dataclass(frozen=True)
class SumState:
    target: int
    hint: int
    turn: int = 0
    last: float = 0.0


@dataclass(frozen=True)
class SumOutcome:
    target: int
    replies: tuple[str, ...]


@component("digits", low=0, high=1, gate=True)
def digits(outcome: SumOutcome) -> float:
    return float(all(reply.isascii() and reply.isdigit() and len(reply) < 9 for reply in outcome.replies))


@component("close", low=0, high=2)
def close(outcome: SumOutcome) -> float:
    return 2 * max(0.0, 1 - abs(sum(map(int, outcome.replies)) - outcome.target) / 10)


def _build(row: Any) -> tuple[dict, dict]:
    return {"target": row["target"]}, {"recipe": row["recipe"]}


class Sum(CollabEnv):
    """Agents name numbers that add up to a target. `digits` (a gate) pays 1, `close` pays up to 2.

    Observations: the target, and a number drawn at the reset.

    Actions: a number.

    Rewards: as above.

    Example: none.
    """

    agent_counts = (1, 2, 3)
    feedback_modes = ("score", "plain")
    row_formats = (RowFormat({"target": int, "recipe": str}, _build),)

    def roles(self, num_agents):
        return tuple(f"adder_{i}" for i in range(num_agents))

    def components(self):
        return (digits, close)

    def builtin_rows(self, split):
        return [{"target": 5 + i, "recipe": f"never show this secret {i}"} for i in range(6)]

    def begin(self, task, rng):
        return SumState(task.public["target"], int(rng.integers(1000)))

    def prompt(self, state, agent):
        if state.turn:
            return f"Score {state.last:.2f}." if self.feedback == "score" else "Again."
        return f"{agent}: make {state.target} together. Hint {state.hint}."

    def advance(self, state, actions):
        return replace(state, turn=state.turn + 1), SumOutcome(state.target, tuple(actions.values()))

    def settle(self, state, outcome, score):
        return replace(state, last=score.total)

    def novice(self, state, agent, rng):
        return str(rng.integers(10))

    def oracle(self, state, agent, rng):
        return str(state.target) if agent == self.possible_agents[0] else "0"


class SlowSum(Sum):
    """The same, judged elsewhere: `judge` hands the outcome to an executor and returns a future."""

    pool: Executor

    def judge(self, outcome):
        return self.pool.submit(self.work, self.reward_model, outcome)

    @staticmethod
    def work(model: RewardModel, outcome: SumOutcome) -> Score:
        return model(outcome)


class HandJudged(Sum):
    """The same, judged by the test: each `judge` leaves a future and its outcome in `asked`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked: list[tuple[Future, SumOutcome]] = []

    def judge(self, outcome):
        future: Future = Future()
        self.asked.append((future, outcome))  # clones share the list on purpose
        return future

    def answer(self, number: int) -> None:
        """Finish one judgement."""
        future, outcome = self.asked[number]
        future.set_result(self.reward_model(outcome))
