"""How much of the host's disk one instance may take: a look now and then, and its end where it took too much.

No quota is to be had on every file system, and a file system of its own would be measured in place of the host's. So
a thread looks how much is free, four times a second, while there is an instance that can write to the disk; else there
is no such thread. Only where much has gone it looks who took it. What is written between two looks is on top.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchbox.model import Outcome, Running
from benchbox.units import format_size

_PAUSE_S: Final = 0.25
#: So much stays free for the host, whatever the limit; less on a file system that is small or nearly full already.
_RESERVE_BYTES: Final = 512 << 20
_RESERVE_PART: Final = 50
#: How long one look into an instance's folders may take. What was not seen counts as hidden.
_COUNTING_S: Final = 1.0
_BLOCK_BYTES: Final = 512


@dataclass(frozen=True)
class Room:
    """What a file system has, and what is free of it for who is not root; files are inodes. 0 of 0: no such limit."""

    free_bytes: int
    total_bytes: int
    free_files: int = 0
    total_files: int = 0


def room(place: Path) -> Room:
    """Return what is free where ``place`` lies: statvfs(3). Raises OSError."""
    found = os.statvfs(place)
    unit = found.f_frsize
    return Room(found.f_bavail * unit, found.f_blocks * unit, found.f_favail, found.f_files)


def taken_bytes(folders: Iterable[Path], enough_bytes: int) -> int:
    """Return the blocks behind all files below ``folders``; it stops where that is more than ``enough_bytes``.

    They may change meanwhile: what has gone, or cannot be reached, is passed over. A file of many names counts once.
    """
    found_bytes, left, linked = 0, list(folders), set[int]()
    deadline = time.monotonic() + _COUNTING_S
    while left and found_bytes <= enough_bytes and time.monotonic() < deadline:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as items:
            for item in items:
                with contextlib.suppress(OSError):
                    status = item.stat(follow_symlinks=False)
                    found_bytes += 0 if status.st_ino in linked else status.st_blocks * _BLOCK_BYTES
                    if status.st_nlink > 1:
                        linked.add(status.st_ino)
                    if item.is_dir(follow_symlinks=False):
                        left.append(Path(item.path))
    return found_bytes


class DiskWatch:
    """Ends instances that take more than ``limit_bytes`` of the host's disk.

    ``layers`` holds a folder an instance where writable layers lie on a disk, None where they are elsewhere or limited
    by their own file system. ``beside`` are places where an instance may write as well, though nobody can say which
    files are its own.
    """

    def __init__(
        self,
        limit_bytes: int,
        layers: Path | None = None,
        beside: Sequence[Path] = (),
        *,
        room: Callable[[Path], Room] = room,
        taken: Callable[[Iterable[Path], int], int] = taken_bytes,
    ) -> None:
        self._limit_bytes, self._layers, self._beside = limit_bytes, layers, tuple(beside)
        self._room, self._taken = room, taken
        self._lock, self._changed = threading.Lock(), threading.Event()
        self._instances: list[_Instance] = []
        self._thread: threading.Thread | None = None

    def around(self, name: str, data: Path | None, start: Callable[[], Running]) -> Running:
        """Return what ``start`` starts, watched where the instance ``name`` can write to a disk.

        ``data`` is the folder of its /data, if it has one.
        """
        folders = tuple(path for path in (self._layers and self._layers / name, data) if path)
        places = {*(folder.parent for folder in folders), *self._beside}
        return _Instance(self, folders, self._rooms(places), start) if places else start()

    def look(self) -> None:
        """Look once, and end whoever took too much."""
        with self._lock:
            instances = tuple(self._instances)
        now = self._rooms({place for each in instances for place in each.before})
        for each in instances:
            if scarce := each.scarce(now):
                each.end(f"ended because {scarce}")
        if any(each.gone_bytes(now) > self._limit_bytes / 2 for each in instances):
            self._count(instances, now)

    def _count(self, instances: Sequence["_Instance"], now: "dict[Path, Room]") -> None:
        own = [self._taken(each.folders, self._limit_bytes) for each in instances]
        for each, own_bytes in zip(instances, own, strict=True):
            hidden_bytes = each.gone_bytes(now) - sum(own)
            if own_bytes > self._limit_bytes:
                each.end(f"wrote more than {format_size(self._limit_bytes)} into /data or its layer (resources.disk)")
            elif hidden_bytes > self._limit_bytes:
                # Files that are open and have no name any more, or somebody else's: nobody can tell them apart.
                each.end(
                    f"ended because the disk lost {format_size(hidden_bytes)} while it ran that are in no file of its "
                    f"/data or layer, more than resources.disk ({format_size(self._limit_bytes)})"
                )

    def _rooms(self, places: Iterable[Path]) -> "dict[Path, Room]":
        found = {}
        for place in places:
            with contextlib.suppress(OSError):
                found[place] = self._room(place)
        return found

    def add(self, instance: "_Instance") -> None:
        with self._lock:
            self._instances.append(instance)
            self._changed.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="disk", daemon=True)
                self._thread.start()

    def forget(self, instance: "_Instance") -> None:
        with self._lock:
            if instance in self._instances:
                self._instances.remove(instance)
            if not self._instances:
                self._changed.set()

    def _live(self) -> None:
        while True:
            self._changed.wait(_PAUSE_S)
            with self._lock:
                if not self._instances:
                    self._thread = None
                    return
            self.look()


class _Instance:
    """One that is watched from before its start to its end; implements ``model.Running``."""

    def __init__(
        self, watch: DiskWatch, folders: tuple[Path, ...], before: dict[Path, Room], start: Callable[[], Running]
    ) -> None:
        self.folders, self.before = folders, before
        self._watch, self._reason = watch, ""
        self._running: Running | None = None
        watch.add(self)
        try:
            self._running = running = start()
        except BaseException:
            watch.forget(self)
            raise
        self._started = running
        if self._reason:
            running.kill()

    def gone_bytes(self, now: dict[Path, Room]) -> int:
        """Return how much less is free than before its start."""
        both = [(self.before[place], room) for place, room in now.items() if place in self.before]
        return max((before.free_bytes - room.free_bytes for before, room in both), default=0)

    def scarce(self, now: dict[Path, Room]) -> str | None:
        """Say what there is too little left of; None where nothing is."""
        for place, before in self.before.items():
            found, least = now.get(place, before), reserve(before)
            if found.free_bytes < least.free_bytes:
                return f"only {format_size(found.free_bytes)} are left on the file system of {place}"
            if found.free_files < least.free_files:
                return f"only {found.free_files} more files fit on the file system of {place}"
        return None

    def end(self, reason: str) -> None:
        """End it for ``reason``; the first one counts."""
        if not self._reason:
            self._reason = reason
            if self._running:
                self._running.kill()

    def ready(self) -> bool:
        return self._started.ready()

    def wait(self) -> Outcome:
        try:
            found = self._started.wait()
        finally:
            self._watch.forget(self)
        return replace(found, status="failed", reason=self._reason) if self._reason else found

    def kill(self) -> None:
        self._started.kill()


def reserve(before: Room) -> Room:
    """Return what stays free of what there was ``before`` a start. Pure."""
    free_bytes = min(_RESERVE_BYTES, before.total_bytes // _RESERVE_PART, before.free_bytes // 2)
    free_files = min(before.total_files // _RESERVE_PART, before.free_files // 2)
    return replace(before, free_bytes=free_bytes, free_files=free_files)
