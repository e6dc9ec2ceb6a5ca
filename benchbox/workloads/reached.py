"""Whether the bytes that a workload says it moved reached a device, or came from one. Pure.

Papers have compared the host's page cache with a disk: Firecracker's authors measured 2.2 times a bare machine's write
bandwidth in a guest whose flushes were dropped (https://github.com/firecracker-microvm/nsdi2020-data, data/m5d.metal).
"""

from collections.abc import Sequence
from typing import Final, Literal

from benchbox.model import Counter, NotDone
from benchbox.units import format_size

#: So much of what was said to be moved has to have been: file systems and devices round, counters are read in turn.
LEAST_SHARE: Final = 0.95

Way = Literal["read", "written"]
#: What bounds each way: the device's own count, and that of the sample's control group.
_COUNTERS: Final[dict[Way, tuple[str, str]]] = {
    "read": ("device.read", "io.read"),
    "written": ("device.written", "io.write"),
}


def reached_bytes(counters: Sequence[Counter], way: Way) -> tuple[float, str] | None:
    """Return at most how many bytes were moved, and what says so; None where nothing on this host can tell.

    The least of what is known. A control group that shows nothing may not be charged for write-back: only the device
    says that nothing was moved.
    """
    device, group = _COUNTERS[way]
    known = {counter.name: counter for counter in counters if counter.value is not None}
    bounds = [known[device]] if device in known else []
    bounds += [known[group]] if group in known and known[group].value else []
    found = [(float(bound.value), bound.source) for bound in bounds if bound.value is not None]
    return min(found, default=None)


def check(counters: Sequence[Counter], way: Way, moved_bytes: int, before_bytes: int = 0) -> float | None:
    """Return the share of ``moved_bytes`` that may have been moved, None where nothing can tell.

    ``before_bytes`` were moved the same way before what is asked about: they cannot stand in for it. Raises NotDone
    where it is too little.
    """
    bound = reached_bytes(counters, way)
    if bound is None or moved_bytes <= 0:
        return None
    found_bytes, source = bound
    share = max(0.0, found_bytes - before_bytes) / moved_bytes
    if share < LEAST_SHARE:
        raise NotDone(_reason(way, moved_bytes, found_bytes, before_bytes, source))
    return share


def _reason(way: Way, moved_bytes: int, found_bytes: float, before_bytes: int, source: str) -> str:
    end = "reached the device" if way == "written" else "came from the device"
    first = f" after {format_size(before_bytes)} that were laid out" if before_bytes else ""
    cause = "a cache took them, or flushes were dropped" if way == "written" else "a cache had them"
    return (
        f"{format_size(moved_bytes)} were {way}{first}, at most {format_size(found_bytes)} in all {end} ({source}): "
        f"{cause}"
    )
