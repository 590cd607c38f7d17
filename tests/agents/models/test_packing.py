"""Trees of sequences: what they hold, and that models compute on them what they compute row by row."""

import numpy as np
import pytest
import torch
from builders import backbone, critic, played, stir, team
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_agents.advantages import Queries
from collm_agents.models.backbone import Backbone
from collm_agents.models.packing import JOINED, pack

KINDS = ("qwen3", "qwen2", "llama", "gemma2", "gemma3", "mistral")


def ancestors(batch, tree, place):
    """Places that a token attends to, in order."""
    if batch.attends is None:
        return list(range(place + 1))
    return np.flatnonzero(batch.attends[tree, place]).tolist()


token_lists = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(token_lists, st.integers(1, 60), st.integers(1, 40))
def test_every_sequence_is_a_path_of_its_tree_and_sees_itself_alone(sequences, budget, width):
    seen = []
    for batch in pack(sequences, budget, width=width):
        seen += batch.rows.tolist()
        size = batch.ids.shape[0] * batch.ids.shape[1]
        longest = max(map(len, sequences))
        assert size <= budget or (batch.ids.shape[0] == 1 and size <= JOINED * longest)
        for row, tree, path in zip(batch.rows, batch.tree, batch.path, strict=True):
            assert tuple(batch.ids[tree, path]) == sequences[row]
            assert batch.depth[tree, path].tolist() == list(range(len(path)))
            for i, place in enumerate(path):
                assert ancestors(batch, tree, place) == path[: i + 1].tolist()
    assert sorted(seen) == list(range(len(sequences)))


def test_siblings_and_later_turns_hang_on_what_they_share():
    first = (1, 2, 3, 4)
    sequences = [(*first, 5, 6), (*first, 7), (*first, 5, 6, 8, 9, 1), (9, 9, 9, 9)]
    (batch,) = pack(sequences, 100, width=32)
    assert batch.ids.shape == (
        2,
        10,
    )  # 4 + 2 + 3 + 1 tokens in place of 22, and the stranger in a row of its own
    assert batch.depth[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4]


def test_strangers_with_a_common_start_are_kept_apart():
    sequences = [tuple(range(60)), (0, 1, *range(100, 158))]
    (batch,) = pack(sequences, 200, width=32)  # 2 shared tokens save less than 58 times 60 strangers cost
    assert batch.ids.shape == (2, 60)
    assert batch.attends is None


def test_a_long_prompt_is_shared_whatever_the_models_width():
    prompt = tuple(range(4000))
    sequences = [(*prompt, 9000 + k, *range(500)) for k in range(4)]
    (batch,) = pack(sequences, 10_000, width=64)
    assert batch.ids.shape == (1, 4000 + 4 * 501)


def test_equal_sequences_are_computed_once():
    (batch,) = pack([(1, 2, 3)] * 5, 100, width=32)
    assert batch.ids.shape == (1, 3)
    assert len(batch.rows) == 5


def ragged(rng, size=200):
    """Prompts and replies of a tree of two turns with siblings, of two tasks."""
    prompts, replies = [], []
    for task in range(2):
        first = tuple(rng.integers(0, size, size=20 + 9 * task).tolist())
        for _ in range(3):
            reply = tuple(rng.integers(0, size, size=rng.integers(1, 9)).tolist())
            prompts.append(first)
            replies.append(reply)
            later = (*first, *reply, *rng.integers(0, size, size=5).tolist())
            for _ in range(2):
                prompts.append(later)
                replies.append(tuple(rng.integers(0, size, size=rng.integers(1, 14)).tolist()))
    return prompts, replies


def gradient(players, prompts, replies, score):
    """Gradient of a weighted sum of log-probs and entropies under one way of computing them."""
    weight = np.random.default_rng(5).normal(size=len(prompts))
    model = players.backbones["a_0"]
    for parameter in model.parameters("a_0").values():
        parameter.grad = None
    found = {}
    for rows, logprob, spread in score(players, prompts, replies):
        scale = torch.as_tensor(weight[rows], dtype=torch.float32)
        (scale[:, None] * (logprob + 0.1 * spread)).sum().backward()
        for i, row in enumerate(rows):
            found[int(row)] = logprob[i].detach()[: len(replies[row])]
    grads = torch.cat([p.grad.flatten() for p in model.parameters("a_0").values() if p.grad is not None])
    return found, grads


def test_siblings_of_a_prompt_beyond_the_budget_still_share_it():
    prompt = tuple(range(100))
    rows = [(*prompt, *range(200 + 10 * i, 210 + 10 * i)) for i in range(4)]
    assert [batch.ids.size for batch in pack(rows, 80, width=64)] == [
        130,
        110,
    ]  # 140 is more than 1.25 times 110
    assert [batch.ids.size for batch in pack(rows[:2], 80, width=64)] == [120]


def packed(budget):
    def score(players, prompts, replies):
        for one in players.score("a_0", prompts, replies, budget, entropy=True):
            yield one.rows, one.logprob, one.entropy

    return score


def row_by_row(players, prompts, replies):
    for row in range(len(prompts)):
        one = players._scored("a_0", "a_0", prompts[row : row + 1], replies[row : row + 1], entropy=True)
        yield np.array([row]), one.logprob, one.entropy


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_trees_buckets_and_single_rows_give_equal_log_probs_and_gradients(kind, tuning, monkeypatch):
    players = team(("a_0",), kind, tuning)
    assert players.backbones["a_0"].packs
    prompts, replies = ragged(np.random.default_rng(1))
    slow, slow_grad = gradient(players, prompts, replies, row_by_row)
    for budget in (1, 150, 10_000):
        fast, fast_grad = gradient(players, prompts, replies, packed(budget))
        assert max(float((fast[r] - slow[r]).abs().max()) for r in slow) < 1e-5
        assert float((fast_grad - slow_grad).norm() / slow_grad.norm()) < 1e-5
    monkeypatch.setattr(Backbone, "packs", False)  # the way of models that take no such mask
    bucket, bucket_grad = gradient(players, prompts, replies, packed(400))
    assert max(float((bucket[r] - slow[r]).abs().max()) for r in slow) < 1e-5
    assert float((bucket_grad - slow_grad).norm() / slow_grad.norm()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("view", "owners"), [("joint", "one"), ("local", "each")])
def test_values_of_histories_and_their_gradients_are_those_of_single_ones(kind, view, owners):
    agents = ("agent_0", "agent_1")
    rollouts = played(team(agents, kind), (2, 2, 1))
    values = critic(view, owners, agents, kind)
    encoded = values.encode(rollouts, Queries(np.arange(len(rollouts.points))))
    for member, sequences in encoded.items():
        grads = []
        for ways in (values.score(member, sequences, 10_000), alone(values, member, sequences)):
            for parameter in values.parameters(member).values():
                parameter.grad = None
            found = torch.zeros(len(sequences))
            for rows, value in ways:
                (value * torch.as_tensor(rows + 1.0, dtype=torch.float32)).sum().backward()
                found[rows] = value.detach()
            flat = [p.grad.flatten() for p in values.parameters(member).values() if p.grad is not None]
            grads.append((found, torch.cat(flat)))
        assert float((grads[0][0] - grads[1][0]).abs().max()) < 1e-5
        assert float((grads[0][1] - grads[1][1]).norm() / grads[1][1].norm()) < 1e-5


def alone(values, member, sequences):
    for i, sequence in enumerate(sequences):
        yield np.array([i]), values.forward(member, [sequence])


def test_a_model_that_does_something_else_to_its_logits_is_not_packed(monkeypatch):
    model = stir(backbone("qwen3"))
    plain = model.reply_logits
    monkeypatch.setattr(model, "reply_logits", lambda *words: plain(*words) * 1.5)
    assert not model.packs


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_recomputed_activations_give_the_same_gradients(tuning):
    prompts, replies = ragged(np.random.default_rng(2))
    players = team(("a_0",), "qwen3", tuning)
    kept, kept_grad = gradient(players, prompts, replies, packed(10_000))
    calls = []
    layer = players.backbones["a_0"].module("a_0").get_decoder().layers[0]
    layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    players.backbones["a_0"].checkpointing = True
    again, again_grad = gradient(players, prompts, replies, packed(10_000))
    assert len(calls) == 2  # once forward, once again on the way back
    assert all(torch.equal(again[r], kept[r]) for r in kept)
    assert float((again_grad - kept_grad).norm() / kept_grad.norm()) < 1e-6
    assert not any(module.training for module in players.backbones["a_0"].module("a_0").modules())


def test_bfloat16_is_near_float32():
    prompts, replies = ragged(np.random.default_rng(3))
    exact, exact_grad = gradient(team(("a_0",), "qwen3", "full"), prompts, replies, packed(10_000))
    rough_team = team(("a_0",), "qwen3", "full", dtype="bfloat16")
    assert rough_team.backbones["a_0"].packs
    rough, rough_grad = gradient(rough_team, prompts, replies, packed(10_000))
    assert max(float((rough[r] - exact[r]).abs().max()) for r in exact) < 0.1
    assert float((rough_grad - exact_grad).norm() / exact_grad.norm()) < 0.05
