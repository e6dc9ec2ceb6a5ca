"""A root file system as a list of entries: checked, digested, written to disk and read back.

Owners and times are no part of a tree: on disk its files belong to whoever made the store, in a guest to root, and
every time is ``MTIME_S``.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from benchbox.errors import ImageError

#: The modification time of everything in an image (2020-01-01 UTC): the same input gives the same bytes.
MTIME_S: Final = 1_577_836_800
#: As many parts of a path, those of links included, as are followed.
_PARTS_MAX: Final = 320
_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file in a folder that somebody else may change: it is read as it was looked at, ``status``, or not at all."""

    path: Path
    status: os.stat_result

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> io.BufferedReader:
        """Open the very file that was looked at. Raises OSError, and ImageError where its path leads to another by now.

        O_PATH opens nothing yet, open(2): no device or pipe in its place takes notice.
        """
        place = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        try:
            if _identity(os.fstat(place)) != _identity(self.status):
                raise ImageError(f"{self.path}: changed while it was read", hint="run the command again")
            return Path(f"/proc/self/fd/{place}").open("rb")
        finally:
            os.close(place)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from every other, and from itself once it has changed."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class Entry:
    """One file, folder, symbolic link or character device.

    ``path`` is relative to the root, without ``.`` and ``..``; ``mode`` holds type and permissions as in ``st_mode``;
    ``content`` is a file's bytes or where they are read from; ``device`` is (major, minor).
    """

    path: str
    mode: int
    content: "Content" = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)


Content = bytes | Path | Source


def folder(path: str, permissions: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | permissions)


def file(path: str, content: Content, permissions: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | permissions, content=content)


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target=target)


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def plain(entry: Entry) -> Entry:
    """Return ``entry`` without set-user-id and set-group-id, readable by its owner: the store is read by it."""
    if stat.S_ISLNK(entry.mode):
        return entry
    readable = 0o700 if stat.S_ISDIR(entry.mode) else 0o400
    return replace(entry, mode=entry.mode & ~(stat.S_ISUID | stat.S_ISGID) | readable)


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Return ``entries`` by path, each folder before what is in it.

    Raises ImageError for a path that could leave the root (``..``, absolute, through a link), one that is given twice
    and one whose folder is missing.
    """
    result = sorted(entries, key=lambda entry: entry.path.split("/"))
    folders = {"": True}
    for entry in result:
        parent, _, name = entry.path.rpartition("/")
        plain = name not in ("", ".", "..") and not entry.path.startswith("/") and "\0" not in entry.path
        if not plain or entry.path in folders or not folders.get(parent, False):
            raise ImageError(f"image entry {entry.path!r}: no path of its own inside a folder of the image")
        folders[entry.path] = stat.S_ISDIR(entry.mode)
    return result


def digest(entries: Iterable[Entry], sums: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of a tree: of one line ``mode path content`` an entry, with NUL as separator.

    ``content`` is the sha256 of a file, the target of a link, ``major:minor`` of a device; ``sums`` are those of
    ``file_sums``.
    """
    lines = (
        f"{entry.mode:o}\0{entry.path}\0{sums.get(entry.path) or entry.target or '{}:{}'.format(*entry.device)}\n"
        for entry in ordered(entries)
    )
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def file_sums(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the sha256 (hex) of each regular file by its path. Raises ImageError for one that cannot be read."""
    return {entry.path: content_sum(entry.content) for entry in entries if stat.S_ISREG(entry.mode)}


def content_sum(content: Content) -> str:
    """Return the sha256 (hex) of ``content``. Raises ImageError for a file that cannot be read."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    found = hashlib.sha256()
    try:
        for piece in _pieces(content):
            found.update(piece)
        return found.hexdigest()
    except OSError as error:
        raise ImageError(f"{content}: {error.strerror}") from error


def opened(content: Path | Source) -> io.BufferedReader:
    """Return an open file. Raises OSError, and ImageError for a source that is not what it was."""
    return content.open() if isinstance(content, Source) else content.open("rb")


def _pieces(content: Path | Source) -> Iterator[bytes]:
    """Yield what is in a file, no more than it was long at first: somebody may go on writing to it for ever."""
    left = size_bytes(content)
    with opened(content) as stream:
        while left and (piece := stream.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            yield piece


def size_bytes(content: Content) -> int:
    """Return how long a file is. Raises OSError."""
    if isinstance(content, Source):
        return content.status.st_size
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def executables(entries: Iterable[Entry], sums: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of each file that may be executed, by its absolute path inside the root."""
    return {f"/{e.path}": sums[e.path] for e in entries if stat.S_ISREG(e.mode) and e.mode & 0o111}


def write(entries: Sequence[Entry], root: Path) -> None:
    """Write a tree (no devices: they need privileges) into the new folder ``root``; the umask plays no part.

    It is open to others once it is whole: before that they could read what is to be closed, or write among it.
    """
    root.mkdir(mode=0o700)
    in_order = ordered(entries)
    for entry in in_order:
        _write_entry(entry, root / entry.path)
    for path in (*(root / entry.path for entry in reversed(in_order)), root):
        os.utime(path, (MTIME_S, MTIME_S), follow_symlinks=False)
    root.chmod(0o755)


def _write_entry(entry: Entry, path: Path) -> None:
    if stat.S_ISDIR(entry.mode):
        path.mkdir()
    elif stat.S_ISREG(entry.mode):
        with path.open("xb") as stream:
            copy_content(entry.content, stream)
    elif stat.S_ISLNK(entry.mode):
        return path.symlink_to(entry.target)
    else:
        raise ImageError(f"image entry {entry.path!r}: neither file, folder nor symbolic link")
    return path.chmod(stat.S_IMODE(entry.mode))


def copy_content(content: Content, output: BinaryIO) -> int:
    """Copy a file's bytes to ``output`` and return how many they are."""
    if isinstance(content, bytes):
        return output.write(content)
    return sum(map(output.write, _pieces(content)))


def scan(root: Path) -> list[Entry]:
    """Return the tree at ``root`` as ``write`` made it. Raises OSError for what cannot be read."""
    found = []
    for parent, folders, files in os.walk(root, onerror=_raise):
        found += [_scan_entry(Path(parent, name), root) for name in (*folders, *files)]
    return ordered(found)


def _scan_entry(path: Path, root: Path) -> Entry:
    status = path.lstat()
    name = path.relative_to(root).as_posix()
    if stat.S_ISLNK(status.st_mode):
        return link(name, link_target(path))
    device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return Entry(name, status.st_mode, content=path if stat.S_ISREG(status.st_mode) else b"", device=device)


def link_target(path: Path) -> str:
    """Return what the symbolic link ``path`` says, letter by letter: Path.readlink would tidy it."""
    return os.readlink(path)  # noqa: PTH115


def followed(path: str, target: Callable[[str], str | None]) -> str | None:
    """Return ``path``, relative to a root, with all links on its way followed inside it, as a process in it would.

    ``target`` says what the link at a path inside the root says, None where there is no link. None for links that have
    no end.
    """
    left, done = path.split("/")[::-1], ""
    for _ in range(_PARTS_MAX):
        if not left:
            return done
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{part}".lstrip("/")
        leads_to = target(here)
        if leads_to is None:
            done = here
            continue
        done = "" if leads_to.startswith("/") else done
        left += leads_to.split("/")[::-1]
    return None


def _raise(error: OSError) -> None:
    raise error
