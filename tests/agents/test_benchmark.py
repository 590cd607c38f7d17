"""The machinery around runs, with a trainer that pretends: what it writes is the same at every call."""

import argparse
import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pyarrow.parquet
import pytest

from collm_agents import bench_command, cli
from collm_agents.bench_run import last_words
from collm_agents.benchmark import Benchmark, Stopped, commit
from collm_agents.records import Record, Results, read_results
from collm_agents.suite_file import find_suite, suite_of_words, with_words
from collm_envs.errors import CollmError, InputError

FAKE = textwrap.dedent(
    """
    import json, os, pathlib, signal, sys, time
    words = sys.argv[1:]
    control = pathlib.Path(os.environ["CONTROL"])
    resumed = words[0] == "--resume"
    out = pathlib.Path(words[1] if resumed else words[-1].partition("=")[2])
    key = out.parent.name
    with (control / "calls").open("a") as calls:
        told = {"key": key, "resumed": resumed, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "words": words}
        calls.write(json.dumps({**told, "threads": os.environ["OMP_NUM_THREADS"]}) + "\\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.toml").write_text("")
    place = out / "checkpoints" / "000000004"
    if (control / f"early-{key}").exists():
        time.sleep(60)
    place.mkdir(parents=True, exist_ok=True)
    (place / "progress.json").write_text("{}")
    if (control / f"full-{key}").exists():
        for name in ("learner.safetensors", "critics/critic/model", "agents/agent_0/model"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("")
    if (control / f"fail-{key}").exists():
        print("4 joint samples", file=sys.stderr)
        print("collm: error: the loss is nan", file=sys.stderr)
        sys.exit(1)
    if (control / f"die-{key}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (control / f"slow-{key}").exists() and not resumed:
        time.sleep(60)
    if (control / f"odd-{key}").exists():
        sys.exit(0)
    seed = int(key.rpartition("_s")[2])
    def report(score):
        return {"metrics": {"score": {"mean": score}, "success": {"mean": 0.5}}, "episodes": 2, "samples": []}
    kept = [
        {"joint_samples": 4 * n, "tokens": 40 * n, "wall_s": 1.0 * n, "edge": n != 1, **report(n + seed),
         "greedy": report(n + 0.5)}
        for n in range(3)
    ]
    (out / "evaluations.json").write_text(json.dumps(kept))
    row = {"task_id": "t", "score": 1.0, "success": 0.0, "return": -1.0, "turns": 2.0, "reply_tokens": 3.0}
    rows = [{**row, "greedy": False}, {**row, "score": 2.0, "greedy": False}, {**row, "greedy": True}]
    (out / "episodes.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
    result = {"references": {"oracle": report(9.0)}, "high": 9.0, "variant": "mc[x]", "versions": {"torch": "2"}}
    (out / "result.json").write_text(json.dumps(result))
    """
)
KEY = "debug-echo-v0_dense-h1_mc_s{}"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "results"


class Bench:
    """A folder with a control folder, and benchmarks of one kind in it."""

    def __init__(self, folder):
        self.out, self.control = folder / "out", folder / "control"
        self.control.mkdir(parents=True)
        (self.control / "trainer.py").write_text(FAKE, "utf-8")
        self.said = []

    def make(self, *words, seeds="2", **more):
        suite = with_words(suite_of_words("mc", "debug/echo-v0"), words, seeds)
        trainer = (sys.executable, str(self.control / "trainer.py"))
        return Benchmark(
            suite, self.out, **{"trainer": trainer, "processes": 2, "said": self.said.append, **more}
        )

    def calls(self):
        lines = (self.control / "calls").read_text("utf-8").splitlines()
        (self.control / "calls").unlink()
        return sorted((json.loads(line) for line in lines), key=lambda call: call["key"])

    def mark(self, what, seed):
        (self.control / f"{what}-{KEY.format(seed)}").touch()

    def clear(self):
        for file in self.control.glob("*-debug*"):
            file.unlink()

    def run_json(self, seed):
        return json.loads((self.out / "runs" / KEY.format(seed) / "run.json").read_text("utf-8"))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path)
    monkeypatch.setenv("CONTROL", str(made.control))
    return made


def interrupt_when(ready):
    """Send this process SIGTERM as soon as something holds."""

    def wait():
        until = time.monotonic() + 20
        while not ready() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


# -- runs -----------------------------------------------------------------------------------------------------


def test_every_run_becomes_a_record_a_file_and_rows(bench):
    results = bench.make().run()
    assert [record.place for record in results.done] == [
        ("debug/echo-v0", "dense-h1", "mc", s) for s in (0, 1)
    ]
    first, second = results.done
    assert [(p.joint_samples, p.tokens, p.wall_s, p.episodes) for p in first.points] == [
        (0, 0, 0.0, 2),
        (4, 40, 1.0, 2),
        (8, 80, 2.0, 2),
    ]
    assert (first.final.metrics, second.final.metrics["score"]) == ({"score": 2.0, "success": 0.5}, 3.0)
    assert (first.references, first.high, first.variant) == (
        {"oracle": {"score": 9.0, "success": 0.5}},
        9.0,
        "mc[x]",
    )
    assert read_results(bench.out).records == results.records
    assert results.about["budget"] == {"joint_samples": 6400}
    assert results.about["versions"] == [{"torch": "2"}]
    assert bench.run_json(0)["state"] == "done"
    call = bench.calls()[0]
    assert call["words"][0] == "debug/echo-v0"
    assert "run.seed=0" in call["words"]
    assert (call["threads"], call["resumed"]) == ("1", False)


def test_both_ways_of_evaluating_are_two_records_of_one_run(bench):
    results = bench.make("greedy=false,true", seeds="1").run()
    assert len(bench.calls()) == 1
    assert [(r.task, r.final.metrics["score"]) for r in results.done] == [
        ("dense-h1", 2.0),
        ("dense-h1-greedy", 2.5),
    ]
    rows = pyarrow.parquet.read_table(bench.out / "episodes.parquet").to_pylist()
    assert [(row["task"], row["score"], row["algorithm"], row["seed"]) for row in rows] == [
        ("dense-h1", 1.0, "mc", 0),
        ("dense-h1", 2.0, "mc", 0),
        ("dense-h1-greedy", 1.0, "mc", 0),
    ]
    assert set(rows[0]) == {
        *("environment", "task", "algorithm", "seed", "task_id"),
        *("score", "success", "return", "turns", "reply_tokens"),
    }


def test_a_slim_run_keeps_its_agents_and_nothing_to_train_with(bench):
    for slim in (False, True):
        made = bench.make(seeds="1", slim=slim, redo=True)
        place = made.places[0].train / "checkpoints" / "000000004"
        bench.mark("full", 0)
        made.run()
        kept = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        agents = {"progress.json", "agents/agent_0/model"}
        assert kept == (agents if slim else agents | {"learner.safetensors", "critics/critic/model"})
        (made.places[0].folder / "run.json").unlink()


def test_what_is_finished_is_not_done_again(bench):
    one = bench.make().run()
    bench.calls()
    more = bench.make(seeds="3").run()
    assert [call["key"] for call in bench.calls()] == [KEY.format(2)]
    assert more.records[:2] == one.records


def test_runs_that_were_shared_count_as_done(bench, tmp_path):
    results = bench.make(seeds="2").run()
    bench.calls()
    elsewhere = Bench(tmp_path / "elsewhere")
    changed = [dataclasses.replace(results.records[1], settings=("learner.lr=1",)), *results.records[:1]]
    taken = elsewhere.make(seeds="3").adopt(dataclasses.replace(results, records=tuple(changed)))
    assert taken == 1  # the other one was made with other settings
    found = elsewhere.make(seeds="3").run()
    assert [call["key"] for call in bench.calls()] == [KEY.format(1), KEY.format(2)]
    assert found.records[0] == results.records[0]
    assert len(found.done) == 3
    assert any("episodes of 1 runs are not here" in line for line in elsewhere.said)
    assert elsewhere.make(seeds="3").adopt(results) == 0  # what is here is kept


def test_what_failed_is_reported_with_its_reason_and_begun_anew(bench):
    bench.mark("fail", 0)
    bench.mark("odd", 1)
    bench.mark("die", 2)
    results = bench.make(seeds="4").run()
    assert [record.seed for record in results.done] == [3]
    errors = {record.seed: record.error for record in results.failed}
    assert errors[0] == "the loss is nan"
    assert errors[1].startswith("its files cannot be read: FileNotFoundError")
    assert errors[2] == "killed by SIGKILL"
    assert read_results(bench.out).failed == results.failed
    assert len([line for line in bench.said if "FAILED" in line]) == 3
    assert bench.run_json(0)["error"] == "the loss is nan"
    bench.calls()
    bench.clear()
    again = bench.make(seeds="4").run()
    calls = bench.calls()
    assert [(call["key"], call["resumed"]) for call in calls] == [(KEY.format(s), False) for s in (0, 1, 2)]
    assert not again.failed
    assert len(again.done) == 4


def test_a_signal_stops_the_programs_and_the_same_call_goes_on(bench):
    bench.mark("slow", 0)
    bench.mark("early", 1)
    seen = bench.out / "runs" / KEY.format(0) / "train" / "checkpoints" / "000000004" / "progress.json"
    other = bench.out / "runs" / KEY.format(1) / "train" / "config.toml"
    interrupt_when(lambda: seen.exists() and other.exists())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        Stopped, match="stopped by SIGTERM with 0 of 3 runs done; the same command goes on"
    ) as caught:
        bench.make(seeds="3").run()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert [bench.run_json(seed)["state"] for seed in (0, 1)] == ["started", "started"]
    assert not read_results(bench.out).records  # what is done is there already; here nothing is
    bench.calls()
    bench.clear()
    results = bench.make(seeds="3").run()
    # The first had a checkpoint, the second was stopped before it had one, the third had not begun.
    assert [call["resumed"] for call in bench.calls()] == [True, False, False]
    assert len(results.done) == 3
    assert bench.run_json(0)["wall_s"] > 0


def test_other_settings_are_refused_or_done_again_never_mixed(bench):
    bench.make("learner.lr=0.1").run()
    bench.calls()
    with pytest.raises(InputError, match=r"other settings: learner\.lr=0\.1 then, learner\.lr=0\.2 now"):
        bench.make("learner.lr=0.2").run()
    with pytest.raises(InputError, match=r"eval\.points=8 then, eval.points=9 now"):
        bench.make("learner.lr=0.1", "points=9").run()
    with pytest.raises(InputError, match="greedy"):
        bench.make("learner.lr=0.1", "greedy=true,false").missing()
    assert not (bench.control / "calls").exists()
    results = bench.make("learner.lr=0.2", redo=True).run()
    assert [call["resumed"] for call in bench.calls()] == [False, False]
    assert all("learner.lr=0.2" in record.settings for record in results.done)
    bench.make("learner.lr=0.2").run()
    assert not (bench.control / "calls").exists()


def test_settings_that_come_to_the_same_are_the_same(bench):
    words = "learner.lr=0.1", "critic_lr=0.2"
    results = bench.make(*words).run()
    file = bench.out / "runs" / KEY.format(0) / "run.json"
    stored = json.loads(file.read_text("utf-8"))
    for settings, message in (
        (["learner.critic_lr=0.2", *(own for own in stored["settings"] if own != "critic_lr=0.2")], ""),
        ([*stored["settings"], "lr=0.3"], r"lr=0\.3 then, none now"),
        (["no.such=1", *stored["settings"]], r"no\.such=1 then, none now"),
        (3, r"run\.json: not the file of a run"),
    ):
        file.write_text(json.dumps({**stored, "settings": settings}), "utf-8")
        if message:
            with pytest.raises(InputError, match=message):
                bench.make(*words).missing()
        else:
            assert not bench.make(*words).missing()
    twice = ["lr=0.1", "learner.lr=0.3"]
    file.write_text(json.dumps({**stored, "settings": [*twice, *stored["settings"]]}), "utf-8")
    assert not bench.make(*words).missing()  # what is said twice is what was said last
    again = [dataclasses.replace(own, settings=(*twice, *own.settings)) for own in results.records]
    elsewhere = dataclasses.replace(results, records=tuple(again))
    bench.out = bench.out.with_name("elsewhere")
    assert bench.make(*words).adopt(elsewhere) == 2


@pytest.mark.parametrize(
    "name", ["mini-ablations", "mini-core", "mini-search", "mini-warmstarts", "mini-worlds"]
)
def test_results_of_earlier_releases_are_of_the_packaged_suites(name, tmp_path):
    results = read_results(BENCHMARKS / f"{name}.json")
    bench = Benchmark(find_suite(name), tmp_path / "out")
    assert bench.adopt(results) == len(bench.places)
    assert "nothing is left to do" in bench_command.plan(bench)
    assert Benchmark(find_suite(name), tmp_path / "out").missing() == []


def test_runs_of_several_states_of_the_code_are_named(bench, monkeypatch):
    monkeypatch.setattr("collm_agents.benchmark.commit", lambda: "one")
    assert bench.make(seeds="1").run().about["commit"] == "one"
    assert not [line for line in bench.said if "mixed" in line]
    monkeypatch.setattr("collm_agents.benchmark.commit", lambda: "two")
    assert bench.make(seeds="2").run().about["commit"] == "one, two"
    assert any("mixed: the runs are of 2 states of the code: one, two" in line for line in bench.said)
    assert bench.run_json(1)["commits"] == ["two"]


def test_a_commit_is_named_by_the_repository_that_tracks_both_packages(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    own = [tmp_path / name for name in ("collm_agents", "collm_envs")]
    installed = [tmp_path / ".venv" / package.name for package in own]
    for package in (*own, *installed):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "reward.py").write_text("")
    assert commit(own) == ""
    git("init")
    git("add", *(package.name for package in own))
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert commit(own) == head
    assert commit(installed) == commit([own[0], installed[1]]) == ""
    (tmp_path / "elsewhere.py").write_text("")
    assert commit(own) == head
    for package in own:
        (package / "reward.py").write_text("changed")
        assert commit(own) == f"{head}+"
        git("checkout", ".")
    git("rm", "-q", "--cached", "-r", "collm_envs")
    assert commit(own) == ""


def test_runs_of_another_suite_are_left_out_and_named(bench):
    bench.make(seeds="2").run()
    results = bench.make(seeds="1").run()
    assert len(results.records) == 1
    assert any("left out: 1 runs" in line for line in bench.said)


def test_a_broken_run_file_is_named(bench):
    bench.make(seeds="1").run()
    (bench.out / "runs" / KEY.format(0) / "run.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match=r"run.json: not the file of a run"):
        bench.make(seeds="1").run()


def test_a_folder_is_one_calls_at_a_time(bench):
    bench.out.mkdir()
    with (bench.out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another `collm bench` is at work"):
            bench.make().run()
    bench.make().run()


def test_gpus_are_dealt_out_one_run_on_each(bench):
    bench.make(seeds="5", gpus=["2", "3"], processes=7).run()
    used = [call["gpu"] for call in bench.calls()]
    assert set(used) == {"2", "3"}


def test_no_more_programs_at_once_than_were_asked_for(bench):
    most = []
    bench.make(seeds="5", processes=2, seen=lambda *told: most.append(len(told[3]))).run()
    assert max(most) == 2


def test_a_warm_start_is_built_once_and_named_in_the_command(bench, monkeypatch):
    builds = []

    def fake_popen(command, **more):
        if "collm_agents.models.warmstart" in command:
            builds.append(command)
            code = f"import pathlib; pathlib.Path({command[-1]!r}).mkdir(parents=True)"
            command = [sys.executable, "-c", code]
        return real(command, **more)

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", fake_popen)
    suite = with_words(suite_of_words("mc", "debug/echo-v0"), [], "2")
    suite = type(suite)(**{**vars(suite), "models": ("warmstart:7",)})
    trainer = (sys.executable, str(bench.control / "trainer.py"))
    for _ in range(2):
        Benchmark(suite, bench.out, trainer=trainer).run()
    assert len(builds) == 1
    assert builds[0][builds[0].index("--seed") + 1] == "7"
    assert f"team.model=builtin:{bench.out / 'warmstarts' / '7'}" in bench.calls()[0]["words"]


def test_without_its_warm_start_nothing_begins(bench, monkeypatch):
    real = subprocess.Popen
    code = "import sys; sys.exit('no room')"
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **more: real([sys.executable, "-c", code], **more)
    )
    suite = suite_of_words("mc", "debug/echo-v0")
    suite = type(suite)(**{**vars(suite), "models": ("warmstart:7",)})
    with pytest.raises(CollmError, match="no warm start: no room"):
        Benchmark(suite, bench.out).run()
    assert not (bench.out / "runs").exists()


def test_last_words(tmp_path):
    file = tmp_path / "stderr.txt"
    file.write_text("one\ncollm: error: two\n\n", "utf-8")
    assert last_words(file, 1) == "two"
    file.write_text("", "utf-8")
    assert last_words(file, 3) == "exit code 3, without a word"
    assert last_words(file, -9) == "killed by SIGKILL"


# -- the command ----------------------------------------------------------------------------------------------


def parsed(*words):
    parser = argparse.ArgumentParser()
    bench_command.build_bench(parser)
    return parser.parse_intermixed_args(list(words))


def test_the_command_takes_a_suite_or_names():
    assert bench_command.chosen_suite(parsed("smoke", "joint_samples=3")).budget == ("joint_samples", 3)
    direct = bench_command.chosen_suite(
        parsed("--algorithms", "mc", "--envs", "debug/echo-v0", "--seeds", "3")
    )
    assert len(direct.runs()) == 3
    for words, message in (
        ([], "name one suite, of medium, mini, mini-ablations, mini-core, "),
        (["smoke", "mini"], "name one suite"),
        (["smoke", "--envs", "debug/echo-v0"], "not both"),
        (["--envs", "debug/echo-v0"], "go together"),
        (["--envs", "debug/echo-v0", "--algorithms", "mcc"], "unknown algorithm 'mcc'"),
    ):
        with pytest.raises(InputError, match=message):
            bench_command.chosen_suite(parsed(*words))


def test_what_the_command_line_compares_has_a_folder_of_its_own():
    def name(algorithms, envs, *words):
        args = parsed("--algorithms", algorithms, "--envs", envs, *words)
        return bench_command.chosen_suite(args).name

    echo = name("mc", "debug/echo-v0")
    assert re.fullmatch(r"mc-debug-echo-v0-[0-9a-f]{8}", echo)
    others = [
        name("mc", "debug/handshake-v0"),
        name("mc,collm-cc", "debug/echo-v0"),
        name("mc,mc+rollout.samples=2", "debug/echo-v0"),
        *(name("mc", "debug/echo-v0", word) for word in ("num_turns=2", "lr=1e-3", "tokens=9", "points=2")),
    ]
    assert len({echo, *others}) == 1 + len(others)
    assert name("mc", "debug/echo-v0", "--seeds", "9") == echo  # more seeds go on there
    both = "debug/echo-v0,debug/handshake-v0"
    assert name("mc,collm-cc", both) == name("collm-cc,mc", ",".join(reversed(both.split(","))))
    assert len(name(",".join(f"mc+rollout.samples={n}" for n in range(2, 20)), both)) < 70
    assert (
        find_suite("smoke").name == bench_command.chosen_suite(parsed("smoke", "num_turns=2")).name == "smoke"
    )


def test_the_command_dry_runs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "smoke", "--dry-run"]) == 0
    assert "suite smoke: 8 runs, 8 missing, in bench/smoke" in capsys.readouterr().out
    assert cli.main(["bench", "smoke", "--processes", "-1"]) == 2
    assert "--processes must be at least 1, not -1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_counts_and_guesses_and_writes_nothing(bench):
    told = bench_command.plan(bench.make("greedy=true,false"))
    assert "2 runs, 2 missing" in told
    assert "debug/echo-v0 dense-h1 mc      2        2" in told
    assert (
        "6,400 joint samples; 8 evaluations of 64 episodes, the last of 640 both sampled and greedy" in told
    )
    assert not bench.out.exists()
    bench.make(seeds="1").run()
    told = bench_command.plan(bench.make(seeds="3"))
    assert "3 runs, 2 missing" in told
    assert "(known: 2 of 2)" in told
    assert "nothing is left to do" in bench_command.plan(bench.make(seeds="1"))


def test_the_table_shows_the_spread_over_seeds_and_what_failed():
    from collm_agents.records import Point

    def record(seed, score):
        final = None if score is None else Point(1, 1, 1.0, 1, {"score": score, "success": 1.0})
        return Record("debug/echo-v0", "dense-h1", "mc", seed, final=final)

    text = bench_command.table(Results(tuple(record(i, s) for i, s in enumerate((1.0, 2.0, 3.0, None)))))
    # Student's t with two degrees of freedom: 4.3027 standard errors of 1 / √3.
    assert "2.000 ± 2.484" in text
    assert text.splitlines()[2].split()[-2:] == ["3", "1"]
    assert bench_command.spread([2.0]) == "2.000"
    assert bench_command.spread([]) == "–"


def test_time_is_guessed_by_measured_rates_where_there_are_some(bench):
    run = bench.make("joint_samples=1000", "points=2", "tasks=10").suite
    # 8 s to start, 1000 joint samples, 10 * (2 + 10) episodes of one turn.
    assert run.rated_s(run.runs()[0]) == pytest.approx(8 + 1000 * 0.004 + 120 * 0.0008)
    timed = bench.make("wall_s=30", "points=2", "tasks=10").suite
    assert timed.rated_s(timed.runs()[0]) == pytest.approx(8 + 30 + 120 * 0.0008)
    tokens, large = bench.make("tokens=30").suite, with_words(suite_of_words("mc", "writing/tldr-v0"), [])
    assert tokens.rated_s(tokens.runs()[0]) is None
    assert large.rated_s(large.runs()[0]) is None


def test_durations_are_said_as_people_do():
    assert [bench_command.duration(s) for s in (5, 100, 6000)] == ["5 s", "2 min", "1.7 h"]
