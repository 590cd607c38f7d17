"""Which layers of confinement this host offers, found out by trying each in a throwaway process.

For `Sandbox`, which picks the strongest tier, and for `collm sandbox doctor`. It starts one fresh Python, which
forks once per layer; a try that hangs is killed. Nothing is left behind, and the caller is never confined.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from collm_envs.sandbox import confine, landlock, linux, syscalls
from collm_envs.sandbox.dispositions import heed_signals

TRY_S, ALL_S = 5.0, 60.0
ROOT = Path(__file__).resolve().parents[2]

# The packages are stood in for, so that nothing but these modules is imported.
_BOOT = """
import sys, types
for name in ("collm_envs", "collm_envs.sandbox"):
    module = types.ModuleType(name)
    module.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
    sys.modules[name] = module
from collm_envs.sandbox import probe
probe.main()
"""

# What each layer stops, and what it alone leaves open.
_MEANING = {
    "process": ("hangs, crashes, state left for the next run", "files, network"),
    "rlimits": (
        "memory, file size, open files, processor time",
        "number of files, memory of all together",
    ),
    "uid": ("files and processes that are root's", "what every user may read"),
    "no_new_privs": ("gaining rights by set-user-id programs", "rights the user has"),
    "seccomp": (
        "network, new processes, shells, signals, tracing, raised limits, most of the kernel's surface",
        "files",
    ),
    "landlock": ("reading, writing and deleting files elsewhere", "existence and size of files (stat)"),
    "namespaces": (
        "sight of other processes and of /tmp, routes, a scratch without end, writes even where Landlock fails",
        "faults of the kernel",
    ),
}
_NEEDS = {
    "full": ("process", "rlimits", "uid", "no_new_privs", "seccomp", "landlock", "namespaces"),
    "no-userns": ("process", "rlimits", "uid", "no_new_privs", "seccomp", "landlock"),
    "seccomp": ("process", "rlimits", "uid", "no_new_privs", "seccomp"),
    "rlimits": (),
}
_TIERS = {
    "full": "Programs see no other process, no network and only the files they need.",
    "no-userns": "As full, but the scratch is a folder of the host without a limit to its total, threads are "
    "limited coarsely, and one kernel fault is enough to see other processes.",
    "seccomp": "Programs can read and write every file that your user can. Used only when asked for by name.",
    "rlimits": "Programs can do all that your user can, but not use much memory. Used only when asked for by name.",
}


@dataclass(frozen=True)
class Layer:
    """One layer of confinement on this host.

    Attributes:
        name: short name.
        active: whether it works here.
        why: how it was found to work, or the system's reason why not; one line.
        stops: what it keeps programs from.
        leaves_open: what it does not.
    """

    name: str
    active: bool
    why: str
    stops: str
    leaves_open: str


@functools.cache
def probe() -> dict[str, Layer]:
    """Try every layer, once in a process's life.

    Returns:
        The layers, by name, weakest first.

    Raises:
        ConfineError: when no Python can be started to try them.
    """
    command = [sys.executable, "-I", "-S", "-c", _BOOT, str(ROOT)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ALL_S,
            cwd="/",
            text=True,
            check=True,
        )
        found = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise confine.ConfineError(f"probe: {last}") from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise confine.ConfineError(f"probe: {error}") from None
    return {row["name"]: Layer(**row) for row in found}


def best_tier(layers: Mapping[str, Layer]) -> str:
    """The strongest tier whose layers all work."""
    return next(tier for tier in confine.TIERS if all(layers[name].active for name in _NEEDS[tier]))


def report(layers: Mapping[str, Layer]) -> str:
    """What `collm sandbox doctor` prints: the layers, the tier they make, and what the tiers mean."""
    lines = ["Layers of this host:", ""]
    for layer in layers.values():
        lines.append(f"  {layer.name:<13} {'works' if layer.active else 'MISSING':<8} {layer.why}")
        lines += _wrapped("stops", layer.stops) + _wrapped("leaves open", layer.leaves_open)
    best = best_tier(layers)
    lines += ["", f"Tier: {best}", ""]
    for tier, meaning in _TIERS.items():
        missing = [name for name in _NEEDS[tier] if not layers[name].active]
        mark = "*" if tier == best else " "
        note = f" Needs {', '.join(missing)}." if missing else ""
        lines += textwrap.wrap(
            meaning + note, 100, initial_indent=f"{mark} {tier:<10} ", subsequent_indent=" " * 13
        )
    lines += [
        "",
        "Always open: the shared kernel, side channels, and how much processor time all programs take.",
    ]
    return "\n".join(lines)


def _wrapped(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=f"    {title}: ", subsequent_indent=" " * 6)


def main() -> None:
    """Try every layer from a process that has nothing else to do, and print what was found, as JSON."""
    heed_signals()
    rows = []
    for name, (stops, leaves_open) in _MEANING.items():
        active, why = attempt(_TRIALS[name])
        rows.append(asdict(Layer(name, active, why, stops, leaves_open)))
    sys.stdout.write(json.dumps(rows))


def attempt(trial: Callable[[], str], timeout_s: float = TRY_S) -> tuple[bool, str]:
    """Run a trial in a forked child, for so many seconds at most.

    Args:
        trial: returns how it succeeded in one line; raises where the layer does not work.
        timeout_s: after which the child is killed.

    Returns:
        Whether it succeeded, and how or why not.
    """
    answers, out = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(answers)
        _answer(trial, out)
    os.close(out)
    text, deadline = b"", time.monotonic() + timeout_s
    try:
        while select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (data := os.read(answers, 4096)):
                break
            text += data
        else:
            text = text or b"-no answer in time"
    finally:
        os.close(answers)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return text[:1] == b"+", text[1:].decode("utf-8", "replace") or "the process died"


def _answer(trial: Callable[[], str], out: int) -> None:
    try:
        if linux.LINUX:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        text = "+" + trial()
    except BaseException as error:
        text = "-" + (" ".join(str(error).split()) or type(error).__name__)
    os.write(out, text.encode("utf-8", "replace")[:4000])
    os._exit(0)


def _refused(action: Callable[[], object], *numbers: int) -> None:
    """Raise unless an action fails with one of some error numbers."""
    try:
        action()
    except OSError as error:
        if error.errno in numbers:
            return
        raise
    raise confine.ConfineError("it took hold, but refuses nothing")


# Python's own library is read after root is left; where it is closed to others, root must be able to open it.
_WALLS = confine.Walls("full" if linux.LINUX else "rlimits", "", (os.path.dirname(os.__file__),), (), 0)


def _drop_root() -> None:
    if os.geteuid() == 0:
        confine.leave_root(_WALLS)


def _try_process() -> str:
    if not linux.LINUX:
        return "processes are killed and waited for, but outlive a killed parent"
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    return "children die with their parent, and memory is closed to other processes"


def _try_rlimits() -> str:
    limits = confine.Limits()
    confine.set_rlimits(confine.ceilings(limits, 1000), 5)
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile() as file:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            _refused(lambda: os.posix_fallocate(file.fileno(), 0, 2 * limits.file_mb << 20), errno.EFBIG)
    return "a file above the limit is refused"


def _try_uid() -> str:
    if os.geteuid() != 0:
        return "not root: programs run as your user"
    _drop_root()
    return f"root is left for uid {os.getuid()}"


def _try_no_new_privs() -> str:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    return "set"


def _try_seccomp() -> str:
    machine = os.uname().machine
    filters = syscalls.Filter(machine)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    filters.put_on(os.getpid())
    _refused(lambda: socket.socket(socket.AF_INET), errno.EPERM)
    return f"filter for {machine}, {filters.count} instructions; socket() is refused"


def _try_landlock() -> str:
    rules = landlock.Ruleset([], [], [])
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    rules.put_on()
    _refused(lambda: os.listdir("/"), errno.EACCES)
    return f"version {landlock.version()}; listing / is refused"


def _try_namespaces() -> str:
    _drop_root()
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    confine.enter_namespaces(_WALLS, confine.Limits())
    if os.getpid() != 1:
        raise confine.ConfineError("not the first process of its namespace")
    _refused(lambda: os.mkdir("/tmp/x"), errno.EROFS)
    return "user, pid, net, ipc, uts, mount, cgroup; a scratch in memory"


_TRIALS: dict[str, Callable[[], str]] = {
    "process": _try_process,
    "rlimits": _try_rlimits,
    "uid": _try_uid,
    "no_new_privs": _try_no_new_privs,
    "seccomp": _try_seccomp,
    "landlock": _try_landlock,
    "namespaces": _try_namespaces,
}
if not linux.LINUX:

    def _only_linux() -> str:
        raise confine.ConfineError("needs Linux")

    _TRIALS |= dict.fromkeys(("no_new_privs", "seccomp", "landlock", "namespaces"), _only_linux)
