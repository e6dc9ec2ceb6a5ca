"""How a launcher's report becomes a judged outcome: pure."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchbox.environments.launched import (
    LaunchedCommand,
    LaunchedSession,
    Requested,
    choose_cpus,
    instance_limits,
    outcome,
)
from benchbox.errors import EnvironmentFailure
from benchbox.linux.cgroups import CgroupPlan, Group, Limits
from benchbox.linux.launch import LaunchPlan, Report, Root
from benchbox.model import Command, Outcome, Resources, Workspace

RESOURCES = Resources(memory_bytes=4096, pids=9)
REQUESTED = Requested.of(instance_limits(RESOURCES), (0,))
GROUP = Group(Path("/cg"), 2, (), ("memory.max", "memory.events", "pids.max", "cpuset.cpus", "cpu.stat"))
PLAN = LaunchPlan(("/bin/ready",), Root("chroot", Path("/")), CgroupPlan((GROUP,)), deadline_ms=2500)
FILES = {
    "/cg/memory.max": "4096\n",
    "/cg/pids.max": "9\n",
    "/cg/cpuset.cpus": "0\n",
    "/cg/memory.events": "oom_kill 0\n",
}
APPLIED = {"cpus": "0", "capabilities": "0", "no_new_privs": "1", "seccomp": "0", "namespaces": "cgroup pid"}
REPORT = Report(1000, {"exec": 1500, "ready": 2000, "exited": 2500}, FILES, APPLIED, "exit", "0")


def judged(report: Report = REPORT, plan: LaunchPlan = PLAN, **files: str) -> Outcome:
    changed = {f"/cg/{name.replace('_', '.', 1)}": text for name, text in files.items()}
    return outcome(replace(report, files={**report.files, **changed}), plan, REQUESTED, 70, b"out")


def test_a_good_report_is_a_good_outcome() -> None:
    """With all that it holds."""
    found = judged()
    assert (found.status, found.reason, found.exit_code, found.signal) == ("ok", None, 0, None)
    assert (found.requested_ns, found.spawn_ns, found.output_tail) == (1000, 70, b"out")
    assert found.stages == {"exec": 1500, "ready": 2000, "exited": 2500}
    assert found.applied == {
        "namespaces": ["cgroup", "pid"],
        "cpus": "0", "memory_bytes": 4096, "pids": 9,
        "affinity": "0", "capabilities": "0", "no_new_privs": True, "seccomp": "off", "user": "root",
    }  # fmt: skip


def test_a_server_that_was_ended_after_it_was_ready_ended_well() -> None:
    """Only then: one that was not ready yet, or was to end by itself, was cut short."""
    ended, staying = replace(REPORT, end="killed", detail=""), replace(PLAN, announce=True)
    found = judged(ended, staying)
    assert (found.status, found.exit_code, found.signal) == ("ok", None, None)
    assert judged(replace(ended, stages={"exec": 1500}), staying).reason == "ended by benchbox"
    assert judged(ended).reason == "ended by benchbox"
    assert judged(ended, staying, memory_events="oom_kill 1\n").status == "failed"


@pytest.mark.parametrize(
    ("end", "detail", "reason"),
    [
        ("exit", "7", "exit status 7"),
        ("signal", "11", "killed by SIGSEGV"),
        ("signal", "99", "killed by signal 99"),
        ("timeout", "2501", "not done after 2.5 s, killed"),
        ("killed", "", "ended by benchbox"),
        (
            "error",
            "cannot execute /bin/x: No such file or directory",
            "cannot execute /bin/x: No such file or directory",
        ),
        ("error", "cannot mount proc on /proc: Busy", "launch: cannot mount proc on /proc: Busy"),
    ],
)
def test_each_bad_end_is_a_failure_with_its_reason(end: Any, detail: str, reason: str) -> None:
    """In words that a user understands."""
    found = judged(replace(REPORT, end=end, detail=detail))
    assert (found.status, found.reason) == ("failed", reason)
    assert found.exit_code == (7 if detail == "7" else None)
    assert found.signal == (int(detail) if end == "signal" else None)


@pytest.mark.parametrize(("end", "detail"), [("signal", "9"), ("exit", "0"), ("exit", "137"), ("timeout", "1")])
def test_an_out_of_memory_kill_comes_before_every_other_reason(end: Any, detail: str) -> None:
    """Also where the command hides it behind a good status."""
    found = judged(replace(REPORT, end=end, detail=detail), memory_events="oom_kill 2\n")
    assert found.status == "failed"
    assert (found.reason or "").startswith("out of memory: the kernel killed 2 process")


def test_a_kill_without_a_count_is_not_called_out_of_memory() -> None:
    """Status 137 and SIGKILL prove nothing."""
    found = judged(replace(REPORT, end="signal", detail="9"))
    assert found.reason == "killed by SIGKILL"


def test_a_workload_that_was_to_say_ready_and_did_not_is_invalid() -> None:
    """One that never says it is not asked."""
    silent = replace(REPORT, stages={"exec": 1500})
    assert judged(silent).status == "invalid"
    assert judged(silent, replace(PLAN, signals_ready=False)).status == "ok"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"memory_max": "max\n"}, "memory_bytes: asked for 4096, in force None"),
        ({"memory_max": "8192\n"}, "memory_bytes: asked for 4096, in force 8192"),
        ({"pids_max": "10\n"}, "pids: asked for 9, in force 10"),
        ({"cpuset_cpus": "0-1\n"}, "cpus: asked for 0, in force 0-1"),
    ],
)
def test_another_limit_than_the_one_asked_for_spoils_the_sample(files: Mapping[str, Any], words: str) -> None:
    """It shows in what was applied, and the sample is none."""
    found = judged(**files)
    assert found.status == "invalid"
    assert found.reason == f"a limit is not the one asked for: {words}"


def test_the_kernel_s_rounding_of_memory_is_no_difference() -> None:
    """It rounds down to whole pages."""
    requested = Requested.of(instance_limits(replace(RESOURCES, memory_bytes=10_000)), (0,))
    assert requested.difference({"memory_bytes": 8192}) is None
    assert requested.difference({"memory_bytes": 4096}) is not None
    assert requested.difference({"memory_bytes": 12288}) is not None


def test_a_limit_that_this_host_cannot_read_back_is_no_difference() -> None:
    """It was said before the run that it is not there."""
    assert REQUESTED.difference({}) is None


def test_a_limit_that_was_not_asked_for_is_noticed() -> None:
    """Whoever leaves limits out does not want one in force."""
    requested = Requested.of(Limits(), (0,))
    found = outcome(REPORT, PLAN, requested, 70, b"")
    assert (found.status, found.reason) == (
        "invalid",
        "a limit is not the one asked for: memory_bytes: asked for None, in force 4096",
    )


def test_a_report_of_a_start_that_failed_early_has_no_applied() -> None:
    """The child has told nothing yet."""
    found = judged(replace(REPORT, applied={}, files={}, stages={}, end="error", detail="cannot clone: Busy"))
    assert (found.applied, found.counters, found.reason) == ({}, (), "launch: cannot clone: Busy")


class NoLedger:
    def record(self, kind: str, ident: str) -> None: ...

    def release(self, kind: str, ident: str) -> None: ...


def test_an_environment_gets_the_first_of_its_cpus() -> None:
    """As many as asked for; more than there are is an error that says how many."""
    place = Workspace("r", Path("/s"), Path("/r"), "c", (2, 3), (0, 1), NoLedger())
    assert choose_cpus(Resources(cpus=1), place) == (2,)
    assert choose_cpus(Resources(cpus=2), place) == (2, 3)
    with pytest.raises(EnvironmentFailure, match="asks for 3 CPUs, this host has 2"):
        choose_cpus(Resources(cpus=3), place)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[tuple[LaunchedSession, list[str]]]:
    """Yield a session whose ``launch`` is a script that reports a good end, and what it was asked to prepare."""
    program = tmp_path / "launch"
    report = "requested 9000000000000000000\\nend exit 0\\n"
    program.write_text(f"#!/bin/sh\necho 5\n[ $1 = --report ] && printf '{report}' > /proc/self/fd/$2\nexit 0\n")
    program.chmod(0o755)
    log: list[str] = []

    def plan(command: Command, name: str) -> LaunchPlan:
        log.append(f"plan {name}")
        return PLAN

    yield (
        LaunchedSession(
            plan, REQUESTED, {}, (0,), program, reads=(Path("/image"),), before_first=lambda: log.append("prepare")
        ),
        log,
    )


def test_what_commands_share_is_renewed_only_while_none_runs(idle: tuple[LaunchedSession, list[str]]) -> None:
    """The second of two that overlap finds what the first has left."""
    session, log = idle
    first, second = session.start(Command(("/x",))), session.start(Command(("/x",)))
    first.wait()
    third = session.start(Command(("/x",)))
    second.wait()
    third.wait()
    third.wait()
    session.start(Command(("/x",))).wait()
    assert log == ["prepare", "plan s1", "plan s2", "plan s3", "prepare", "plan s4"]
    assert session.reads() == (Path("/image"),)


def test_a_start_from_several_threads_gets_each_name_once(idle: tuple[LaunchedSession, list[str]]) -> None:
    """Names decide cgroups and layers."""
    session, log = idle
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: session.start(Command(("/x",))).wait(), range(40)))
    assert sorted(entry for entry in log if entry.startswith("plan")) == sorted(f"plan s{n}" for n in range(1, 41))


def test_the_time_at_a_gate_is_no_time_to_start_the_launcher(idle: tuple[LaunchedSession, list[str]]) -> None:
    """It waits for the others there; alone it is told how long that took."""
    session, _ = idle
    alone = session.start(Command(("/x",))).wait()
    assert alone.spawn_ns and alone.spawn_ns > 0
    reader, writer = os.pipe()
    os.close(writer)
    running = session.start(Command(("/x",), gate=reader))
    os.close(reader)
    assert isinstance(running, LaunchedCommand)
    assert running.wait().spawn_ns is None


def test_all_resources_become_limits() -> None:
    """None is forgotten."""
    assert instance_limits(Resources(1, 4096, 9, 0.5)) == Limits(4096, 9, 0.5)


def test_what_the_processes_had_read_is_counted_in_bytes() -> None:
    """The kernel counts blocks of 512; an older launcher says nothing."""
    usage = {"read_blocks": "8", "voluntary_switches": "3", "involuntary_switches": "1"}
    found = judged(replace(REPORT, applied={**REPORT.applied, **usage}))
    counted = {counter.name: counter.value for counter in found.counters}
    assert (counted["process.read"], counted["process.switches.voluntary"]) == (4096, 3)
    assert counted["process.switches.involuntary"] == 1
    assert "process.read" not in {counter.name for counter in judged().counters}
