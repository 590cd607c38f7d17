"""Confinement: what the operating system keeps an untrusted program from, in layers.

For the sandbox's workers. A worker calls `enter` once, as soon as it is forked; each child it forks calls
`confine_child` before it runs anything untrusted. Standard library and ctypes only. Nothing degrades silently:
a layer that the tier promises and that fails raises `ConfineError`.

Tiers, strongest first:

- `full`: own user, pid, network, ipc, mount, uts and cgroup namespaces; a scratch in memory, of limited size;
  and all of the next.
- `no-userns`: Landlock and a system call filter; the scratch is a folder of the host.
- `seccomp`: the filter alone; every file of the user stays open.
- `rlimits`: resource limits alone: files, network and other processes stay open. This is all that macOS has;
  written for it with care, but not tested there.

The walls keep a program from the host. They keep nothing in the program's own process from it: verdicts are
reached elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from collm_envs.sandbox import linux, namespaces, scratch
from collm_envs.sandbox.landlock import Ruleset
from collm_envs.sandbox.syscalls import Filter

TIERS = ("full", "no-userns", "seccomp", "rlimits")
FIRST_UID, NOBODY = 60578, 65534
FOLDER_PREFIX = "collm-box-"
MB = 1 << 20
# Processes beside the threads: those of the slot; or, where the user is shared, what else the user may start.
SPARE_OWN, SPARE_SHARED = 8, 256
FEW_FILES = 64  # unlinked one by one; more are dropped with their mount
LAST_FD = (1 << 31) - 1


class ConfineError(Exception):
    """A layer that the tier promises could not be put up: `layer: reason`, one line."""


@dataclass(frozen=True)
class Limits:
    """How much one child may use.

    Attributes:
        memory_mb: address space, in MiB.
        file_mb: size of one file, in MiB.
        scratch_mb: size of the scratch, in MiB, on tier `full`; other tiers have no such limit.
        open_files: descriptors.
        threads: threads beside the first. On the other tiers the limit is coarse, for it counts all that the
            user runs.
    """

    memory_mb: int = 1024
    file_mb: int = 16
    scratch_mb: int = 64
    open_files: int = 64
    threads: int = 32


@dataclass(frozen=True)
class Walls:
    """What a worker and its children are confined to.

    Attributes:
        tier: one of `TIERS`.
        scratch: the one folder that children may write to; "" until entered.
        readable: trees (or files) whose files may be read. They must exist.
        listable: trees whose names may be listed; imports need that of the folders they search.
        slot: number of the worker among its siblings, from 0. As root, each has a user of its own.
    """

    tier: str
    scratch: str
    readable: tuple[str, ...]
    listable: tuple[str, ...]
    slot: int


@dataclass
class _Box:
    """What a worker has ready for its children."""

    limits: Limits
    ruleset: Ruleset | None = None
    filter: Filter | None = None
    processes: int = 0
    rlimits: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    parent: int = 0


_box: _Box | None = None


def _note_parent() -> None:
    if _box is not None:
        _box.parent = os.getpid()


os.register_at_fork(before=_note_parent)


@contextlib.contextmanager
def _layer(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise _failed(name, error) from None


def _failed(layer: str, error: OSError | ValueError) -> ConfineError:
    """The error of a layer; a ValueError is what Python makes of a refused setrlimit."""
    if isinstance(error, OSError) and error.strerror:
        return ConfineError(f"{layer}: {error.strerror}" + (f" ({error.filename})" if error.filename else ""))
    return ConfineError(f"{layer}: {error}")


def enter(walls: Walls, limits: Limits) -> Walls:
    """Become the confined worker. Call once, first thing, in a process forked from its parent's main thread.

    It keeps its descriptors, may fork and clean the scratch, and dies with its parent. On tier `full` the call
    forks: the process that called stays as a waiter, which holds no descriptor and ends with the status of the
    worker; the call returns (or raises) in the new one only, which is pid 1 of its namespace.

    Args:
        walls: what to be confined to.
        limits: of its children; `scratch_mb` is taken from here.

    Returns:
        The walls, with `scratch` set.

    Raises:
        ConfineError: when a layer cannot be put up.
    """
    global _box
    if walls.tier not in TIERS:
        raise ConfineError(f"tier: no such tier as {walls.tier!r}; there are {', '.join(TIERS)}")
    if walls.tier != "rlimits" and not linux.LINUX:
        raise ConfineError(f"tier {walls.tier}: needs Linux")
    os.umask(0o022)
    os.chdir("/")
    if os.geteuid() == 0:
        leave_root(walls)
    if linux.LINUX:
        with _layer("process"):
            # Taking another uid cleared it, and the maps of a user namespace belong to root otherwise.
            linux.prctl(linux.PR_SET_DUMPABLE, int(walls.tier == "full"))
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if walls.tier == "full":
        enter_namespaces(walls, limits)
        walls = replace(walls, scratch=namespaces.SCRATCH)
    else:
        with _layer("scratch"):
            walls = replace(walls, scratch=tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        _box = _ready(walls, limits)
    except ConfineError:
        leave(walls)
        raise
    return walls


def leave_root(walls: Walls) -> None:
    """Take the slot's own unprivileged uid, so that no file and no process of the host is the worker's own."""
    with _layer("readable"):
        if walls.tier != "rlimits":
            namespaces.reach(walls.readable, walls.listable)
    with _layer("uid"):
        if linux.LINUX:
            linux.drop_bounding_set()
        os.setgroups([])
        try:
            _take_uid(FIRST_UID + walls.slot)
        except OSError:  # a container that maps few uids
            _take_uid(NOBODY)


def _take_uid(uid: int) -> None:
    os.setgid(uid)  # of root: real, effective and saved at once
    os.setuid(uid)


def enter_namespaces(walls: Walls, limits: Limits) -> None:
    """The part of `enter` that forks: returns in pid 1 of new namespaces, with its files laid out."""
    with _layer("namespaces"):
        namespaces.divide()
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        alive, held = os.pipe()
        inner = os.fork()
    if inner:
        _wait_for(inner, held)
    os.close(held)
    with _layer("namespaces"):
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if select.select([alive], [], [], 0)[0]:  # closed: the waiter died before we asked to be told
            os._exit(1)
        os.close(alive)
        # What is held from the new user namespace is kept, for mounting; children drop it.
        linux.drop_bounding_set()
        namespaces.furnish(walls.readable, walls.listable, limits.scratch_mb)


def _wait_for(inner: int, held: int) -> None:
    """Stand for the worker outside its pid namespace, with nothing in hand, and end as it ends."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if held:
            linux.close_range(0, held - 1)
        linux.close_range(held + 1, LAST_FD)
        _, status = os.waitpid(inner, 0)
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if os.WTERMSIG(status) != signal.SIGKILL:
                signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.WEXITSTATUS(status))
    finally:
        os._exit(1)


def _ready(walls: Walls, limits: Limits) -> _Box:
    """Put up the worker's own layers and prepare those of its children."""
    box = _Box(limits)
    if linux.LINUX:
        with _layer("process"):
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
        with _layer("no_new_privs"):
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if walls.tier in ("full", "no-userns"):
        own = namespaces.BOX if walls.tier == "full" else walls.scratch
        with _layer("landlock"):
            box.ruleset = Ruleset(walls.readable, walls.listable, [own])
    if walls.tier != "rlimits":
        with _layer("seccomp"):
            # On `full` every mount but the scratch is read-only.
            box.filter = Filter(os.uname().machine, own_files=walls.tier == "full")
    if walls.tier == "full":
        box.processes = limits.threads + SPARE_OWN
    elif linux.LINUX:
        box.processes = _running(os.getuid()) + limits.threads + SPARE_SHARED
    else:
        box.processes = 1  # counts processes only there, and refuses to fork above it
    box.rlimits = ceilings(limits, box.processes)
    return box


def _running(uid: int) -> int:
    """Threads of a user on this host, which is what the kernel holds against RLIMIT_NPROC."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/status") as file:
                rows = dict(line.split(":", 1) for line in file if ":" in line)
                if int(rows["Uid"].split()[0]) == uid:
                    total += int(rows["Threads"])
    return total


def ceilings(limits: Limits, processes: int) -> list[tuple[int, tuple[int, int]]]:
    """Resource limits of children, as `setrlimit` takes them, those that this system has; none is ever raised."""
    wanted = {
        "FSIZE": limits.file_mb * MB,
        "NOFILE": limits.open_files,
        "CORE": 0,
        "NPROC": processes,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "SIGPENDING": 64,
    }
    if sys.platform != "darwin":  # macOS refuses to lower it
        wanted["AS"] = limits.memory_mb * MB
    found = []
    for name, value in wanted.items():
        if (number := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            value = _at_most(value, resource.getrlimit(number)[1])
            found.append((number, (value, value)))
    return found


def _at_most(value: int, most: int) -> int:
    return value if most == resource.RLIM_INFINITY else min(value, most)


def confine_child(walls: Walls, limits: Limits, cpu_s: float, keep: Sequence[int] = ()) -> None:
    """Bind this freshly forked child, for good. Its working folder becomes the scratch.

    Why each child has a Landlock domain of its own, and not the worker one for all: the worker could not mount
    a fresh scratch from inside a domain, and a child in a domain of its own can neither trace nor signal
    the worker. For that last part there are three more walls (the filter, pid 1 being deaf, a worker that is
    not dumpable); any one of them may have a hole.

    There is little Python in it on purpose: in a fresh fork, each page touched is a page copied.

    Args:
        walls: as `enter` returned them.
        limits: how much it may use.
        cpu_s: processor time, in seconds, rounded up. It is told by SIGXCPU and killed a second later.
        keep: descriptors that stay open, beside 0, 1 and 2.

    Raises:
        ConfineError: when a layer cannot be put up. The child must exit then.
    """
    box = _box
    if box is None:
        raise ConfineError("walls: a child before its worker has entered")
    layer = "process"
    try:
        os.setsid()
        if linux.LINUX:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != box.parent:  # it died before we asked to be told
                os._exit(1)
        os.chdir(walls.scratch)
        layer = "landlock"
        if box.ruleset is not None:
            box.ruleset.put_on()
        layer = "descriptors"
        _close_all_but({0, 1, 2, *keep})
        layer = "rlimits"
        set_rlimits(box.rlimits if limits == box.limits else ceilings(limits, box.processes), cpu_s)
        layer = "capabilities"
        if linux.LINUX:
            linux.drop_capabilities()
        layer = "seccomp"
        if box.filter is not None:
            box.filter.put_on(os.getpid())
    except (OSError, ValueError) as error:
        raise _failed(layer, error) from None


def set_rlimits(wanted: list[tuple[int, tuple[int, int]]], cpu_s: float) -> None:
    """Bind this process to what `ceilings` made, and to processor time in seconds."""
    for number, pair in wanted:
        resource.setrlimit(number, pair)
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    seconds = max(1, math.ceil(cpu_s))
    # The kernel kills at the hard limit, so that the program gets its signal first.
    resource.setrlimit(resource.RLIMIT_CPU, (_at_most(seconds, most), _at_most(seconds + 1, most)))


def _close_all_but(keep: set[int]) -> None:
    first = 0
    for fd in sorted(keep):
        if fd > first:
            _close_from(first, fd - 1)
        first = fd + 1
    _close_from(first, LAST_FD)


def _close_from(first: int, last: int) -> None:
    try:
        if linux.LINUX:
            linux.close_range(first, last)
            return
    except OSError as error:
        if error.errno != 38:  # ENOSYS: a kernel before 5.9, which has no Landlock either
            raise
    os.closerange(first, min(last, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) + 1)


def reset_scratch(walls: Walls, limits: Limits) -> None:
    """Make the scratch empty again, between two children, in the worker or a trusted process forked from it.

    An untouched one costs one look. On tier `full` whatever is more than a few files is dropped with its mount.

    Raises:
        ConfineError: when that fails; the worker is to be replaced.
    """
    with _layer("scratch"):
        if scratch.untouched(walls.scratch) or scratch.remove_few(walls.scratch, FEW_FILES):
            return
        if walls.tier == "full":
            linux.unmount(walls.scratch)
            namespaces.mount_scratch(limits.scratch_mb)
        else:
            scratch.empty(walls.scratch)


def leave(walls: Walls) -> None:
    """Remove the worker's scratch where it is a folder of the host."""
    if walls.tier != "full" and walls.scratch:
        with _layer("scratch"):
            scratch.empty(walls.scratch)
            os.rmdir(walls.scratch)
