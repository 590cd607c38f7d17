import math

import pytest
import torch

from collm_agents.losses import (
    clipped_gain,
    kl_estimate,
    masked_log_softmax,
    policy_loss,
    ratios,
    token_entropy,
    value_loss,
)

# Two replies: three tokens and two (padded). New minus old log-probs: (0.1, -0.3, 0.4) and (-0.5, 0.2).
OLD = torch.tensor([[-1.0, -2.0, -0.5], [-0.7, -1.2, 0.0]])
CHANGE = torch.tensor([[0.1, -0.3, 0.4], [-0.5, 0.2, 7.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
A, W = torch.tensor([2.0, -3.0]), torch.tensor([0.25, 0.5])
E = math.exp


def loss_and_gradient(**settings):
    logprob = (OLD + CHANGE).clone().requires_grad_(True)
    settings = {"clip": 0.0, "reduction": "sum", **settings}
    loss = policy_loss(logprob, OLD, MASK, A, W, **settings)
    loss.backward()
    return float(loss.detach()), logprob.grad.tolist()


def expect(found, loss, gradient):
    assert found[0] == pytest.approx(loss, rel=1e-5)
    assert found[1] == [pytest.approx(row, rel=1e-5, abs=1e-7) for row in gradient]


def test_without_a_ratio_the_loss_is_minus_log_prob_times_advantage():
    first, second = (-1.0 - 2.0 - 0.5) + 0.2, (-0.7 - 1.2) - 0.3
    expect(
        loss_and_gradient(ratio="none"),
        -(0.25 * 2 * first + 0.5 * -3 * second),
        [[-0.5] * 3, [1.5, 1.5, 0.0]],
    )


def test_without_a_ratio_old_log_probs_are_not_read():
    nothing = torch.full_like(OLD, float("nan"))
    kwargs = {"ratio": "none", "clip": 0.2, "reduction": "sum"}
    assert torch.isfinite(policy_loss(OLD, nothing, MASK, A, W, **kwargs))


def test_a_sequence_ratio_is_one_per_reply():
    rho = (E(0.2), E(-0.3))
    expect(
        loss_and_gradient(ratio="sequence"),
        -(0.25 * 2 * rho[0] + 0.5 * -3 * rho[1]),
        [[-0.5 * rho[0]] * 3, [1.5 * rho[1]] * 2 + [0.0]],
    )


def test_a_clipped_sequence_ratio_stops_the_gradient_where_it_has_gone_far_enough():
    # rho 1.22 with A > 0 is beyond 1.1: clipped. rho 0.74 with A < 0 is below 0.9: clipped.
    expect(
        loss_and_gradient(ratio="sequence", clip=0.1),
        -(0.25 * 2 * 1.1 + 0.5 * -3 * 0.9),
        [[0.0] * 3, [0.0] * 3],
    )


def test_a_token_ratio_is_clipped_token_by_token():
    # Tokens 0.1 and -0.3 of the first reply and 0.2 of the second are within the pessimistic bound; the others not.
    first = (E(0.1), E(-0.3), 1.2)
    second = (0.8, E(0.2))
    expect(
        loss_and_gradient(ratio="token", clip=0.2),
        -(0.25 * 2 * sum(first) + 0.5 * -3 * sum(second)),
        [[-0.5 * first[0], -0.5 * first[1], 0.0], [0.0, 1.5 * second[1], 0.0]],
    )


def test_token_mean_divides_by_the_replys_own_length():
    expect(
        loss_and_gradient(ratio="token", reduction="token_mean"),
        -(0.25 * 2 * (E(0.1) + E(-0.3) + E(0.4)) / 3 + 0.5 * -3 * (E(-0.5) + E(0.2)) / 2),
        [
            [-0.5 * E(0.1) / 3, -0.5 * E(-0.3) / 3, -0.5 * E(0.4) / 3],
            [1.5 * E(-0.5) / 2, 1.5 * E(0.2) / 2, 0.0],
        ],
    )
    rho = (E(0.2 / 3), E(-0.3 / 2))  # a sequence ratio becomes the geometric mean over tokens
    expect(
        loss_and_gradient(ratio="sequence", reduction="token_mean"),
        -(0.25 * 2 * rho[0] + 0.5 * -3 * rho[1]),
        [[-0.5 * rho[0] / 3] * 3, [1.5 * rho[1] / 2] * 2 + [0.0]],
    )
    expect(
        loss_and_gradient(ratio="none", reduction="token_mean"),
        -(0.25 * 2 * -3.3 / 3 + 0.5 * -3 * -2.2 / 2),
        [[-0.5 / 3] * 3, [1.5 / 2] * 2 + [0.0]],
    )


@pytest.mark.parametrize("ratio", ["none", "sequence", "token"])
@pytest.mark.parametrize("pad", [5.0, float("-inf")])
def test_what_stands_on_padding_changes_nothing(ratio, pad):
    kwargs = {"ratio": ratio, "clip": 0.2, "reduction": "sum"}
    new = (OLD + CHANGE).requires_grad_(True)
    whole = policy_loss(new, OLD, MASK, A, W, **kwargs)
    filled = (OLD + CHANGE).masked_fill(~MASK, pad).requires_grad_(True)
    other = policy_loss(filled, OLD.masked_fill(~MASK, pad), MASK, A, W, **kwargs)
    assert float(other.detach()) == float(whole.detach())
    whole.backward()
    other.backward()
    assert torch.equal(new.grad, filled.grad)


@pytest.mark.parametrize(
    ("rho", "advantage", "clip", "gain"),
    [
        (1.5, 1.0, 0.2, 1.2),
        (0.5, 1.0, 0.2, 0.5),  # PPO never limits what makes the gain smaller
        (1.5, -1.0, 0.2, -1.5),
        (0.5, -1.0, 0.2, -0.8),
        (1.5, 1.0, 0.0, 1.5),
    ],
)
def test_clipping_is_pessimistic(rho, advantage, clip, gain):
    assert float(clipped_gain(torch.tensor(rho), torch.tensor(advantage), clip)) == pytest.approx(gain)


def test_value_loss_is_a_weighted_sum_of_squares():
    value, target = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert float(value_loss(value, target, torch.tensor([0.25, 0.5]))) == pytest.approx(0.25 * 4 + 0.5)


def test_banned_tokens_and_rows_without_a_token_have_probability_zero():
    logits = torch.tensor([[1.0, 2.0, 3.0, 50.0, 60.0]])
    found = masked_log_softmax(logits, 0.5, torch.tensor([False, True, False]))[0]
    assert found.isneginf().tolist() == [False, True, False, True, True]
    total = E(2.0) + E(6.0)
    assert found[[0, 2]].exp().tolist() == pytest.approx([E(2.0) / total, E(6.0) / total])
    assert found.dtype == torch.float32


def test_ratios_are_one_per_reply_or_one_per_token():
    new = OLD + CHANGE
    assert ratios(new, OLD, MASK, "sequence", "sum").tolist() == pytest.approx([E(0.2), E(-0.3)])
    assert ratios(new, OLD, MASK, "sequence", "token_mean").tolist() == pytest.approx(
        [E(0.2 / 3), E(-0.3 / 2)]
    )
    found = ratios(new, OLD, MASK, "token", "sum").tolist()
    assert found[0] == pytest.approx([E(0.1), E(-0.3), E(0.4)])
    assert found[1] == pytest.approx([E(-0.5), E(0.2), 1.0])


def test_the_divergence_estimate_by_hand_for_two_tokens():
    logprob = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    reference = torch.tensor([[-1.5, -1.0]])
    found = kl_estimate(logprob, reference)
    assert found[0].tolist() == pytest.approx([E(-0.5) - 1 + 0.5, E(1.0) - 1 - 1.0])
    found.sum().backward()
    # d/dlogp (exp(r - logp) - 1 - r + logp) = 1 - exp(r - logp).
    assert logprob.grad[0].tolist() == pytest.approx([1 - E(-0.5), 1 - E(1.0)])
    assert kl_estimate(reference, reference).tolist() == [[0.0, 0.0]]


def test_the_divergence_estimate_is_unbiased_and_never_negative():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    each = kl_estimate(p.log(), q.log())
    assert (each >= 0).all()
    assert float((p * each).sum()) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)


def test_entropy_by_hand_with_banned_tokens_counting_nothing():
    p = torch.tensor([0.5, 0.25, 0.25, 0.0])
    logp = p.log()
    assert logp[3].isneginf()
    assert float(token_entropy(logp)) == pytest.approx(1.5 * math.log(2))
    assert float(token_entropy(torch.tensor([0.0, float("-inf")]))) == 0.0
    logits = torch.zeros(1, 5, requires_grad=True)
    banned = torch.tensor([False, True, False])  # and the last two rows, which no token has
    spread = token_entropy(masked_log_softmax(logits + torch.tensor([1.0, 9.0, 0.0, 9.0, 9.0]), 1.0, banned))
    one = 1 / (1 + E(-1.0))
    assert float(spread.detach()) == pytest.approx(-(one * math.log(one) + (1 - one) * math.log(1 - one)))
    spread.sum().backward()
    # dH/dlogit_i = -p_i (log p_i + H); nothing reaches what is banned.
    expected = [-q * (math.log(q) + float(spread.detach())) for q in (one, 1 - one)]
    assert logits.grad[0].tolist() == pytest.approx([expected[0], 0.0, expected[1], 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.2, 3.0, 1.8**2, -2 * 1.8),  # within reach of where it was (1): as without a clip
        (1.9, 3.0, 1.5**2, 0.0),  # moved beyond 1.5 towards the target: no more to gain
        (3.5, 3.0, 1.5**2, 0.0),  # right past it: still judged by where it may be
        (0.1, 3.0, 2.9**2, -2 * 2.9),  # moved the wrong way: the worse of both, with a gradient back
    ],
)
def test_a_value_gains_nothing_beyond_the_clip(value, target, loss, slope):
    found = torch.tensor([value], requires_grad=True)
    error = value_loss(found, torch.tensor([target]), torch.ones(1), torch.tensor([1.0]), 0.5)
    error.backward()
    assert float(error.detach()) == pytest.approx(loss)
    assert float(found.grad) == pytest.approx(slope)


def test_a_value_clip_of_zero_is_off_and_does_nothing_on_the_first_pass():
    before, target, weight = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]), torch.tensor([0.25, 0.5])
    found = []
    for clip in (0.0, 0.1):
        value = before.clone().requires_grad_(True)
        value_loss(value, target, weight, before, clip).backward()
        found.append(value.grad.tolist())
    by_hand = [0.25 * 2 * -2.0, 0.5 * 2 * -2.5]
    assert found == [pytest.approx(by_hand)] * 2
    far = torch.tensor([9.0])
    assert float(value_loss(far, torch.tensor([3.0]), torch.ones(1), torch.tensor([1.0]), 0.0)) == 36.0
