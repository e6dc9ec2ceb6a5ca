"""The little that benchbox asks of ELF files: is a program static, does a kernel have the PVH note.

Layout: elf(5); every offset comes from the file, so each is checked before it is used.
"""

import struct
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Final, NamedTuple

MAGIC: Final = b"\x7fELF"
_PT_INTERP: Final = 3
_PT_NOTE: Final = 4
#: ``XEN_ELFNOTE_PHYS32_ENTRY`` of Xen's public/elfnote.h: where a PVH loader enters the kernel.
_PHYS32_ENTRY: Final = 18
_PROGRAM_HEADERS_MAX: Final = 512

Buffer = bytes | mmap


class Segment(NamedTuple):
    """A program header: type, and place in the file."""

    type: int
    offset: int
    size_bytes: int


def segments(data: Buffer) -> Iterator[Segment]:
    """Yield the program headers of a little-endian 64-bit ELF file; none for anything else, cut ones left out."""
    if data[:6] != MAGIC + b"\x02\x01" or len(data) < 64:
        return
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_bytes, count = struct.unpack_from("<HH", data, 54)
    for index in range(min(count, _PROGRAM_HEADERS_MAX)):
        start = table + index * entry_bytes
        if entry_bytes < 56 or start + 56 > len(data):
            return
        kind, offset, size_bytes = struct.unpack_from("<I4xQ16xQ", data, start)
        if offset + size_bytes <= len(data):
            yield Segment(kind, offset, size_bytes)


def has_pvh_note(data: Buffer) -> bool:
    """Say whether a kernel can be entered through its PVH note (``CONFIG_PVH``)."""
    return any(
        name == b"Xen\0" and kind == _PHYS32_ENTRY
        for segment in segments(data)
        if segment.type == _PT_NOTE
        for name, kind in _notes(data[segment.offset : segment.offset + segment.size_bytes])
    )


def _notes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and type of each note: three 32-bit words, the name and the descriptor, each padded to 4 bytes."""
    at = 0
    while at + 12 <= len(data):
        name_bytes, descriptor_bytes, kind = struct.unpack_from("<III", data, at)
        yield data[at + 12 : at + 12 + name_bytes], kind
        at += 12 + (name_bytes + 3 & ~3) + (descriptor_bytes + 3 & ~3)


def is_static_program(path: Path) -> bool:
    """Say whether ``path`` is an ELF program that names no dynamic linker."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    found = list(segments(data))
    return bool(found) and all(segment.type != _PT_INTERP for segment in found)
