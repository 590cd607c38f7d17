"""What models write, by hand: what is found in it, what is broken in it, and what it costs to look."""

from __future__ import annotations

import ast
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs.coding.extract import clean, read

GOOD = "def aux(x):\n    return x + 1"
FENCED = f"```python\n{GOOD}\n```"


def found(text: str, *wanted: str, methods: bool = False) -> dict[str, str]:
    """Source of the last top-level definition by name."""
    reply = read(text, wanted or ("aux",), methods=methods)
    return {
        node.name: ast.unparse(node)
        for node in reply.statements
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


# Replies in which `aux` is found and adds one.
PLAIN = {
    "bare": GOOD,
    "fence": FENCED,
    "fence_without_language": f"```\n{GOOD}\n```",
    "fence_py": f"```py\n{GOOD}\n```",
    "fence_capital": f"```Python\n{GOOD}\n```",
    "fence_with_title": f"```python title=aux.py\n{GOOD}\n```",
    "tilde_fence": f"~~~python\n{GOOD}\n~~~",
    "long_fence": f"````python\n{GOOD}\n````",
    "prose_around_fence": f"Sure! Here it is:\n\n{FENCED}\n\nIt adds one to `x`.",
    "prose_with_colons": f"Note: def is a keyword.\nif you like: read on\n{FENCED}",
    "unclosed_fence": f"Here:\n```python\n{GOOD}",
    "fence_on_one_line": "```python def aux(x): return x + 1```",
    "code_on_the_fences_line": "```def aux(x):\n    return x + 1\n```",
    "fence_in_a_list": "1. The helper:\n   ```python\n   def aux(x):\n       return x + 1\n   ```",
    "fence_in_a_bullet": f"- ```python\n{GOOD}\n```",
    "shell_fence_first": f"```bash\npip install nothing\n```\n{FENCED}",
    "output_fence_last": f"{FENCED}\nOutput:\n```text\ndef aux(x): return 99\n```",
    "two_fences": f"```python\nimport math\n```\nand\n{FENCED}",
    "prose_before_bare_code": f"Here is the helper.\n\n{GOOD}",
    "prose_after_bare_code": f"{GOOD}\n\nThis adds one, doesn't it?",
    "prose_right_after": f"{GOOD}\nThis adds one.",
    "indented_bare_code": "The code:\n\n    def aux(x):\n        return x + 1\n\nDone.",
    "whole_reply_indented": "    def aux(x):\n        return x + 1",
    "thought": f"<think>I need def aux(x): return 0</think>\n{GOOD}",
    "thought_with_code": f"<think>\n```python\ndef aux(x):\n    return 0\n```\n</think>\n{FENCED}",
    "thought_closed_only": f"def aux(x):\n    return 0\n</think>\n{GOOD}",
    "two_thoughts": f"<think>a</think>{GOOD}\n<think>b",
    "crlf": GOOD.replace("\n", "\r\n"),
    "lone_cr": GOOD.replace("\n", "\r"),
    "tabs": "def aux(x):\n\treturn x + 1",
    "hard_spaces": "def aux(x):\n\u00a0\u00a0\u00a0\u00a0return x + 1",
    "nul_bytes": "def a\x00ux(x):\n    return x + 1",
    "byte_order_mark": "\ufeff" + GOOD,
    "lone_surrogate_in_prose": f"\ud800 {FENCED}",
    "guard": f"{GOOD}\n\nif __name__ == '__main__':\n    print(aux(1))",
    "example_run": f"{GOOD}\n\nprint(aux(1))",
    "last_definition_wins": f"def aux(x):\n    return 0\n\n{GOOD}",
    "last_fence_wins": f"```python\ndef aux(x):\n    return 0\n```\nBetter:\n{FENCED}",
    "complete_one_before_a_broken_one": f"{FENCED}\n```python\ndef aux(x):\n    return (x\n```",
    "broken_neighbour": f"def other(x:\n    return x\n\n{GOOD}",
    "broken_neighbour_behind": f"{GOOD}\n\ndef other(x):\n    return (",
    "cut_off_neighbour_in_fence": f"```python\n{GOOD}\n\n\ndef main(x):\n    return aux(",
    "trailing_ellipsis": f"{GOOD}\n...",
    "fenced_before_bare": f"def aux(x): is what I write\n{FENCED}",
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_the_function_is_found(text):
    assert found(text)["aux"] == GOOD
    assert not read(text, ("aux",)).broken


# Replies in which more than the body matters.
SHAPES = {
    "docstring": ('def aux(x):\n    """Add.\n\n    >>> aux(1)\n    2\n    """\n    return x + 1', ">>> aux(1)"),
    "text_at_the_margin": (
        "Look:\ndef aux(x):\n    s = '''\nat the margin\n'''\n    return s + x\nEnd, it's done.",
        "at the margin",
    ),
    "signature_over_lines": ("Look:\ndef aux(\n    x,\n):\n    return x\nThat is it!", "return x"),
    "list_over_lines": ("So:\ndef aux(x):\n    return [\n        x,\n]\nthat's all", "[x]"),
    "decorator": ("Look:\n@lru_cache(maxsize=None)\ndef aux(x):\n    return x\nok?", "@lru_cache"),
    "two_decorators": ("Look:\n@a\n@b(1)\ndef aux(x):\n    return x\nok?", "@b(1)"),
    "async": ("async def aux(x):\n    return x", "async def aux"),
    "annotations": ("def aux(x: List[int], *, k: int = 3) -> Dict[str, int]:\n    return {}", "List[int]"),
    "nested": ("def aux(x):\n    def inner(y):\n        return y\n    return inner(x)", "def inner"),
    "lambda_inside": ("def aux(x):\n    return (lambda y: y)(x)", "lambda"),
    "comment_at_the_margin": ("Look:\ndef aux(x):\n# a remark\n    return x\nDone, isn't it", "return x"),
    "tabs_and_spaces": ("def aux(x):\n\tif x:\n\t    pass\n        return x", "if x"),
    "one_line": ("def aux(x): return x", "return x"),
    "semicolons": ("def aux(x): y = x; return y", "y = x"),
    "fence_in_a_docstring": ('def aux(x):\n    """Use:\n\n```\naux(1)\n```\n    """\n    return x', "aux(1)"),
    "unicode_names": ("def aux(größe):\n    return größe", "größe"),
    "global_inside": ("def aux(x):\n    global k\n    k = x\n    return k", "global k"),
    "generator": ("def aux(x):\n    yield from x", "yield from"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "part"), SHAPES.values(), ids=SHAPES)
def test_the_function_is_found_whole(text, part):
    assert part in found(text)["aux"]


# Replies that hold no usable `aux`.
NOTHING = {
    "empty": "",
    "blank": " \n\t\n",
    "prose": "I would define aux so that it adds one to x.",
    "talk_of_def": "You def need aux (trust me).",
    "empty_fence": "```python\n```",
    "only_fences": "```\n" * 40,
    "unclosed_thought": f"<think>Let me see.\n{GOOD}",
    "a_method_is_no_function": "class Solution:\n    def aux(self, x):\n        return x",
    "a_method_in_broken_text": "Here: it's\nclass Solution:\n    def aux(self, x):\n        return x",
    "a_function_in_a_function": "it's\ndef main(x):\n    def aux(y):\n        return y\n    return aux(x)",
    "a_lambda": "aux = lambda x: x + 1",
    "another_name": "def auxiliary(x):\n    return x",
    "only_the_call": "print(aux(3))",
    "commented_out": "# def aux(x):\n#     return x",
    "in_a_string": "text = 'def aux(x): return x'",
}


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_nothing_is_found(text):
    assert "aux" not in found(text)
    assert not read(text, ("aux",)).broken


@pytest.mark.parametrize(
    ("text", "line", "column", "returns"),
    [
        ("def aux(x):\n    return (x", 2, 12, True),
        ("def aux(x)\n    return x", 1, 11, True),
        ("Intro text, it's here.\n```python\n\ndef aux(x):\n    y = = x\n    return y\n```", 5, 9, True),
        ("It's:\n\n    def aux(x):\n        y = = x", 4, 13, False),
        ("def aux(x):\n    print(x", 2, 10, False),
        ("<think>one\ntwo</think>\ndef aux(x:\n    return x", 3, 8, True),
        ("def aux(x):\nreturn x", 1, 12, False),  # the body is not indented
        ("def aux(x):\n    return x\n  + 1", 3, 6, True),
    ],
)
def test_a_broken_definition_names_its_place_in_the_reply(text, line, column, returns):
    broken = read(text, ("aux",)).broken
    fault = broken["aux"].fault
    assert (fault.line, fault.column) == (line, column)
    assert fault.message
    assert broken["aux"].returns is returns


def test_what_stands_beside_is_kept_where_it_parses():
    text = (
        "```python\nimport re\nfrom math import *\nLIMIT = 3\n\ndef helper(x):\n    return LIMIT\n```\n"
        + FENCED
    )
    names = [type(node).__name__ for node in read(text, ("aux",)).statements]
    assert names == ["Import", "ImportFrom", "Assign", "FunctionDef", "FunctionDef"]
    bare = f"import re\nSome prose, it's here.\ndef helper(x):\n    return x\n\n{GOOD}\nMore."
    assert set(found(bare)) == {"helper", "aux"}


def test_methods_are_found_in_broken_classes_and_on_their_own():
    body = "    def get(self):\n        return 1"
    for text in (
        f"class A:\n{body}\n    def set(self:\n        pass",
        f"It's\n{body}",
        body,
        "def get(self):\n    return 1",
    ):
        reply = read(text, ("get", "set"), methods=True)
        names = {n.name for s in reply.statements for n in ast.walk(s) if isinstance(n, ast.FunctionDef)}
        assert "get" in names
    assert set(
        read(f"class A:\n{body}\n    def set(self:\n        pass", ("get", "set"), methods=True).broken
    ) == {"set"}


def test_lines_stay_where_they_were():
    text = "a\r\nb\r<think>c\nd</think>e\n\tf\x00"
    assert clean(text) == "a\nb\n\ne\n    f"
    assert clean("\n\n</think>x") == "\n\nx"


HOSTILE = {
    "open_headers": "def aux(\n" * 2500,
    "brackets": "(" * 20_000,
    "fences": "```\n" * 6000,
    "one_fence_line": "`" * 20_000,
    "minus": "def aux(x):\n    return " + "-" * 19_000 + "1",
    "stairs": "\n".join(" " * i + "def aux(x):" for i in range(190)),
    "decorators": "@a\n" * 6000 + "def aux(x): x x",
    "open_string": "def aux(x):\n  '''\n" + "x\n" * 9000,
    "imports": "import \n" * 2800,
    "thoughts": "<think>" * 2800,
    "closed_thoughts": "<think></think>" * 1300 + "</think>" * 10,
    "calls": "def aux():return " + "aux(" * 4900,
    "sums": "def aux():return " + "[1]+" * 4900 + "[1]",
    "many_functions": "it's\n" + "def aux(x):\n  return x\n" * 830,
    "many_headers": "it's\n" + "".join(f"def f{i}(x): return\n" for i in range(900)),
    "digits": "def aux(): return " + "9" * 19_900,
    "blank_lines": "it's\ndef aux(x):" + "\n" * 19_900,
    "margin": " " * 19_900 + "def aux(x): return",
    "tabs": "\t" * 19_900,
    "quotes": "'''\"\"\"" * 3300,
    "colons": "if:\n" * 5000,
    "attributes": "def aux(): return a" + ".a" * 9900,
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_costs_little(text):
    begun = time.perf_counter()
    read(text, ("aux", "f"))
    read(text, ("aux", "f"), methods=True)
    assert time.perf_counter() - begun < 3  # a tenth of a second; a quadratic search takes minutes


PARTS = [
    *(
        "def aux(x):\n",
        "    return x\n",
        "```python\n",
        "```\n",
        "<think>",
        "</think>",
        "class A:\n",
        "'''",
        "\t",
    ),
    *("@d\n", "it's\n", "(", ")\n", "\x00", "\ud800", "import re\n", "async ", "\r", "\u2028"),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(PARTS),
        max_size=30,
    )
)
def test_no_text_raises(parts):
    for methods in (False, True):
        reply = read("".join(parts), ("aux",), methods=methods)
        for node in reply.statements:
            ast.unparse(node)
