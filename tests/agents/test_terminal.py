from collm_agents import terminal
from collm_agents.explain import Explained


def stats(mean, **more):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 8, **more}


def report(score):
    metrics = {
        "reply_tokens": stats(12.0),
        "parts/style": stats(0.5),
        "success": stats(0.25),
        "score": stats(score),
    }
    return {
        "metrics": metrics,
        "samples": [{"task_id": "t#1", "text": "hello\n", "score": score, "success": True}],
    }


RESULT = {
    "env": "debug/echo-v0",
    "algorithm": "mc",
    "variant": "mc[mean, branching 4]",
    "seed": 3,
    "joint_samples": 640,
    "updates": 10,
    "tokens": 5000,
    "wall_s": 12.4,
    "start": report(0.5),
    "end": report(0.75),
    "references": {"novice": report(0.5), "oracle": report(1.0)},
    "high": 1.0,
    "versions": {},
}


def test_tables_align():
    assert terminal.table(("name", "n"), [("a", "1"), ("bbbbb", "22")]) == "\n".join(
        ["name    n", "-----  --", "a       1", "bbbbb  22"]
    )


def test_metrics_come_in_reading_order():
    assert terminal.metric_names([report(1.0)]) == ["score", "success", "parts/style", "reply_tokens"]


def test_summary_of_a_run():
    text = terminal.summary(RESULT, "runs/x", "runs/x/curve.png")
    assert (
        "mc[mean, branching 4] on debug/echo-v0, seed 3: score 0.500 -> 0.750 of 1.000 after 640 joint samples"
        in text
    )
    assert "[0.650, 0.850]" in text
    assert "25.0%" in text
    assert "novice" in text
    assert "    hello" in text
    assert "runs/x/curve.png" in text
    assert "collm eval runs/x" in text


def test_summary_without_references_samples_or_curve():
    bare = {**RESULT, "references": {}, "end": {"metrics": report(0.75)["metrics"]}}
    text = terminal.summary(bare, "runs/x", None)
    assert "curve" not in text
    assert "conversation" not in text


def test_a_report_as_a_table():
    text = terminal.report(report(0.5))
    assert text.splitlines()[2].split() == ["score", "0.500", "[0.400,", "0.600]", "8"]


def test_settings_show_limits_once():
    rows = [
        Explained("a.x", 1, "count", ">= 0"),
        Explained("a.kind", "one", "one or two.", "one | two"),
        Explained("a.none", None, "free", ""),
        Explained("a.flag", True, "switch", ""),
        Explained("a.text", "", "text", ""),
    ]
    assert [line.split(None, 1)[1] for line in terminal.settings(rows).splitlines()] == [
        "count [>= 0] (default 1)",
        "one or two (default one)",
        "free (default unset)",
        "switch (default true)",
        'text (default "")',
    ]


def test_long_names_stand_on_their_own_line():
    text = terminal.definitions([("x" * 50, "short"), ("y", "z")])
    assert text.splitlines()[0].strip() == "x" * 50
    assert text.splitlines()[1].strip() == "short"


def test_no_reply_can_steer_the_terminal():
    told = terminal.turn(0, {"a_0": "see"}, {"a_0": "\x1b[2Jgone\x07\x9b1m\tend"})
    assert "\x1b" not in told
    assert r"\x1b[2Jgone\x07\x9b1m" + "\tend" in told
