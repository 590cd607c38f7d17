"""Tests that run in one process against a program in another: honest ones work, hostile ones never pass."""

from __future__ import annotations

import json
import os
import socket
import textwrap
import threading

import pytest
from forked import judged, run_calls, statuses

from collm_envs.sandbox import frames
from collm_envs.sandbox.link import CandidateError, Foul, Link
from collm_envs.sandbox.plan import plan
from collm_envs.sandbox.results import Asserts, UnitTests

SHOP = """
import dataclasses, enum, collections, contextlib
RATE = 2
counter = 0
class OutOfStock(KeyError):
    def __init__(self, name, missing):
        super().__init__(name)
        self.missing = missing
class Worse(OutOfStock): pass
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
Point = collections.namedtuple("Point", "x y")
@dataclasses.dataclass
class Item:
    name: str
    price: float = 1.0
class Stack(list):
    def top(self): return self[-1]
class Vector:
    def __init__(self, x): self.x = x
    def __add__(self, other): return Vector(self.x + (other.x if isinstance(other, Vector) else other))
    def __eq__(self, other): return isinstance(other, Vector) and self.x == other.x
    def __hash__(self): return hash(self.x)
    def __lt__(self, other): return self.x < other.x
    def __len__(self): return self.x
    def __getitem__(self, i): return [self.x][i]
    def __repr__(self): return f"Vector({self.x})"
class Shop:
    LIMIT = 3
    def __init__(self, stock=None):
        self.stock = stock if stock is not None else []
        self.log = {}
        self._secret = 5
    @property
    def size(self): return len(self.stock)
    @staticmethod
    def greet(name="you"): return "hello " + name
    @classmethod
    def empty(cls): return cls([])
    def add(self, *names, front=False):
        for name in names:
            self.stock.insert(0, name) if front else self.stock.append(name)
        return self
    def take(self, name):
        if name not in self.stock: raise OutOfStock(name, 1)
        self.stock.remove(name)
    def each(self, function): return [function(name) for name in self.stock]
    def lines(self):
        for name in self.stock: yield name.upper()
    def open(self, path): return open(path)
    @contextlib.contextmanager
    def closing(self):
        self.stock.append("open")
        yield self
        self.stock.append("shut")
    def __iter__(self): return iter(self.stock)
    def __contains__(self, name): return name in self.stock
def sort(values): values.sort()
def count():
    global counter
    counter += 1
def fail(kind): raise kind("boom")
"""


def unittest_of(body: str, setup: str = "", methods: bool = False) -> UnitTests:
    lines = textwrap.dedent(body).strip().splitlines()
    if not methods:
        lines = ["def test_it(self):", *("    " + line for line in lines)]
    return UnitTests(
        "import unittest\nclass T(unittest.TestCase):\n" + "\n".join("    " + x for x in lines), setup
    )


HONEST = {
    "construct, call, read, set": """
        shop = Shop(["a"])
        self.assertEqual(shop.stock, ["a"])
        self.assertIs(type(shop.stock), list)
        shop.add("b", "c").add("z", front=True)
        self.assertEqual(shop.stock, ["z", "a", "b", "c"])
        shop._secret = {"k": (1, 2)}
        self.assertEqual(shop._secret, {"k": (1, 2)})
        del shop._secret
        self.assertFalse(hasattr(shop, "_secret"))
        self.assertEqual((shop.size, Shop.LIMIT, shop.LIMIT), (4, 3, 3))
        self.assertEqual((Shop.greet("me"), shop.greet(), Shop.empty().stock), ("hello me", "hello you", []))
        self.assertEqual(shop.__dict__["log"], {})
        self.assertEqual(vars(shop)["stock"], ["z", "a", "b", "c"])
    """,
    "identity": """
        shop = Shop()
        self.assertIs(shop.add("a"), shop)
        self.assertIs(shop.stock, shop.stock)
        self.assertIsInstance(shop, Shop)
        self.assertIs(type(shop), Shop)
        self.assertEqual(shop.__class__.__name__, "Shop")
        self.assertNotIsInstance(shop, Vector)
        self.assertNotEqual(shop, Shop())
        self.assertEqual(shop, shop)
        self.assertTrue(issubclass(Worse, OutOfStock) and issubclass(Worse, KeyError))
        self.assertIs(Colour.RED, Colour(1))
        self.assertEqual([c.name for c in Colour], ["RED", "BLUE"])
        self.assertEqual(Colour["BLUE"].value, 2)
        self.assertIn(Colour.RED, Colour)
    """,
    "lists are shared": """
        values = [3, 1, 2]
        self.assertIsNone(sort(values))
        self.assertEqual(values, [1, 2, 3])
        shop = Shop(values)
        values.append(4)
        self.assertEqual(shop.size, 4)
        shop.add(5)
        self.assertEqual(values, [1, 2, 3, 4, 5])
        shop.stock.clear()
        self.assertEqual((shop.size, values), (0, []))
        shop.log["deep"] = {"er": [1]}
        shop.log["deep"]["er"].append(2)
        self.assertEqual(shop.log, {"deep": {"er": [1, 2]}})
        cycle = [1]
        cycle.append(cycle)
        other = Shop(cycle)
        self.assertIs(other.stock[1], cycle)
        for _ in range(50):
            sort([2, 1])
            shop.add([_])
        self.assertEqual(len(values), 50)
    """,
    "exceptions": """
        with self.assertRaises(OutOfStock) as caught:
            Shop().take("pear")
        self.assertEqual(caught.exception.args, ("pear",))
        self.assertEqual(caught.exception.missing, 1)
        self.assertEqual(str(caught.exception), "'pear'")
        with self.assertRaises(KeyError):
            Shop().take("pear")
        with self.assertRaisesRegex(ValueError, "bo+m"):
            fail(ValueError)
        with self.assertRaises(SystemExit):
            fail(SystemExit)
        with self.assertRaises(AttributeError):
            Shop().nothing
        with self.assertRaises(TypeError):
            Shop(1, 2, 3)
        with self.assertRaises(FileNotFoundError) as caught:
            Shop().open("/nowhere/at/all")
        self.assertEqual(caught.exception.errno, 2)
        with self.assertRaises(json.JSONDecodeError):
            fail_json("{")
    """,
    "special methods": """
        v = Vector(2)
        self.assertEqual(v + Vector(3), Vector(5))
        self.assertEqual(v + 1, Vector(3))
        self.assertNotEqual(v, Vector(5))
        self.assertLess(v, Vector(5))
        self.assertEqual((len(v), v[0], repr(v), str(v), bool(Vector(0))), (2, 2, "Vector(2)", "Vector(2)", False))
        self.assertEqual(len({v, Vector(2), Vector(3)}), 2)
        self.assertEqual([x.x for x in sorted([Vector(2), Vector(1)])], [1, 2])
        shop = Shop(["a", "b"])
        self.assertEqual(list(shop), ["a", "b"])
        self.assertEqual(list(shop.lines()), ["A", "B"])
        lines = shop.lines()
        self.assertEqual(next(lines), "A")
        with shop.closing() as same:
            self.assertIs(same, shop)
        self.assertEqual(shop.stock[-2:], ["open", "shut"])
        self.assertEqual(copy.deepcopy(Item("a")), Item("a"))
    """,
    "subclasses of builtins": """
        stack = Stack([1, 2])
        self.assertEqual(stack, [1, 2])
        self.assertEqual(stack.top(), 2)
        stack.append(3)
        self.assertEqual(stack, [1, 2, 3])
        point = Point(1, y=2)
        self.assertEqual(point, (1, 2))
        x, y = point
        self.assertEqual((x, y, point.x, point[1]), (1, 2, 1, 2))
        self.assertNotEqual(point, (1, 3))
        self.assertEqual(Item("a", 2.5), Item("a", 2.5))
        self.assertEqual(Item("a").price, 1.0)
    """,
    "callbacks and doubles": """
        self.assertEqual(Shop(["a", "b"]).each(lambda name: name * 2), ["aa", "bb"])
        self.assertEqual(Shop(["a"]).each(str.upper), ["A"])
        shop = Shop(["a", "b"])
        self.assertEqual(shop.each(lambda name: shop.stock.index(name) + shop.size), [2, 3])
        double = MagicMock(return_value=7)
        shop.each = double
        self.assertEqual(shop.each(1), 7)
        double.assert_called_once_with(1)
        shop.each.assert_called_once()
        class Mine(Exception): pass
        def raising(name): raise Mine(name)
        with self.assertRaises(Mine):
            Shop(["a"]).each(raising)
        with self.assertRaises(LookupError):
            Shop(["a"]).each(lambda name: {}[name])
        self.assertEqual(apply(Path.exists, Path("/")), True)
    """,
    "globals": """
        self.assertEqual(RATE, 2)
        before = counter
        count()
        self.assertEqual(counter, before + 1)
        self.assertEqual(count.__name__, "count")
        with self.assertRaises(NameError):
            nothing_of_that_name
    """,
}
EXTRA = "\ndef apply(f, x): return f(x)\ndef fail_json(s):\n    import json\n    json.loads(s)\n"
SETUP = "import copy, json\nfrom pathlib import Path\nfrom unittest.mock import MagicMock"


@pytest.mark.parametrize("what", HONEST)
def test_programs_behave_as_in_one_process(what):
    chosen = plan(unittest_of(HONEST[what], SETUP))
    assert chosen.mode == "unittest"
    assert judged(SHOP + EXTRA, chosen) == [("pass", "")]


@pytest.mark.parametrize("what", HONEST)
def test_the_same_tests_fail_without_the_program(what):
    assert statuses("x = 1", plan(unittest_of(HONEST[what], SETUP))) == ["error"]


def test_class_bodies_and_decorators_may_name_the_program():
    source = """
import unittest
class T(unittest.TestCase):
    shared = Shop(["a"])
    cases = [RATE, Shop.LIMIT]
    @classmethod
    def setUpClass(cls): cls.more = Shop(["b"])
    def setUp(self): self.own = Shop(["c"])
    def test_a(self):
        self.assertEqual(self.shared.stock + self.more.stock, ["a", "b"])
        self.assertEqual(self.own.stock, ["c"])
    def test_b(self): self.assertEqual(self.cases, [2, 3])
"""
    assert statuses(SHOP, plan(UnitTests(source))) == ["pass", "pass"]


def test_every_way_not_to_pass():
    source = """
import unittest
def setUpModule(): pass
class A(unittest.TestCase):
    def test_error(self): fail(ValueError)
    def test_fail(self): self.assertEqual(RATE, 3)
    def test_later(self): self.assertEqual(RATE, 2)
    @unittest.skip("not now")
    def test_skip(self): pass
    def test_skip_inside(self): self.skipTest("later")
    def test_sub(self):
        for i in range(3):
            with self.subTest(i=i): self.assertNotEqual(i, 1)
class B(unittest.TestCase):
    @classmethod
    def setUpClass(cls): fail(KeyError)
    def test_never(self): pass
class C(unittest.TestCase):
    def test_after(self): pass
"""
    chosen = plan(UnitTests(source))
    found = dict(zip(chosen.names, judged(SHOP, chosen), strict=True))
    assert found["A.test_error"] == ("error", "ValueError: boom")
    assert found["A.test_fail"] == ("fail", "AssertionError: 2 != 3")
    assert found["A.test_later"] == ("pass", "")
    assert found["A.test_skip"] == ("fail", "skipped: not now")
    assert found["A.test_skip_inside"] == ("fail", "skipped: later")
    assert found["A.test_sub"][0] == "fail"
    assert found["B.test_never"][0] == "error"
    assert found["C.test_after"] == ("pass", "")


def test_a_program_cannot_skip_tests():
    code = "import unittest\ndef f(x): raise unittest.SkipTest('no')\nclass E(unittest.SkipTest): pass\ndef g(): raise E"
    for call in ("f(1)", "g()"):
        assert statuses(code, plan(unittest_of(call))) == ["error"]


def test_asserts_with_loops_and_several_calls():
    chosen = plan(
        Asserts(
            ["assert f(f(1)) == 4", "for i in range(5):\n    assert f(i) == two * i", "assert f(1) == 1"],
            "two = 2",
        )
    )
    assert chosen.mode == "asserts"
    assert statuses("def f(x): return 2 * x", chosen) == ["pass", "pass", "fail"]


EVIL = """
class Evil:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __hash__(self): return hash(4)
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __mod__ = __sub__
    def __abs__(self): return 0
    def __round__(self, n=0): return 0
    def __float__(self): return 0.0
    def __index__(self): return 0
    def __int__(self): return 0
    def __getattr__(self, name): return lambda *a, **k: True
    @property
    def __class__(self): return int
class Meta(type):
    def __eq__(self, other): return True
    def __hash__(self): return 1
    def __instancecheck__(self, other): return True
class EvilClass(metaclass=Meta): pass
class EvilInt(int):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __hash__(self): return 0
class EvilStr(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
class EvilList(list):
    def __eq__(self, other): return True
    def __contains__(self, other): return True
    def __len__(self): return 3
def f(x): return %s
"""
ASKED = [
    "self.assertEqual(f(2), 4)",
    "self.assertAlmostEqual(f(2), 4)",
    "self.assertTrue(f(2) == 4)",
    "self.assertFalse(f(2) != 4)",
    "self.assertIn(f(2), [4])",
    "self.assertIn(4, f(2))",
    "self.assertLess(f(2), 5)",
    "self.assertTrue(abs(f(2) - 4) < 1)",
    "self.assertEqual({4: 1}[f(2)], 1)",
    "self.assertIsInstance(f(2), int)\nself.assertEqual(f(2) % 2, 1)",
    "self.assertListEqual(f(2), [4])",
    "self.assertCountEqual(f(2), [4])",
]


EVILS = ["Evil()", "EvilClass", "EvilInt(3)", "EvilStr('3')", "EvilList()", "Evil"]
TRUE_OF_3 = ("assertLess", "assertIsInstance")  # 3 is less than 5, and odd


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        (what, asked)
        for what in EVILS
        for asked in ASKED
        if not (what == "EvilInt(3)" and any(name in asked for name in TRUE_OF_3))
    ],
)
def test_objects_made_to_equal_everything_equal_nothing(what, asked):
    found = statuses(EVIL % what, plan(unittest_of(asked)))
    assert found in (["fail"], ["error"])


def test_expected_values_do_not_reach_the_program():
    code = """
seen = []
class Spy:
    def __eq__(self, other): seen.append(other); return False
    def __sub__(self, other): seen.append(other); return self
    __rsub__ = __lt__ = __gt__ = __contains__ = __eq__
    def __hash__(self): return 4
spy = Spy()
def f(x): return spy
"""
    body = """
        attempts = [lambda: f(2) == 77, lambda: f(2) - 77, lambda: 77 - f(2), lambda: f(2) < 77, lambda: 77 in f(2)]
        for attempt in attempts:
            try:
                attempt()
            except TypeError:
                pass
        self.assertNotEqual(f(2), 77)
        self.assertEqual(seen, [])
    """
    assert judged(code, plan(unittest_of(body))) == [("pass", "")]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import os\ndef f(x): os._exit(0)",
        "import sys\nsys.exit(0)",
        "def f(x): raise SystemExit(0)",
        "def f(x): raise KeyboardInterrupt",
        "def f(x): raise GeneratorExit",
        "def f(x): raise BaseException",
        "import os\nfor fd in range(3, 60):\n    try: os.close(fd)\n    except OSError: pass",
        "import os\ndef f(x):\n    os.closerange(3, 60)",
        "def f(",
        "\x00",
        "'\ud800'; def f(x): return 4\ud800",
        "(" * 5000,
        "-" * 100_000 + "1",
        "def g(x): return 4",
        "def f(x): return f(x)",
        "f = 4",
        "class E(Exception):\n    def __str__(self): 1 / 0\n    __repr__ = __str__\ndef f(x): raise E(E())",
        "class E(Exception):\n    args = property(lambda self: 1 / 0)\ndef f(x): raise E()",
        "import json, builtins\nbuiltins.len = json.dumps = lambda *a, **k: 4\ndef f(x): return 5",
        "import sys\ndef f(x):\n    sys.setrecursionlimit(30)\n    return [[[[5]]]]",
        "def f(x):\n    a = []\n    for _ in range(10000): a = [a]\n    return a",
        "def f(x): return 1 << 10**6",
        "def f(x): return 'x' * 10**7",
        "def f(x): return list(range(10**6))",
    ],
)
@pytest.mark.parametrize("mode", ["calls", "asserts", "unittest"])
def test_programs_that_end_break_or_flood_never_pass(code, mode):
    tests = {
        "calls": Asserts(["assert f(2) == 4", "assert f(3) == 6"]),
        "asserts": Asserts(["x = f(2)\nassert x == 4", "x = f(3)\nassert x == 6"]),
        "unittest": unittest_of("self.assertEqual(f(2), 4)"),
    }[mode]
    chosen = plan(tests)
    assert chosen.mode == mode
    assert "pass" not in statuses(code, chosen)


def test_frames_of_a_program_that_is_called():
    code = """
def f(a, b=1):
    a.append(b)
    return a
def g(): raise ValueError('no', 3)
class C: pass
def h(): return C()
"""
    calls = plan(
        Asserts(
            [
                "assert f([1]) == 1",
                "assert f([1], b=2) == 1",
                "assert g() == 1",
                "assert h() == 1",
                "assert k() == 1",
            ]
        )
    ).calls
    assert run_calls(code, list(calls)) == [
        ["n0", "loaded"],
        ["n0", "value", 0, ["l", [1, 1]]],
        ["n0", "value", 1, ["l", [1, 2]]],
        ["n0", "raised", 2, "ValueError", "no, 3"],
        ["n0", "value", 3, ["o", ["C", True]]],
        ["n0", "raised", 4, "NameError", "name 'k' is not defined"],
        ["n0", "done"],
    ]


def test_the_programs_module_is_a_real_one():
    code = """
import dataclasses, pickle, sys, typing
@dataclasses.dataclass
class Node:
    name: str
    next: "typing.Optional[Node]" = None
def f():
    typing.get_type_hints(Node)
    return pickle.loads(pickle.dumps(Node("a"))).name + str(__name__ == "__main__") + str(__name__ in sys.modules)
if __name__ == "__main__":
    raise SystemExit
"""
    assert statuses(code, plan(Asserts(["assert f() == 'aFalseTrue'"]))) == ["pass"]


def test_annotations_are_not_postponed_by_the_harness():
    code = "class C:\n    x: int = 1\ndef f(): return C.__annotations__['x'] is int"
    assert statuses(code, plan(Asserts(["assert f() is True"]))) == ["pass"]


def test_in_process_tests_capture_what_is_printed():
    body = """
        with contextlib.redirect_stdout(io.StringIO()) as out:
            hello("you")
        self.assertEqual(out.getvalue(), "hello you\\n")
    """
    chosen = plan(unittest_of(body, "import contextlib, io"))
    assert chosen.mode == "inproc"
    assert judged("def hello(name): print('hello', name)", chosen) == [("pass", "")]
    assert statuses("def hello(name): print(name)", chosen) == ["fail"]
    assert statuses("def hello(name", chosen) == ["error"]


def _against(replies) -> str:
    """What a link says of a program's side that answers as given; `replies` maps a request to raw bytes."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        reader = frames.Reader(frames.MAX_FRAME)
        try:
            while True:
                theirs.sendall(replies(frames.unpack(reader.read(theirs.fileno()))))
        except (frames.Closed, OSError):
            return

    thread = threading.Thread(target=answer)
    thread.start()
    link = Link(ours.fileno())
    try:
        with pytest.raises(Foul):
            link.request("global", ("f",))
        with pytest.raises(Foul):
            link.request("global", ("f",))
    finally:
        ours.close()
        thread.join()
        theirs.close()
    return link.foul


REPLIES = [
    lambda token: ["", "value", [], 1],
    lambda token: ["0" * 12, "value", [], 1],
    lambda token: [token],
    lambda token: {"token": token},
    lambda token: [token, "value", [], {}],
    lambda token: [token, "value", {}, 1],
    lambda token: [token, "value", [[0, "l", []]], 1],
    lambda token: [token, "value", [["a", "l", []]], 1],
    lambda token: [token, "value", [], ["m", 0]],
    lambda token: [token, "value", [], ["m", 2, "l", []]],
    lambda token: [token, "value", [], ["m", 1, "d", [["l", []], 1]]],
    lambda token: [token, "value", [], ["m", [], "d", []]],
    lambda token: [token, "value", [], ["o", ["instance", -1, 0]]],
    lambda token: [token, "value", [], ["o", ["instance", True, 0]]],
    lambda token: [token, "value", [], ["o", ["callback", 3]]],
    lambda token: [token, "value", [], ["o", ["pickle", "gASVCgAAAAAAAABNAQAu"]]],
    lambda token: [token, "value", [], ["o", [["a"], 1]]],
    lambda token: [token, "callback", [], "call", 0, ["t", []], ["t", []]],
    lambda token: [token, "callback", [], "call", "0", ["t", []], ["t", []]],
    lambda token: [token, "raised", [], None, 5, [], []],
    lambda token: [token, "raised", [], 7, [["x"]], {}, []],
    lambda token: [token, "surprise", [], 1],
]


@pytest.mark.parametrize("number", range(len(REPLIES)))
def test_replies_that_are_none_are_foul(number):
    assert _against(lambda request: frames.pack(REPLIES[number](request[0])))


def test_floods_and_noise_are_foul():
    assert _against(lambda request: b"PASS" * 100)
    assert _against(lambda request: frames.HEADER.pack(4) + b"\xff\xfe{}")
    assert _against(lambda request: frames.pack([request[0], "value", [], 1, "x" * frames.MAX_ANSWER]))
    deep = b"[" * 100_000
    assert _against(lambda request: frames.HEADER.pack(len(deep)) + deep)


@pytest.mark.parametrize(
    "about",
    [
        5,
        ["t", [1, 2]],
        ["t", ["C", ["t", [["t", ["m", "n", 0]]]], ["t", []], ["t", []], False, True]],  # its own base
        ["t", ["C", 5, ["t", []], ["t", []], False, True]],
        ["t", ["C", ["t", []], 5, ["t", []], False, True]],
        ["t", ["C", ["t", []], ["t", [["l", []]]], ["t", []], False, True]],
    ],
)
def test_classes_that_are_none_are_foul(about):
    def reply(request):
        data = ["t", [["o", ["class", 0, 0]]]] if request[1] == "global" else about
        return frames.pack([request[0], "value", [], data])

    assert _against(reply)


def test_exceptions_take_no_class_that_the_judge_minds():
    for pair in (["unittest.case", "SkipTest"], ["builtins", "KeyboardInterrupt"], ["os", "system"], [1, []]):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            link = Link(ours.fileno())

            def answer(theirs=theirs, pair=pair) -> None:
                token = frames.unpack(frames.Reader(1 << 20).read(theirs.fileno()))[0]
                reply = [token, "raised", [], None, [pair, ["builtins", "Exception"]], ["no"], None]
                theirs.sendall(frames.pack(reply))

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises((CandidateError, Foul)) as caught:
                link.request("global", ("f",))
            thread.join()
        assert caught.type in (CandidateError, Foul), pair


def test_tests_get_no_answer_from_before_the_question():
    code = """
import os, json, struct
def shout():
    for fd in range(3, 40):
        for index in range(2):
            for nonce in ("n0", ""):
                body = json.dumps([nonce, "test", index, "pass", ""]).encode()
                try: os.write(fd, struct.pack("!I", len(body)) + body)
                except OSError: pass
shout()
def f(x):
    shout()
    return 5
"""
    for tests in (
        Asserts(["x = f(2)\nassert x == 4", "x = f(5)\nassert x == 10"]),
        unittest_of("self.assertEqual(f(2), 4)"),
    ):
        assert "pass" not in statuses(code, plan(tests))


def test_messages_are_short_lines():
    chosen = plan(unittest_of("self.assertEqual(f(2), 4)"))
    ((_, message),) = judged("def f(x): return 'x' * 5000 + '\\n' * 50", chosen)
    assert len(message) <= 200
    assert "\n" not in message


def test_wire_is_json():
    for tests in (Asserts(["assert f(1) == f(2)"]), unittest_of("f(1)")):
        assert json.loads(json.dumps(plan(tests).wire()))["tests"]["names"]


def test_no_process_is_left():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
