"""Where runs write: cache, scratch, results."""

from collections.abc import Callable
from typing import Final

from benchbox.doctor.facts import Facts, Place
from benchbox.doctor.findings import Seen, blocker, info, ok, warning
from benchbox.units import format_size

_REMOTE: Final = ("nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "gluster", "afs", "fuse", "lustre", "vboxsf")
_IN_MEMORY: Final = ("tmpfs", "ramfs", "rootfs")
_LAYERED: Final = ("overlay", "aufs")
#: What image, guest kernel and its initramfs take the first time (the cache), and what a long run's record takes.
_LITTLE_BYTES: Final = {"cache": 1 << 30, "scratch": 256 << 20, "results": 64 << 20}
_NOTHING_BYTES: Final = 16 << 20


def folder(name: str, move: str) -> Callable[[Facts], Seen]:
    """Return the check of the folder ``name``; ``move`` says how it is put elsewhere."""

    def look(facts: Facts) -> Seen:
        place = facts.places[name]
        return _unusable(place, move) or _scarce(name, place, move) or _type(name, place, move)

    return look


def _unusable(place: Place, move: str) -> Seen | None:
    if place.problem is not None:
        return blocker(place.problem, move)
    if not place.writable:
        return blocker(f"{place.path} cannot be written", move)
    return None


def _scarce(name: str, place: Place, move: str) -> Seen | None:
    free_bytes = place.free_bytes
    if free_bytes is None or free_bytes >= _LITTLE_BYTES[name]:
        return None
    found = f"{place.path}: {format_size(free_bytes)} free"
    fix = f"free some space there, or {move}"
    return blocker(found, fix) if free_bytes < _NOTHING_BYTES else warning(found, fix)


def _type(name: str, place: Place, move: str) -> Seen:
    kind = place.fs_type or "file system not known"
    free = "" if place.free_bytes is None else f", {format_size(place.free_bytes)} free"
    found = f"{place.path} ({kind}{free})"
    if kind.startswith(_REMOTE):
        # Nothing is measured while the record is written, so it may lie anywhere.
        return info(found) if name == "results" else warning(f"{found}: over a network or a bridge", move)
    if name == "results" and kind in _IN_MEMORY:
        return warning(f"{found}: in memory, gone with the next boot", move)
    if kind in _IN_MEMORY:
        return info(f"{found}: in memory, so nothing is ever read from a disk")
    if name != "results" and kind in _LAYERED:
        return warning(f"{found}: a layer over another file system", move)
    return ok(found)
