"""The block device that a folder lies on, and what it has transferred.

Source: Documentation/block/stat.rst of the Linux kernel (sectors of 512 bytes, whatever the device's own are).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.linux import mounts, syscalls
from benchbox.model import Counter

READ: Final = "device.read"
WRITTEN: Final = "device.written"

_SECTOR_BYTES: Final = 512
_READ_SECTORS, _WRITTEN_SECTORS = 2, 6
#: File systems that are memory: what is written to them reaches no device at all.
_MEMORY: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Transferred:
    """How much a device has read and written since it is there."""

    read_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class Backing:
    """What is behind a folder: its file system, and the device where there is one (``stat`` is its file of sysfs)."""

    file_system: str
    device: str | None = None
    stat: Path | None = None

    def __str__(self) -> str:
        return f"{self.file_system}, {self.device}" if self.device else self.file_system


def backing(folder: Path) -> Backing:
    """Return what ``folder`` lies on. A file system that is on no one device, such as a network's, has none."""
    kind, source = mounts.mounted(folder)
    number = folder.stat().st_dev
    if os.major(number) == 0 and source.startswith("/dev/"):
        # btrfs and others number their parts themselves.
        number = Path(source).stat().st_rdev if Path(source).is_block_device() else 0
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if os.major(number) == 0 or not (link / "stat").exists():
        return Backing(kind)
    return Backing(kind, link.resolve().name, link / "stat")


def parse(stat: str) -> Transferred:
    """Return what a device's ``stat`` says. Raises ValueError when it is none. Pure."""
    fields = [int(word) for word in stat.split()]
    if len(fields) <= _WRITTEN_SECTORS:
        raise ValueError(f"no statistics of a block device: {stat[:100]!r}")
    return Transferred(fields[_READ_SECTORS] * _SECTOR_BYTES, fields[_WRITTEN_SECTORS] * _SECTOR_BYTES)


def look(where: Backing) -> Transferred | None:
    """Return what the device behind ``where`` has transferred, None where it has none."""
    return parse(where.stat.read_text()) if where.stat else None


def counters(where: Backing, before: Transferred | None, after: Transferred | None) -> tuple[Counter, ...]:
    """Return what the device transferred between two looks. Pure.

    It is a bound, since what others did meanwhile is in it: at most so much of the sample's reached the device.
    """
    if where.file_system in _MEMORY:
        said = f"{where.file_system} is memory: nothing reaches a device"
        return Counter(READ, 0, "B", said), Counter(WRITTEN, 0, "B", said)
    if before is None or after is None:
        said = f"{where.file_system} lies on no one block device of this host"
        return Counter(READ, None, "B", said), Counter(WRITTEN, None, "B", said)
    said = f"/sys/block {where.device} stat: the whole device, so at most so much is the sample's"
    return (
        Counter(READ, after.read_bytes - before.read_bytes, "B", said),
        Counter(WRITTEN, after.written_bytes - before.written_bytes, "B", said),
    )


def settle(folder: Path) -> None:
    """Bring to the device what the file system of ``folder`` still has to write, so that it is nobody's later."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(descriptor)
    finally:
        os.close(descriptor)
