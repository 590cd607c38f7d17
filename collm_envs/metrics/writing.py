"""Metrics of the writing environments, with the very functions that score them.

In all of them `predictions` are second texts (detail, method) and `references` first ones (summary,
background). Instances keep their inputs in memory: the library's default writes an Arrow file and takes a
file lock at each call, some forty times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, ClassVar

import datasets
import evaluate

from collm_envs.errors import InputError
from collm_envs.registry import make
from collm_envs.text import CONNECTIVES, char_ratio, connective_categories, jaccard, unique_word_ratio
from collm_envs.writing.pair import WritingPair
from collm_envs.writing.rules import TextPair

_INPUTS = "predictions: second texts. references: first texts. Both lists of strings of one length."


class _TextMetric(evaluate.Metric):
    """Common part: text columns, inputs in memory, lone surrogates replaced."""

    columns: ClassVar[Sequence[str]] = ("predictions", "references")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # In memory is not possible where several processes share one metric.
        kwargs["keep_in_memory"] = kwargs.get("num_process", 1) == 1
        super().__init__(*args, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").partition("\n")[0],
            citation="arXiv 2601.21972",
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value("string") for name in self.columns}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add texts; lone surrogates, which Arrow refuses, are replaced as environments do."""
        super().add_batch(predictions=_clean(predictions), references=_clean(references), **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one text or pair of texts."""
        one, other = _clean([prediction]), _clean([reference])
        super().add(prediction=one and one[0], reference=other and other[0], **kwargs)

    def compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Compute over the given texts, or over those added before.

        Raises:
            InputError: when a list of texts is empty: there is no mean of nothing.
        """
        if predictions is not None and not len(predictions):
            raise InputError(f"{self.name}: no texts given")
        return super().compute(predictions=predictions, references=references, **kwargs)


def _clean(texts: Any) -> Any:
    if texts is None:
        return None
    return [t.encode("utf-8", "replace").decode("utf-8") if isinstance(t, str) else t for t in texts]


def _summary(name: str, values: Sequence[float]) -> dict[str, Any]:
    return {name: fmean(values), "values": list(values)}


class LengthRatio(_TextMetric):
    """Characters of the second text per character of the first: `length_ratio` (mean) and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _summary("length_ratio", list(map(char_ratio, references, predictions)))


class UniqueWordRatio(_TextMetric):
    """Distinct words of the second text per distinct word of the first: `unique_word_ratio` and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _summary("unique_word_ratio", list(map(unique_word_ratio, references, predictions)))


class Jaccard(_TextMetric):
    """Overlap of the content words of two texts: `jaccard` (mean) and `values`."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _summary("jaccard", list(map(jaccard, references, predictions)))


class Connectives(_TextMetric):
    """Kinds of connectives in each text, of twelve: `connectives` (mean), `values`, `rates` by kind."""

    columns = ("predictions",)

    def _compute(self, predictions: list[str]) -> dict[str, Any]:
        found = [connective_categories(text) for text in predictions]
        rates = {category: fmean(category in one for one in found) for category in CONNECTIVES}
        return {**_summary("connectives", [len(one) for one in found]), "rates": rates}


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
            **_summary("score", [score.total for score in scores]),
            "percent": 100 * fmean(score.total for score in scores) / model.high,
            "success": fmean(score.success for score in scores),
            "parts": {name: fmean(score.parts[name] for score in scores) for name in model.names},
        }
