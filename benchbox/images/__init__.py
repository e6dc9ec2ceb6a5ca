"""Root file systems and guest kernels: made once, kept in the store, derived into what an environment needs.

A directory and an overlay's lower layer are ``Image.root`` itself; a guest takes ``derive_initramfs``, or
``derive_disk`` and ``derive_disk_initramfs`` where it is large.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchbox.errors import ImageError
from benchbox.images import debian, debian_start, inventory, minimal, store, tree
from benchbox.images.disk import derive_disk
from benchbox.images.initramfs import derive_disk_initramfs, derive_initramfs
from benchbox.images.kernels import GuestKernel, find_kernel
from benchbox.images.modules import GUEST_MODULES
from benchbox.images.oci import derive_oci
from benchbox.images.store import Progress, cache_folder, disk_bytes
from benchbox.model import Image

__all__ = [
    "GUEST_MODULES",
    "PACKAGES",
    "TABLE",
    "GuestKernel",
    "cache_folder",
    "content_bytes",
    "derive_disk",
    "derive_disk_initramfs",
    "derive_initramfs",
    "derive_oci",
    "disk_bytes",
    "find_kernel",
    "known_image",
    "open_image",
]

#: Every image by its name, with the function that returns its tree.
TABLE: Final[Mapping[str, Callable[[Progress | None], list[tree.Entry]]]] = {
    "minimal": minimal.entries,
    debian_start.NAME: debian_start.entries,
    debian.NAME: debian.entries,
}


#: The distribution's packages that an image is made of, by its name; what these need is in it as well.
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    debian_start.NAME: debian_start.PACKAGES,
    debian.NAME: debian.PACKAGES,
}


def known_image(name: str) -> str:
    """Return ``name``; raise ImageError, with the nearest right spelling, if there is no image of that name."""
    if name in TABLE:
        return name
    near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else None
    raise ImageError(f"no image {name!r}; known are: {', '.join(sorted(TABLE))}", hint=hint)


def open_image(name: str, progress: Progress | None = None) -> Image:
    """Return the image ``name`` from the store, made if it is not there or not as it was made.

    Raises ImageError for an unknown name or when the store cannot be written, UnavailableError when a program that
    belongs in it is not part of this installation.
    """
    entries = TABLE[known_image(name)](progress)
    sums = tree.file_sums(entries)
    digest = tree.digest(entries, sums)

    def make(entry: Path) -> None:
        tree.write(entries, entry / "root")
        (entry / inventory.NAME_FILE).write_text(name)
        if not _holds(entry, digest):
            raise ImageError(f"image {name}: a file of it changed while it was made", hint="run the command again")

    root = store.find_or_make("store", digest, make, valid=lambda entry: _holds(entry, digest)) / "root"
    return Image(name, digest, root, tree.executables(entries, sums))


def content_bytes(image: Image) -> int:
    """Return the size of all files of ``image`` together."""
    found = (entry.content for entry in tree.scan(image.root))
    return sum(content.stat().st_size for content in found if isinstance(content, Path))


def _holds(entry: Path, digest: str) -> bool:
    """Say whether the tree in ``entry`` is still the one with ``digest``: all of it is read."""
    try:
        found = tree.scan(entry / "root")
        return tree.digest(found, tree.file_sums(found)) == digest
    except (OSError, ImageError):
        return False
