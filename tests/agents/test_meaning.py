"""What settings only name, a preset or a file of tasks, may not change between the seeds of one label."""

import dataclasses
import json
import sys

import pytest
from test_benchmark import Bench

from collm_agents.benchmark import Benchmark
from collm_agents.meaning import Meaning, meaning_of
from collm_agents.overrides import load_config
from collm_agents.suite_file import suite_of_words, with_words
from collm_envs.errors import InputError

PRESET = """
[learner]
lr = 1e-3
[run]
threads = 4
[team.agents.a]
trainable = false
"""
CHANGED = PRESET.replace("1e-3", "1e-6")
ROWS, OTHERS = '{"prompt": "a"}\n', '{"prompt": "another"}\n'


class Files:
    """A benchmark whose settings name a preset and a file of tasks."""

    def __init__(self, folder):
        self.bench = Bench(folder)
        self.preset, self.rows = folder / "p.toml", folder / "rows.jsonl"
        self.preset.write_text(PRESET)
        self.rows.write_text(ROWS)

    def make(self, seeds="1", **more):
        words = [f"source={self.rows}", "split=all"]
        suite = with_words(suite_of_words("mc", "writing/tldr-v0"), words, seeds)
        arena = dataclasses.replace(suite.environments[0], presets={"mc": str(self.preset)})
        suite = dataclasses.replace(suite, environments=(arena,))
        trainer = (sys.executable, str(self.bench.control / "trainer.py"))
        return Benchmark(suite, self.bench.out, trainer=trainer, **more)

    def run_json(self):
        (file,) = self.bench.out.glob("runs/*/run.json")
        return file, json.loads(file.read_text())


@pytest.fixture
def files(tmp_path, monkeypatch):
    made = Files(tmp_path)
    monkeypatch.setenv("CONTROL", str(made.bench.control))
    return made


def test_seeds_of_one_label_have_one_preset_and_one_file_of_tasks(files):
    files.make().run()
    files.preset.write_text(PRESET.replace("4", "5"))  # a machine's own
    assert files.make().missing() == []
    files.preset.write_text(CHANGED)
    told = r"started with other settings: learner\.lr=0\.001 then, learner\.lr=1e-06 now\. Take another --out"
    with pytest.raises(InputError, match=told):
        files.make("2").run()
    assert len(files.make("2", redo=True).missing()) == 2
    files.preset.write_text(PRESET)
    files.rows.write_text(OTHERS)
    with pytest.raises(InputError, match=r"rows\.jsonl held other tasks \(SHA-256 \w{8} then, \w{8} now\)"):
        files.make("2").run()
    files.rows.unlink()  # as where another machine merges
    assert files.make().missing() == []


def test_runs_that_never_noted_what_their_settings_came_to_are_accepted(files):
    results = files.make().run()
    file, stored = files.run_json()
    assert stored["resolved"]["learner.lr"] == 1e-3
    assert "run.seed" not in stored["resolved"]
    file.write_text(json.dumps({name: stored[name] for name in stored if name not in ("resolved", "files")}))
    files.preset.write_text(CHANGED)
    files.rows.write_text(OTHERS)
    assert files.make().missing() == []
    files.bench.out = files.bench.out.with_name("elsewhere")
    assert files.make().adopt(results) == 1
    assert files.run_json()[1]["resolved"] is None  # the records do not tell
    assert files.make().missing() == []


def test_what_changes_while_a_benchmark_runs_is_told(files):
    made = files.make("2", processes=1)
    made.said = lambda line: files.preset.write_text(CHANGED)  # once the first is done
    (failed,) = made.run().failed
    assert failed.seed == 1
    assert failed.error.startswith(
        "what its settings name changed while the benchmark ran: learner.lr=1e-06 "
    )
    with pytest.raises(InputError, match=r"learner\.lr=0\.001 then"):
        files.make("2").missing()


def test_what_settings_come_to_leaves_out_defaults_and_what_seeds_and_machines_differ_in():
    apart = ["seed=3", "out=x", "workers=2", "threads=2", "device=cpu", "checkpoint.keep=9"]
    plain = [
        "learner.lr=1e-3",
        "num_turns=2",
        "rewards={echoed=2}",
        "eval.points=10",
        "rollout.branching=[2,1]",
    ]
    scripted = "team.agents.agent_0.script=novice"
    assert meaning_of(load_config("debug/echo-v0", overrides=[*apart, *plain, scripted])) == Meaning(
        {
            "env.id": "debug/echo-v0",
            "env.num_turns": 2,
            "env.rewards.echoed": 2,
            "algorithm.name": "collm-cc",
            "learner.lr": 1e-3,
            "team.agents.agent_0.script": "novice",
            "rollout.branching": [2, 1],
        }
    )


def test_every_file_of_a_source_counts_and_what_is_not_here_does_not(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(name)
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    words = [f"source='train={a},test={b}'", f"eval.source={c}"]
    files = meaning_of(load_config("writing/tldr-v0", overrides=words)).files
    assert sorted(files) == [str(a), str(b)]
    for source in ("builtin", "hub", "hub:some/rows"):
        assert not meaning_of(load_config("writing/tldr-v0", overrides=[f"source={source}"])).files
