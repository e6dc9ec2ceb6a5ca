"""Plans become arguments, reports become what happened: both without starting anything."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.errors import EnvironmentFailure
from benchbox.linux.cgroups import CgroupPlan, Group, Write
from benchbox.linux.launch import LaunchPlan, MountStep, Root, arguments, parse_report

PROGRAM = Path("/lib/launch")
PLAIN = LaunchPlan(("/bin/true", "-x"), Root("chroot", Path("/image")))


def after_report(plan: LaunchPlan) -> list[str]:
    """Return the arguments of ``plan`` without what all plans begin with."""
    words = arguments(plan, PROGRAM, 7)
    assert words[:4] == [str(PROGRAM), "--report", "7", "--die-with-parent"]
    return words[4:]


def test_the_least_plan_is_a_root_and_a_command() -> None:
    """Nothing is asked for that the plan does not name; the environment is never inherited."""
    assert after_report(PLAIN) == [
        "--chroot", "/image", "--chdir", "/", "--clearenv", "--ready", "3", "--", "/bin/true", "-x",
    ]  # fmt: skip


def test_a_command_that_says_nothing_gets_no_descriptor() -> None:
    """``--ready`` is for those that signal."""
    assert "--ready" not in arguments(replace(PLAIN, signals_ready=False), PROGRAM, 7)


def test_cgroups_come_with_their_values_and_files() -> None:
    """Each group is followed by what is written to it and what is read from it, in the plan's order."""
    groups = (
        Group(Path("/cg/cpu/a"), 1, (Write("cpu.shares", "2"), Write("x", "0", optional=True)), ("cpu.stat",)),
        Group(Path("/cg/unified/a"), 2, (), ("cpu.pressure",)),
    )
    words = after_report(replace(PLAIN, cgroups=CgroupPlan(groups)))
    assert words[: words.index("--chroot")] == [
        "--cgroup", "/cg/cpu/a", "--cgroup-set", "cpu.shares", "2", "--cgroup-try", "x", "0",
        "--cgroup-read", "cpu.stat",
        "--cgroup2", "/cg/unified/a", "--cgroup-read", "cpu.pressure",
    ]  # fmt: skip


def test_the_new_root_and_its_mounts_keep_their_order() -> None:
    """An overlay names its scratch folder, a bind its source, a tmpfs its size."""
    mounts = (
        MountStep("proc", "/proc"),
        MountStep("bind", "/data", Path("/var/data")),
        MountStep("tmpfs", "/tmp", size_bytes=4096),
        MountStep("mask", "/proc/keys"),
    )
    plan = replace(PLAIN, root=Root("root-overlay", Path("/image"), Path("/scratch")), mounts=mounts)
    words = after_report(plan)
    assert words[: words.index("--chdir")] == [
        "--root-overlay", "/image", "/scratch", "--proc", "/proc", "--bind", "/var/data", "/data",
        "--size", "4096", "--tmpfs", "/tmp", "--mask", "/proc/keys",
    ]  # fmt: skip


def test_a_network_namespace_is_joined_by_its_descriptor() -> None:
    """In place of a new one."""
    assert after_report(replace(PLAIN, network_fd=0))[:2] == ["--join-net", "0"]


def test_every_other_part_of_a_plan_has_its_option() -> None:
    """Namespaces, host name, loopback, CPUs, user, capabilities, filter, environment, deadline."""
    plan = replace(
        PLAIN, cpus=(0, 1, 2), namespaces=("pid", "net"), hostname="box", loopback=True, uid=0, gid=5,
        capabilities=(0, 10), no_new_privs=True, seccomp_fd=9, env={"A": "b c"}, cwd="/data",
        announce=True, gate_fd=8, deadline_ms=1500,
    )  # fmt: skip
    assert after_report(plan) == [
        "--cpus", "0-2", "--unshare-pid", "--unshare-net", "--hostname", "box", "--loopback", "--chroot", "/image",
        "--uid", "0", "--gid", "5", "--cap-keep", "0,10", "--no-new-privs", "--seccomp", "9",
        "--chdir", "/data", "--clearenv", "--setenv", "A=b c", "--ready", "3", "--announce", "--gate", "8",
        "--deadline", "1500",
        "--", "/bin/true", "-x",
    ]  # fmt: skip


def test_no_capability_is_not_the_same_as_all() -> None:
    """An empty list drops all of them, none given keeps them."""
    words = after_report(replace(PLAIN, capabilities=()))
    assert words[words.index("--cap-keep") + 1] == ""
    assert "--cap-keep" not in after_report(PLAIN)


def test_a_command_that_looks_like_an_option_stays_a_command() -> None:
    """It comes after ``--``."""
    words = after_report(replace(PLAIN, command=("--help",)))
    assert words[-2:] == ["--", "--help"]


REPORT = b"""\
read 12 /cg/cpu/a/cpu.stat
nr 1
end 0 x

requested 1000
stage cgroups 1100
stage exec 1300
applied cpus 0-1
applied no_new_privs 1
end exit 7
"""


def test_a_report_is_read_whole() -> None:
    """Stamps, files by their length (whatever is in them), what was applied, the end."""
    report = parse_report(REPORT)
    assert report.requested_ns == 1000
    assert report.stages == {"cgroups": 1100, "exec": 1300}
    assert report.files == {"/cg/cpu/a/cpu.stat": "nr 1\nend 0 x"}
    assert report.applied == {"cpus": "0-1", "no_new_privs": "1"}
    assert (report.end, report.detail) == ("exit", "7")


def test_the_line_that_was_announced_does_not_disturb() -> None:
    """``ready NS`` is written at once, the rest at the end."""
    assert parse_report(b"ready 1250\n" + REPORT) == parse_report(REPORT)


@pytest.mark.parametrize("kind", ["exit", "signal", "timeout", "killed", "error"])
def test_each_kind_of_end_is_told_apart(kind: str) -> None:
    """With its detail as it is written, spaces included."""
    report = parse_report(f"requested 1\nend {kind} a b\n".encode())
    assert (report.end, report.detail) == (kind, "a b")


@given(st.integers(0, len(REPORT) - 1))
def test_a_report_that_is_cut_off_anywhere_is_no_report(length: int) -> None:
    """The launcher was killed while it wrote: no half of it is believed."""
    with pytest.raises(EnvironmentFailure, match="without a report") as error:
        parse_report(REPORT[:length])
    assert error.value.hint


def test_bytes_that_are_no_text_do_not_stop_the_reader() -> None:
    """A cgroup file or a path may hold anything."""
    report = parse_report(b"read 2 /cg/\xff\n\xfe\xfe\nrequested 1\nend error \xff\n")
    assert report.detail == "�"
    assert list(report.files.values()) == ["��"]
