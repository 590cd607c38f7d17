"""Calls into the Linux kernel that Python has no function for. Standard library and ctypes only.

For the modules that build the sandbox's walls. Importing it is safe everywhere; its functions work on Linux
only, where they raise `OSError` with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import os
import sys

LINUX = sys.platform.startswith("linux")

# clone flags
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_THREAD = 0x10000000, 0x20000000, 0x40000000, 0x10000
# mount flags
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
# prctl
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
# system calls whose numbers are the same on every 64-bit architecture
NR_CLOSE_RANGE, NR_MOUNT_SETATTR = 436, 442
NR_LANDLOCK_CREATE_RULESET, NR_LANDLOCK_ADD_RULE, NR_LANDLOCK_RESTRICT_SELF = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True)
_zero = ctypes.c_ulong(0)
if LINUX:
    _libc.capset, _libc.prctl, _libc.syscall  # noqa: B018  # looked up now, or each child would do it anew


class MountAttr(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def prctl(option: int, value: int = 0, pointer: object = None) -> int:
    """Tell the kernel something about this process: Unused arguments are zero, which the kernel insists on."""
    third = _zero if pointer is None else pointer
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), third, _zero, _zero), f"prctl({option})")


def syscall(number: int, *arguments: object) -> int:
    """A system call by number. Whole numbers are passed as 64-bit values."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide), f"syscall {number}")


def unshare(flags: int) -> None:
    """Leave the namespaces of the parent for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, bind a tree, or change a mount there is."""
    wide = ctypes.c_ulong(flags)
    names = [None if name is None else os.fsencode(name) for name in (source, target, kind)]
    _checked(_libc.mount(*names, wide, os.fsencode(data) or None), f"mount on {target}")


def unmount(target: str) -> None:
    """Take a mount out of the tree at once; it dies when its last user does."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def make_all_readonly() -> None:
    """Make every mount of this mount namespace read-only and deaf to set-user-id bits."""
    at_fdcwd, at_recursive = -100, 0x8000
    attributes = MountAttr(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    syscall(NR_MOUNT_SETATTR, at_fdcwd, ctypes.c_char_p(b"/"), at_recursive, ctypes.byref(attributes), size)


def close_range(first: int, last: int) -> None:
    """Close every descriptor from `first` to `last`, both included."""
    syscall(NR_CLOSE_RANGE, first, last, 0)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_cap_header = _CapHeader(0x20080522, 0)
_no_caps = (ctypes.c_uint32 * 6)()


def drop_bounding_set() -> None:
    """Empty the capability bounding set; what is held now stays held."""
    last = 63
    for capability in range(last + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == 22 and capability:  # EINVAL: this kernel has no more
                return
            raise


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets; the kernel empties the ambient one with them."""
    _checked(_libc.capset(ctypes.byref(_cap_header), ctypes.byref(_no_caps)), "capset")
