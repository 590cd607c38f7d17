"""Which tests are judged how, and that nothing expected is in what the program is sent."""

from __future__ import annotations

import json

import pytest

from collm_envs.errors import InputError
from collm_envs.sandbox.codec import decode
from collm_envs.sandbox.plan import check_function, operator_classes, plan, prompt_helpers
from collm_envs.sandbox.results import Asserts, UnitTests


def test_one_call_per_assert_goes_by_calls():
    chosen = plan(Asserts(["assert f([1] * 3, key='a' * 2) == -2**31", "assert not g(float('inf'))"]))
    assert chosen.mode == "calls"
    assert chosen.names == ("assert f([1] * 3, key='a' * 2) == -2**31", "assert not g(float('inf'))")
    (first, name, args, kwargs), (second, other, more, none) = chosen.calls
    assert (first, name, second, other) == (0, "f", 1, "g")
    assert (decode(args), decode(kwargs)) == ([[1, 1, 1]], {"key": "aa"})
    assert (decode(more), decode(none)) == ([float("inf")], {})


def test_expected_values_are_not_in_the_calls():
    wire = json.loads(
        json.dumps(plan(Asserts(["assert f(2) == 987654", "assert abs(f(3) - 0.7654321) < 1"])).wire())
    )
    calls = json.dumps(wire["calls"])
    assert "987654" in json.dumps(wire["expects"])
    assert "987654" not in calls
    assert "7654321" not in calls


@pytest.mark.parametrize(
    "statement",
    [
        "assert f(2) == f(3)",
        "assert f(x) == 1",
        "assert f(*[1]) == 1",
        "assert f(2).x == 1",
        "assert f(lambda y: y) == 1",
        "assert open('a')",
        "assert True",
        "for i in range(3):\n    assert f(i) == i",
        "x = f(1)\nassert x == 1",
        "assert f(1) == print(2)",
        "assert f('a' * 10**9) == 1",
        "assert f(2**10**9) == 1",
        "assert f(2) == eval('4')",
        "assert f(2) == 1 or f(3)",
    ],
)
def test_what_is_not_one_call_with_constants_is_run(statement):
    chosen = plan(Asserts([statement]))
    assert chosen.mode == "asserts"
    assert chosen.calls == ()


def test_names_of_the_setup_and_of_python_are_not_the_programs():
    assert plan(Asserts(["assert g(2) == 4"], "def g(x): return 4")).mode == "asserts"
    assert plan(Asserts(["assert f(2) == sorted([2, 1])"], "sorted = 3")).mode == "asserts"
    assert plan(Asserts(["assert sorted([2, 1]) == [1, 2]"])).mode == "asserts"
    assert plan(Asserts(["assert f(2) == 4"], "import os\nos.getcwd()")).mode == "asserts"
    assert plan(Asserts(["assert f(2) == 4"], "import os\nX = {'a': 1}")).mode == "calls"
    chosen = plan(Asserts(["assert max(2) == 4"], names={"max": "largest"}))
    assert chosen.calls[0][1] == "largest"


def test_one_assert_that_must_be_run_takes_the_others_along():
    chosen = plan(Asserts(["assert f(2) == 4", "assert f(f(1)) == 4"]))
    assert chosen.mode == "asserts"
    assert chosen.tests["statements"] == ["assert f(2) == 4", "assert f(f(1)) == 4"]


UNIT = """
import unittest
class Base(unittest.TestCase):
    def setUp(self): self.thing = Thing()
    def test_b(self): self.assertEqual(self.thing.f(), 1)
    def test_a(self): pass
    def helper(self): pass
class Derived(Base):
    def test_c(self): pass
class Other:
    def test_d(self): pass
"""


def test_unittest_names_come_from_the_source():
    chosen = plan(UnitTests(UNIT))
    assert chosen.mode == "unittest"
    names = ("Base.test_a", "Base.test_b", "Derived.test_a", "Derived.test_b", "Derived.test_c")
    assert chosen.names == names


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("with unittest.mock.patch('builtins.print') as p: f(1)", "patches"),
        ("with mock.patch.object(random, 'random'): f(1)", "patches"),
        ("with redirect_stdout(io.StringIO()): f(1)", "redirect_stdout"),
        ("sys.stdout = io.StringIO()", "sys.stdout"),
        ("import time; time.time = lambda: 0", "changes the module time"),
        ("with self.assertLogs(): f(1)", "assertLogs"),
        ("import inspect; inspect.getsource(f)", "inspects"),
        ("class Mine(Theirs): pass", "derives a class from the program's Theirs"),
        ("import os; os.environ['A'] = 'b'", "changes the process"),
    ],
)
def test_tests_that_reach_into_the_programs_process(line, reason):
    source = f"import unittest\nclass T(unittest.TestCase):\n  def test_a(self):\n    {line}\n"
    chosen = plan(UnitTests(source))
    assert chosen.mode == "inproc"
    assert reason in chosen.reason


def test_harmless_look_alikes_stay_outside():
    for line in (
        "obj.patched = 1",
        "import os; os.path.join('a')",
        "class Mine(Exception): pass",
        "m = MagicMock()",
    ):
        source = f"import unittest\nclass T(unittest.TestCase):\n  def test_a(self):\n    {line}\n"
        assert plan(UnitTests(source)).mode == "unittest", line


def test_classes_that_the_tests_calculate_with():
    import ast

    source = "v = Vector(1)\nw = v * 2\nassert Money(5) < 6\nassert f(2) - 4 < 1\nassert Other(1) == 1"
    assert operator_classes(ast.parse(source)) == ["Money", "Vector"]


CHECK = """
METADATA = {"author": "x"}
import math
def check(candidate):
    assert True, "harmless"
    low = 3
    assert candidate(low) == 6, "text"
    for i in range(2):
        assert candidate(i) == 2 * i
    low = 4
    assert candidate(low) == 8
"""


def test_check_functions_become_asserts():
    tests = check_function(CHECK, "double")
    assert tests.names == {"candidate": "double"}
    assert tests.statements == (
        "assert candidate(low) == 6, 'text'",
        "for i in range(2):\n    assert candidate(i) == 2 * i",
        "low = 4\nassert candidate(low) == 8",
    )
    assert tests.setup == "METADATA = {'author': 'x'}\nimport math\nlow = 3"


def test_prompts_give_their_complete_definitions():
    twice = 'def twice(x):\n    """Doc."""\n    return K * x\n'
    prompt = f'import math\nK = 2\n{twice}\ndef f(x):\n    """To write."""\n'
    assert prompt_helpers(prompt, "f") == (
        'import math\nK = 2\n\ndef twice(x):\n    """Doc."""\n    return K * x'
    )
    assert prompt_helpers('def g(x):\n    """Only a docstring."""\ndef f(x):\n    pass\n', "f") == ""


@pytest.mark.parametrize(
    "tests",
    [
        Asserts([]),
        Asserts(["assert f(2 == 4"]),
        Asserts(["assert f(2) == 4"], "import"),
        UnitTests("x = 1"),
        UnitTests("class T("),
        UnitTests("class T:\n    def test_a(self): pass"),
    ],
)
def test_tests_that_are_none_are_an_error_of_the_author(tests):
    with pytest.raises(InputError):
        plan(tests)


@pytest.mark.parametrize(
    "source", ["x = 1", "def check(c):\n    assert True", "def check(): pass", "def check("]
)
def test_check_functions_without_a_test_are_an_error(source):
    with pytest.raises(InputError):
        check_function(source, "f")


def test_the_same_tests_are_planned_once():
    assert plan(Asserts(["assert f(8) == 9"])) is plan(Asserts(["assert f(8) == 9"]))
