"""Metrics of the coding environments: rates over episodes, and the chance that one of k programs passes.

Whether a program passes is for the environments' sandbox to say; here its answers are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, ClassVar

import datasets

from collm_envs.errors import InputError, SettingError, require_count
from collm_envs.metrics.base import ColumnMetric, summary
from collm_envs.rates import pass_at_k

KS = (1, 3, 5, 10)


class PassAtK(ColumnMetric):
    """Chance that one of k samples passes, unbiased: `pass@k` (mean over problems) for each k, and `values`.

    `compute` takes `ks` beside the outcomes. Problems may differ in their numbers of samples.
    """

    columns: ClassVar = {"predictions": datasets.Sequence(datasets.Value("bool"))}
    inputs = "predictions: one list per problem, in it whether each of its samples passed."
    unit = "problems"
    source = "arXiv 2107.03374, section 2.1"

    def clean(self, value: Any) -> list[bool]:
        """Outcomes of one problem. Any other number, such as a pass rate, would be stored as True."""
        try:
            wrong = [outcome for outcome in value if outcome not in (0, 1)]
        except TypeError:
            raise InputError(f"{self.name}: a problem is a list of outcomes, not {value!r}") from None
        if wrong:
            raise InputError(f"{self.name}: an outcome is True or False, not {wrong[0]!r}")
        return [bool(outcome) for outcome in value]

    def _compute(self, predictions: Sequence[Sequence[bool]], ks: Sequence[int] = KS) -> dict[str, Any]:
        if not isinstance(ks, Sequence) or not ks:
            raise SettingError(f"ks must be a list of whole numbers such as {KS}, not {ks!r}")
        values: dict[str, list[float]] = {f"pass@{k}": [] for k in ks}
        for k in ks:
            require_count("k", k)
            for number, outcomes in enumerate(predictions):
                if k > len(outcomes):
                    have = f"problem {number} (from 0) has {len(outcomes)} samples"
                    raise InputError(f"{self.name}: {have}, too few for pass@{k}; choose other ks")
                values[f"pass@{k}"].append(pass_at_k(len(outcomes), sum(outcomes), k))
        return {**{name: fmean(found) for name, found in values.items()}, "values": values}


class Rate(ColumnMetric):
    """Mean of a rate over episodes, under the name that `compute` is given (`rate`), and `values`.

    For what the coding environments measure in `infos`: `name="aux_use"` and the like.
    """

    columns: ClassVar = {"predictions": datasets.Value("float64")}
    inputs = "predictions: one number in [0, 1] per episode."
    unit = "episodes"

    def clean(self, value: Any) -> float:
        """A share, or yes or no; anything else, NaN included, is no rate."""
        try:
            share = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError):
            share = math.nan
        if not 0 <= share <= 1:
            raise InputError(f"{self.name}: a rate lies in [0, 1], unlike {value!r}")
        return share

    def _compute(self, predictions: Sequence[float], name: str = "rate") -> dict[str, Any]:
        if name == "values":
            raise SettingError("name='values' is taken by the list of values")
        return summary(name, predictions)
