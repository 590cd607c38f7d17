import json
from types import SimpleNamespace

import pytest

from collm_agents.bench_run import read_run
from collm_agents.records import Point, Record, Results, read_results, write_results
from collm_envs.errors import InputError

REFERENCES = {"novice": {"score": 1.0}, "oracle": {"score": 3.0}}


def point(samples, score):
    return Point(samples, 10 * samples, 0.5 * samples, 16, {"score": score, "success": 0.25})


def record(algorithm="mc", seed=0, **changed):
    values = {
        "points": (point(0, 1.0), point(64, 2.0)),
        "final": point(64, 2.5),
        "references": REFERENCES,
        "high": 3.0,
        "variant": f"{algorithm}[mean]",
        "settings": ("learner.lr=1e-4",),
        **changed,
    }
    return Record("debug/echo-v0", "dense-h2", algorithm, seed, **values)


def test_what_is_written_is_read_again_failed_runs_too(tmp_path):
    failed = record("collm-dc", 3, final=None, error="NonFiniteError: loss nan")
    results = Results(
        (record(), record(seed=1), record("collm-cc"), failed), {"suite": "smoke", "commit": "abc"}
    )
    write_results(results, tmp_path / "deep" / "results.json")
    found = read_results(tmp_path / "deep")
    assert sorted(found.records, key=lambda r: r.place) == sorted(results.records, key=lambda r: r.place)
    assert found.about == results.about
    assert [r.place for r in found.failed] == [failed.place]
    assert len(found.done) == 3


def test_why_a_run_was_stopped_is_kept_and_older_files_without_it_are_read(tmp_path):
    early = record(stopped="no better score in 3 evaluations")
    write_results(Results((early,)), tmp_path / "results.json")
    assert read_results(tmp_path).records[0].stopped == "no better score in 3 evaluations"
    beside = tmp_path / "results-about.json"
    known = json.loads(beside.read_text("utf-8"))
    del known["runs"][0]["stopped"]
    beside.write_text(json.dumps(known), "utf-8")
    assert read_results(tmp_path).records[0].stopped == ""


@pytest.mark.parametrize("stopped", [{}, {"stopped": ""}, {"stopped": "no better score in 3 evaluations"}])
def test_a_benchmarks_record_says_why_its_run_was_stopped(tmp_path, stopped):
    report = {"metrics": {"score": {"mean": 1.0}}}
    kept = [{"joint_samples": 0, "tokens": 0, "wall_s": 0.0, "episodes": 1, **report}]
    result = {"references": {}, "high": 1.0, "variant": "mc[mean]", **stopped}
    (tmp_path / "evaluations.json").write_text(json.dumps(kept), "utf-8")
    (tmp_path / "result.json").write_text(json.dumps(result), "utf-8")
    words = {"environment": "e", "task_of": str, "algorithm": "mc", "seed": 0, "preset": "", "settings": ()}
    run = SimpleNamespace(greedy=(False,), **words)
    (found,) = read_run(SimpleNamespace(run=run, train=tmp_path))
    assert found.stopped == stopped.get("stopped", "")


def test_the_merged_file_has_the_form_that_others_read(tmp_path):
    write_results(Results((record(),)), tmp_path / "r.json")
    run = json.loads((tmp_path / "r.json").read_text("utf-8"))["debug/echo-v0"]["dense-h2"]["mc"]["seed_0"]
    assert run["step_1"]["step_count"] == 64
    assert run["step_1"]["elapsed_time"] == 32.0
    assert run["step_1"]["score"] == [2.0]
    assert run["absolute_metrics"]["score"] == [2.5]


def test_a_merged_file_of_another_is_read_its_lists_averaged(tmp_path):
    run = {
        "step_10": {"step_count": 9000, "elapsed_time": 8.0, "return": [1, 2, 3]},
        "step_9": {"step_count": 800, "elapsed_time": 7.0, "return": [0, 1]},
        "absolute_metrics": {"return": [2, 2, 5]},
    }
    (tmp_path / "r.json").write_text(json.dumps({"env": {"task": {"qmix": {"run_7": run}}}}), "utf-8")
    (found,) = read_results(tmp_path / "r.json").records
    assert found.place == ("env", "task", "qmix", 7)
    assert [p.joint_samples for p in found.points] == [800, 9000]
    assert [p.metrics["return"] for p in found.points] == [0.5, 2.0]
    assert found.final.metrics["return"] == 3.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"env": 3}', "results file"),
        ('{"env": {"task": {"mc": {"seed_x": {}}}}}', "results file"),
        ('{"env": {"task": {"mc": {"seed_1": {}}}}}', "env / task / mc / 1"),
        ('{"env": {"task": {"mc": {"seed_1": {"absolute_metrics": {"score": []}}}}}}', "env / task / mc / 1"),
        (
            '{"env": {"task": {"mc": {"seed_1": {"absolute_metrics": {"score": ["a"]}}}}}}',
            "env / task / mc / 1",
        ),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path, text, named):
    (tmp_path / "r.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=named) as caught:
        read_results(tmp_path / "r.json")
    assert str(tmp_path / "r.json") in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such results file"):
        read_results(tmp_path / "r.json")


def test_normalised_is_the_way_from_novice_to_oracle():
    assert record().normalised(2.5) == pytest.approx(0.75)
