import json

import numpy as np
import pytest

from collm_agents.plots import curve, read_curve, read_references
from collm_envs import InputError


def write_run(folder, points, metric="score"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"kind": "update", "joint_samples": 1, "wall_s": 0.0, metric: 100.0}]
    rows += [
        {
            "kind": "eval",
            "joint_samples": x,
            "wall_s": 0.0,
            metric: y,
            f"{metric}/low": y - 1,
            f"{metric}/high": y + 1,
        }
        for x, y in points
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_one_run_keeps_its_own_intervals(tmp_path):
    found = read_curve([write_run(tmp_path / "a", [(0, 1.0), (10, 2.0)])])
    assert found.runs == 1
    np.testing.assert_array_equal(found.x, [0, 10])
    np.testing.assert_array_equal(found.mean, [1, 2])
    np.testing.assert_array_equal(found.low, [0, 1])


def test_an_evaluation_on_one_task_has_no_band(tmp_path):
    run = write_run(tmp_path / "a", [(0, 1.0), (10, 2.0)])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bare = [{k: v for k, v in row.items() if not k.endswith(("/low", "/high"))} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    found = read_curve([run])
    assert np.isnan([found.low, found.high]).all()
    pytest.importorskip("matplotlib")
    assert curve(run, tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_several_runs_give_the_t_interval_on_their_common_span(tmp_path):
    a = write_run(tmp_path / "a", [(0, 1.0), (10, 3.0), (20, 5.0)])
    b = write_run(tmp_path / "b", [(0, 3.0), (10, 5.0)])
    found = read_curve([a, b])
    np.testing.assert_array_equal(found.x, [0, 10])
    np.testing.assert_allclose(found.mean, [2, 4])
    np.testing.assert_allclose(found.high - found.mean, 12.706 * np.sqrt(2) / np.sqrt(2), rtol=1e-4)


def test_runs_evaluated_at_other_points_are_interpolated(tmp_path):
    a = write_run(tmp_path / "a", [(0, 0.0), (10, 10.0)])
    b = write_run(tmp_path / "b", [(0, 0.0), (5, 5.0), (10, 10.0)])
    found = read_curve([a, b])
    np.testing.assert_allclose(found.mean, [0, 5, 10])
    np.testing.assert_allclose(found.low, found.mean, atol=1e-12)


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no evaluation with the metric 'success'"):
        read_curve([write_run(tmp_path / "a", [(0, 1.0)])], "success")
    with pytest.raises(InputError, match="no evaluation"):
        read_curve([tmp_path / "absent"])
    with pytest.raises(InputError, match="no runs"):
        read_curve([])
    with pytest.raises(InputError, match="share no span"):
        read_curve([write_run(tmp_path / "b", [(0, 1.0)]), write_run(tmp_path / "c", [(5, 1.0)])])


def test_references_come_from_the_result(tmp_path):
    assert read_references(tmp_path) == {}
    report = {"metrics": {"score": {"mean": 1.5}}}
    result = {"start": report, "references": {"oracle": report, "novice": {"metrics": {}}}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert read_references(tmp_path) == {"start": 1.5, "oracle": 1.5}


def test_a_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    run = write_run(tmp_path / "a", [(0, 1.0), (10, 2.0)])
    out = curve(run, tmp_path / "pictures" / "curve.png", references={"oracle": 3.0})
    assert out.read_bytes().startswith(b"\x89PNG")
