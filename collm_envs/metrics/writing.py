"""Metrics of the writing environments, with the very functions that score them.

In all of them `predictions` are second texts (detail, method) and `references` first ones (summary,
background).
"""

from __future__ import annotations

from statistics import fmean
from typing import Any, ClassVar

from collm_envs.errors import InputError
from collm_envs.history import encodable
from collm_envs.metrics.base import TEXT, ColumnMetric, summary
from collm_envs.registry import make
from collm_envs.text import CONNECTIVES, char_ratio, connective_categories, jaccard, unique_word_ratio
from collm_envs.writing.pair import WritingPair
from collm_envs.writing.rules import TextPair


class _TextMetric(ColumnMetric):
    """Common part: second texts and first ones, lone surrogates replaced."""

    columns: ClassVar = {"predictions": TEXT, "references": TEXT}
    inputs = "predictions: second texts. references: first texts. Both lists of strings of one length."
    unit = "texts"

    def clean(self, value: Any) -> Any:
        """A text without lone surrogates, which Arrow refuses; they are replaced as environments do."""
        return encodable(value) if isinstance(value, str) else value


class LengthRatio(_TextMetric):
    """Characters of the second text per character of the first: `length_ratio` (mean) and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return summary("length_ratio", list(map(char_ratio, references, predictions)))


class UniqueWordRatio(_TextMetric):
    """Distinct words of the second text per distinct word of the first: `unique_word_ratio` and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return summary("unique_word_ratio", list(map(unique_word_ratio, references, predictions)))


class Jaccard(_TextMetric):
    """Overlap of the content words of two texts: `jaccard` (mean) and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return summary("jaccard", list(map(jaccard, references, predictions)))


class Connectives(_TextMetric):
    """Kinds of connectives in each text, of twelve: `connectives` (mean), `values`, `rates` by kind."""

    columns: ClassVar = {"predictions": TEXT}
    inputs = "predictions: texts."

    def _compute(self, predictions: list[str]) -> dict[str, Any]:
        found = [connective_categories(text) for text in predictions]
        rates = {category: fmean(category in one for one in found) for category in CONNECTIVES}
        return {**summary("connectives", [len(one) for one in found]), "rates": rates}


class WritingScore(_TextMetric):
    """Score of text pairs in a writing environment: `score`, `values`, `percent`, `success` and `parts`.

    `compute` takes `env_id` and `formula` beside the texts. `percent` is of the greatest score.
    """

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        env_id: str = "writing/tldr-v0",
        formula: str = "paper",
    ) -> dict[str, Any]:
        env = make(env_id, formula=formula)
        if not isinstance(env, WritingPair):
            raise InputError(f"{env_id} is not a writing environment")
        model = env.reward_model
        scores = [model(TextPair(*pair)) for pair in zip(references, predictions, strict=True)]
        return {
            **summary("score", [score.total for score in scores]),
            "percent": 100 * fmean(score.total for score in scores) / model.high,
            "success": fmean(score.success for score in scores),
            "parts": {name: fmean(score.parts[name] for score in scores) for name in model.names},
        }
