import math

import pytest
import torch

from collm_agents.losses import clipped_gain, masked_log_softmax, policy_loss, value_loss

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
