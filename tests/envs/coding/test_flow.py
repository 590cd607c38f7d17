"""Which calls of a helper count: honest uses all do, and what only looks like one does not."""

from __future__ import annotations

import ast
import random
import time

import pytest

from collm_envs.coding import assemble, flow
from collm_envs.coding.usage import is_thin

ANSWER = "answer = x + 3\n"
HONEST = [
    "return aux(x) * 2",
    "y = aux(x)\nreturn y * 2",
    "g = aux\nreturn g(x)",
    "g = h = aux\nk = h\nreturn k(x)",
    "(g := aux)\nreturn g(x)",
    "return [aux(y) for y in x]",
    "return {aux(y): aux(y) for y in x}",
    "return sum(aux(y) for y in x)",
    "return [y for y in x if aux(y)]",
    "return list(map(aux, x))",
    "return sorted(x, key=aux)",
    "return sorted(x, key=lambda y: aux(y))",
    "x.sort(key=aux)\nreturn x",
    "return functools.reduce(aux, x)",
    "from functools import partial\ng = partial(aux, 3)\nreturn g(x)",
    "return partial(aux, 3)(x)",
    "table = {'a': aux, 'b': abs}\nreturn table['a'](x)",
    "table = {'a': aux}\nreturn table.get('a', abs)(x)",
    "table = {}\ntable['a'] = aux\nreturn table['a'](x)",
    "table = dict(a=aux)\nreturn table['a'](x)",
    "steps = []\nsteps.append(aux)\nfor step in steps:\n    x = step(x)\nreturn x",
    "for step in (aux, abs):\n    x = step(x)\nreturn x",
    "for name, step in {'a': aux}.items():\n    x = step(x)\nreturn x",
    "return [step(x) for step in (aux, abs)]",
    "for y, step in zip(x, [aux, aux]):\n    x = step(y)\nreturn x",
    "return (aux if x else abs)(x)",
    "return aux(x) if x else 0",
    "return x and aux(x)",
    "if x and aux(x):\n    return 1\nreturn 2",
    "if not aux(x):\n    raise ValueError(x)\nreturn x",
    "while aux(x):\n    x -= 1\nreturn x",
    "for y in aux(x):\n    yield y",
    "yield from aux(x)",
    "yield aux(x)",
    "total = 0\nfor _ in range(aux(x)):\n    total += 1\nreturn total",
    "total = 0\nfor y in x:\n    total += aux(y)\nreturn total",
    "total: int = aux(x)\nreturn total",
    "if (r := aux(x)) > 1:\n    return r\nreturn 0",
    "out = []\nfor y in x:\n    out.append(aux(y))\nreturn out",
    "out = []\n[out.append(aux(y)) for y in x]\nreturn out",
    "out = {}\nfor y in x:\n    out.setdefault(y, []).append(aux(y))\nreturn out",
    "out = {}\nout[aux(x)] = 1\nreturn out",
    "out = {}\nout[1] = aux(x)\nreturn out",
    "out = [0]\nout[0] += aux(x)\nreturn out",
    "out = []\nout += [aux(x)]\nreturn out",
    "out = []\nlast = out\nlast.append(aux(x))\nreturn out",
    "for row in x:\n    row.append(aux(row))\nreturn x",
    "x[0], x[1] = aux(x)\nreturn x",
    "a, b = aux(x)\nreturn a + b",
    "a, *b = aux(x)\nreturn b",
    "heap = []\nheapq.heappush(heap, aux(x))\nreturn heap",
    "def g(y):\n    return aux(y) + 1\nreturn g(x)",
    "def g(y):\n    return aux(y)\nreturn list(map(g, x))",
    "def g(y):\n    return aux(y)\nh = g\nreturn h(x)",
    "def g(y):\n    return aux(y)\nreturn g",
    "def g(y):\n    if y < 1:\n        return 0\n    return aux(y) + g(y - 1)\nreturn g(x)",
    "total = 0\ndef g(y):\n    nonlocal total\n    total += aux(y)\ng(x)\nreturn total",
    "out = []\ndef g(y):\n    out.append(aux(y))\ng(x)\nreturn out",
    "g = lambda y: aux(y) + 1\nreturn g(x)",
    "return (lambda y: aux(y))(x)",
    "return lambda y: aux(y)",
    "@aux\ndef g(y):\n    return y\nreturn g(x)",
    "@aux(3)\ndef g(y):\n    return y\nreturn g(x)",
    "def g(y, h=aux):\n    return h(y)\nreturn g(x)",
    "class C:\n    def go(self, y):\n        return aux(y)\nreturn C().go(x)",
    "x.step = aux\nreturn x.step(x)",
    "x.y = aux(x)\nreturn x",
    "return aux",
    "return f'{aux(x)}'",
    "return x[aux(x)]",
    "return aux(x).y",
    "return -aux(x) + 1",
    "return aux(x) < 3 < 4",
    "with aux(x) as y:\n    return y",
    "try:\n    return aux(x)\nexcept ValueError:\n    return 0",
    "match aux(x):\n    case 1:\n        return 2\nreturn 3",
    "assert aux(x)\nreturn x",
    "del x[aux(x)]\nreturn x",
    "return f(x - 1) + aux(x)",
    "return aux(aux(x))",
    "if x == 1 or aux(x):\n    x += 1\nreturn x",
    "while True:\n    x = aux(x)\n    if x:\n        break\nreturn x",
    "global kept\nkept = aux(x)\nreturn x",
    "return await_(aux(x))",
    "x > 0 and x.append(aux(x))\nreturn x",
    "x.append(aux(x)) if x else None\nreturn x",
    "cache = {}\nif x not in cache:\n    cache[x] = aux(x)\nreturn cache[x]",
    "import aux_tools\nreturn aux(x)",
    "g = aux if x else abs\nreturn g(x)",
    "g = aux or abs\nreturn g(x)",
    "out = io.StringIO()\nprint(aux(x), file=out)\nreturn out.getvalue()",
    "def g(y, z=aux(1)):\n    return y + z\nreturn g(x)",
    "g = lambda y, *, h=aux: h(y)\nreturn g(x)",
]
NOT_CALLED = [
    "aux",
    "_: aux = 0",
    "_: int = aux(0) if 0 else 0",
    "if False and aux(0):\n    pass",
    "if 1 == 2:\n    answer = aux(x)",
    "if not True:\n    answer = aux(x)",
    "if 0 and x:\n    answer = aux(x)",
    "while 0 or False:\n    aux(x)",
    "answer = answer if True else aux(x)",
    "answer = True and answer or aux if 0 else answer",
    "answer = (1 or aux(x)) and answer",
    "for _ in ():\n    answer = aux(x)",
    "for _ in range(0):\n    answer = aux(x)",
    "[aux(y) for y in []]",
    "[aux(y) for y in range(3) if False]",
    "(aux(y) for y in range(3))",
    "z = (aux(y) for y in range(3))",
    "aux, 1",
    "[aux]",
    "z = aux",
    "z: object = aux",
    "(z := aux)",
    "z = [aux]\nn = len(z)",
    "answer += len([aux]) - 1",
    "answer = [answer, aux][0]",
    "answer = answer or aux",
    "assert aux",
    "if aux:\n    answer += 0",
    "answer += aux is None",
    "print(aux)",
    "str(aux)",
    "def g():\n    return aux(x)",
    "def g(y=aux(1)):\n    return aux(x)",
    "def g(y: aux) -> aux:\n    return y\ng(x)",
    "@aux\ndef g():\n    return 1",
    "g = lambda: aux(x)",
    "lambda: aux(x)",
    "class C:\n    y = aux(1)\n    def go(self):\n        return aux(1)",
    "def g(aux):\n    return aux(1)\nanswer += 0 * g(abs)",
    "answer += sum(aux for aux in [0])",
    "def g():\n    return h()\ndef h():\n    return g() + aux(x)",
    "if x:\n    return answer\nelse:\n    return answer\nreturn aux(x)",
    "while True:\n    return answer\nreturn aux(x)",
]
THROWN = [
    "aux(x)",
    "_ = aux(x)",
    "_: int = aux(x)",
    "(r := aux(x))",
    "z = [aux(x)]",
    "z = {1: (aux(x), 2)}",
    "z = aux(x)\nw = z\nv = w",
    "z = w = aux(x)",
    "a, b = aux(x), 1",
    "[aux(x)]",
    "aux(x), 1",
    "aux(x) + 1",
    "not aux(x)",
    "f'{aux(x)}'",
    "aux(x) if x else 0",
    "x and aux(x)",
    "aux(x) and x",
    "if aux(x):\n    pass",
    "if aux(x):\n    z = 1",
    "if x and aux(x):\n    ...",
    "while aux(x):\n    pass",
    "for _ in aux(x):\n    pass",
    "[aux(y) for y in range(3)]",
    "[(r := aux(y)) for y in range(3)]",
    "z = []\nz.append(aux(x))",
    "z = {}\nz[0] = aux(x)",
    "z = 0\nz += aux(x)",
    "z = [0]\nz[0] += aux(x)",
    "print(aux(x))",
    "len(str(aux(x)))",
    "math.floor(aux(x))",
    "aux(aux(x))",
    "z = aux(x)\naux(z)",
    "def g(y, z=aux(1)):\n    return y\ng(x)",
    "g = aux\ng(x)",
    "g = aux\nz = g(x)",
    "{'a': aux}['a'](x)",
    "def g():\n    return aux(x)\ng()",
    "def g():\n    aux(x)\n    return 0\nanswer += g()",
    "(lambda: aux(x))()",
    "try:\n    aux(x)\nexcept ValueError:\n    pass",
]


def found(body: str, *more: str) -> dict[str, str]:
    text = "def f(x):\n" + "\n".join("    " + line for line in body.split("\n"))
    tree = ast.parse("\n".join([text, *more]))
    return flow.calls("f", ["aux"], {node.name: node for node in tree.body})


@pytest.mark.parametrize("body", HONEST)
def test_honest_uses_count(body):
    assert found(body) == {"aux": "used"}


@pytest.mark.parametrize("line", NOT_CALLED)
def test_what_is_not_called_does_not_count(line):
    assert found(f"{ANSWER}{line}\nreturn answer") == {}


@pytest.mark.parametrize("line", THROWN)
def test_a_dropped_result_is_thrown_away(line):
    assert found(f"{ANSWER}{line}\nreturn answer") == {"aux": "thrown"}


def test_decorators_of_main_and_functions_called_in_vain():
    tree = ast.parse("@aux\ndef f(x):\n    return x")
    assert flow.calls("f", ["aux"], {"f": tree.body[0]}) == {"aux": "used"}
    assert found("g(x)\nreturn x", "def g(x):\n    return aux(x)") == {"aux": "thrown"}
    assert found("return g(x)", "def g(x):\n    return aux(x)") == {"aux": "used"}
    assert found("return x", "def g(x):\n    return aux(x)") == {}


@pytest.mark.parametrize(
    "line", ["aux", "_: aux = 0", "_: int = aux(0) if 0 else 0", "if False and aux(0): pass"]
)
def test_one_idle_line_makes_no_call(line):
    replies = [
        {"text": "def aux():\n    return 0", "functions": ["aux"]},
        {"text": f"def f(x):\n    {line}\n    return x + 3", "functions": ["f"]},
    ]
    _, facts = assemble.function({"replies": replies, "entry": "f"})
    state = facts["functions"]["aux"]
    assert (state["found"], state["returns"], state["called"], state["thrown"]) == (True, True, False, False)


@pytest.mark.parametrize(
    "body",
    [
        "if x == 0:\n    x = 1\n"
        + "".join(f"elif x == {i}:\n    x = aux({i})\n" for i in range(700))
        + "return x",
        "if x == 0:\n    return 1\n" + "".join(f"elif x == {i}:\n    return aux({i})\n" for i in range(700)),
        "a0 = aux(x)\n" + "".join(f"a{i + 1} = a{i}\n" for i in range(700)) + "return a700",
        "a0 = aux\n" + "".join(f"a{i + 1} = a{i}\n" for i in range(700)) + "return a700(x)",
        "a0 = aux(x)\n" + "".join(f"a{i + 1} = a{i}\n" for i in reversed(range(200))) + "return a200",
    ],
    ids=["elif", "returns", "values", "names", "backwards"],
)
def test_long_programs_are_read_soon(body):
    start = time.perf_counter()
    assert found(body) == {"aux": "used"}
    assert time.perf_counter() - start < 2


def test_a_shuffled_chain_of_names_takes_no_longer_and_hides_what_it_hides():
    lines = [f"a{i + 1} = a{i}\n" for i in range(1500)]
    random.Random(0).shuffle(lines)
    start = time.perf_counter()
    assert found("a0 = aux(x)\n" + "".join(lines) + "return a1500") == {"aux": "thrown"}
    assert time.perf_counter() - start < 2


def test_more_than_a_wrapper_by_a_branch_that_never_runs():
    tree = ast.parse("def f(x):\n    if 0 and x:\n        return 3\n    return aux(x)").body[0]
    assert is_thin(tree, ["aux"])


def test_defaults_of_main_and_helpers_that_fill_a_list():
    tree = ast.parse("def f(x, y=aux(1)):\n    return x")
    assert flow.calls("f", ["aux"], {"f": tree.body[0]}) == {"aux": "thrown"}
    for line, verdict in (("aux2(out, y)", "used"), ("aux2(y)", "thrown")):
        tree = ast.parse(f"def f(x):\n    out = []\n    y = aux(x)\n    {line}\n    return out")
        assert flow.calls("f", ["aux", "aux2"], {"f": tree.body[0]}) == {"aux": verdict, "aux2": "thrown"}
