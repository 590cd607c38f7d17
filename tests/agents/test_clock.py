import time

import pytest

from collm_agents.clock import PHASES, Clock


def test_nested_phases_are_exclusive_and_add_up_to_the_wall_time():
    begun = time.perf_counter()
    clock = Clock()
    with clock.phase("decode"):
        time.sleep(0.03)
        with clock.phase("env"):
            time.sleep(0.05)
        time.sleep(0.01)
    time.sleep(0.02)
    seconds, wall = clock.read(), time.perf_counter() - begun
    assert set(seconds) == set(PHASES)
    assert seconds["decode"] == pytest.approx(0.04, abs=0.02)
    assert seconds["env"] == pytest.approx(0.05, abs=0.02)
    assert seconds["other"] == pytest.approx(0.02, abs=0.02)
    assert sum(seconds.values()) == pytest.approx(wall, abs=2e-3)


def test_an_error_inside_a_phase_ends_it():
    clock = Clock()
    with pytest.raises(ValueError, match="broken"), clock.phase("actor"):
        raise ValueError("broken")
    before = clock.read()
    time.sleep(0.02)
    spent = clock.since(before)
    assert spent["other"] >= 0.02
    assert spent["actor"] == 0


def test_time_measured_elsewhere_is_moved_and_the_sum_stays():
    clock = Clock()
    with clock.phase("env"):
        time.sleep(0.02)
    before = clock.read()
    clock.move(0.015, "env", "judge_wait")
    after = clock.read()
    assert after["judge_wait"] == pytest.approx(0.015)
    assert after["env"] == pytest.approx(before["env"] - 0.015)


def test_an_unknown_phase_is_an_error():
    clock = Clock()
    with pytest.raises(KeyError), clock.phase("sleep"):
        pass
