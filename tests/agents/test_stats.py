import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from collm_agents import resampling, stats
from collm_envs import InputError

BY_HAND = np.array([[0.8, 0.2], [0.0, 1.4], [0.4, 0.6]])  # three runs of two tasks
SPREAD = [name for name in stats.DISTRIBUTIONS if name != "rare"]
AGGREGATES = {"mean": stats.mean, "median": stats.median, "iqm": stats.iqm, "gap": stats.optimality_gap}


def runs(seed, shape, mean=0.5, spread=0.15):
    return np.random.default_rng(seed).normal(mean, spread, shape)


# Aggregates


@pytest.mark.parametrize(
    ("name", "scores", "value"),
    [
        ("mean", BY_HAND, (0.4 + 2.2 / 3) / 2),
        ("median", BY_HAND, (0.4 + 2.2 / 3) / 2),
        ("median", [[0.0, 0.2], [0.9, 0.9], [0.3, 0.5]], 0.4),
        ("iqm", BY_HAND, (0.2 + 0.4 + 0.6 + 0.8) / 4),  # six runs: one is cut at each end
        ("iqm", [[1.0, 2.0, 6.0]], 3.0),  # three runs: none is cut
        ("gap", BY_HAND, (0.2 + 1.0 + 0.6 + 0.8 + 0.0 + 0.4) / 6),  # beyond the oracle is no credit
        ("mean", [[0.0, 0.0, 0.0], [1.0]], 0.5),  # tasks weigh the same, however many runs
        ("gap", [[0.0, 0.0, 0.0], [1.0]], 0.5),
        ("iqm", [[0.0, 0.0, 0.0], [1.0]], 0.0),  # runs weigh the same
        ("mean", np.array([0.1, 0.3]), 0.2),  # one task
    ],
)
def test_aggregates_by_hand(name, scores, value):
    assert AGGREGATES[name](scores) == pytest.approx(value)


def slow_iqm(values):
    left = sorted(values)
    for _ in range(int(0.25 * len(values))):
        left.remove(min(left))
        left.remove(max(left))
    return math.fsum(left) / len(left)


@pytest.mark.parametrize("count", range(1, 30))
def test_the_interquartile_mean_cuts_as_another_implementation_does(count):
    values = runs(count, count)
    assert stats.iqm(values) == pytest.approx(slow_iqm(values.tolist()))
    scipy_stats = pytest.importorskip("scipy.stats")
    assert stats.iqm(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))


def test_aggregates_of_many_runs_are_those_of_their_distribution():
    skewed = np.random.default_rng(0).exponential(size=(20000, 4))
    assert stats.mean(skewed) == pytest.approx(1, abs=0.02)
    # The mean of an exponential between its quartiles: with u = 1 − F, twice the integral of −log u over them.
    assert stats.iqm(skewed) == pytest.approx(
        2 * (0.5 - 0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=0.02
    )
    assert stats.optimality_gap(skewed) == pytest.approx(math.exp(-1), abs=0.01)


def test_rliable_agrees():
    pytest.importorskip("rliable")
    from rliable import metrics

    a, b = runs(1, (7, 5)), runs(2, (7, 5), 0.6)
    assert stats.iqm(a) == pytest.approx(metrics.aggregate_iqm(a))
    assert stats.mean(a) == pytest.approx(metrics.aggregate_mean(a))
    assert stats.median(a) == pytest.approx(metrics.aggregate_median(a))
    assert stats.optimality_gap(a) == pytest.approx(metrics.aggregate_optimality_gap(a))
    assert stats.probability_of_improvement(a, b).estimate == pytest.approx(
        metrics.probability_of_improvement(a, b)
    )


# What is refused


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.1, 0.2], [0.3, math.nan]], "task 1, run 1 is nan; NaN"),
        (np.array([[0.1, math.inf]]), "task 1, run 0 is inf"),
        ([], "no tasks"),
        ([[]], r"task 0 has shape \(0,\)"),
        ([0.1, 0.2], r"task 0 has shape \(\)"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        stats.iqm,
        stats.confidence,
        lambda x: stats.difference(x, BY_HAND),
        lambda x: stats.probability_of_improvement(BY_HAND, x),
        lambda x: stats.performance_profile(x, [0.5]),
        lambda x: stats.ranks({"a": x}),
    ],
)
def test_scores_that_are_none_are_refused(use, scores, message):
    with pytest.raises(ValueError, match=message):
        use(scores)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: stats.confidence(BY_HAND, "mode"), "statistic='mode'"),
        (lambda: stats.confidence(BY_HAND, method="exact"), "method='exact'"),
        (lambda: stats.confidence(BY_HAND, level=95), "level=95"),
        (lambda: stats.difference(BY_HAND, BY_HAND[:, :1]), "2 tasks and b has 1"),
        (lambda: stats.ranks({"a": BY_HAND, "b": BY_HAND[:, :1]}), "same tasks"),
        (lambda: stats.ranks({}), "same tasks"),
    ],
)
def test_questions_without_an_answer_are_refused(use, message):
    with pytest.raises(InputError, match=message):
        use()


# Intervals


def test_widened_percentiles_by_hand():
    found = stats.confidence(np.array([0.0, 1.0]), "mean", method="percentile")
    assert (found.estimate, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 2)  # resamples: 0, ½, 1
    found = stats.confidence(np.array([1.0, 0.0]), "mean", method="widened")
    assert found.high - 0.5 == pytest.approx(0.5 * math.sqrt(2) * 12.706 / 1.96, rel=1e-3)
    assert 0.5 - found.low == pytest.approx(found.high - 0.5)


def test_the_widening_weighs_tasks_by_their_variance():
    wide, narrow = np.array([-1.0, 1.0]), np.zeros(50)
    narrow[0] = 1e-6
    assert resampling._widening([wide, narrow], 0.95) == pytest.approx(math.sqrt(2) * 12.706 / 1.96, rel=1e-3)
    equal = [runs(0, 4)] * 3  # three times three degrees of freedom
    assert resampling._widening(equal, 0.95) == pytest.approx(math.sqrt(4 / 3) * 2.262 / 1.96, rel=1e-3)


def test_the_studentised_interval_is_that_of_its_slow_twin():
    tasks = [np.sort(runs(1, 8)), np.sort(runs(2, 9, 0.3))]
    rng = np.random.default_rng(5)
    picks = [rng.integers(0, len(x), (300, len(x))) for x in tasks]

    def mean_and_error(samples):
        value = sum(sum(x) / len(x) for x in samples) / 2
        squares = [sum((v - sum(x) / len(x)) ** 2 for v in x) / (len(x) - 1) / len(x) for x in samples]
        return value, math.sqrt(sum(squares)) / 2

    value, error = mean_and_error(tasks)
    t = []
    for i in range(300):
        again, its_error = mean_and_error([x[pick[i]] for x, pick in zip(tasks, picks, strict=True)])
        t.append((again - value) / its_error)
    low, high = np.quantile(t, (0.025, 0.975))
    found = stats.confidence(tasks, "mean", method="studentised", seed=5, draws=300)
    assert found.method == "studentised"
    assert found[:3] == pytest.approx((value, value - error * high, value - error * low))


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("statistic", list(stats.STATISTICS))
def test_standard_errors_are_those_of_repeated_experiments(statistic, count):
    rule = stats.STATISTICS[statistic]
    rng = np.random.default_rng(0)
    centre = np.array([0.2, 0.5, 0.6, 0.75, 0.95])
    size = [40, 30, 50, 40, 35]
    tasks = [rng.normal(m, 0.1, (3000, n)) for m, n in zip(centre, size, strict=True)][:count]
    value, parts = rule(tasks)
    assert np.median(resampling._error(parts)) == pytest.approx(value.std(), rel=0.06)


def test_the_method_follows_the_runs():
    few, many = stats.confidence(runs(1, (19, 3))), stats.confidence(runs(1, (20, 3)))
    assert (few.method, few.n, many.method, many.n) == ("studentised", 19, "widened", 20)
    ragged = stats.confidence([runs(1, 40), runs(2, 6)])
    assert (ragged.method, ragged.n) == ("studentised", 6)


def test_where_resamples_lack_spread_the_widened_interval_stands_in():
    for seed in range(8):
        three = stats.confidence(runs(seed, 3), "mean")  # one resample in nine repeats a single run
        assert three.method == "widened"
        assert "too little spread" in three.note
    halves = np.concatenate([runs(1, 6, 0.2, 0.02), runs(2, 6, 0.8, 0.02)])  # its middle is often of one half
    found = stats.confidence(halves, "iqm", method="studentised")
    assert found.method == "widened"
    assert found.high - found.low < 1
    assert found[1:3] == stats.confidence(halves, "iqm", method="widened")[1:3]


def test_a_single_run_has_no_interval():
    for scores in (runs(1, (1, 4)), [runs(1, 5), runs(2, 1)]):
        found = stats.confidence(scores, "mean")
        assert found.estimate == pytest.approx(np.mean([np.mean(x) for x in resampling.runs_of(scores)]))
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert (found.n, found.method, found.coverage) == (1, "none", None)
        assert "single run" in str(found)
    assert math.isnan(stats.difference(runs(1, (5, 4)), runs(1, (1, 4))).low)
    assert math.isnan(stats.probability_of_improvement(runs(1, (1, 4)), runs(1, (1, 4)) - 1).low)
    assert np.isnan(stats.performance_profile(runs(1, (1, 4)), [0.0, 0.5]).low).all()
    assert math.isnan(stats.ranks({"a": runs(1, (1, 4)), "b": runs(1, (5, 4))})["b"].low)


@pytest.mark.parametrize("method", resampling.METHODS)
@pytest.mark.parametrize("count", [2, 5, 30])
def test_runs_that_agree_are_no_certainty(method, count):
    found = stats.confidence(np.full((count, 3), 0.1), "mean", method=method)
    assert found.low == found.estimate == found.high
    assert "no spread" in found.note
    assert found.coverage is None


def test_a_statistic_may_not_see_the_spread():
    saturated = [np.array([1.0] * 9 + [0.0])] * 3
    assert "no spread" in stats.confidence([np.array([1.0, 1.0, 1.0, 1.5])], "optimality_gap").note
    assert stats.confidence(saturated, "iqm").high == 1.0


def test_a_higher_level_is_wider():
    for method in ("percentile", "widened", "studentised"):
        ends = [stats.confidence(runs(3, (6, 4)), level=level, method=method) for level in (0.5, 0.9, 0.99)]
        widths = [found.high - found.low for found in ends]
        assert widths == sorted(widths)
        assert widths[0] < 0.6 * widths[2]
        assert all(found.coverage is None for found in ends)


def test_an_interval_reads_as_a_sentence():
    found = stats.Interval(0.5, 0.25, 0.75, "widened", 20, 0.93, "a note")
    assert str(found) == "0.500 [0.250, 0.750] (95 % widened, n = 20, measured at least 93 %); a note"
    assert str(stats.Interval(0.5, math.nan, math.nan, "none", 1)) == "0.500 no interval (95 % none, n = 1)"


def test_seeds_decide_the_draws():
    x = runs(4, (5, 3))
    assert stats.confidence(x, seed=1) == stats.confidence(x, seed=1)
    assert stats.confidence(x, seed=1) != stats.confidence(x, seed=2)


# Coverage


@pytest.mark.parametrize("distribution", SPREAD)
@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_intervals_of_twenty_runs_hold_the_true_value(statistic, distribution):
    share = stats.measure_coverage(20, statistic, distribution, repetitions=800, draws=300, seed=3)
    assert 0.92 <= share <= 0.98


def test_percentiles_of_five_runs_do_not_and_studentised_ones_do():
    assert stats.measure_coverage(5, method="percentile", repetitions=400, draws=300) < 0.88
    assert 0.92 <= stats.measure_coverage(5, repetitions=400, draws=300) <= 0.98


def test_differences_of_few_runs_hold_the_true_value():
    rng, hits = np.random.default_rng(6), 0
    for i in range(300):
        a, b = rng.normal(0.6, 0.22, (5, 4)), rng.normal(0.4, 0.1, (5, 4))
        found = stats.difference(a, b, "mean", seed=i, draws=300)
        hits += found.low <= 0.2 <= found.high
    assert 0.92 <= hits / 300 <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize(("method", "n"), [(m, n) for m, rows in resampling.COVERAGE.items() for n in rows])
def test_the_table_of_coverages_is_measured(method, n, tasks):
    shares = [
        stats.measure_coverage(
            n, statistic, distribution, tasks=tasks, method=method, repetitions=1500, seed=11
        )
        for statistic in ("mean", "iqm")
        for distribution in SPREAD
    ]
    assert min(shares) == pytest.approx(resampling.COVERAGE[method][n][tasks >= 4], abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize(("method", "n"), [(m, n) for m, rows in resampling.RARE.items() for n in rows])
def test_the_table_of_rare_failures_is_measured(method, n, tasks):
    told = {"tasks": tasks, "method": method, "repetitions": 1500, "seed": 11}
    shares = [stats.measure_coverage(n, statistic, "rare", **told) for statistic in ("mean", "iqm")]
    assert min(shares) == pytest.approx(resampling.RARE[method][n][tasks >= 4], abs=0.03)


@pytest.mark.parametrize(("n", "tasks"), [(5, 1), (10, 1), (5, 4)])
def test_where_few_runs_fail_the_coverage_told_is_the_one_that_is_met(n, tasks):
    found = stats.confidence(runs(1, (n, tasks)), "mean")
    share = stats.measure_coverage(n, distribution="rare", tasks=tasks, repetitions=400, draws=300)
    assert share < found.coverage
    assert share == pytest.approx(found.rare, abs=0.08)
    assert f"at least {100 * found.coverage:.0f} %, {100 * found.rare:.0f} % where one run in ten" in str(
        found
    )


def test_the_page_on_reports_shows_the_tables():
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    for n in (2, 3, 5, 10, 20, 50):
        method = "studentised" if n < resampling.SMALL else "widened"
        row = (*resampling.COVERAGE[method][n], *resampling.RARE[method][n])
        assert f"| {n} | " + " | ".join(f"{100 * share:.0f} %" for share in row) + " |" in page


def test_the_table_answers_for_the_next_smaller_number_of_runs():
    table = resampling.COVERAGE
    assert stats.confidence(runs(1, (7, 1))).coverage == table["studentised"][5][0]
    assert stats.confidence(runs(1, (7, 4))).coverage == table["studentised"][5][1]
    assert stats.confidence(runs(1, (25, 4)), "mean").coverage == table["widened"][20][1]
    assert stats.confidence(runs(1, (5, 4)), method="percentile").coverage == table["percentile"][5][1]
    assert stats.confidence(runs(1, (5, 4)), "median").coverage is None


# Order of runs


def test_the_order_of_runs_changes_nothing():
    a, b = [runs(1, 5), runs(2, 6), runs(3, 5)], [runs(4, 5), runs(5, 6), runs(6, 5)]
    mixed = [x[list(reversed(range(len(x))))] for x in a]
    for statistic in stats.STATISTICS:
        assert stats.confidence(a, statistic) == stats.confidence(mixed, statistic)
        assert stats.difference(a, b, statistic) == stats.difference(mixed, b, statistic)
    assert stats.probability_of_improvement(a, b) == stats.probability_of_improvement(mixed, b)
    one = stats.ranks({"a": a, "b": b, "c": a[::-1]}, draws=101)
    assert one == stats.ranks({"c": mixed[::-1], "b": b, "a": mixed}, draws=101)
    for one, other in zip(
        stats.performance_profile(a, [0.4, 0.5]), stats.performance_profile(mixed, [0.4, 0.5]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# Two algorithms


def test_an_algorithm_does_not_differ_from_itself():
    x = runs(1, (5, 3))
    apart = stats.difference(x, x)
    assert apart.estimate == 0
    assert apart.low < 0 < apart.high


def test_probability_of_improvement_by_hand():
    # Task 0: 1 beats both, 0.5 beats 0 and ties with 0.5. Task 1: nothing but ties.
    found = stats.probability_of_improvement([[1.0, 0.5], [0.3, 0.3]], [[0.5, 0.0], [0.3, 0.3]])
    assert found.estimate == pytest.approx((3.5 / 4 + 0.5) / 2)
    assert found.low <= found.estimate <= found.high <= 1
    tied = stats.probability_of_improvement(np.ones((3, 2)), np.ones((3, 2)))
    assert tied[:3] == (0.5, 0.5, 0.5)
    assert "no spread" in tied.note


def test_probability_of_improvement_of_shifted_normals():
    truth = NormalDist().cdf(0.1 / (0.15 * math.sqrt(2)))
    found = stats.probability_of_improvement(runs(1, (300, 2), 0.6), runs(2, (300, 2), 0.5))
    assert found.estimate == pytest.approx(truth, abs=0.03)
    assert found.low < truth < found.high
    # The standard deviation of a Mann–Whitney statistic is near 1/√(6 R) for like distributions.
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(6 * 300 * 2), rel=0.2)
    back = stats.probability_of_improvement(runs(2, (300, 2), 0.5), runs(1, (300, 2), 0.6))
    assert back.estimate == pytest.approx(1 - found.estimate)


def test_probabilities_stay_probabilities():
    a, b = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0.55, 0.4, 0.3, 0.2, 0.1])
    found = stats.probability_of_improvement(a, b, method="widened")
    assert (found.estimate, found.high) == (0.96, 1.0)
    assert found.low < 0.96
    found = stats.probability_of_improvement(b, a, method="widened")
    assert (found.estimate, found.low) == (pytest.approx(0.04), 0.0)


def test_winning_every_pair_leaves_a_bound():
    found = stats.probability_of_improvement(np.ones((5, 2)), np.zeros((4, 2)))
    assert (found.estimate, found.high, found.method) == (1.0, 1.0, "exact")
    assert found.low**8 == pytest.approx(0.025)  # eight disjoint pairs, all won
    lost = stats.probability_of_improvement(np.zeros((4, 2)), np.ones((5, 2)))
    assert (lost.estimate, lost.low) == (0.0, 0.0)
    assert lost.high == pytest.approx(1 - found.low)


@pytest.mark.parametrize("size", [(10, 2), (2, 10), (5, 5), (3, 4, 20), (2,)])
def test_the_bound_holds_with_unequal_numbers_of_runs(size):
    found = stats.probability_of_improvement([np.ones(n) for n in size], [np.zeros(n) for n in size])
    assert found.low ** (len(size) * min(size)) == pytest.approx(0.025)
    # Worst are runs of one side that do not vary: to win all is then to win as many pairs as there are runs.
    rng = np.random.default_rng(0)
    chance = rng.random((4000, len(size))) ** rng.uniform(0.02, 3, (4000, 1))
    below = chance[chance.mean(axis=1) < found.low]
    assert len(below)
    assert np.prod(below ** np.array(size), axis=1).max() <= 0.025


def test_failed_runs_on_one_task_do_not_tighten_the_bound():
    rng, misses, won = np.random.default_rng(0), 0, 0
    for i in range(400):  # a task that is always won, ten runs each; one that is won with 0.4, two runs each
        other = np.where(rng.random(2) < 0.4, 0.0, 1.0)
        found = stats.probability_of_improvement(
            [np.ones(10), np.full(2, 0.5)], [np.zeros(10), other], seed=i, draws=50
        )
        won += found.method == "exact"
        misses += found.method == "exact" and not found.low <= 0.7 <= found.high
    assert won > 40
    assert misses == 0


# Profiles and ranks


def test_a_profile_by_hand():
    found = stats.performance_profile(BY_HAND, [-1, 0.0, 0.4, 0.7, 1.4])
    np.testing.assert_allclose(found.mean, [1, 5 / 6, 3 / 6, 2 / 6, 0])  # strictly above
    np.testing.assert_array_equal(found.n, 3)
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()
    assert found.low[0] == found.high[0] == 1
    ragged = stats.performance_profile([[0, 0, 0], [1]], [0.5])
    assert ragged.mean == [0.5]


def test_the_band_of_a_profile_has_the_width_of_a_share():
    found = stats.performance_profile(np.random.default_rng(0).random((200, 2)), [0.3, 0.5])
    np.testing.assert_allclose(found.mean, [0.7, 0.5], atol=0.06)
    width = 2 * 1.96 * np.sqrt(np.array([0.21, 0.25]) / 400)
    np.testing.assert_allclose(found.high - found.low, width, rtol=0.15)
    two = stats.performance_profile(np.array([[0.0] * 200, [1.0] * 200]), [0.5])  # ½ · 400/200² · 2/1
    assert two.high - two.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.1)


def test_ranks_by_hand():
    found = stats.ranks(
        {
            "first": np.array([[0.9, 0.8, 0.5]] * 3),
            "tied": np.array([[0.5, 0.8, 0.5]] * 3),
            "last": np.array([[0.1, 0.1, 0.5]] * 3),
        }
    )
    assert list(found) == ["first", "tied", "last"]
    assert found["first"].estimate == pytest.approx((1 + 1.5 + 2) / 3)
    assert found["tied"].estimate == pytest.approx((2 + 1.5 + 2) / 3)
    assert found["last"].estimate == pytest.approx((3 + 3 + 2) / 3)
    assert all(x.low == x.high == x.estimate for x in found.values())  # no run differs from another


def test_ranks_are_shared_where_sums_differ_by_rounding_only():
    a, b = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.3, 0.0])
    assert a.mean() != b.mean()
    assert stats.ranks({"a": a, "b": b})["a"].estimate == 1.5


def test_intervals_of_ranks():
    strong, weak = runs(1, (5, 3), 0.9, 0.05), runs(2, (5, 3), 0.1, 0.05)
    found = stats.ranks({"strong": strong, "weak": weak, "rival": strong[::-1] + 0.001})
    assert found["weak"][:3] == (3, 3, 3)
    assert 1 <= found["strong"].low < found["strong"].estimate <= found["strong"].high <= 2
    assert sum(x.estimate for x in found.values()) == pytest.approx(6)
    # Of two runs the best resample has the mean 1, and √2 times as far from ½ it would be beyond the rival.
    assert stats.ranks({"a": np.array([0.0, 1.0]), "b": np.full(2, 1.1)})["a"][:3] == (2, 1, 2)


# Curves


@pytest.mark.parametrize(
    ("x", "y", "until", "area"),
    [
        ([0, 10], [0, 1], None, 0.5),
        ([0, 10], [0, 1], 5, 0.25),
        ([10, 20, 40], [0, 1, 1], None, 25 / 30),
        ([10, 20, 40], [0, 1, 1], 30, 15 / 20),
        ([0, 1], [0.7, 0.7], None, 0.7),
    ],
)
def test_areas_by_hand(x, y, until, area):
    assert stats.area_under_curve(x, y, until) == pytest.approx(area)


@pytest.mark.parametrize(
    ("threshold", "x"), [(0.0, 10), (0.25, 15), (0.5, 20), (0.8, 40), (-1, 10), (0.81, math.inf)]
)
def test_samples_to_a_threshold(threshold, x):
    assert stats.samples_to([10, 20, 30, 40], [0.0, 0.5, 0.2, 0.8], threshold) == pytest.approx(x)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0, 2, 1], [0, 1, 2], "sorted"),
        ([0, 1, 1], [0, 1, 2], "sorted"),
        ([0, 1], [0, math.nan], "NaN"),
        ([0, 1], [0, 1, 2], "as many x as y"),
        ([], [], "as many x as y"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        stats.area_under_curve,
        lambda x, y: stats.samples_to(x, y, 1),
        lambda x, y: stats.interpolate([(x, y)], [0]),
    ],
)
def test_curves_that_are_none_are_refused(use, x, y, message):
    with pytest.raises(ValueError, match=message):
        use(x, y)


@pytest.mark.parametrize("until", [0, -1, 11, math.nan])
def test_areas_end_within_the_curve(until):
    with pytest.raises(InputError, match="not within the curve"):
        stats.area_under_curve([0, 10], [0, 1], until)


def test_curves_come_onto_one_grid_without_extrapolation():
    found = stats.interpolate([([0, 10], [0, 1]), ([5, 15], [1, 1])], [0, 5, 10, 15, 20])
    nan = math.nan
    np.testing.assert_array_equal(found, [[0, 0.5, 1, nan, nan], [nan, 1, 1, 1, nan]])


def test_a_band_counts_the_runs_that_are_there():
    nan = math.nan
    found = stats.band([[1, 1, nan, 1], [2, 3, nan, 1], [3, nan, nan, 1], [6, nan, 0.5, 1]])
    np.testing.assert_array_equal(found.n, [4, 2, 1, 4])
    np.testing.assert_allclose(found.mean, [3, 2, 0.5, 1])
    half = 3.182 * math.sqrt(14 / 3) / 2, 12.706 * math.sqrt(2) / math.sqrt(2)
    np.testing.assert_allclose(found.high - found.mean, [*half, nan, 0], rtol=1e-3)
    np.testing.assert_allclose(found.mean - found.low, [*half, nan, 0], rtol=1e-3)
    assert np.isnan(stats.band([[nan], [nan]]).mean).all()


@pytest.mark.parametrize(
    ("freedom", "level", "value"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (10, 0.95, 2.228),
        (11, 0.95, 2.201),
        (30, 0.95, 2.042),
        (1000, 0.95, 1.962),
        (4, 0.99, 4.604),
        (4, 0.8, 1.533),
        (1e6, 0.9, 1.645),
    ],
)
def test_quantiles_of_student_t(freedom, level, value):
    assert stats.t_quantile(freedom, level) == pytest.approx(value, rel=0.0005)
