"""Tests that run in one process against a program in another: honest ones work, hostile ones never pass."""

from __future__ import annotations

import json

import pytest
from forked import judged, run_calls, statuses, unittest_of

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
    code = "import unittest\nclass E(unittest.SkipTest): pass\n"
    code += "def f(x): raise unittest.SkipTest('no')\ndef g(): raise E"
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


def test_tests_may_start_threads():
    body = """
        shop = Shop()
        threads = [threading.Thread(target=shop.add, args=(i,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        self.assertEqual(sorted(shop.stock), list(range(8)))
    """
    assert judged(SHOP, plan(unittest_of(body, "import threading"))) == [("pass", "")]


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


def test_messages_are_short_lines():
    chosen = plan(unittest_of("self.assertEqual(f(2), 4)"))
    ((_, message),) = judged("def f(x): return 'x' * 5000 + '\\n' * 50", chosen)
    assert len(message) <= 200
    assert "\n" not in message


def test_wire_is_json():
    for tests in (Asserts(["assert f(1) == f(2)"]), unittest_of("f(1)")):
        assert json.loads(json.dumps(plan(tests).wire()))["tests"]["names"]
