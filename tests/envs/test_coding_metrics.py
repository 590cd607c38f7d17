"""The `evaluate` metrics over coding results: pass@k and rates."""

from __future__ import annotations

import numpy as np
import pytest

from collm_envs.errors import InputError, SettingError

coding = pytest.importorskip("collm_envs.metrics.coding")


def test_pass_at_k_by_hand():
    outcomes = [[True, False, False, True, False], [False] * 5]
    found = coding.PassAtK().compute(predictions=outcomes, ks=(1, 2, 5))
    assert found == {
        "pass@1": 0.2,
        "pass@2": 0.35,
        "pass@5": 0.5,
        "values": {"pass@1": [0.4, 0.0], "pass@2": [0.7, 0.0], "pass@5": [1.0, 0.0]},
    }


def test_pass_at_k_defaults_and_kinds_of_outcomes():
    found = coding.PassAtK().compute(predictions=[[1] + [0] * 9, np.arange(20) == 3])
    assert list(found["values"]) == ["pass@1", "pass@3", "pass@5", "pass@10"]
    assert found["values"]["pass@10"] == [1.0, 0.5]  # ten of twenty samples hold the one that passes


def test_too_few_samples_name_the_problem():
    metric = coding.PassAtK()
    with pytest.raises(InputError, match=r"problem 1 \(from 0\) has 2 samples, too few for pass@3"):
        metric.compute(predictions=[[True] * 10, [True] * 2])
    with pytest.raises(InputError, match=r"problem 0 \(from 0\) has 0 samples"):
        metric.compute(predictions=[[]], ks=[1])
    # an error leaves nothing behind
    assert metric.compute(predictions=[[True]], ks=[1])["values"] == {"pass@1": [1.0]}


@pytest.mark.parametrize("outcome", [0.5, 2, -1, float("nan"), None, "True", [True]])
def test_what_is_no_outcome_is_refused(outcome):
    with pytest.raises(InputError, match="an outcome is True or False"):
        coding.PassAtK().compute(predictions=[[True, outcome]], ks=[1])
    with pytest.raises(InputError, match="an outcome is True or False"):
        coding.PassAtK().add(prediction=[outcome])


def test_one_outcome_is_no_list():
    with pytest.raises(InputError, match="a problem is a list of outcomes, not True"):
        coding.PassAtK().compute(predictions=[True, False], ks=[1])


@pytest.mark.parametrize("ks", [5, (), [0], ["1"], [1.5], [True]])
def test_ks_are_whole_numbers(ks):
    with pytest.raises(SettingError, match="must be a"):
        coding.PassAtK().compute(predictions=[[True] * 10], ks=ks)


def test_rate():
    metric = coding.Rate()
    assert metric.compute(predictions=[1, 0.5, False]) == {"rate": 0.5, "values": [1.0, 0.5, 0.0]}
    metric.add(prediction=True)
    metric.add_batch(predictions=np.array([0.25]))
    assert metric.compute(name="aux_use") == {"aux_use": 0.625, "values": [1.0, 0.25]}


@pytest.mark.parametrize("value", [1.01, -0.01, float("nan"), float("inf"), "1", None])
def test_what_is_no_rate_is_refused(value):
    with pytest.raises(InputError, match=r"a rate lies in \[0, 1\]"):
        coding.Rate().compute(predictions=[1, value])


def test_name_of_a_rate():
    with pytest.raises(SettingError, match="taken"):
        coding.Rate().compute(predictions=[1], name="values")
