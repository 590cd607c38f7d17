"""Episodes of a run as a data set: written, loaded back by `datasets`, and read by TRL's own functions."""

import json
import sys

import pytest
from made_run import HOSTILE, made_run, sample

from collm_agents.cli import main
from collm_agents.export import (
    episode_rows,
    episodes_dataset,
    export_episodes,
    pairs_dataset,
    preference_pairs,
)
from collm_envs.errors import InputError

datasets = pytest.importorskip("datasets")

TWO_TURNS = [
    {"red_0": ("what is red?", "blood"), "blue_1": ("what is blue?", "sky")},
    {"red_0": ("again", "rust"), "blue_1": ("again", "sea")},
]


def one_turn(says, other="x"):
    return [{"red_0": ("what is red?", says), "blue_1": ("what is blue?", other)}]


def load(folder, name, cache):
    return datasets.load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def test_a_row_per_turn_and_agent_with_all_that_the_agent_had_seen(tmp_path):
    run = made_run(tmp_path / "run", [sample("t0", TWO_TURNS, at=16, score=0.75)])
    rows = list(episode_rows(run))
    assert [(row["turn"], row["agent"], row["role"]) for row in rows] == [
        (0, "red_0", "red"),
        (0, "blue_1", "blue"),
        (1, "red_0", "red"),
        (1, "blue_1", "blue"),
    ]
    last = rows[3]
    assert last["prompt"] == [
        {"role": "user", "content": "what is blue?"},
        {"role": "assistant", "content": "sky"},
        {"role": "user", "content": "again"},
    ]
    assert last["completion"] == [{"role": "assistant", "content": "sea"}]
    assert rows[1]["prompt"] == last["prompt"][:1]  # a row's messages do not grow behind its back
    assert (last["reward"], last["return"], last["score"], last["parts"]) == (
        -0.25,
        -0.25,
        0.75,
        {"echoed": 0.75},
    )
    assert (rows[0]["return"], rows[0]["tokens"], last["tokens"]) == (-0.5, 5, 3)
    assert {row["env"] for row in rows} == {"debug/echo-v0"}
    assert {(row["algorithm"], row["seed"], row["joint_samples"], row["task_id"]) for row in rows} == {
        ("mc", 3, 16, "t0")
    }


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_is_written_loads_back(tmp_path, form):
    samples = [sample(f"t{i}", one_turn(text), score=i / 8) for i, text in enumerate(HOSTILE)]
    samples += [sample("t0", one_turn("better"), score=0.9), sample("odd", TWO_TURNS)]
    run = made_run(tmp_path / "run", samples)
    done = export_episodes(run, tmp_path / "out", form=form)
    assert (done.rows, done.pairs, done.note) == (2 * len(HOSTILE) + 2 + 4, 1, "")
    found = load(tmp_path / "out", "episodes", tmp_path / "cache")
    assert found.to_list() == list(episode_rows(run))
    assert load(tmp_path / "out", None, tmp_path / "cache").num_rows == done.rows  # the default
    (pair,) = load(tmp_path / "out", "pairs", tmp_path / "cache").to_list()
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("better", HOSTILE[0])
    assert (pair["chosen_return"], pair["rejected_return"]) == (pytest.approx(-0.1), -1.0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md", f"episodes.{form}", f"pairs.{form}",
    ]  # fmt: skip


def test_runs_from_before_turns_were_kept_have_texts_and_no_rewards(tmp_path):
    run = made_run(
        tmp_path / "run", [sample("t0", one_turn("a"), kept=False), sample("t0", one_turn("b"), kept=False)]
    )
    found = episodes_dataset(run)
    assert found["reward"] == [None] * 4
    assert found["final_score"] == [0.5] * 4
    assert "parts" not in found.column_names
    assert found.features["reward"].dtype == "float64"
    with pytest.raises(InputError, match="no pairs"):
        pairs_dataset(run)


def test_pairs_are_replies_of_one_agent_to_one_prompt_in_one_evaluation(tmp_path):
    samples = [
        sample("t0", one_turn("good"), at=8, score=0.9),
        sample("t0", one_turn("bad"), at=8, score=0.2),
        sample("t0", one_turn("worse"), at=8, score=0.1),
        sample("t1", one_turn("other task"), at=8, score=1.0),
        sample("t0", one_turn("later"), at=16, score=1.0),
    ]
    rows = list(episode_rows(made_run(tmp_path / "run", samples)))
    pairs, several = preference_pairs(rows)
    red = [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in pairs if p["agent"] == "red_0"]
    assert red == [("good", "bad"), ("good", "worse")]
    # The partner said the same all along, so nothing is known of it.
    assert not [p for p in pairs if p["agent"] == "blue_1"]
    assert several == 2
    assert {p["joint_samples"] for p in pairs} == {8}
    across, _ = preference_pairs(rows, across=True)
    assert [p["rejected"][0]["content"] for p in across] == ["good", "bad", "worse"]
    assert {p["chosen"][0]["content"] for p in across} == {"later"}
    assert {p["joint_samples"] for p in across} == {None}


def test_a_reply_given_twice_counts_with_its_mean(tmp_path):
    samples = [
        sample("t0", one_turn("lucky", "a"), score=1.0),
        sample("t0", one_turn("lucky", "b"), score=0.0),
        sample("t0", one_turn("steady", "c"), score=0.75),
    ]
    pairs, _ = preference_pairs(episode_rows(made_run(tmp_path / "run", samples)))
    (red,) = [p for p in pairs if p["agent"] == "red_0"]
    assert (red["chosen"][0]["content"], red["chosen_return"], red["rejected_return"]) == (
        "steady",
        -0.25,
        -0.5,
    )


def test_later_turns_are_siblings_only_after_the_same_history(tmp_path):
    def episode(first, second, score):
        turns = [
            {"red_0": ("one", first), "blue_1": ("one", "b")},
            {"red_0": ("two", second), "blue_1": ("two", "b")},
        ]
        return sample("t0", turns, score=score)

    samples = [episode("a", "x", 0.1), episode("a", "y", 0.9), episode("c", "z", 1.0)]
    pairs, _ = preference_pairs(episode_rows(made_run(tmp_path / "run", samples)))
    second = [p for p in pairs if p["turn"] == 1 and p["agent"] == "red_0"]
    assert [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in second] == [("y", "x")]


def test_scripted_teammates_are_marked_and_never_paired(tmp_path):
    run = made_run(
        tmp_path / "run", [sample("t0", one_turn("a"), score=0.1), sample("t0", one_turn("b"), score=0.9)]
    )
    with (run / "config.toml").open("a") as file:
        file.write('[team.agents.red_0]\nscript = "oracle"\n')
    rows = list(episode_rows(run))
    assert [row["script"] for row in rows] == ["oracle", ""] * 2
    assert preference_pairs(rows)[0] == []


def test_that_there_are_no_pairs_is_said(tmp_path, capsys):
    run = made_run(tmp_path / "run", [sample("t0", one_turn("a")), sample("t1", one_turn("b"))])
    assert main(["export", "episodes", str(run), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "4 rows" in out
    assert "no pairs: the run kept one reply to each prompt" in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "There is no `pairs`: no pairs: the run kept one reply" in card
    assert not (tmp_path / "out" / "pairs.parquet").exists()
    equal = made_run(tmp_path / "equal", [sample("t0", one_turn("a")), sample("t0", one_turn("b"))])
    assert main(["export", "episodes", str(equal), "--out", str(tmp_path / "equal-out")]) == 0
    assert (
        "at 2 prompts there are several replies, and those of each earned the same" in capsys.readouterr().out
    )


def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys):
    run = made_run(tmp_path / "run")
    full = made_run(tmp_path / "full", [sample("t0", one_turn("a"))])
    for words, message in (
        (["episodes", str(run), "--out", str(tmp_path / "new")], "kept no episodes"),
        (["episodes", str(tmp_path), "--out", str(tmp_path / "new")], "not a run"),
        (["episodes", str(full), "--out", str(run)], "not an empty folder"),
        (["episodes", str(full), "--out", str(tmp_path / "new"), "--format", "arrow"], "--format"),
        (["episodes", str(full), "--out", str(tmp_path / "new"), "--merge"], "--merge is for agents"),
        (["metrics", str(full), "--out", str(tmp_path / "no" / "a.csv")], "does not exist"),
    ):
        assert main(["export", *words]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_metrics_are_exported_as_a_table(tmp_path):
    run = made_run(tmp_path / "run")
    assert main(["export", "metrics", str(run), "--out", str(tmp_path / "table.csv")]) == 0
    lines = (tmp_path / "table.csv").read_text().splitlines()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(rows) + 1


def test_trl_reads_both_as_conversations(tmp_path):
    trl = pytest.importorskip("trl.data_utils")
    samples = [
        sample("t0", one_turn("a"), score=0.1),
        sample("t0", one_turn("b"), score=0.9),
        sample("t1", TWO_TURNS),
    ]
    run = made_run(tmp_path / "run", samples)
    from tiny_models import byte_tokenizer

    sft, pairs = episodes_dataset(run), pairs_dataset(run)
    assert trl.is_conversational(sft[0])
    assert trl.is_conversational(pairs[0])
    told = trl.apply_chat_template({key: sft[-1][key] for key in ("prompt", "completion")}, byte_tokenizer())
    assert told["prompt"] == (
        "<|im_start|>user\nwhat is blue?<|im_end|>\n<|im_start|>assistant\nsky<|im_end|>\n"
        "<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
    )
    assert told["completion"] == "sea<|im_end|>\n"
    flat = trl.unpair_preference_dataset(pairs.select_columns(["prompt", "chosen", "rejected"]))
    assert flat["label"] == [True, False]


def test_a_missing_library_names_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    run = made_run(tmp_path / "run", [sample("t0", one_turn("a"))])
    assert main(["export", "episodes", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'collm[data]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
