"""Decode steps of static shape give what the plain loop gives; here they are run, on an accelerator replayed."""

import dataclasses
import logging

import builders
import numpy as np
import pytest
import torch
from test_decode import (
    LIMIT,
    MEMBERS,
    RAGGED,
    adapted,
    drawn,
    forced_gap,
    gap,
    grown,
    of_member,
    plain,
    rows,
    setting,
)
from tiny_models import ARCHITECTURES, random_model

from collm_agents.models import decode as module
from collm_agents.models.graphs import Graphs, Plainly, column_bucket, recording, row_bucket
from collm_agents.models.grouped import GroupedAdapters
from collm_agents.models.kvcache import PrefixStore
from collm_agents.team import Request
from collm_envs.errors import SettingError


class Counting(Plainly):
    """Tells recordings from runs."""

    def __init__(self):
        self.recorded = self.replayed = self.forgotten = 0

    def record(self, run):
        self.recorded += 1

        def replay():
            self.replayed += 1
            run()

        return replay

    def forget(self):
        self.forgotten += 1


class Failing(Plainly):
    def record(self, run):
        raise RuntimeError("no capture today")


def graphs(recorder=None, **kwargs):
    return Graphs(recorder or Counting(), **{"columns": 8, **kwargs})


def by_steps(held, model, asked, how, adapters=None):
    """Replies drawn with static steps."""
    with held.opened(model, adapters) as (stay, steps):
        return drawn(model, asked, dataclasses.replace(how, steps=steps, adapters=stay))


def test_buckets():
    assert [row_bucket(n) for n in (1, 2, 3, 4, 5, 64, 65, 512)] == [1, 2, 4, 4, 8, 64, 128, 512]
    assert [column_bucket(n) for n in (1, 128, 129, 256)] == [128, 128, 256, 256]


@pytest.mark.parametrize("columns", [8, 128])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_static_steps_give_the_plain_loops_replies(name, columns):
    # Ragged prompts on both sides of a window, siblings, greedy rows, compaction, several buckets of both kinds.
    # Seed 0 draws a number within 1e-6 of the border between two tokens, which rounding crosses on some processors.
    model, asked, held = random_model(name), rows(RAGGED, seed=1, greedy={4, 7}), graphs(columns=columns)
    how = setting(temperature=0.9)
    replies = by_steps(held, model, asked, how)
    assert gap(replies, drawn(model, asked, how)) <= 1e-5
    assert forced_gap(plain(model), asked, replies, 0.9) <= 1e-5
    assert held.recorder.replayed > 0
    assert held.recorder.recorded > 1 or columns == 128


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_masks_of_eager_attention(name):
    model, asked = random_model(name, attention="eager"), rows(RAGGED)
    assert gap(by_steps(graphs(), model, asked, setting()), drawn(model, asked, setting())) <= 1e-5


@pytest.mark.parametrize("lengths", [[8, 8, 8], [3, 3], [5]], ids=str)
@pytest.mark.parametrize("name", ["qwen2-windowed", "mistral", "qwen3"])
def test_prompts_of_equal_lengths(name, lengths):
    model, asked = random_model(name), rows(lengths)
    assert gap(by_steps(graphs(), model, asked, setting()), drawn(model, asked, setting())) <= 1e-5


@pytest.mark.parametrize("poll", [1, 5])
def test_rows_leave_in_place_whether_looked_at_often_or_rarely(monkeypatch, poll):
    model, asked = random_model("qwen3"), rows(RAGGED, siblings=5)
    often = drawn(model, asked, setting())
    monkeypatch.setattr(module, "poll_every", lambda device: poll)
    held, sizes, run = graphs(), [], module.Steps.__call__
    monkeypatch.setattr(
        module.Steps, "__call__", lambda self, tokens, at: sizes.append(len(tokens)) or run(self, tokens, at)
    )
    assert gap(by_steps(held, model, asked, setting()), often) <= 1e-5
    assert len(set(sizes)) > 1


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_later_turns_go_on_from_what_was_computed(name):
    model, one, other, held = random_model(name), PrefixStore(10**7), PrefixStore(10**7), graphs()
    asked = rows(RAGGED, siblings=2, greedy={3})
    for turn in range(3):
        replies = by_steps(held, model, asked, setting(store=one))
        assert gap(replies, drawn(model, asked, setting(store=other))) <= 1e-5
        assert one.bytes == other.bytes > 0
        asked = grown(asked, replies, turn, siblings=2 if turn == 0 else 1)


@pytest.mark.parametrize("members", [MEMBERS, ("b",)], ids=str)
def test_grouped_adapters(members):
    model, held = adapted("qwen2", MEMBERS), graphs()
    asked = rows([9, 1, 4, 9, 17, 6], siblings=2, members=members)
    base = model.get_base_model()
    for turn in range(2):
        grouped = GroupedAdapters(base, members)
        with grouped.in_place():
            replies = by_steps(held, base, asked, setting(), grouped)
            assert gap(replies, drawn(base, asked, setting(adapters=grouped))) <= 1e-5
        assert forced_gap(of_member(model), asked, replies) <= 1e-5
        asked = grown(asked, replies, turn)
    assert not any("forward" in vars(m) for m in model.modules())


# -- what is recorded is of no update -----------------------------------------------------------------------------


@torch.no_grad()
def change(parameters, seed=1, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.add_(size * torch.randn(parameter.shape, generator=generator))


class Frozen(Counting):
    """What a graph does: addresses are read off once, so steps that are made of new tensors show."""

    def record(self, run):
        steps = run.func.__self__

        def addresses():
            held = [
                *steps.casts.copies,
                *(t for pair in steps._pairs for t in pair),
                *steps.model.parameters(),
            ]
            held += [
                *(steps.adapters.tensors if steps.adapters else []),
                steps._start,
                steps._ids,
                steps._column,
            ]
            return [t.data_ptr() for t in held]

        then, again = addresses(), super().record(run)

        def replay():
            assert addresses() == then
            again()

        return replay


def test_a_step_recorded_before_an_update_sees_the_next_ones_adapters():
    model, held = adapted("qwen3", ("a", "b")), graphs(Frozen())
    asked, base = rows(RAGGED, members=("a", "b")), model.get_base_model()
    for number in range(3):
        grouped = GroupedAdapters(base, ("a", "b"))
        with grouped.in_place():
            replies = by_steps(held, base, asked, setting(), grouped)
        assert forced_gap(of_member(model), asked, replies) <= 1e-5
        held.release()
        change((p for name, p in model.named_parameters() if "lora_" in name), seed=number)
    assert len(held._steps) == 1


def test_a_step_recorded_before_an_update_sees_the_next_ones_weights():
    model, held, asked = random_model("qwen3"), graphs(Frozen()), rows(RAGGED)
    for _ in range(2):
        assert forced_gap(plain(model), asked, by_steps(held, model, asked, setting())) <= 1e-5
        held.release()
        change(model.parameters())


def test_weights_that_autocast_casts_are_copied_once_and_refreshed():
    model, held, asked = random_model("qwen3"), graphs(Frozen()), rows(RAGGED)
    parameters, ids = list(model.parameters()), torch.tensor([[9, 10, 11, 12]])
    for number in range(2):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            by_steps(held, model, asked, setting())
            with held.opened(model, None):
                inside = plain(model)("m", ids)
            assert torch.equal(inside, plain(model)("m", ids))  # the same casts: nothing is rounded twice
        assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
        held.release()
        change(model.parameters(), seed=number)
    (steps,) = held._steps.values()
    assert {copy.dtype for copy in steps.casts.copies} == {torch.bfloat16}
    assert len(steps.casts.copies) == sum(isinstance(m, torch.nn.Linear) for m in model.modules())


def test_casts_of_several_models_take_turns_in_one_block():
    models, held, asked = [random_model("qwen3", seed=i) for i in range(2)], graphs(), rows(RAGGED)
    ids = torch.tensor([[9, 10, 11, 12]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for model in models * 2:
            by_steps(held, model, asked, setting())
            with held.opened(model, None):
                inside = plain(model)("m", ids)
            assert torch.equal(inside, plain(model)("m", ids))
        larger = random_model("llama", vocabulary=90)
        by_steps(
            held, larger, asked, dataclasses.replace(setting(), banned=torch.zeros(90, dtype=torch.bool))
        )
        by_steps(held, models[0], asked, setting())
    one, other, third = (s.casts.copies for s in held._steps.values())
    assert one[0].data_ptr() == third[0].data_ptr()
    assert other == []  # given up for the larger block, and taken again when it is its turn


# -- memory -------------------------------------------------------------------------------------------------------


def test_models_and_members_share_one_block():
    held, asked = graphs(), rows(RAGGED)
    one, other = random_model("qwen3", seed=1), random_model("llama", seed=2)
    for _ in range(2):
        for model in (one, other):
            assert gap(by_steps(held, model, asked, setting()), drawn(model, asked, setting())) <= 1e-5
    blocks = {t.untyped_storage().data_ptr() for s in held._steps.values() for pair in s._pairs for t in pair}
    assert len(blocks) == 1


def test_a_longer_batch_makes_what_was_recorded_void_and_a_shorter_one_does_not():
    model, held = random_model("qwen3"), graphs(Frozen())
    for lengths, siblings in (([9], 4), ([30, 5], 4), ([3], 2), ([30, 5], 4), ([60], 8)):
        asked = rows(lengths, siblings=siblings)
        assert gap(by_steps(held, model, asked, setting()), drawn(model, asked, setting())) <= 1e-5
    (steps,) = held._steps.values()
    assert (steps.rows, steps.columns) == (8, column_bucket(60 + LIMIT, 8))


def test_little_is_kept_and_much_is_given_back():
    model, asked, held = random_model("qwen3"), rows(RAGGED), graphs()
    by_steps(held, model, asked, setting())
    config = model.config
    size = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert held.bytes >= 16 * column_bucket(max(RAGGED) + LIMIT, 8) * size  # 15 rows in a bucket of 16
    held.release()
    assert held.bytes > 0
    recorded = held.recorder.recorded
    by_steps(held, model, asked, setting())
    assert held.recorder.recorded == recorded + 1  # buckets of one step, now seen twice
    held.keep = held.bytes - 1
    held.release()
    assert (held.bytes, held._steps, held._blocks, held.recorder.forgotten) == (0, {}, {}, 1)
    assert gap(by_steps(held, model, asked, setting()), drawn(model, asked, setting())) <= 1e-5


# -- failures -----------------------------------------------------------------------------------------------------


def test_a_step_that_cannot_be_recorded_is_said_once_and_run_plainly(caplog):
    model, asked, held = random_model("qwen3"), rows(RAGGED), graphs(Failing())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert gap(by_steps(held, model, asked, setting()), drawn(model, asked, setting())) <= 1e-5
            held.release()
    assert [r.message for r in caplog.records] == [
        "decode steps run without CUDA graphs, which is slower: RuntimeError: no capture today"
    ]
    assert held.bytes == 0
    with held.opened(model, None) as (_, steps):
        assert steps is None


def test_where_graphs_are_insisted_on_failing_is_an_error():
    with pytest.raises(RuntimeError, match="no capture today"):
        by_steps(graphs(Failing(), insist=True), random_model("qwen3"), rows(RAGGED), setting())


def test_there_are_none_on_a_cpu():
    assert recording("auto", ["cpu"]) is None
    assert recording("false", ["cuda:0"]) is None
    assert recording("true", ["meta"]) is None
    assert recording("auto", []) is None
    with pytest.raises(SettingError, match=r"team\.cuda_graphs=true"):
        recording("true", ["cpu", "cpu"])
    found = recording("true", ["cuda:0", "cuda:0"])
    assert found.insist
    assert not recording("auto", ["cuda"]).insist


# -- teams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", ["qwen3", ["qwen3", "llama"]], ids=str)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_teams_rollouts_are_the_same_and_its_memory_is_free_before_updates(models, tuning):
    plainly, team = (builders.team(("agent_0", "agent_1"), models, tuning, num_turns=2) for _ in range(2))
    team.graphs = graphs(keep=0)
    expected, found = (builders.played(t, (2, 2)) for t in (plainly, team))
    assert found.rows.reply == expected.rows.reply
    for one, other in zip(found.rows.logprob, expected.rows.logprob, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert team.graphs.recorder.replayed > 0
    assert (team.graphs.bytes, team.store.bytes) == (0, 0)


def test_outside_of_collections_nothing_is_held_either():
    team = builders.team()
    team.graphs = graphs(keep=0)
    team.act([Request("a_0", (40, 41, 42), None)])
    assert team.graphs.bytes == 0
