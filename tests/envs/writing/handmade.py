"""Texts with exact numbers of words, characters and distinct words, for scores worked by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from collm_envs import make
from collm_envs.task import Task

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# One word of each of the twelve categories. The first seven are function words, the last five content words.
LINKS = (
    *("also", "so", "but", "then", "though", "if", "while"),
    *("namely", "meaning", "indeed", "overall", "likewise"),
)


@dataclass(frozen=True)
class Text:
    """`words` words, `chars` characters in all, `unique` of the words distinct; `lead` words stand first."""

    words: int
    chars: int
    unique: int
    tag: str = "q"
    lead: tuple[str, ...] = ()

    def __str__(self) -> str:
        made = [f"{self.tag}{a}{b}" for a in LETTERS for b in LETTERS][: self.unique - len(self.lead)]
        distinct = [*self.lead, *made]
        repeats = [made[0]] * (self.words - self.unique)
        spare = self.chars - len(" ".join([*distinct, *repeats]))
        assert spare >= 0, "too few characters for that many words"
        assert len(made) >= 2, "the last made word carries the spare characters and must occur once"
        text = " ".join([*distinct[:-1], *repeats, distinct[-1] + "x" * spare])
        assert (len(text), len(text.split()), len(set(text.split()))) == (self.chars, self.words, self.unique)
        return text


def shared(count: int) -> tuple[str, ...]:
    """`count` content words that can lead both texts."""
    return tuple(f"k{a}{b}" for a in LETTERS for b in LETTERS)[:count]


def change(text: Text, **fields: Any) -> Text:
    return replace(text, **fields)


def play(env_id: str, formula: str, first: str, second: str, **settings: Any) -> dict[str, Any]:
    """The info of one turn in which the two texts are the replies."""
    env = make(env_id, formula=formula, **settings)
    env.reset(seed=0, options={"task": Task("t", {"post": "A post about a river and a house."})})
    *_, infos = env.step(dict(zip(env.possible_agents, (first, second), strict=True)))
    return infos[env.possible_agents[0]]
