"""Generated abstracts of 120 to 200 words, for `writing/arxiv-v0` without a network.

Sentences of the project's own with gaps for eleven invented topics, two abstracts each. Train and test share
sentences but no topic. They read like abstracts; their claims are about nothing.
"""

from __future__ import annotations

import numpy as np

from collm_envs.task import Row

GAPS = ("field", "object", "problem", "approach", "data", "measure")
TOPICS = """
coastal ecology | seagrass meadows | patchy recovery after storms | a spatial growth model | aerial photographs | area
machine translation | rare place names | inconsistent spelling | a memory of earlier choices | news archives | accuracy
battery chemistry | sodium electrodes | loss at low temperature | a layered carbon coating | charging records | capacity
urban planning | bus networks | long waits at transfer stops | a joint timetable search | ticket records | waiting time
astronomy | faint variable stars | gaps between nights | a periodic random process | southern light curves | period error
speech processing | whispered commands | missing pitch | an encoder for pairs | recordings of eighty speakers | word error
soil science | terraced fields | uneven moisture on slopes | a network of sensors | hourly readings | prediction error
robotics | soft grippers | slipping of wet objects | a delayed tactile controller | two thousand grasps | grasp success
graph theory | sparse networks | slow mixing of walks | a walk with local restarts | synthetic networks | mixing time
medical imaging | low dose scans | grainy structures near bone | a filter guided by anatomy | volunteer scans | contrast
education research | peer feedback | short and vague comments | prompts for evidence | essays from twelve schools | quality
"""  # noqa: E501  # a table reads best with one topic a line
TRAIN_TOPICS = 8

# One sentence is drawn from each pair of lines, in this order.
SENTENCES = """
In {field}, {object} have received growing attention, yet {problem} remains poorly understood and limits practice.
A central difficulty in {field} is {problem}, which affects {object} in ways that current tools describe only in part.

Previous studies rest on strong assumptions that seldom hold outside the laboratory, and their conclusions differ widely.
Existing approaches either demand expensive measurements or ignore the structure of {object}, and neither option scales.

We introduce {approach} that targets {problem} directly and requires no more than the standard equipment of a small group.
This paper proposes {approach}, designed with {problem} in mind and simple enough to be reproduced by small groups.

The central idea is to separate slow trends from local disturbances, estimate both, and report every uncertainty.
Its two stages exchange information: a coarse stage proposes candidates, and a fine stage verifies them independently.

We evaluate the proposal on {data}, following a protocol that was fixed before any analysis of {object} took place.
Experiments use {data}, divided by source rather than at random, which makes the evaluation considerably harder.

Measured by {measure}, the proposal improves on the strongest alternative by {gain} percent, even with half of the data.
Results show a gain of {gain} percent in {measure} over established baselines, most of it in the hardest conditions.

An ablation indicates that joint estimation accounts for most of the improvement, and that parameters matter little.
Further analysis suggests that failures concentrate in a small group of unusual cases, which we describe in detail.

These findings suggest that {object} can be studied at lower cost than commonly believed, and all material is released.
We discuss implications for {field}, name conditions under which the conclusions may fail, and release all material.
"""  # noqa: E501


def rows(split: str, seed: int = 5) -> list[Row]:
    """The abstracts of a split, the same for equal arguments.

    Args:
        split: `train` (16 abstracts) or `test` (6).
        seed: seed of the generator.
    """
    rng = np.random.default_rng([seed, split == "test"])
    pairs = [pair.split("\n") for pair in SENTENCES.strip().split("\n\n")]
    topics = [dict(zip(GAPS, line.split(" | "), strict=True)) for line in TOPICS.strip().split("\n")]
    made: list[Row] = []
    for topic in topics[:TRAIN_TOPICS] if split == "train" else topics[TRAIN_TOPICS:]:
        choices = rng.integers(2, size=len(pairs))
        for picks in (choices, 1 - choices):  # the second abstract takes the other sentence of each pair
            text = " ".join(pair[pick] for pair, pick in zip(pairs, picks, strict=True))
            made.append({"abstract": text.format(**topic, gain=int(rng.integers(4, 30)))})
    return made
