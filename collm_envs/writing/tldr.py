"""TLDR summarisation: a short summary and a longer, more varied account of the same post.

Two sizes of one task: `writing/tldr-v0` on real or hand-written posts, and `writing/tldr-mini-v0` on
generated posts of a closed vocabulary, for models of a million parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from collm_envs.registry import register
from collm_envs.task import Row, RowFormat, read_rows
from collm_envs.text import Knees, pieces
from collm_envs.writing import miniposts
from collm_envs.writing.pair import MARKER, WritingPair, text_row
from collm_envs.writing.rules import Rules
from collm_envs.writing.scripted import LINKS, Novice

PAPER = Rules(
    words=(8, 256),
    length=Knees(1.1, 1.6, 3.2, 5.0),
    unique=Knees(1.3, 2.0),
    jaccard_cap=0.03,
    coherence=0.6,
    connectives_in_both=True,
)
RELEASE = replace(PAPER, coherence=None, connectives_in_both=False)

_SUMMARY = (
    "This post is about {0}, {1} and {2}: the writer tells what went on with {3}, asks others for honest "
    "advice and wants an answer."
)
_DETAIL = (
    "Overall, the post begins with {0} and {1}, namely the thing its author has been thinking about most. "
    "Then {2} comes up, meaning that one small matter grew larger; also, {3} plays some part. "
    "The writer is unsure, though, so a second opinion would help if somebody knows better, "
    "but waiting seems likewise possible while nothing is decided. Advice is indeed welcome."
)


@register("writing/tldr-v0")
class Tldr(WritingPair):
    """Two writers summarise one post: one briefly, one at length with more varied words.

    The score, as in the paper, compares the two texts with each other and never with the post's facts. A high
    score means texts that fit together in length, vocabulary and style, not that they are true.

    Observations: turn 0 shows the raw post and the role's instructions; `summary_0` and `detail_1` see the
    same post and never each other's text. Later turns give the first level at zero, or the weakest where none
    is, with the measured value (`feedback="level_feedback"`), or only that it is not solved (`"plain"`).

    Actions: free text. With `num_agents=1`, `writer_0` writes both texts in one reply, summary first,
    divided by a line that holds only `===`; without that line the second text is empty.

    Rewards: four levels, at most 3 (`formula="paper"`) or 2.98 (`"release"`); scoring stops at the first
    zero.

    - `structure` 0.5 if both texts have 8 to 256 white-space words.
    - `length_ratio` of x = characters(detail) / characters(summary), blanks at the ends left out: 1 on
      [1.6, 3.2], (x - 1.1) / 0.5 on [1.1, 1.6), 1 - (x - 3.2) / 1.8 on (3.2, 5.0], else 0.
    - `unique_ratio` of u = distinct words(detail) / distinct words(summary): 0.5 if u >= 2.0,
      0.5 (u - 1.3) / 0.7 on [1.3, 2.0), else 0.
    - `style` 0.4 T + 0.6 min(J, 0.03) / 0.03, with J the Jaccard overlap of content words, and k the number
      of the twelve categories of connectives that are present. Paper: T = min(0.6 ln(k + 1), 1), k over both
      texts. Release: T = 0.4 + 0.05 (k - 1) and 0 for k = 0, k in the detail alone; 0.95 is its top.

    Success: every level above zero and at least `success_at` (0.95) of the greatest score. Connectives
    match as whole words and phrases; the released code also matches inside words ("so" in "also"), which is
    not repeated.

    Arguments: those of `CollabEnv`. `source`: `builtin` (24 train and 8 test posts of the project's own),
    `hub` (`trl-lib/tldr`; the paper uses `split="train[:1000]"` and `"test[1000:1100]"`), or a file with
    the field `prompt` (trl-lib/tldr), `post`, or `source`, a list of sentences (SciTLDR).

    Scripted: `novice` strings words of the post together; `oracle` fills fixed sentences with words of the
    post and reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("writing/tldr-v0")
        >>> observations, _ = env.reset(seed=0)
        >>> summary = "A neighbour's loud dog keeps the writer awake."
        >>> detail = ("First the dog only barked at night, so nobody cared; "
        ...           "but now it barks all day long, and sleep is gone.")
        >>> _, rewards, _, _, infos = env.step({"summary_0": summary, "detail_1": detail})
        >>> {name: round(part, 2) for name, part in infos["detail_1"]["reward_parts"].items()}
        {'structure': 0.5, 'length_ratio': 1.0, 'unique_ratio': 0.5, 'style': 0.93}

    Version history: v0.
    """

    team = ("summary_0", "detail_1")
    hub_dataset = "trl-lib/tldr"
    row_formats = (
        RowFormat({"prompt": str}, text_row("prompt")),
        RowFormat({"source": list}, text_row("source"), id_column="paper_id"),
        RowFormat({"post": str}, text_row("post"), id_column="id"),
    )
    rules: ClassVar[Mapping[str, Rules]] = {"paper": PAPER, "release": RELEASE}
    prompts: ClassVar[Mapping[str, str]] = {
        "summary_0": (
            "{post}\n\nYou and a partner write about the post above, each on your own. Your part: a short "
            "summary, one or two sentences on the main point. Reply with the text only."
        ),
        "detail_1": (
            "{post}\n\nYou and a partner write about the post above, each on your own; the partner writes a "
            "short summary. Your part: a detailed account, two to three times as long, with many different "
            "words and with connectives such as however, because or for example. Reply with the text only."
        ),
        "writer_0": (
            "{post}\n\nWrite two texts about the post above. First a short summary, one or two sentences on "
            "the main point. Then a line that holds only {marker}. Then a detailed account, two to three "
            "times as long, with many different words and with connectives such as however, because or for "
            "example."
        ),
    }
    novices = (Novice((4, 44), repeat=0.3), Novice((4, 68), repeat=0.7, link=0.4))
    oracle_texts: ClassVar[Mapping[str, tuple[str, str]]] = dict.fromkeys(
        ("paper", "release"), (_SUMMARY, _DETAIL)
    )
    oracle_gaps = 4

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Posts written for the project, by split."""
        return read_rows(Path(__file__).parent.parent / "data" / f"tldr_{split}.jsonl")


@register("writing/tldr-mini-v0")
class TldrMini(Tldr):
    """The TLDR task on tiny posts of a closed vocabulary, with replies of at most 28 words.

    Same class and scoring code as `writing/tldr-v0`; only limits, prompts and posts are smaller. The score,
    as there, never compares a text with the post's facts.

    Observations: turn 0 shows a post of 12 to 24 lower-case words and at most twelve words of instructions.
    Later turns name the first level at zero ("failed") or the weakest ("weak") with its value, ratios to
    the nearest 0.2 (`feedback="level_feedback"`), or only ask to write again (`"plain"`).

    Actions: free text of 4 to 28 words, about 40 tokens of the built-in model. With `num_agents=1` both
    texts in one reply, divided by a line that holds only `===`.

    Rewards: as `writing/tldr-v0`, except `structure`: 0.5 if both texts have 4 to 28 white-space words.
    `length_ratio` is 1 on [1.6, 3.2], `unique_ratio` 0.5 from 2.0, `style` at most 1 (paper) or 0.98
    (release).

    Arguments: those of `CollabEnv`. `source`: `builtin` generates 4096 train and 96 test posts, none in both;
    files as for `writing/tldr-v0`, whose words the built-in model may have to spell out.

    Scripted: `novice` writes 3 to 10 (summary) or 4 to 14 (detail) words of the post in reading order, at
    times with repeats, in the detail at times with a connective. `oracle` writes eight words, and the same
    eight with all twelve kinds of connectives, which is the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("writing/tldr-mini-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["detail_1"].endswith("write: long detail")
        True
        >>> replies = {"summary_0": "the girl lost a red kite",
        ...            "detail_1": "indeed the girl lost a red kite so she was sad but then a friend helped"}
        >>> _, rewards, _, _, infos = env.step(replies)
        >>> round(infos["detail_1"]["score"], 2), infos["detail_1"]["success"]
        (2.99, True)

    Version history: v0.
    """

    rules: ClassVar[Mapping[str, Rules]] = {
        formula: replace(rules, words=(4, 28)) for formula, rules in Tldr.rules.items()
    }
    prompts: ClassVar[Mapping[str, str]] = {
        "summary_0": "post: {post} write: short summary",
        "detail_1": "post: {post} write: long detail",
        "writer_0": "post: {post} write: short summary line {marker} long detail",
    }
    level_texts: ClassVar[Mapping[str, str]] = {
        "structure": "words {0} {1}",
        "length_ratio": "length {0}",
        "unique_ratio": "variety {0}",
        "style": "style {0} {1}",
    }
    frames = ("failed: {text} write again", "weak: {text} write again")
    plain_feedback = "write again"
    novices = (Novice((3, 10), repeat=0.2), Novice((4, 14), repeat=0.6, link=0.35))
    oracle_texts: ClassVar[Mapping[str, tuple[str, str]]] = dict.fromkeys(
        ("paper", "release"),
        (
            "{0} {1} {2} {3} {4} {5} {6} {7}",
            "overall {0} also {1} namely {2} meaning {3} so {4} but {5} then {6} indeed {7} "
            "likewise though if while",
        ),
    )
    oracle_gaps = 8
    fill = miniposts.FILL

    @classmethod
    def show(cls, value: float) -> str:
        """Counts up to 40, and ratios to the nearest 0.2 up to 6: few enough to have a token each."""
        if isinstance(value, int):
            return str(min(value, 40))
        return f"{min(round(value * 5) / 5, 6.0):.1f}"

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Generated posts, the same at every load."""
        return _mini_rows(split)

    @classmethod
    def vocabulary(cls) -> list[str]:
        """Every word and sign that posts, prompts, feedback and scripted replies can hold, sorted."""
        texts = [*cls.prompts.values(), *cls.level_texts.values(), *cls.frames, cls.plain_feedback, MARKER]
        fixed = pieces(re.sub(r"\{\w*\}", " ", " ".join(texts)))
        shown = {cls.show(count) for count in range(41)} | {cls.show(step / 5) for step in range(31)}
        return sorted({*miniposts.WORDS, *LINKS, *fixed, *shown, "\n", "."})


@lru_cache(maxsize=2)
def _mini_rows(split: str) -> list[Row]:
    # Thousands of posts: with a few hundred, a small model learns the posts by heart instead of reading them.
    train, test = miniposts.generate(train=4096, test=96)
    return train if split == "train" else test
