"""Programs made of replies: what is kept, what is left out, and the facts about it."""

from __future__ import annotations

import json

import pytest

from collm_envs.coding import assemble


def build(aux: str, main: str, given: str = "", **more):
    replies = [{"text": aux, "functions": ["aux"]}, {"text": main, "functions": ["f"]}]
    return assemble.function({"replies": replies, "entry": "f", "given": given, **more})


def run(code: str, name: str = "f"):
    space: dict = {}
    exec(code, space)
    return space[name]


AUX = "def aux(x):\n    return x + 3"
MAIN = "def f(x):\n    return aux(x) * 2"


def test_the_parts_run_together():
    code, facts = build(AUX, MAIN)
    assert run(code)(2) == 10
    assert facts["parses"]
    assert facts["functions"]["aux"] == {
        "found": True,
        "returns": True,
        "error": None,
        "called": True,
        "thrown": False,
    }
    json.dumps(facts)


@pytest.mark.parametrize(
    ("aux", "main", "argument", "value"),
    [
        ("import math\n" + "def aux(x): return math.floor(x)", MAIN, 2.5, 4),
        ("def aux(x): return math.floor(x)", MAIN, 2.5, 4),  # forgotten imports
        ("def aux(x): return Counter(x).most_common(1)[0][1]", MAIN, "aab", 4),
        ("def aux(x: List[int]) -> Optional[int]: return x[0]", MAIN, [4], 8),
        ("@lru_cache(None)\ndef aux(x): return x", MAIN, 4, 8),
        ("from __future__ import annotations\ndef aux(x: Foo): return x", MAIN, 4, 8),
        ("K = 2\nL = K + 1\ndef aux(x): return x * L", MAIN, 2, 12),
        ("def one(): return 1\ndef aux(x): return x + one()", MAIN, 2, 6),
        ("class P:\n    def get(self): return 5\ndef aux(x): return P().get()", MAIN, 0, 10),
        (AUX, "print(f(1))\nresult = aux(1)\ndef f(x): return aux(x)", 2, 5),  # code that defines nothing
        (AUX, "def f(x): return aux(x)\nassert f(1) == 99\nwhile True: pass", 2, 5),
        (AUX, "def f(x): return 0\ndef f(x): return aux(x)", 2, 5),  # the last one counts
        (AUX + "\ndef f(x): return -1", MAIN, 2, 10),  # main is the main agent's
        (AUX, "def aux(x): return -1\n" + MAIN, 2, 10),  # and aux the helper's
        ("def g(): return 1\ndef aux(x): return g()", "def g(): return 9\ndef f(x): return aux(x) + g()", 0, 2),
        ("K = 1\ndef aux(x): return K", "K = 9\ndef f(x): return aux(x) + K", 0, 2),
        ("def aux(x): return f'{x!r:>4}'", "def f(x): return aux(x)", 1, "   1"),
        ("def aux(x): return '\\n'.join(x)", "def f(x): return aux(x)", "ab", "a\nb"),
        ("aux = 3\ndef aux(x): return 7", "def f(x): return aux(x)", 1, 7),
        ("async def aux(x): return 1", "def f(x): return aux(x).__class__.__name__", 1, "coroutine"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_a_program_is_made_of(aux, main, argument, value):
    assert run(build(aux, main)[0])(argument) == value


def test_helpers_of_the_problem_are_there_and_stay():
    given = "import math\ndef poly(x):\n    return math.floor(x)"
    code, _ = build("def poly(x): return -1\ndef aux(x): return poly(x)", MAIN, given)
    assert run(code)(2.5) == 4


def test_a_partners_function_is_left_out_and_told():
    code, facts = build(AUX, "def aux(x): return 0\n" + MAIN)
    assert facts["redefined"] == [[["f"], "aux"]]
    assert "return 0" not in code
    code, facts = build("no code", "def aux(x): return 0\n" + MAIN)  # it does not stand in for a missing one
    assert "def aux" not in code
    assert not facts["functions"]["aux"]["found"]


@pytest.mark.parametrize(
    ("aux", "main", "states"),
    [
        ("", MAIN, (False, False, True, True, True)),
        (AUX, "", (True, True, False, False, False)),
        ("def aux(x):\n    print(x)", MAIN, (True, False, True, True, True)),
        ("def aux(x):\n    return", MAIN, (True, False, True, True, True)),  # returns no value
        ("def aux(x):\n    def g():\n        return 1", MAIN, (True, False, True, True, True)),
        ("def aux(x):\n    yield x", MAIN, (True, True, True, True, True)),
        ("def aux(x):\n    return (x", MAIN, (True, True, True, True, False)),
        (AUX, "def f(x):\n    return aux(x", (True, True, True, True, False)),
        ("def aux(x):\n    break\n    return 1", MAIN, (True, True, True, True, False)),  # does not compile
        ("def aux(x, x):\n    return 1", MAIN, (True, True, True, True, False)),
        ("def g(x:\n    return\n" + AUX, MAIN, (True, True, True, True, True)),  # broken, but nobody's part
    ],
)
def test_facts(aux, main, states):
    code, facts = build(aux, main)
    aux_state, main_state = facts["functions"]["aux"], facts["functions"]["f"]
    found = (aux_state["found"], aux_state["returns"], main_state["found"], main_state["returns"])
    assert (*found, facts["parses"]) == states
    assert (code is not None) == facts["parses"]


def test_too_deep_a_program_is_no_program():
    deep = "def aux(x):\n    return " + "[1]+" * 5000 + "[1]"
    code, facts = build(deep, MAIN)
    assert code is None
    assert facts["functions"]["aux"]["error"][2].startswith("RecursionError")


def test_a_defect_of_the_recipe_is_told():
    code, facts = assemble.function({"replies": []})
    assert code is None
    assert facts == {"fault": "KeyError: 'entry'"}


def test_one_agent_writes_both():
    replies = [{"text": f"{AUX}\n{MAIN}", "functions": ["aux", "f"]}]
    code, facts = assemble.function({"replies": replies, "entry": "f"})
    assert run(code)(2) == 10
    assert facts["redefined"] == []


# -- classes ---------------------------------------------------------------------------------------------------

SKELETON = """
import re

class Box:
    def __init__(self, size):
        self.size = size

    def put(self, thing):
        '''Put a thing in.'''

    @staticmethod
    def unit():
        '''The unit.'''

    def full(self):
        '''Whether it is full.'''
"""


def merge(*texts: str, dealt=(("put", "unit"), ("full",)), skeleton: str = SKELETON):
    replies = [{"text": text, "methods": list(names)} for text, names in zip(texts, dealt, strict=True)]
    return assemble.methods({"replies": replies, "class_name": "Box", "skeleton": skeleton, "imports": []})


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.split("\n"))


PUT = "def put(self, thing):\n    self.thing = thing\n    return thing"
UNIT = "@staticmethod\ndef unit():\n    return 'cm'"
FULL = "def full(self):\n    return hasattr(self, 'thing')"


@pytest.mark.parametrize(
    "texts",
    [
        (f"{PUT}\n\n{UNIT}", FULL),
        (f"```python\n{PUT}\n\n{UNIT}\n```", f"Mine:\n```python\n{FULL}\n```"),
        (f"class Box:\n{indent(PUT)}\n{indent(UNIT)}", FULL),
        (f"{PUT}\n\ndef unit():\n    return 'cm'", FULL),  # the skeleton's decorator stays
        (f"{PUT}\n{UNIT}\n{FULL.replace('return', 'return not')}", FULL),  # another's method is ignored
        (f"def put(self, thing):\n    return 0\n{PUT}\n{UNIT}", FULL),  # the last one counts
        (f"{indent(PUT)}\n\n{indent(UNIT)}", FULL),
        (f"class Box:\n    def __init__(self):\n        pass\n\n{indent(PUT)}\n{indent(UNIT)}", FULL),
    ],
    ids=range(8),
)  # fmt: skip
def test_methods_are_merged(texts):
    code, facts = merge(*texts)
    box = run(code, "Box")(3)
    assert (box.size, box.full(), box.put(4), box.full(), box.unit()) == (3, False, 4, True, "cm")
    assert facts["parses"]
    assert all(state["valid"] for state in facts["methods"].values())
    json.dumps(facts)


def test_missing_broken_and_duplicated_methods():
    code, facts = merge(f"{PUT}\n{FULL}", f"{FULL}\n{PUT}\ndef unit(:\n    pass")
    assert facts["duplicated"] == ["full", "put"]
    assert facts["methods"]["unit"] == {"found": False, "valid": False, "error": None}
    assert run(code, "Box")(1).unit() is None  # the skeleton's
    code, facts = merge(PUT, "def full(self)\n    return 1")
    assert facts["methods"]["full"]["error"][0] == 1
    assert facts["methods"]["put"]["valid"]
    assert facts["parses"]
    code, facts = merge(PUT, "def full(self):\n    break")
    assert (facts["methods"]["full"]["found"], facts["methods"]["full"]["valid"]) == (True, False)


def test_what_is_beside_methods():
    own = (
        "def put(self, thing):\n    return helper(self._extra(thing))\n\n"
        "def _extra(self, x):\n    return math.floor(x)"
    )
    beside = "import math\nLIMIT = 3\n\ndef helper(x):\n    return x + LIMIT"
    text = f"{beside}\n\nclass Box:\n{indent(own)}"
    code, _ = merge(
        text, "class Other:\n    value = 5\n\nclass Box:\n    def full(self):\n        return Other.value"
    )
    box = run(code, "Box")(3)
    assert (box.put(1.5), box.full()) == (4, 5)


def test_a_skeleton_without_the_class():
    code, facts = merge(PUT, FULL, skeleton="class Other:\n    pass")
    assert code is None
    assert not facts["parses"]
    assert "Box" in facts["error"][2]
