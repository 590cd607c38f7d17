"""Namespaces and mounts of a worker: what it can see of the host.

For `confine`. `divide` gives a process namespaces of its own; `furnish` lays out its file tree; `reach` lets
an unprivileged user into trees below a folder that is closed to it, which only root can do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from collm_envs.sandbox import linux

TMP = "/tmp"
BOX = "/tmp/collm-box"  # what Landlock opens for writing; it outlives the mount inside it
SCRATCH = "/tmp/collm-box/run"  # a mount of its own, so that a fresh one replaces it whatever it holds
NEW = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWCGROUP
)
PLAIN = linux.MS_NOSUID | linux.MS_NODEV
INODES_PER_MB = 256


def divide() -> None:
    """Move this process into new namespaces; its next child is pid 1 there. Its user keeps its number."""
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(NEW)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def furnish(readable: Sequence[str], listable: Sequence[str], scratch_mb: int) -> None:
    """Lay out the files of pid 1: /tmp hidden, /proc its own, all read-only but a scratch of limited size.

    Args:
        readable: trees that must stay reachable, also those below /tmp.
        listable: folders that must be there; below /tmp, only what is readable is in them.
        scratch_mb: size of the scratch.
    """
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    cover(TMP, readable, listable)
    os.makedirs(SCRATCH)
    try:
        linux.mount("proc", "/proc", "proc", PLAIN | linux.MS_NOEXEC)
    except OSError:
        # A container that masks parts of /proc allows no fresh one. An empty folder hides the host as well.
        linux.mount("none", "/proc", "tmpfs", PLAIN | linux.MS_NOEXEC, "size=4k,mode=0555")
    linux.make_all_readonly()
    mount_scratch(scratch_mb)


def mount_scratch(scratch_mb: int) -> None:
    """Mount an empty scratch of at most so many MB (10^6 bytes each, roughly) and 256 files per MB."""
    size = f"size={scratch_mb}m,nr_inodes={scratch_mb * INODES_PER_MB},mode=0700"
    linux.mount("none", SCRATCH, "tmpfs", PLAIN | linux.MS_NOEXEC, size)


def cover(top: str, trees: Sequence[str], folders: Sequence[str]) -> None:
    """Hide a folder behind an empty one, in which only the given trees are found where they were.

    Args:
        top: the folder.
        trees: paths; those that are not below `top`, under this name or their real one, are left alone.
        folders: paths of folders that exist there as well, empty but for the trees.
    """
    names, empty = _found_below(trees, top), _found_below(folders, top)
    names = {path for path in names if not any(path != other and _below(path, other) for other in names)}
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in sorted(names)}
    try:
        linux.mount("none", top, "tmpfs", PLAIN, "size=1m,mode=0755")
        for path, fd in held.items():
            source = f"/proc/self/fd/{fd}"
            if os.path.isdir(source):
                os.makedirs(path, exist_ok=True)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
            linux.mount(source, path, None, linux.MS_BIND | linux.MS_REC)
        for path in empty:
            if not os.path.isdir(path):
                os.makedirs(path)
    finally:
        for fd in held.values():
            os.close(fd)


def closed_folders(trees: Sequence[str]) -> list[str]:
    """The topmost folders above (or at) the trees that a user without any rights cannot pass."""
    found = set()
    for tree in trees:
        for path in (os.path.abspath(tree), os.path.realpath(tree)):
            parts = path.split("/")
            above = ["/".join(parts[:i]) or "/" for i in range(1, len(parts))]
            found.add(next((folder for folder in above if not os.stat(folder).st_mode & 0o001), None))
    return sorted(folder for folder in found if folder is not None)


def reach(trees: Sequence[str], folders: Sequence[str]) -> None:
    """As root: make trees below closed folders (such as a Python under /root) reachable, for this process only.

    The closed folder is hidden in a mount namespace of the process's own, with nothing in it but the trees.

    Args:
        trees: what must be reachable.
        folders: what must exist, empty or not.

    Raises:
        OSError: when root may not mount here.
    """
    closed = closed_folders([*trees, *folders])
    if not closed:
        return
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    for folder in closed:
        cover(folder, trees, folders)


def _found_below(paths: Sequence[str], top: str) -> set[str]:
    return {name for path in paths for name in (path, os.path.realpath(path)) if _below(name, top)}


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
