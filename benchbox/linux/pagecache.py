"""The host's page cache, file by file: how much of what a start reads is in memory, and how to change that.

A file is dropped by posix_fadvise(2) (``POSIX_FADV_DONTNEED``), which concerns this file alone, where
/proc/sys/vm/drop_caches would take the caches of the whole host. What is in memory is told by mincore(2) on a mapping
that nobody touches. The kernel keeps pages that a process has mapped, that are being written, and all of a tmpfs; names
and inodes stay in caches of their own, which have no such call. Sources: mm/fadvise.c, mm/mincore.c.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.errors import EnvironmentFailure
from benchbox.linux import syscalls
from benchbox.linux.mounts import file_system

#: How often a file is tried again, after a pause, while pages of it are on their way to or from the disk.
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.01
_READ_BYTES: Final = 1 << 20
_SHOWN: Final = 3
#: Where the page cache is the only place of a file, and where the file system keeps a cache of its own beside it.
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_OWN_CACHE: Final = frozenset({"zfs"})


@dataclass(frozen=True)
class _Mapped:
    path: Path
    size_bytes: int
    address: int


@dataclass(frozen=True)
class Resident:
    """Which pages of each file were in memory at one moment: a byte a page, 1 for those that were."""

    pages: tuple[bytes, ...]

    @property
    def total_bytes(self) -> int:
        return sum(each.count(1) for each in self.pages) * page_bytes()


def arrived_bytes(before: Resident, after: Resident) -> int:
    """Return the size of all pages that are in memory in ``after`` and were not in ``before``. Pure."""
    new = (_number(b) & ~_number(a) for a, b in zip(before.pages, after.pages, strict=True))
    return sum(each.bit_count() for each in new) * page_bytes()


def _number(pages: bytes) -> int:
    return int.from_bytes(pages, "little")


def page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


class Files:
    """All regular files at and below some paths, symbolic links not followed, each mapped for as long as this lives.

    Raises EnvironmentFailure for one that cannot be opened or mapped, or whose residency the kernel does not tell this
    user: it does to who owns a file or may write to it, and says of all others that they are all in memory.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: list[_Mapped] = []
        path = None
        try:
            for path in _regular_files(paths):
                self._map(path)
        except OSError as error:
            self.close()
            place = error.filename or path
            raise EnvironmentFailure(f"cannot look at the page cache of {place}: {error.strerror}") from error
        except EnvironmentFailure:
            self.close()
            raise

    @property
    def count(self) -> int:
        return len(self._files)

    @property
    def size_bytes(self) -> int:
        """The size of all files in whole pages."""
        return sum(-(-file.size_bytes // page_bytes()) for file in self._files) * page_bytes()

    def resident(self) -> Resident:
        """Return what is in memory now."""
        return Resident(tuple(syscalls.mincore(file.address, file.size_bytes) for file in self._files))

    def drop(self) -> Resident:
        """Take all files out of memory; return what stayed. What is not on the disk yet is written for that."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            for file in self._files:
                _drop(file.path, write_first=attempt > 0)
            stayed = self.resident()
            if not stayed.total_bytes:
                break
        return stayed

    def load(self) -> None:
        """Read all that is not in memory."""
        for file, pages in zip(self._files, self.resident().pages, strict=True):
            if 0 in pages:
                _read(file.path)

    def why(self, stayed: Resident) -> str:
        """Say of which files pages stayed in memory, and why, as far as that can be told."""
        left = [(file, pages.count(1)) for file, pages in zip(self._files, stayed.pages, strict=True) if 1 in pages]
        left.sort(key=lambda each: -each[1])
        told = "; ".join(f"{file.path}: {count} pages{_reason(file.path)}" for file, count in left[:_SHOWN])
        return told + (f"; {len(left) - _SHOWN} more files" if len(left) > _SHOWN else "")

    def own_cache(self) -> str | None:
        """Return the name of a file system of these files that has another cache than the host's, None if none has."""
        folders = dict.fromkeys(file.path.parent for file in self._files)
        return next((name for name in map(file_system, folders) if name in _OWN_CACHE), None)

    def close(self) -> None:
        """Unmap all files; a second call does nothing."""
        while self._files:
            file = self._files.pop()
            syscalls.unmap(file.address, file.size_bytes)

    def _map(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            if not _is_told(path, found):
                raise EnvironmentFailure(
                    f"what of {path} is in the page cache is told to its owner only", hint="run as root"
                )
            if found.st_size:
                self._files.append(_Mapped(path, found.st_size, syscalls.map_file(descriptor, found.st_size)))
        finally:
            os.close(descriptor)


def _regular_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each file once, however many names it has."""
    seen: set[tuple[int, int]] = set()
    for top in (path.resolve() for path in paths):
        for path in (top, *_below(top)):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                yield path


def _below(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            yield Path(folder, name)


def _is_told(path: Path, found: os.stat_result) -> bool:
    """Say whether mincore(2) tells this user the truth about a file (can_do_mincore in mm/mincore.c)."""
    return os.geteuid() in (0, found.st_uid) or os.access(path, os.W_OK)


def _drop(path: Path, *, write_first: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if write_first:
            with contextlib.suppress(OSError):  # a read-only file system has nothing to write
                os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass


def _reason(path: Path) -> str:
    if (name := file_system(path.parent)) in _IN_MEMORY:
        return f", on {name}: memory is the only place where they are"
    users = _mapped_by(path)
    return f", in use by {', '.join(users)}" if users else ""


def _mapped_by(path: Path) -> Sequence[str]:
    """Return the processes that have ``path`` mapped (and touched, or its pages had gone), this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(path) in (entry / "maps").read_text(errors="replace"):
                    found.append(f"{(entry / 'comm').read_text().strip()} ({entry.name})")
    return found[:_SHOWN]
