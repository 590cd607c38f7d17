"""Whoever dies, and however: no process and no folder of a sandbox is left, and what was under way is run again."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from itertools import count
from pathlib import Path

import pytest
from host_watch import MARK, below, eventually, processes, strays, supervisors

from collm_envs.sandbox import Asserts, Program, Sandbox, SandboxError, UnitTests

pytestmark = [
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.skipif(platform.system() != "Linux", reason="processes are looked up as Linux shows them"),
]
DOUBLE = Asserts(["assert f(2) == 4"])
BUSY_S, SETTLED_S = 0.9, 0.3  # how long a program is busy, and when it surely is
LIMITS = {"time_limit_s": 8.0, "total_limit_s": 20.0}
ROOT = Path(__file__).resolve().parents[3]
_numbers = count()


def honest():
    return Program(f"def f(x):\n    return 2 * x  # {next(_numbers)}\n")


def spinning(until):
    """A program that holds its process until a time of day, and passes then: so does a second run of it."""
    code = f"import time\ndef f(x):\n    while time.time() < {until}:\n        pass\n    return 2 * x\n"
    return Program(code), DOUBLE


SLEEPING = """
import time, unittest
class TestF(unittest.TestCase):
    def test_f(self):
        time.sleep(max(0.0, {} - time.time()))
        self.assertEqual(f(2), 4)
"""


def sleeping(until):
    """The same with tests that sleep, in the process of the tests."""
    return honest(), UnitTests(SLEEPING.format(until))


def waiting_program(until):
    """The same with a program that is only waited for, over its socket."""
    code = f"import time\ndef f(x):\n    time.sleep(max(0.0, {until} - time.time()))\n    return 2 * x\n"
    return Program(code), Asserts(["for x in range(3):\n    assert f(x) == 2 * x"])


BUSY = {"idle": None, "spinning": spinning, "sleeping": sleeping, "waiting": waiting_program}


@pytest.fixture
def folder(monkeypatch):
    """The only folder for temporary files; every user may pass it."""
    path = tempfile.mkdtemp(prefix="endings-", dir="/tmp")
    os.chmod(path, 0o755)
    monkeypatch.setattr(tempfile, "tempdir", path)
    yield Path(path)
    assert not eventually(lambda: os.listdir(path)), "a scratch folder is left"
    shutil.rmtree(path)


@pytest.fixture(params=["full", "no-userns"])
def tier(request, folder):
    return request.param


def start(tier, **settings):
    try:
        return Sandbox(tier=tier, workers=1, **settings)
    except SandboxError as error:
        pytest.skip(str(error))


def family(box_of, tier):
    """Pids of a sandbox with one worker at rest, by what they are."""
    (supervisor,) = supervisors(box_of)
    table, line = processes(), [supervisor]
    while children := [pid for pid, (parent, *_) in table.items() if parent == line[-1]]:
        assert len(children) == 1, children
        line += children
    names = ["supervisor", "nursery", *(["waiter"] if tier == "full" else []), "cell", "bench"]
    assert len(line) == len(names), line
    return dict(zip(names, line, strict=True))


def gone(pids):
    """Those of some processes of a sandbox that live on."""
    table = processes()
    return [pid for pid in pids if pid in table and MARK in table[pid][3]]


def all_pids(members):
    return {*members.values(), *below(members["supervisor"])}


CASES = [(victim, work) for victim in ("cell", "bench") for work in BUSY]
CASES += [(victim, work) for victim in ("supervisor", "nursery", "waiter") for work in ("idle", "spinning")]


@pytest.mark.parametrize(("victim", "work"), CASES)
def test_a_killed_process_is_replaced(tier, victim, work):
    if victim == "waiter" and tier != "full":
        pytest.skip("this tier has none")
    with start(tier) as box:
        assert box.run(honest(), DOUBLE).fraction == 1
        members = family(os.getpid(), tier)
        future = BUSY[work] and box.submit(*BUSY[work](time.time() + BUSY_S), **LIMITS)
        time.sleep(SETTLED_S)
        before = all_pids(members)
        os.kill(members[victim], signal.SIGKILL)
        if future:
            assert future.result(timeout=15).fraction == 1
        assert box.run(honest(), DOUBLE).fraction == 1
        replaced = before - {members["supervisor"]} if victim != "supervisor" else before
        if victim in ("cell", "bench", "waiter"):
            replaced -= {members["nursery"]}
        assert not eventually(lambda: gone(replaced))
        (supervisor,) = supervisors(os.getpid())
        after = {supervisor, *below(supervisor)}
    assert not eventually(lambda: gone(before | after))
    assert not eventually(strays)


def test_what_falls_twice_is_told(tier):
    with start(tier) as box:
        future = box.submit(*spinning(time.time() + 60), **LIMITS)
        for _ in range(2):
            time.sleep(SETTLED_S)
            cells = family_while_busy(tier)
            os.kill(cells, signal.SIGKILL)
            assert not eventually(lambda pid=cells: gone([pid]))
        with pytest.raises(SandboxError):
            future.result(timeout=15)
        assert box.run(honest(), DOUBLE).fraction == 1, "the sandbox goes on"


def family_while_busy(tier):
    """Pid of the worker that runs programs, while it runs one."""
    (pid,) = supervisors(os.getpid())
    table = processes()
    for _ in range(3 if tier == "full" else 2):
        (pid,) = (child for child, (parent, *_) in table.items() if parent == pid)
    return pid


def test_a_closed_sandbox_refuses(tier):
    box = start(tier)
    assert box.run(honest(), DOUBLE).fraction == 1
    members = all_pids(family(os.getpid(), tier))
    future = box.submit(*spinning(time.time() + 60), **LIMITS)
    time.sleep(SETTLED_S)
    box.close()
    with pytest.raises(SandboxError):
        future.result(timeout=5)
    with pytest.raises(SandboxError, match="closed"):
        box.submit(honest(), DOUBLE)
    box.close()
    assert not eventually(lambda: gone(members))
    assert not supervisors(os.getpid())


# ---- the trainer, in a process of its own

TRAINER = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from collm_envs.sandbox import Program, Sandbox, SandboxError, shared
from test_endings import BUSY, DOUBLE, LIMITS, honest
tier, work = sys.argv[1:3]

def say(*words):
    print(*words, flush=True)

def main():
{body}

main()
"""


def trainer(body, tier, work, folder):
    """Start a trainer as a process group of its own; it says "ready" once its sandbox works."""
    path = [str(ROOT), str(Path(__file__).parent)]
    code = TRAINER.format(path=path, body=textwrap.indent(textwrap.dedent(body), "    "))
    command = [sys.executable, "-c", code, tier, work]
    environment = os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


USES = """
    box = Sandbox(tier=tier, workers=2)
    assert box.run(honest(), DOUBLE).fraction == 1
    if BUSY[work]:
        box.submit(*BUSY[work](time.time() + 60), time_limit_s=60.0, total_limit_s=60.0)
        time.sleep(0.4)
    say("ready")
"""
WAYS = {
    "killed": (USES + "    time.sleep(60)\n", signal.SIGKILL),
    "terminated": (USES + "    time.sleep(60)\n", signal.SIGTERM),
    "returns": (USES, None),
    "raises": (USES + "    raise ValueError\n", None),
    "leaves at once": (USES + "    os._exit(3)\n", None),
}


ENDS = [("killed", "idle"), ("killed", "sleeping"), *((way, "spinning") for way in WAYS)]


@pytest.mark.parametrize(("way", "work"), ENDS)
def test_nothing_outlives_the_trainer(tier, folder, way, work):
    start(tier).close()
    body, number = WAYS[way]
    process = trainer(body, tier, work, folder)
    found = {pid for top in supervisors(process.pid) for pid in (top, *below(top))}
    if number:
        assert len(found) >= 4
        process.send_signal(number)
    process.wait(timeout=15)
    process.stdout.close()
    process.stderr.close()
    assert not eventually(lambda: gone(found))
    assert not eventually(strays)


def test_nothing_outlives_a_trainer_that_has_forked(tier, folder):
    start(tier).close()
    body = USES + "    if not os.fork():\n        time.sleep(20)\n        os._exit(0)\n    time.sleep(60)\n"
    process = trainer(body, tier, "idle", folder)
    time.sleep(0.2)
    (copy,) = (pid for pid in below(process.pid) if MARK not in processes()[pid][3])
    found = {pid for top in supervisors(process.pid) for pid in (top, *below(top))}
    process.kill()
    process.wait()
    left = eventually(lambda: gone(found))
    os.kill(copy, signal.SIGKILL)
    process.stdout.close()
    process.stderr.close()
    assert not left, "a forked copy of a dead trainer keeps the sandbox alive"


INTERRUPTED = """
    box = Sandbox(tier=tier, workers=1)
    future = box.submit(*BUSY["spinning"](time.time() + 1.0), **LIMITS)
    say("ready")
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        say(future.result().fraction, box.run(honest(), DOUBLE).fraction)
    box.close()
"""


def test_an_interrupt_is_the_trainers(tier, folder):
    start(tier).close()
    process = trainer(INTERRUPTED, tier, "idle", folder)
    time.sleep(SETTLED_S)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("1.0 1.0\n", 0), err


FORKS = """
    box = shared(tier=tier)
    assert box.run(honest(), DOUBLE).fraction == 1
    say("ready")
    copy = os.fork()
    if not copy:
        signal.alarm(20)
        try:
            box.submit(honest(), DOUBLE).result(timeout=5)
            say("the parent's sandbox took a program")
        except SandboxError:
            say("refused")
        except BaseException as error:
            say(type(error).__name__)
        own = shared(tier=tier)
        say(own is box, own.run(honest(), DOUBLE).fraction)
        own.close()
        os._exit(0)
    os.waitpid(copy, 0)
    say(shared(tier=tier) is box, box.run(honest(), DOUBLE).fraction)
"""


def test_a_forked_trainer_gets_its_own(tier, folder):
    start(tier).close()
    process = trainer(FORKS, tier, "idle", folder)
    out, err = process.communicate(timeout=40)
    assert out.splitlines() == ["refused", "False 1.0", "True 1.0"], err
    assert not eventually(strays)
