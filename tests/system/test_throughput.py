"""The comparison of costs: what it counts is right, and it runs with and without the peer."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.throughput import steps
from benchmarks.throughput.machine import Operations, Shape, decode_floor, laid_out
from benchmarks.throughput.models import (
    ARCHITECTURES,
    END_ID,
    FIRST_WORD,
    end_probability,
    log_odds,
    make_model,
    model_config,
    word_tokenizer,
)
from benchmarks.throughput.ours import settings
from benchmarks.throughput.run import SWEEPS, Bench, SideFailed, check_equal, sweep_spec
from benchmarks.throughput.shapes import SMOKE, Files, of_the_paper
from benchmarks.throughput.spec import Spec, reward
from collm_agents.collect import Collector
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs import VecEnv, check_env

REPO = Path(__file__).resolve().parents[2]
PEER = REPO / ".venv-peer/bin/python"

pytestmark = pytest.mark.system


def run(*words, tmp_path):
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", "--smoke", "--out", str(out), *words],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("models"), "cpu", "float32")


def spec_of(files, workload, algorithm, lengths="equal"):
    bench = Bench(files, "cpu", "float32", 1, -1, repeats=1, updates=2, peer=None)
    return bench.spec(workload, algorithm, lengths)


def collected(spec):
    """Rollouts of the first update, as `ours` plays it, with the experiment."""
    experiment = Experiment(load_config("benchmarks.throughput.env:Given", overrides=settings(spec)))
    built = experiment.build()
    collector = Collector(VecEnv(experiment.env), built.team, experiment.branching, 0)
    return collector.collect(experiment.env.tasks[: spec.trees], 0), experiment, built


# -- whole runs ----------------------------------------------------------------------------------------------


def test_without_the_peer_our_side_is_measured_alone(tmp_path):
    words = ("--peer", "nowhere", "--algorithms", "mc,collm-cc", "--lengths", "equal", "--only", "turns")
    printed, found = run(*words, tmp_path=tmp_path)
    assert "peer not installed" in printed
    assert found["peer"] == "not installed"
    rows = {row["algorithm"]: row for row in found["rows"]}
    assert all("ratio" not in row and not row["peer"] for row in rows.values())
    # Two updates of one tree of 2 + 4 joint samples; two of two paths of 2: two agents, 8 words each.
    assert [rows[name]["ours"][0]["joint_samples"] for name in ("mc", "collm-cc")] == [12, 8]
    assert [rows[name]["ours"][0]["reply_words"] for name in ("mc", "collm-cc")] == [12 * 16, 8 * 16]
    assert rows["mc"]["ours"][0]["steps"] == {"actor": 4, "critic": 0}
    assert rows["collm-cc"]["ours"][0]["steps"] == {"actor": 4, "critic": 2}
    one = rows["collm-cc"]["ours"][0]
    assert sum(one["phases"].values()) == pytest.approx(one["seconds"], rel=0.05)
    assert all(0 < part["share_of_matmul"] < 1 for part in one["update"].values())
    assert 0 < one["decode"]["share_of_floor"] < 1


@pytest.mark.skipif(not PEER.is_file(), reason="make bench-throughput installs the peer")
def test_both_sides_do_the_same(tmp_path):
    words = ("--only", "turns", "--lengths", "equal")
    _, found = run(*words, tmp_path=tmp_path)
    for row in found["rows"]:
        ours, peer = row["ours"][0], row["peer"][0]
        assert ours["joint_samples"] == peer["joint_samples"]
        assert ours["reply_words"] == peer["reply_words"]
        assert ours["steps"]["actor"] == peer["steps"]["actor"] == 4
        assert row["ratio"]["median"] == pytest.approx(peer["seconds"] / ours["seconds"])
    critics = {row["algorithm"]: (row["ours"][0]["steps"], row["peer"][0]["steps"]) for row in found["rows"]}
    assert [side["critic"] for side in critics["collm-cc"]] == [2, 4]
    assert [side["critic"] for side in critics["collm-dc"]] == [4, 4]


def test_a_sweep_gives_every_point(tmp_path):
    printed, found = run("--sweep", "--axes", "agents", tmp_path=tmp_path)
    assert [(row["axis"], row["value"]) for row in found["rows"]] == [("agents", 1), ("agents", 2)]
    assert [row["rows"] * row["agents"] for row in found["rows"]] == [8, 8]  # replies at once are kept
    assert all(row["update_s"]["median"] > 0 for row in found["rows"])
    assert [row["runs"][0]["steps"] for row in found["rows"]] == [
        {"actor": 2, "critic": 2}, {"actor": 4, "critic": 2}
    ]  # fmt: skip
    assert found["rows"][0]["runs"][0]["update"] is None  # adapters: the formula is of full fine-tuning
    assert "| agents | 2 | 4 |" in printed


def test_steps_are_measured_plain_and_recorded(tmp_path, capsys):
    out = tmp_path / "steps.json"
    assert steps.main(["--device", "cpu", "--smoke", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["model"], row["rows"]) for row in found["rows"]] == [
        ("tiny", 2), ("tiny", 5), ("tiny3", 2), ("tiny3", 5)
    ]  # fmt: skip
    for row in found["rows"]:
        assert 0 < row["floor_s"] < row["plain"]["step_s"]
        assert not row["recorded"]["failed"]
    assert found["gpu"] is None
    assert "| tiny3 | 5 |" in capsys.readouterr().out


def test_workloads_of_the_paper_are_found_by_what_make_gpu_names():
    assert [w.name for w in of_the_paper() if "writing, paper" in w.name] == ["writing, paper"]


def test_the_rows_of_an_update_are_kept_as_k_grows(files):
    bench = Bench(files, "cpu", "float32", 1, -1, repeats=1, updates=2, peer=None)
    specs = [sweep_spec(bench, SMOKE[0], "samples", k) for k in SWEEPS["samples"]]
    assert [(spec.samples, spec.trees) for spec in specs] == [(1, 4), (2, 2), (4, 1), (8, 1), (16, 1)]
    assert len(sweep_spec(bench, SMOKE[0], "agents", 8).models) == 8
    assert [sweep_spec(bench, SMOKE[0], "rows", n).trees for n in (8, 16)] == [4, 8]
    longer = sweep_spec(bench, SMOKE[0], "prompt", 300)
    assert (
        len(json.loads(Path(longer.tasks).read_text(encoding="utf-8").splitlines()[0])["prompts"][0].split())
        == 300
    )


def test_sides_that_did_not_do_the_same_are_an_error(files):
    spec = spec_of(files, SMOKE[0], "mc")
    full = {"joint_samples": 8, "reply_words": 8 * 2 * 8, "steps": {"actor": 4, "critic": 0}}
    check_equal(full, full, spec, "equal")
    for change in ({"joint_samples": 7}, {"reply_words": 127}, {"steps": {"actor": 3, "critic": 0}}):
        with pytest.raises(SideFailed, match="did not do the same"):
            check_equal(full, {**full, **change}, spec, "equal")
    check_equal(full, {**full, "reply_words": 100}, spec, "varied")
    with pytest.raises(SideFailed, match="not 128"):
        check_equal({**full, "reply_words": 127}, {**full, "reply_words": 127}, spec, "equal")


# -- what is played ------------------------------------------------------------------------------------------


def test_the_environment_keeps_its_contract(files):
    check_env("benchmarks.throughput.env:Given", source=spec_of(files, SMOKE[0], "mc").tasks)


def test_rewards_differ_among_siblings_and_no_advantage_is_zero(files):
    rollouts, experiment, built = collected(spec_of(files, SMOKE[0], "mc"))
    assert len(set(rollouts.nodes.reward)) == len(rollouts.nodes) == 4
    estimate = experiment.estimator(rollouts, None)
    advantage, weight = built.learner.row_signals(rollouts, estimate)
    assert (advantage != 0).all()
    assert (weight > 0).all()
    assert 0 <= reward(["a"]) < 1
    assert reward(["a", "b"]) != reward(["b", "a"])


def test_prompts_are_what_the_peer_encodes(files):
    """Token for token, but for the end token of a reply, which the peer's texts lose."""
    from benchmarks.throughput.peer import _continue, _formatter

    spec = spec_of(files, SMOKE[1], "collm-cc")
    rollouts, _, built = collected(spec)
    tokenizer = AutoTokenizer.from_pretrained(spec.models[0])
    item = json.loads(Path(spec.tasks).read_text(encoding="utf-8").splitlines()[0])
    for agent in range(2):
        first = _formatter(agent)(item)
        mine = [i for i in range(len(rollouts.rows)) if rollouts.rows.agent[i] == agent]
        own = [i for i in mine if rollouts.points.tree[rollouts.rows.point[i]] == 0]
        assert tuple(tokenizer(first)["input_ids"]) == rollouts.rows.prompt[own[0]]
        assert len(rollouts.rows.prompt[own[0]]) == 12 + 1
        said = tokenizer.decode(rollouts.rows.reply[own[0]], skip_special_tokens=True)
        (later,) = _continue(spec.feedback)(
            prompt_history_per_agent=[[first]], response_history_per_agent=[[said]]
        )
        assert tuple(tokenizer(later)["input_ids"]) == rollouts.rows.prompt[own[1]]
    assert built.team.agents == ("agent_0", "agent_1")


def test_a_spec_survives_its_way_to_the_other_process(files):
    spec = spec_of(files, SMOKE[1], "mc")
    assert Spec.load(spec.dump()) == spec
    assert (spec.branching, spec.tree_size, spec.trees) == ((2, 2), 6, 1)
    assert spec_of(files, SMOKE[1], "collm-dc").branching == (1, 1)


# -- models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [2, 8, 64, 256])
def test_varied_lengths_have_the_mean_of_uniform_ones(longest):
    p = end_probability(longest)
    chances = [p * (1 - p) ** (n - 1) for n in range(1, longest)] + [(1 - p) ** (longest - 1)]
    mean = sum(n * chance for n, chance in enumerate(chances, start=1))
    assert mean == pytest.approx((longest + 1) / 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_end_token_has_its_probability_after_anything(tmp_path, dtype):
    folder = make_model("tiny", tmp_path, end=0.2, dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    assert math.isclose(log_odds(model), math.log(0.2 / 0.8), abs_tol=0.15 if dtype == "bfloat16" else 1e-3)
    ids = torch.tensor([[FIRST_WORD, 7, FIRST_WORD + 1, 0, END_ID, 200]])  # bytes, padding and the end, too
    chance = model(input_ids=ids).logits.float().softmax(-1)[0]
    assert torch.allclose(chance[:, END_ID], torch.tensor(0.2), atol=0.03)
    others = [i for i in range(FIRST_WORD) if i != END_ID]
    assert float(chance[:, others].sum(-1).max()) < 1e-6


def test_without_ends_all_replies_are_full(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(make_model("tiny3", tmp_path, end=0.0)).eval()
    chance = model(input_ids=torch.arange(512)[None]).logits.double().softmax(-1)[0]
    assert float(chance[:, :FIRST_WORD].sum(-1).max()) < 1e-6


def test_a_word_is_a_token():
    tokenizer = word_tokenizer(4096)
    assert len(tokenizer) == 4096
    ids = list(range(FIRST_WORD, 4096))
    text = tokenizer.decode(ids)
    assert text.startswith(" a b c")
    assert tokenizer(text)["input_ids"] == ids
    assert len(text.split()) == len(ids)


def test_architectures_have_the_sizes_they_are_named_for():
    wanted = {
        "1m": 1.1e6,
        "4m": 4.2e6,
        "25m": 26.2e6,
        "qwen3-1.7b": 1.72e9,
        "qwen2.5-3b": 3.09e9,
        "qwen3-4b": 4.02e9,
    }
    assert {*wanted, "tiny", "tiny3"} == set(ARCHITECTURES)
    for name, size in wanted.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config(name))
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(size, rel=0.02)
    names = {name for workload in of_the_paper() for name in (*workload.models, workload.critic)}
    assert names <= set(ARCHITECTURES)


# -- what is counted -----------------------------------------------------------------------------------------


def test_tokens_and_pairs_by_hand():
    ids = torch.zeros(2, 4, dtype=torch.long)
    assert laid_out(ids, None, None) == (8, 20)  # two rows of 1 + 2 + 3 + 4
    right = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert laid_out(ids, right, None) == (6, 10 + 3)
    depth = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 0]])  # the second row ends with padding
    assert laid_out(ids, None, depth) == (6, 10 + 3)
    tree = torch.eye(4, dtype=torch.bool).expand(2, 1, 4, 4).clone()
    tree[0, 0, 1:, 0] = True  # a root and three leaves: 1 + 2 + 2 + 2
    tree[1, 0, 1, 0] = True
    depth = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]])
    assert laid_out(ids, tree, depth) == (6, 7 + 3)
    additive = torch.zeros(tree.shape).masked_fill(~tree, torch.finfo(torch.float32).min)
    assert laid_out(ids, {"full_attention": additive, "sliding_attention": tree}, depth) == (6, 7 + 3)


def small():
    config = AutoConfig.for_model(
        "qwen2", vocab_size=50, hidden_size=8, intermediate_size=12, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


# One layer of `small`: q and o 8 x 8, k and v 8 x 4, three of 8 x 12.
LINEAR = 3 * (2 * 64 + 2 * 32 + 3 * 96)


def test_operations_by_hand():
    model = small()
    work = Operations({"actor": ([model], False), "critic": ([small()], True)})
    ids = torch.zeros(1, 5, dtype=torch.long)
    model(input_ids=ids, position_ids=torch.arange(5)[None], use_cache=False)
    attention = 3 * 2 * 4  # layers, heads, width of a head
    assert work.counts == {"actor": 6 * LINEAR * 5 + 12 * attention * 15, "critic": 0}
    with torch.no_grad():
        model(input_ids=ids)
    assert work.tokens["actor"] == 5  # drawing is no update


def test_floors_by_hand():
    shape = Shape(small())
    assert (shape.linear, shape.head, shape.attention, shape.kv) == (LINEAR, 400, 24, 2 * 3 * 4)
    assert shape.bytes == 4 * (LINEAR + 400)
    floor = decode_floor(shape, [3, 3], [1, 2], 3, {"bandwidth": 1.0, "matmul": 1.0})
    assert floor["bandwidth"] == 2 * shape.bytes + 4 * 24 * 4  # the second row's second token sees four
    assert floor["matmul"] == 2 * LINEAR * (3 + 1) + 2 * 400 * 3 + 4 * 24 * 4
