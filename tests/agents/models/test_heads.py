import numpy as np
import pytest
import torch

from collm_agents.models.heads import LEAST_SCALE, ValueHead


def stirred(size=4, seed=0):
    head = ValueHead(size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.linear.weight.normal_(generator=generator)
        head.linear.bias.normal_(generator=generator)
    return head, torch.randn(5, size, generator=generator)


def test_the_first_units_are_the_first_targets_mean_and_deviation():
    head = ValueHead(2)
    head.track(3.0, 13.0)  # targets 1 and 5: mean 3, deviation 2
    assert float(head.centre) == pytest.approx(3.0)
    assert float(head.scale) == pytest.approx(2.0)
    # The second update's 7 and 7: the past weighs 0.95, and what is missing of a whole weight is made up for.
    head.track(7.0, 49.0)
    past, fresh = 0.95 * 0.05, 0.05
    mean, square = (past * 3 + fresh * 7) / (past + fresh), (past * 13 + fresh * 49) / (past + fresh)
    assert float(head.centre) == pytest.approx(mean)
    assert float(head.scale) == pytest.approx((square - mean**2) ** 0.5)


@pytest.mark.parametrize("targets", [(0.0, 1e-12), (-3.0, 9.5), (1000.0, 1e6 + 4e4), (0.5, 0.25)])
def test_values_stay_what_they_were_when_the_units_move(targets):
    head, hidden = stirred()
    with torch.no_grad():
        before = head(hidden)
        for _ in range(3):
            head.track(*targets)
            assert head(hidden).tolist() == pytest.approx(before.tolist(), rel=1e-4, abs=1e-4)
    assert float(head.scale) >= LEAST_SCALE * 0.999


def test_equal_targets_have_the_least_scale_and_not_none():
    head = ValueHead(2)
    head.track(2.0, 4.0)
    assert float(head.scale) == pytest.approx(LEAST_SCALE)


def test_a_small_deviation_of_large_targets_is_seen():
    # In float32 a square of 1e6 is exact to 0.06 only, and a variance of 0.01 would be lost in it.
    head = ValueHead(2)
    targets = np.array([999.9, 1000.1])
    head.track(float(targets.mean()), float((targets**2).mean()))
    assert float(head.scale) == pytest.approx(0.1, rel=1e-3)


def test_a_start_value_is_in_the_targets_units_whatever_those_of_the_head():
    head, hidden = ValueHead(4), torch.randn(3, 4)
    head.track(10.0, 125.0)
    head.set_bias(-2.5)
    assert head(hidden).tolist() == pytest.approx([-2.5] * 3, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 1000.0, -300.0])
def test_large_targets_are_learned_at_the_rate_of_small_ones(level):
    """Gradient steps on the scaled error, as the learner takes them."""
    head, hidden = ValueHead(4), torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    target = level + 500.0 * (hidden @ torch.tensor([1.0, -0.5, 0.25, 0.0]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(300):
        head.track(float(target.mean()), float((target**2).mean()))
        optimizer.zero_grad()
        (((head(hidden) - target) ** 2).mean() / float(head.scale) ** 2).backward()
        optimizer.step()
    with torch.no_grad():
        error = float(((head(hidden) - target) ** 2).mean() / target.var())
    assert error < 0.01


def test_without_units_of_its_own_the_same_head_is_nowhere_near():
    head, hidden = ValueHead(4), torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    target = 1000.0 + 500.0 * (hidden @ torch.tensor([1.0, -0.5, 0.25, 0.0]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        ((head(hidden) - target) ** 2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert float((head(hidden) - target).abs().mean()) > 500


def test_units_are_saved_with_the_weights():
    head, hidden = stirred()
    head.track(5.0, 50.0)
    other = ValueHead(4)
    other.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert torch.equal(head(hidden), other(hidden))
    head.track(1.0, 2.0)
    other.track(1.0, 2.0)
    assert torch.equal(head.moments, other.moments)
    assert torch.equal(head.linear.weight, other.linear.weight)
