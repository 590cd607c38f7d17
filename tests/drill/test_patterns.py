"""No regular expression of the packages takes more than linear time, whatever it is held against.

Python's engine backtracks, so a pattern such as `(a+)+b`, or a search for ` *x` in a long run of blanks, takes
quadratic time or worse. Every pattern is found in the source, and every repetition in it is pumped up.
"""

import ast
import re
import time
from pathlib import Path
from re import _constants as kinds
from re import _parser

import pytest

import collm_agents
import collm_envs
from collm_envs import text
from collm_envs.games.blocks import LineGrammar

PACKAGES = [Path(package.__file__).parent for package in (collm_envs, collm_agents)]
METHODS = {"compile", "search", "match", "fullmatch", "sub", "findall", "finditer", "split"}
# Called on a text of our own (a docstring, a file of the system, a name that is checked for its length), not on
# what an agent, a server or a file says.
OWN = {"explain.py", "probe.py", "contract.py", "memory.py", "backbone.py"}


def literal(node):
    """What a string in the source says, with a word for each value put into it; None for no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "word" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = literal(node.left), literal(node.right)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.right, ast.Constant):
        left = literal(node.left)
        return None if left is None else left * node.right.value
    return None


def found():
    """(place, pattern, flags, how it is used) of every call of `re`."""
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            if file.name in OWN:
                continue
            source = file.read_text(encoding="utf-8")
            tree = ast.parse(source)
            names = {
                id(node.value): node.targets[0].id
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            }
            for node in ast.walk(tree):
                called = node.func if isinstance(node, ast.Call) else None
                if not (isinstance(called, ast.Attribute) and called.attr in METHODS):
                    continue
                if not (isinstance(called.value, ast.Name) and called.value.id == "re"):
                    continue
                used = {called.attr}
                if name := names.get(id(node)):
                    used = set(re.findall(rf"\b{name}\.(\w+)\(", source))
                flags = re.MULTILINE if "MULTILINE" in ast.unparse(node) else 0
                place = f"{file.relative_to(package.parent)}:{node.lineno}"
                yield place, literal(node.args[0]), flags, used


SEARCH = frozenset({"search"})
BUILT = {  # put together from parts, where the source shows no whole literal
    "collm_envs/games/blocks.py": [LineGrammar()._pattern, LineGrammar(("fill", "kill"))._pattern],
    "collm_envs/text.py": list(text._patterns().values()),
    "collm_envs/coding/extract.py": [],
}
FOUND = [
    (place, re.compile(source, flags), used) for place, source, flags, used in found() if source is not None
]
UNREAD = [place for place, source, *_ in found() if source is None]
ALL = FOUND + [
    (f"{file}#{i}", own, SEARCH) for file, several in BUILT.items() for i, own in enumerate(several)
]


def test_every_pattern_is_looked_at():
    assert len(FOUND) > 25
    assert not [place for place in UNREAD if place.partition(":")[0] not in BUILT]


# -- texts that make a pattern work -----------------------------------------------------------------------


def sign(items):
    """A character of a set."""
    refused = bool(items) and items[0][0] is kinds.NEGATE
    for letter in "a0 _\t-.:/#(\"'`\nAzé@[{<=~,;\x01\u2028":
        fits = any(holds(kind, value, ord(letter)) for kind, value in items[refused:])
        if fits is not refused:
            return letter
    raise AssertionError(items)


def holds(kind, value, code):
    letter = chr(code)
    if kind is kinds.LITERAL:
        return code == value
    if kind is kinds.RANGE:
        return value[0] <= code <= value[1]
    named = str(value)
    found = {"DIGIT": letter.isdigit(), "SPACE": letter.isspace(), "WORD": letter.isalnum() or letter == "_"}
    plain = named.removeprefix("CATEGORY_")
    return not found[plain.removeprefix("NOT_")] if plain.startswith("NOT_") else found[plain]


def witness(tree, pumps, before=""):
    """A text that a parsed pattern may match; notes (text before, what repeats) of every endless repetition."""
    text = ""
    for kind, value in tree:
        if kind is kinds.LITERAL:
            text += chr(value)
        elif kind is kinds.NOT_LITERAL:
            text += "a" if value != ord("a") else "b"
        elif kind is kinds.ANY:
            text += "a"
        elif kind is kinds.IN:
            text += sign(value)
        elif kind is kinds.BRANCH:
            several = [witness(branch, pumps, before + text) for branch in value[1]]
            text += several[0]
        elif kind is kinds.SUBPATTERN:
            text += witness(value[3], pumps, before + text)
        elif kind is kinds.ATOMIC_GROUP:
            text += witness(value, pumps, before + text)
        elif kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
            least, most, body = value
            own = witness(body, pumps, before + text)
            if most > 50 and own:
                pumps.append((before + text, own))
            text += own * max(least, 1)
        elif kind is kinds.ASSERT:
            witness(value[1], pumps, before + text)
    return text


def hostile(pattern, count):
    """Texts of about `count` characters: each repetition drawn out, alone and between others."""
    pumps = []
    witness(_parser.parse(pattern.pattern, pattern.flags), pumps)
    for before, own in pumps:
        long = own * (count // len(own))
        for after in ("", "\x00", "\n!"):
            yield before + long + after
        yield (before + own) * (count // len(before + own))
        yield (before + own + "\n") * (count // len(before + own + "\n"))
        yield before * (count // len(before)) if before else long


def seconds(pattern, text, used):
    """The least of three times of holding it against the text as its user does; of finding all, where unsure."""
    best = float("inf")
    for _ in range(3):
        begun = time.thread_time()
        for name in used & {"match", "fullmatch"}:
            getattr(pattern, name)(text)
        if not used or used - {"match", "fullmatch"}:
            for _ in pattern.finditer(text):
                pass
        best = min(best, time.thread_time() - begun)
        if best > 0.5:
            break
    return best


def worst(pattern, used):
    """How many times more time a text takes that is eight times as long, by 8: 1 is linear, 8 quadratic."""
    growth = 0.0
    for short, long in zip(hostile(pattern, 750), hostile(pattern, 6000), strict=True):
        slow = seconds(pattern, long, used)
        if slow > 0.005:  # a linear one takes less than a millisecond
            growth = max(growth, slow / max(seconds(pattern, short, used), 1e-6) / 8)
        if growth > 3.5:
            break
    return growth


@pytest.mark.parametrize(("place", "pattern", "used"), ALL, ids=[place for place, *_ in ALL])
def test_a_pattern_takes_linear_time(place, pattern, used):
    assert worst(pattern, used) < 3.5


@pytest.mark.parametrize("bad", [r"[ \t]*x", r"=\s*\s*$"])
def test_the_measure_finds_patterns_that_are_not(bad):
    assert worst(re.compile(bad), SEARCH) > 3.5
