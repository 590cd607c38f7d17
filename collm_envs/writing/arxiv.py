"""arXiv abstract expansion: one writer gives background and motivation, the other method and implications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from collm_envs.registry import register
from collm_envs.task import Row, RowFormat
from collm_envs.text import Knees
from collm_envs.writing import abstracts
from collm_envs.writing.pair import WritingPair, text_row
from collm_envs.writing.rules import Rules
from collm_envs.writing.scripted import Novice

PAPER = Rules(
    words=(128, 256),
    length=Knees(0.8, 1.0, 1.3, 1.5),
    unique=Knees(0.5, 0.7, 1.3, 1.7),
    jaccard_cap=0.23,
    coherence=0.4,
    connectives_in_both=True,
)
RELEASE = replace(PAPER, length=Knees(0.8, 1.3, 1.6, 2.0), coherence=None)

_BACKGROUND = (
    "Research on {0} has grown quickly, and questions about {1} and {2} are raised in many studies. Earlier "
    "work looked at {0} in a narrow setting: data were small, results were hard to compare, and the role of "
    "{3} stayed open. Indeed, a method that works for one problem often fails on another, because the "
    "setting changes and the data change with it. This matters for practice as well. People who need "
    "results about {4} have to choose a method before they know how it behaves, and a wrong choice is "
    "costly. Although several studies compare a method or two, the comparison seldom covers {5}, and the "
    "limits of the results are rarely stated. If the field is to move forward, a clear problem, open data "
    "and a fair comparison are needed. The motivation of this work is therefore simple: to study {0} "
    "together with {1}, to state the limits, and to give others a base on which further work can build."
)
_METHOD = (
    "The method treats {0} and {1} as one problem. First, the data are divided into a part for fitting and "
    "a part for comparison; then, a simple model of {2} is fitted, and its results are compared with those "
    "of earlier work. For example, the role of {3} is studied by leaving it out while the setting stays the "
    "same. The model is also tested on data about {4}, meaning that limits of the method become clear "
    "before it is used in practice. The comparison covers {5}, but no claim is made beyond the studies at "
    "hand. Likewise, every choice is stated, so others can repeat the work with open data. Overall, the "
    "results point to a fair and simple base for the field: people who need results quickly can choose a "
    "method and know how it behaves, and further research can build on a clear problem. The costly part, a "
    "wrong choice in a narrow setting, is avoided, and the motivation behind earlier work is kept in view "
    "throughout the comparison of data and results."
)
# The release wants the second text longer in characters, not richer in words; these sentences say it again.
_LONGER = (
    " In practice, people can choose the method for one problem, compare its results with the results of "
    "earlier work, and state the limits of the comparison. Further studies can build on the model, on the "
    "open data and on the fair comparison; the results about {0}, {1} and {2} are a simple base for further "
    "research on the problem."
)


@register("writing/arxiv-v0")
class Arxiv(WritingPair):
    """Two writers expand one abstract: background and motivation, and method and implications.

    The score, as in the paper, compares the two texts with each other and never with the abstract's facts. A
    high score means texts that fit together in length, vocabulary and style, not that they are true.

    Observations: turn 0 shows the raw abstract and the role's instructions; `background_0` and `method_1`
    see the same abstract, know of each other and never see each other's text. Later turns give the first
    level at zero, or the weakest where none is, with the measured value (`feedback="level_feedback"`), or
    only that it is not solved (`"plain"`).

    Actions: free text. With `num_agents=1`, `writer_0` writes both texts in one reply, background first,
    divided by a line that holds only `===`; without that line the second text is empty.

    Rewards: four levels, at most 3 (`formula="paper"`) or 2.98 (`"release"`); scoring stops at the first
    zero.

    - `structure` 0.5 if both texts have 128 to 256 white-space words.
    - `length_ratio` of x = characters(method) / characters(background), blanks at the ends left out. Paper: 1
      on [1.0, 1.3], linear down to 0 at 0.8 and 1.5. Release: 1 on [1.3, 1.6], linear down to 0 at 0.8 and
      2.0.
    - `unique_ratio` of u = distinct words(method) / distinct words(background): 0.5 on [0.7, 1.3], linear
      down to 0 at 0.5 and 1.7.
    - `style` 0.4 T + 0.6 min(J, 0.23) / 0.23, with J the Jaccard overlap of content words, and k the number
      of the twelve categories of connectives present in either text. Paper: T = min(0.4 ln(k + 1), 1),
      which needs all twelve. Release: T = 0.4 + 0.05 (k - 1) and 0 for k = 0; 0.95 is its top.

    Success: every level above zero and at least `success_at` (0.95) of the greatest score. Connectives
    match as whole words and phrases; the released code also matches inside words ("so" in "also"), which is
    not repeated.

    Arguments: those of `CollabEnv`. `source`: `builtin` (16 train and 6 test abstracts, generated), `hub`
    (`OpenMLRL/arXiv_abstract`; the paper uses `split="train[:1000]"` and `"test[1000:1100]"`), or a file
    with the field `abstract_text`, `abstract`, or `source`, a list of sentences (SciTLDR).

    Scripted: `novice` strings words of the abstract together; `oracle` fills fixed sentences with words of
    the abstract and reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("writing/arxiv-v0", num_turns=2)
        >>> observations, _ = env.reset(seed=0)
        >>> observations, *_ = env.step({"background_0": "Too short.", "method_1": "This is too."})
        >>> observations["method_1"]
        'Failed level structure: the background has 2 words, the method 3; both need 128 to 256. Write again.'

    Version history: v0.
    """

    team = ("background_0", "method_1")
    hub_dataset = "OpenMLRL/arXiv_abstract"
    row_formats = (
        RowFormat({"abstract_text": str}, text_row("abstract_text"), id_column="article_id"),
        RowFormat({"abstract": str}, text_row("abstract"), id_column="id"),
        RowFormat({"source": list}, text_row("source"), id_column="paper_id"),
    )
    rules: ClassVar[Mapping[str, Rules]] = {"paper": PAPER, "release": RELEASE}
    prompts: ClassVar[Mapping[str, str]] = {
        "background_0": (
            "{post}\n\nYou and a partner expand the abstract above into an introduction, each on your own; "
            "the partner covers method and implications. Your part: background and motivation, in 130 to "
            "250 words. Link the sentences with varied connectives, and leave your partner's part out. "
            "Reply with the text only."
        ),
        "method_1": (
            "{post}\n\nYou and a partner expand the abstract above into an introduction, each on your own; "
            "the partner covers background and motivation. Your part: method and implications, in 130 to "
            "250 words, somewhat longer than your partner's. Link the sentences with varied connectives, "
            "and leave your partner's part out. Reply with the text only."
        ),
        "writer_0": (
            "{post}\n\nExpand the abstract above into an introduction of two texts. First background and "
            "motivation, in 130 to 250 words. Then a line that holds only {marker}. Then method and "
            "implications, in 130 to 250 words and somewhat longer. Link the sentences with varied "
            "connectives."
        ),
    }
    novices = (Novice((100, 190), repeat=0.3), Novice((100, 190), repeat=0.7, link=0.4))
    oracle_texts: ClassVar[Mapping[str, tuple[str, str]]] = {
        "paper": (_BACKGROUND, _METHOD),
        "release": (_BACKGROUND, _METHOD + _LONGER),
    }
    oracle_gaps = 6

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Generated abstracts, the same at every load."""
        return abstracts.rows(split)
