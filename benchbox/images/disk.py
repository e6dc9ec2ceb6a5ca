"""A disk with the tree of an image, for guests: ext4 without a journal, never written to.

``mke2fs -d`` fills it, as mke2fs(8) of e2fsprogs says, and debugfs(8) gives every file the same owner and times: then
it is a function of the tree alone (and of the version of e2fsprogs). It is derived once for each image.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchbox import remedies
from benchbox.errors import ImageError, UnavailableError
from benchbox.images import inventory, store, tree
from benchbox.images.tree import MTIME_S, Entry
from benchbox.linux import processes
from benchbox.model import Availability, Image

KIND: Final = "disk"
BLOCK_BYTES: Final = 4096
#: Part of the key in the store: raise it when the same tree would give another disk.
_FORMAT_VERSION: Final = 1
_FILE: Final = "root.ext4"
_UUID: Final = "62656e63-6862-4f78-8000-000000000001"
_HASH_SEED: Final = "62656e63-6862-4f78-8000-000000000002"
_INODE_BYTES: Final = 256
_FIRST_INODE: Final = 12  # 1 to 10 are the file system's own (2 is the root), 11 is lost+found
_FEATURES: Final = "none,extent,filetype,dir_index,sparse_super,large_file,64bit,flex_bg,ext_attr,extra_isize,dir_nlink"
_FOLDERS: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_TIMEOUT_S: Final = 600.0
_ENVIRONMENT: Final = {"E2FSPROGS_FAKE_TIME": str(MTIME_S), "SOURCE_DATE_EPOCH": str(MTIME_S), "LC_ALL": "C"}


def availability() -> Availability:
    """Say whether this host has the programs that make the disk."""
    missing = [name for name in ("mke2fs", "debugfs") if _program(name) is None]
    if missing:
        return remedies.lacking(
            f"{' and '.join(missing)} not installed, which make the disk of an image",
            missing,
            otherwise="set root: ram, with memory enough for the image",
        )
    return Availability.yes()


def _program(name: str) -> str | None:
    """Return the path of a program that an ordinary user's PATH often leaves out."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS)))


def derive_disk(image: Image) -> Path:
    """Return the file of a disk with the tree of ``image``: one file system, no partitions, sparse.

    Raises UnavailableError where e2fsprogs is not installed, ImageError where it cannot be made.
    """

    def make(entry: Path) -> None:
        missing = availability()
        if not missing.available:
            raise UnavailableError(str(missing.reason), hint=missing.fix)
        write(image.root, entry / _FILE)
        (entry / inventory.NAME_FILE).write_text(image.name)
        store.seal(entry, _FILE)

    key = f"{image.digest}-{_FORMAT_VERSION}"
    return store.find_or_make(KIND, key, make, valid=lambda entry: store.unseal(entry, _FILE) is not None) / _FILE


def write(root: Path, disk: Path) -> None:
    """Write the tree at ``root`` (files, folders, symbolic links) to the new file ``disk``. Raises ImageError."""
    entries = tree.scan(root)
    _run(make_words(root, disk, len(entries), size_bytes(entries)))
    own = any(entry.path == "lost+found" for entry in entries)
    script = disk.with_name("owners")
    script.write_text("\n".join(settings(len(entries), lost_and_found=own)) + "\n")
    _run(["debugfs", "-w", "-f", str(script), str(disk)])
    script.unlink()


def size_bytes(entries: Iterable[Entry]) -> int:
    """Return a size that holds ``entries``, in whole MiB: what is not used takes no space in the file. Pure but for
    the sizes of files."""
    found = list(entries)
    blocks = sum(-(-_content_bytes(entry) // BLOCK_BYTES) for entry in found)
    names = sum(8 + len(os.fsencode(entry.path)) for entry in found)
    needed = blocks * BLOCK_BYTES + len(found) * (_INODE_BYTES + 16) + 2 * names
    return (needed + needed // 16 + (12 << 20)) >> 20 << 20


def _content_bytes(entry: Entry) -> int:
    if stat.S_ISREG(entry.mode):
        return tree.size_bytes(entry.content)
    return BLOCK_BYTES  # a folder has one at least, a link that is long


def make_words(root: Path, disk: Path, count: int, disk_bytes: int) -> list[str]:
    """Return the command that makes ``disk`` of the ``count`` entries at ``root``. Pure."""
    return [
        "mke2fs", "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", str(BLOCK_BYTES), "-I", str(_INODE_BYTES),
        "-m", "0", "-N", str(count + 64), "-U", _UUID, "-L", "benchbox",
        "-E", f"hash_seed={_HASH_SEED},root_owner=0:0,lazy_itable_init=0,nodiscard",
        "-d", str(root), str(disk), f"{disk_bytes >> 10}k",
    ]  # fmt: skip


def settings(count: int, *, lost_and_found: bool) -> list[str]:
    """Return what debugfs is to do with a fresh disk of ``count`` entries: everything is root's and of ``MTIME_S``.

    By inode number, so that no name of the tree is ever part of a command. ``lost_and_found``: that folder is the
    image's own and stays.
    """
    last = _FIRST_INODE + count - (1 if lost_and_found else 0)
    inodes = (2, *([_FIRST_INODE - 1] if lost_and_found else []), *range(_FIRST_INODE, last))
    fields = (("uid", "0"), ("gid", "0"), *((name, f"@{MTIME_S}") for name in ("atime", "ctime", "mtime")))
    made = [f"set_inode_field <{inode}> {name} {value}" for inode in inodes for name, value in fields]
    return [*([] if lost_and_found else ["rmdir lost+found"]), *made]


def _run(words: Sequence[str]) -> None:
    program = _program(words[0]) or words[0]
    done = processes.run([program, *words[1:]], timeout_s=_TIMEOUT_S, env=_ENVIRONMENT, check=False)
    errors = [line for line in done.stderr.strip().splitlines() if not line.startswith(f"{words[0]} ")]
    if done.status != 0 or errors:
        raise ImageError(f"{words[0]} could not make the disk of an image: {'; '.join(errors[-3:]) or done.status}")
