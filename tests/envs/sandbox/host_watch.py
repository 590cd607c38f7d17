"""What the host looks like from outside a sandbox: its processes, and canaries that no program may reach."""

import contextlib
import os
import secrets
import socket
import stat
import time
from pathlib import Path

from collm_envs.sandbox.confine import FIRST_UID, FOLDER_PREFIX

MARK = "collm_envs.sandbox.supervisor"  # in the command line of every process of a sandbox
SLOT_UIDS = range(FIRST_UID, FIRST_UID + 64) if os.geteuid() == 0 else range(0)
PATIENCE_S = 8.0


def processes():
    """Parent, state, user and command line of every process, by its id."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            folder = Path("/proc", name)
            rest = (folder / "stat").read_text().rpartition(") ")[2].split()
            command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            found[int(name)] = (int(rest[1]), rest[0], folder.stat().st_uid, command)
    return found


def below(pid):
    """A process's descendants, with their command lines; a zombie has none."""
    table, found, new = processes(), {}, {pid}
    while new := {child for child, (parent, *_) in table.items() if parent in new}:
        found |= {child: table[child][3] for child in new}
    return found


def supervisors(trainer):
    """Supervisors that a trainer has started."""
    return [
        pid for pid, (parent, _, _, command) in processes().items() if parent == trainer and MARK in command
    ]


def strays():
    """Processes that some sandbox started and that outlived their trainer."""
    table = processes()
    ancestors, pid = {1}, os.getppid()
    while pid in table:
        ancestors.add(pid)
        pid = table[pid][0]

    def sandboxed(pid):
        return pid in table and (MARK in table[pid][3] or table[pid][2] in SLOT_UIDS)

    found = []
    for pid in (
        pid for pid in table if sandboxed(pid) and table[pid][1] != "Z"
    ):  # the dead are for init to bury
        top = pid
        while sandboxed(table[top][0]):
            top = table[top][0]
        if table[top][0] in ancestors:  # those of our host's other sandboxes have trainers of their own
            found.append(pid)
    return found


def eventually(wrong):
    """What is still wrong after some seconds of patience; processes take a moment to be gone."""
    over = time.monotonic() + PATIENCE_S
    while (found := wrong()) and time.monotonic() < over:
        time.sleep(0.02)
    return found


def scratch_folders():
    """Scratch folders of sandboxes on the host."""
    return {str(path) for path in Path("/tmp").glob(f"{FOLDER_PREFIX}*")}


class Host:
    """Canaries, and all that must stay as it was.

    The names are those that the programs of the corpora know. The canaries may be read, changed and deleted by the
    user that programs run as: nothing but the sandbox protects them.
    """

    FOLDERS = (Path("/tmp"), Path("/var/tmp"))
    OPEN = Path("/var/tmp/sbx_canary_open")
    PATH_SOCKET = Path("/var/tmp/sbx_canary_socket")

    def __init__(self):
        self.abstract = socket.socket(socket.AF_UNIX)
        eventually(lambda: not self._bind())  # the name is taken while another run of these tests goes on
        self.abstract.listen()
        self.clear()
        self.secret = f"canary-of-the-trainer-{secrets.token_hex(8)}"
        self.files = [folder / f"sbx_canary_{kind}" for folder in self.FOLDERS for kind in ("read", "delete")]
        for path in self.files:
            path.write_text(self.secret)
            path.chmod(0o666)
            if SLOT_UIDS:
                os.chown(path, SLOT_UIDS[0], SLOT_UIDS[0])
            with contextlib.suppress(OSError):
                os.setxattr(path, "user.own", b"1")
        self.OPEN.mkdir()
        self.OPEN.chmod(0o777)
        self.path_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path_socket.bind(str(self.PATH_SOCKET))
        self.PATH_SOCKET.chmod(0o777)
        for end in (self.abstract, self.path_socket):
            end.setblocking(False)
        self.before = self._state()
        self.clock = time.time() - time.monotonic()

    def _bind(self):
        with contextlib.suppress(OSError):
            self.abstract.bind("\0sbx_canary_abstract")
        return bool(self.abstract.getsockname())

    def clear(self):
        """Remove what a run left that was ended in the middle."""
        for folder in (*self.FOLDERS, Path("/dev/shm")):
            for path in folder.glob("sbx_canary_*"):
                if path.is_dir() and not path.is_symlink():
                    for inner in path.iterdir():
                        inner.unlink()
                    path.rmdir()
                else:
                    path.unlink()

    def close(self):
        """Take the canaries away."""
        self.abstract.close()
        self.path_socket.close()
        self.clear()

    def _state(self):
        state = {str(path): "there" for path in self._new_files()}
        for path in self.files:
            info = path.lstat() if os.path.lexists(path) else None
            content = path.read_bytes() if info and stat.S_ISREG(info.st_mode) else None
            state[str(path)] = info and (
                content,
                info.st_mode,
                info.st_uid,
                info.st_nlink,
                info.st_mtime_ns,
                tuple(os.listxattr(path)),
            )
        return state

    def _new_files(self):
        """Files that programs could have made; other users of the host make theirs meanwhile."""
        for folder in (*self.FOLDERS, Path("/dev/shm"), Path("/"), Path.home(), self.OPEN):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        own = entry.stat(follow_symlinks=False).st_uid in SLOT_UIDS
                        if entry.name.startswith("sbx_") or (
                            own and not entry.name.startswith(FOLDER_PREFIX)
                        ):
                            yield Path(entry.path)

    def wrongs(self):
        """What is not as it was, one line each."""
        before, now = self.before, self._state()
        changed = [path for path in sorted({*before, *now}) if before.get(path) != now.get(path)]
        found = [f"{path} was {before.get(path)} and is {now.get(path)}" for path in changed]
        with contextlib.suppress(BlockingIOError):
            self.abstract.accept()
            found.append("the abstract socket was connected to")
        with contextlib.suppress(BlockingIOError):
            self.path_socket.recv(100)
            found.append("the socket with a path was sent to")
        if abs(time.time() - time.monotonic() - self.clock) > 5:
            found.append("the clock was set")
        self.before = now  # one program's harm is not the next one's
        return found


def generations(pid):
    """How many processes there are in each generation below one.

    A program that outlives its run is a sibling of the worker of the tests, or a sibling of the processes of tests.
    """
    table, found, parents = processes(), [], {pid}
    while parents := {child for child, (parent, *_) in table.items() if parent in parents}:
        found.append(len(parents))
    return found
