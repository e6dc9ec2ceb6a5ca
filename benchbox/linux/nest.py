"""cgroups of a sample in which another program makes the container's own: an OCI runtime, a container engine.

Three groups a hierarchy, all of them ours::

    base/leaf            the account of everything, the program that starts the container included
    base/leaf/box        the limits; the program makes its group below it, and removes it
    base/leaf/runtime    joined by the program that is started for the sample, if there is one; on v1 where it counts

The kernel applies the limits of ``box`` to all below it, whatever the program does, and they can be read when its group
has gone. What it used is in the account for the same reason: counters of a group hold those of removed ones below it.

That program may make groups in hierarchies that benchbox does not use (devices, freezer, systemd's), and removes only
the innermost: ``remove`` looks at all.

Sources: Documentation/admin-guide/cgroup-v1/memory.txt (memory.stat, "total_"), cgroup-v2.rst ("memory.events", "No
Internal Process Constraint") of the Linux kernel.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchbox.linux import cgroups
from benchbox.linux.cgroups import CgroupPlan, Group, Layout, Limits, Write
from benchbox.model import Counter

#: How much below its limit a group may be when it is out of memory: a CPU charges this many pages at once.
_CHARGED_AT_ONCE_BYTES: Final = 64 * 4096
#: What is read of the outer group, and of the box: what a limit does is counted where the limit is. Each file costs
#: 20 to 50 µs of a sample, more than its value for what is not used.
_ACCOUNT: Final = (
    "cpu.stat", "cpuacct.usage", "cpuacct.stat", "memory.peak", "memory.max_usage_in_bytes", "io.stat",
    "blkio.throttle.io_service_bytes", "cpu.pressure", "io.pressure", "memory.pressure",
)  # fmt: skip
_LIMITS: Final = (
    "cpuset.cpus", "cpu.max", "cpu.cfs_quota_us", "cpu.stat", "cpuacct.usage", "memory.max", "memory.limit_in_bytes",
    "memory.events", "memory.oom_control", "memory.max_usage_in_bytes", "pids.max",
)  # fmt: skip
#: The leaf of a plan that is to be ``named``; no name of a run or an environment has it.
ANY: Final = "@"
#: Controllers of v1 that only count what is in a group.
_COUNTING: Final = ("cpuacct", "memory", "blkio")


@dataclass(frozen=True)
class Nest:
    """The groups of one sample. ``path`` is that of ``box`` from where hierarchies are mounted on, as programs take it;
    ``folders`` are all that it may have left, in every hierarchy."""

    outer: CgroupPlan
    box: CgroupPlan
    runtime: CgroupPlan
    path: str
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Hierarchies:
    """Where this host mounts cgroups: what benchbox uses, and every mount point. ``inside`` leads from the mount point
    to the group that ours are made in (v2, delegated); ``/`` without delegation."""

    layout: Layout
    mounts: tuple[Path, ...]
    inside: str = "/"


def find(root: Path = Path("/")) -> Hierarchies:
    """Return the hierarchies of this host."""
    layout = cgroups.detect(root)
    mounts = mount_points((root / "proc/self/mountinfo").read_text())
    home = layout.v2
    above = next((mount for mount in mounts if home and home.is_relative_to(mount)), None) if layout.delegated else None
    return Hierarchies(layout, mounts, f"/{home.relative_to(above)}" if home and above else "/")


def mount_points(mountinfo: str) -> tuple[Path, ...]:
    """Return where cgroup file systems of any kind are mounted, proc_pid_mountinfo(5)."""
    found = []
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(fields.split()[4].encode().decode("unicode_escape")))
    return tuple(dict.fromkeys(found))


def plan(
    where: Hierarchies, base: str, leaf: str, limits: Limits, cpus: tuple[int, ...], mems: str, *, runtime: bool
) -> Nest:
    """Return the groups of one sample; without ``runtime`` nothing of ours runs in them. Pure."""
    layout = where.layout

    def groups(name: str, limits: Limits) -> CgroupPlan:
        return cgroups.plan(layout, base, name, limits, cpus, mems)

    inside = str(Path(where.inside, base, leaf))
    return Nest(
        _parents(layout, groups(leaf, Limits()), _ACCOUNT),
        _parents(layout, groups(f"{leaf}/box", limits), _LIMITS),
        _runtime(layout, groups(f"{leaf}/runtime", Limits())) if runtime else CgroupPlan(()),
        f"{inside}/box",
        tuple(Path(f"{mount}{inside}") for mount in where.mounts),
    )


def named(template: Nest, leaf: str) -> Nest:
    """Return the plan ``template``, made for the leaf ``ANY``, for ``leaf``: quicker than to plan it anew."""
    old, new = f"/{ANY}", f"/{leaf}"

    def moved(plan: CgroupPlan) -> CgroupPlan:
        groups = (
            Group(Path(str(group.path).replace(old, new)), group.version, group.writes, group.reads)
            for group in plan.groups
        )
        return CgroupPlan(tuple(groups))

    folders = tuple(Path(str(folder).replace(old, new)) for folder in template.folders)
    path = template.path.replace(old, new)
    return Nest(moved(template.outer), moved(template.box), moved(template.runtime), path, folders)


def _runtime(layout: Layout, groups: CgroupPlan) -> CgroupPlan:
    """Return ``groups`` where they count something; in others a program that is not limited has no business, and a
    share of the CPUs of its own would hold it back on a busy host. Its CPUs are kept by affinity."""
    counting = {layout.v2, *(root for name, root in layout.v1.items() if name in _COUNTING)}
    kept = (group for group in groups.groups if any(root and group.path.is_relative_to(root) for root in counting))
    return CgroupPlan(tuple(replace(group, reads=()) for group in kept))


def _parents(layout: Layout, groups: CgroupPlan, read: tuple[str, ...]) -> CgroupPlan:
    """Return ``groups`` as ones that have others below them, whose memory they count and may limit."""
    found = (replace(group, reads=tuple(file for file in group.reads if file in read)) for group in groups.groups)
    return CgroupPlan(tuple(_parent(layout, group) for group in found))


def _parent(layout: Layout, group: Group) -> Group:
    if group.version == 2:
        enabled = " ".join(f"+{name}" for name in layout.v2_controllers)
        passed_on = (Write("cgroup.subtree_control", enabled),) if enabled else ()
        return replace(group, writes=(*group.writes, *passed_on))
    if "memory" in layout.v1 and group.path.is_relative_to(layout.v1["memory"]):
        # Linux does so by itself since 5.11.
        return replace(group, writes=(Write("memory.use_hierarchy", "1", optional=True), *group.writes))
    return group


def make(nest: Nest) -> None:
    """Make all but the groups of the runtime, which ``launch`` makes. Raises EnvironmentFailure, naming the file."""
    cgroups.make(nest.outer)
    cgroups.make(nest.box)


def end(nest: Nest) -> None:
    """Kill whatever is in the groups and remove them, in every hierarchy. Raises EnvironmentFailure."""
    for folder in nest.folders:
        for path in (folder / "box", folder / "runtime", folder):
            if not _is_removed(path):
                cgroups.kill_tree(folder)
                cgroups.remove_tree(folder)
                break


def _is_removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Seen:
    """What the groups say after the end: the account, the limits in force, whether anything ever ran in the box."""

    counters: tuple[Counter, ...]
    applied: Mapping[str, Any]
    ran: bool


def oom_kills_of_host(root: Path = Path("/")) -> int:
    """Return how many processes this kernel has killed for memory since it booted."""
    with contextlib.suppress(OSError):
        return cgroups.parse_keyed((root / "proc/vmstat").read_text()).get("oom_kill", 0)
    return 0


def look(nest: Nest, oom_kills_before: int) -> Seen:
    """Read the groups; ``oom_kills_before`` is what ``oom_kills_of_host`` said when the sample began."""
    found = seen(nest, cgroups.read(nest.outer), cgroups.read(nest.box), lambda: oom_kills_of_host() - oom_kills_before)
    return found if found.ran else replace(found, ran=_faulted(nest.box))


def seen(nest: Nest, outer: Mapping[str, str], box: Mapping[str, str], host_killed: Callable[[], int]) -> Seen:
    """Return what the files of the groups say, and the time of the CPU about whether anything ran.

    ``host_killed`` says how many processes the host has killed for memory meanwhile; it is asked only if it matters.
    """
    inside = {counter.name: counter for counter in cgroups.counters(nest.box, box)}
    limited = [inside[name] for name in ("cpu.throttled", "memory.oom_kills") if name in inside]
    names = {counter.name for counter in limited}
    account = [counter for counter in cgroups.counters(nest.outer, outer) if counter.name not in names]
    applied = cgroups.applied(nest.box, box)
    kills = inside.get("memory.oom_kills")
    if kills and kills.source.startswith("cgroup1"):
        limited[-1] = _oom_kills_v1(inside.get("memory.peak"), applied.get("memory_bytes"), host_killed)
    used = inside.get("cpu.usage")
    return Seen((*account, *limited), applied, bool(used and used.value))


def _oom_kills_v1(peak: Counter | None, limit_bytes: int | None, host_killed: Callable[[], int]) -> Counter:
    """v1 counts a kill in the group of the killed process alone, and that is gone with its container."""
    full = peak is not None and limit_bytes is not None and (peak.value or 0) >= limit_bytes - _CHARGED_AT_ONCE_BYTES
    source = "vmstat oom_kill of the host, where cgroup1 memory.max_usage_in_bytes is at the limit"
    return Counter("memory.oom_kills", host_killed() if full else 0, "1", source)


def _faulted(plan: CgroupPlan) -> bool:
    """Say whether a process in the groups ever touched memory: where a program leaves the v2 tree of a hybrid host
    alone, no CPU time shows there. The peak of memory says nothing, making a group is charged as well."""
    for path in (group.path / "memory.stat" for group in plan.groups):
        with contextlib.suppress(OSError):
            found = cgroups.parse_keyed(path.read_text())
            if any(found.get(key) for key in ("total_pgfault", "pgfault")):
                return True
    return False
