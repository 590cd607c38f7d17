"""Programs made to pass without doing the work, and a program's side that breaks the protocol: none passes."""

from __future__ import annotations

import socket
import threading

import pytest
from forked import judged, statuses, unittest_of

from collm_envs.sandbox import frames
from collm_envs.sandbox.link import CandidateError, Foul, Link
from collm_envs.sandbox.plan import plan
from collm_envs.sandbox.results import Asserts

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


SWALLOW = """
class Swallow:
    def __enter__(self): return 5
    def __exit__(self, *error): return True
def f(x): return Swallow()
def each(values, check):
    for value in values:
        try: check(value)
        except BaseException: pass
    return values
class math:
    isclose = staticmethod(lambda *a, **k: True)
def apply(g, *args): return g(*args)
"""


@pytest.mark.parametrize(
    "body",
    [
        "with f(2) as x: self.assertEqual(x, 4)",
        "with f(2) as x: x.nothing",
        "each([5], lambda x: self.assertEqual(x, 4))",
        "self.assertTrue(math.isclose(apply(len, 'abc'), 4))",
        "with self.assertRaises(TypeError): each(threading.Lock(), 1)",
    ],
)
def test_programs_cannot_swallow_failures_or_replace_what_judges(body):
    assert statuses(SWALLOW, plan(unittest_of(body, "import threading"))) in (["fail"], ["error"])


def test_library_functions_run_where_they_are_called():
    body = """
        self.assertEqual(apply(len, "abc"), 3)
        self.assertNotEqual(apply(os.getpid), os.getpid())
        found = []
        each([1, 2], found.append)
        self.assertEqual(found, [1, 2])
        mark = object()
        self.assertIs(each([mark], found.append)[0], mark)
    """
    assert judged(SWALLOW, plan(unittest_of(body))) == [("pass", "")]


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
        attempts = [lambda: f(2) == 77, lambda: f(2) - 77, lambda: 77 - f(2)]
        attempts += [lambda: f(2) < 77, lambda: 77 in f(2)]
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
