"""The filter, run by a small interpreter of classic BPF: what each call gets, on both architectures."""

import errno
import struct
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox import native
from benchbox.errors import UnavailableError
from benchbox.linux import seccomp

X86: Final = native.syscalls().get("x86_64", {})
#: Where the generic table of new architectures has other numbers; enough of it to see that nothing is tied to x86-64.
ARM: Final[Mapping[str, int]] = {
    "io_setup": 0, "setxattr": 5, "mount": 40, "ioctl": 29, "openat": 56, "read": 63, "exit": 93, "personality": 92,
    "unshare": 97, "kexec_load": 104, "ptrace": 117, "reboot": 142, "socket": 198, "keyctl": 219, "clone": 220,
    "execve": 221, "bpf": 280, "clone3": 435,
}  # fmt: skip
TABLES: Final = [
    pytest.param(machine, numbers, id=machine) for machine, numbers in (("x86_64", X86), ("aarch64", ARM)) if numbers
]
ALLOW: Final = "allow"
KILL: Final = "kill"
#: Longest way through the tree: architecture, number, comparisons, then the arguments.
MOST_STEPS: Final = 24


def answer(program: bytes, number: int, arguments: tuple[int, ...] = (), *, machine: str) -> str | int:
    """Return what ``program`` says to a call: ``allow``, ``kill`` or an errno."""
    return run(program, number, arguments, seccomp.ARCHITECTURES[machine])[0]


def run(program: bytes, number: int, arguments: tuple[int, ...], architecture: int) -> tuple[str | int, int]:
    """Interpret ``program`` as the kernel does (net/core/filter.c); return its answer and the steps that it took."""
    data = struct.pack("<iIQ6Q", number - (number >> 31 << 32), architecture, 0, *(*arguments, *[0] * 6)[:6])
    accumulator, at = 0, 0
    for steps in range(1, 4097):
        code, jump_true, jump_false, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            assert k % 4 == 0 and k < len(data)
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code in (0x15, 0x35, 0x45):
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k != 0}[code]
            at += jump_true if holds else jump_false
        else:
            assert code == 0x06
            return meaning(k), steps
    raise AssertionError("it does not end")


def meaning(value: int) -> str | int:
    kinds = {0x7FFF0000: ALLOW, 0x80000000: KILL}
    return kinds[value] if value in kinds else (value & 0xFFFF if value >> 16 == 5 else f"{value:x}")


@pytest.mark.parametrize("machine, numbers", TABLES)
def test_every_number_is_answered_as_its_name_says(machine: str, numbers: Mapping[str, int]) -> None:
    """Allowed if listed, EPERM if known and not listed; what depends on arguments is looked at below."""
    program, listed = seccomp.program(machine, numbers), seccomp.allowed_names()
    assert numbers
    for name in set(numbers) - set(seccomp.RULES):
        assert answer(program, numbers[name], machine=machine) == (ALLOW if name in listed else errno.EPERM), name


@pytest.mark.parametrize("machine, numbers", TABLES)
def test_numbers_that_nobody_knows_are_not_allowed(machine: str, numbers: Mapping[str, int]) -> None:
    """Above the last one as on an older kernel, so that a C library falls back; those of x32 and below 0 as well."""
    program, last = seccomp.program(machine, numbers), max(numbers.values())
    beyond = (last + 1, last + 99, seccomp.X32_BIT, seccomp.X32_BIT | 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    assert {answer(program, number, machine=machine) for number in beyond} == {errno.ENOSYS}
    gaps = set(range(last)) - set(numbers.values())
    assert {answer(program, number, machine=machine) for number in gaps} <= {errno.EPERM}


@pytest.mark.parametrize("machine, numbers", TABLES)
@pytest.mark.parametrize("architecture", [0x40000003, 0x40000028, 0, 0xFFFFFFFF])
def test_a_call_of_another_architecture_kills(machine: str, numbers: Mapping[str, int], architecture: int) -> None:
    """Its numbers mean something else: i386 by ``int 0x80``, 32-bit ARM."""
    program = seccomp.program(machine, numbers)
    assert {run(program, number, (), architecture)[0] for number in range(500)} == {KILL}


@pytest.mark.parametrize("machine, numbers", TABLES)
def test_no_call_takes_many_steps(machine: str, numbers: Mapping[str, int]) -> None:
    """The tree is balanced; each instruction costs time when it is installed, at every start."""
    program = seccomp.program(machine, numbers)
    longest = max(run(program, number, (77, 77, 77), seccomp.ARCHITECTURES[machine])[1] for number in range(600))
    assert longest <= MOST_STEPS
    assert len(program) // 8 <= 110


#: Call, arguments, answer.
ARGUMENTS: Final = [
    ("clone", (0x3D0F00,), ALLOW),  # what a thread is made with
    ("clone", (0x11,), ALLOW),
    *(("clone", (0x11 | 1 << bit,), errno.EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
    ("clone3", (), errno.ENOSYS),
    ("unshare", (0x200 | 0x400,), ALLOW),
    *(("unshare", (1 << bit,), errno.EPERM) for bit in (7, 17, 25, 26, 27, 28, 29, 30)),
    *(("socket", (family, 1, 0), ALLOW) for family in (1, 2, 10)),
    ("socket", (16, 3, 0), ALLOW),
    *(("socket", (16, 3, protocol), errno.EPROTONOSUPPORT) for protocol in (4, 9, 12, 15, 16, 21)),
    *(("socket", (family, 3, 0), errno.EAFNOSUPPORT) for family in (0, 15, 17, 29, 31, 38, 40, 44)),
    ("ioctl", (0, 0x5401), ALLOW),
    *(("ioctl", (0, request), errno.EPERM) for request in (0x5412, 0x541C)),
    *(("personality", (persona,), ALLOW) for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),
    *(("personality", (persona,), errno.EPERM) for persona in (1, 0x40000, 0x400000, 0x7FFFFFFF)),
]


@pytest.mark.parametrize("machine, numbers", TABLES)
@pytest.mark.parametrize("name, arguments, expected", ARGUMENTS)
def test_arguments_decide(
    machine: str, numbers: Mapping[str, int], name: str, arguments: tuple[int, ...], expected: str | int
) -> None:
    """Namespaces, address families, terminal input and personalities: by the low half, as the kernel looks at it."""
    program = seccomp.program(machine, numbers)
    high = tuple(value | 0xFFFFFFFF << 32 for value in arguments)
    assert answer(program, numbers[name], arguments, machine=machine) == expected
    assert answer(program, numbers[name], high, machine=machine) == expected


@given(st.integers(0, 7), st.integers(0, (1 << 64) - 1))
def test_no_flag_hides_a_namespace(other: int, noise: int) -> None:
    """Whatever else is in the flags of clone, a namespace flag is seen; without one it is allowed."""
    program = seccomp.program("aarch64", ARM)
    flag = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0)[other]
    flags = noise & ~seccomp.CLONE_NAMESPACES | flag
    assert answer(program, ARM["clone"], (flags,), machine="aarch64") == (errno.EPERM if flag else ALLOW)


def test_socketpairs_are_of_one_kind() -> None:
    """Those of AF_UNIX."""
    numbers = {"socketpair": 3}
    program = seccomp.program("x86_64", numbers)
    assert answer(program, 3, (1,), machine="x86_64") == ALLOW
    assert answer(program, 3, (40,), machine="x86_64") == errno.EAFNOSUPPORT


# --- the same for container engines ---


def answer_of_profile(profile: Mapping[str, Any], name: str, arguments: tuple[int, ...]) -> str | int:
    """Return what a runtime makes of ``profile`` (libseccomp's rules: all conditions of an entry, any of the entries).

    Two entries with different answers must not match one call: which one then counts is up to the library.
    """
    found = {
        ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else entry["errnoRet"]
        for entry in profile["syscalls"]
        if name in entry["names"] and all(matches(condition, arguments) for condition in entry.get("args", ()))
    }
    assert len(found) <= 1, (name, arguments)
    return found.pop() if found else profile["defaultErrnoRet"]


def matches(condition: Mapping[str, Any], arguments: tuple[int, ...]) -> bool:
    assert condition["op"] == "SCMP_CMP_MASKED_EQ"
    value = (*arguments, *[0] * 6)[condition["index"]]
    return bool(value & condition["value"] == condition["valueTwo"])


@pytest.mark.parametrize("machine, numbers", TABLES)
def test_engines_are_told_the_same_for_every_name(machine: str, numbers: Mapping[str, int]) -> None:
    """As the program answers by number."""
    profile, program = seccomp.profile(machine, numbers), seccomp.program(machine, numbers)
    for name in set(numbers) - set(seccomp.RULES):
        assert answer_of_profile(profile, name, ()) == answer(program, numbers[name], machine=machine), name


@pytest.mark.parametrize("machine, numbers", TABLES)
@pytest.mark.parametrize("name, arguments, expected", ARGUMENTS)
def test_engines_are_told_the_same_about_arguments(
    machine: str, numbers: Mapping[str, int], name: str, arguments: tuple[int, ...], expected: str | int
) -> None:
    """By the low half as well."""
    profile = seccomp.profile(machine, numbers)
    high = tuple(value | 0xFFFFFFFF << 32 for value in arguments)
    assert answer_of_profile(profile, name, arguments) == expected
    assert answer_of_profile(profile, name, high) == expected


@given(st.sampled_from(sorted(set(seccomp.RULES) & set(ARM))), st.tuples(*[st.integers(0, (1 << 64) - 1)] * 3))
def test_whatever_the_arguments_both_forms_agree(name: str, arguments: tuple[int, ...]) -> None:
    """No value falls between the patterns, none is in two."""
    program, profile = seccomp.program("aarch64", ARM), seccomp.profile("aarch64", ARM)
    low = tuple(value & 0xFF for value in arguments)
    for values in (arguments, low):
        expected = answer(program, ARM[name], values, machine="aarch64")
        assert answer_of_profile(profile, name, values) == expected


def test_an_engine_is_told_the_architecture() -> None:
    """Calls of another one are then refused by its library."""
    assert seccomp.profile("aarch64", ARM)["architectures"] == ["SCMP_ARCH_AARCH64"]


#: Calls of Linux 6.2 to 6.17: an installation that was built with older headers does not know them.
NEWER: Final = frozenset(
    {
        "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue", "mseal",
        "setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr", "file_setattr",
    }
)  # fmt: skip


@pytest.mark.skipif(not X86, reason="built for another machine: this one has not all of the old calls")
def test_every_listed_name_is_one_that_the_headers_know() -> None:
    """A misspelt name would be refused without anybody knowing why."""
    assert seccomp.allowed_names() - set(X86) <= NEWER
    assert set(seccomp.RULES) <= set(X86)


def test_no_name_is_listed_twice() -> None:
    """Nor both listed and with a rule, which would win."""
    names = [name for group in seccomp.ALLOWED.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert not set(names) & set(seccomp.RULES)


#: What changes the host, its kernel or another namespace, loads code into the kernel, or watches others.
NEVER: Final = (
    "acct", "add_key", "bpf", "chroot", "clock_settime", "delete_module", "fanotify_init", "finit_module", "fsconfig",
    "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm",
    "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mbind", "migrate_pages", "mount",
    "mount_setattr", "move_mount", "move_pages", "name_to_handle_at", "open_by_handle_at", "open_tree",
    "perf_event_open", "pivot_root", "quotactl", "reboot", "request_key", "set_mempolicy", "setdomainname",
    "sethostname", "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "userfaultfd", "vhangup",
)  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_reaches_the_host_is_not_listed(name: str) -> None:
    """Each is refused wherever the headers know it."""
    assert name not in seccomp.allowed_names() | set(seccomp.RULES)


@pytest.mark.parametrize("machine, numbers", [("riscv64", {"read": 63}), ("x86_64", {})])
def test_a_machine_without_a_filter_is_told_to_do_without(machine: str, numbers: Mapping[str, int]) -> None:
    """Never a filter for another machine."""
    for make in (seccomp.program, seccomp.profile):
        with pytest.raises(UnavailableError, match=machine) as error:
            make(machine, numbers)
        assert error.value.hint == "set seccomp: off"
