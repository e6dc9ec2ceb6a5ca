"""The archive format of an initramfs: cpio, ``newc``, uncompressed.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. It is written by hand because a device
node in it needs no privileges that way, and because the same entries must always give the same bytes.
"""

import stat
from collections.abc import Iterable
from typing import BinaryIO, Final

from benchbox.errors import ImageError
from benchbox.images import tree
from benchbox.images.tree import MTIME_S, Content, Entry, copy_content, ordered

_MEMBER_BYTES_MAX: Final = 0xFFFFFFFF


def write(entries: Iterable[Entry], output: BinaryIO) -> None:
    """Write ``entries`` to ``output``; everything in the archive belongs to root.

    Raises ImageError for a file that changes while it is read or is 4 GiB or larger.
    """
    for inode, entry in enumerate(ordered(entries), start=1):
        content = _content(entry)
        size_bytes = tree.size_bytes(content)
        output.write(_header(entry, inode, size_bytes))
        if copy_content(content, output) != size_bytes:
            raise ImageError(f"{entry.path}: changed while it was read", hint="run the command again")
        output.write(_padding(size_bytes))
    output.write(_header(Entry("TRAILER!!!", 0), 0, 0))


def _content(entry: Entry) -> Content:
    return entry.target.encode(errors="surrogateescape") if stat.S_ISLNK(entry.mode) else entry.content


def _header(entry: Entry, inode: int, size_bytes: int) -> bytes:
    """Return a member's header: magic, 13 fields of 8 hex digits, the name with its NUL, padded to 4 bytes."""
    if size_bytes > _MEMBER_BYTES_MAX:
        raise ImageError(f"{entry.path}: too large for an initramfs ({size_bytes} bytes)")
    name = entry.path.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    owner, group, checksum = 0, 0, 0
    fields = (inode, entry.mode, owner, group, links, MTIME_S, size_bytes, 0, 0, *entry.device, len(name), checksum)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return header + _padding(len(header))


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % 4)
