"""How much else the host was doing around one sample: load, pressure, steal, throttling.

A snapshot reads a handful of files through descriptors that stay open (some tens of µs on a small host), so that it
can be taken right before and right after every sample.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchbox.linux.clock import monotonic_ns

#: What pressure is read for; /proc/pressure, Documentation/accounting/psi.rst.
RESOURCES: Final = ("cpu", "io", "memory")

_READ_BYTES: Final = 1 << 16
#: Fields of the ``cpu`` line of /proc/stat that are a part of others: guest is in user, guest_nice in nice.
_TICK_FIELDS: Final = 8
_STEAL_FIELD: Final = 7


@dataclass(frozen=True)
class Snapshot:
    """What the host's counters said at ``taken_ns`` (CLOCK_MONOTONIC).

    ``pressure_us`` is, per resource, how long some task has waited for it since boot. ``steal_ticks`` of
    ``total_ticks`` were taken by a hypervisor, summed over CPUs. ``thermal_events`` counts how often a
    package was slowed down for heat, ``quota_us`` how long benchbox's own cgroup waited for its CPU quota.
    None: this host does not say.
    """

    taken_ns: int
    load1: float | None = None
    pressure_us: Mapping[str, int] = field(default_factory=dict)
    steal_ticks: int | None = None
    total_ticks: int | None = None
    thermal_events: int | None = None
    quota_us: float | None = None


def between(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Return what happened between two snapshots; what either of them does not know has no key.

    ``load1`` is the load average of the last minute when the sample began, ``psi.<resource>.some_share`` the share of
    the time in which some task waited, ``steal_share`` the share of all CPU time that a hypervisor took (it
    needs a few ticks of 10 ms to say anything), ``throttled.thermal`` a number of events, ``throttled.quota_share``
    the time that benchbox's own cgroup waited for its quota, in CPUs.
    """
    interval_us = max(after.taken_ns - before.taken_ns, 1) / 1000
    noise: dict[str, float] = {} if before.load1 is None else {"load1": before.load1}
    for resource, since_us in before.pressure_us.items():
        if resource in after.pressure_us:
            noise[f"psi.{resource}.some_share"] = (after.pressure_us[resource] - since_us) / interval_us
    ticks = _difference(before.total_ticks, after.total_ticks)
    stolen = _difference(before.steal_ticks, after.steal_ticks)
    if ticks and stolen is not None:
        noise["steal_share"] = stolen / ticks
    if (events := _difference(before.thermal_events, after.thermal_events)) is not None:
        noise["throttled.thermal"] = events
    if (waited_us := _difference(before.quota_us, after.quota_us)) is not None:
        noise["throttled.quota_share"] = waited_us / interval_us
    return noise


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


class NoiseMeter:
    """Takes snapshots. ``root`` holds a recorded tree in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._load = _open(root / "proc/loadavg")
        self._stat = _open(root / "proc/stat")
        self._pressure = _open_each({name: root / "proc/pressure" / name for name in RESOURCES})
        self._thermal = _open_each({str(path): path for path in _thermal_files(root)})
        self._quota = _open(_own_cpu_stat(root))

    def snapshot(self) -> Snapshot:
        """Return the counters of this instant."""
        steal, total = parse_stat(_pread(self._stat))
        return Snapshot(
            monotonic_ns(),
            parse_loadavg(_pread(self._load)),
            self._pressures(),
            steal,
            total,
            sum(int(_pread(fd) or 0) for fd in self._thermal.values()) if self._thermal else None,
            parse_throttled(_pread(self._quota)),
        )

    def _pressures(self) -> dict[str, int]:
        totals = ((name, parse_pressure(_pread(descriptor))) for name, descriptor in self._pressure.items())
        return {name: total_us for name, total_us in totals if total_us is not None}

    def close(self) -> None:
        """Close all descriptors; a second call does nothing."""
        held = [self._load, self._stat, self._quota, *self._pressure.values(), *self._thermal.values()]
        self._load = self._stat = self._quota = None
        self._pressure, self._thermal = {}, {}
        for descriptor in held:
            if descriptor is not None:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def parse_loadavg(text: str) -> float | None:
    """Return the first number of /proc/loadavg, the average over a minute."""
    return float(text.split()[0]) if text.strip() else None


def parse_pressure(text: str) -> int | None:
    """Return the ``some`` total in µs of a pressure file; None where pressure is not accounted (psi=0)."""
    for line in text.splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2])
    return None


def parse_stat(text: str) -> tuple[int | None, int | None]:
    """Return stolen and all ticks, summed over CPUs, from the first line of /proc/stat (proc_stat(5))."""
    fields = text.partition("\n")[0].split()
    if not fields or fields[0] != "cpu":
        return None, None
    ticks = [int(field) for field in fields[1 : 1 + _TICK_FIELDS]]
    return (ticks[_STEAL_FIELD] if len(ticks) > _STEAL_FIELD else None), sum(ticks)


def parse_throttled(text: str) -> float | None:
    """Return how long a cgroup's tasks waited for their quota, in µs, from ``cpu.stat``: µs on v2, ns on v1."""
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    if "throttled_usec" in values:
        return float(values["throttled_usec"])
    return float(values["throttled_time"]) / 1000 if "throttled_time" in values else None


def own_cgroup_files(mountinfo: str, cgroup: str, name: str) -> list[Path]:
    """Return where file ``name`` of this process's own groups for CPU time may be, v2 first.

    From /proc/self/mountinfo and /proc/self/cgroup (cgroups(7)). A group above the root of a mount, as a cgroup
    namespace hides it, is left out.
    """
    mounts = [line.split(" - ", 1) for line in mountinfo.splitlines() if " - cgroup" in line]
    found: dict[str, Path] = {}
    for entry in cgroup.splitlines():
        _, controllers, path = entry.split(":", 2)
        for left, right in mounts:
            _, _, _, mount_root, mount_point, *_ = left.split()
            kind, _, options = right.split(" ", 2)
            wanted = kind == "cgroup2" if not controllers else kind == "cgroup" and "cpu" in options.split(",")
            relative = _below(path, mount_root)
            if wanted and relative is not None and (not controllers or "cpu" in controllers.split(",")):
                found.setdefault(kind, Path(mount_point.lstrip("/"), relative, name))
    return [found[kind] for kind in ("cgroup2", "cgroup") if kind in found]


def _below(path: str, mount_root: str) -> str | None:
    if mount_root == "/":
        return path.lstrip("/")
    inside = path == mount_root or path.startswith(f"{mount_root}/")
    return path[len(mount_root) :].lstrip("/") if inside else None


def _own_cpu_stat(root: Path) -> Path | None:
    candidates = own_cgroup_files(_text(root / "proc/self/mountinfo"), _text(root / "proc/self/cgroup"), "cpu.stat")
    return next((root / path for path in candidates if "throttled" in _text(root / path)), None)


def _thermal_files(root: Path) -> list[Path]:
    """Return the count of thermal throttling of each package, from one CPU of each (x86: therm_throt)."""
    packages: dict[str, Path] = {}
    for cpu in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*")):
        count = cpu / "thermal_throttle/package_throttle_count"
        if count.exists():
            packages.setdefault(_text(cpu / "topology/physical_package_id"), count)
    return list(packages.values())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _open(path: Path | None) -> int | None:
    if path is not None:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _open_each(paths: Mapping[str, Path]) -> dict[str, int]:
    opened = {name: _open(path) for name, path in paths.items()}
    return {name: descriptor for name, descriptor in opened.items() if descriptor is not None}


def _pread(descriptor: int | None) -> str:
    """Return a file of the kernel as of now; it is made anew for each read at offset 0. Empty where it refuses."""
    if descriptor is None:
        return ""
    try:
        return os.pread(descriptor, _READ_BYTES, 0).decode()
    except OSError:
        return ""
