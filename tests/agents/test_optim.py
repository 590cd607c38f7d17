import math
import sys

import pytest
import torch
from builders import learner, played, same, team, weights

from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.optim import make_optimizer, rate_factor
from collm_agents.tensor_file import read_state, write_state
from collm_envs.errors import SettingError

AGENTS = ("agent_0", "agent_1")


@pytest.mark.parametrize(
    ("schedule", "progress", "end", "factor"),
    [
        ("constant", 0.0, 0.0, 1.0),
        ("constant", 0.9, 0.0, 1.0),
        ("linear", 0.0, 0.0, 1.0),
        ("linear", 0.25, 0.0, 0.75),
        ("linear", 0.25, 0.2, 0.2 + 0.8 * 0.75),
        ("linear", 1.0, 0.2, 0.2),
        ("linear", 1.7, 0.2, 0.2),  # the last buffer may go beyond the budget
        ("cosine", 0.0, 0.0, 1.0),
        ("cosine", 0.5, 0.0, 0.5),
        ("cosine", 1 / 3, 0.0, 0.75),
        ("cosine", 0.5, 0.1, 0.55),
        ("cosine", 1.0, 0.1, 0.1),
    ],
)
def test_the_course_of_the_rates(schedule, progress, end, factor):
    assert rate_factor(schedule, progress, 99, 0, end) == pytest.approx(factor, abs=1e-12)


def test_rates_rise_linearly_over_the_warm_up_to_the_schedule():
    found = [rate_factor("constant", 0.0, update, 3, 0.0) for update in range(6)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert rate_factor("linear", 0.5, 1, 3, 0.0) == pytest.approx(0.5 * 0.5)
    assert rate_factor("linear", 0.5, 0, 0, 0.0) == 0.5


def test_every_member_steps_at_its_own_rate_on_the_common_course():
    found = learner(
        team(AGENTS), MonteCarlo(), lr=0.01, lr_schedule="linear", lr_end=0.5, lr_warmup=1, update_epochs=1
    )
    rollouts = played(found.team, (2,))
    rates = []
    for progress in (0.0, 0.5):
        metrics = found.update(rollouts, progress)
        rates.append({group["lr"] for o in found.optimizers.values() for group in o.param_groups})
        assert rates[-1] == {metrics["lr"]}
    assert [next(iter(r)) for r in rates] == pytest.approx([0.01 * 0.5, 0.01 * 0.75])


def test_at_a_rate_of_zero_nothing_moves():
    found = learner(team(AGENTS), MonteCarlo(), lr=0.01, lr_schedule="cosine", weight_decay=0.1)
    before = weights(found.team.backbones["agent_0"], "agent_0")
    found.update(played(found.team, (2,)), 1.0)
    assert same(before, weights(found.team.backbones["agent_0"], "agent_0"))


def quadratic(kind, steps=200, lr=0.05):
    point = torch.nn.Parameter(torch.full((3, 4), 5.0))
    optimizer = make_optimizer(kind, [point], lr, 0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        ((point - 1.0) ** 2).sum().backward()
        optimizer.step()
    return point.detach()


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_optimizers_go_downhill(kind):
    assert float((quadratic(kind) - 1.0).abs().max()) < 0.1


def test_adafactor_steps_at_the_rate_given_and_keeps_almost_nothing():
    point = torch.nn.Parameter(torch.full((30, 40), 5.0))
    optimizer = make_optimizer("adafactor", [point], 0.01, 0.0)
    point.grad = torch.ones_like(point)
    optimizer.step()
    # A gradient of equal entries is normalised to 1 each: neither the weights' size nor the step number scales it.
    assert (5.0 - point.detach()).flatten().tolist() == pytest.approx([0.01] * 1200, rel=1e-3)
    kept = sum(v.numel() for v in optimizer.state[point].values() if torch.is_tensor(v))
    assert kept <= 30 + 40 + 2


def test_weight_decay_is_decoupled_in_both():
    for kind in ("adamw", "adafactor"):
        point = torch.nn.Parameter(torch.full((2, 2), 2.0))
        optimizer = make_optimizer(kind, [point], 0.1, 0.5)
        point.grad = torch.zeros_like(point)
        optimizer.step()
        assert point.detach().flatten().tolist() == pytest.approx([2.0 * (1 - 0.1 * 0.5)] * 4)


def test_moments_in_eight_bits_without_their_library_are_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(SettingError, match=r"adamw8bit.*pip install bitsandbytes"):
        make_optimizer("adamw8bit", [torch.nn.Parameter(torch.zeros(2))], 0.1, 0.0)


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_an_optimizer_comes_back_and_steps_as_if_it_had_not_stopped(kind, tmp_path):
    rollouts = played(team(AGENTS), (3,))
    one = learner(team(AGENTS), MonteCarlo(), optimizer=kind)
    one.update(rollouts)
    write_state(tmp_path / "state", one.state_dict())
    players = team(AGENTS, stirred=False)
    for agent in AGENTS:
        for name, value in weights(one.team.backbones[agent], agent).items():
            players.backbones[agent].parameters(agent)[name].data.copy_(value)
    two = learner(players, MonteCarlo(), optimizer=kind)
    two.load_state_dict(read_state(tmp_path / "state"))
    start = weights(players.backbones["agent_0"], "agent_0")
    for found in (one, two):
        metrics = found.update(rollouts)
        assert all(math.isfinite(v) for v in metrics.values())
    for agent in AGENTS:
        assert same(*(weights(x.team.backbones[agent], agent) for x in (one, two)))
    assert not same(start, weights(players.backbones["agent_0"], "agent_0"))


def test_moments_of_another_kind_are_refused():
    one, other = (learner(team(AGENTS), MonteCarlo(), optimizer=kind) for kind in ("adamw", "adafactor"))
    one.update(played(one.team, (2,)))
    with pytest.raises(SettingError, match=r"'adafactor'.*adamw"):
        other.load_state_dict(one.state_dict())
    assert other.updates == 0
