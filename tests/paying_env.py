"""An environment in which any text earns something, so that random models have something to learn from."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from collm_envs import CollabEnv, RowFormat, component


@dataclass(frozen=True)
class PayingState:
    word: str
    turn: int = 0
    last: float = 0.0


@component("luck", low=0, high=1)
def luck(replies: tuple[str, ...]) -> float:
    """A sum over characters, never quite 1, so that no episode ends early."""
    return sum(ord(c) for reply in replies for c in reply) % 7 / 8


class Paying(CollabEnv):
    """Agents say anything and are paid by the characters in it; used as `paying_env:Paying`.

    Observations: a word; then the last score.

    Actions: any text.

    Rewards: `luck`.

    Example: none.
    """

    row_formats = (RowFormat({"word": str}, lambda row: ({"word": row["word"]}, {})),)
    feedback_modes = ("score",)

    def roles(self, num_agents):
        return tuple(f"agent_{i}" for i in range(num_agents))

    def components(self):
        return (luck,)

    def builtin_rows(self, split):
        return [{"word": f"{split} {'very ' * (i % 3)}long {i}"} for i in range(12)]

    def begin(self, task, rng):
        return PayingState(task.public["word"])

    def prompt(self, state, agent):
        return f"Score {state.last:.2f}" if state.turn else f"{agent} sees {state.word}"

    def advance(self, state, actions):
        return replace(state, turn=state.turn + 1), tuple(actions.values())

    def settle(self, state, outcome, score):
        return replace(state, last=score.total)


class Judged(Paying):
    """As `Paying`, scored by another thread that takes its time.

    Observations: a word; then the last score.

    Actions: any text.

    Rewards: `luck`.

    Example: none.
    """

    takes_s = 0.05
    threads = ThreadPoolExecutor(8)

    def judge(self, outcome):
        def slowly():
            time.sleep(self.takes_s)
            return self.reward_model(outcome)

        return self.threads.submit(slowly)
