"""The container's default seccomp filter: which system calls of the host's kernel a workload can reach. Pure.

An allow-list, as container engines publish theirs: what programs need to compute, to use files, memory, processes,
sockets and time is allowed; what changes the host, its kernel, its devices or other namespaces is not listed. Each
group below says what it is for. The numbers come from the kernel headers that the package was built with (``native``),
so names that those lack are left out.

What is refused:

- a known system call that is not listed: ``EPERM``, as without the privilege for it. Not a kill: programs try a call
  and go another way when it is refused (``io_uring``, ``perf_event_open``, ``set_mempolicy``), and one that was killed
  could not say why. For the kernel both are the same: the call is not executed.
- a number above all that the headers know, ``clone3``, and the x32 numbers: ``ENOSYS``, which is what an older kernel
  says: C libraries then use the older call, whose arguments can be looked at (those of ``clone3`` lie in memory).
- another architecture's calls (32-bit ones by ``int 0x80``): the process is killed; no program comes to that by chance.

The program is a search tree over ranges of numbers. Since Linux 5.11 the kernel asks it once per number when it is
installed and then answers what does not depend on arguments from a bitmap, so what counts is how long it takes to
install: with the number of its instructions.

Sources: Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{filter,seccomp,audit}.h of Linux.
"""

import errno
import struct
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchbox.errors import UnavailableError

#: What ``struct seccomp_data.arch`` says (AUDIT_ARCH_*, linux/audit.h), by the name that uname(2) gives the machine.
ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: What container engines call them, as libseccomp does.
_ENGINE_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
#: x32 calls are those of x86-64 with this bit in their number.
X32_BIT: Final = 0x40000000

ALLOWED: Final[Mapping[str, str]] = {
    "input and output": """
        close close_range dup dup2 dup3 lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
        readv sendfile splice tee vmsplice write writev copy_file_range fadvise64 fallocate fcntl fdatasync flock fsync
        ftruncate sync sync_file_range syncfs truncate io_cancel io_destroy io_getevents io_pgetevents io_setup
        io_submit""",
    "files and folders": """
        access chdir chmod chown creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchownat fgetxattr
        flistxattr fremovexattr fsetxattr fstat fstatfs futimesat getcwd getdents getdents64 getxattr lchown lgetxattr
        link linkat listxattr llistxattr lremovexattr lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat open openat
        openat2 readlink readlinkat removexattr rename renameat renameat2 rmdir setxattr stat statfs statx symlink
        symlinkat umask unlink unlinkat utime utimensat utimes cachestat getxattrat listxattrat removexattrat
        setxattrat file_getattr file_setattr""",
    "waiting for descriptors": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
        eventfd2 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll pselect6 select signalfd
        signalfd4 timerfd_create timerfd_gettime timerfd_settime""",
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect
        mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise
        process_mrelease remap_file_pages""",
    "processes and threads": """
        arch_prctl capget capset execve execveat exit exit_group fork vfork futex futex_requeue futex_wait futex_waitv
        futex_wake get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrandom getrlimit
        getrusage getsid gettid kcmp landlock_add_rule landlock_create_ruleset landlock_restrict_self
        pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace
        restart_syscall rseq seccomp set_robust_list set_thread_area set_tid_address setpgid
        setpriority setrlimit setsid sysinfo times uname wait4 waitid""",
    "users and groups": """
        getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups setregid
        setresgid setresuid setreuid setuid""",
    "signals": """
        alarm kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
        rt_sigtimedwait rt_tgsigqueueinfo sigaltstack tgkill tkill""",
    "scheduling": """
        ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
        sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield""",
    "time, read only": """
        adjtimex clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
        timer_create timer_delete timer_getoverrun timer_gettime timer_settime""",
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
        sendto setsockopt shutdown""",
    "System V and POSIX queues, of an IPC namespace of its own": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
        semop semtimedop shmat shmctl shmdt shmget""",
}

#: Flags of clone(2) and unshare(2) that make a namespace (linux/sched.h); CLONE_NEWTIME is one of unshare(2) only, for
#: clone(2) its bit belongs to the number of a signal.
CLONE_NAMESPACES: Final = 0x7E020000
CLONE_NEWTIME: Final = 0x80
#: Address families that any program has use for. Left out are those that reach the host from every network namespace
#: (AF_VSOCK) or load and run rarely used code of the kernel (AF_ALG, AF_PACKET, AF_BLUETOOTH, AF_XDP, ...).
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE: Final = 0
#: They put characters into a terminal's input, as if its user had typed them: a way out of a container to the shell
#: that it was started from.
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
#: PER_LINUX, PER_LINUX32, both with UNAME26, and the question which one it is. Others switch off protections (address
#: randomisation, no read-implies-exec) or select code for binaries of other systems.
PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


@dataclass(frozen=True)
class Test:
    """One look at the low half of argument ``index``: all kernel functions below take an int (or only its low bits).

    A look at all 64 bits would be a hole: the kernel drops the high half, so any value there would pass by.
    ``mask`` None tests for equality with one of ``values``, else for any common bit with ``mask``.
    """

    index: int
    values: tuple[int, ...] = ()
    mask: int | None = None


@dataclass(frozen=True)
class Rule:
    """A call that depends on its arguments: tests in order, each with what follows; ``otherwise`` if none holds."""

    tests: tuple[tuple[Test, "Outcome"], ...]
    otherwise: int | None


#: What a call gets: None is allowed, a number is refused with that errno, a rule looks at the arguments.
Outcome = int | None | Rule


@dataclass(frozen=True)
class End:
    """A return: allowed, or refused with an errno."""

    errno: int | None

    @property
    def value(self) -> int:
        return RET_ALLOW if self.errno is None else RET_ERRNO | self.errno


_SOCKET: Final = Rule(
    (
        (Test(0, (AF_UNIX, AF_INET, AF_INET6)), None),
        (Test(0, (AF_NETLINK,)), Rule(((Test(2, (NETLINK_ROUTE,)), None),), errno.EPROTONOSUPPORT)),
    ),
    errno.EAFNOSUPPORT,
)

#: Calls whose arguments decide, or that get another errno than others.
RULES: Final[Mapping[str, "Outcome"]] = {
    "clone3": errno.ENOSYS,
    "clone": Rule(((Test(0, mask=CLONE_NAMESPACES), errno.EPERM),), None),
    "unshare": Rule(((Test(0, mask=CLONE_NAMESPACES | CLONE_NEWTIME), errno.EPERM),), None),
    "socket": _SOCKET,
    "socketpair": Rule(((Test(0, (AF_UNIX,)), None),), errno.EAFNOSUPPORT),
    "ioctl": Rule(((Test(1, (TIOCSTI, TIOCLINUX)), errno.EPERM),), None),
    "personality": Rule(((Test(0, PERSONALITIES), None),), errno.EPERM),
}

#: Instructions of classic BPF (linux/bpf_common.h) and what the program returns (linux/seccomp.h).
LOAD, RETURN = 0x20, 0x06
JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT = 0x15, 0x35, 0x45
RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
#: Offsets in ``struct seccomp_data``; arguments are 64 bits wide, their low half first on little-endian machines.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
#: How far a jump can go.
_FURTHEST: Final = 255


@dataclass(frozen=True)
class Line:
    """One instruction before its jumps are counted: where they lead by name, ``NEXT`` to the instruction after it."""

    code: int
    k: int
    true: Hashable = None
    false: Hashable = None
    name: Hashable = None


NEXT: Final = "next"


def program(machine: str, numbers: Mapping[str, int]) -> bytes:
    """Return the filter for ``machine`` as ``struct sock_filter[]``; ``numbers`` are its calls by name.

    Raises UnavailableError for a machine that has none.
    """
    if machine not in ARCHITECTURES or not numbers:
        raise UnavailableError(f"there is no seccomp filter for {machine} machines", hint="set seccomp: off")
    return assemble([*_head(ARCHITECTURES[machine]), *_body(ranges(numbers))])


def assemble(lines: Sequence[Line]) -> bytes:
    """Return ``lines`` with each name replaced by how many instructions there are in between."""
    places = {line.name: at for at, line in enumerate(lines) if line.name is not None}
    words = []
    for at, line in enumerate(lines):
        over = [0 if to in (None, NEXT) else places[to] - at - 1 for to in (line.true, line.false)]
        assert min(over) >= 0 and max(over) <= _FURTHEST, "a jump goes forward, and not too far"
        words.append(struct.pack("=HBBI", line.code, *over, line.k))
    return b"".join(words)


def allowed_names() -> frozenset[str]:
    """Return every name that is allowed whatever its arguments."""
    return frozenset(name for group in ALLOWED.values() for name in group.split())


def ranges(numbers: Mapping[str, int]) -> list[tuple[int, Outcome]]:
    """Return where each range of numbers with one outcome begins, from 0 on, and that outcome."""
    listed = allowed_names()
    names = {number: name for name, number in numbers.items()}
    last = max(names)
    found: list[tuple[int, Outcome]] = []
    for number in range(last + 1):
        name = names.get(number, "")
        outcome = RULES.get(name, None if name in listed else errno.EPERM)
        if not found or found[-1][1] != outcome:
            found.append((number, outcome))
    return [*found, (last + 1, errno.ENOSYS)]


def _head(architecture: int) -> list[Line]:
    return [
        Line(LOAD, _ARCHITECTURE),
        Line(JUMP_EQUAL, architecture, "number", NEXT),
        Line(RETURN, RET_KILL_PROCESS),
        Line(LOAD, _NUMBER, name="number"),
    ]


def _body(found: Sequence[tuple[int, Outcome]]) -> list[Line]:
    """Return the tree, then what looks at arguments, then the returns, which all share."""
    outcomes = list(dict.fromkeys(outcome for _, outcome in found))
    blocks = [line for outcome in outcomes if isinstance(outcome, Rule) for line in _block(outcome)]
    ends = {name for line in blocks for name in (line.true, line.false) if isinstance(name, End)}
    ends |= {End(outcome) for outcome in outcomes if not isinstance(outcome, Rule)}
    returns = [Line(RETURN, end.value, name=end) for end in sorted(ends, key=lambda end: end.value)]
    return [*_tree(found, None), *blocks, *returns]


def _tree(found: Sequence[tuple[int, Outcome]], name: Hashable) -> list[Line]:
    """Return a search for the last range that begins at or below the number, for two ranges or more.

    Split so that both sides have about as many numbers: the kernel asks for each number once.
    """
    begin, end = found[0][0], found[-1][0]
    cut = min(range(1, len(found)), key=lambda at: abs(2 * found[at][0] - begin - end))
    below, above = found[:cut], found[cut:]
    right = ("from", above[0][0]) if len(above) > 1 else _target(above[0][1])
    left = NEXT if len(below) > 1 else _target(below[0][1])
    lines = [Line(JUMP_GREATER_EQUAL, above[0][0], right, left, name)]
    lines += _tree(below, None) if len(below) > 1 else []
    return lines + (_tree(above, right) if len(above) > 1 else [])


def _block(rule: Rule) -> list[Line]:
    lines: list[Line] = []
    later: list[Line] = []
    for position, (test, outcome) in enumerate(rule.tests):
        lines.append(Line(LOAD, _ARGUMENTS + 8 * test.index, name=None if position else rule))
        last_test = position == len(rule.tests) - 1
        code, values = (JUMP_EQUAL, test.values) if test.mask is None else (JUMP_ANY_BIT, (test.mask,))
        for at, value in enumerate(values, start=1):
            otherwise = _target(rule.otherwise) if last_test and at == len(values) else NEXT
            lines.append(Line(code, value, _target(outcome), otherwise))
        later += _block(outcome) if isinstance(outcome, Rule) else []
    return lines + later


def _target(outcome: Outcome) -> Hashable:
    return outcome if isinstance(outcome, Rule) else End(outcome)


#: Some bits of the low half of an argument: its index, which bits, and what they are.
Bits = tuple[int, int, int]
_LOW_HALF: Final = 0xFFFFFFFF


def profile(machine: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the same filter in the words of the OCI runtime specification (config-linux.md, "Seccomp"), which is also
    what the Docker Engine takes. Raises UnavailableError for a machine that has none.

    The runtime assembles it, so what differs is how: numbers above those that the *runtime's* library knows, and x32
    ones, get what it thinks right. Such a profile has no "otherwise", and its conditions of one call are alternatives
    that must not overlap: each rule is written as the patterns of bits that it applies to.
    """
    if machine not in _ENGINE_ARCHITECTURES or not numbers:
        raise UnavailableError(f"there is no seccomp filter for {machine} machines", hint="set seccomp: off")
    allowed = sorted((allowed_names() - RULES.keys()) & numbers.keys())
    calls: list[dict[str, Any]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    for name in sorted(RULES.keys() & numbers.keys()):
        for patterns, outcome in _alternatives(RULES[name]):
            if outcome != errno.EPERM:  # that is what all others get
                calls.append({"names": [name], **_action(outcome), **_conditions(patterns)})
    return {
        **_action(errno.EPERM, "defaultAction", "defaultErrnoRet"),
        "architectures": [_ENGINE_ARCHITECTURES[machine]],
        "syscalls": calls,
    }


def _action(outcome: int | None, action: str = "action", number: str = "errnoRet") -> dict[str, Any]:
    return {action: "SCMP_ACT_ALLOW"} if outcome is None else {action: "SCMP_ACT_ERRNO", number: outcome}


def _conditions(patterns: tuple[Bits, ...]) -> dict[str, Any]:
    args = [
        {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}
        for index, mask, value in patterns
    ]
    return {"args": args} if args else {}


def _alternatives(outcome: Outcome, above: tuple[Bits, ...] = ()) -> Iterator[tuple[tuple[Bits, ...], int | None]]:
    """Yield what ``outcome`` comes to as patterns that all have to match, and the answer; no two match one call.

    The tests of one rule look at one argument, and the values of a mask test are not those of the others.
    """
    if not isinstance(outcome, Rule):
        yield above, outcome
        return
    (index,) = {test.index for test, _ in outcome.tests}
    for test, then in outcome.tests:
        for mask, value in _matching(test):
            yield from _alternatives(then, (*above, (index, mask, value)))
    for mask, value in _not_matching([test for test, _ in outcome.tests]):
        yield (*above, (index, mask, value)), outcome.otherwise


def _matching(test: Test) -> list[tuple[int, int]]:
    if test.mask is None:
        return [(_LOW_HALF, value) for value in test.values]
    bits = [1 << bit for bit in range(32) if test.mask >> bit & 1]
    # The lowest bit that is set decides, so that the patterns do not overlap.
    return [(bit | sum(lower for lower in bits if lower < bit), bit) for bit in bits]


def _not_matching(tests: Sequence[Test]) -> list[tuple[int, int]]:
    masks = [test.mask for test in tests if test.mask is not None]
    if masks:
        assert len(tests) == 1, "a mask is tested alone"
        return [(masks[0], 0)]
    return list(_other_values([value for test in tests for value in test.values], _LOW_HALF + 1 >> 1))


def _other_values(values: Sequence[int], bit: int, mask: int = 0, prefix: int = 0) -> Iterator[tuple[int, int]]:
    """Yield patterns for every number that begins with ``prefix`` and is none of ``values``, which all do."""
    if not values:
        yield mask, prefix
    elif bit:
        for half in (0, bit):
            within = [value for value in values if value & bit == half]
            yield from _other_values(within, bit >> 1, mask | bit, prefix | half)
