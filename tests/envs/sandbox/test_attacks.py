"""Hostile programs of two corpora: none passes, none reaches the host, and the next program finds nothing of them.

`attacks.jsonl` beside this file is the project's own; fields `name`, `category`, `tests` (a key of `TESTS`),
`code`, `must` (`pass`, `timeout`, or `fail` for every other end; several with "|"), `earns` (tests that may pass
at most where the whole must not; 0 without it), `note`, `hazard`. They run inside the sandbox and nowhere else.
"""

import ast
import json
import os
import platform
import re
import textwrap
from itertools import count
from pathlib import Path

import pytest
from host_watch import Host, eventually, generations, strays, supervisors

from collm_envs.sandbox import Asserts, Program, Sandbox, SandboxError, UnitTests
from collm_envs.sandbox.plan import plan
from collm_envs.sandbox.runs import Run

pytestmark = [pytest.mark.system, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[3]
OWN = Path(__file__).with_name("attacks.jsonl")
FURTHER = ROOT.parent / "shared" / "data" / "attacks.jsonl"
CATEGORIES = {"control", "resource", "escape", "reward", "crash"}
ATTACK_S, ESCAPE_S, HONEST_S = 0.35, 5.0, 8.0
SHORT = {"max_timeouts": 1, "total_limit_s": 12.0}

DOUBLE = Asserts(["assert f(2) == 4", "assert f(5) == 10"])
TALLY = """
import unittest
from unittest.mock import MagicMock

WORDS = ["b", "a", "b"]

class TestTally(unittest.TestCase):
    def test_counts(self):
        tally = Tally()
        tally.add("a")
        tally.add("b", 2)
        self.assertEqual(tally.count("b"), 2)
        self.assertEqual(tally.count("a"), 1)

    def test_top(self):
        self.assertEqual(Tally(WORDS).top(2), [("b", 2), ("a", 1)])

    def test_refuses(self):
        tally = Tally(["a"])
        with self.assertRaises(ValueError):
            tally.add("a", -1)
        self.assertEqual(tally.count("a"), 1)

    def test_merged(self):
        left = Tally(["a"])
        both = left.merged(Tally(["a", "b"]))
        self.assertAlmostEqual(both.count("a"), 2)
        self.assertIsInstance(both, Tally)
        self.assertEqual(left.items(), {"a": 1})

    def test_apart(self):
        full, empty = Tally(["x"]), Tally()
        self.assertEqual(empty.items(), {})
        self.assertEqual(full.items(), {"x": 1})

    def test_size(self):
        self.assertEqual(len(Tally(["x", "y", "x"])), 3)
        self.assertFalse(Tally().count("x") != 0)
"""
SHOWN = """
import contextlib, io

class TestShown(unittest.TestCase):
    def test_shown(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            Tally(["x", "y", "x"]).show()
        self.assertEqual(out.getvalue(), "x 2\\ny 1\\n")
"""
CALLBACK = """
import unittest

class TestEach(unittest.TestCase):
    def test_each(self):
        expected, seen = [("x", 2), ("y", 1)], []
        Tally(["x", "y", "x"]).each(lambda word, times: seen.append((word, times)))
        self.assertEqual(seen, expected)
        self.assertEqual(len(seen), 2)
"""
MOCK = """
import unittest
from unittest.mock import MagicMock

class TestReport(unittest.TestCase):
    def test_report(self):
        sink, tally = MagicMock(), Tally(["x"])
        tally.report(sink)
        sink.write.assert_called_with("x", 1)
        self.assertEqual(tally.count("x"), 1)

    def test_count(self):
        sink, tally = MagicMock(), Tally(["x", "x"])
        tally.report(sink)
        self.assertEqual(tally.count("x"), 2)
"""
LOOP = (
    "for x in range(1, 5):\n    assert f(x) == 2 * x",
    "for x in range(1, 5):\n    assert abs(f(x) - 2 * x) < 1e-6",
    "for x in range(1, 5):\n    if f(x) != 2 * x:\n        raise AssertionError(x)\n    assert f(x)",
    "assert [f(x) for x in range(1, 5)] == [2, 4, 6, 8]",
    "assert all(f(x) in (2 * x,) for x in range(1, 5))",
    "assert not any(f(x) < 2 * x or f(x) > 2 * x for x in range(1, 5))",
)
TESTS = {
    "double": DOUBLE,
    "counter": UnitTests(TALLY),
    "inproc": UnitTests(TALLY + SHOWN),
    "callback": UnitTests(CALLBACK),
    "mock": UnitTests(MOCK),
    "loop": Asserts(LOOP),
}
_numbers = count()


def rows(path):
    """Rows of a corpus; a row with SHAPES is one for each of them."""
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row.setdefault("tests", "double")
        shapes = re.search(r"^SHAPES = (\[.*\])$", row["code"], re.M)
        if not shapes:
            found.append(row)
            continue
        for number in range(len(ast.literal_eval(shapes[1]))):
            code = row["code"].replace("SHAPE = 0\n", f"SHAPE = {number}\n")
            found.append(row | {"name": f"{row['name']}[{number}]", "code": code})
    return found


def test_the_corpus_is_what_it_says():
    own = [json.loads(line) for line in OWN.read_text().splitlines()]
    assert len({row["name"] for row in own}) == len(own) >= 70
    assert {row["category"] for row in own} == CATEGORIES
    assert sum(row["category"] == "control" for row in own) >= 8
    for row in own:
        assert set(row["must"].split("|")) <= {"pass", "fail", "timeout"}, row["name"]
        assert (row["must"] == "pass") == (row["category"] == "control"), row["name"]
        assert row["tests"] in TESTS, row["name"]
        assert row["hazard"] in ("low", "high", "extreme"), row["name"]


def honest():
    """A program that passes where nothing is left of the one before; never the same text twice."""
    return Program(
        textwrap.dedent(
            f"""
            # {next(_numbers)}
            import json, os, signal, sys
            def f(x):
                left = os.listdir(".")
                deaf = [n for n in (1, 2, 3, 14, 15, 24) if signal.getsignal(n) == signal.SIG_IGN]
                sound = json.loads(json.dumps({{"x": x}})) == {{"x": x}} and os.environ["HOME"] == os.getcwd()
                return 2 * x if sound and not left and not deaf and len(os.environ) < 12 else [left, deaf, sound]
            """
        )
    )


def end(result):
    """How a run ended, as `must` says it."""
    if result.passed == result.total:
        return "pass"
    return "timeout" if any(test.status == "timeout" for test in result.tests) else "fail"


class Ring:
    """One sandbox under attack; a new one where it has failed.

    It has one worker, so that the next program meets what the last one left.
    """

    def __init__(self, tier, host):
        self.tier, self.host = tier, host
        self.open()

    def open(self):
        try:
            self.box = Sandbox(tier=self.tier, workers=1)
        except SandboxError as error:
            pytest.skip(str(error))
        self.box.run_many([(honest(), tests) for tests in TESTS.values()])  # some tests keep their process
        (self.supervisor,) = supervisors(os.getpid())
        self.at_rest = generations(self.supervisor)

    def run(self, row):
        """Run a row and tell all that is not as it must be."""
        found = []
        limit_s = ATTACK_S if "timeout" in row["must"] else HONEST_S if row["must"] == "pass" else ESCAPE_S
        try:
            result = self.box.run(Program(row["code"]), TESTS[row["tests"]], time_limit_s=limit_s, **SHORT)
            found += self.judge(row, result)
            after = self.box.run(honest(), DOUBLE, time_limit_s=HONEST_S)
            if end(after) != "pass":
                found.append(f"the next program: {after.tests}")
            if row["tests"] in ("counter", "callback", "mock", "loop"):
                found += self.same_tests(row["tests"])
            if more := eventually(self.more_processes):
                found.append(f"processes by generation: {more}, at rest {self.at_rest}")
        except SandboxError as error:
            found.append(f"the sandbox failed: {error}")
            self.box.close()
            self.open()
        found += self.host.wrongs()
        return [f"{row['name']}: {line}" for line in found]

    def same_tests(self, tests):
        """Run a right and a wrong program against the tests that were just attacked: their process is kept."""
        control = next(
            row["code"] for row in rows(OWN) if (row["category"], row["tests"]) == ("control", tests)
        )
        jobs = [
            (Program(f"{code}# {next(_numbers)}\n"), TESTS[tests]) for code in (control, "Tally = f = None\n")
        ]
        right, wrong = self.box.run_many(jobs, time_limit_s=HONEST_S)
        if end(right) != "pass" or wrong.passed:
            yield f"the same tests for the next programs: {right.tests}, {wrong.tests}"

    def more_processes(self):
        """Processes by generation, where there are more than a sandbox at rest has."""
        now = generations(self.supervisor)
        at_most = self.at_rest + [0] * len(now)
        return now if any(here > most for here, most in zip(now, at_most, strict=False)) else None

    @staticmethod
    def judge(row, result):
        tests, ended = result.tests, end(result)
        if ended not in row["must"].split("|"):
            yield f"must {row['must']}, but ended with {ended}: {tests[0]}, {result.error}"
        elif ended != "pass" and "earns" in row and result.passed > row["earns"]:
            yield f"earned {result.passed} tests: {[test.name for test in tests if test.status == 'pass']}"
        if result.trust != ("inproc" if row["tests"] == "inproc" else "judged"):
            yield f"trust is {result.trust}"
        if result.facts:
            yield f"facts are {str(result.facts)[:80]}"
        for text in (result.error, *(test.message for test in tests)):
            if len(text) > 300 or not text.isprintable():
                yield f"a message is no line of text: {text[:80]!r}"
                return


@pytest.fixture(scope="module")
def host():
    host = Host()
    before = os.environ.get("SBX_CANARY_SECRET")
    os.environ["SBX_CANARY_SECRET"] = host.secret
    yield host
    host.close()
    if before is None:
        del os.environ["SBX_CANARY_SECRET"]
    else:
        os.environ["SBX_CANARY_SECRET"] = before


@pytest.fixture(scope="module", params=["full", "no-userns"])
def ring(request, host):
    if platform.system() != "Linux":
        pytest.skip("these walls are Linux's")
    ring = Ring(request.param, host)
    yield ring
    ring.box.close()
    assert not eventually(strays)


def test_a_program_cannot_pass_for_a_fault_of_the_sandbox():
    wire = {"program": {"code": "", "prepare": None, "payload": {}}, "plan": plan(DOUBLE).wire(), "id": 1}
    run = Run({**wire, "limit_s": 8.0, "total_s": 10.0, "max_timeouts": 3})
    ready, loaded = (json.dumps([run.nonce, word]) for word in ("ready", "loaded"))
    run.hear({"frames": [ready, loaded], "end": "died of SIGKILL", "seconds": 9.99}, of_tests=False)
    run.close_attempt()
    assert run.finished, "what is left of the time is less than a process needs to say that it is ready"
    assert [status for status, _ in run.outcomes] == ["error", "timeout"]


def attack(ring, path):
    known = [row for row in rows(path) if "x86_64" not in row["note"] or platform.machine() == "x86_64"]
    wrong = [line for row in known for line in ring.run({"earns": 0} | row if path == OWN else row)]
    assert not wrong, f"{len(wrong)} of {len(known)} rows:\n" + "\n".join(wrong)


def test_own_corpus(ring):
    attack(ring, OWN)


def test_further_corpus(ring):
    if not FURTHER.exists():
        pytest.skip(f"no {FURTHER}")
    attack(ring, FURTHER)


def test_a_program_does_not_see_the_next(ring):
    row = next(row for row in rows(OWN) if row["name"] == "other_programs_in_frames")
    for number in range(10):
        thief, owner = (
            Program(f"# {number}\n{row['code']}"),
            Program(f"def f(x):\n    return 2 * x  # {number}\n"),
        )
        stolen, own = ring.box.run_many([(thief, DOUBLE), (owner, DOUBLE)], time_limit_s=HONEST_S)
        assert end(own) == "pass"
        assert end(stolen) == "fail", "it took the program that waited behind it"
