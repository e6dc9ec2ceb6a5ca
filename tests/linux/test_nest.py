"""Groups around another program's: which there are, what they say after it, and that nothing of them stays."""

from pathlib import Path
from typing import Final

import pytest

from benchbox.linux import nest
from benchbox.linux.cgroups import Layout, Limits, Write
from benchbox.linux.nest import Hierarchies, Nest

V1: Final = Hierarchies(
    Layout("v1", {name: Path("/sys/fs/cgroup", name) for name in ("cpuset", "cpu", "memory", "pids")}),
    tuple(Path("/sys/fs/cgroup", name) for name in ("cpuset", "cpu", "memory", "pids", "devices", "systemd")),
)
V2: Final = Hierarchies(
    Layout("v2", {}, Path("/sys/fs/cgroup"), ("cpuset", "cpu", "memory", "pids")), (Path("/sys/fs/cgroup"),)
)
LIMITS: Final = Limits(64 << 20, 40, 0.5)


def planned(where: Hierarchies, *, runtime: bool = True) -> Nest:
    return nest.plan(where, "benchbox-1", "oci-s1", LIMITS, (1,), "0", runtime=runtime)


def test_limits_are_those_of_the_inner_group_alone() -> None:
    """The runtime is accounted, not limited."""
    for where in (V1, V2):
        found = planned(where)
        limits = {write.file for group in found.box.groups for write in group.writes}
        assert limits & {"memory.max", "memory.limit_in_bytes"}
        assert limits & {"cpu.max", "cpu.cfs_quota_us"}
        for plan in (found.outer, found.runtime):
            assert plan.groups
            others = {write.file for group in plan.groups for write in group.writes}
            assert not others & {"memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us"}
        assert "cpuset.cpus" in {write.file for group in found.outer.groups for write in group.writes}


def test_on_v2_no_group_with_groups_below_it_has_processes() -> None:
    """The kernel refuses controllers there: the runtime has a group beside the box."""
    found = planned(V2)
    paths = [plan.groups[0].path for plan in (found.outer, found.box, found.runtime)]
    assert paths == [Path("/sys/fs/cgroup/benchbox-1/oci-s1", name) for name in ("", "box", "runtime")]
    enabled = Write("cgroup.subtree_control", "+cpuset +cpu +memory +pids")
    assert [enabled in plan.groups[0].writes for plan in (found.outer, found.box, found.runtime)] == [True, True, False]


def test_on_v1_memory_is_counted_with_that_of_groups_below() -> None:
    """Before Linux 5.11 only if it is asked for, and before anything is below."""
    for plan in (planned(V1).outer, planned(V1).box):
        (memory,) = [group for group in plan.groups if "/memory/" in f"{group.path}/"]
        assert memory.writes[0] == Write("memory.use_hierarchy", "1", optional=True)


def test_on_v1_a_runtime_is_in_the_groups_that_count_alone() -> None:
    """A share of the CPUs of its own would hold it back on a busy host."""
    assert [group.path.parent.parent.parent.name for group in planned(V1).runtime.groups] == ["memory"]


def test_a_program_is_told_where_from_the_mount_point_on() -> None:
    """Also inside of a group that was delegated."""
    assert planned(V1).path == planned(V2).path == "/benchbox-1/oci-s1/box"
    home = Hierarchies(Layout("v2", {}, Path("/sys/fs/cgroup/a/b"), (), True), (Path("/sys/fs/cgroup"),), "/a/b")
    assert planned(home).path == "/a/b/benchbox-1/oci-s1/box"
    assert planned(home).folders == (Path("/sys/fs/cgroup/a/b/benchbox-1/oci-s1"),)


def test_without_a_runtime_nothing_of_ours_runs_in_them() -> None:
    """A daemon's containers come from elsewhere."""
    assert planned(V2, runtime=False).runtime.groups == ()


def test_every_hierarchy_is_found_also_those_that_we_do_not_use() -> None:
    """By what is mounted, once each."""
    mountinfo = """\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
33 30 0:28 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
34 30 0:29 / /mnt/a\\040b rw - cgroup cgroup rw,memory
"""
    assert nest.mount_points(mountinfo) == (
        Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/devices"), Path("/mnt/a b"),
    )  # fmt: skip


def test_a_plan_for_any_name_becomes_that_for_one() -> None:
    """The same as if it had been planned for it."""
    for where in (V1, V2):
        for runtime in (True, False):
            anyone = nest.plan(where, "benchbox-1", nest.ANY, LIMITS, (1,), "0", runtime=runtime)
            assert nest.named(anyone, "oci-s1") == planned(where, runtime=runtime)


def never() -> int:
    raise AssertionError("the host need not be asked")


def texts(plan_path: str, **files: str) -> dict[str, str]:
    return {f"{plan_path}/{name.replace('__', '.')}": text for name, text in files.items()}


def test_what_a_limit_does_is_read_where_the_limit_is() -> None:
    """The rest of the account is that of everything."""
    outer = texts(
        "/sys/fs/cgroup/benchbox-1/oci-s1", cpu__stat="usage_usec 3000000\nthrottled_usec 0\n", memory__peak="9"
    )
    box = texts(
        "/sys/fs/cgroup/benchbox-1/oci-s1/box",
        cpu__stat="usage_usec 1000000\nthrottled_usec 700000\n",
        cpu__max="50000 100000",
        memory__max="67108864",
        memory__events="oom_kill 1\n",
    )
    found = nest.seen(planned(V2), outer, box, never)
    values = {counter.name: counter.value for counter in found.counters}
    assert values == {"cpu.usage": 3.0, "memory.peak": 9, "cpu.throttled": 0.7, "memory.oom_kills": 1}
    assert len(found.counters) == len(values)
    assert found.applied == {"memory_bytes": 64 << 20, "cpu_quota": 0.5}
    assert found.ran


@pytest.mark.parametrize(("peak", "host_killed", "kills"), [(64 << 20, 2, 2), (64 << 20, 0, 0), (32 << 20, 2, 0)])
def test_on_v1_a_kill_is_the_host_s_if_this_group_was_full(peak: int, host_killed: int, kills: int) -> None:
    """The kernel counts it in the group of the killed process alone, which has gone."""
    box = texts(
        "/sys/fs/cgroup/memory/benchbox-1/oci-s1/box",
        memory__limit_in_bytes=str(64 << 20),
        memory__max_usage_in_bytes=str(peak),
        memory__oom_control="oom_kill_disable 0\noom_kill 0\n",
    )
    found = nest.seen(planned(V1), {}, box, lambda: host_killed)
    (counter,) = [counter for counter in found.counters if counter.name == "memory.oom_kills"]
    assert counter.value == kills
    assert "vmstat" in counter.source


def test_a_box_that_used_no_time_of_a_cpu_has_seen_nothing() -> None:
    """Whatever else was charged to it for being made."""
    box = texts(
        "/sys/fs/cgroup/benchbox-1/oci-s1/box", cpu__stat="usage_usec 0\n", memory__max="67108864", memory__peak="4096"
    )
    assert not nest.seen(planned(V2), {}, box, never).ran


def test_the_host_s_kills_are_a_number_even_where_the_kernel_tells_none(tmp_path: Path) -> None:
    """Linux counts them since 4.13."""
    assert nest.oom_kills_of_host(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 12\noom_kill 34\n")
    assert nest.oom_kills_of_host(tmp_path) == 34
