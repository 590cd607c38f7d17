import textwrap

import pytest

from collm_agents import algorithms
from collm_agents.algorithms import algorithm, find_algorithm, list_algorithms
from collm_envs.errors import SettingError


def test_our_algorithms_are_found_without_an_import():
    assert {"mc", "collm-cc", "collm-dc"} <= {spec.name for spec in list_algorithms()}


def test_an_unknown_algorithm_is_answered_with_the_nearest():
    with pytest.raises(SettingError, match="did you mean 'collm-cc'"):
        find_algorithm("colm-cc")


def test_an_algorithm_of_another_module_is_named_by_its_class(tmp_path, monkeypatch):
    (tmp_path / "outside_algorithm.py").write_text(
        textwrap.dedent(
            """
            from collm_agents.algorithms import algorithm
            from collm_agents.algorithms.mc import MonteCarlo

            @algorithm("outside")
            class Outside(MonteCarlo):
                pass

            class NotRegistered:
                pass
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(algorithms, "_ALGORITHMS", dict(algorithms._ALGORITHMS))  # other tests list them all
    assert find_algorithm("outside_algorithm:Outside").name == "outside"
    with pytest.raises(SettingError, match="no class 'NotRegistered' with @algorithm"):
        find_algorithm("outside_algorithm:NotRegistered")
    with pytest.raises(SettingError, match="importing no_such_module failed"):
        find_algorithm("no_such_module:Thing")


def test_names_are_taken_once_and_a_view_goes_with_owners():
    with pytest.raises(SettingError, match="registered already"):
        algorithm("mc")(type("Again", (), {}))
    with pytest.raises(SettingError, match="makes no critic"):
        algorithm("odd", view="joint")
