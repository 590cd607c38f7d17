"""Verdicts on the paper's statements, from made runs whose effects are known."""

import math

import numpy as np
import pytest

from benchmarks.statements import (
    OPEN,
    REFUTED,
    SUPPORTED,
    Effect,
    above,
    comparable,
    contrasts,
    course,
    end,
    flat,
    gain,
    main,
    statements,
)
from collm_agents.records import Point, Record, Results, write_results
from collm_agents.resampling import Interval
from collm_envs.errors import InputError

LEVELS = {"novice": {"score": 1.0}, "oracle": {"score": 3.0}}
ENVS = ("games/strbuild-mini-v0", "games/housebuild-mini-v0")
FORMS = ("dense-h2", "dense-h4", "sparse-h2", "sparse-h4")


def run(algorithm, form, seed, start, last, env=ENVS[0]):
    """A straight line from start to end, both normalised."""
    points = tuple(
        Point(100 * i, 0, 0.0, 8, {"score": 1 + 2 * (start + (last - start) * i / 4)}) for i in range(5)
    )
    return Record(env, form, algorithm, seed, points, points[-1], LEVELS, 3.0)


def runs_of(ends, noise=0.01):
    """Runs of all forms; `ends` gives the level of an algorithm, or of an algorithm in a form."""
    rng, found = np.random.default_rng(0), []
    for env in ENVS:
        for form in FORMS:
            for algorithm in ("mc-tree", "collm-cc", "collm-dc"):
                level = ends.get((algorithm, form), ends[algorithm])
                found += [run(algorithm, form, s, 0.0, level + rng.normal(0, noise), env) for s in range(5)]
    return found


def effect(low, high):
    return Effect("e", Interval((low + high) / 2, low, high, "studentised", 5, None, "", 0.95))


def test_values_by_hand():
    one = run("collm-cc", "dense-h2", 0, 0.2, 0.6)
    assert end(one) == pytest.approx(0.6)
    assert gain(one) == pytest.approx(0.4)
    assert course(one) == pytest.approx(0.4)  # the middle of a straight line


@pytest.mark.parametrize(
    ("rule", "intervals", "verdict"),
    [
        (comparable, [(-0.05, 0.05)], SUPPORTED),
        (comparable, [(-0.05, 0.05), (0.11, 0.3)], REFUTED),
        (comparable, [(-0.05, 0.05), (0.05, 0.3)], OPEN),
        (above, [(0.01, 0.05), (0.2, 0.3)], SUPPORTED),
        (above, [(0.01, 0.5), (-0.2, 0.05)], REFUTED),
        (above, [(0.01, 0.5), (-0.2, 0.3)], OPEN),
        (flat, [(-0.2, 0.05)], SUPPORTED),
        (flat, [(0.05, 0.3)], REFUTED),
        (flat, [(-0.1, 0.3)], OPEN),
        (comparable, [(math.nan, math.nan)], OPEN),  # a single seed decides nothing
        (above, [(math.nan, math.nan)], OPEN),
        (flat, [(math.nan, math.nan)], OPEN),
    ],
)
def test_verdicts(rule, intervals, verdict):
    assert rule([effect(*ends) for ends in intervals]) == verdict


def test_the_papers_picture_is_recognised():
    ends = {"mc-tree": 0.5, "collm-cc": 0.5, "collm-dc": 0.5}
    ends |= {("mc-tree", "sparse-h2"): 0.2, ("mc-tree", "sparse-h4"): 0.2, ("mc-tree", "dense-h4"): 0.3}
    ends |= {("collm-dc", "dense-h4"): 0.0, ("collm-dc", "sparse-h4"): 0.0}
    assert {verdict for *_, verdict in statements(runs_of(ends))} == {SUPPORTED}


def test_its_opposite_is_recognised():
    ends = {"mc-tree": 0.6, "collm-cc": 0.3, "collm-dc": 0.5}
    assert {verdict for *_, verdict in statements(runs_of(ends))} == {REFUTED}


def test_noise_decides_nothing():
    ends = {"mc-tree": 0.4, "collm-cc": 0.5, "collm-dc": 0.45}
    verdicts = [
        verdict for told, _, verdict in statements(runs_of(ends, noise=0.6)) if "converge" not in told
    ]
    assert set(verdicts) == {OPEN}


def test_contrasts_take_common_seeds_only(tmp_path, capsys):
    runs = [run("collm-cc", "sparse-h4", s, 0, 0.5 if s < 3 else 9.0) for s in range(5)]
    runs += [run("cc-lam95", "sparse-h4", s, 0, 0.7) for s in range(3)]
    line = contrasts(runs, [("cc-lam95", "collm-cc")])[-1]
    assert line.startswith("| cc-lam95 | collm-cc | 1 × 3 | +0.20 ")
    with pytest.raises(InputError, match="no place and seed in common"):
        contrasts(runs, [("cc-lam95", "mc-tree")])
    write_results(Results(tuple(runs), {"suite": "made"}), tmp_path / "made.json")
    assert main([str(tmp_path / "made.json"), "--contrasts", "cc-lam95:collm-cc"]) == 0
    assert "| cc-lam95 | collm-cc | 1 × 3 |" in capsys.readouterr().out
    assert main([str(tmp_path / "made.json")]) == 2  # missing runs are said, not guessed
    assert "no finished run of collm-cc in dense-h2" in capsys.readouterr().err
