"""Coding scores worked by hand: every expectation is a figure or arithmetic written here."""

from __future__ import annotations

import pickle

import pytest

from collm_envs import make
from collm_envs.coding import rules
from collm_envs.coding.rules import ClassRun, FunctionRun
from collm_envs.reward import RewardModel
from collm_envs.sandbox import RunResult, TestResult
from collm_envs.task import Task

NAMES = ("aux_defined", "main_defined", "syntax", "tests", "aux_used", "own_work")
ADD_TWICE = Task(
    "t",
    {
        "prompt": "def f(x):\n    '''Add three, then double.'''",
        "entry_point": "f",
        "parameters": ["x"],
        "given": "",
        "visible": ["assert f(1) == 8"],
        "examples": ["assert f(1) == 8"],
    },
    {"tests": ["assert f(2) == 10", "assert f(3) == 12", "assert f(-3) == 0"], "setup": "", "names": {}},
)
AUX = "def aux(x):\n    return x + 3"
BOTH = "def aux(x):\n    return (x + 3) * 2"
SAME = "def aux(x):\n    return x"


def play(aux: str, main: str, **settings):
    env = make("coding/humaneval-v0", num_turns=1, **settings)
    env.reset(seed=0, options={"task": ADD_TWICE})
    *_, infos = env.step({"aux_0": aux, "main_1": main})
    return infos["aux_0"]


FUNCTIONS = {  # aux, main, and the six parts as far as they are not 0
    "all": (AUX, "def f(x):\n    return aux(x) * 2", (0.4, 0.6, 0.5, 1, 0.5, 1)),
    "nothing": ("", "", ()),
    "aux_alone": (AUX, "no code", (0.4,)),
    "main_alone": ("no code", "def f(x):\n    return (x + 3) * 2", (0, 0.6, 0.5, 1)),
    "thin_wrapper": (BOTH, "def f(x):\n    return aux(x)", (0.4, 0.6, 0.5, 1, 0.5)),
    "thin_through_a_name": (
        BOTH,
        "def f(x):\n    y = aux(x)\n    return y",
        (0.4, 0.6, 0.5, 1, 0.5),
    ),
    "thrown_away": (AUX, "def f(x):\n    aux(x)\n    return (x + 3) * 2", (0.4, 0.6, 0.5, 1, 0, 1)),
    "half_of_the_tests": (
        AUX,
        "def f(x):\n    return aux(x) * 2 if x > 1 else 0",
        (0.4, 0.6, 0.5, 3 / 4, 0.5, 1),
    ),
    "one_test": (
        AUX,
        "def f(x):\n    return aux(x) - 4 if x == 1 else aux(x) * 0",
        (0.4, 0.6, 0.5, 1 / 4, 0.5, 1),
    ),
    "no_test": (AUX, "def f(x):\n    return aux(x) * 3 + 1", (0.4, 0.6, 0.5)),
    "main_without_return": (AUX, "def f(x):\n    print(aux(x))", (0.4,)),
    "aux_without_return": ("def aux(x):\n    x + 3", "def f(x):\n    return (x + 3) * 2", (0, 0.6, 0.5, 1)),
    "aux_without_return_called": (
        "def aux(x):\n    x + 3",
        "def f(x):\n    aux(x)\n    return (x + 3) * 2",
        (0, 0.6, 0.5, 1),
    ),
    "aux_broken": ("def aux(x):\n    return (x", "def f(x):\n    return aux(x) * 2", (0.4, 0.6)),
    "main_broken": (AUX, "def f(x):\n    return aux(x", (0.4, 0.6)),
    "both_broken": ("def aux(x:\n    return x", "def f(x:\n    return x", (0.4, 0.6)),
    "main_redefines_aux": (SAME, AUX + "\ndef f(x):\n    return aux(x) * 2", (0.4, 0.6, 0.5)),
    "parts_in_each_others_replies": ("def f(x):\n    return 8", AUX, ()),
    "error_in_aux": ("def aux(x):\n    return x / 0", "def f(x):\n    return aux(x) * 2", (0.4, 0.6, 0.5)),
    "error_while_loading": (
        "import nothing_here\n" + AUX,
        "def f(x):\n    return aux(x) * 2",
        (0.4, 0.6, 0.5),
    ),
    "exits": (AUX, "import sys\ndef f(x):\n    sys.exit(0)\n    return aux(x)", (0.4, 0.6, 0.5)),
    "equal_to_everything": (
        AUX,
        "class E:\n    def __eq__(self, other):\n        return True\n\ndef f(x):\n    aux(x)\n    return E()",
        (0.4, 0.6, 0.5),
    ),
}


@pytest.mark.parametrize("formula", ["paper", "release"])
@pytest.mark.parametrize(("aux", "main", "parts"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_by_hand(aux, main, parts, formula):
    info = play(aux, main, formula=formula)
    expected = dict(zip(NAMES, [*parts, *[0] * (6 - len(parts))], strict=True))
    assert info["reward_parts"] == pytest.approx(expected)
    assert info["success"] is (expected["tests"] == 1)


@pytest.mark.parametrize(
    ("aux", "main", "paper", "release"),
    [
        (AUX, "def f(x):\n    return (x + 3) * 2", 2.5, 3.5),
        (AUX, "def f(x):\n    _: aux = 0\n    return (x + 3) * 2", 2.5, 3.5),
        ("no code", "def f(x):\n    return (x + 3) * 2", 2.1, 2.1),
        (AUX, "def f(x):\n    return 7", 1.5, 1.5),  # no test passes
        (AUX, "def f(x):\n    return aux(x) * 2", 4, 4),
        (BOTH, "def f(x):\n    return aux(x)", 3, 3),
    ],
)
def test_own_work_without_a_call_is_paid_by_release_alone(aux, main, paper, release):
    scores = [play(aux, main, formula=formula)["score"] for formula in ("paper", "release")]
    assert scores == pytest.approx([paper, release])


def test_success_needs_no_helper_and_the_greatest_score_does():
    env = make("coding/humaneval-v0")
    assert (env.low, env.high) == (0, 4)
    alone = play("no code", "def f(x):\n    return (x + 3) * 2")
    assert (alone["score"], alone["success"]) == (pytest.approx(2.1), True)


def test_further_helpers_are_paid_like_the_first():
    assert [make("coding/mbpp-v0", num_agents=n).high for n in (1, 2, 3, 4)] == pytest.approx(
        [4, 4, 4.9, 5.8]
    )
    env = make("coding/mbpp-v0", num_agents=4, num_turns=1)
    env.reset(seed=0, options={"task": ADD_TWICE})
    replies = {
        "aux_0": AUX,
        "main_1": "def f(x):\n    return aux2(aux(x)) + 0",
        "aux_2": "def aux2(x):\n    return x * 2",
        "aux_3": "def aux3(x):\n    return x",
    }
    *_, infos = env.step(replies)
    expected = (3 * 0.4, 0.6, 0.5, 1, 2 * 0.5, 1)
    assert infos["aux_3"]["reward_parts"] == pytest.approx(dict(zip(NAMES, expected, strict=True)))
    assert infos["aux_3"]["metrics"]["aux_use"] == pytest.approx(2 / 3)


def test_time_outs_are_counted_and_scored():
    slow = RunResult((TestResult("a", "pass"), TestResult("b", "timeout"), TestResult("c", "timeout")))
    run = FunctionRun(("aux",), "f", slow)
    assert rules.function_metrics(run)["timeouts"] == 2
    assert rules.tests(run) == pytest.approx(1 / 3)
    assert (rules.TIME_LIMIT_S["paper"], rules.TIME_LIMIT_S["release"]) == (8, 10)


def test_a_run_without_facts_earns_nothing():
    for result in (RunResult(()), RunResult((TestResult("a", "pass"),))):
        score = RewardModel(rules.function_levels(["aux"]))(FunctionRun(("aux",), "f", result))
        assert score.total == 0
        model = RewardModel((rules.methods, rules.class_tests, rules.duplicates))
        assert model(ClassRun(("m",), result)).total == 0


def test_components_are_picklable_and_hold_their_own_ranges():
    one, three = (pickle.loads(pickle.dumps(rules.function_levels(["aux"] * n))) for n in (1, 3))
    assert [c.high for c in one] == pytest.approx([0.4, 0.6, 0.5, 1, 0.5, 1])
    assert [c.high for c in three] == pytest.approx([1.2, 0.6, 0.5, 1, 1.5, 1])
    assert [c.component_name for c in one if c.gate] == ["main_defined", "syntax", "tests"]


def test_weights_of_zero_open_no_level_behind_failed_tests():
    info = play(AUX, "def f(x):\n    return aux(x) * 3 + 1", rewards={"tests": 0})
    assert info["score"] == pytest.approx(0.4 + 0.6 + 0.5)


def test_inproc_is_counted():
    result = RunResult((TestResult("a", "pass"), TestResult("b", "fail")), trust="inproc")
    assert rules.function_metrics(FunctionRun(("aux",), "f", result))["inproc"] == 1


# -- classes ---------------------------------------------------------------------------------------------------

SKELETON = "class Box:\n" + "".join(
    f"    def {name}(self{more}):\n        '''Text.'''\n\n"
    for name, more in (("one", ""), ("two", ""), ("add", ", x"))
)
TESTS = """
import unittest
class BoxTest(unittest.TestCase):
    def test_one(self):
        self.assertEqual(Box().one(), 1)
    def test_two(self):
        self.assertEqual(Box().two(), 2)
    def test_add(self):
        self.assertEqual(Box().add(4), 5)
    def test_all(self):
        box = Box()
        self.assertEqual([box.one(), box.two(), box.add(1)], [1, 2, 2])
"""
BOX = Task(
    "box",
    {
        "class_name": "Box",
        "skeleton": SKELETON,
        "shell": SKELETON,
        "imports": [],
        "methods": [
            {"name": "one", "parameters": ["self"], "only_self": True, "lines": 2},
            {"name": "two", "parameters": ["self"], "only_self": True, "lines": 2},
            {"name": "add", "parameters": ["self", "x"], "only_self": False, "lines": 2},
        ],
    },
    {"test": TESTS, "setup": "", "solution_code": ""},
)
ONE, TWO = "def one(self):\n    return 1", "def two(self):\n    return self.one() + 1"
ADD = "def add(self, x):\n    return x + self.one()"

CLASSES = {  # replies of the two agents; valid of 3, passed of 4, duplicated of 3
    "all": (f"{ONE}\n{TWO}", ADD, 3, 4, 0),
    "nothing": ("", "", 0, 0, 0),
    "first_agent_alone": (f"{ONE}\n{TWO}", "", 2, 2, 0),
    "second_agent_alone": ("", ADD, 1, 0, 0),
    "second_agent_writes_all": ("", f"{ONE}\n{TWO}\n{ADD}", 1, 0, 0),
    "both_write_all": (f"{ONE}\n{TWO}\n{ADD}", f"{ONE}\n{TWO}\n{ADD}", 3, 4, 3),
    "one_duplicated": (f"{ONE}\n{TWO}\n{ADD}", ADD, 3, 4, 1),
    "swapped": (ADD, f"{ONE}\n{TWO}", 0, 0, 0),
    "one_broken": (f"{ONE}\n\ndef two(self:\n    return 2", ADD, 2, 2, 0),
    "one_does_not_compile": (f"{ONE}\n\ndef two(self):\n    break", ADD, 2, 2, 0),
    "one_wrong": (f"{ONE}\n\ndef two(self):\n    return 3", ADD, 3, 2, 0),
    "one_raises": (f"{ONE}\n\ndef two(self):\n    raise ValueError", ADD, 3, 2, 0),
    "fails_to_load": (f"import nothing_here\n{ONE}\n{TWO}", ADD, 3, 0, 0),
    "duplicate_is_broken": (f"{ONE}\n{TWO}\n\ndef add(self:\n    return", ADD, 3, 4, 1),
    "twice_in_one_reply": (f"{ONE}\n{ONE}\n{TWO}", ADD, 3, 4, 0),
    "equal_to_everything": (
        f"class E:\n    def __eq__(self, other):\n        return True\n\n{TWO}\ndef one(self):\n    return E()",
        ADD,
        3,
        0,
        0,
    ),
}


@pytest.mark.parametrize("formula", ["paper", "release"])
@pytest.mark.parametrize(("first", "second", "valid", "passed", "twice"), CLASSES.values(), ids=CLASSES)
def test_classes_by_hand(first, second, valid, passed, twice, formula):
    env = make("coding/classeval-v0", num_turns=1, formula=formula)
    env.reset(seed=0, options={"task": BOX})
    *_, infos = env.step({"method_0": first, "method_1": second})
    info = infos["method_0"]
    expected = {"methods": 2 * valid / 3, "tests": 4 * passed / 4, "duplicates": -twice / 3}
    assert info["reward_parts"] == pytest.approx(expected)
    assert info["success"] is (passed == 4)
    assert info["metrics"]["valid_rate"] == pytest.approx(valid / 3)
    assert info["metrics"]["duplicate_rate"] == pytest.approx(twice / 3)


def test_the_range_of_classes():
    env = make("coding/classeval-v0")
    assert (env.low, env.high) == (-1, 6)


def test_a_class_that_does_not_parse_earns_nothing():
    facts = {"parses": False, "methods": {"m": {"valid": True}}, "duplicated": ["m"]}
    run = ClassRun(("m",), RunResult((TestResult("t", "pass"),), facts))
    assert (rules.methods(run), rules.class_tests(run), rules.duplicates(run)) == (0, 0, 0)
    run = ClassRun(("m",), RunResult((TestResult("t", "fail"),), {**facts, "parses": True}))
    assert (rules.methods(run), rules.class_tests(run), rules.duplicates(run)) == (2, 0, -1)
