"""The `evaluate` metrics: as classes, as scripts loaded offline, and against the environments."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

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


def classes():
    """Every metric class of the package, by the name of its script."""
    found = {}
    for module in pkgutil.iter_modules(metrics.__path__):
        if not module.ispkg:
            held = vars(importlib.import_module(f"collm_envs.metrics.{module.name}")).values()
            own = [c for c in held if isinstance(c, type) and issubclass(c, evaluate.Metric)]
            found |= {c.__name__: c for c in own if not c.__name__.startswith("_")}
    del found["ColumnMetric"]
    return {re.sub("(?<!^)([A-Z])", r"_\1", name).lower(): cls for name, cls in found.items()}


def inputs():
    """Columns for every metric."""
    echo = make("debug/echo-v0").tasks[0].id
    texts = {"predictions": DETAILS, "references": SUMMARIES}
    builds = {"predictions": [["0 0 0 stone"]] * 2, "references": [["0 0 0 stone"]] * 2}
    return {
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


def test_no_metric_is_without_a_script_or_a_line_in_the_docs():
    assert sorted(classes()) == metrics.names() == list(inputs())
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, cls in classes().items():
        assert f"| `{name}` | `{cls.__module__}.{cls.__name__}` |" in page


@pytest.mark.parametrize("name", list(inputs()))
def test_by_class_and_by_path_are_one(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"env_id": "debug/echo-v0"} if name == "joint_score" else {}
    by_path = evaluate.load(metrics.path(name), cache_dir=str(tmp_path))
    by_class = classes()[name]()
    assert by_class.compute(**inputs()[name], **settings) == by_path.compute(**inputs()[name], **settings)
    assert (by_class.description, by_class.citation) == (by_path.description, by_path.citation)


def test_metrics_are_combined():
    names = ("length_ratio", "unique_word_ratio")
    found = evaluate.combine([evaluate.load(metrics.path(name)) for name in names]).compute(
        predictions=DETAILS, references=SUMMARIES
    )
    assert found["unique_word_ratio"] == 2.0
    assert found["length_ratio_values"] == pytest.approx(
        [17 / 9, 7 / 3]
    )  # a key that both have is told apart


def test_every_metric_loads_from_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, columns in inputs().items():
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
