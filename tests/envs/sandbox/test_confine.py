"""Each layer bites, honest programs do not feel it, and nothing is left on the host."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boxed
import pytest

from collm_envs.sandbox import confine, namespaces, scratch
from collm_envs.sandbox.confine import TIERS, ConfineError, Limits, Walls
from collm_envs.sandbox.probe import Layer, attempt, best_tier, probe, report

LAYERS = probe()
BEST = best_tier(LAYERS)
ROOT = os.geteuid() == 0
STRONG = [
    pytest.param(
        tier,
        marks=pytest.mark.skipif(
            TIERS.index(tier) < TIERS.index(BEST),
            reason=f"this host offers {BEST} only: "
            + "; ".join(f"{layer.name}: {layer.why}" for layer in LAYERS.values() if not layer.active),
        ),
    )
    for tier in ("full", "no-userns")
]
strong = pytest.mark.parametrize("tier", STRONG, scope="module")
full = pytest.mark.parametrize("tier", STRONG[:1])

# Attacks: source, and the errors that count as refused. `call` makes a system call by name.
CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(numbers[name]), *wide) < 0:
        raise OSError(ctypes.get_errno(), name)
"""
SHARED = f"/dev/shm/collm-test-{os.getpid()}"
SEALED = {"EACCES", "EROFS"}
DENIED = {"EPERM"}
ATTACKS = {
    "read a file": ("open(canary).read()", SEALED),
    "write a file": ("open(canary, 'w').write('x')", SEALED),
    "append to a file": ("open(canary, 'a').write('x')", SEALED),
    "truncate on reading": ("os.open(canary, os.O_RDONLY | os.O_TRUNC)", DENIED),
    "truncate by path": ("os.truncate(canary, 0)", DENIED),
    "delete a file": ("os.unlink(canary)", SEALED),
    "make a file": ("open(folder + '/new', 'x')", SEALED),
    "make a folder": ("os.mkdir(folder + '/new')", SEALED),
    "rename": ("os.rename(canary, folder + '/moved')", SEALED),
    "move away": ("os.rename(canary, 'mine')", {*SEALED, "EXDEV"}),
    "link in": ("os.link(canary, 'mine')", {*SEALED, "EXDEV", "EPERM"}),
    "read by a link": ("os.symlink(canary, 'link'); open('link').read()", SEALED),
    "write into what is readable": ("open(library + '/os.py', 'r+')", SEALED),
    "delete what is readable": ("os.unlink(library + '/os.py')", SEALED),
    "list a folder": ("os.listdir(folder)", SEALED),
    "list the root": ("os.listdir('/')", SEALED),
    "read accounts": ("open('/etc/passwd').read()", SEALED),
    "memory of the worker": ("open(f'/proc/{worker}/mem', 'r+b')", {*SEALED, "ENOENT"}),
    "environment of the worker": ("open(f'/proc/{worker}/environ').read()", {*SEALED, "ENOENT"}),
    "own maps": ("open('/proc/self/mem', 'r+b')", {*SEALED, "ENOENT"}),
    "shared memory": ("open(shared, 'x')", {*SEALED, "ENOENT"}),
    "a terminal": ("open('/dev/tty', 'r+b', 0)", {*SEALED, "ENXIO", "ENOENT"}),
    "a block device": ("os.mknod('dev', 0o60600, 0x101)", DENIED),
    "tcp socket": ("import socket; socket.socket()", DENIED),
    "udp socket": ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", DENIED),
    "unix socket": ("import socket; socket.socket(socket.AF_UNIX)", DENIED),
    "netlink": ("import socket; socket.socket(16, 3)", DENIED),
    "datagram pair": ("import socket; socket.socketpair(type=socket.SOCK_DGRAM)", DENIED),
    "fork": ("os.fork() or os._exit(0)", DENIED),
    "fork by clone": ("call('clone', 17, 0, 0, 0, 0) or os._exit(0)", DENIED),
    "exec": ("os.execv('/bin/sh', ['sh', '-c', 'exit 7'])", DENIED),
    "a shell": ("import subprocess; subprocess.run(['/bin/sh', '-c', 'true'])", {*DENIED, "ENOSYS"}),
    "kill the worker": ("os.kill(worker, 9)", DENIED),
    "kill all": ("os.kill(-1, 9)", DENIED),
    "kill a group": ("os.killpg(0, 9)", DENIED),
    "probe the worker": ("os.kill(worker, 0)", DENIED),
    "pidfd of the worker": ("os.pidfd_open(worker)", DENIED),
    "signal by owner": ("import fcntl; fcntl.fcntl(say, fcntl.F_SETOWN, worker)", DENIED),
    "trace": ("call('ptrace', 16, worker, 0, 0)", DENIED),
    "read the worker's memory": ("call('process_vm_readv', worker, 0, 0, 0, 0, 0)", DENIED),
    "new user namespace": ("call('unshare', 0x10000000)", DENIED),
    "mount": ("call('mount', b'none', walls.scratch.encode(), b'tmpfs', 0, None)", DENIED),
    "unmount": ("call('umount2', b'/tmp', 2)", DENIED),
    "chroot": ("os.chroot('.')", DENIED),
    "memory file": ("os.memfd_create('x')", DENIED),
    "ring": ("call('io_uring_setup', 1, 0)", DENIED),
    "kernel program": ("call('bpf', 0, 0, 0)", DENIED),
    "keys": ("call('keyctl', 0, 0, 0)", DENIED),
    "become root": ("os.setuid(0)", DENIED),
    "change groups": ("os.setgroups([0])", DENIED),
    "be more nice": ("os.nice(5)", DENIED),
    "choose a core": ("os.sched_setaffinity(0, {0})", DENIED),
    "debuggable again": ("call('prctl', 4, 1, 0, 0, 0)", DENIED),
    "leave the session": ("os.setsid()", DENIED),
    "host name": ("import socket; socket.sethostname('x')", DENIED),
    "type for the terminal": ("import fcntl; fcntl.ioctl(0, 0x5412, b'x')", {"ENOTTY"}),
    "another filter": ("call('seccomp', 0, 0, 0)", DENIED),
    "no thread attributes": ("call('clone3', 0, 0)", {"ENOSYS"}),
    "a file too long": ("open('long', 'wb').write(bytes(17 << 20))", {"EFBIG"}),
    "too many files open": ("kept = [open('/dev/null') for _ in range(100)]", {"EMFILE"}),
}
# Refused with an exception that carries no number.
RAISES = {
    "raise a limit": ("import resource; resource.setrlimit(7, (9999, 9999))", "ValueError"),
    "too much memory": ("bytearray(1 << 31)", "MemoryError"),
}


def numbers():
    from collm_envs.sandbox import syscalls

    column = list(syscalls.AUDIT_ARCH).index(platform.machine())
    tables = (syscalls.ALLOWED, syscalls.CHECKED, syscalls.REFUSED)
    found = {name: pair[column] for table in tables for name, pair in syscalls.parse(table).items()}
    return {"clone3": 435, **found}


@pytest.fixture(scope="module")
def host():
    """A folder that every user may write to, so that no ordinary permission stops an attack."""
    folder = tempfile.mkdtemp(prefix="collm-test-", dir="/var/tmp" if os.path.isdir("/var/tmp") else None)
    os.chmod(folder, 0o777)
    canary = Path(folder, "canary")
    canary.write_text("alive")
    canary.chmod(0o666)
    yield canary
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def attacked(tier, host):
    """Every attack, each in its own child of one worker."""
    names = {
        "canary": str(host),
        "folder": str(host.parent),
        "library": boxed.LIBRARY,
        "shared": SHARED,
        "numbers": numbers(),
    }
    sources = [CALLS + source for source, _ in (*ATTACKS.values(), *RAISES.values())]
    found = boxed.run(tier, sources, names=names)
    return dict(zip((*ATTACKS, *RAISES), found, strict=True))


@strong
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(attacked, attack):
    out, status = attacked[attack]
    assert out in ATTACKS[attack][1]
    assert status == 0


@strong
@pytest.mark.parametrize("attack", RAISES)
def test_attack_raises(attacked, attack):
    out, status = attacked[attack]
    assert out is not None
    assert out.startswith(RAISES[attack][1])
    assert status == 0


@strong
def test_the_host_is_as_it_was(attacked, host):
    assert len(attacked) == len(ATTACKS) + len(RAISES)
    assert host.read_text() == "alive"
    assert [path.name for path in host.parent.iterdir()] == ["canary"]
    assert not os.path.exists(SHARED)


@full
def test_even_the_worker_cannot_change_files_of_the_host(tier, host):
    """What holds where Landlock would have a hole: every mount but the scratch is read-only."""
    tries = [f"open({str(host)!r}, 'a')", f"os.unlink({str(host)!r})", f"open({SHARED!r}, 'x')"]
    after = "".join(
        f"try: {action}\nexcept OSError as error: results.append(errno.errorcode[error.errno])\n"
        for action in tries
    )
    assert boxed.run(tier, after=after) == ["EROFS"] * 3


def test_the_attacks_would_work_without_walls(host):
    """On the weakest tier the file is open to all, so that a refusal elsewhere is the walls' doing."""
    source = "out = open(canary).read(); open(folder + '/new', 'x').close()"
    assert boxed.value("rlimits", source, names={"canary": str(host), "folder": str(host.parent)}) == "alive"
    os.unlink(host.parent / "new")


@strong
def test_every_call_of_the_refused_table_is_refused_by_the_kernel(tier):
    from collm_envs.sandbox import syscalls

    names = [name for name in syscalls.parse(syscalls.REFUSED) if numbers()[name] is not None]
    source = CALLS + (
        "out = []\n"
        "for name in names:\n"
        "    try: call(name, 0, 0, 0, 0, 0, 0)\n"
        "    except OSError as error: number = error.errno\n"
        "    else: number = 0\n"
        "    if number != 1: out.append([name, number])\n"
    )
    assert boxed.value(tier, source, names={"names": names, "numbers": numbers()}) == []
    assert len(names) > 120


@strong
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other ways into the kernel are x86's")
def test_other_ways_into_the_kernel(tier):
    machine_code = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        r"page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')"  # mov eax, 20 (getpid of 32 bits); int 0x80; ret
        "\naddress = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "out = ctypes.CFUNCTYPE(ctypes.c_int)(address)()\n"
    )
    x32 = CALLS + "call('x32', 0)"
    (dead, refused) = boxed.run(tier, [machine_code, x32], names={"numbers": {"x32": 0x40000000 + 39}})
    assert dead == [None, signal.SIGSYS] or dead[1] & 0x7F in (signal.SIGSYS, signal.SIGSEGV)
    assert refused == ["ENOSYS", 0]


HONEST = {
    "numpy": (
        "import os; os.environ['OPENBLAS_NUM_THREADS'] = '1'\n"
        "import numpy; out = float(numpy.ones((9, 9)).dot(numpy.ones((9, 9))).sum())",
        729.0,
    ),
    "threads": (
        "import threading; out = []\n"
        "all = [threading.Thread(target=out.append, args=(i,)) for i in range(20)]\n"
        "[t.start() for t in all]; [t.join() for t in all]; out.sort()",
        list(range(20)),
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: out = list(pool.map(abs, [-1, 2]))",
        [1, 2],
    ),
    "sqlite3": (
        "import sqlite3; base = sqlite3.connect('a.db'); base.execute('create table t(x)')\n"
        "base.execute('insert into t values (7)'); base.commit(); base.close()\n"
        "out = sqlite3.connect('a.db').execute('select x from t').fetchone()[0]",
        7,
    ),
    "tempfile": (
        "import tempfile, os; tempfile.tempdir = walls.scratch\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    with tempfile.NamedTemporaryFile('w+', dir=folder) as file:\n"
        "        file.write('x'); file.flush(); out = open(file.name).read()",
        "x",
    ),
    "asyncio": (
        "import asyncio\n"
        "async def main():\n"
        "    await asyncio.sleep(0.001)\n"
        "    return sum(await asyncio.gather(*(asyncio.to_thread(abs, -i) for i in range(4))))\n"
        "out = asyncio.run(main())",
        6,
    ),
    "ctypes callbacks": (
        "import ctypes; out = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)(2)",
        3,
    ),
    "decimal": ("import decimal; out = str(decimal.Decimal('0.1') + decimal.Decimal('0.2'))", "0.3"),
    "hashlib": ("import hashlib; out = hashlib.sha256(b'').hexdigest()[:6]", "e3b0c4"),
    "datetime": ("import datetime; out = datetime.datetime.now().year > 2000", True),
    "mmap": (
        "import mmap\n"
        "with open('m', 'w+b') as f: f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[:2] = b'ab'; m.flush()\n"
        "out = open('m', 'rb').read(2).decode()",
        "ab",
    ),
    "random and secrets": ("import secrets, random; out = len(secrets.token_bytes(8))", 8),
    "metadata": (
        "import os, shutil; open('a', 'w').write('x'); os.chmod('a', 0o600); os.utime('a', (1, 1))\n"
        "shutil.copy2('a', 'b'); out = open('b').read()",
        "x",
    ),
    "trees": (
        "import os, shutil; os.makedirs('a/b/c'); open('a/b/c/f', 'w').close(); os.rename('a/b/c', 'd')\n"
        "shutil.copytree('d', 'e'); shutil.rmtree('a'); out = sorted(os.listdir('.'))",
        ["d", "e"],
    ),
    "own signals": (
        "import signal, os; out = []\n"
        "signal.signal(signal.SIGALRM, lambda *a: out.append('alarm'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()\n"
        "signal.signal(signal.SIGUSR1, lambda *a: out.append('usr')); os.kill(os.getpid(), signal.SIGUSR1)\n",
        ["alarm", "usr"],
    ),
    "a pair of sockets": (
        "import socket; a, b = socket.socketpair(); a.sendall(b'hi'); out = b.recv(9).decode()",
        "hi",
    ),
    "locks and isatty": (
        "import fcntl, sys; f = open('l', 'w'); fcntl.flock(f, fcntl.LOCK_EX); out = f.isatty()",
        False,
    ),
    "devices": (
        "open('/dev/null', 'w').write('x'); out = len(open('/dev/urandom', 'rb').read(4)) + "
        "len(open('/dev/zero', 'rb').read(4))",
        8,
    ),
    "standard modules, late": (
        "import unittest, csv, json, zipfile, xml.dom.minidom, html, statistics, calendar, logging; out = 1",
        1,
    ),
}


@pytest.fixture(scope="module")
def served(tier):
    after = "results.append(sorted(os.listdir(walls.scratch)))\nconfine.reset_scratch(walls, limits)\n"
    each = f"results = []\nfor source in {[s for s, _ in HONEST.values()]!r}:\n    results.append(child(source))\n"
    each += "    confine.reset_scratch(walls, limits)\n"
    *found, left = boxed.run(tier, after=each + after)
    assert left == []
    return dict(zip(HONEST, found, strict=True))


@strong
@pytest.mark.parametrize("need", HONEST)
def test_honest_programs_work(served, need):
    assert served[need] == [HONEST[need][1], 0]


@full
@pytest.mark.parametrize(
    "fill",
    [
        "for i in range(20): open(str(i), 'wb').write(bytes(4 << 20))",  # 80 MiB in small files
        "for i in range(10 ** 6): open(str(i), 'w').close()",  # no bytes, many files
    ],
)
def test_the_scratch_has_a_size(tier, fill):
    after = "confine.reset_scratch(walls, limits)\nresults += [os.listdir(walls.scratch), child('out = 5')]"
    assert boxed.run(tier, [fill], after=after) == [["ENOSPC", 0], [], [5, 0]]


@full
def test_neither_processes_nor_the_network_of_the_host_are_seen(tier):
    after = (
        "others = [p for p in os.listdir('/proc') if p.isdecimal() and p != '1']\n"
        "devices = open('/proc/self/net/dev').read().count(':') if os.path.exists('/proc/self') else 1\n"
        "results.append([worker, others, os.listdir('/tmp'), devices])"
    )
    ((pid, others, tmp, interfaces),) = boxed.run(tier, after=after)
    assert (pid, others, interfaces) == (1, [], 1)
    below_tmp = {Path(path).parts[2] for path in (*boxed.READABLE,) if path.startswith("/tmp/")}
    assert set(tmp) == {"collm-box", *below_tmp}


HOSTILE = r"""
import os
os.mkdir("closed", 0); os.mkdir("open"); os.mkdir("open/sealed", 0)
open(b"\xff\xfe\n -rf *", "w").close(); open("n" * 255, "w").close(); os.symlink("/etc/passwd", "link")
os.symlink("nowhere", "dangling"); os.mkdir(b"\x01dir")
for i in range(300): open(f"open/{i}", "w").close()
os.umask(0o777); open("no rights", "x").close(); os.umask(0o022)
here = os.getcwd()
for i in range(1500):
    os.mkdir("d" * 60); os.chdir("d" * 60)
os.mkdir("end", 0)
out = 1
"""


@strong
def test_a_hostile_scratch_is_emptied(tier):
    after = (
        "results.append(len(os.listdir(walls.scratch)))\nbegun = time.perf_counter()\n"
        "confine.reset_scratch(walls, limits)\n"
        'results += [time.perf_counter() - begun, os.listdir(walls.scratch), child(\'open("a", "x"); out = 2\')]'
    )
    first, entries, seconds, left, then = boxed.run(tier, [HOSTILE], after=after)
    assert first == [1, 0]
    assert entries > 8
    assert seconds < 5
    assert left == []
    assert then == [2, 0]


def test_many_files_go_quickly(tmp_path):
    for i in range(20_000):
        (tmp_path / str(i)).touch()
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "link").symlink_to(outside)
    assert not scratch.remove_few(str(tmp_path), 64)
    assert len(list(tmp_path.iterdir())) == 20_001
    begun = time.perf_counter()
    scratch.empty(str(tmp_path))
    assert time.perf_counter() - begun < 10
    assert scratch.untouched(str(tmp_path))
    assert (outside / "kept").exists()


@strong
def test_processor_time_ends(tier):
    after = "results.append(child('while True: pass', cpu_s=0.2))"
    assert boxed.run(tier, after=after) == [[None, signal.SIGXCPU]]


@strong
def test_processor_time_ends_also_for_those_who_will_not_hear(tier):
    source = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert boxed.run(tier, after=f"results.append(child({source!r}, cpu_s=0.2))") == [[None, signal.SIGKILL]]


@strong
def test_threads_are_counted(tier):
    """With memory for all of them, so that it is their number that ends it."""
    source = (
        "import threading, time; out = 0; threading.stack_size(1 << 16)\n"
        "try:\n"
        "    for _ in range(600):\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); out += 1\n"
        "except RuntimeError: pass"
    )
    spare = confine.SPARE_OWN if tier == "full" else confine.SPARE_SHARED
    assert 10 <= boxed.value(tier, source, memory_mb=1 << 16, threads=10) <= 10 + spare


@strong
def test_descriptors_of_the_worker_are_closed(tier):
    source = (
        "import os; out = []\n"
        "for fd in range(64):\n"
        "    try: os.fstat(fd); out.append(fd)\n"
        "    except OSError: pass\n"
        "out.remove(say)"
    )
    after = f"kept = [open('/dev/null') for _ in range(9)]\nresults.append(child({source!r}))"
    assert boxed.run(tier, after=after) == [[[0, 1, 2], 0]]


@strong
def test_rights_are_gone(tier):
    after = (
        "answers, say = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    held = os.open('/proc/self/status', os.O_RDONLY)\n"
        "    confine.confine_child(walls, limits, 5, keep=(say, held))\n"
        "    os.write(say, os.read(held, 65536)); os._exit(0)\n"
        "os.close(say); os.waitpid(pid, 0)\n"
        "results.append(open(answers).read())"
    )
    (text,) = boxed.run(tier, after=after)
    rows = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(rows[name], 16) == 0, name
    if tier == "full" or ROOT:  # without rights to begin with, the bounding set cannot be changed, nor used
        assert int(rows["CapBnd"], 16) == 0
    assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
    assert "0" not in rows["Uid"].split()
    assert not rows["Groups"].split() or not ROOT


@pytest.mark.skipif(not ROOT, reason="only root has users to give away")
def test_slots_have_users_of_their_own():
    seen = boxed.run("no-userns", after="results.append(os.getresuid())", slot=3)
    assert seen == [[confine.FIRST_UID + 3] * 3]


@strong
def test_readable_trees_below_closed_folders_and_tmp(tier):
    """A tree below /tmp survives its being hidden; below a closed folder, root opens it and nothing beside it."""
    with tempfile.TemporaryDirectory(prefix="collm-test-", dir="/tmp") as top:
        tree, other = Path(top, "tree"), Path(top, "other")
        for folder in (tree, other):
            folder.mkdir()
            (folder / "f").write_text(folder.name)
        if not ROOT:
            os.chmod(top, 0o755)
        sources = [f"out = open('{tree}/f').read()", f"open('{other}/f')", f"import os; os.listdir('{top}')"]
        (found, beside, above) = boxed.run(tier, sources, readable=[tree])
        assert found == ["tree", 0]
        assert beside[0] in ("EACCES", "ENOENT")
        assert above[0] == "EACCES"
        assert (other / "f").read_text() == "other"
        names = boxed.value(tier, sources[2].replace("; ", "; out = "), readable=[tree], listable=[top])
        hidden = tier == "full" or ROOT  # a mount covers the folder: what is not readable is not there
        assert sorted(names) == (["tree"] if hidden else ["other", "tree"])


@strong
def test_a_missing_tree_is_an_error_not_a_hole(tier):
    source = boxed.command(tier, readable=["/nonexistent-tree"])
    done = subprocess.run(source, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "ConfineError: " in done.stderr
    assert "No such file or directory (/nonexistent-tree)" in done.stderr


def gone(pid, within_s=3.0):
    """Whether a process ends in time (a zombie has ended)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def open_folder():
    """A temporary folder that the slot's user may write to."""
    with tempfile.TemporaryDirectory(prefix="collm-test-") as folder:
        os.chmod(folder, 0o777)
        yield folder


@strong
def test_nobody_outlives_the_worker(tier, open_folder):
    """Killed from outside, the outer process takes the worker along, and that its child."""
    hang = "import os, time; os.write(1, b'child\\n'); time.sleep(20)"
    environment = {**os.environ, "TMPDIR": open_folder}
    with subprocess.Popen(boxed.command(tier, [hang]), stdout=subprocess.PIPE, env=environment) as outer:
        assert outer.stdout.readline() == b"child\n"
        family, new = {outer.pid}, {outer.pid}
        while new:
            new = {int(child) for pid in new for child in children(pid)}
            family |= new
        assert len(family) == (3 if tier == "full" else 2)
        outer.kill()
        begun = time.monotonic()
        assert outer.stdout.read() == b""  # all its writers are gone
        assert time.monotonic() - begun < 5
        assert all(gone(pid) for pid in family)
    left = [name[: len(confine.FOLDER_PREFIX)] for name in os.listdir(open_folder)]
    assert left == ([] if tier == "full" else [confine.FOLDER_PREFIX])  # a killed worker cannot tidy up


def children(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@full
def test_the_waiter_ends_as_the_worker_does(tier):
    ended = [
        subprocess.run(boxed.command(tier, after=last), capture_output=True, timeout=30).returncode
        for last in ("os._exit(0)", "os._exit(7)", "import ctypes; ctypes.string_at(0)")
    ]
    assert ended == [0, 7, -signal.SIGSEGV]


def test_a_child_without_walls_is_an_error():
    with pytest.raises(ConfineError, match="a child before its worker has entered"):
        confine.confine_child(Walls("full", "/tmp", (), (), 0), Limits(), 1)
    with pytest.raises(ConfineError, match="no such tier as 'strong'"):
        confine.enter(Walls("strong", "", (), (), 0), Limits())


def test_the_probe_reports_reasons():
    missing = dict(LAYERS)
    assert best_tier(missing) == BEST
    for name, expected in (("namespaces", "no-userns"), ("landlock", "seccomp"), ("seccomp", "rlimits")):
        layer = missing[name]
        missing[name] = Layer(name, False, "not today", layer.stops, layer.leaves_open)
        assert TIERS.index(best_tier(missing)) == max(TIERS.index(BEST), TIERS.index(expected))
    text = report(missing)
    assert "MISSING  not today" in text
    assert "Tier: rlimits" in text
    assert "Needs seccomp, landlock, namespaces." in " ".join(text.split())


def test_a_hanging_try_is_killed():
    begun = time.monotonic()
    assert attempt(lambda: time.sleep(60) or "", timeout_s=0.2) == (False, "no answer in time")
    assert time.monotonic() - begun < 5
    assert attempt(lambda: os._exit(3) or "") == (False, "the process died")
    assert attempt(lambda: "fine") == (True, "fine")


def refuse(message):
    raise ConfineError(message)


def test_a_failing_try_says_why_in_one_line():
    assert attempt(lambda: refuse("not\n  here")) == (False, "not here")
    assert attempt(lambda: os.listdir("/nonexistent")) == (
        False,
        "[Errno 2] No such file or directory: '/nonexistent'",
    )


def test_the_probe_leaves_the_caller_free():
    probe()
    assert subprocess.run([sys.executable, "-c", "pass"]).returncode == 0
    assert json.dumps(sorted(LAYERS)) == json.dumps(sorted(probe()))


def test_closed_folders_are_found(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o700)
    above = namespaces.closed_folders([str(tmp_path)])  # pytest's own folder is closed to others
    found = namespaces.closed_folders([str(tmp_path / "a" / "b"), "/usr"])
    assert found == (above or [str(tmp_path / "a")])
