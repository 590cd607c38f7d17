"""A new environment in one file: two agents share out four letters without talking.

The class has the three hooks, its reward components and two scripted agents; `@register` gives it an id. Then
it is checked against the contract, and a small team is trained on it.

    python examples/custom_environment.py --joint-samples 640
    collm check examples.custom_environment:ShareOut      # the same class by its name, from the checkout
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from collm_envs import CollabEnv, RowFormat, check_env, component, register

LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Shared:
    """The state: the letters, and the last turn's score. Frozen, since hooks return new states."""

    letters: str
    last: float | None = None


@dataclass(frozen=True)
class Said:
    """The outcome of a turn: what was to be said, and what each agent said, as letters."""

    letters: str
    parts: tuple[tuple[str, ...], ...]


@component("covered", low=0, high=1)
def covered(outcome: Said) -> float:
    """Fraction of the letters that somebody said."""
    said = {letter for part in outcome.parts for letter in part}
    return len(said & set(outcome.letters)) / len(outcome.letters)


@component("no_waste", low=0, high=1)
def no_waste(outcome: Said) -> float:
    """Fraction of what was said that was asked for and said once."""
    said = [letter for part in outcome.parts for letter in part]
    return sum(letter in outcome.letters and said.count(letter) == 1 for letter in said) / max(len(said), 1)


def to_task(row):
    """A data row as (public, hidden) fields of a task; hidden ones are for scorers only."""
    return {"letters": row["letters"]}, {}


@register("mine/share-out-v0")
class ShareOut(CollabEnv):
    """Two agents see the same four letters and say them between them, each letter once.

    Observations: the letters; later the last score.

    Actions: letters, divided by blanks.

    Rewards: `covered` and `no_waste`, 1 each. Success at 0.95 of the sum.

    Example:
        >>> from collm_envs import make
        >>> env = make("mine/share-out-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["taker_0"] == observations["taker_1"]
        True
    """

    row_formats = (RowFormat({"letters": str}, to_task),)  # JSONL files with this field load as well

    def roles(self, num_agents):
        """Names of the agents."""
        return ("taker_0", "taker_1")

    def components(self):
        """What is paid."""
        return (covered, no_waste)

    def builtin_rows(self, split):
        """Tasks without a file: 200 for training, 50 for testing; the two share none."""
        rng = np.random.default_rng(3)
        drawn = ["".join(rng.permutation(list(LETTERS))[:4]) for _ in range(600)]
        words = list(dict.fromkeys(drawn))
        return [{"letters": word} for word in (words[:200] if split == "train" else words[200:250])]

    def begin(self, task, rng: np.random.Generator):
        """Hook 1: the state at the start."""
        return Shared(task.public["letters"])

    def prompt(self, state: Shared, agent: str):
        """Hook 2: what an agent sees."""
        if state.last is not None:
            return f"Score {state.last:.2f}. Try again."
        return "Share the letters: " + " ".join(state.letters)

    def advance(self, state: Shared, actions: Mapping[str, str]):
        """Hook 3: the next state, and the outcome that the components judge."""
        return state, Said(state.letters, tuple(tuple(actions[a].split()) for a in self.possible_agents))

    def settle(self, state: Shared, outcome: Said, score):
        """Optional: put the score into the state, for feedback."""
        return replace(state, last=score.total)

    def novice(self, state: Shared, agent: str, rng: np.random.Generator):
        """A weak script: two of the letters at random."""
        return " ".join(rng.choice(list(state.letters), size=2))

    def oracle(self, state: Shared, agent: str, rng: np.random.Generator):
        """A perfect script: the first or the second half."""
        half = self.possible_agents.index(agent)
        return " ".join(state.letters[2 * half : 2 * half + 2])


def main():
    """Check the environment, then train on it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--joint-samples", type=int, default=640)
    args = parser.parse_args()

    print(check_env("mine/share-out-v0").raise_if_failed())

    from collm_agents.experiment import Experiment
    from collm_agents.overrides import load_config

    config = load_config("mine/share-out-v0", overrides=[f"joint_samples={args.joint_samples}"])
    result = Experiment(config).run().result
    start, end = (result[when]["metrics"]["score"]["mean"] for when in ("start", "end"))
    print(
        f"score {start:.2f} -> {end:.2f} of {result['high']:g} after {result['joint_samples']} joint samples"
    )


if __name__ == "__main__":
    main()
