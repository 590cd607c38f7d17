"""Attention of single tokens in bfloat16 beside the reference, and where it is used."""

import pytest
import torch
from tiny_models import random_model

from collm_agents.models import attention
from collm_agents.models.attention import NAME, one_token, one_token_at_a_time


def parts(heads, groups, length=9, rows=3, size=8, queries=1, dtype=torch.bfloat16):
    torch.manual_seed(0)
    return (
        torch.randn(rows, heads, queries, size, dtype=dtype),
        torch.randn(rows, groups, length, size, dtype=dtype),
        torch.randn(rows, groups, length, size, dtype=dtype),
    )


def reference(query, key, value, seen, scaling):
    """Row by row and head by head in float64; [B, S, H, D]."""
    share = query.shape[1] // key.shape[1]
    out = torch.zeros(query.shape[0], query.shape[2], query.shape[1], query.shape[3], dtype=torch.float64)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            k, v = key[b, h // share].double(), value[b, h // share].double()
            scores = query[b, h].double() @ k.T * scaling
            if seen is not None:
                scores = scores.masked_fill(~seen[b, 0, :, : len(k)], -torch.inf)
            out[b, :, h] = scores.softmax(-1) @ v
    return out


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("kind", ["none", "boolean", "added"])
@torch.no_grad()
def test_it_is_attention(heads, groups, kind):
    query, key, value = parts(heads, groups)
    seen = torch.ones(3, 1, 1, 12, dtype=torch.bool)  # a mask may be wider than what is there
    seen[0, ..., :4] = seen[1, ..., 2] = False
    mask = {"none": None, "boolean": seen, "added": torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)}[
        kind
    ]
    wanted = reference(query, key, value, None if kind == "none" else seen, 0.3)
    before = [part.clone() for part in (query, key, value)]
    found, weights = one_token(None, query, key, value, mask, scaling=0.3)
    assert weights is None
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=0.01)  # one rounding, to 8 bits
    assert all(torch.equal(one, other) for one, other in zip(before, (query, key, value), strict=True))


@pytest.mark.parametrize(
    ("made", "grad"),
    [({"queries": 2}, False), ({"dtype": torch.float32}, False), ({}, True)],
    ids=["several queries", "float32", "gradients"],
)
def test_all_else_is_left_to_the_library(made, grad, monkeypatch):
    called = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *args, **more: called.append(more))
    with torch.set_grad_enabled(grad):
        one_token(None, *parts(4, 4, **made), None, scaling=0.5, is_causal=False)
    assert called == [{"dropout": 0.0, "scaling": 0.5, "is_causal": False}]


def test_a_model_has_it_only_inside():
    model = random_model("llama")

    def fail():
        with one_token_at_a_time(model):
            assert model.config._attn_implementation == NAME
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        fail()
    assert model.config._attn_implementation == "sdpa"
    model.config._attn_implementation = "eager"
    with one_token_at_a_time(model):
        assert model.config._attn_implementation == "eager"
