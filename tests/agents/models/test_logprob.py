"""Chunked log-probs against log-softmax and gather over the whole vocabulary."""

import pytest
import torch

from collm_agents.losses import masked_log_softmax, token_entropy
from collm_agents.models import logprob
from collm_agents.models.logprob import Head, token_logprobs


def made(size, width, count, *, bias=False, softcap=0.0, banned=(), known=None, temperature=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, width, generator=generator, requires_grad=True)
    weight = torch.randn(size, width, generator=generator, requires_grad=True)
    extra = torch.randn(size, generator=generator, requires_grad=True) if bias else None
    ban = torch.zeros(known or size, dtype=torch.bool)
    ban[list(banned)] = True
    free = [i for i in range(known or size) if i not in banned]
    target = torch.tensor([free[(7 * i) % len(free)] for i in range(count)])
    return hidden, target, Head(weight, extra, softcap, temperature, ban, torch.float32)


def plain(hidden, target, head):
    raw = hidden @ head.weight.T + (0 if head.bias is None else head.bias)
    if head.softcap:
        raw = head.softcap * torch.tanh(raw / head.softcap)
    logp = masked_log_softmax(raw, head.temperature, head.banned)
    return logp.gather(-1, target[:, None]).squeeze(-1), token_entropy(logp)


def both(hidden, target, head, way):
    """Log-probs, entropies and gradients of a sum weighted differently for each."""
    logp, spread = way(hidden, target, head)
    scale = torch.linspace(-1, 2, len(target))
    leaves = [x for x in (hidden, head.weight, head.bias) if x is not None]
    grads = torch.autograd.grad((scale * logp).sum() + (scale.flip(0) * spread).sum(), leaves)
    return logp, spread, grads


def fast(hidden, target, head):
    return token_logprobs(hidden, target, head, entropy=True)


CASES = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 3.0},
    "banned": {"banned": (0, 3, 30)},
    "rows no token has": {"known": 25, "banned": (24,)},
    "all but one": {"banned": tuple(range(1, 31))},
    "everything": {"bias": True, "softcap": 2.0, "banned": (1,), "known": 29, "temperature": 1.3},
}


@pytest.mark.parametrize("keep", [0, 2**24])
@pytest.mark.parametrize("chunk", [1, 100, 2**24])
@pytest.mark.parametrize("case", CASES)
def test_log_probs_entropies_and_gradients_are_those_of_the_whole_vocabulary(case, chunk, keep, monkeypatch):
    for name in ("CHUNK", "CACHED", "ROWS"):
        monkeypatch.setattr(logprob, name, chunk if name != "ROWS" else 1)
    monkeypatch.setattr(logprob, "KEEP", keep)
    hidden, target, head = made(31, 7, 13, **CASES[case])
    one, other = both(hidden, target, head, fast), both(hidden, target, head, plain)
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert torch.allclose(one[1], other[1], atol=1e-5)
    for found, wanted in zip(one[2], other[2], strict=True):
        assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm()) + 1e-6


def test_a_frozen_matrix_gets_no_gradient():
    hidden, target, head = made(31, 7, 5)
    frozen = Head(head.weight.detach(), None, 0.0, 1.0, head.banned, torch.float32)
    token_logprobs(hidden, target, frozen)[0].sum().backward()
    assert hidden.grad is not None
    assert frozen.weight.grad is None


def test_a_tied_matrix_gets_the_gradients_of_both_its_uses():
    torch.manual_seed(0)
    matrix = torch.randn(11, 4, requires_grad=True)
    target, ids = torch.tensor([1, 5, 9]), torch.tensor([0, 2, 5])
    ban = torch.zeros(11, dtype=torch.bool)
    grads = []
    for way in (token_logprobs, plain):
        found = way(torch.tanh(matrix[ids]), target, Head(matrix, None, 0.0, 1.0, ban, torch.float32))
        grads.append(torch.autograd.grad(found[0].sum(), matrix)[0])
    assert torch.allclose(*grads, atol=1e-6)


def test_bfloat16_products_are_near():
    hidden, target, head = made(31, 16, 9)
    rough = Head(head.weight, None, 0.0, head.temperature, head.banned, torch.bfloat16)
    one, other = token_logprobs(hidden, target, rough)[0], token_logprobs(hidden, target, head)[0]
    assert one.dtype == torch.float32
    assert 0 < float((one - other).abs().max()) < 0.2


def test_no_rows_are_no_log_probs():
    hidden, _, head = made(31, 7, 1)
    found, _ = token_logprobs(hidden[:0], torch.zeros(0, dtype=torch.long), head)
    assert found.shape == (0,)
