"""The system call filter: which calls an untrusted program may make, as a seccomp program.

For `confine`. An allow-list: calls that Python and numpy need pass, some with their arguments checked; known
dangerous ones are refused with EPERM, unknown ones with ENOSYS, as if the kernel were older. Calls that change
metadata (chmod, utime) do nothing and report success, because Landlock does not cover them and honest programs
make them. truncate(2) by path is refused for the same reason; ftruncate is not. Pointers cannot be checked here:
which files may be opened is Landlock's business.

Numbers are `name=x86_64/aarch64`, "-" where an architecture lacks the call (kernel: asm/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Mapping
from functools import partial

from collm_envs.sandbox import linux

ALLOWED = """
read=0/63 write=1/64 readv=19/65 writev=20/66 pread64=17/67 pwrite64=18/68 preadv=295/69 pwritev=296/70
preadv2=327/286 pwritev2=328/287 creat=85/- close=3/57 close_range=436/436 dup=32/23 dup2=33/-
dup3=292/24 pipe=22/- pipe2=293/59 lseek=8/62 stat=4/- fstat=5/80 lstat=6/- newfstatat=262/79
statx=332/291 access=21/- faccessat=269/48 faccessat2=439/439 readlink=89/- readlinkat=267/78
getdents=78/- getdents64=217/61 flock=73/32 fsync=74/82 fdatasync=75/83 sync_file_range=277/84
ftruncate=77/46 fallocate=285/47 fadvise64=221/223 sendfile=40/71 copy_file_range=326/285 rename=82/-
renameat=264/38 renameat2=316/276 mkdir=83/- mkdirat=258/34 rmdir=84/- unlink=87/- unlinkat=263/35
link=86/- linkat=265/37 symlink=88/- symlinkat=266/36 chdir=80/49 fchdir=81/50 getcwd=79/17 umask=95/166
statfs=137/43 fstatfs=138/44 mmap=9/222 mprotect=10/226 munmap=11/215 mremap=25/216 brk=12/214
madvise=28/233 mincore=27/232 msync=26/227 membarrier=324/283 getpid=39/172 gettid=186/178
getppid=110/173 getuid=102/174 geteuid=107/175 getgid=104/176 getegid=108/177 getresuid=118/148
getresgid=120/150 getgroups=115/158 getpgrp=111/- getpgid=121/155 getsid=124/156 getrlimit=97/163
getrusage=98/165 times=100/153 sysinfo=99/179 uname=63/160 exit=60/93 exit_group=231/94 wait4=61/260
waitid=247/95 set_tid_address=218/96 set_robust_list=273/99 get_robust_list=274/100 rseq=334/293
futex=202/98 futex_waitv=449/449 futex_wake=454/454 futex_wait=455/455 futex_requeue=456/456
sched_yield=24/124 sched_getaffinity=204/123 sched_getparam=143/121 sched_getscheduler=145/120
sched_get_priority_max=146/125 sched_get_priority_min=147/126 sched_rr_get_interval=148/127
getpriority=140/141 getcpu=309/168 capget=125/90 clock_gettime=228/113 clock_getres=229/114
clock_nanosleep=230/115 nanosleep=35/101 gettimeofday=96/169 time=201/- getitimer=36/102
setitimer=38/103 alarm=37/- pause=34/- timer_create=222/107 timer_settime=223/110 timer_gettime=224/108
timer_getoverrun=225/109 timer_delete=226/111 timerfd_create=283/85 timerfd_settime=286/86
timerfd_gettime=287/87 rt_sigaction=13/134 rt_sigprocmask=14/135 rt_sigreturn=15/139
rt_sigpending=127/136 rt_sigsuspend=130/133 rt_sigtimedwait=128/137 sigaltstack=131/132
restart_syscall=219/128 poll=7/- ppoll=271/73 select=23/- pselect6=270/72 epoll_create=213/-
epoll_create1=291/20 epoll_ctl=233/21 epoll_wait=232/- epoll_pwait=281/22 epoll_pwait2=441/441
eventfd=284/- eventfd2=290/19 sendto=44/206 recvfrom=45/207 sendmsg=46/211 recvmsg=47/212
shutdown=48/210 getsockname=51/204 getpeername=52/205 getsockopt=55/209 getrandom=318/278
"""
CHECKED = """
open=2/- openat=257/56 socketpair=53/199 fcntl=72/25 ioctl=16/29 prctl=157/167 prlimit64=302/261
clone=56/220 kill=62/129 tkill=200/130 tgkill=234/131 rt_sigqueueinfo=129/138 rt_tgsigqueueinfo=297/240
"""
PRETENDED = """
chmod=90/- fchmod=91/52 fchmodat=268/53 fchmodat2=452/452 chown=92/- fchown=93/55 lchown=94/-
fchownat=260/54 utime=132/- utimes=235/- futimesat=261/- utimensat=280/88 setxattr=188/5 lsetxattr=189/6
fsetxattr=190/7 setxattrat=463/463 removexattr=197/14 lremovexattr=198/15 fremovexattr=199/16
removexattrat=466/466
"""
UNSUPPORTED = """
getxattr=191/8 lgetxattr=192/9 fgetxattr=193/10 listxattr=194/11 llistxattr=195/12 flistxattr=196/13
getxattrat=464/464 listxattrat=465/465
"""
REFUSED = """
socket=41/198 connect=42/203 bind=49/200 listen=50/201 accept=43/202 accept4=288/242 setsockopt=54/208
sendmmsg=307/269 recvmmsg=299/243 fork=57/- vfork=58/- execve=59/221 execveat=322/281 ptrace=101/117
process_vm_readv=310/270 process_vm_writev=311/271 process_madvise=440/440 process_mrelease=448/448
kcmp=312/272 pidfd_open=434/434 pidfd_getfd=438/438 pidfd_send_signal=424/424 unshare=272/97
setns=308/268 mount=165/40 umount2=166/39 pivot_root=155/41 chroot=161/51 open_tree=428/428
move_mount=429/429 fsopen=430/430 fsconfig=431/431 fsmount=432/432 fspick=433/433 mount_setattr=442/442
open_tree_attr=467/467 statmount=457/457 listmount=458/458 swapon=167/224 swapoff=168/225 reboot=169/142
sethostname=170/161 setdomainname=171/162 quotactl=179/60 quotactl_fd=443/443 acct=163/89
init_module=175/105 finit_module=313/273 delete_module=176/106 kexec_load=246/104
kexec_file_load=320/294 iopl=172/- ioperm=173/- modify_ldt=154/- syslog=103/116 io_uring_setup=425/425
io_uring_enter=426/426 io_uring_register=427/427 io_setup=206/0 io_destroy=207/1 io_submit=209/2
io_cancel=210/3 io_getevents=208/4 io_pgetevents=333/292 bpf=321/280 perf_event_open=298/241
userfaultfd=323/282 keyctl=250/219 add_key=248/217 request_key=249/218 memfd_create=319/279
memfd_secret=447/447 personality=135/92 setuid=105/146 setgid=106/144 setreuid=113/145 setregid=114/143
setresuid=117/147 setresgid=119/149 setfsuid=122/151 setfsgid=123/152 setgroups=116/159 capset=126/91
setrlimit=160/164 setpgid=109/154 setsid=112/157 sched_setaffinity=203/122 sched_setscheduler=144/119
sched_setparam=142/118 sched_setattr=314/274 setpriority=141/140 ioprio_set=251/30 seccomp=317/277
landlock_create_ruleset=444/444 landlock_add_rule=445/445 landlock_restrict_self=446/446 shmget=29/194
shmat=30/196 shmctl=31/195 shmdt=67/197 semget=64/190 semop=65/193 semctl=66/191 semtimedop=220/192
msgget=68/186 msgsnd=69/189 msgrcv=70/188 msgctl=71/187 mq_open=240/180 mq_unlink=241/181
mq_timedsend=242/182 mq_timedreceive=243/183 mq_notify=244/184 mq_getsetattr=245/185 truncate=76/45
mknod=133/- mknodat=259/33 name_to_handle_at=303/264 open_by_handle_at=304/265 fanotify_init=300/262
fanotify_mark=301/263 inotify_init=253/- inotify_init1=294/26 inotify_add_watch=254/27
inotify_rm_watch=255/28 splice=275/76 tee=276/77 vmsplice=278/75 vhangup=153/58 lookup_dcookie=212/18
clock_settime=227/112 settimeofday=164/170 clock_adjtime=305/266 adjtimex=159/171 move_pages=279/239
migrate_pages=256/238 mbind=237/235 set_mempolicy=238/237 set_mempolicy_home_node=450/450 signalfd=282/-
signalfd4=289/74 mlock=149/228 mlock2=325/284 mlockall=151/230 munlock=150/229 munlockall=152/231
"""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What a filter answers with (linux/seccomp.h).
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
REFUSE, UNKNOWN, PRETEND = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO
NOT_SUPPORTED, NO_TERMINAL = ERRNO | errno.EOPNOTSUPP, ERRNO | errno.ENOTTY

# Instructions of the filter machine (linux/bpf_common.h) and where `struct seccomp_data` keeps things.
LOAD, EQUAL, AT_LEAST, HAS_ANY, AND, JUMP, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x05, 0x06
NR, ARCH, ARGUMENTS = 0, 4, 16
LONGEST_JUMP = 255
INSTRUCTION = struct.Struct("=HBBI")
OWN_PID = -1  # stands for the pid that `Filter.for_pid` writes in

Step = tuple[int, int, int, int]
Code = list[Step]

NEW_NAMESPACES = 0x7E020000
O_ACCMODE, O_TRUNC = 0o3, 0o1000
AF_UNIX, SOCK_STREAM, SOCK_TYPES = 1, 1, 0xF
# get/set descriptor and status flags, duplicate, locks, pipe size. Not F_SETOWN: it can aim a signal at others.
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
# TCGETS, TCGETS2, TIOCGWINSZ (isatty), FIONREAD, FIONBIO, FIOCLEX, FIONCLEX
IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
PRCTLS = (15, 16, 0x53564D41)  # name a thread, read its name, name a mapping


def parse(table: str) -> dict[str, tuple[int | None, int | None]]:
    """Numbers of each call of a table, for x86_64 and aarch64."""
    found = {}
    for entry in table.split():
        name, _, numbers = entry.partition("=")
        first, second = (None if number == "-" else int(number) for number in numbers.split("/"))
        found[name] = (first, second)
    return found


def _low(index: int) -> Step:
    """Load the low 32 bits of an argument; both architectures are little-endian."""
    return (LOAD, 0, 0, ARGUMENTS + 8 * index)


def _one_of(index: int, values: tuple[int, ...], otherwise: int) -> Code:
    """Allow where an argument of 32 bits has one of some values."""
    last = len(values)
    tests = [(EQUAL, last - i, 0, value) for i, value in enumerate(values)]
    return [_low(index), *tests, (RETURN, 0, 0, otherwise), (RETURN, 0, 0, ALLOW)]


def _threads_only() -> Code:
    """clone: a thread of this process, in no new namespace."""
    return [
        _low(0),
        (HAS_ANY, 0, 2, linux.CLONE_THREAD),
        (HAS_ANY, 1, 0, NEW_NAMESPACES),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


def _no_hidden_truncation(index: int) -> Code:
    """open: not for reading with O_TRUNC, which empties a file that old Landlocks let be read."""
    return [
        _low(index),
        (AND, 0, 0, O_ACCMODE | O_TRUNC),
        (EQUAL, 0, 1, O_TRUNC),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]


def _stream_pair() -> Code:
    """socketpair: streams only. A datagram socket could be sent from to any path of the host."""
    return [
        _low(0),
        (EQUAL, 0, 4, AF_UNIX),
        _low(1),
        (AND, 0, 0, SOCK_TYPES),
        (EQUAL, 0, 1, SOCK_STREAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


def _limits_read_only() -> Code:
    """prlimit64: no new limit, that is a null third argument (both halves)."""
    high = (LOAD, 0, 0, ARGUMENTS + 8 * 2 + 4)
    return [
        _low(2),
        (EQUAL, 0, 3, 0),
        high,
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


_to_itself = partial(_one_of, 0, (OWN_PID,), REFUSE)
CHECKS: Mapping[str, Callable[[], Code]] = {
    "open": partial(_no_hidden_truncation, 1),
    "openat": partial(_no_hidden_truncation, 2),
    "socketpair": _stream_pair,
    "fcntl": partial(_one_of, 1, FCNTLS, REFUSE),
    "ioctl": partial(_one_of, 1, IOCTLS, NO_TERMINAL),
    "prctl": partial(_one_of, 0, PRCTLS, REFUSE),
    "prlimit64": _limits_read_only,
    "clone": _threads_only,
    "kill": _to_itself,
    "tkill": _to_itself,
    "tgkill": _to_itself,
    "rt_sigqueueinfo": _to_itself,
    "rt_tgsigqueueinfo": _to_itself,
}


MODES = ("chmod", "fchmod", "fchmodat", "fchmodat2")


def policy(arch: str, own_files: bool = False) -> dict[int, Code]:
    """What is done with each call of an architecture, by number; calls not in it are unknown.

    Args:
        arch: `x86_64` or `aarch64`.
        own_files: all that can be written to is the scratch, so that modes of files may be changed in earnest.
    """
    column = list(AUDIT_ARCH).index(arch)
    answers = ((ALLOWED, ALLOW), (PRETENDED, PRETEND), (UNSUPPORTED, NOT_SUPPORTED), (REFUSED, REFUSE))
    found: dict[int, Code] = {}
    for table, answer in answers:
        for numbers in parse(table).values():
            if (number := numbers[column]) is not None:
                found[number] = [(RETURN, 0, 0, answer)]
    if own_files:
        for name in MODES:
            if (number := parse(PRETENDED)[name][column]) is not None:
                found[number] = [(RETURN, 0, 0, ALLOW)]
    for name, numbers in parse(CHECKED).items():
        if (number := numbers[column]) is not None:
            found[number] = CHECKS[name]()
    return found


def _search(ranges: list[tuple[int, Code]]) -> Code:
    """Binary search for the range that holds the number.

    The kernel runs the filter for every call that exists
    when it is put on, so a list in a row would cost more than all the other walls together.
    """
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    low, high = _search(ranges[:half]), _search(ranges[half:])
    start = ranges[half][0]
    if len(low) <= LONGEST_JUMP:
        return [(AT_LEAST, len(low), 0, start), *low, *high]
    return [(AT_LEAST, 0, 1, start), (JUMP, 0, 0, len(low)), *low, *high]


def assemble(arch: str, own_files: bool = False) -> Code:
    """The whole filter of an architecture, see `policy`; calls of another one (32-bit ones) end the process."""
    calls = policy(arch, own_files)
    unknown: Code = [(RETURN, 0, 0, UNKNOWN)]
    ranges: list[tuple[int, Code]] = [(0, calls.get(0, unknown))]
    for number in range(1, max(calls) + 2):
        code = calls.get(number, unknown)
        if code != ranges[-1][1] or len(code) > 1:
            ranges.append((number, code))
    foreign: Code = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, AUDIT_ARCH[arch]), (RETURN, 0, 0, KILL)]
    return [*foreign, (LOAD, 0, 0, NR), *_search(ranges)]


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_char_p))


class Filter:
    """A filter as bytes, made once; each child writes its pid into it.

    Args:
        arch: `x86_64` or `aarch64`, as `os.uname().machine` has it.
        own_files: see `policy`.

    Raises:
        OSError: for an architecture without a table.
    """

    def __init__(self, arch: str, own_files: bool = False) -> None:
        if arch not in AUDIT_ARCH:
            raise OSError(errno.ENOSYS, f"no table of system calls for {arch}")
        code = assemble(arch, own_files)
        self.count = len(code)
        self._pids = [i * INSTRUCTION.size + 4 for i, step in enumerate(code) if step[3] == OWN_PID]
        self._code = bytearray(b"".join(INSTRUCTION.pack(*step[:3], max(step[3], 0)) for step in code))

    def for_pid(self, pid: int) -> bytes:
        """The instructions, where the only process that may be signalled is `pid`."""
        for offset in self._pids:
            struct.pack_into("=I", self._code, offset, pid)
        return bytes(self._code)

    def put_on(self, pid: int) -> None:
        """Bind the calling thread, and all it will start, for good. Needs no_new_privs."""
        program = _Program(self.count, self.for_pid(pid))
        linux.prctl(linux.PR_SET_SECCOMP, linux.SECCOMP_MODE_FILTER, ctypes.byref(program))
