"""`WritingPair`: what all writing environments share.

Two writers see the same post and reply at once with one text each; alone, one writer replies with both texts,
divided by a marker line. A concrete environment is class data: names, prompts, rules by formula, and how its
novice and oracle write. See `rules` for the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.reward import Score, Scorer
from collm_envs.task import Row, Task
from collm_envs.text import Knees, split_at_marker
from collm_envs.writing.rules import Rules, TextPair
from collm_envs.writing.scripted import Novice, key_words

MARKER = "==="
FILL = ("people", "place", "thing", "story", "part", "moment", "reason", "detail", "change", "question")


@dataclass(frozen=True)
class PostState:
    """The post, and what the last turn's score told the writers ("" before any)."""

    post: str
    feedback: str = ""


def text_row(column: str) -> Callable[[Row], tuple[dict[str, Any], dict[str, Any]]]:
    """A row builder that takes the post from a string column."""
    return _Column(column)


@dataclass(frozen=True)
class _Column:
    """Row -> public fields; a class rather than a closure, so that task sources can be pickled."""

    name: str

    def __call__(self, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
        value = row[self.name]
        public = {"post": value if isinstance(value, str) else " ".join(value)}
        if isinstance(row.get("title"), str):
            public["title"] = row["title"]
        return public, {}


class WritingPair(CollabEnv):
    """Two texts about one post, scored against each other. Subclasses are class data.

    Attributes:
        team: names of the two agents, first and second text.
        prompts: prompt by agent (`writer_0` is the single agent); `{post}` and `{marker}` are replaced.
        rules: figures of the score by formula.
        level_texts: what feedback says of a level; `{0}`, `{1}` are the measured values, `{span}` the best
        range.
        frames: feedback around it where a level failed, and where all passed and this one is weakest.
        plain_feedback: feedback in mode `plain`.
        novices: how the novice writes either text.
        oracle_texts: by formula, the oracle's texts with numbered gaps for words of the post.
        oracle_gaps: how many gaps there are.
        fill: words for gaps where a post has too few.
    """

    agent_counts = (1, 2)
    feedback_modes = ("level_feedback", "plain")
    team: ClassVar[tuple[str, str]]
    prompts: ClassVar[Mapping[str, str]]
    rules: ClassVar[Mapping[str, Rules]]
    level_texts: ClassVar[Mapping[str, str]] = {
        "structure": "the {first} has {0} words, the {second} {1}; both need {span}",
        "length_ratio": "the {second} has {0} times the characters of the {first}; best is {span}",
        "unique_ratio": "the {second} has {0} times the distinct words of the {first}; best is {span}",
        "style": "{0} of 12 kinds of connectives, overlap of content words {1}; best is {span} or more",
    }
    frames: ClassVar[tuple[str, str]] = (
        "Failed level {level}: {text}. Write again.",
        "Weakest level {level}: {text}. Write again.",
    )
    plain_feedback: ClassVar[str] = "Not there yet. Write again."
    novices: ClassVar[tuple[Novice, Novice]]
    oracle_texts: ClassVar[Mapping[str, tuple[str, str]]]
    oracle_gaps: ClassVar[int]
    fill: ClassVar[Sequence[str]] = FILL

    def roles(self, num_agents: int) -> Sequence[str]:
        """The two writers, or `writer_0` alone."""
        return self.team if num_agents == 2 else ("writer_0",)

    def components(self) -> Sequence[Scorer]:
        """The four gated levels under `formula`."""
        return self.rules[self.formula].levels()

    def measure(self, outcome: TextPair) -> Mapping[str, float]:
        """What the levels are computed from: words, ratios, connective categories, overlap."""
        structure, length, unique, style = self.rules[self.formula].levels()
        first, second = structure.measure(outcome)
        categories, overlap = style.measure(outcome)
        return {
            "words_first": first,
            "words_second": second,
            "length_ratio": length.measure(outcome)[0],
            "unique_ratio": unique.measure(outcome)[0],
            "connectives": categories,
            "jaccard": overlap,
        }

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        """Every level above zero, and `success_at` of the greatest score."""
        return self._solved

    def _solved(self, pair: TextPair, total: float, parts: Mapping[str, float]) -> bool:
        model = self.reward_model
        levels = all(parts[name] > 0 for name in model.names if model.weights[name])
        return levels and total >= model.success_at * model.high - 1e-9

    def begin(self, task: Task, rng: np.random.Generator) -> PostState:
        """The post; nothing is drawn."""
        return PostState(task.public["post"])

    def prompt(self, state: PostState, agent: str) -> str:
        """The post with the role's instructions, later the feedback alone."""
        if state.feedback:
            return state.feedback
        # The post goes in last: braces inside it are text.
        return self.prompts[agent].replace("{marker}", MARKER).replace("{post}", state.post)

    def advance(self, state: PostState, actions: Mapping[str, str]) -> tuple[PostState, TextPair]:
        """The two texts; the post stays as it is."""
        if len(self.possible_agents) == 1:
            return state, TextPair(*split_at_marker(actions["writer_0"], MARKER))
        return state, TextPair(*(actions[agent] for agent in self.team))

    def settle(self, state: PostState, outcome: TextPair, score: Score) -> PostState:
        """Put the feedback on a turn's score into the state."""
        if self.feedback == "plain":
            return replace(state, feedback=self.plain_feedback)
        return replace(state, feedback=self._level_feedback(outcome, score))

    def _level_feedback(self, pair: TextPair, score: Score) -> str:
        """The first level at zero, else the weakest, with what was measured; no word of the texts."""
        model = self.reward_model
        # A component that a subclass added is no level: there is nothing measured to tell of it.
        levels = {
            n: c
            for n, c in zip(model.names, model.components, strict=True)
            if model.weights[n] and n in self.level_texts
        }
        if not levels:
            return self.plain_feedback
        share = {n: score.parts[n] / (model.weights[n] * c.high) for n, c in levels.items()}
        failed = next((name for name in levels if share[name] <= 0), None)
        level = failed or min(share, key=lambda name: share[name])
        measured = levels[level].measure(pair)
        names = (agent.rpartition("_")[0] for agent in self.team)
        text = self.level_texts[level].format(
            *map(self.show, measured),
            span=self._span(level),
            **dict(zip(("first", "second"), names, strict=True)),
        )
        return self.frames[0 if failed else 1].format(level=level, text=text)

    @classmethod
    def show(cls, value: float) -> str:
        """A measured value as feedback prints it."""
        return str(value) if isinstance(value, int) else f"{value:.2f}"

    def _span(self, level: str) -> str:
        rules = self.rules[self.formula]
        if level == "style":
            return f"{rules.jaccard_cap:g}"
        if level == "structure":
            return f"{rules.words[0]} to {rules.words[1]}"
        knees: Knees = rules.length if level == "length_ratio" else rules.unique
        return f"{knees.full:g} or more" if math.isinf(knees.fade) else f"{knees.full:g} to {knees.fade:g}"

    def novice(self, state: PostState, agent: str, rng: np.random.Generator) -> str:
        """Words of the post in reading order, seldom in the right numbers."""
        return self._for_agent(agent, [novice.write(state.post, rng) for novice in self.novices])

    def oracle(self, state: PostState, agent: str, rng: np.random.Generator) -> str:
        """A fixed text with words of the post in its gaps; reaches `high` with its counterpart."""
        gaps = key_words(state.post, self.oracle_gaps, self.fill)
        return self._for_agent(agent, [text.format(*gaps) for text in self.oracle_texts[self.formula]])

    def _for_agent(self, agent: str, texts: Sequence[str]) -> str:
        if agent in self.team:
            return texts[self.team.index(agent)]
        return f"\n{MARKER}\n".join(texts)
