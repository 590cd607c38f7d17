"""A new reward component on an existing environment, chosen and weighed by its name.

The writing score compares two texts with each other and never looks at the post. Here a component does: the
summary is paid for words that occur in the post.

    python examples/custom_reward.py
"""

from dataclasses import dataclass

import numpy as np

from collm_envs import component, make, play_scripted, register, spec
from collm_envs.text import content_words
from collm_envs.writing.rules import TextPair

TldrMini = spec("writing/tldr-mini-v0").env_class


@dataclass(frozen=True)
class PairAndPost(TextPair):
    """The outcome with what the new component needs: the post."""

    post: str


@component("on_topic", low=0, high=1)
def on_topic(outcome: PairAndPost) -> float:
    """Fraction of the summary's content words that the post has."""
    words = content_words(outcome.first)
    return len(words & content_words(outcome.post)) / len(words) if words else 0.0


@register("mine/tldr-on-topic-v0")
class OnTopic(TldrMini):
    """`writing/tldr-mini-v0` with one more part of the reward, `on_topic`.

    Observations: as there.

    Actions: as there.

    Rewards: as there, and `on_topic`, up to 1. It stands behind the other levels, so their gates hold for it.

    Example:
        >>> from collm_envs import make
        >>> make("mine/tldr-on-topic-v0", rewards={"on_topic": 0.5}).high
        3.5
    """

    def components(self):
        """Those of the parent, in their order, and the new one."""
        return (*super().components(), on_topic)

    def advance(self, state, actions):
        """The parent's turn; the outcome also carries the post."""
        state, pair = super().advance(state, actions)
        return state, PairAndPost(pair.first, pair.second, state.post)


def main():
    """Scores of the scripted agents under three weights; 0 leaves a component out."""
    print(f"{'weight':>6}  {'highest':>7}  {'novice':>6}  {'oracle':>6}  {'on_topic of the oracle':>22}")
    for weight in (0, 0.5, 2):
        env = make("mine/tldr-on-topic-v0", split="test", rewards={"on_topic": weight})
        played = {kind: play_scripted(env, kind, env.tasks) for kind in ("novice", "oracle")}
        means = {kind: np.mean([record["score"] for record in records]) for kind, records in played.items()}
        part = np.mean([record["parts"]["on_topic"] for record in played["oracle"]])
        print(f"{weight:6}  {env.high:7.2f}  {means['novice']:6.2f}  {means['oracle']:6.2f}  {part:22.2f}")


if __name__ == "__main__":
    main()
