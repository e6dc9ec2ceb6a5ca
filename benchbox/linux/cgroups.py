"""cgroups v1, v2 and hybrid behind one interface.

``detect`` finds what this host mounts, ``plan`` (pure) says which groups to make, what to write into them and what to
read from them; ``launch`` executes a plan for processes, the functions below execute it for QEMU. A group is made below
a base folder per run, so that one ledger entry a hierarchy covers every sample.

Where a service manager has delegated a v2 group to this process (systemd's ``Delegate=``), groups are made in that one,
else in the tree's root. A v2 group that has processes of its own can limit nothing below it, so the supervisor steps
aside from a group that was delegated to it.

On a hybrid host the controllers sit in v1 hierarchies, and the v2 tree is joined as well: even without controllers it
has ``cgroup.kill``, ``cpu.stat`` and the pressure files.

Sources: Documentation/admin-guide/cgroup-v1/ and Documentation/admin-guide/cgroup-v2.rst of the Linux kernel,
https://systemd.io/CGROUP_DELEGATION.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchbox.errors import EnvironmentFailure
from benchbox.model import Availability, Counter
from benchbox.units import format_cpu_list, parse_cpu_list

Mode = Literal["v1", "v2", "hybrid", "none"]

#: Controllers that a plan uses where they exist, in the order in which they are made and joined.
CONTROLLERS: Final = ("cpuset", "cpu", "cpuacct", "memory", "pids", "blkio")
_V2_CONTROLLERS: Final = ("cpuset", "cpu", "memory", "pids", "io")
_QUOTA_PERIOD_US: Final = 100_000
_DELEGATE: Final = "give benchbox a cgroup of its own: systemd-run --scope -p Delegate=yes benchbox run ..."
_V2_ALWAYS: Final = ("cpu.stat", "cpu.pressure", "io.pressure", "memory.pressure")

_READS_V1: Final[Mapping[str, tuple[str, ...]]] = {
    "cpuset": ("cpuset.cpus",),
    "cpu": ("cpu.stat", "cpu.cfs_quota_us"),
    "cpuacct": ("cpuacct.usage", "cpuacct.stat"),
    "memory": ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    "pids": ("pids.max",),
    "blkio": ("blkio.throttle.io_service_bytes",),
}
_READS_V2: Final[Mapping[str, tuple[str, ...]]] = {
    "cpuset": ("cpuset.cpus",),
    "cpu": ("cpu.max",),
    "memory": ("memory.max", "memory.peak", "memory.events"),
    "pids": ("pids.max",),
    "io": ("io.stat",),
}


@dataclass(frozen=True)
class Layout:
    """What this host mounts: v1 hierarchies by controller, the v2 tree and the controllers it offers there.

    ``v2`` is the group that ours are made in: the tree's root, or the one that was ``delegated`` to this process.
    """

    mode: Mode
    v1: Mapping[str, Path] = field(default_factory=dict)
    v2: Path | None = None
    v2_controllers: tuple[str, ...] = ()
    delegated: bool = False

    def roots(self) -> tuple[Path, ...]:
        """The folder in each hierarchy that a plan makes groups in, each once, the v2 tree last."""
        used = [self.v1[name] for name in CONTROLLERS if name in self.v1 and not self._superseded(name)]
        return tuple(dict.fromkeys([*used, *([self.v2] if self.v2 else [])]))

    def _superseded(self, controller: str) -> bool:
        """cpuacct adds nothing where the v2 tree has ``cpu.stat``, and joining a hierarchy costs start-up time."""
        return controller == "cpuacct" and self.v2 is not None


@dataclass(frozen=True)
class Limits:
    """What to limit; None leaves it to the host."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpu_quota: float | None = None


@dataclass(frozen=True)
class Write:
    """One value for one file of a group, written before anything joins. A missing file is an error unless optional."""

    file: str
    value: str
    optional: bool = False


@dataclass(frozen=True)
class Group:
    """One folder to make in one hierarchy; ``reads`` are its files for the account, missing ones are left out."""

    path: Path
    version: Literal[1, 2]
    writes: tuple[Write, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class CgroupPlan:
    """The groups of one instance, in the order in which they are made and joined (the v2 group last)."""

    groups: tuple[Group, ...]

    @property
    def join_files(self) -> tuple[Path, ...]:
        """The file of each group into which a process of one thread writes ``0`` to join.

        On v1 that is ``tasks``: a thread that moves itself alone does not have to hold up the forks and exits of the
        whole host. ``cgroup.procs`` does, and waits 5 to 20 ms for it after a pause (the writer side of
        cgroup_threadgroup_rwsem needs an RCU grace period, kernel/cgroup/cgroup.c).
        """
        return tuple(group.path / ("tasks" if group.version == 1 else "cgroup.procs") for group in self.groups)


def parse_mountinfo(text: str) -> Layout:
    """Return the layout that /proc/PID/mountinfo shows (proc_pid_mountinfo(5)), still without v2 controllers."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in text.splitlines():
        fields, _, tail = line.partition(" - ")
        mount_point = Path(fields.split()[4].encode().decode("unicode_escape"))
        fs_type, _, super_options = tail.split()[:3]
        if fs_type == "cgroup2":
            v2 = v2 or mount_point
        elif fs_type == "cgroup":
            for controller in set(super_options.split(",")) & set(CONTROLLERS):
                v1.setdefault(controller, mount_point)
    mode: Mode = "hybrid" if v1 and v2 else "v1" if v1 else "v2" if v2 else "none"
    return Layout(mode, v1, v2)


def detect(root: Path = Path("/")) -> Layout:
    """Return the layout of this host (``root`` holds a recorded tree in tests)."""
    found = parse_mountinfo((root / "proc/self/mountinfo").read_text())
    if found.v2 is None:
        return found
    tree = root / found.v2.relative_to("/")
    home = _delegated_to_us(tree, _read_or_empty(root / "proc/self/cgroup")) if found.mode == "v2" else None
    offered = _read_or_empty((home or tree) / "cgroup.controllers").split()
    usable = tuple(name for name in _V2_CONTROLLERS if name in offered and _v1_name(name) not in found.v1)
    v2 = Path("/", home.relative_to(root)) if home else found.v2
    return Layout(found.mode, found.v1, v2, usable, delegated=home is not None)


def _delegated_to_us(tree: Path, membership: str) -> Path | None:
    """Return the group of the v2 tree that was delegated to this process, None for none that it could use.

    That is the one it is in (cgroups(7), /proc/self/cgroup), or the one above: it has stepped aside, or was started in
    a subgroup. One that others are in as well cannot be used; who may use the whole tree does that instead.
    """
    path = next((line.removeprefix("0::/") for line in membership.splitlines() if line.startswith("0::/")), "")
    own = tree / path
    if ".." in Path(path).parts or not own.is_dir():  # outside of our namespace or mount
        return None
    for folder in (own, own.parent):
        if folder != tree and folder.is_relative_to(tree) and _is_delegated(folder):
            return folder if not _others_in(folder) or not os.access(tree, os.W_OK) else None
    return None


def _is_delegated(folder: Path) -> bool:
    """Say whether systemd marks ``folder`` as left to whoever runs in it."""
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _is_in(folder: Path) -> bool:
    return str(os.getpid()) in _read_or_empty(folder / "cgroup.procs").split()


def _others_in(folder: Path) -> list[int]:
    """Return the processes that are in ``folder`` itself, this one excepted."""
    return [pid for pid in map(int, _read_or_empty(folder / "cgroup.procs").split()) if pid != os.getpid()]


def refuge(layout: Layout, name: str) -> Path | None:
    """Return where ``step_aside`` is to go so that groups in ``layout.v2`` can have limits; None if nobody needs to."""
    return layout.v2 / name if layout.delegated and layout.v2 and _is_in(layout.v2) else None


def step_aside(folder: Path) -> None:
    """Make the group ``folder`` and move this process into it. Raises EnvironmentFailure."""
    try:
        folder.mkdir()
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: {error.strerror}", hint=_DELEGATE) from error
    _write(folder / "cgroup.procs", "0")


def step_back(folder: Path) -> None:
    """Undo ``step_aside``, also that of a process that has died; the groups beside ``folder`` are gone already.

    Raises EnvironmentFailure where a group beside it still has limits.
    """
    home = folder.parent
    if _is_in(folder):
        if enabled := _read_or_empty(home / "cgroup.subtree_control").split():
            _write(home / "cgroup.subtree_control", " ".join(f"-{name}" for name in enabled))
        _write(home / "cgroup.procs", "0")
    remove_tree(folder)


def availability(layout: Layout, limits: Limits) -> Availability:
    """Say whether groups with ``limits`` can be made here, changing nothing."""
    if layout.mode == "none":
        return Availability.no("no cgroup file system is mounted", "mount cgroup2 at /sys/fs/cgroup")
    for path in layout.roots():
        if not os.access(path, os.W_OK):
            return Availability.no(f"{path}: no permission to make cgroups", "run as root")
    if layout.delegated and layout.v2 and (others := _others_in(layout.v2)):
        pids = ", ".join(map(str, others))
        return Availability.no(f"{layout.v2} was delegated, but other processes are in it: {pids}", _DELEGATE)
    wanted = {"memory": limits.memory_bytes, "pids": limits.pids, "cpu": limits.cpu_quota}
    for controller, value in wanted.items():
        if value is not None and controller not in layout.v1 and controller not in layout.v2_controllers:
            return Availability.no(
                f"the cgroup controller {controller} is not available",
                f"enable it (kernel option cgroup_enable={controller}, or delegate it to this cgroup)",
            )
    return Availability.yes()


def plan(layout: Layout, base: str, leaf: str, limits: Limits, cpus: tuple[int, ...], mems: str = "0") -> CgroupPlan:
    """Return the groups ``base/leaf`` of one instance, confined to ``cpus`` and ``limits``. Pure."""
    groups = []
    for root in layout.roots():
        path = root / base / leaf
        if root == layout.v2:
            writes = _writes_v2(layout.v2_controllers, limits, cpus)
            reads = tuple(file for name in layout.v2_controllers for file in _READS_V2[name])
            groups.append(Group(path, 2, writes, _V2_ALWAYS + reads))
        else:
            names = [name for name in CONTROLLERS if layout.v1.get(name) == root]
            writes = tuple(write for name in names for write in _writes_v1(name, limits, cpus, mems))
            groups.append(Group(path, 1, writes, tuple(file for name in names for file in _READS_V1[name])))
    return CgroupPlan(tuple(groups))


def _writes_v1(controller: str, limits: Limits, cpus: tuple[int, ...], mems: str) -> tuple[Write, ...]:
    if controller == "cpuset":
        return (Write("cpuset.mems", mems), Write("cpuset.cpus", format_cpu_list(cpus)))
    if controller == "memory" and limits.memory_bytes is not None:
        limit = str(limits.memory_bytes)
        # The sum of memory and swap cannot be set below the memory limit, so the memory limit comes first.
        return (Write("memory.limit_in_bytes", limit), Write("memory.memsw.limit_in_bytes", limit, optional=True))
    if controller == "pids" and limits.pids is not None:
        return (Write("pids.max", str(limits.pids)),)
    if controller == "cpu" and limits.cpu_quota is not None:
        return (Write("cpu.cfs_quota_us", str(round(limits.cpu_quota * _QUOTA_PERIOD_US))),)
    return ()


def _writes_v2(controllers: tuple[str, ...], limits: Limits, cpus: tuple[int, ...]) -> tuple[Write, ...]:
    writes = []
    if "cpuset" in controllers:
        writes.append(Write("cpuset.cpus", format_cpu_list(cpus)))
    if "memory" in controllers and limits.memory_bytes is not None:
        writes += [Write("memory.max", str(limits.memory_bytes)), Write("memory.swap.max", "0", optional=True)]
    if "pids" in controllers and limits.pids is not None:
        writes.append(Write("pids.max", str(limits.pids)))
    if "cpu" in controllers and limits.cpu_quota is not None:
        writes.append(Write("cpu.max", f"{round(limits.cpu_quota * _QUOTA_PERIOD_US)} {_QUOTA_PERIOD_US}"))
    return tuple(writes)


def prepare(layout: Layout, base: str) -> str:
    """Make the folder ``base`` in each hierarchy and return the memory nodes that cpusets below it may use.

    Raises EnvironmentFailure, naming the file, where the host refuses.
    """
    mems = "0"
    for root in layout.roots():
        folder = root / base
        folder.mkdir(exist_ok=True)
        if root == layout.v2:
            for parent in (root, folder):
                _enable(parent, layout.v2_controllers)
        elif layout.v1.get("cpuset") == root:
            # A new v1 cpuset is empty and cannot be joined, and one below it cannot get what it has not.
            mems = _read_or_empty(root / "cpuset.mems").strip() or "0"
            _write(folder / "cpuset.mems", mems)
            _write(folder / "cpuset.cpus", _read_or_empty(root / "cpuset.cpus").strip())
    return mems


def _enable(folder: Path, controllers: tuple[str, ...]) -> None:
    enabled = _read_or_empty(folder / "cgroup.subtree_control").split()
    missing = [f"+{name}" for name in controllers if name not in enabled]
    if missing:
        _write(folder / "cgroup.subtree_control", " ".join(missing))


def make(plan: CgroupPlan) -> None:
    """Make the groups of ``plan`` and write their limits. Raises EnvironmentFailure, naming the file."""
    for group in plan.groups:
        group.path.mkdir()
        for write in group.writes:
            _write(group.path / write.file, write.value, optional=write.optional)


def read(plan: CgroupPlan) -> dict[str, str]:
    """Return the text of each file of the account that exists, by path; an empty one is an answer, too."""
    texts: dict[str, str] = {}
    for path in (group.path / file for group in plan.groups for file in group.reads):
        with contextlib.suppress(OSError):
            texts[str(path)] = path.read_text()
    return texts


def kill(plan: CgroupPlan) -> None:
    """Kill whatever is in the groups of ``plan``; returns at once."""
    for group in plan.groups:
        kill_tree(group.path)


def remove(plan: CgroupPlan, timeout_s: float = 2.0) -> None:
    """Remove the groups of ``plan``. Raises EnvironmentFailure when one is still in use after ``timeout_s``."""
    for group in plan.groups:
        remove_tree(group.path, timeout_s)


def kill_tree(folder: Path) -> None:
    """Kill every process in ``folder`` and below: at one stroke where ``cgroup.kill`` exists, else one by one."""
    with contextlib.suppress(OSError):
        (folder / "cgroup.kill").write_text("1")
        return
    for pid in processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(folder: Path) -> tuple[int, ...]:
    """Return the processes in ``folder`` and below; none if it does not exist."""
    found: list[int] = []
    for group in _walk_up(folder):
        found += map(int, _read_or_empty(group / "cgroup.procs").split())
    return tuple(pid for pid in found if pid > 0)


def remove_tree(folder: Path, timeout_s: float = 2.0) -> None:
    """Kill what is in ``folder`` and below and remove it, deepest first.

    A killed process leaves its cgroup only some time after its end, so a busy folder is tried again until
    ``timeout_s`` has passed; then EnvironmentFailure names who is in it.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            for group in _walk_up(folder):
                with contextlib.suppress(FileNotFoundError):  # who made it may remove it at the same time
                    group.rmdir()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                pids = ", ".join(map(str, processes(folder))) or "none"
                raise EnvironmentFailure(f"{folder}: {error.strerror} (processes in it: {pids})") from error
            kill_tree(folder)
            time.sleep(0.002)


def _walk_up(folder: Path) -> Iterator[Path]:
    """Yield ``folder`` and all groups below it, deepest first; whoever may make groups may nest them deep."""
    found = [folder]
    for path in found:
        with contextlib.suppress(OSError), os.scandir(path) as items:
            found += [Path(item.path) for item in items if item.is_dir(follow_symlinks=False)]
    yield from reversed(found)


def _write(path: Path, value: str, *, optional: bool = False) -> None:
    try:
        # No O_CREAT: a cgroup file that is missing must stay missing.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if optional:
            return
        raise EnvironmentFailure(f"{path}: no such cgroup file") from error
    except OSError as error:
        raise EnvironmentFailure(f"{path}: {error.strerror}") from error
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        if not optional:
            raise EnvironmentFailure(f"{path}: cannot write {value!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _v1_name(v2_controller: str) -> str:
    return "blkio" if v2_controller == "io" else v2_controller


def parse_keyed(text: str) -> dict[str, int]:
    """Return a flat keyed file (``key value`` a line) as numbers; lines of another form are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def counters(plan: CgroupPlan, texts: Mapping[str, str]) -> tuple[Counter, ...]:
    """Return the account of one instance from what ``read`` or ``launch`` saw, each number with its source. Pure."""
    found = _by_file(plan, texts)
    account = [*_cpu_counters(found), *_memory_counters(found), *_io_counters(found), *_pressure_counters(found)]
    return tuple(account)


def _by_file(plan: CgroupPlan, texts: Mapping[str, str]) -> dict[tuple[int, str], str]:
    return {
        (group.version, file): texts[str(group.path / file)]
        for group in plan.groups
        for file in group.reads
        if str(group.path / file) in texts
    }


def _cpu_counters(found: Mapping[tuple[int, str], str]) -> Iterator[Counter]:
    v2 = parse_keyed(found.get((2, "cpu.stat"), ""))
    if "usage_usec" in v2:
        for name, key in (("cpu.usage", "usage_usec"), ("cpu.user", "user_usec"), ("cpu.system", "system_usec")):
            if key in v2:
                yield Counter(name, v2[key] / 1e6, "s", f"cgroup2 cpu.stat {key}")
    elif (1, "cpuacct.usage") in found:
        yield Counter("cpu.usage", int(found[1, "cpuacct.usage"]) / 1e9, "s", "cgroup1 cpuacct.usage")
        ticks = parse_keyed(found.get((1, "cpuacct.stat"), ""))
        for name in ("user", "system"):
            if name in ticks:
                yield Counter(
                    f"cpu.{name}", ticks[name] / os.sysconf("SC_CLK_TCK"), "s", f"cgroup1 cpuacct.stat {name}"
                )
    if "throttled_usec" in v2 and (2, "cpu.max") in found:
        yield Counter("cpu.throttled", v2["throttled_usec"] / 1e6, "s", "cgroup2 cpu.stat throttled_usec")
    elif (1, "cpu.stat") in found:
        throttled_ns = parse_keyed(found[1, "cpu.stat"]).get("throttled_time", 0)
        yield Counter("cpu.throttled", throttled_ns / 1e9, "s", "cgroup1 cpu.stat throttled_time")


def _memory_counters(found: Mapping[tuple[int, str], str]) -> Iterator[Counter]:
    for version, file in ((2, "memory.peak"), (1, "memory.max_usage_in_bytes")):
        if (version, file) in found:
            yield Counter("memory.peak", int(found[version, file]), "B", f"cgroup{version} {file}")
    for version, file in ((2, "memory.events"), (1, "memory.oom_control")):
        events = parse_keyed(found.get((version, file), ""))
        if "oom_kill" in events:
            yield Counter("memory.oom_kills", events["oom_kill"], "1", f"cgroup{version} {file} oom_kill")


def _io_counters(found: Mapping[tuple[int, str], str]) -> Iterator[Counter]:
    if (2, "io.stat") in found:
        words = found[2, "io.stat"].split()
        for name, key in (("io.read", "rbytes"), ("io.write", "wbytes")):
            total = sum(int(word.partition("=")[2]) for word in words if word.startswith(f"{key}="))
            yield Counter(name, total, "B", f"cgroup2 io.stat {key}")
    elif (1, "blkio.throttle.io_service_bytes") in found:
        lines = [line.split() for line in found[1, "blkio.throttle.io_service_bytes"].splitlines()]
        total = sum(int(words[2]) for words in lines if len(words) == 3 and words[1] == "Read")
        # Since Linux 5.18 most kernels count here only what they throttle: nothing counted is not nothing read.
        source = "Read" if total else "Read shows 0, which may mean not counted"
        yield Counter("io.read", total or None, "B", f"cgroup1 blkio.throttle.io_service_bytes {source}")
        yield Counter("io.write", None, "B", "cgroup v1 does not attribute buffered write-back")


def _pressure_counters(found: Mapping[tuple[int, str], str]) -> Iterator[Counter]:
    for resource in ("cpu", "io", "memory"):
        for line in found.get((2, f"{resource}.pressure"), "").splitlines():
            if line.startswith("some "):
                total_us = int(line.rpartition("total=")[2])
                yield Counter(f"pressure.{resource}", total_us / 1e6, "s", f"cgroup2 {resource}.pressure some")


def applied(plan: CgroupPlan, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits that the kernel says were in force, None for unlimited: keys ``cpus`` (kernel CPU list),
    ``memory_bytes``, ``pids``, ``cpu_quota``. A limit that this host has no controller for is left out. Pure."""
    found = _by_file(plan, texts)
    result: dict[str, Any] = {}
    for version, file in ((1, "cpuset.cpus"), (2, "cpuset.cpus")):
        if (version, file) in found:
            result["cpus"] = format_cpu_list(parse_cpu_list(found[version, file]))
    for name, files in (
        ("memory_bytes", ((1, "memory.limit_in_bytes"), (2, "memory.max"))),
        ("pids", ((1, "pids.max"), (2, "pids.max"))),
    ):
        for key in files:
            if key in found:
                result[name] = _limit(found[key])
    if (2, "cpu.max") in found:
        quota, period = found[2, "cpu.max"].split()
        result["cpu_quota"] = None if quota == "max" else int(quota) / int(period)
    elif (1, "cpu.cfs_quota_us") in found:
        quota_us = int(found[1, "cpu.cfs_quota_us"])
        result["cpu_quota"] = None if quota_us < 0 else quota_us / _QUOTA_PERIOD_US
    return result


def _limit(text: str) -> int | None:
    value = text.strip()
    # cgroup v1 has no word for "unlimited": it shows the largest number of whole pages.
    return None if value == "max" or int(value) >= 1 << 60 else int(value)


def oom_kills(account: tuple[Counter, ...]) -> int:
    """Return how many processes the kernel killed for memory, by the account of ``counters``."""
    return sum(int(counter.value or 0) for counter in account if counter.name == "memory.oom_kills")
