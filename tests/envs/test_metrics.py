"""The `evaluate` metrics: as classes, as scripts loaded offline, and against the environments."""

from __future__ import annotations

import subprocess
import sys

import pytest

from collm_envs import SettingError, make, metrics
from collm_envs.errors import InputError

evaluate = pytest.importorskip("evaluate")
writing = pytest.importorskip("collm_envs.metrics.writing")

SUMMARIES = ["abcd efgh", "a b"]
DETAILS = ["abcd efgh ijkl so", "c d e b"]


def test_values():
    pairs = {"predictions": DETAILS, "references": SUMMARIES}
    assert writing.LengthRatio().compute(**pairs)["values"] == pytest.approx([17 / 9, 7 / 3])
    assert writing.UniqueWordRatio().compute(**pairs)["values"] == [2.0, 2.0]
    assert writing.UniqueWordRatio().compute(**pairs)["unique_word_ratio"] == 2.0
    # "so" and "a" are function words
    assert writing.Jaccard().compute(**pairs)["values"] == pytest.approx([2 / 3, 1 / 4])
    found = writing.Connectives().compute(predictions=DETAILS)
    assert (found["connectives"], found["values"], found["rates"]["cause_effect"]) == (0.5, [1, 0], 0.5)


@pytest.mark.parametrize("env_id", ["writing/tldr-v0", "writing/tldr-mini-v0", "writing/arxiv-v0"])
@pytest.mark.parametrize(("formula", "high"), [("paper", 3.0), ("release", 2.98)])
def test_score_is_the_environments(env_id, formula, high):
    env = make(env_id, formula=formula)
    env.reset(seed=0)
    texts = [env.scripted("oracle", agent, env.np_random) for agent in env.possible_agents]
    score = writing.WritingScore().compute(
        references=[texts[0], "short"], predictions=[texts[1], ""], env_id=env_id, formula=formula
    )
    assert score["values"] == pytest.approx([high, 0])
    assert (score["percent"], score["success"]) == pytest.approx((50, 0.5))
    assert score["parts"]["structure"] == 0.25


def test_score_of_another_domain_is_refused():
    with pytest.raises(InputError, match="not a writing environment"):
        writing.WritingScore().compute(references=["a"], predictions=["b"], env_id="debug/echo-v0")


def test_one_at_a_time_and_reuse():
    metric = writing.LengthRatio()
    for _ in range(2):
        metric.add(prediction="abc", reference="a")
        metric.add_batch(predictions=["ab"], references=["a"])
        assert metric.compute()["values"] == [3.0, 2.0]


def test_surrogates_and_empty_texts():
    pairs = {"predictions": ["\ud800x", ""], "references": ["", "a"]}
    assert writing.LengthRatio().compute(**pairs)["values"] == [0.0, 0.0]
    with pytest.raises(InputError, match="no texts"):
        writing.LengthRatio().compute(predictions=[], references=[])


def test_every_metric_loads_from_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    echo = make("debug/echo-v0").tasks[0].id
    texts = {"predictions": DETAILS, "references": SUMMARIES}
    builds = {"predictions": [["0 0 0 stone"]] * 2, "references": [["0 0 0 stone"]] * 2}
    inputs = {
        "adjacency": {"predictions": builds["predictions"]},
        "connectives": {"predictions": DETAILS},
        "iou": builds,
        "jaccard": texts,
        "joint_score": {"predictions": [["a", "b"]] * 2, "references": [echo] * 2},
        "length_ratio": texts,
        "pass_at_k": {"predictions": [[True] * 10] * 2},
        "rate": {"predictions": [0, 1]},
        "unique_word_ratio": texts,
        "writing_score": texts,
    }
    assert metrics.names() == list(inputs)
    for name, columns in inputs.items():
        metric = evaluate.load(metrics.path(name), cache_dir=str(tmp_path))
        settings = {"env_id": "debug/echo-v0"} if name == "joint_score" else {}
        assert len(metric.compute(**columns, **settings)["values"]) == (4 if name == "pass_at_k" else 2)
        assert metric.keep_in_memory
        assert all((metric.description, metric.inputs_description, metric.citation))
        for nothing in ({column: [] for column in columns}, {}):
            with pytest.raises(InputError, match=f"{name}: no [a-z]+ given"):
                metric.compute(**nothing)


def test_unknown_metric():
    with pytest.raises(SettingError, match="did you mean 'jaccard'"):
        metrics.path("jacard")


def test_environments_do_not_import_the_data_libraries():
    heavy = "{'evaluate', 'datasets', 'pyarrow', 'torch', 'transformers'}"
    code = f"import sys, collm_envs, collm_envs.metrics; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
