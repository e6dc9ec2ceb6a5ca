"""cgroups of all three kinds, on trees recorded from real systems of each."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups
from benchbox.linux.cgroups import CgroupPlan, Group, Layout, Limits, Write
from benchbox.model import Counter
from tests.folders import nested
from tests.linux import recordings

#: What the recorded groups were limited to, by hand, with the files of each kind.
LIMITS = Limits(memory_bytes=256 << 20, pids=512, cpu_quota=0.5)
V1 = Path("/sys/fs/cgroup")


@pytest.fixture(params=recordings.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def layout(kind: str, tmp_path: Path) -> Layout:
    return cgroups.detect(recordings.unpack(kind, tmp_path))


def recorded_plan(layout: Layout, cpus: tuple[int, ...] = (0,)) -> CgroupPlan:
    return cgroups.plan(layout, "", "benchbox-recorded", LIMITS, cpus)


def account(kind: str, layout: Layout, **changed: str) -> dict[str, Counter]:
    """Return the counters of the recorded group, the files named by ``changed`` with another text."""
    return {item.name: item for item in cgroups.counters(recorded_plan(layout), texts(kind, changed))}


def texts(kind: str, changed: dict[str, str]) -> dict[str, str]:
    names = {name.replace("_", "."): text for name, text in changed.items()}
    return {path: names.get(Path(path).name, text) for path, text in recordings.read(kind).items()}


EXPECTED_LAYOUT: dict[str, Any] = {
    "v1": (("cpuset", "cpu,cpuacct", "memory", "pids", "blkio"), ()),
    "v2": (("",), ("cpuset", "cpu", "memory", "pids", "io")),
    "hybrid": (("cpuset", "cpu", "memory", "pids", "blkio", "unified"), ()),
}


def test_the_kind_of_a_system_is_detected(kind: str, layout: Layout) -> None:
    """Mode, hierarchies in the order of their making, and the controllers of the v2 tree."""
    folders, controllers = EXPECTED_LAYOUT[kind]
    assert layout.mode == kind
    assert [str(path.relative_to(V1)) for path in layout.roots()] == [folder or "." for folder in folders]
    assert layout.v2_controllers == controllers


def test_a_hierarchy_of_two_controllers_is_joined_once(tmp_path: Path) -> None:
    """cpu and cpuacct are often mounted together: one group, with the files of both."""
    layout = cgroups.detect(recordings.unpack("v1", tmp_path))
    (group,) = [group for group in recorded_plan(layout).groups if "cpuacct" in str(group.path)]
    assert group.reads == ("cpu.stat", "cpu.cfs_quota_us", "cpuacct.usage", "cpuacct.stat")
    assert group.writes == (Write("cpu.cfs_quota_us", "50000"),)


def test_a_mount_point_with_a_space_is_understood() -> None:
    """mountinfo writes it in octal, proc_pid_mountinfo(5)."""
    found = cgroups.parse_mountinfo("30 1 0:1 / /sys/fs/my\\040groups rw shared:9 - cgroup2 cgroup2 rw\n")
    assert found.v2 == Path("/sys/fs/my groups")


def test_no_cgroups_at_all_is_a_kind_of_its_own(tmp_path: Path) -> None:
    """A system without them is unavailable, with what to do."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    found = cgroups.detect(tmp_path)
    assert found == Layout("none")
    offer = cgroups.availability(found, Limits())
    assert (offer.available, offer.fix) == (False, "mount cgroup2 at /sys/fs/cgroup")


def test_limits_are_planned_with_the_names_of_each_kind(kind: str, layout: Layout) -> None:
    """Every limit is written, each to the file that this kind of system has for it."""
    written = {write.file: write.value for group in recorded_plan(layout).groups for write in group.writes}
    v1 = {"cpuset.mems": "0", "cpu.cfs_quota_us": "50000"}
    v1 |= {"memory.limit_in_bytes": "268435456", "memory.memsw.limit_in_bytes": "268435456"}
    v2 = {"cpu.max": "50000 100000", "memory.max": "268435456", "memory.swap.max": "0"}
    assert written == {"cpuset.cpus": "0", "pids.max": "512", **(v2 if kind == "v2" else v1)}


def test_a_v1_cpuset_has_memory_before_cpus(tmp_path: Path) -> None:
    """A v1 cpuset without memory nodes cannot be joined."""
    layout = cgroups.detect(recordings.unpack("v1", tmp_path))
    group = cgroups.plan(layout, "base", "leaf", LIMITS, (1, 2), mems="0-1").groups[0]
    assert group.path == V1 / "cpuset/base/leaf"
    assert group.writes == (Write("cpuset.mems", "0-1"), Write("cpuset.cpus", "1-2"))


def test_no_limit_is_nothing_written(kind: str, layout: Layout) -> None:
    """What is not limited is left to the host; only the CPUs are always named."""
    plan = cgroups.plan(layout, "base", "leaf", Limits(), (0,))
    assert {write.file for group in plan.groups for write in group.writes} <= {"cpuset.cpus", "cpuset.mems"}


def test_the_v2_group_is_made_last(tmp_path: Path) -> None:
    """So a command that is born in it has joined nothing else before."""
    layout = cgroups.detect(recordings.unpack("hybrid", tmp_path))
    versions = [group.version for group in recorded_plan(layout).groups]
    assert versions == [1, 1, 1, 1, 1, 2]
    assert recorded_plan(layout).join_files[-1] == V1 / "unified/benchbox-recorded/cgroup.procs"
    assert recorded_plan(layout).join_files[0].name == "tasks"


def test_what_was_applied_is_read_back(kind: str, layout: Layout) -> None:
    """The limits that were set by hand on the recorded system are found in its files."""
    changed = {"cpuset_cpus": "0\n"}  # the v1 recordings hold all CPUs of their system
    found = cgroups.applied(recorded_plan(layout), texts(kind, changed))
    assert found == {"cpus": "0", "memory_bytes": 256 << 20, "pids": 512, "cpu_quota": 0.5}


def test_no_limit_is_read_back_as_none(kind: str, layout: Layout) -> None:
    """Each kind has its own word for unlimited."""
    v1 = {"memory_limit_in_bytes": "9223372036854771712\n", "cpu_cfs_quota_us": "-1\n"}
    changed = {"memory_max": "max\n", "cpu_max": "max 100000\n"} if kind == "v2" else v1
    names = {name.replace("_", ".", 1): text for name, text in changed.items()} | {"pids.max": "max\n"}
    plain = {path: names.get(Path(path).name, text) for path, text in recordings.read(kind).items()}
    found = cgroups.applied(recorded_plan(layout), plain)
    assert (found["memory_bytes"], found["pids"], found["cpu_quota"]) == (None, None, None)


def test_a_limit_that_nobody_enforces_is_not_called_applied() -> None:
    """Without a controller there is no file, and no word about that limit."""
    assert cgroups.applied(recorded_plan(Layout("v2", v2=V1)), {}) == {}


def test_the_account_names_its_sources(kind: str, layout: Layout) -> None:
    """The same counters on each kind of system, each with the interface that it was read from."""
    found = account(kind, layout)
    assert found["cpu.usage"].source == ("cgroup1 cpuacct.usage" if kind == "v1" else "cgroup2 cpu.stat usage_usec")
    assert found["cpu.throttled"].source.startswith("cgroup2" if kind == "v2" else "cgroup1")
    assert found["memory.peak"].source == (
        "cgroup2 memory.peak" if kind == "v2" else "cgroup1 memory.max_usage_in_bytes"
    )
    assert ("pressure.cpu" in found) is (kind != "v1")
    assert found["memory.oom_kills"] == Counter(
        "memory.oom_kills",
        0,
        "1",
        f"cgroup{2 if kind == 'v2' else 1} memory.{'events' if kind == 'v2' else 'oom_control'} oom_kill",
    )


def test_the_account_adds_up(kind: str, layout: Layout) -> None:
    """User and system time make up the usage, all in s; the peak is some memory, below the limit."""
    found = {name: item.value or 0.0 for name, item in account(kind, layout).items()}
    assert found["cpu.usage"] == pytest.approx(found["cpu.user"] + found["cpu.system"], abs=0.03)
    assert 0.01 < found["cpu.usage"] < 10
    assert 0 < found["memory.peak"] < 256 << 20


def test_throttled_time_is_in_seconds(kind: str, layout: Layout) -> None:
    """v1 counts it in ns, v2 in µs."""
    text = "nr_throttled 2\nthrottled_time 1500000000\n"
    if kind == "v2":
        text = "usage_usec 1\nnr_throttled 2\nthrottled_usec 1500000\n"
    plan = recorded_plan(layout)
    plain = {
        str(group.path / "cpu.stat"): text
        for group in plan.groups
        if "cpu.cfs_quota_us" in group.reads or "cpu.max" in group.reads
    }
    files = recordings.read(kind) | plain
    assert {item.name: item.value for item in cgroups.counters(plan, files)}["cpu.throttled"] == 1.5


def test_bytes_read_from_disk_are_counted_on_v2(tmp_path: Path) -> None:
    """The recorded group read 1 MiB of a disk."""
    found = account("v2", cgroups.detect(recordings.unpack("v2", tmp_path)))
    assert found["io.read"] == Counter("io.read", 1 << 20, "B", "cgroup2 io.stat rbytes")
    assert found["io.write"].value == 0


def test_bytes_of_several_disks_are_added(tmp_path: Path) -> None:
    """io.stat has a line for each."""
    layout = cgroups.detect(recordings.unpack("v2", tmp_path))
    found = account("v2", layout, io_stat="8:0 rbytes=1 wbytes=10 rios=1\n254:0 rbytes=2 wbytes=20 rios=1\n")
    assert (found["io.read"].value, found["io.write"].value) == (3, 30)


def test_a_group_that_did_no_io_did_zero_bytes(tmp_path: Path) -> None:
    """A v2 group that has not touched a disk has an empty io.stat: that is 0, not unknown."""
    group = Group(tmp_path / "leaf", 2, reads=("io.stat", "missing"))
    group.path.mkdir()
    (group.path / "io.stat").touch()
    plan = cgroups.CgroupPlan((group,))
    assert cgroups.read(plan) == {str(group.path / "io.stat"): ""}
    assert {item.name: item.value for item in cgroups.counters(plan, cgroups.read(plan))} == {
        "io.read": 0, "io.write": 0,
    }  # fmt: skip


def test_v1_is_not_believed_that_nothing_was_read(tmp_path: Path) -> None:
    """The recorded v1 group read 1 MiB, and its kernel counted 0: such a number is no number."""
    layout = cgroups.detect(recordings.unpack("v1", tmp_path))
    assert account("v1", layout)["io.read"].value is None
    path = "/sys/fs/cgroup/blkio/benchbox-recorded/blkio.throttle.io_service_bytes"
    files = recordings.read("v1") | {path: "8:0 Read 4096\n8:0 Write 512\nTotal 4608\n"}
    found = {item.name: item.value for item in cgroups.counters(recorded_plan(layout), files)}
    assert (found["io.read"], found["io.write"]) == (4096, None)


def test_out_of_memory_kills_are_counted(kind: str, layout: Layout) -> None:
    """By the kernel's own counter."""
    changed = {"memory_events": "low 0\noom 2\noom_kill 3\noom_group_kill 0\n"}
    name = "memory.events" if kind == "v2" else "memory.oom_control"
    plain = {
        path: changed["memory_events"] if path.endswith(name) else text for path, text in recordings.read(kind).items()
    }
    assert cgroups.oom_kills(cgroups.counters(recorded_plan(layout), plain)) == 3


def test_a_file_that_a_kernel_lacks_is_left_out(kind: str, layout: Layout) -> None:
    """Nothing is invented for it."""
    assert cgroups.counters(recorded_plan(layout), {}) == ()


SERVICE = "sys/fs/cgroup/system.slice/bench.service"


def delegate(root: Path, monkeypatch: pytest.MonkeyPatch, processes: str, own: str = "") -> Path:
    """Make of the recorded v2 system one whose SERVICE is delegated; this process is in its subgroup ``own``."""
    recordings.unpack("v2", root)
    service = root / SERVICE
    (service / own).mkdir(parents=True)
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    (service / "cgroup.procs").write_text(processes)
    (root / "proc/self/cgroup").write_text(f"0::/system.slice/bench.service/{own}\n".replace("/\n", "\n"))
    marked = {(service, "trusted.delegate"): b"1"}

    def getxattr(path: Path, name: str) -> bytes:
        if (path, name) not in marked:
            raise OSError(61, "No data available")
        return marked[path, name]

    monkeypatch.setattr(os, "getxattr", getxattr)
    return service


@pytest.mark.parametrize(
    ("processes", "own"), [(f"{os.getpid()}\n", ""), ("", "benchbox-1-supervisor")], ids=["with us in it", "empty"]
)
def test_a_delegated_group_is_where_groups_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str, own: str
) -> None:
    """The one that systemd has left to us alone, seen from itself and from the place that the supervisor goes to."""
    delegate(tmp_path, monkeypatch, processes, own)
    layout = cgroups.detect(tmp_path)
    assert (layout.mode, layout.v2, layout.delegated) == ("v2", Path("/", SERVICE), True)
    assert layout.v2_controllers == ("cpu", "memory", "pids")


def test_without_delegation_groups_are_made_in_the_root_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any login and any plain service: systemd would not let us have limits in their groups."""
    delegate(tmp_path, monkeypatch, "1\n", "sub/of/it")
    layout = cgroups.detect(tmp_path)
    assert (layout.v2, layout.delegated) == (Path("/sys/fs/cgroup"), False)


def test_a_delegated_group_with_others_in_it_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may not use the whole tree instead is told who they are and how to be alone."""
    service = delegate(tmp_path, monkeypatch, f"{os.getpid()}\n4711\n")
    assert cgroups.detect(tmp_path).v2 == Path("/sys/fs/cgroup")
    monkeypatch.setattr(os, "access", lambda path, mode: path == service)
    found = cgroups.detect(tmp_path)
    assert found.delegated
    offer = cgroups.availability(replace(found, v2=service), Limits())
    assert "other processes are in it: 4711" in (offer.reason or "")
    assert "systemd-run --scope -p Delegate=yes" in (offer.fix or "")


def test_a_place_outside_of_what_is_mounted_is_not_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container sees the path of its group with ``..`` in it, or one that is not there."""
    delegate(tmp_path, monkeypatch, "")
    for path in ("0::/../bench.service\n", "0::/not/there\n", ""):
        (tmp_path / "proc/self/cgroup").write_text(path)
        assert not cgroups.detect(tmp_path).delegated


def test_who_is_in_a_delegated_group_steps_aside_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way back the controllers are given back first: a group with limits below it takes no process."""
    written: list[tuple[str, str]] = []
    home = tmp_path / "home"
    home.mkdir()
    (home / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (home / "cgroup.subtree_control").write_text("cpu memory\n")
    layout = Layout("v2", v2=home, delegated=True)

    def write(path: Path, value: str) -> None:
        written.append((str(path.relative_to(home)), value))

    monkeypatch.setattr(cgroups, "_write", write)
    folder = cgroups.refuge(layout, "benchbox-1-supervisor")
    assert folder == home / "benchbox-1-supervisor"
    cgroups.step_aside(folder)
    monkeypatch.setattr(cgroups, "_is_in", lambda place: place == folder)
    cgroups.step_back(folder)
    assert written == [
        ("benchbox-1-supervisor/cgroup.procs", "0"),
        ("cgroup.subtree_control", "-cpu -memory"),
        ("cgroup.procs", "0"),
    ]
    assert not folder.exists()


def test_nobody_steps_aside_where_nobody_is_in_the_way(tmp_path: Path) -> None:
    """Neither in the root of the tree, which may have both, nor in a delegated group that we are not in ourselves."""
    (tmp_path / "cgroup.procs").write_text("4711\n")
    assert cgroups.refuge(Layout("v2", v2=tmp_path, delegated=True), "x") is None
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert cgroups.refuge(Layout("v2", v2=tmp_path), "x") is None


@pytest.mark.parametrize(
    ("layout", "limits", "words"),
    [
        (Layout("v2", v2=Path("/"), v2_controllers=("cpu",)), Limits(memory_bytes=1), "controller memory"),
        (Layout("v2", v2=Path("/"), v2_controllers=("memory",)), Limits(cpu_quota=0.5), "controller cpu "),
        (Layout("v2", v2=Path("/nowhere")), Limits(), "no permission"),
    ],
)
def test_what_cannot_be_limited_is_said_beforehand(layout: Layout, limits: Limits, words: str) -> None:
    """With the name of the missing piece and what to do."""
    offer = cgroups.availability(layout, limits)
    assert not offer.available
    assert words in f"{offer.reason} "
    assert offer.fix


def test_preparing_hands_controllers_and_memory_nodes_down(kind: str, layout: Layout, tmp_path: Path) -> None:
    """v2: controllers are enabled for what is below; a v1 cpuset gets what its parent has before it can be joined."""
    roots = {name: tmp_path / path.relative_to("/") for name, path in layout.v1.items()}
    here = Layout(
        layout.mode, roots, tmp_path / layout.v2.relative_to("/") if layout.v2 else None, layout.v2_controllers
    )
    for root in here.roots():
        (root / "base").mkdir()
        for name in ("cpuset.cpus", "cpuset.mems", "cgroup.subtree_control"):
            (root / "base" / name).touch()
    if kind != "v2":
        (roots["cpuset"] / "cpuset.mems").write_text("0-1\n")
        (roots["cpuset"] / "cpuset.cpus").write_text("0-3\n")
    mems = cgroups.prepare(here, "base")
    if kind == "v2":
        assert here.v2
        assert (here.v2 / "base/cgroup.subtree_control").read_text() == "+cpuset +cpu +memory +pids +io"
    else:
        assert mems == "0-1"
        assert (roots["cpuset"] / "base/cpuset.cpus").read_text() == "0-3"


def test_a_group_is_made_limited_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of a plan go to its files; the file that is optional and missing is passed over."""
    real_mkdir = Path.mkdir

    def mkdir(path: Path) -> None:  # a kernel makes the files of a group with it
        real_mkdir(path)
        (path / "memory.max").touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    writes = (Write("memory.max", "4096"), Write("memory.swap.max", "0", optional=True))
    plan = CgroupPlan((Group(tmp_path / "leaf", 2, writes, ("memory.max", "memory.peak")),))
    cgroups.make(plan)
    assert cgroups.read(plan) == {str(tmp_path / "leaf/memory.max"): "4096"}


def test_a_limit_that_cannot_be_written_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    """And no such file is made in its place."""
    plan = CgroupPlan((Group(tmp_path / "leaf", 2, (Write("memory.max", "1"),)),))
    with pytest.raises(EnvironmentFailure, match=r"leaf/memory\.max: no such cgroup file"):
        cgroups.make(plan)
    assert list((tmp_path / "leaf").iterdir()) == []


def test_removing_takes_the_deepest_first(tmp_path: Path) -> None:
    """A group that has groups in it goes with them; one that is gone is no error."""
    (tmp_path / "base/leaf/deeper").mkdir(parents=True)
    cgroups.remove_tree(tmp_path / "base")
    assert not (tmp_path / "base").exists()
    cgroups.remove_tree(tmp_path / "base")


def test_removing_goes_on_where_somebody_else_removes_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OCI runtime whose container was killed removes its own group; those around it are still ours to remove."""
    base = tmp_path / "base"
    (base / "leaf").mkdir(parents=True)
    monkeypatch.setattr(cgroups, "_walk_up", lambda folder: iter((base / "leaf/gone", base / "leaf", base)))
    cgroups.remove_tree(base)
    assert not base.exists()


def test_a_busy_group_is_named_with_who_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time is over, not before: a killed process leaves its group late."""
    tries: list[Path] = []

    def busy(path: Path) -> None:
        tries.append(path)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    killed: list[int] = []
    monkeypatch.setattr(Path, "rmdir", busy)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    monkeypatch.setattr(cgroups, "kill_tree", kill_one_by_one(cgroups.kill_tree, tmp_path))
    (tmp_path / "cgroup.procs").write_text("4711\n0\n")
    with pytest.raises(EnvironmentFailure, match=r"processes in it: 4711"):
        cgroups.remove_tree(tmp_path, timeout_s=0.01)
    assert len(tries) > 1
    assert set(killed) == {4711}


def kill_one_by_one(real: Callable[[Path], None], folder: Path) -> Callable[[Path], None]:
    """Return ``real`` for a system without cgroup.kill: a file cannot stand in for it, because it would be made."""

    def kill(path: Path) -> None:
        (folder / "cgroup.kill").mkdir(exist_ok=True)  # cannot be written
        real(path)

    return kill


def test_groups_that_are_nested_deep_are_removed(tmp_path: Path) -> None:
    """Whoever may make groups in its own may make many, one in another."""
    nested(tmp_path / "group", 1500)
    cgroups.remove_tree(tmp_path / "group")
    assert list(tmp_path.iterdir()) == []
