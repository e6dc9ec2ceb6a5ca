"""How much memory instances take while they live, by more than one account, because none of them sees everything.

The host's MemAvailable sees all that was taken, by the kernel for them as well, and whatever else the host did
meanwhile. The cgroups see what is charged to them: first touch pays for what is shared, and helpers outside of them (a
libvirt process) are not in it. Proportional set size shares the cost of a page between those that have it mapped.

Sources: proc(5), Documentation/admin-guide/mm/ksm.rst, cgroup-v1/memory.rst and cgroup-v2.rst of the Linux kernel.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchbox.linux import cgroups
from benchbox.linux.cgroups import Layout
from benchbox.model import Metric

_KSM_FILES: Final = ("run", "pages_shared", "pages_sharing")
_ROLLUP: Final = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Occupied:
    """One look at the host, sizes in bytes; None where it does not say. ``ksm`` holds the numbers of same-page merging.

    ``rss_bytes`` counts a shared page once for each process, ``pss_bytes`` once for all together.
    """

    available_bytes: int | None = None
    cgroup_bytes: int | None = None
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    processes: int = 0
    ksm: Mapping[str, int] = field(default_factory=dict)


def look(layout: Layout, base: str, root: Path = Path("/")) -> Occupied:
    """Look at the host and at everything in the groups ``base`` of this run."""
    # The kernel keeps its counters per CPU and adds them up when this is written (Documentation/admin-guide/sysctl/vm).
    with contextlib.suppress(OSError):
        (root / "proc/sys/vm/stat_refresh").write_text("1")
    pids = sorted({pid for folder in layout.roots() for pid in cgroups.processes(folder / base)})
    mapped = rollup(_texts(root / f"proc/{pid}/smaps_rollup" for pid in pids))
    return Occupied(
        available_bytes(_text(root / "proc/meminfo")),
        charged_bytes(layout, base),
        mapped.get("Rss"),
        mapped.get("Pss"),
        len(pids),
        _ksm(root / "sys/kernel/mm/ksm"),
    )


def available_bytes(meminfo: str) -> int | None:
    """Return MemAvailable of /proc/meminfo. Pure."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) << 10 if found else None


def charged_bytes(layout: Layout, base: str) -> int | None:
    """Return what is charged to the groups of this run, None without a controller for memory or without groups."""
    if "memory" in layout.v1:
        text = _text(layout.v1["memory"] / base / "memory.usage_in_bytes")
    elif layout.v2 is not None and "memory" in layout.v2_controllers:
        text = _text(layout.v2 / base / "memory.current")
    else:
        return None
    return int(text) if text.strip().isdigit() else None


def rollup(texts: Iterable[str]) -> dict[str, int]:
    """Return the sums of ``Rss`` and ``Pss`` of several /proc/PID/smaps_rollup, in bytes; empty without any. Pure."""
    sums: dict[str, int] = {}
    for name, kibibytes in (found for text in texts for found in _ROLLUP.findall(text)):
        sums[name] = sums.get(name, 0) + (int(kibibytes) << 10)
    return sums


def metrics(before: Occupied, during: Occupied) -> tuple[Metric, ...]:
    """Return what was taken between two looks: ``density.cgroup``, ``density.available``, and of the processes there
    are, ``density.rss`` and ``density.pss``. What one of the looks does not say is left out. Pure.

    A difference may be below zero where others gave memory back meanwhile: it is kept as it was seen.
    """
    pairs = (
        ("cgroup", before.cgroup_bytes, during.cgroup_bytes),
        ("available", during.available_bytes, before.available_bytes),
        ("rss", 0, during.rss_bytes),
        ("pss", 0, during.pss_bytes),
    )
    return tuple(
        Metric(f"density.{name}", last - first, "B")
        for name, first, last in pairs
        if first is not None and last is not None
    )


def sharing(before: Occupied, during: Occupied) -> dict[str, Any]:
    """Return what the record says of shared pages: same-page merging, processes and how often pages are mapped. Pure.

    ``merged_pages`` is how many more pages the kernel had merged (``pages_sharing``), ``mapped_per_page`` Rss to Pss.
    """
    merged = [look.ksm.get("pages_sharing") for look in (before, during)]
    rss, pss = during.rss_bytes, during.pss_bytes
    return {
        "ksm": {0: "off", 1: "on", 2: "off, unmerged"}.get(during.ksm.get("run", -1), "not in this kernel"),
        "merged_pages": merged[1] - merged[0] if merged[0] is not None and merged[1] is not None else None,
        "processes": during.processes,
        "mapped_per_page": round(rss / pss, 3) if rss and pss else None,
    }


def _ksm(folder: Path) -> dict[str, int]:
    texts = {name: _text(folder / name).strip() for name in _KSM_FILES}
    return {name: int(text) for name, text in texts.items() if text.isdigit()}


def _texts(paths: Iterable[Path]) -> list[str]:
    return [_text(path) for path in paths]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
