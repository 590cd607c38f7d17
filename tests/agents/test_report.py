import json
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from benchmark_runs import HOSTILE, made_results, made_run

from collm_agents import stats
from collm_agents.cli import main
from collm_agents.figures import COLOURS
from collm_agents.pages import as_script_data, rounded
from collm_agents.records import Point, Record, Results, write_results
from collm_agents.report import about_rows, escaped, write_report
from collm_agents.report_numbers import ALL, compute, points_of, way

LEVELS = {"novice": {"score": 1.0}, "oracle": {"score": 3.0}}


def by_hand(algorithm, seed, scores, final=None, samples=(0, 64, 128), **changed):
    """A run with given scores; the last one is also the last evaluation's unless given."""
    points = [
        Point(x, 10 * x, x / 4, 8, {"score": y, "success": y / 4})
        for x, y in zip(samples, scores, strict=True)
    ]
    last = replace(points[-1], metrics={"score": scores[-1] if final is None else final, "success": 0.5})
    values = {"points": tuple(points), "final": last, "references": LEVELS, **changed}
    return Record("debug/echo-v0", "dense-h2", algorithm, seed, **values)


HAND = Results(
    (
        by_hand("a", 0, (1.0, 1.5, 2.5)),
        by_hand("a", 1, (1.0, 2.5, 2.5), final=3.0),
        by_hand("b", 0, (1.0, 1.0, 1.0)),
        by_hand("b", 1, (1.0, 1.0, 2.0)),
        Record("debug/echo-v0", "dense-h2", "b", 2, error="OSError: no | space"),
    ),
    {"suite": "hand"},
)


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def group(numbers, algorithm):
    return next(g for g in numbers.groups if g.algorithm == algorithm)


def data_of(html):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


# -- numbers ---------------------------------------------------------------------------------------------------


def test_each_task_by_hand():
    numbers = compute(HAND)
    a, b = group(numbers, "a"), group(numbers, "b")
    assert a.stats["score"]["final"].estimate == pytest.approx(2.75)  # (2.5 + 3) / 2
    assert a.stats["score"]["gain"].estimate == pytest.approx(1.75)  # 1.5 and 2
    # trapezoids: (1.25 + 2) / 2 and (1.75 + 2.5) / 2
    assert a.stats["score"]["area"].estimate == pytest.approx((1.625 + 2.125) / 2)
    # half-way is 2, which the mean curve 1, 2, 2.5 reaches at 64
    assert a.stats["score"]["halfway"].estimate == pytest.approx(64)
    assert a.reached["score"] == 2
    assert a.stats["success"]["final"].estimate == pytest.approx(0.5)
    assert (len(b.runs), b.failed) == (2, 1)
    assert b.stats["score"]["halfway"].estimate == np.inf  # the mean ends at 1.5
    assert b.reached["score"] == 1


def test_curves_are_means_over_seeds_on_each_axis():
    curves = group(compute(HAND), "a").curves["score"]
    np.testing.assert_array_equal(curves["joint_samples"].x, [0, 64, 128])
    np.testing.assert_array_equal(curves["tokens"].x, [0, 640, 1280])
    np.testing.assert_array_equal(curves["wall_s"].x, [0, 16, 32])
    np.testing.assert_allclose(curves["tokens"].band.mean, [1, 2, 2.5])
    # t of one degree of freedom, 12.706, times 0.5 / 1 at the second point
    half = stats.t_quantile(1) * np.std([1.5, 2.5], ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(curves["tokens"].band.high[1], 2 + half)


def test_a_curve_ends_where_its_shortest_run_ends():
    runs = by_hand("a", 0, (1.0, 2.0, 3.0)), by_hand("a", 1, (1.0, 2.0), samples=(0, 96))
    curve = group(compute(Results(runs)), "a").curves["score"]["joint_samples"]
    np.testing.assert_array_equal(curve.x, [0, 64, 96])
    assert (curve.band.n == 2).all()


@pytest.mark.usefixtures("no_figures")
def test_short_runs_and_unequal_spans_are_told(tmp_path):
    why = "no better score in 1 evaluation"
    runs = [by_hand("a", s, (1.0, 1.5, 2.5)) for s in range(3)]
    runs.append(by_hand("a", 3, (1.0, 1.2), samples=(0, 64), stopped=why))
    runs += [by_hand("b", s, (1.0, 1.5, 2.5)) for s in range(2)]
    write_report(Results(tuple(runs)), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert f"stopped before their budget was spent: debug/echo-v0 dense-h2 a 1 of 4 ({why})." in text
    assert "in joint samples: debug/echo-v0 dense-h2 (a 64 to 128, b 128). A mean curve ends with" in text
    assert "| joint samples of a run of a | 64 to 128 |" in text
    assert "| joint samples of a run of b | 128 |" in text
    assert "| not reached by 64 | 3 of 4 |" in text
    notes = data_of((tmp_path / "report.html").read_text("utf-8"))["notes"]
    assert any(why in note for note in notes)
    assert any("Runs of unequal length" in note for note in notes)


@pytest.mark.usefixtures("no_figures")
def test_runs_that_differ_by_a_rollout_are_of_equal_length(tmp_path):
    runs = [by_hand("a", 0, (1.0, 1.5), samples=(0, 128)), by_hand("a", 1, (1.0, 1.5), samples=(0, 132))]
    write_report(Results(tuple(runs)), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "unequal" not in text
    assert "| not reached | 0 of 2 |" in text
    assert "| joint samples of a run | 128 to 132 |" in text


def test_over_all_tasks_by_hand():
    scope = compute(HAND).overall
    assert scope.aggregates["a"]["mean"].estimate == pytest.approx((0.75 + 1.0) / 2)
    assert scope.aggregates["b"]["optimality_gap"].estimate == pytest.approx(1 - (0 + 0.5) / 2)
    assert scope.better["a", "b"].estimate == 1
    assert [scope.ranks[name].estimate for name in "ab"] == [1, 2]
    assert scope.runs == {"a": 2, "b": 2}


def test_statistics_are_those_of_stats():
    results = made_results(failed=2)
    numbers = compute(results)
    values = [
        [
            run.normalised(run.final.metrics["score"])
            for run in results.done
            if run.place[:3] == (*place, "mc")
        ]
        for place in numbers.overall.places
    ]
    for name, found in numbers.overall.aggregates["mc"].items():
        assert found == stats.confidence(values, name)


def test_every_filter_has_its_scope():
    numbers = compute(made_results())
    environments, tasks = (ALL, "coding/add-mini-v0", "writing/tldr-mini-v0"), (ALL, "dense-h1", "sparse-h2")
    for environment in environments:
        for task in tasks:
            scope = numbers.scopes[environment, task, "success"]
            assert len(scope.places) == (2 if environment is ALL else 1) * (2 if task is ALL else 1)


@pytest.mark.usefixtures("no_figures")
def test_an_algorithm_without_runs_on_a_task_is_compared_on_what_it_has(tmp_path):
    results = made_results(failed=0)
    kept = [r for r in results.records if (r.algorithm, r.task) != ("mc", "dense-h1")]
    scope = compute(Results(tuple(kept))).overall
    assert scope.tasks == {"collm-cc": 4, "collm-dc": 4, "mc": 2}
    assert scope.ranked == 2
    write_report(Results(tuple(kept)), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "Of 4 tasks these have fewer: mc 2" in text
    assert "| mc | 2 of 4 | 10 | 0 |" in text


@pytest.mark.usefixtures("no_figures")
def test_failures_stand_beside_the_aggregates_that_they_flatter(tmp_path):
    lost = [Record("debug/echo-v0", "dense-h4", name, 0, error="boom") for name in "ac"]
    write_report(Results((*HAND.records, *lost)), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    table = text.partition("## Over all tasks")[2].partition("## Pairs")[0]
    assert "| algorithm | tasks | runs | failed | IQM |" in table
    assert "| a | 1 of 1 | 2 | 1 |" in table  # on a task where no run came to its end
    assert "| b | 1 of 1 | 2 | 1 |" in table
    assert "| c | 0 of 1 | 0 | 1 | – | – | – | – | – |" in table
    assert "flatters an algorithm that fails: a 1 of 3, b 1 of 3, c 1 of 1 failed." in table
    data = data_of((tmp_path / "report.html").read_text("utf-8"))
    scopes = {(s["e"], s["t"]): s for s in data["scopes"] if s["m"] == "score"}
    assert [(r["a"], r["n"], r["failed"]) for r in scopes[-1, -1]["rows"]] == [
        (0, 2, 1),
        (1, 2, 1),
        (2, 0, 1),
    ]
    assert [(r["a"], r["n"], r["failed"]) for r in scopes[-1, 0]["rows"]] == [(0, 2, 0), (1, 2, 1)]
    assert scopes[-1, -1]["rows"][2]["iqm"] is None
    assert "b 1 of 3 failed" in scopes[-1, 0]["told"]


@pytest.mark.usefixtures("no_figures")
def test_without_failures_nobody_is_flattered(tmp_path):
    write_report(Results(HAND.done), tmp_path)
    assert "flatters" not in (tmp_path / "report.md").read_text("utf-8")


@pytest.mark.usefixtures("no_figures")
def test_no_novice_or_one_that_is_the_oracle_is_not_normalised(tmp_path):
    flat = {"novice": {"score": 2.0}, "oracle": {"score": 2.0}}
    for references in ({}, flat, {"novice": {"score": float("nan")}, "oracle": {"score": 1.0}}):
        results = Results(
            (
                by_hand("a", 0, (1.0, 2.0, 3.0), references=references),
                by_hand("b", 0, (1.0, 1.0, 1.0), references=references),
            )
        )
        assert compute(results).overall is None
        write_report(results, tmp_path)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert "Nothing to normalise" in text
        assert "Not in the normalised tables" in text
        assert "debug/echo-v0 dense-h2" in text


def test_what_is_no_number_is_left_out():
    run = by_hand("a", 0, (1.0, float("nan"), 2.0))
    assert [list(v) for v in points_of(run, "score", "joint_samples")] == [[0, 128], [1, 2]]
    twice = by_hand("a", 0, (1.0, 1.5, 2.0), samples=(0, 0, 64))
    assert [list(v) for v in points_of(twice, "score", "joint_samples")] == [[0, 64], [1.5, 2]]
    assert rounded(float("nan")) is None
    assert rounded(float("-inf")) is None
    assert rounded(1234567.0) == 1234570
    assert rounded(2.0) == 2


def test_a_success_rate_has_no_interval_beyond_one():
    runs = tuple(by_hand("a", s, (1.0, 2.0, 3.0)) for s in range(3))
    runs = tuple(
        replace(r, final=replace(r.final, metrics={"score": 1.0, "success": v}))
        for r, v in zip(runs, (0.8, 0.95, 1.0), strict=True)
    )
    found = group(compute(Results(runs)), "a").stats["success"]["final"]
    assert found.low < found.estimate < found.high <= 1


def test_bad_input_is_named():
    from collm_envs.errors import InputError

    with pytest.raises(InputError, match="no run"):
        compute(Results(()))
    with pytest.raises(InputError, match="no run has the metric 'scroe'; did you mean 'score'"):
        compute(HAND, "scroe")


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        (stats.confidence([[1.0]], "mean"), "single run, no interval"),
        (stats.Interval(1, 0, 2, "widened", 5, 0.93), "widened, n = 5, measured coverage at least 93 %"),
        (
            stats.confidence([[0.1, 0.3, 0.2, 0.5, 0.9]], "mean"),
            "studentised, n = 5, measured coverage at least 93 %, 39 % where one run in ten fails",
        ),
        (stats.Interval(1, 0, 2, "exact", 5, None, "why"), "exact, n = 5, coverage not measured (why)"),
    ],
)
def test_how_an_interval_came_about(interval, told):
    assert way(interval) == told


# -- files -----------------------------------------------------------------------------------------------------


def test_tables_say_what_was_run_and_what_failed(tmp_path):
    written = write_report(HAND, tmp_path / "deep" / "out")
    assert all(file.is_file() for file in written)
    text = (tmp_path / "deep" / "out" / "report.md").read_text("utf-8")
    assert text.startswith("# Benchmark hand\n\n5 runs, of which 1 failed: 2 algorithms, 1 environment, ")
    assert r"| debug/echo-v0 | dense-h2 | b | 2 | OSError: no \| space |" in text
    assert "1 of 5 runs; they are in no mean." in text
    row = next(
        line for line in text.splitlines() if line.startswith("| debug/echo-v0 | dense-h2 | b | 2 | 1 |")
    )
    assert "not reached | 1 of 2" in row
    assert "measured coverage at least" in text
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith("| debug") and "not reached" in line
    }
    assert len(widths) == 1


def test_budget_commit_machine_and_versions_are_told():
    rows = dict(about_rows(made_results()))
    assert rows["commit"] == "0123abc"
    assert rows["machine"] == "2 CPU cores"
    assert rows["versions numpy"] == "2.0"
    assert rows["budget joint_samples"] == "1280"
    assert rows["runs"] == "60, of which 1 failed"
    assert rows["seeds"] == "0, 1, 2, 3, 4"


def test_all_variants_of_finished_runs_are_told():
    runs = [
        by_hand("cc", 0, (1.0, 1.5, 2.5), variant="collm-cc[td0, branching 4x1]"),
        by_hand("cc", 1, (1.0, 1.5, 2.5), variant="collm-cc[td0, branching 4x1x1x1]"),
        Record("debug/echo-v0", "dense-h2", "cc", 2, error="boom"),
        by_hand("mc", 0, (1.0, 1.5, 2.5), variant="mc"),
        Record("debug/echo-v0", "dense-h2", "zz", 0, error="boom"),
    ]
    told = dict(about_rows(Results(tuple(runs))))["algorithms"]
    assert told == "cc = collm-cc[td0, branching 4x1] or collm-cc[td0, branching 4x1x1x1], mc, zz"


@pytest.mark.usefixtures("no_figures")
def test_one_seed_gets_a_note_and_no_interval(tmp_path):
    write_report(made_results(seeds=1, failed=0), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "> 12 of 12 combinations" in text
    assert "single run, no interval" in text
    for table in ("## Over all tasks", "## Pairs", "## Ranks", "## Each task"):
        part = text.partition(table)[2].partition("\n## ")[0]
        cells = [line for line in part.splitlines() if line.startswith("| ") and "---" not in line]
        assert cells
        assert not [line for line in cells if re.search(r"\[[-\d]", line)]
    data = data_of((tmp_path / "report.html").read_text("utf-8"))
    assert data["groups"][0]["stats"]["score"]["final"][1:] == [None, None]


@pytest.mark.usefixtures("no_figures")
def test_only_failed_runs_still_make_a_report(tmp_path):
    failed = Results(tuple(replace(made_run("e", "t", "a", s), final=None, error="boom") for s in range(2)))
    write_report(failed, tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "No run came to its end" in text
    assert text.count("| boom |") == 2
    assert data_of((tmp_path / "report.html").read_text("utf-8"))["scopes"] == []


def test_figures_are_pictures_that_repeat(tmp_path):
    pytest.importorskip("matplotlib")
    results = made_results(seeds=2)
    names = {file.name for file in write_report(results, tmp_path / "a")}
    write_report(results, tmp_path / "b")
    assert {
        "aggregates.png",
        "profiles.svg",
        "curves-00-coding-add-mini-v0.png",
        "last-01-writing-tldr-mini-v0.svg",
    } <= names
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.usefixtures("no_figures")
def test_without_matplotlib_the_rest_is_written(tmp_path):
    written = write_report(made_results(seeds=2), tmp_path)
    assert sorted(file.name for file in written) == ["report.html", "report.md"]
    assert "matplotlib is missing" in (tmp_path / "report.md").read_text("utf-8")


def test_hostile_names_stay_text(tmp_path):
    results = made_results(algorithms=HOSTILE, environments=("<b>e</b>/../x\n# y", "\ud800"), seeds=2)
    written = write_report(results, tmp_path)
    assert all(file.parent == tmp_path for file in written)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert not re.search(r"<(?!/?a\b)", text)
    assert "\n# y" not in text
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<script") == 2
    assert html.count("</script>") == 2
    assert "<img" not in html
    assert sorted(data_of(html)["algorithms"]) == sorted(HOSTILE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a|b", r"a\|b"),
        ("<i>&", "&lt;i&gt;&amp;"),
        ("two\nlines\r\tand\u202emore", "two lines and more"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("score_sum _x_ `c`", r"score_sum \_x\_ \`c\`"),
    ],
)
def test_markdown_is_escaped(text, told):
    assert escaped(text) == told


def test_script_data_cannot_leave_its_element():
    data = {"x": "</script><!-- \u2028 & é"}
    text = as_script_data(data)
    assert not set(text) & set("<>&\u2028é")
    assert json.loads(text) == data
    with pytest.raises(ValueError, match="JSON"):
        as_script_data({"x": float("nan")})


@pytest.mark.usefixtures("no_figures")
def test_the_page_allows_only_what_it_carries(tmp_path):
    write_report(made_results(seeds=2), tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "{{" not in html.replace("{{DATA}}", "")
    script = html.rpartition("<script>")[2]
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttp",
    ):
        assert word not in script


@pytest.mark.usefixtures("no_figures")
def test_page_and_tables_hold_the_same_numbers(tmp_path):
    write_report(HAND, tmp_path)
    data = data_of((tmp_path / "report.html").read_text("utf-8"))
    scope = next(s for s in data["scopes"] if (s["e"], s["t"], s["m"]) == (-1, -1, "score"))
    assert scope["rows"][0]["mean"][0] == 0.875
    assert "0.875" in (tmp_path / "report.md").read_text("utf-8")
    assert data["failed"] == [{"e": 0, "t": 0, "a": 1, "seed": 2, "error": "OSError: no | space"}]
    assert data["groups"][0]["runs"][1]["y"]["score"] == [1, 2.5, 2.5]
    assert data["groups"][0]["curves"]["score"]["wall_s"]["y"] == [1, 2, 2.5]


@pytest.mark.usefixtures("no_figures")
def test_many_metrics_are_cut_with_a_note(tmp_path):
    write_report(made_results(seeds=2, more=[f"parts/p{i}" for i in range(9)]), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "the page leaves out: parts/p5, parts/p6, parts/p7, parts/p8" in text


@pytest.mark.usefixtures("no_figures")
def test_a_finished_run_without_the_metric_is_told(tmp_path):
    runs = [by_hand("a", s, (1.0, 2.0, 2.0)) for s in range(3)]
    lost = replace(runs[2], final=replace(runs[2].final, metrics={"score": float("nan"), "success": 1.0}))
    write_report(Results((*runs[:2], lost)), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "> Finished without a finite score, and in no mean of it: debug/echo-v0 dense-h2 a 2." in text


# -- the verb --------------------------------------------------------------------------------------------------


def test_the_verb_writes_beside_the_results(tmp_path, capsys):
    write_results(HAND, tmp_path / "results.json")
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    assert "5 runs, 1 failed" in capsys.readouterr().out
    assert (
        main(["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "o"), "--metric", "success"])
        == 0
    )
    assert "Each task: success" in (tmp_path / "o" / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["absent.json"], "no such results file"),
        (["results.json", "--metric", "sucess"], "did you mean 'success'"),
        (["results.json", "--out", "results.json"], "is a file"),
        (["empty.json"], "hold no run"),
        ([], "RESULTS"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    write_results(HAND, tmp_path / "results.json")
    (tmp_path / "empty.json").write_text("{}", "utf-8")
    before = sorted(tmp_path.iterdir())
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_long_lines_are_drawn_thin_with_both_ends_and_said_so(no_figures, tmp_path):
    many = 1801
    long = by_hand("a", 0, [i % 7 / 2 for i in range(many)], samples=range(0, 64 * many, 64))
    write_report(Results((long, *HAND.records[1:])), tmp_path)
    page = data_of((tmp_path / "report.html").read_text("utf-8"))
    runs = {(own["a"], run["seed"]): run for own in page["groups"] for run in own["runs"]}
    drawn, short = runs[0, 0], runs[0, 1]
    assert drawn["x"]["joint_samples"][:3] == [0, 192, 384]  # every third
    assert drawn["x"]["joint_samples"][-1] == 64 * (many - 1)
    assert [len(drawn["x"]["tokens"]), len(drawn["y"]["score"])] == [600, 600]
    assert drawn["y"]["score"][:3] == [0, 1.5, 3]
    assert short["x"]["joint_samples"] == [0, 64, 128]
    assert page["notes"][-1].startswith("Of the up to 1,801 evaluations of a run")


def test_it_never_imports_torch(tmp_path):
    write_results(made_results(seeds=2), tmp_path / "results.json")
    code = (
        "import sys\nfrom collm_agents.cli import main\n"
        f"assert main(['report', {str(tmp_path)!r}]) == 0\n"
        "print(sorted({'torch', 'transformers', 'peft', 'pandas', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.system
def test_a_thousand_runs_take_less_than_half_a_minute(tmp_path):
    results = made_results(
        algorithms=[f"algorithm-{i}" for i in range(10)],
        environments=[f"env/e{i}-v0" for i in range(5)],
        seeds=10,
        more=("parts/a", "parts/b"),
    )
    assert len(results.records) == 1000
    assert all(len(run.points) == 11 for run in results.done)
    start = time.process_time()  # what it takes, whatever else runs here
    write_report(results, tmp_path)
    assert time.process_time() - start < 30


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_seen_on_their_paper(theme):
    style = (files("collm_agents") / "page_style.css").read_text("utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]))
    for paper in ("paper", "card"):
        for text in ("ink", "soft", "link"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
        for n in range(8):
            assert contrast(colours[f"c{n}"], colours[paper]) >= 4.5, (n, paper)
    if not theme:
        assert list(COLOURS) == [colours[f"c{n}"] for n in range(8)]
