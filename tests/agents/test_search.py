"""The search, with a trainer that pretends: its score is a function of the settings it was given."""

import builtins
import copy
import json
import os
import signal
import sys
import textwrap
import threading
import time
import tomllib

import pytest

from collm_agents import cli, search_command
from collm_agents.benchmark import Stopped
from collm_agents.records import read_results
from collm_agents.search import Searcher, Trial, draw
from collm_agents.search_file import Range, find_search, read_search
from collm_agents.suite_file import find_suite, list_suites, read_suite, suite_table
from collm_envs.errors import InputError

# Scores 2 - |lr - 5e-4| * 1000 * (1 + 0.1 seed), where novices have 0 and oracles 4.
FAKE = textwrap.dedent(
    """
    import json, os, pathlib, sys, time
    words = sys.argv[1:]
    control = pathlib.Path(os.environ["CONTROL"])
    out = pathlib.Path(words[1] if words[0] == "--resume" else words[-1].partition("=")[2])
    key = out.parent.name
    with (control / "calls").open("a") as calls:
        calls.write(json.dumps({"key": key, "words": words}) + "\\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.toml").write_text("")
    if any(key.startswith(mark.read_text()) for mark in control.glob("slow-*")):
        time.sleep(60)
    if any(mark.read_text() in key for mark in control.glob("fail-*")):
        sys.exit("the loss is nan")
    given = dict(word.partition("=")[::2] for word in words[1:])
    score = 2 - abs(float(given["learner.lr"]) - 5e-4) * 1000 * (1 + 0.1 * int(given["run.seed"]))
    if (control / "flat").exists():
        score = 1.0
    def report(score):
        return {"metrics": {"score": {"mean": score}, "success": {"mean": 0.5}}, "episodes": 2}
    kept = [{"joint_samples": n, "tokens": n, "wall_s": 1.0, **report(score)} for n in range(2)]
    (out / "evaluations.json").write_text(json.dumps(kept))
    (out / "episodes.jsonl").write_text("")
    references = {"novice": report(0.0), "oracle": report(4.0)}
    result = {"references": references, "high": 4.0, "variant": "x", "versions": {"torch": "2"}}
    (out / "result.json").write_text(json.dumps(result))
    """
)
TOML = """
name = "two"
seeds = [0, 1]
settings = ["rollout.samples=2"]
[budget]
joint_samples = 64
[evaluation]
greedy = [false, true]
[algorithms.mc]
[algorithms.cc]
algorithm = "collm-cc"
[[environments]]
env = "debug/echo-v0"
[[environments]]
env = "debug/handshake-v0"
num_turns = 2
[search]
trials = 4
seeds = [10, 20]
[search.ranges]
"learner.lr" = {low = 1e-4, high = 2e-3, log = true}
"learner.update_epochs" = [1, 2, 4]
[search.ranges.cc]
"learner.minibatches" = {low = 1, high = 8}
"""
TABLE = tomllib.loads(TOML)


def changed(path, value):
    """The search with one key of its table changed, or removed where the value is None."""
    table = copy.deepcopy(TABLE)
    *above, last = path
    part = table
    for key in above:
        part = part.setdefault(key, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return table


class Place:
    """A folder with a control folder, and searches in it."""

    def __init__(self, folder):
        self.folder, self.control = folder, folder / "control"
        self.control.mkdir()
        (self.control / "trainer.py").write_text(FAKE, "utf-8")
        self.said = []

    def make(self, table=TABLE, out="out", **more):
        trainer = (sys.executable, str(self.control / "trainer.py"))
        search = read_search(table, "mine.toml", "mine", **more)
        return Searcher(search, self.folder / out, processes=4, trainer=trainer, said=self.said.append)

    def mark(self, what, text):
        (self.control / f"{what}-{text}").write_text(text, "utf-8")

    def clear(self):
        for file in (*self.control.glob("slow-*"), *self.control.glob("fail-*")):
            file.unlink()

    def calls(self):
        file = self.control / "calls"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line)["key"] for line in lines]

    def json(self, out="out"):
        return json.loads((self.folder / out / "search.json").read_text("utf-8"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path)
    monkeypatch.setenv("CONTROL", str(made.control))
    monkeypatch.setattr("collm_agents.search.STARTUP", 1)  # so that draws soon depend on what came before
    return made


def untimed(trials):
    return [{**trial, "seconds": 0} for trial in trials]


# -- trials -------------------------------------------------------------------------------------------------


def test_every_algorithm_has_as_many_trials_all_within_the_ranges_and_recorded(place):
    trials = place.make().run()
    assert [(t.algorithm, t.number) for t in trials] == [(a, n) for n in range(1, 5) for a in ("mc", "cc")]
    for trial in trials:
        assert 1e-4 <= trial.settings["learner.lr"] <= 2e-3
        assert trial.settings["learner.update_epochs"] in (1, 2, 4)
        rows = trial.settings.get("learner.minibatches")
        assert rows is None if trial.algorithm == "mc" else type(rows) is int and 1 <= rows <= 8
    calls = place.calls()
    assert len(calls) == len(set(calls)) == 4 * 2 * 2 * 2
    assert {key.rpartition("_s")[2] for key in calls} == {"10", "20"}
    stored = place.json()
    assert [Trial(**own) for own in stored["trials"]] == trials
    assert stored["search"]["ranges"]["cc"]["learner.minibatches"] == {"low": 1, "high": 8, "log": False}
    records = read_results(place.folder / "out").done
    assert len(records) == 32
    assert all(
        set(trial.words) <= set(r.settings) for trial in trials for r in records if r.algorithm == trial.label
    )


def test_a_value_is_the_mean_over_environments_and_seeds_between_novice_and_oracle(place):
    for trial in place.make(trials=1).run():
        off = abs(trial.settings["learner.lr"] - 5e-4) * 1000
        by_hand = (2 - off * (1 + (1 + 2) / 2)) / 4
        assert trial.value == pytest.approx(by_hand)
        assert trial.environments == {
            "debug/echo-v0 dense-h1": pytest.approx(by_hand),
            "debug/handshake-v0 dense-h2": pytest.approx(by_hand),
        }
        assert trial.seconds > 0


def test_equal_ranges_begin_with_equal_draws_and_a_seed_decides_them(place):
    search = place.make().search
    ranges = search.ranges["mc"]
    first = draw(search, ranges, [])
    wider = draw(search, search.ranges["cc"], [])
    assert first.items() <= wider.items()
    other = place.make(changed(("search", "seed"), 1)).search
    assert draw(other, ranges, []) != first == draw(search, ranges, [])


def test_tpe_learns_from_earlier_trials_and_random_does_not():
    ranges = {"learner.lr": Range(0.0, 1.0)}
    for sampler in ("tpe", "random"):
        search = read_search(changed(("search", "sampler"), sampler), "mine.toml")
        ends = []
        for best in (0.1, 0.9):
            trials = []
            for number in range(12):
                drawn = draw(search, ranges, trials)
                trials.append(Trial("mc", number, drawn, "done", -abs(drawn["learner.lr"] - best)))
            late = [trial.settings["learner.lr"] for trial in trials[4:]]
            ends.append(sum(late) / len(late))
        assert (ends[0] < ends[1] - 0.1) if sampler == "tpe" else (ends[0] == ends[1])


def test_whole_numbers_texts_and_truths_are_drawn_as_they_were_written():
    search = read_search(TABLE, "mine.toml")
    ranges = {"a.b": Range(1, 3), "a.c": Range(choices=(True, False)), "a.d": Range(choices=("x", "y"))}
    drawn = draw(search, ranges, [])
    trial = Trial("mc", 1, {"a.b": 2, "a.c": True, "a.d": "x", "a.e": 1e-05})
    assert trial.words == ("a.b=2", "a.c=true", "a.d=x", "a.e=1e-05")
    assert type(drawn["a.b"]) is int
    assert type(drawn["a.c"]) is bool


# -- failures and interruptions -----------------------------------------------------------------------------


def test_a_failed_trial_is_recorded_counts_and_is_not_done_again(place):
    place.mark("fail", "debug-echo-v0_dense-h1_mc-t02_s20")
    trials = place.make().run()
    failed = [trial for trial in trials if trial.state == "failed"]
    assert [(t.label, t.value, t.error) for t in failed] == [
        ("mc-t02", None, "debug/echo-v0 seed 20: the loss is nan")
    ]
    assert sum(trial.algorithm == "mc" for trial in trials) == 4
    assert len(place.calls()) == 32
    place.clear()
    assert place.make().run() == trials
    more = place.make(trials=5).run()
    assert more[:8] == trials
    assert {key.split("_")[2] for key in place.calls()} == {"mc-t05", "cc-t05"}


def test_values_that_cannot_go_together_are_a_refused_trial(place, monkeypatch):
    searcher = place.make(trials=2)
    whole = Searcher._suite

    def suite(self, trials):
        if [trial.label for trial in trials] == ["cc-t01"]:
            raise InputError("too many rows")
        assert "cc-t01" not in [trial.label for trial in trials]
        return whole(self, trials)

    monkeypatch.setattr(Searcher, "_suite", suite)
    trials = searcher.run()
    assert [(t.label, t.state) for t in trials] == [
        ("mc-t01", "done"),
        ("cc-t01", "refused"),
        ("mc-t02", "done"),
        ("cc-t02", "done"),
    ]
    assert "refused: cc-t01: too many rows" in search_command.table(searcher)


def test_interrupted_and_called_again_it_is_the_search_that_was_not_interrupted(place):
    whole = place.make(out="whole").run()
    place.calls()
    place.mark("slow", "debug-handshake-v0_dense-h2_cc-t03_s10")
    place.mark("fail", "debug-echo-v0_dense-h1_mc-t03_s10")
    seen = place.folder / "out" / "runs" / "debug-handshake-v0_dense-h2_cc-t03_s10" / "train" / "config.toml"
    failed = place.folder / "out" / "runs" / "debug-echo-v0_dense-h1_mc-t03_s10" / "run.json"

    def interrupt():
        until = time.monotonic() + 40
        while time.monotonic() < until:
            if seen.exists() and failed.exists() and "failed" in failed.read_text("utf-8"):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Stopped):
        place.make().run()
    assert [own["state"] for own in place.json()["trials"]] == ["done"] * 4 + ["drawn"] * 2
    before = place.calls()
    finished = {
        file.parent.name
        for file in (place.folder / "out" / "runs").glob("*/run.json")
        if json.loads(file.read_text("utf-8"))["state"] in ("done", "failed")
    }
    place.clear()
    trials = place.make().run()
    assert not finished & set(place.calls())
    assert before
    # Up to the failure that was put in, and for the algorithm that had none, all is as without the stop.
    told = [(t.settings, t.value) for t in trials if t.algorithm == "cc" or t.number < 3]
    assert told == [(t.settings, t.value) for t in whole if t.algorithm == "cc" or t.number < 3]
    assert [t.state for t in trials if t.label == "mc-t03"] == ["failed"]


def test_without_its_file_a_search_draws_the_same_again_and_runs_nothing(place):
    trials = place.make().run()
    before = place.json()
    place.calls()
    (place.folder / "out" / "search.json").unlink()
    assert place.make().run() == trials
    assert place.json() == before
    assert not place.calls()


def test_more_trials_go_on_where_fewer_ended(place):
    whole = place.make(out="whole").run()
    place.make(trials=3).run()
    grown = place.make(trials=4).run()
    assert [(t.settings, t.value) for t in grown] == [(t.settings, t.value) for t in whole]
    with pytest.raises(InputError, match=r"search\.json: has 4 trials of each; there may be more, not 3"):
        place.make(trials=3)


def test_another_search_is_refused_in_the_folder(place):
    place.make(trials=1).run()
    for path, value, name in (
        (("search", "seed"), 1, "seed"),
        (("search", "sampler"), "random", "sampler"),
        (("search", "seeds"), [10], "seeds"),
        (("search", "ranges", "learner.update_epochs"), [1, 2], "ranges"),
        (("budget", "joint_samples"), 65, "suite"),
    ):
        with pytest.raises(InputError, match=f"begun with another {name}; take another --out"):
            place.make(changed(path, value))
    (place.folder / "out" / "search.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="not the file of a search"):
        place.make()


def test_a_metric_that_lies_between_nothing_is_an_error_that_names_the_place(place):
    searcher = place.make(changed(("search", "metric"), "success"), trials=1)
    with pytest.raises(InputError, match="debug/echo-v0 dense-h1: success cannot be set between"):
        searcher.run()


# -- what is chosen -----------------------------------------------------------------------------------------


def test_the_best_is_chosen_and_the_suite_is_ready_for_bench(place):
    searcher = place.make()
    trials = searcher.run()
    suite = find_suite(str(place.folder / "out" / "chosen.toml"))
    assert (suite.name, suite.seeds, suite.greedy) == ("two-chosen", (0, 1), (False, True))
    for contender in suite.algorithms:
        own = [trial for trial in trials if trial.algorithm == contender.label]
        best = min(own, key=lambda trial: abs(trial.settings["learner.lr"] - 5e-4))
        assert contender.settings == best.words
        assert place.json()["chosen"][contender.label] == best.number
    assert len(suite.runs()) == 8
    assert suite_table(suite) == suite_table(searcher.chosen())


def test_ties_go_to_the_earliest(place):
    (place.control / "flat").touch()
    searcher = place.make(trials=3)
    searcher.run()
    assert [searcher.best(label).number for label in ("mc", "cc")] == [1, 1]


def test_where_all_trials_of_one_failed_nothing_is_chosen(place):
    place.mark("fail", "_cc-t")
    searcher = place.make(trials=2)
    searcher.run()
    assert searcher.best("mc") is not None
    assert searcher.best("cc") is searcher.chosen() is None
    assert not (place.folder / "out" / "chosen.toml").exists()
    assert place.json()["chosen"]["cc"] is None


@pytest.mark.parametrize("name", list_suites())
def test_a_suite_says_itself_again(name):
    import tomli_w

    suite = find_suite(name)
    again = read_suite(tomllib.loads(tomli_w.dumps(suite_table(suite))), suite.source)
    assert again == suite


# -- what is refused ----------------------------------------------------------------------------------------

RANGES = ("search", "ranges")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("search",), None, r"mine\.toml: needs a table \[search\]"),
        (("search", "seeds"), None, r"mine\.toml: search\.seeds is missing"),
        (("search", "seeds"), [10, 1], r"search\.seeds: 1 are the suite's seeds too"),
        (("search", "seeds"), [10, 10], "seeds must be how many, up to 10000, or a list of different"),
        (("search", "trials"), 0, r"search\.trials must be at least 1, not 0"),
        (("search", "trial"), 3, r"search\.trial: there is no such key.*trials"),
        (("search", "sampler"), "grid", r"search\.sampler must be one of tpe, random, not 'grid'"),
        (("search", "metric"), "scor", r"search\.metric must be one of score.*score"),
        (("search", "settings"), ["run.seed=3"], r"search\.settings: run\.seed is the suite's own"),
        (("search", "settings"), ["learner.lr=1e-3"], r'"learner\.lr": mc has it fixed as well'),
        (("settings",), ["update_epochs=2"], r'"learner\.update_epochs": mc has it fixed as well: update'),
        (("algorithms", "cc", "settings"), ["lr=1e-3"], r'"learner\.lr": cc has it fixed as well: lr=1e-3'),
        ((*RANGES, "learner"), {"lr": [1]}, r'search\.ranges\."learner": neither an algorithm'),
        (
            (*RANGES, "learner.rl"),
            [1],
            r"search\.ranges\.\"learner\.rl\": 1: .*unknown setting 'learner\.rl'",
        ),
        ((*RANGES, "learner.lr"), {"low": 1}, r'"learner\.lr"\.high is missing'),
        ((*RANGES, "learner.lr"), {"low": 1e-3, "high": 1e-4}, "low must be below high"),
        ((*RANGES, "learner.lr"), {"low": 0, "high": 1, "log": True}, "log needs low above 0"),
        (
            (*RANGES, "learner.lr"),
            {"low": 1e-3, "high": 1, "lag": True},
            r'lr"\.lag: there is no such key.*log',
        ),
        (
            (*RANGES, "learner.lr"),
            {"low": -1.0, "high": 1e-3},
            r'ranges\."learner\.lr": -1\.0: .*learner\.lr',
        ),
        ((*RANGES, "learner.lr"), 1e-3, "must be a list of values"),
        ((*RANGES, "learner.lr"), [], "must list different"),
        ((*RANGES, "learner.lr"), [1e-3, 1e-3], "must list different"),
        ((*RANGES, "learner.lr"), [1e-3, [1]], "must list different"),
        ((*RANGES, "env.num_turns"), [1, 2], "another environment is another task"),
        ((*RANGES, "run.seed"), [1, 2], r"run\.seed is the suite's own to say"),
        ((*RANGES, "dc"), {"learner.lr": [1]}, r'search\.ranges\."dc": neither an algorithm'),
        (RANGES, {"cc": {"learner.lr": [1e-3]}}, r"search\.ranges: nothing is drawn for mc"),
    ],
)
def test_what_no_search_can_use_is_refused_with_its_place(path, value, message):
    with pytest.raises(InputError, match=message):
        read_search(changed(path, value), "mine.toml", "mine")


def test_ranges_of_one_algorithm_take_the_place_of_those_of_all():
    table = changed((*RANGES, "cc", "learner.lr"), [1e-3, 2e-3])
    ranges = read_search(table, "mine.toml").ranges
    assert list(ranges["mc"]) == ["learner.lr", "learner.update_epochs"]
    assert list(ranges["cc"]) == ["learner.lr", "learner.update_epochs", "learner.minibatches"]
    assert ranges["cc"]["learner.lr"].choices == (1e-3, 2e-3)


def test_presets_and_settings_of_the_search_reach_its_runs_alone():
    table = changed(("search", "settings"), ["eval.split=train"])
    table["environments"] = [{"env": "games/strbuild-mini-v0", "presets": {"cc": "builtin-strbuild"}}]
    search = read_search(table, "mine.toml")
    contenders = [
        type(search.suite.algorithms[0])(f"{c.label}-t01", c.algorithm) for c in search.suite.algorithms
    ]
    runs = search.suite_of(contenders, {"mc-t01": "mc", "cc-t01": "cc"}).runs()
    assert {(run.algorithm, run.preset) for run in runs} == {("mc-t01", ""), ("cc-t01", "builtin-strbuild")}
    assert all("eval.split=train" in run.settings and run.greedy == (False,) for run in runs)
    assert not any("eval.split=train" in run.settings for run in search.suite.runs())


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML, "utf-8")
    return tmp_path


def test_a_dry_run_shows_ranges_and_counts_and_writes_nothing(here, capsys):
    assert cli.main(["search", "mine.toml", "--trials", "4", "--dry-run", "joint_samples=32"]) == 0
    told = capsys.readouterr().out
    assert "search two: 4 trials of each of 2 algorithms, 0 of 8 done, in search/two" in told
    assert "32 runs: seeds 10, 20; sampler tpe, its seed 0" in told
    assert "cc  learner.minibatches" in told
    assert "0.0001 .. 0.002 log" in told
    assert [path.name for path in here.iterdir()] == ["mine.toml"]


def test_bad_words_are_one_line_and_exit_code_2(here, capsys):
    for words, message in (
        (["nothing.toml"], "no suite 'nothing.toml'"),
        (["mine.toml", "--trials", "0"], "--trials must be at least 1, not 0"),
        (["mine.toml", "--processes", "-1"], "--processes must be at least 1"),
        (["trials=3"], "name one TOML file"),
        (["smoke"], "smoke: needs a table [search]"),
        (["mine.toml", "lr=1e-3"], "mc has it fixed as well: lr=1e-3"),
    ):
        assert cli.main(["search", *words]) == 2
        assert message in capsys.readouterr().err


def test_without_optuna_the_search_says_what_to_install_and_writes_nothing(here, capsys, monkeypatch):
    real = builtins.__import__

    def importing(name, *more):
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert cli.main(["search", "mine.toml"]) == 2
    assert "pip install 'collm[search]'" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["mine.toml"]
    assert cli.main(["search", "mine.toml", "--dry-run"]) == 0


def test_the_command_runs_prints_all_trials_and_names_the_next_step(place, capsys, monkeypatch):
    monkeypatch.chdir(place.folder)
    (place.folder / "mine.toml").write_text(TOML, "utf-8")
    trainer = (sys.executable, str(place.control / "trainer.py"))
    monkeypatch.setattr(
        Searcher.__init__, "__kwdefaults__", {**Searcher.__init__.__kwdefaults__, "trainer": trainer}
    )
    place.mark("fail", "_mc-t01_s10")
    assert cli.main(["search", "mine.toml", "--trials", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("chosen\n") == 2
    assert "failed: mc-t01: debug/echo-v0 seed 10: the loss is nan" in told
    assert "to compare what was chosen: collm bench search/two/chosen.toml" in told
    assert find_search("mine.toml", (), 2).trials == 2
    place.mark("fail", "_mc-t")
    assert cli.main(["search", "mine.toml", "--trials", "2", "--out", "other"]) == 1
    assert "nothing chosen: every trial of mc failed" in capsys.readouterr().out
