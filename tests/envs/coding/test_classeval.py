"""ClassEval: rows, who writes what, feedback, and what never reaches an observation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs import DataError, SettingError, make, play_scripted
from collm_envs.coding.classeval import ClassEval, assign

ID = "coding/classeval-v0"
ROW = {
    "task_id": "C/1",
    "class_name": "Jar",
    "import_statement": ["import math", "import no_such_package"],
    "skeleton": (
        "import math\n\nclass Jar:\n    '''A jar {of} things.'''\n\n    def __init__(self):\n        self.n = 0\n\n"
        "    def count(self):\n        '''How many.'''\n\n    def fill(self, n):\n        '''Put n in.'''\n\n"
        "    @staticmethod\n    def unit():\n        '''The unit.'''\n"
    ),
    "methods_info": [{"method_name": name} for name in ("count", "fill", "unit")],
    "test": (
        "import unittest\n\nclass JarTest(unittest.TestCase):\n    def test_count(self):\n"
        "        self.assertEqual(Jar().count(), math.floor(0.5))\n    def test_fill(self):\n"
        "        self.assertEqual(Jar().fill('zqxj'), 'zqxj 44444')\n    def test_unit(self):\n"
        "        self.assertEqual(Jar.unit(), 'piece')\n"
    ),
    "solution_code": (
        "import math\n\nclass Jar:\n    def __init__(self):\n        self.n = 0\n\n"
        "    def count(self):\n        return self.n\n\n    def fill(self, n):\n        return self._told(n)\n\n"
        "    def _told(self, n):\n        return f'{n} 44444'\n\n"
        "    @staticmethod\n    def unit():\n        return 'piece'\n"
    ),
}


def saved(tmp_path, **fields) -> str:
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps([{key: value for key, value in {**ROW, **fields}.items() if value is not ...}])
    )
    return str(path)


def method(name: str, only_self: bool = False, lines: int = 1):
    return {"name": name, "only_self": only_self, "lines": lines}


def test_params_gives_methods_without_arguments_to_the_first_agent():
    methods = [method("a", True), method("b"), method("c"), method("d", True), method("e")]
    assert assign(methods, 2, "params") == [["a", "d"], ["b", "c", "e"]]
    assert assign(methods, 3, "params") == [["a", "d"], ["b", "e"], ["c"]]
    assert assign(methods, 1, "params") == [["a", "b", "c", "d", "e"]]
    assert assign([method("a"), method("b")], 2, "params") == [[], ["a", "b"]]


def test_balanced_gives_the_longest_first():
    methods = [method("a", lines=3), method("b", lines=9), method("c", lines=4), method("d", lines=5)]
    assert assign(methods, 2, "balanced") == [["a", "b"], ["c", "d"]]  # 9, then 5, then 5 + 4, then 9 + 3
    assert assign(methods, 3, "balanced") == [["b"], ["d"], ["a", "c"]]
    assert assign(methods, 6, "balanced") == [["b"], ["d"], ["c"], ["a"], [], []]


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("how", ["params", "balanced"])
def test_every_method_is_dealt_once(count, how):
    env = make(ID, num_agents=count, assignment=how)
    for task in env.tasks:
        dealt = env.methods_of(task)
        assert list(dealt) == env.possible_agents
        names = [name for methods in dealt.values() for name in methods]
        assert sorted(names) == sorted(m["name"] for m in task.public["methods"])


def test_a_row(tmp_path):
    env = make(ID, source=saved(tmp_path), split="all")
    task = env.tasks[0]
    assert [(m["name"], m["parameters"], m["only_self"]) for m in task.public["methods"]] == [
        ("count", ("self",), True),
        ("fill", ("self", "n"), False),
        ("unit", (), False),
    ]
    assert task.hidden["setup"] == "import math"  # the tests use nothing else
    observations, _ = env.reset(options={"task": task})
    assert all("A jar {of} things." in text for text in observations.values())
    assert "Your part: `count`." in observations["method_0"]
    assert "Your part: `fill`, `unit`." in observations["method_1"]


def test_imports_of_the_class_stand_in_the_program(tmp_path):
    env = make(ID, source=saved(tmp_path, import_statement=["import math"]), split="all")
    assert play_scripted(env, "oracle", env.tasks)[0]["score"] == 6


def test_a_skeleton_that_is_no_python_is_taken_from_the_reference(tmp_path):
    broken = ROW["skeleton"].replace("'''The unit.'''", "”“”The unit.”“”")
    env = make(ID, source=saved(tmp_path, skeleton=broken, import_statement=[]), split="all")
    task = env.tasks[0]
    assert "”“”" in task.public["skeleton"]
    assert "44444" not in task.public["shell"]
    assert "self.n = 0" in task.public["shell"]
    assert play_scripted(env, "oracle", env.tasks)[0]["score"] == 6
    env.reset(options={"task": task})
    *_, infos = env.step(dict.fromkeys(env.agents, ""))
    assert infos["method_0"]["score"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"skeleton": "class Other:\n    pass"}, "row 1, field 'skeleton': no class 'Jar'"),
        ({"skeleton": "class Jar(", "solution_code": "class ("}, "'solution_code'.*not Python"),
        ({"methods_info": [{"method_name": "lost"}]}, "'methods_info'.*'lost'"),
        ({"methods_info": []}, "'methods_info'"),
        ({"methods_info": ["count"]}, "'methods_info'"),
        ({"methods_info": None}, "'methods_info'"),
        ({"import_statement": "import math"}, "'import_statement'.*list of strings"),
        ({"import_statement": ["import ("]}, "'import_statement'.*not Python"),
        ({"test": "class ("}, "'test'.*not Python"),
        ({"test": "x = 1"}, "field 'test': no unittest.TestCase"),
        ({"test": ...}, "needs the fields"),
    ],
)
def test_a_broken_row_is_one_line_that_names_it(fields, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        make(ID, source=saved(tmp_path, **fields), split="all").reset(options={"task": 0})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'rows.json'}, row 1")


def test_methods_may_come_as_columns(tmp_path):
    columns = {"method_name": ["count", "fill", "unit"]}
    tasks = [
        make(ID, source=saved(tmp_path, **f), split="all").tasks[0] for f in ({}, {"methods_info": columns})
    ]
    assert tasks[0] == tasks[1]


def test_an_unknown_assignment_is_an_error():
    with pytest.raises(SettingError, match="assignment='equal'"):
        make(ID, assignment="equal")


def test_an_agent_without_methods_is_told_so():
    env = make(ID, num_agents=8)
    observations, _ = env.reset(seed=0)
    idle = [agent for agent, methods in env.methods_of(env.task).items() if not methods]
    assert idle
    assert all("you have none to write" in observations[agent] for agent in idle)


def second(tmp_path, *replies: str, **settings):
    env = make(ID, source=saved(tmp_path, import_statement=["import math"]), split="all", **settings)
    env.reset(options={"task": 0})
    observations, *_ = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    return {agent: text.split("\n") for agent, text in observations.items()}


COUNT = "def count(self):\n    return self.n"


def test_feedback_is_on_the_own_methods(tmp_path):
    told = second(tmp_path, COUNT, "def fill(self, n:\n    return n\n\ndef count(self):\n    return 0")
    assert told["method_0"] == [
        "Your method `count` was found.",
        "More than one of you wrote `count`.",
        "Tests passed: 1 of 3.",
        "Failed: JarTest.test_fill, JarTest.test_unit.",
        "Write your part again.",
    ]
    assert told["method_1"][0].startswith("Your method `fill` does not parse: line 1, column 9: ")
    assert told["method_1"][1] == "Your method `unit` is missing."
    assert told["method_1"][2:] == told["method_0"][1:]


def test_plain_feedback(tmp_path):
    assert second(tmp_path, COUNT, "", feedback="plain")["method_1"] == ["Write your part again."]


REPLIES = [
    COUNT,
    "def fill(self, n):\n    raise ValueError(n)",
    "def fill(self, n):\n    return f'{n} 44443'",
    "def count(self):\n    import gc\n    raise ValueError(str(gc.get_objects()))",
    "def fill(self, n:\n    raise ValueError(n)",
    "raise ValueError('x')\ndef unit(): return 1",
    "",
]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ClassEval.feedback_modes), st.lists(st.sampled_from(REPLIES), min_size=4, max_size=4))
def test_no_observation_holds_hidden_text(tmp_path_factory, mode, replies):
    source = saved(tmp_path_factory.mktemp("rows"), import_statement=["import math"])
    env = make(ID, num_turns=3, feedback=mode, source=source, split="all")
    observations, _ = env.reset(options={"task": 0})
    texts = [*observations.values()]
    for turn in (replies[:2], replies[2:]):
        observations, *_ = env.step(dict(zip(env.possible_agents, turn, strict=True)))
        texts += observations.values()
    hidden = [line.strip() for line in ROW["test"].split("\n") if "assert" in line]
    assert not any(word in text for text in texts for word in ("zqxj", "44444", "44443", *hidden))


def test_builtin_classes_are_solved_by_every_team():
    for count, how in ((1, "params"), (2, "params"), (5, "balanced")):
        for split in ("train", "test"):
            env = make(ID, num_agents=count, assignment=how, split=split)
            played = play_scripted(env, "oracle", env.tasks)
            assert all(record["score"] == 6 and record["success"] for record in played)
            assert not any(record["metrics"]["inproc"] for record in played)
