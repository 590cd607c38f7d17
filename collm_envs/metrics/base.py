"""What all metrics share: inputs in memory, checked columns, one clear error where there is nothing to measure.

For the modules beside it. Instances keep their inputs in memory: the library's default writes an Arrow file and
takes a file lock at each call, some forty times slower. What is measured is the business of each metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

import datasets
import evaluate

from collm_envs.errors import InputError

TEXT = datasets.Value("string")


class ColumnMetric(evaluate.Metric):
    """A metric over columns of examples, one row each. Subclasses are class data, `_compute` and `clean`.

    Attributes:
        columns: type by column name.
        inputs: what they hold, in one line.
        unit: what an example is, in the plural.
        source: where the measure comes from.
    """

    columns: ClassVar[Mapping[str, Any]]
    inputs: ClassVar[str]
    unit: ClassVar[str] = "examples"
    source: ClassVar[str] = "arXiv 2601.21972"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # In memory is not possible where several processes share one metric.
        kwargs["keep_in_memory"] = kwargs.get("num_process", 1) == 1
        super().__init__(*args, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").partition("\n")[0],
            citation=self.source,
            inputs_description=self.inputs,
            features=datasets.Features(dict(self.columns)),
        )

    def clean(self, value: Any) -> Any:
        """One value of a column as it is stored; raises `InputError` for what the library would bend to fit."""
        return value

    def _cleaned(self, column: Any) -> Any:
        return None if column is None else [self.clean(value) for value in column]

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add several examples."""
        super().add_batch(
            predictions=self._cleaned(predictions), references=self._cleaned(references), **kwargs
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one example."""
        one, other = (None if v is None else self.clean(v) for v in (prediction, reference))
        super().add(prediction=one, reference=other, **kwargs)

    def compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Compute over the given examples, or over those added before.

        Raises:
            InputError: when there are none: there is no mean of nothing.
        """
        added = len(self) or self.num_process > 1  # another process may hold some
        if not added and (predictions is None or not len(predictions)):
            raise InputError(f"{self.name}: no {self.unit} given")
        return super().compute(predictions=predictions, references=references, **kwargs)


def summary(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The mean under the metric's name, and the `values` it is the mean of."""
    return {name: fmean(values), "values": list(values)}
