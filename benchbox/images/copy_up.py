"""The image ``copy-up``: ``minimal`` with files in /data, of sizes from 1 KiB to 256 MiB, for writing into.

Their bytes are the same everywhere (SHA-256 of a counter, repeated by the MiB) and not sparse: a copy moves them all.
"""

import hashlib
from pathlib import Path
from typing import Final

from benchbox.images import inventory, minimal, store
from benchbox.images.store import Progress
from benchbox.images.tree import Entry, content_sum, file
from benchbox.native import program
from benchbox.units import parse_size

NAME: Final = "copy-up"
SIZES: Final = ("1KiB", "64KiB", "1MiB", "16MiB", "256MiB")
_KIND: Final = "files"
#: Raise it when the files would have other bytes.
_KEY: Final = "copy-up-1"
_BLOCK_BYTES: Final = 1 << 20


def entries(progress: Progress | None = None) -> list[Entry]:
    """Return the tree of ``minimal`` with the program ``files`` and the files, made once and kept in the cache."""

    def make(entry: Path) -> None:
        if progress is not None:
            progress(f"image {NAME}: making its files")
        for size in SIZES:
            write(entry / size, parse_size(size))
        (entry / inventory.NAME_FILE).write_text(NAME)

    made = store.find_or_make(_KIND, _KEY, make, valid=_is_whole)
    files = [file(f"data/{size}", made / size) for size in SIZES]
    return [*minimal.entries(progress), file("bin/files", program("files"), 0o755), *files]


def block() -> bytes:
    """Return the MiB that the files repeat."""
    return b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(_BLOCK_BYTES // 32))


def write(path: Path, size_bytes: int) -> None:
    """Write ``size_bytes`` of the repeated block to the new file ``path``."""
    repeated = block()
    with path.open("xb") as stream:
        for at in range(0, size_bytes, _BLOCK_BYTES):
            stream.write(repeated[: size_bytes - at])


def _is_whole(entry: Path) -> bool:
    return all((entry / size).is_file() and content_sum(entry / size) == _sum(parse_size(size)) for size in SIZES)


def _sum(size_bytes: int) -> str:
    repeated, found = block(), hashlib.sha256()
    for at in range(0, size_bytes, _BLOCK_BYTES):
        found.update(repeated[: size_bytes - at])
    return found.hexdigest()
