import numpy as np
import pytest

from collm_agents.draws import DrawKey, derive

KEY = DrawKey(seed=3, update=5, task="t*0", node=(1, 0), agent="a_0")


def test_equal_keys_draw_the_same_and_a_prefix_stays_the_same():
    again = DrawKey(3, 5, "t*0", (1, 0), "a_0")
    assert (KEY.uniforms(40) == again.uniforms(40)).all()
    assert (KEY.uniforms(100)[:40] == again.uniforms(40)).all()


@pytest.mark.parametrize(
    "other",
    [
        DrawKey(4, 5, "t*0", (1, 0), "a_0"),
        DrawKey(3, 6, "t*0", (1, 0), "a_0"),
        DrawKey(3, 5, "t*1", (1, 0), "a_0"),
        DrawKey(3, 5, "t*0", (10,), "a_0"),
        DrawKey(3, 5, "t*0", (1,), "a_0"),
        DrawKey(3, 5, "t*0", (1, 0), "a_1"),
    ],
)
def test_every_part_of_the_key_changes_the_draws(other):
    assert not np.isin(KEY.uniforms(8), other.uniforms(8)).any()


def test_draws_do_not_touch_or_read_a_global_generator():
    np.random.seed(1)  # noqa: NPY002
    first = KEY.uniforms(4)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert (KEY.uniforms(4) == first).all()
    np.random.seed(1)  # noqa: NPY002
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_draws_are_uniform():
    u = np.concatenate([DrawKey(0, i, "t", (0,), "a").uniforms(50) for i in range(400)])
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square with 19 degrees of freedom, p < 1e-4


def test_first_draws_of_neighbouring_keys_are_uncorrelated():
    first = np.array([DrawKey(0, i, "t", (0,), "a").uniforms(1)[0] for i in range(1000)])
    second = np.array([DrawKey(0, i, "t", (1,), "a").uniforms(1)[0] for i in range(1000)])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12


def test_draws_are_the_same_on_every_platform():
    assert KEY.uniforms(3).tolist() == [0.27771450677003595, 0.01682022011989126, 0.11691011152854902]
    assert derive(1, "env") == 1266713868883511276


def test_derived_seeds_tell_numbers_from_text_and_joints_apart():
    keys = [(1, "2"), (1, 2), ("1", 2), ("12",), ("1", "2"), ("a", "b"), ("ab",), (-1,), (1,)]
    seeds = {derive(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
