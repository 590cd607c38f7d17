"""The filter, run by an interpreter of its own, against the kernel's headers and against plain statements."""

import errno
import re
from pathlib import Path

import pytest

from collm_envs.sandbox import syscalls
from collm_envs.sandbox.syscalls import ALLOW, AUDIT_ARCH, ERRNO, KILL, Filter, assemble, parse

ARCHS = list(AUDIT_ARCH)
TABLES = (syscalls.ALLOWED, syscalls.CHECKED, syscalls.PRETENDED, syscalls.UNSUPPORTED, syscalls.REFUSED)
NUMBERS = {name: numbers for table in TABLES for name, numbers in parse(table).items()}
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
PID = 4321
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def run(code, arch, number, *arguments):
    """What a filter answers; also how many steps it took."""
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join((value % 2**64).to_bytes(8, "little") for value in (*arguments, *[0] * 6)[:6])
    at = steps = value = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at, steps = at + 1, steps + 1
        if operation == 0x06:
            return k, steps
        if operation == 0x20:
            value = int.from_bytes(data[k : k + 4], "little")
        elif operation == 0x54:
            value &= k
        elif operation == 0x05:
            at += k
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[operation]
            at += if_true if holds else if_false


def loaded(arch):
    """The filter as it is handed to the kernel, read back from its bytes."""
    return list(syscalls.INSTRUCTION.iter_unpack(Filter(arch).for_pid(PID)))


def answer(arch, name, *arguments):
    return run(loaded(arch), AUDIT_ARCH[arch], NUMBERS[name][ARCHS.index(arch)], *arguments)[0]


def header(arch):
    path = next((Path(path) for path in HEADERS[arch] if Path(path).exists()), None)
    if path is None:
        pytest.skip(f"no kernel headers for {arch}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    numbers = {name: int(number) for name, number in found}
    if arch == "aarch64":
        numbers["newfstatat"] = numbers.pop("fstatat")  # what asm-generic calls it on 64 bits
    return numbers


@pytest.mark.parametrize("arch", ARCHS)
def test_numbers_are_the_kernels(arch):
    real, column = header(arch), ARCHS.index(arch)
    newest = max(number for name, number in real.items() if name not in ("arch_specific_syscall", "syscalls"))
    wrong = {
        name: (numbers[column], real.get(name))
        for name, numbers in NUMBERS.items()
        if numbers[column] != real.get(name) and (numbers[column] or 0) <= newest
    }
    assert not wrong
    assert len(real) > 300


def test_no_call_is_in_two_tables():
    names = [name for table in TABLES for name in parse(table)]
    assert len(names) == len(set(names))
    for column in (0, 1):
        numbers = [found[column] for found in NUMBERS.values() if found[column] is not None]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("arch", ARCHS)
def test_search_finds_what_the_tables_say(arch):
    column, code = ARCHS.index(arch), loaded(arch)
    said = {}
    for table, verdict in zip(TABLES, (ALLOW, None, ERRNO, ERRNO | errno.EOPNOTSUPP, EPERM), strict=True):
        said |= {numbers[column]: verdict for numbers in parse(table).values()}
    for number in [*range(700), 0x3FFFFFFF, 0x40000000, 0x40000001, 0x4000003B, 0xFFFFFFFF]:
        expected = said.get(number, ENOSYS)
        got, steps = run(code, AUDIT_ARCH[arch], number)
        assert steps < 40
        if expected is not None:
            assert got == expected, number


@pytest.mark.parametrize("arch", ARCHS)
def test_calls_of_another_architecture_kill(arch):
    for other in (
        0x40000003,
        0x40000028,
        *(value for value in AUDIT_ARCH.values() if value != AUDIT_ARCH[arch]),
    ):
        assert {run(loaded(arch), other, number)[0] for number in range(0, 600, 7)} == {KILL}


THREAD = 0x3D0F00  # what a C library starts threads with
CHECKED_CALLS = [
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), EPERM),  # fork
    ("clone", (0x4000 | 0x100 | 17,), EPERM),  # vfork
    *(("clone", (THREAD | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
    ("kill", (PID, 9), ALLOW),
    ("kill", (PID + 1, 9), EPERM),
    ("kill", (0, 9), EPERM),
    ("kill", (-1, 9), EPERM),
    ("kill", (-PID, 9), EPERM),
    ("tgkill", (PID, 5, 9), ALLOW),
    ("tgkill", (1, PID, 9), EPERM),
    ("tkill", (1, 9), EPERM),
    ("rt_sigqueueinfo", (1, 9), EPERM),
    ("rt_tgsigqueueinfo", (1, 1, 9), EPERM),
    ("socketpair", (1, 1), ALLOW),
    ("socketpair", (1, 1 | 0o2000000 | 0o4000), ALLOW),
    ("socketpair", (1, 2), EPERM),  # a datagram can be sent to any path
    ("socketpair", (1, 5), EPERM),
    ("socketpair", (2, 1), EPERM),
    ("prlimit64", (0, 7, 0, 0x7FFF1234), ALLOW),
    ("prlimit64", (0, 7, 0x1000, 0), EPERM),
    ("prlimit64", (0, 7, 0x7FFF00000000, 0), EPERM),  # a pointer whose low half is zero
    ("prctl", (15,), ALLOW),
    ("prctl", (4, 1), EPERM),
    ("prctl", (22, 2), EPERM),
    ("fcntl", (3, 3), ALLOW),
    ("fcntl", (3, 1030), ALLOW),
    ("fcntl", (3, 8, 1), EPERM),  # F_SETOWN
    ("fcntl", (3, 10, 9), EPERM),  # F_SETSIG
    ("fcntl", (3, 15), EPERM),  # F_SETOWN_EX
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412), ERRNO | errno.ENOTTY),  # TIOCSTI
    ("ioctl", (0, 0x5452), ERRNO | errno.ENOTTY),  # FIOASYNC
    ("openat", (-100, 0, 0), ALLOW),
    ("openat", (-100, 0, 0o1101), ALLOW),  # O_WRONLY | O_CREAT | O_TRUNC
    ("openat", (-100, 0, 0o1002), ALLOW),
    ("openat", (-100, 0, 0o1000), EPERM),  # O_RDONLY | O_TRUNC
    ("openat", (-100, 0, 0o2001000), EPERM),
]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("name", "arguments", "expected"), CHECKED_CALLS)
def test_arguments_are_checked(arch, name, arguments, expected):
    assert answer(arch, name, *arguments) == expected


def test_open_is_checked_like_openat():
    assert answer("x86_64", "open", 0, 0o1000) == EPERM
    assert answer("x86_64", "open", 0, 0o1101) == ALLOW


@pytest.mark.parametrize("arch", ARCHS)
def test_jumps_stay_inside_and_go_forward(arch):
    code = assemble(arch)
    assert len(code) < 4096  # the kernel takes no more
    for i, (operation, if_true, if_false, k) in enumerate(code):
        assert max(if_true, if_false) <= 255
        if operation != 0x06:
            assert i + 1 + max(if_true, if_false, k if operation == 0x05 else 0) < len(code)


def test_each_child_gets_its_own_pid():
    made = Filter("x86_64")
    first, second = made.for_pid(7), made.for_pid(8)
    assert first != second
    assert made.for_pid(7) == first
    assert len(first) == made.count * 8


def test_an_architecture_without_a_table_is_an_error():
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        Filter("riscv64")
