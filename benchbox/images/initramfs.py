"""The guest's first root file system, derived once for each kernel and agent: with the image in it, or for its disk."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchbox.images import cpio, store, tree
from benchbox.images.kernels import GuestKernel
from benchbox.images.modules import GUEST_MODULES, needed
from benchbox.images.tree import Entry, character_device, file, folder
from benchbox.model import Image

#: Where the tree of the image is inside the initramfs, and where the modules are, in the order of their names.
IMAGE_FOLDER: Final = "image"
MODULES_FOLDER: Final = "modules"
#: The file that names the disk with the image, by its serial number, where the image is not in the initramfs.
ROOT_DISK_FILE: Final = "root-disk"
#: Part of the key in the store: raise it when ``layout`` or ``cpio`` give other bytes for the same input.
_FORMAT_VERSION: Final = 1
_FILE: Final = "initramfs.cpio"


def derive_initramfs(image: Image, kernel: GuestKernel, agent: Path, modules: Sequence[str] = GUEST_MODULES) -> Path:
    """Return the initramfs that boots ``image`` under ``kernel`` with ``agent`` as its first process.

    It holds ``/init`` (the agent), ``/modules/NN-NAME.ko`` in load order for ``modules`` and what they depend on,
    ``/image`` (the tree of the image) and ``/dev/console``. Raises ImageError when a module is missing.
    """
    loaded = _loaded(kernel, modules)
    return _made(_key(image.digest, kernel, agent, loaded), lambda: layout(tree.scan(image.root), agent, loaded))


def derive_disk_initramfs(kernel: GuestKernel, agent: Path, serial: str, modules: Sequence[str]) -> Path:
    """Return the initramfs that boots an image from the disk with the serial number ``serial``, whichever image it is.

    It is that of ``derive_initramfs`` with an empty ``/image`` and the file ``/root-disk``.
    """
    loaded = _loaded(kernel, modules)
    named = file(ROOT_DISK_FILE, serial.encode())
    return _made(_key(serial, kernel, agent, loaded), lambda: [*layout((), agent, loaded), named])


def _loaded(kernel: GuestKernel, modules: Sequence[str]) -> list[tuple[str, bytes]]:
    return needed(modules, kernel.modules_dir) if kernel.modules_dir else []


def _made(key: str, contents: Callable[[], Iterable[Entry]]) -> Path:
    def make(entry: Path) -> None:
        with (entry / _FILE).open("xb") as output:
            cpio.write(contents(), output)
        store.seal(entry, _FILE)

    return (
        store.find_or_make("initramfs", key, make, valid=lambda entry: store.unseal(entry, _FILE) is not None) / _FILE
    )


def layout(image: Iterable[Entry], agent: Path, modules: Sequence[tuple[str, bytes]]) -> list[Entry]:
    """Return the entries of a guest's initramfs: ``agent`` as /init, modules (name, contents) in load order."""
    return [
        *map(folder, ("dev", IMAGE_FOLDER, MODULES_FOLDER, "proc", "sys")),
        folder("tmp", 0o1777),
        character_device("dev/console", 5, 1),
        file("init", agent, 0o755),
        *(file(f"{MODULES_FOLDER}/{n:02d}-{name}.ko", data) for n, (name, data) in enumerate(modules)),
        *(replace(entry, path=f"{IMAGE_FOLDER}/{entry.path}") for entry in image),
    ]


def _key(root: str, kernel: GuestKernel, agent: Path, modules: Iterable[tuple[str, bytes]]) -> str:
    """Return the key in the store; ``root`` is the digest of the image, or the serial number of its disk."""
    sums = [(name, tree.content_sum(data)) for name, data in modules]
    inputs = (_FORMAT_VERSION, root, kernel.sha256, tree.content_sum(agent), sums)
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
