"""The store in the user's cache folder: made once, renamed into place, never written into again.

``<cache>/<kind>/<key>/`` is one finished entry. It is made in a temporary folder beside it and renamed, so that it is
either whole or not there, whatever interrupts its making and however many processes make it at once.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchbox.errors import ImageError
from benchbox.images.tree import content_sum
from benchbox.linux import removal
from benchbox.linux.state import cache_folder, make_cache_folder

#: Tells the user in one line what takes long (a download) or what was left out.
Progress = Callable[[str], None]

#: What ``seal`` wrote down of an entry.
SEAL: Final = "seal.json"
_TEMPORARY: Final = ".making-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


def find_or_make(kind: str, key: str, make: Callable[[Path], None], *, valid: Callable[[Path], bool]) -> Path:
    """Return the entry ``key`` of ``kind``, made by ``make(empty folder)`` if there is none that is ``valid``.

    An entry that is not valid is made again. Raises ImageError when the cache folder cannot be written.
    """
    entry = entry_path(kind, key)
    if entry.is_dir():
        if valid(entry):
            return entry
        discard(entry)
    with _temporary(entry.parent) as folder:
        make(folder)
        os.sync()
        _publish(folder, entry)
    return entry


def entry_path(kind: str, key: str) -> Path:
    """Return where the entry ``key`` of ``kind`` is or would be.

    Raises ImageError for a name that leaves its folder, TrustError where another user could have made the entry.
    """
    for name in (kind, key):
        if not _NAME.fullmatch(name):
            raise ImageError(f"{name!r} cannot name an entry of the store")
    return cache_folder(kind, key)


def seal(entry: Path, name: str, facts: Mapping[str, str | None] = MappingProxyType({})) -> None:
    """Write down ``facts`` of an entry that is being made and the sum of its file ``name`` (it may be missing).

    Others may read the file whatever the umask is: QEMU often runs as a user of its own.
    """
    if (entry / name).exists():
        (entry / name).chmod(0o644)
    (entry / SEAL).write_text(json.dumps({"facts": dict(facts), "sha256": _sum(entry / name)}))


def unseal(entry: Path, name: str) -> dict[str, str | None] | None:
    """Return the facts that ``seal`` wrote down; None if the file ``name`` is not as it was then."""
    try:
        sealed = json.loads((entry / SEAL).read_text())
        return dict(sealed["facts"]) if sealed["sha256"] == _sum(entry / name) else None
    except (OSError, ValueError, KeyError, TypeError, ImageError):
        return None


def _sum(path: Path) -> str | None:
    return content_sum(path) if path.exists() else None


def disk_bytes() -> dict[str, int]:
    """Return the disk space that the cache takes by kind of entry, unfinished ones included; empty if there is none."""
    folder = cache_folder()
    kinds = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {kind.name: allocated_bytes(kind) for kind in kinds}


def allocated_bytes(path: Path) -> int:
    """Return the disk space that a file, or a folder with all in it, takes."""
    total = path.lstat().st_blocks * 512
    left = [str(path)]
    while left:
        # Not by os.walk, which recurses in Python 3.11. What vanishes or lies too deep for a path is little.
        with contextlib.suppress(OSError), os.scandir(left.pop()) as items:
            for item in items:
                with contextlib.suppress(FileNotFoundError):
                    total += item.stat(follow_symlinks=False).st_blocks * 512
                left += [item.path] if item.is_dir(follow_symlinks=False) else []
    return total


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in ``parent`` that is removed unless it was renamed, at the latest by the next maker."""
    try:
        make_cache_folder(parent.name)
        _sweep(parent)
        folder, lock = _locked_folder(parent)
    except OSError as error:
        hint = "set BENCHBOX_CACHE to a folder that can be written"
        raise ImageError(f"{parent}: cannot be written: {error.strerror}", hint=hint) from error
    try:
        yield folder
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space there, or set BENCHBOX_CACHE to another folder" if full else None
        raise ImageError(f"{error.filename or parent}: {error.strerror}", hint=advice) from error
    finally:
        removal.try_remove(folder)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """Return a new folder and a descriptor that holds its lock for as long as its maker lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # swept by another process before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if _try_lock(lock) is not False and folder.exists():
                folder.chmod(0o755)
                return folder, lock
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove the temporary folders in ``parent`` whose makers have gone: nobody holds their lock."""
    for folder in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if _try_lock(lock):
                removal.try_remove(folder)
            os.close(lock)


def _try_lock(descriptor: int) -> bool | None:
    """Say whether the lock is ours now; None on a file system that cannot lock folders (NFS)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _publish(folder: Path, entry: Path) -> None:
    try:
        folder.rename(entry)
    except OSError:
        if not entry.is_dir():
            raise  # else another process was first: the same key means the same contents


def discard(entry: Path) -> None:
    """Take an entry away at once, then remove it: it is never there in part. Raises ImageError."""
    with _temporary(entry.parent) as folder, contextlib.suppress(FileNotFoundError):
        entry.rename(folder / "gone")
