"""How main uses its helpers: worked by hand on small programs."""

from __future__ import annotations

import ast

import pytest

from collm_envs.coding import flow, usage


def functions(*sources: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse("\n".join(sources))
    return {node.name: node for node in tree.body}


def main(body: str, *arguments: str) -> ast.FunctionDef:
    lines = "\n".join("    " + line for line in body.split("\n"))
    return functions(f"def f({', '.join(arguments) or 'x'}):\n{lines}")["f"]


THIN = [
    "return aux(x)",
    "'''Text.'''\nreturn aux(x)",
    "y = aux(x)\nreturn y",
    "y = x\nz = aux(y)\nw = z\nreturn w",
    "y: int = aux(x)\nreturn y",
    "print(x)\nreturn aux(x)",
    "pass\nreturn aux(x)",
    "import math\nreturn aux(x)",
    "return aux(x, 3, key=None)",
    "return aux(*(x, 1))",
    "args = (x, 1)\nreturn aux(*args)",
    "return aux(aux(x))",
    "return aux2(aux(x))",
    "if True:\n    return aux(x)\nreturn x + 1",
    "return aux(x)\nreturn aux(x) + 1",
    "x = (x,)\nreturn aux(x)",
]
THICK = [
    "return aux(x) + 1",
    "return aux(x + 1)",
    "y = x + 1\nreturn aux(y)",
    "return aux(x)[0]",
    "return sorted(aux(x))",
    "return [aux(y) for y in x]",
    "return aux(x) if x else 0",
    "if x:\n    return aux(x)\nreturn 0",
    "for y in x:\n    return aux(y)",
    "y = aux(x)\ny += 1\nreturn y",
    "x.sort()\nreturn aux(x)",
    "assert x\nreturn aux(x)",
    "a, b = aux(x)\nreturn a",
    "return (aux(x), 1 + 1)",
    "args = (x + 1,)\nreturn aux(*args)",
    "return x",  # no wrapper at all
    "return None",
    "aux(x)\nreturn x * 2",
    "aux = abs\nreturn aux(x)",  # another aux
    "try:\n    return aux(x)\nexcept ValueError:\n    return 0",
]


@pytest.mark.parametrize("body", THIN)
def test_thin(body):
    assert usage.is_thin(main(body), ["aux", "aux2"])


@pytest.mark.parametrize("body", THICK)
def test_more_than_thin(body):
    assert not usage.is_thin(main(body), ["aux", "aux2"])


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("return aux(x)", "used"),
        ("return list(map(aux, x))", "used"),
        ("return max(x, key=aux)", "used"),
        ("if aux(x):\n    return 1\nreturn 2", "used"),
        ("aux(x)\nreturn 1", "thrown"),
        ("_ = aux(x)\nreturn 1", "thrown"),
        ("y = aux(x)\nreturn 1", "thrown"),
        ("y = aux(x)\nreturn y", "used"),
        ("aux(x)\nreturn aux(x)", "used"),  # one of them counts
        ("self.y = aux(x)\nreturn 1", "used"),  # it is kept somewhere
        ("def g():\n    return aux(x)\nreturn g()", "used"),
        ("return x", None),
        ("return 'aux(x)'", None),
        ("# aux(x)\nreturn x", None),
        ("return x\naux(x)", None),  # never reached
        ("if False:\n    return aux(x)\nreturn x", None),
        ("while 0:\n    aux(x)\nreturn x", None),
        ("aux = len\nreturn aux(x)", None),
        ("def aux(y):\n    return y\nreturn aux(x)", None),
        ("from math import floor as aux\nreturn aux(x)", None),
        ("for aux in x:\n    pass\nreturn aux", None),
        ("return x.aux()", None),
        ("return auxiliary(x)", None),
    ],
)
def test_calls(body, verdict):
    assert flow.calls("f", ["aux"], {"f": main(body)}) == ({"aux": verdict} if verdict else {})


def test_an_argument_of_the_helpers_name_is_no_helper():
    assert flow.calls("f", ["aux"], {"f": main("return aux(x)", "x", "aux")}) == {}
    assert not usage.is_thin(main("return aux(x)", "x", "aux"), ["aux"])


def test_calls_through_other_functions():
    own = functions("def f(x): return g(x)", "def g(x): return aux(x)", "def h(x): return aux2(x)")
    assert flow.calls("f", ["aux", "aux2"], own) == {"aux": "used"}
    chain = functions(
        "def f(x): return aux2(x) + 1", "def aux2(x): return aux(x)", "def aux(x): return aux(x)"
    )
    assert flow.calls("f", ["aux", "aux2"], chain) == {"aux": "used", "aux2": "used"}
    # A helper that only calls itself is not called.
    assert flow.calls("f", ["aux"], functions("def f(x): return x", "def aux(x): return aux(x)")) == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1", True),
        ("yield 1", True),
        ("if x:\n    return x", True),
        ("return", False),
        ("pass", False),
        ("g = lambda: (yield)", False),
        ("def g():\n    return 1", False),
        ("class A:\n    def g(self):\n        return 1", False),
    ],
)
def test_returns(body, expected):
    assert usage.returns(main(body)) is expected
