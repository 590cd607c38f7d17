from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_agents.config import SamplingConfig
from collm_agents.models.sampler import draw, inverse_cdf, truncate

JUST_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def log(*probs):
    return torch.tensor([probs]).log()


@pytest.mark.parametrize(
    ("u", "token"),
    [(0.0, 1), (0.2499, 1), (0.2501, 3), (0.7499, 3), (0.7501, 4), (JUST_BELOW_ONE, 4)],
)
def test_inverse_cdf_gives_the_token_of_a_quantile_and_never_one_without_mass(u, token):
    logp = log(0.0, 0.25, 0.0, 0.5, 0.25, 0.0)
    assert inverse_cdf(logp, torch.tensor([u], dtype=torch.float64)).item() == token


@given(st.lists(st.floats(-30, 5), min_size=2, max_size=30), st.floats(0, 1, exclude_max=True), st.data())
@settings(max_examples=80, deadline=None)
def test_inverse_cdf_never_draws_a_banned_token(logits, u, data):
    x = torch.tensor([logits])
    banned = data.draw(st.sets(st.integers(0, len(logits) - 1), max_size=len(logits) - 1))
    x[0, list(banned)] = float("-inf")
    token = inverse_cdf(torch.log_softmax(x, -1), torch.tensor([u], dtype=torch.float64)).item()
    assert token not in banned
    assert 0 <= token < len(logits)


def test_evenly_spaced_quantiles_draw_each_token_as_often_as_its_probability_says():
    probs = (0.1, 0.6, 0.05, 0.25)
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = inverse_cdf(log(*probs).expand(2000, 4), u)
    assert torch.bincount(drawn).tolist() == pytest.approx([2000 * p for p in probs], abs=1)


def test_top_k_keeps_the_likeliest_and_renormalises():
    found = truncate(log(0.1, 0.4, 0.2, 0.3), 1.0, 2)
    assert found.exp().tolist() == [pytest.approx([0.0, 4 / 7, 0.0, 3 / 7])]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.9, {1, 2, 3}), (0.65, {1, 3}), (0.4, {1}), (0.39, {1}), (0.001, {1}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_least_set_with_that_mass(top_p, kept):
    found = truncate(log(0.1, 0.4, 0.2, 0.3), top_p, 0).exp()[0]
    assert set(found.nonzero().flatten().tolist()) == kept
    assert float(found.sum()) == pytest.approx(1.0)


def test_top_p_reads_the_mass_left_by_top_k():
    found = truncate(log(0.1, 0.4, 0.2, 0.3), 0.5, 2).exp()[0]  # of 4/7 and 3/7, the first alone has half
    assert set(found.nonzero().flatten().tolist()) == {1}


def test_no_truncation_is_the_identity():
    logp = log(0.1, 0.4, 0.2, 0.3)
    assert torch.equal(truncate(logp, 1.0, 0), logp)
    assert torch.equal(truncate(logp, 1.0, 9), logp)


class Chain(torch.nn.Module):
    """A "language model" whose next-token probabilities depend on the last token alone."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(table).log())
        self.calls = []

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        self.calls.append((tuple(input_ids.shape), attention_mask.clone(), position_ids.clone()))
        return SimpleNamespace(logits=self.table[input_ids[:, -1:]], past_key_values="cache")


STOP = 3
# From 0: 1 or 2; from 1: 2 or the end; from 2: only itself. Token 4 is likely everywhere, and banned.
TABLE = [
    [0.0, 0.3, 0.2, 0.0, 0.5],
    [0.0, 0.0, 0.1, 0.4, 0.5],
    [0.0, 0.0, 0.5, 0.0, 0.5],
    [0.5, 0.0, 0.0, 0.0, 0.5],
    [0.2, 0.2, 0.2, 0.2, 0.2],
]
BANNED = torch.tensor([False, False, False, False, True])


def play(prompts, uniforms, **kwargs):
    model = Chain(TABLE)
    sampling = SamplingConfig(max_new_tokens=np.shape(uniforms)[1], **kwargs.pop("sampling", {}))
    return model, draw(
        model, prompts, np.array(uniforms), sampling, stop_ids={STOP}, banned=BANNED, pad_id=0, **kwargs
    )


def test_replies_end_at_the_end_token_or_are_flagged_as_cut():
    _, (ended, cut) = play([[0], [0]], [[0.1, 0.5, 0.9, 0.9], [0.9, 0.5, 0.5, 0.5]])
    assert (ended.ids, ended.cut) == ((1, STOP), False)
    assert (cut.ids, cut.cut) == ((2, 2, 2, 2), True)
    assert ended.logprob.tolist() == pytest.approx([np.log(0.6), np.log(0.8)])
    assert cut.logprob.tolist() == pytest.approx([np.log(0.4), 0, 0, 0], abs=1e-6)


def test_decoding_stops_once_every_reply_has_ended():
    model, _ = play([[0], [0]], [[0.1] + [0.5] * 9] * 2)
    assert len(model.calls) == 2


def test_a_reply_that_ends_on_the_last_token_is_not_cut():
    _, (reply,) = play([[0]], [[0.1, 0.5]])
    assert (reply.ids, reply.cut) == ((1, STOP), False)


def test_greedy_takes_the_likeliest_token_that_is_not_banned():
    _, (reply,) = play([[0]], [[0.99, 0.01]], greedy=True)
    assert reply.ids == (1, STOP)


def test_temperature_sharpens():
    # 0.3 and 0.2 at temperature 1/2 are as 9 to 4: the quantile 0.65 is still token 1, at temperature 1 token 2.
    assert play([[0]], [[0.65]])[1][0].ids == (2,)
    _, (reply,) = play([[0]], [[0.65]], sampling={"temperature": 0.5})
    assert reply.ids == (1,)
    assert reply.logprob[0] == pytest.approx(np.log(9 / 13), abs=1e-5)


def test_truncation_applies_to_draws_and_their_log_probs():
    _, (reply,) = play([[0]], [[0.99]], sampling={"top_k": 1})
    assert reply.ids == (1,)
    assert reply.logprob[0] == pytest.approx(0.0, abs=1e-6)


def test_padding_is_on_the_left_masked_and_without_positions():
    model, _ = play([[2, 1, 0], [0]], [[0.9, 0.5]] * 2)
    (first_shape, first_mask, first_positions), (second_shape, second_mask, second_positions) = model.calls
    assert first_shape == (2, 3)
    assert first_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert first_positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert second_shape == (2, 1)
    assert second_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert second_positions.tolist() == [[3], [1]]
