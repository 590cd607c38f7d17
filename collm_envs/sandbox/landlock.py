"""Landlock: which files a process may touch, by path, for the rest of its life.

For `confine`. The rules are built once in a worker and put on in each child, which costs one system call there.
Landlock does not cover metadata: stat, chmod, utime and extended attributes are the system call filter's.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from collm_envs.sandbox import linux

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
REFER, TRUNCATE = 1 << 13, 1 << 14
SCRATCH = (
    WRITE_FILE
    | READ_FILE
    | READ_DIR
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
ON_FILES = WRITE_FILE | READ_FILE | TRUNCATE  # rights that mean something on what is no folder
# Number of file rights that each version of the interface knows; the last entry holds for all later ones.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
TCP_RIGHTS, SCOPES = 0b11, 0b11  # bind and connect (version 4); abstract sockets and signals (version 6)
QUIET = 1  # restrict_self, version 7: no audit record for every refusal


class _Attr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Version of the kernel's interface, from 1.

    Raises:
        OSError: where the kernel has none, or it is switched off.
    """
    return linux.syscall(linux.NR_LANDLOCK_CREATE_RULESET, None, 0, 1)


def handled(abi: int) -> tuple[int, int, int, int]:
    """What a version can refuse: bits of file rights, of TCP rights, of scopes, and the size of the structure."""
    rights = FILE_RIGHTS[max(known for known in FILE_RIGHTS if known <= abi)]
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    return (1 << rights) - 1, TCP_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0, size


class Ruleset:
    """A set of rules: everything that is not granted is refused.

    Args:
        readable: trees whose files may be read.
        listable: trees whose names may be listed.
        writable: trees where files may be made, changed and removed.

    Raises:
        OSError: when the kernel refuses, or a tree does not exist.
    """

    def __init__(self, readable: Iterable[str], listable: Iterable[str], writable: Iterable[str]) -> None:
        abi = version()
        self.files, tcp, scopes, size = handled(abi)
        self.flags = QUIET if abi >= 7 else 0
        attr = _Attr(self.files, tcp, scopes)
        self.fd = linux.syscall(linux.NR_LANDLOCK_CREATE_RULESET, ctypes.byref(attr), size, 0)
        os.set_inheritable(self.fd, False)
        rules = [(path, READ_FILE) for path in readable] + [(path, READ_DIR) for path in listable]
        rules += [(path, SCRATCH) for path in writable]
        rules += [("/dev/null", READ_FILE | WRITE_FILE | TRUNCATE), ("/dev/zero", READ_FILE)]
        rules += [("/dev/urandom", READ_FILE)]
        for path, rights in rules:
            self._grant(path, rights)

    def _grant(self, path: str, rights: int) -> None:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(parent).st_mode):
                rights &= ON_FILES
            if rights & self.files:
                rule = _Beneath(rights & self.files, parent)
                beneath = 1
                linux.syscall(linux.NR_LANDLOCK_ADD_RULE, self.fd, beneath, ctypes.byref(rule), 0)
        finally:
            os.close(parent)

    def put_on(self) -> None:
        """Bind the calling process, and all it will fork, for good. Needs no_new_privs."""
        linux.syscall(linux.NR_LANDLOCK_RESTRICT_SELF, self.fd, self.flags)
