"""The whole sandbox through its front door: what a scorer sees of programs of every kind."""

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collm_envs import SettingError
from collm_envs.errors import InputError
from collm_envs.sandbox import Asserts, Program, Sandbox, SandboxError, UnitTests, best_tier, probe, shared

TIER = best_tier(probe())
pytestmark = pytest.mark.skipif(TIER not in ("full", "no-userns"), reason="this host confines nothing")

DOUBLE = Asserts(("assert f(2) == 4", "assert f(5) == 10", "assert f(0) == 0"))
ACCOUNT = """
class Account:
    def __init__(self):
        self.value = 0
    def add(self, amount):
        if amount < 0:
            raise ValueError("less than nothing")
        self.value += amount
        return self.value
    def slow(self):
        return 1
"""
METHODS = UnitTests(
    """
import unittest
class TestAccount(unittest.TestCase):
    def test_add(self):
        self.assertEqual(Account().add(2), 2)
    def test_refused(self):
        with self.assertRaises(ValueError):
            Account().add(-1)
    def test_slow(self):
        self.assertEqual(Account().slow(), 1)
"""
)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as box:
        yield box


def statuses(sandbox, code, tests=DOUBLE, **limits):
    return [test.status for test in sandbox.run(Program(code), tests, **limits).tests]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x): return 2 * x", ["pass"] * 3),
        ("def f(x): return 2.0 * x", ["pass"] * 3),  # 4.0 == 4, as everywhere in Python
        ("def f(x): return 4", ["pass", "fail", "fail"]),
        ("def f(x): return None", ["fail"] * 3),
        ("def f(x): return object()", ["fail"] * 3),
        ("def f(x): return 10 // x * (x // 5) or 2 * x", ["pass", "fail", "error"]),
        ("def f(x: return x", ["error"] * 3),
        ("def g(x): return 2 * x", ["error"] * 3),
        ("", ["error"] * 3),
        ("import sys; sys.exit(0)", ["error"] * 3),
        ("import os; os._exit(0)", ["error"] * 3),
        ("import os\ndef f(x):\n    if x == 5: os.abort()\n    return 2 * x", ["pass", "error", "pass"]),
        ("import numpy\ndef f(x): return numpy.int64(2 * x)", ["pass"] * 3),
        # Installed, but not granted: missing like any other, so that a library may do without it.
        ("try:\n    import torch\nexcept ModuleNotFoundError:\n    def f(x): return 2 * x", ["pass"] * 3),
        ("def f(x): return '\ud800'", ["error"] * 3),  # no source text can hold it
        ("def f(x): return chr(0xd800)", ["fail"] * 3),
        ("import sys\nprint('x' * 10**6)\ndef f(x): return 2 * x", ["pass"] * 3),
    ],
)
def test_each_assert_has_its_own_outcome(sandbox, code, expected):
    assert statuses(sandbox, code) == expected


def test_a_test_that_hangs_costs_only_itself(sandbox):
    hang = "def f(x):\n    while x == 5: pass\n    return 2 * x"
    assert statuses(sandbox, hang, time_limit_s=0.3) == ["pass", "timeout", "pass"]
    assert statuses(sandbox, "while True: pass", time_limit_s=0.3) == ["timeout"] * 3
    sleep = ACCOUNT.replace("return 1", "import time; time.sleep(60)")
    assert statuses(sandbox, sleep, METHODS, time_limit_s=0.4) == ["pass", "pass", "timeout"]


def test_after_enough_timeouts_the_rest_is_not_run(sandbox):
    tests = Asserts(tuple(f"assert f({i}) == {i}" for i in range(6)))
    result = sandbox.run(
        Program("def f(x):\n    while x: pass\n    return x"), tests, time_limit_s=0.2, max_timeouts=2
    )
    assert [test.status for test in result.tests] == ["pass", *["timeout"] * 5]
    assert 0.4 <= result.seconds < 0.8  # two were waited for
    assert [t.message for t in result.tests[3:]] == ["not run after so many timeouts"] * 3


def test_the_total_limit_ends_a_run(sandbox):
    nap = "import time\ndef f(x):\n    time.sleep(0.4)\n    return 2 * x"
    result = sandbox.run(Program(nap), DOUBLE, time_limit_s=5, total_limit_s=0.6)
    assert result.tests[0].status == "pass"
    assert {test.status for test in result.tests[1:]} == {"timeout"}
    assert result.seconds < 1.2


def test_a_crash_costs_only_itself_up_to_a_number(sandbox):
    code = "import os\ndef f(x):\n    if x < 4: os._exit(1)\n    return x"
    tests = Asserts(tuple(f"assert f({i}) == {i}" for i in range(6)))
    result = sandbox.run(Program(code), tests)
    assert [test.status for test in result.tests] == ["error"] * 6
    assert "so many crashes" in result.tests[-1].message
    once = Program("import os\ndef f(x):\n    if x == 1: os._exit(1)\n    return x")
    assert [test.status for test in sandbox.run(once, tests).tests] == ["pass", "error", *["pass"] * 4]


def test_methods_are_judged_in_another_process(sandbox):
    result = sandbox.run(Program(ACCOUNT), METHODS)
    assert (result.passed, result.total, result.trust) == (3, 3, "judged")
    wrong = sandbox.run(Program(ACCOUNT.replace("self.value += amount", "pass")), METHODS)
    assert [test.status for test in wrong.tests] == ["fail", "pass", "pass"]
    assert wrong.tests[0].name == "TestAccount.test_add"
    dead = ACCOUNT.replace("return 1", "import os; os._exit(0)")
    assert statuses(sandbox, dead, METHODS) == ["pass", "pass", "error"]


def test_the_same_tests_judge_the_next_program_afresh(sandbox):
    """The process of the tests goes on; nothing of one program may be left for the next."""
    good, bad = ACCOUNT + "# 1", ACCOUNT.replace("+=", "-=")
    for code, expected in ((good, 3), (bad, 2), (good + "2", 3), ("x = (", 0), (good + "3", 3)):
        assert sandbox.run(Program(code), METHODS).passed == expected


def test_tests_beside_the_program_are_marked(sandbox):
    tests = UnitTests(
        "import unittest\nfrom unittest.mock import patch\n"
        "class TestAsk(unittest.TestCase):\n    def test_ask(self):\n"
        "        with patch('builtins.input', return_value='3'):\n            self.assertEqual(ask(), '3')\n"
    )
    result = sandbox.run(Program("def ask(): return input()"), tests)
    assert (result.passed, result.trust) == (1, "inproc")
    assert sandbox.run(Program("def ask(): return 4"), tests).passed == 0


def test_programs_find_an_empty_scratch_and_nothing_else(sandbox):
    code = "import os\ndef f(x):\n    open('kept', 'w').close()\n    return sorted(os.listdir('.'))"
    tests = Asserts(("assert f(1) == ['kept']",))
    assert sandbox.run(Program(code), tests).passed == 1
    assert sandbox.run(Program(code + "\n# again"), tests).passed == 1
    own = str(Path(__file__).resolve())
    for path in (own, "/etc/passwd", "/proc/1/environ"):
        reading = f"def f(x): return open({path!r}).read()[:0]"
        assert sandbox.run(Program(reading), Asserts(("assert f(1) == ''",))).tests[0].status == "error"


def test_random_numbers_are_the_same_at_every_run(sandbox):
    code = "import random\ndef f(x): return random.random()"
    found = {sandbox.run(Program(f"{code}\n# {i}"), DOUBLE).tests[0].message for i in range(4)}
    assert len(found) == 1


def test_equal_programs_are_run_once():
    with Sandbox(workers=1) as box:
        nap = Program("import time\ntime.sleep(0.3)\ndef f(x): return 2 * x")
        first = [box.submit(nap, DOUBLE) for _ in range(20)]
        results = [future.result(timeout=20) for future in first]
        assert all(result is results[0] for result in results)
        assert box.submit(nap, DOUBLE).result() is results[0]
        other = box.submit(nap, DOUBLE, time_limit_s=7.0).result()
        assert other is not results[0]
        assert other.passed == 3


def test_many_at_once_keep_their_order(sandbox):
    jobs = [(Program(f"def f(x): return {i}"), Asserts((f"assert f(0) == {i}",))) for i in range(300)]
    results = sandbox.run_many(jobs)
    assert all(result.passed == 1 for result in results)
    wrong = sandbox.run_many((program, Asserts(("assert f(0) == -1",))) for program, _ in jobs[:20])
    assert [result.tests[0].message for result in wrong] == [f"f(0) gave {i}, not -1" for i in range(20)]


def test_threads_share_one_sandbox(sandbox):
    found = []

    def ask(i):
        found.append(
            sandbox.run(Program(f"def f(x): return x + {i}"), Asserts((f"assert f(1) == {i + 1}",))).passed
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 20


def test_bad_tests_are_the_callers_error(sandbox):
    for tests in (Asserts(()), Asserts(("assert f(",)), UnitTests("x = 1")):
        with pytest.raises(InputError):
            sandbox.submit(Program("def f(x): return x"), tests)


def test_settings_are_checked():
    with pytest.raises(SettingError, match="tier"):
        Sandbox(tier="fast")
    with pytest.raises(SettingError, match="workers"):
        Sandbox(workers=0)


def test_a_closed_sandbox_refuses():
    box = Sandbox(workers=1)
    box.close()
    box.close()
    with pytest.raises(SandboxError, match="closed"):
        box.submit(Program(""), DOUBLE)


def test_one_shared_sandbox_per_settings():
    assert shared() is shared()
    assert shared().run(Program("def f(x): return 2 * x"), DOUBLE).passed == 3


def test_the_command_prints_a_line_per_program(tmp_path):
    file = tmp_path / "programs.jsonl"
    file.write_text(
        '{"name": "good", "code": "def f(x): return x", "tests": ["assert f(1) == 1", "assert f(2) == 3"]}\n'
        '{"name": "rude", "code": "import sys; sys.exit(3)", "tests": ["assert f(1) == 1"]}\n'
    )
    words = [sys.executable, "-m", "collm_agents.cli", "sandbox", "run", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    good, rude = map(json.loads, done.stdout.splitlines())
    assert (good["name"], good["passed"], good["total"], good["trust"]) == ("good", 1, 2, "judged")
    assert [test["status"] for test in good["tests"]] == ["pass", "fail"]
    assert (rude["name"], rude["passed"], rude["error"]) == ("rude", 0, "SystemExit: 3")
    file.write_text('{"name": "x", "code": "", "tests": "no test here"}\n')
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "row 1, field 'tests'" in done.stderr


def test_the_trainer_keeps_no_memory_of_many_programs():
    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    with Sandbox(workers=2) as box:

        def round_of(start):
            jobs = ((Program(f"def f(x): return {i}"), DOUBLE) for i in range(start, start + 300))
            assert len(box.run_many(jobs)) == 300

        round_of(0)
        before = resident()
        round_of(300)
        assert resident() - before < 4


def test_programs_larger_than_any_buffer_arrive():
    with Sandbox(workers=1) as box:
        text = "é" * 700_000
        jobs = [(Program(f"def f(x): return {2 + i} * x\n# {text}"), DOUBLE) for i in range(4)]
        results = box.run_many(jobs, time_limit_s=20)
        assert [result.passed for result in results] == [3, 1, 1, 1]


def test_answers_larger_than_one_frame_in_all_are_read(sandbox):
    tests = Asserts(tuple(f"assert len(f({i})) == 60000" for i in range(6)))
    assert sandbox.run(Program("def f(x): return [x] * 60000"), tests).passed == 6
    flood = Asserts(tuple(f"assert f({i}) == ''" for i in range(40)))
    result = sandbox.run(Program("def f(x): return 'x' * 500000"), flood)
    assert {test.status for test in result.tests} == {"protocol"}


def test_tests_with_random_inputs_ask_the_same_of_every_program():
    tests = Asserts(("for _ in range(3):\n    assert f(random.random()) is None",), setup="import random")
    code = "seen = []\ndef f(x):\n    seen.append(x)\n    if len(seen) == 3: raise ValueError(repr(seen))\n"
    with Sandbox(workers=1) as box:
        told = [box.run(Program(f"{code}# {i}"), tests).tests[0].message for i in range(3)]
    assert len(set(told)) == 1
    assert "0." in told[0]


def test_what_was_late_is_run_again():
    with Sandbox(workers=1) as box:
        late = Program("def f(x):\n    while x == 2: pass\n    return 2 * x")
        first = box.run(late, DOUBLE, time_limit_s=0.2)
        assert first.tests[0].status == "timeout"
        assert box.run(late, DOUBLE, time_limit_s=0.2) is not first


def test_crashes_between_tests_of_methods_cost_only_themselves(sandbox):
    """The next attempt of a run has the same number as the one before; orders for that one must not reach it."""
    source = "import unittest\nclass T(unittest.TestCase):\n"
    source += "".join(f"    def test_{i}(self): self.assertEqual(g({i}), {i})\n" for i in range(6))
    code = "import os\ndef g(x):\n    if x in (1, 3): os._exit(1)\n    return x\n"
    for i in range(8):
        found = sandbox.run(Program(f"{code}# {i}"), UnitTests(source))
        assert [test.status for test in found.tests] == ["pass", "error", "pass", "error", "pass", "pass"]


HEEDS = """
import signal
def heeds(number):
    free = number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return free and signal.getsignal(number) != signal.SIG_IGN
"""
DEAF = """
import signal, sys
from collm_envs.sandbox import Asserts, Program, Sandbox
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGALRM])
names = ("SIGHUP", "SIGINT", "SIGCHLD", "SIGUSR1", "SIGTERM", "SIGALRM")
numbers = [int(getattr(signal, name)) for name in names]
tests = Asserts(tuple(f"assert heeds({n}) == True" for n in numbers))
with Sandbox(workers=1) as box:
    for _ in range(2):
        print([test.status for test in box.run(Program(sys.argv[1]), tests).tests])
"""


def test_programs_heed_signals_that_the_trainer_ignores_or_blocks():
    """As under nohup, which ignores SIGHUP, or a shell's background, which ignores SIGINT: both are inherited."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", DEAF, HEEDS],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(["pass"] * 6)] * 2, done.stderr
