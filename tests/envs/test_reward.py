"""Scores and schedules, against numbers worked by hand."""

import itertools
import math
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collm_envs import RewardModel, SettingError, component
from collm_envs.reward import SCHEDULES, Schedule


def part(name, low, high, gate=False):
    """A component that returns what the outcome says under its name."""
    return component(name, low, high, gate=gate)(lambda outcome: outcome[name])


MODEL = (
    part("form", 0, 1, gate=True),
    part("fit", -1, 2),
    part("style", 0, 0.5, gate=True),
    part("extra", 0, 4),
)


def test_parts_sum_to_the_total_and_a_closed_gate_stops_all_that_follows():
    model = RewardModel(MODEL)
    score = model({"form": 1, "fit": 1.5, "style": 0.25, "extra": 3})
    assert score.parts == {"form": 1, "fit": 1.5, "style": 0.25, "extra": 3}
    assert score.total == 5.75
    score = model({"form": 1, "fit": -0.5, "style": 0, "extra": 3})
    assert score.parts == {"form": 1, "fit": -0.5, "style": 0, "extra": 0}
    assert score.total == 0.5
    # behind a closed gate a component is not even called: these outcomes lack the fields
    assert model({"form": 0}).parts == {"form": 0, "fit": 0, "style": 0, "extra": 0}


def test_range_counts_what_gates_cut_off():
    # form closed: 0. form open (least: just above 0) and fit -1, style closed: -1.
    assert (RewardModel(MODEL).low, RewardModel(MODEL).high) == (-1, 7.5)
    # a penalty behind a gate: open 1 + (-3..-2); closed 0. The best is to fail the gate.
    model = RewardModel((part("gate", -0.5, 1, gate=True), part("penalty", -3, -2)))
    assert (model.low, model.high) == (-3, 0)
    # a gate that never opens hides the rest
    model = RewardModel((part("gate", -2, 0, gate=True), part("rest", 0, 9)))
    assert (model.low, model.high) == (-2, 0)
    # a gate that never closes is no way out
    model = RewardModel((part("gate", 0.5, 1, gate=True), part("rest", 1, 2)))
    assert (model.low, model.high) == (1.5, 3)


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(0, 3), st.booleans(), st.sampled_from((0, 0.5, 1, 2))),
        min_size=1,
        max_size=4,
    )
)
def test_range_holds_for_every_outcome_and_its_ends_are_reached(specs):
    names = [str(i) for i in range(len(specs))]
    parts = [part(n, low, low + width, gate) for n, (low, width, gate, _) in zip(names, specs, strict=True)]
    weights = dict(zip(names, [s[3] for s in specs], strict=True))
    weighted = [
        part(n, w * low, w * (low + width), gate)
        for n, (low, width, gate, w) in zip(names, specs, strict=True)
        if w
    ]
    if RewardModel(parts).high > 0 >= RewardModel(weighted).high:
        with pytest.raises(SettingError, match="nothing to earn"):
            RewardModel(parts, weights=weights)
        return
    model = RewardModel(parts, weights=weights)
    # the ends of each range, and zero and just above it, where a gate turns
    choices = [
        {low, low + width} | {v for v in (0, 1e-9) if low <= v <= low + width} for low, width, *_ in specs
    ]
    totals = [model(dict(zip(names, values, strict=True))).total for values in itertools.product(*choices)]
    assert min(totals) == pytest.approx(model.low, abs=1e-6)
    assert max(totals) == pytest.approx(model.high, abs=1e-6)


def test_weights_scale_parts_and_range_and_zero_takes_the_gate_along():
    model = RewardModel(MODEL, weights={"form": 0, "fit": 2, "extra": 0.5})
    score = model({"fit": 1.5, "style": 0.5, "extra": 4})
    assert score.parts == {"form": 0, "fit": 3, "style": 0.5, "extra": 2}
    assert (score.total, model.high, model.low) == (5.5, 6.5, -2)


def test_success_is_a_fraction_of_high_or_the_environments_own_predicate():
    two = (part("a", 0, 1), part("b", 0, 3))
    assert RewardModel(two, success_at=0.5)({"a": 0, "b": 2}).success
    assert not RewardModel(two, success_at=0.5)({"a": 0, "b": 1.99}).success
    own = RewardModel(two, success=lambda outcome, total, parts: parts["a"] == 1 and total < 2)
    assert own({"a": 1, "b": 0.5}).success
    assert not own({"a": 1, "b": 3}).success


@pytest.mark.parametrize("value", [1.01, -0.01, math.nan, math.inf, -math.inf])
def test_a_component_outside_its_range_raises_with_its_name(value):
    with pytest.raises(ValueError, match=r"'form' returned .*outside its range \[0, 1\]"):
        RewardModel((part("form", 0, 1),))({"form": value})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weights": dict.fromkeys(("form", "fit", "style", "extra"), 0)}, "one of form, fit, style"),
        ({"weights": {"fom": 1}}, "unknown reward component 'fom'; did you mean 'form'"),
        ({"weights": {"form": -1}}, "must be a number >= 0, not -1"),
        ({"weights": {"form": math.nan}}, "must be a number >= 0"),
        ({"weights": {"form": "2"}}, "must be a number >= 0, not '2'"),
        ({"weights": "form"}, "weight by component name, not 'form'"),
        ({"success_at": 0}, "success_at"),
        ({"success_at": 1.1}, "success_at"),
        ({"success_at": "high"}, "success_at"),
    ],
)
def test_bad_settings_say_what_would_do(kwargs, message):
    with pytest.raises(SettingError, match=message):
        RewardModel(MODEL, **kwargs)


def test_components_must_be_declared_and_named_apart():
    with pytest.raises(SettingError, match="declare it with @component"):
        RewardModel((len,))
    with pytest.raises(SettingError, match="share a name"):
        RewardModel((part("a", 0, 1), part("a", 0, 1)))


@component("words", low=0, high=1)
@dataclass(frozen=True)
class Words:
    wanted: int

    def __call__(self, outcome):
        return min(1.0, len(outcome.split()) / self.wanted)


def test_a_dataclass_component_pickles_with_its_declaration():
    model = pickle.loads(pickle.dumps(RewardModel((Words(4),))))
    assert model("one two three").parts == {"words": 0.75}


# -- schedules: scores 1, 0.5, 2.5 of 3, then success ----------------------------------------------

SCORES = (1.0, 0.5, 2.5)


def paid(kind, scores, success, high=3.0, gamma=None, num_turns=3):
    schedule = Schedule(kind, high, num_turns, gamma)
    last = len(scores) - 1
    return [
        schedule.pay(s, ([0.0, *scores])[t], last=t == last, success=success and t == last)
        for t, s in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("kind", "success", "rewards"),
    [
        ("dense", True, [-2, -2.5, -0.5]),
        ("final", True, [0, 0, 2.5]),
        ("final", False, [0, 0, 2.5]),
        ("outcome", True, [0, 0, 1]),
        ("outcome", False, [0, 0, 0]),
        ("sparse", False, [0, 0, 2.5]),
        ("delta", True, [1, 0.5 - 1 / 0.8, 2.5 - 0.5 / 0.8]),
    ],
)
def test_schedules_by_hand(kind, success, rewards):
    assert paid(kind, SCORES, success, gamma=0.8) == pytest.approx(rewards)


def test_sparse_means_outcome_for_one_turn():
    assert paid("sparse", (2.9,), True, num_turns=1) == [1.0]
    assert paid("sparse", (2.5,), False, num_turns=1) == [0.0]
    assert Schedule("sparse", 3, 1).resolved == "outcome"
    assert Schedule("sparse", 3, 2).resolved == "final"


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.3, 1))
def test_delta_telescopes_to_final(scores, gamma):
    discounted = [
        sum(gamma**t * r for t, r in enumerate(paid(kind, scores, False, gamma=gamma)))
        for kind in ("delta", "final")
    ]
    assert discounted[0] == pytest.approx(discounted[1], abs=1e-6)


def test_delta_needs_its_discount():
    with pytest.raises(SettingError, match=r"needs gamma in \(0, 1\]"):
        Schedule("delta", 1, 1)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("gamma", [0, -0.5, 1.01, "0.9", True, math.nan])
def test_a_discount_beyond_its_range_is_refused_by_every_schedule(kind, gamma):
    with pytest.raises(SettingError, match=r"gamma must lie in \(0, 1\]"):
        Schedule(kind, 1, 1, gamma)


def test_unknown_schedules_are_refused_with_a_suggestion():
    with pytest.raises(SettingError, match="'dens'; did you mean 'dense'"):
        Schedule("dens", 1)
    assert all(Schedule(kind, 1, 1, 0.9).kind == kind for kind in SCHEDULES)
