"""Root file systems and guest kernels: made once, kept in the store, derived into what an environment needs.

A directory and an overlay's lower layer are ``Image.root`` itself; a guest takes ``derive_initramfs``, or
``derive_disk`` and ``derive_disk_initramfs`` where it is large.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchbox.errors import ImageError
from benchbox.images import copy_up, debian, debian_start, distribution, inventory, minimal, own, store, tree
from benchbox.images.disk import derive_disk
from benchbox.images.initramfs import derive_disk_initramfs, derive_initramfs
from benchbox.images.kernels import GuestKernel, find_kernel
from benchbox.images.modules import GUEST_MODULES
from benchbox.images.oci import derive_oci
from benchbox.images.own import PACKAGE_NAME, OwnImage
from benchbox.images.store import Progress, disk_bytes
from benchbox.images.tree import Entry
from benchbox.linux import removal
from benchbox.model import Availability, Image
from benchbox.native import program

__all__ = [
    "GUEST_MODULES",
    "PACKAGES",
    "PACKAGE_NAME",
    "TABLE",
    "GuestKernel",
    "OwnImage",
    "availability",
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
TABLE: Final[Mapping[str, Callable[[Progress | None], list[Entry]]]] = {
    "minimal": minimal.entries,
    copy_up.NAME: copy_up.entries,
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


def availability(source: str | OwnImage) -> Availability:
    """Say, without making it, whether this host has the image, or the programs that it is made with.

    Raises ImageError where there is no cache.
    """
    packages = PACKAGES.get(source, ()) if isinstance(source, str) else own.all_packages(source)
    return distribution.offered(packages) if packages else Availability.yes()


def open_image(source: str | OwnImage, progress: Progress | None = None) -> Image:
    """Return an image by its name, or one of the user's own, from the store; made if it is not there as it was made.

    Raises ImageError for an unknown name, for what is refused, or when the store cannot be written, UnavailableError
    when a program that belongs in it is not part of this installation.
    """
    if isinstance(source, str):
        return _stored(source, TABLE[known_image(source)](progress))
    return _open_archive(source, progress) if own.is_archive(source) else _open_own(source, progress)


def _open_own(source: OwnImage, progress: Progress | None) -> Image:
    if problem := source.problem():
        raise ImageError(f"{source}: {problem}")
    return _completed(source, own.entries(source, progress), progress)


def _open_archive(source: OwnImage, progress: Progress | None) -> Image:
    """Unpack it once for all: the store then knows which tree came of it."""
    file = own.looked_at(source)
    opened: list[Image] = []

    def make(entry: Path) -> None:
        if progress:
            progress(f"image {source.name}: unpacking {source.path}")
        contents = entry / "contents"
        contents.mkdir(mode=0o700)
        opened.append(_completed(source, own.unpacked(source, file, contents), progress))
        removal.remove(contents)
        (entry / inventory.NAME_FILE).write_text(source.name)
        store.seal(entry, inventory.NAME_FILE, {"digest": opened[0].digest, "source": str(source.path)})

    def valid(entry: Path) -> bool:
        digest = (store.unseal(entry, inventory.NAME_FILE) or {}).get("digest")
        found = _found(source.name, digest) if digest else None
        opened.extend([found] if found else [])
        return found is not None

    store.find_or_make("archives", _program_key(f"{source.kind}-{tree.content_sum(file)}"), make, valid=valid)
    return opened[0]


def _program_key(key: str) -> str:
    """Return ``key`` together with what may be added to the tree: benchbox's own programs."""
    sums = [tree.content_sum(program(name)) for name in own.PROGRAMS.values()]
    return f"{key}-{tree.content_sum(json.dumps(sums).encode())[:8]}"


def _completed(source: OwnImage, found: Sequence[Entry], progress: Progress | None) -> Image:
    entries, added = own.completed(str(source), found)
    if added and progress:
        progress(f"image {source.name}: added {', '.join(added)}")
    return _stored(source.name, entries, {"source": str(source), "added": " ".join(added)})


def _stored(name: str, entries: Sequence[Entry], facts: Mapping[str, str] | None = None) -> Image:
    sums = tree.file_sums(entries)
    digest = tree.digest(entries, sums)

    def make(entry: Path) -> None:
        tree.write(entries, entry / "root")
        (entry / inventory.NAME_FILE).write_text(name)
        if facts is not None:
            store.seal(entry, inventory.NAME_FILE, {"digest": digest, **facts})
        if not _holds(entry, digest):
            raise ImageError(f"image {name}: a file of it changed while it was made", hint="run the command again")

    root = store.find_or_make("store", digest, make, valid=lambda entry: _holds(entry, digest)) / "root"
    return Image(name, digest, root, tree.executables(entries, sums))


def _found(name: str, digest: str) -> Image | None:
    """Return the image with ``digest`` if the store has it as it was made."""
    root = store.entry_path("store", digest) / "root"
    try:
        found = tree.scan(root)
        sums = tree.file_sums(found)
        return Image(name, digest, root, tree.executables(found, sums)) if tree.digest(found, sums) == digest else None
    except (OSError, ImageError):
        return None


def content_bytes(image: Image) -> int:
    """Return the size of all files of ``image`` together."""
    return sum(tree.size_bytes(entry.content) for entry in tree.scan(image.root))


def _holds(entry: Path, digest: str) -> bool:
    """Say whether the tree in ``entry`` is still the one with ``digest``: all of it is read."""
    try:
        found = tree.scan(entry / "root")
        return tree.digest(found, tree.file_sums(found)) == digest
    except (OSError, ImageError):
        return False
