import json
import sys

import pytest

from collm_agents.config import Config, TrackConfig
from collm_agents.tracking import MetricError, Tracker, read_rows


def config(**track):
    return Config(env={"id": "debug/echo-v0"}, algorithm={"name": "mc"}, track=TrackConfig(**track))


def report(score, samples=0):
    stats = {"mean": score, "low": score - 0.1, "high": score + 0.1, "n": 8}
    rows = [{"task_id": f"t{i}", "text": "é\u2028", "score": score, "success": True} for i in range(samples)]
    return {"metrics": {"score": stats, "parts/echoed": stats}, "samples": rows}


@pytest.fixture
def tracker(tmp_path):
    with Tracker(tmp_path, config(tensorboard=False), budget=100) as found:
        yield found


def test_rows_are_flat_and_in_order(tracker, tmp_path):
    tracker.update({"reward": -1, "loss": 0.5}, 8)
    tracker.evaluation(report(0.75), 8)
    update, evaluation = read_rows(tmp_path / "metrics.jsonl")
    assert update.pop("wall_s") >= 0
    assert update == {"kind": "update", "joint_samples": 8, "reward": -1.0, "loss": 0.5}
    assert evaluation["kind"] == "eval"
    assert (evaluation["score"], evaluation["score/low"], evaluation["score/n"]) == (0.75, 0.65, 8.0)
    assert evaluation["parts/echoed"] == 0.75
    assert [row["kind"] for row in read_rows(tmp_path / "metrics.jsonl", "eval")] == ["eval"]


def test_samples_are_kept_up_to_the_setting(tmp_path):
    with Tracker(tmp_path, config(tensorboard=False, samples=2), 10) as tracker:
        tracker.evaluation(report(0.5, samples=3), 4)
    rows = read_rows(tmp_path / "samples.jsonl")
    assert [(row["joint_samples"], row["task_id"], row["text"]) for row in rows] == [
        (4, "t0", "é\u2028"),
        (4, "t1", "é\u2028"),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "high"])
def test_a_metric_that_is_no_finite_number_is_refused_and_nothing_written(tracker, tmp_path, value):
    with pytest.raises(MetricError, match="'loss'"):
        tracker.update({"reward": 1.0, "loss": value}, 8)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_reserved_names_are_refused(tracker):
    with pytest.raises(MetricError, match="'kind' cannot be the name"):
        tracker.update({"kind": 1.0}, 8)


def test_rewind_drops_later_rows_and_a_cut_off_line(tmp_path):
    with Tracker(tmp_path, config(tensorboard=False), 100) as tracker:
        for at in (8, 16, 24):
            tracker.update({"reward": at}, at)
            tracker.evaluation(report(0.5, samples=1), at)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "upd')
    with Tracker(tmp_path, config(tensorboard=False), 100) as tracker:
        tracker.rewind(16)
        tracker.update({"reward": 99}, 24)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["joint_samples"] for row in rows] == [8, 8, 16, 16, 24]
    assert rows[-1]["reward"] == 99
    assert rows[-1]["wall_s"] >= rows[-2]["wall_s"]
    assert [row["joint_samples"] for row in read_rows(tmp_path / "samples.jsonl")] == [8, 16]
    assert not list(tmp_path.glob("*.part"))


def test_rewind_of_an_empty_folder_is_fine(tracker):
    tracker.rewind(0)


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": \n{"kind": "update"}\n')
    with pytest.raises(MetricError, match="line 1"):
        read_rows(tmp_path / "metrics.jsonl")


def test_quiet_where_the_output_is_no_terminal(tracker, capsys):
    tracker.update({"reward": 1.0}, 8)
    tracker.evaluation(report(0.5), 8)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "8 joint samples  score 0.500\n"


def test_live_view_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with Tracker(tmp_path, config(tensorboard=False), 100) as tracker:
        tracker.update(
            {"reward": 1.25, "tokens_per_s": 500, "decode_s": 1.0, "actor_s": 3.0, "update_s": 4.0}, 8
        )
        tracker.evaluation(report(0.5), 8)
        tracker.evaluation(report(0.625), 16)
    out, err = capsys.readouterr()
    assert "debug/echo-v0" in out
    assert "reward 1.25" in out
    assert "tokens/s 500" in out
    assert "actor 3.00 s (75%)" in out
    assert "score 0.625" in out
    assert err == ""


def test_tensorboard_gets_the_same_numbers_and_resumes_over_what_is_gone(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Tracker(tmp_path, config(), 100) as tracker:
        for at in (8, 16, 24):
            tracker.update({"reward": at}, at)
    with Tracker(tmp_path, config(), 100) as tracker:
        tracker.rewind(16)
        tracker.update({"reward": 99}, 24)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("update/reward")] == [(8, 8.0), (16, 16.0), (24, 99.0)]


def test_every_line_is_strict_json(tracker, tmp_path):
    tracker.update({"reward": 1.0}, 8)
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line.endswith("\n")
    json.loads(line, parse_constant=lambda name: pytest.fail(name))
