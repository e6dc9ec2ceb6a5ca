"""Groups made by this process (as for a whole QEMU), on the real kernel, whatever kind it has."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups
from benchbox.linux.cgroups import CgroupPlan, Layout, Limits
from benchbox.model import Availability

pytestmark = pytest.mark.integration

BASE = f"benchbox-test-{os.getpid()}"
LIMITS = Limits(memory_bytes=64 << 20, pids=20, cpu_quota=0.5)


@pytest.fixture
def layout(need: Callable[[str, Availability], None]) -> Layout:
    found = cgroups.detect()
    need("container", cgroups.availability(found, LIMITS))
    return found


@pytest.fixture
def plan(layout: Layout) -> Iterator[CgroupPlan]:
    """A group in each hierarchy, limited, and gone in the end."""
    cpus = (max(os.sched_getaffinity(0)),)
    found = cgroups.plan(layout, BASE, "leaf", LIMITS, cpus, cgroups.prepare(layout, BASE))
    cgroups.make(found)
    try:
        yield found
    finally:
        for root in layout.roots():
            cgroups.remove_tree(root / BASE)


def member(plan: CgroupPlan, script: str) -> "subprocess.Popen[bytes]":
    """Start ``script`` in all groups of ``plan``."""
    joins = "; ".join(f"echo 0 > {file}" for file in plan.join_files)
    return subprocess.Popen(["sh", "-c", f"{joins}; {script}"])


def test_limits_are_in_force_as_written(plan: CgroupPlan) -> None:
    """Read back from the kernel."""
    found = cgroups.applied(plan, cgroups.read(plan))
    assert found == {
        "cpus": str(max(os.sched_getaffinity(0))), "memory_bytes": 64 << 20, "pids": 20, "cpu_quota": 0.5,
    }  # fmt: skip


def test_what_a_process_uses_is_counted(plan: CgroupPlan) -> None:
    """CPU time and memory of a process that joined."""
    assert member(plan, "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done").wait() == 0
    found = {counter.name: counter for counter in cgroups.counters(plan, cgroups.read(plan))}
    assert 0.002 < (found["cpu.usage"].value or 0) < 5
    assert (found["memory.peak"].value or 0) > 4096
    assert found["memory.oom_kills"].value == 0


def test_killing_ends_all_that_is_in_a_group(plan: CgroupPlan) -> None:
    """Its daemons too."""
    process = member(plan, "setsid sleep 100 & sleep 100 & wait")
    deadline = time.monotonic() + 5
    while len(cgroups.processes(plan.groups[-1].path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    cgroups.kill(plan)
    assert process.wait(5) == -9
    while any(cgroups.processes(group.path) for group in plan.groups) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert [cgroups.processes(group.path) for group in plan.groups] == [()] * len(plan.groups)


def test_removing_ends_what_is_still_inside(plan: CgroupPlan) -> None:
    """At once, with groups below as well."""
    process = member(plan, "sleep 100")
    deadline = time.monotonic() + 5
    while not all(cgroups.processes(group.path) for group in plan.groups) and time.monotonic() < deadline:
        time.sleep(0.002)
    for group in plan.groups:
        if group.version == 1:
            (group.path / "below").mkdir()
    cgroups.remove(plan)
    assert not any(group.path.exists() for group in plan.groups)
    assert process.wait(5) == -9


def test_a_tree_of_v1_is_ended_without_cgroup_kill(layout: Layout) -> None:
    """One process after the other, as long as it takes."""
    root = layout.v1.get("pids")
    if root is None:
        pytest.skip("no v1 hierarchy here")
    plan = CgroupPlan((cgroups.Group(root / BASE, 1),))
    cgroups.make(plan)
    process = member(plan, "sleep 100 & sleep 100 & wait")
    deadline = time.monotonic() + 5
    while len(cgroups.processes(root / BASE)) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    cgroups.remove(plan)
    assert process.wait(5) == -9
    assert not (root / BASE).exists()


def test_preparing_twice_is_preparing_once(layout: Layout) -> None:
    """Each session of a run does it."""
    try:
        assert cgroups.prepare(layout, BASE) == cgroups.prepare(layout, BASE)
    finally:
        for root in layout.roots():
            cgroups.remove_tree(root / BASE)


def test_a_limit_that_the_kernel_refuses_names_its_file(layout: Layout, plan: CgroupPlan) -> None:
    """With value and reason; the groups that were made are removed like any others."""
    bad = cgroups.plan(layout, BASE, "bad", LIMITS, (4000,), "0")
    with pytest.raises(EnvironmentFailure, match=r"cpuset\.cpus: cannot write '4000': "):
        cgroups.make(bad)


def test_a_fresh_group_has_no_account(plan: CgroupPlan) -> None:
    """Zeros, not the numbers of whatever was there before."""
    found = {counter.name: counter.value for counter in cgroups.counters(plan, cgroups.read(plan))}
    assert found["cpu.usage"] == 0
    assert found["cpu.throttled"] == 0


def test_this_process_is_never_moved(plan: CgroupPlan) -> None:
    """Neither by making groups nor by reading them."""
    assert os.getpid() not in {pid for group in plan.groups for pid in cgroups.processes(group.path)}
