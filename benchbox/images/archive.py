"""Tar archives that somebody else made, as the entries of a tree; layer upon layer, where an image has several.

Nothing is unpacked to where an archive says. Contents go into numbered files of a folder, names are only compared, and
the tree is written by ``tree.write`` once all of it is known. What could leave the root, what is no file, folder or
link, and what is more than ``BOUNDS`` is refused with the archive, its entry and the reason.
"""

import contextlib
import gzip
import itertools
import lzma
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tarfile import TarInfo
from typing import IO, BinaryIO, Final, Literal, cast

from benchbox.errors import ImageError
from benchbox.images import tree
from benchbox.images.tree import Entry, Source
from benchbox.units import format_size

#: What a layer writes beside or into a folder so that something of the layers below is not there any more:
#: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"

_CHUNK_BYTES: Final = 1 << 20
#: No name, link or table of attributes is longer; tarfile reads each of them at once.
_HEADER_BYTES_MAX: Final = 1 << 20
#: All that tarfile reads, and keeps, for one entry: several of these, or a map of where a sparse file has its bytes.
_HEADERS_BYTES_MAX: Final = 4 << 20
#: Attributes of the whole archive are looked at for each entry of it.
_GLOBALS_MAX: Final = 64
#: What walks through a tree, mke2fs for one, takes memory and descriptors for each.
_DEPTH_MAX: Final = 128
_PATH_BYTES_MAX: Final = 2048
_SHOWN_CHARACTERS: Final = 200
_NAME_BYTES_MAX: Final = 255
_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
#: Formats that are known well enough to name them.
_OTHERS: Final = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}


@dataclass(frozen=True)
class Bounds:
    """How much an image may be: entries, bytes of all that is unpacked, bytes of all paths and targets of links."""

    entries: int = 300_000
    content_bytes: int = 16 << 30
    name_bytes: int = 128 << 20


BOUNDS: Final = Bounds()


class Allowance:
    """What of the bounds is left. Raises ImageError that names archive and entry for what is more."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._entries_left, self._content_left = bounds.entries, bounds.content_bytes
        self._names_left = bounds.name_bytes

    def take_entry(self, archive: str, path: str, target: str = "") -> None:
        """One entry of the tree, or one that says something of it."""
        self._entries_left -= 1
        self._names_left -= len((path + target).encode(errors="surrogateescape"))
        if self._entries_left < 0:
            raise refuse(archive, path, f"more than {self._bounds.entries} entries")
        if self._names_left < 0:
            raise refuse(archive, path, f"names of more than {format_size(self._bounds.name_bytes)} in all")

    def take_content(self, archive: str, path: str, size_bytes: int) -> None:
        """Bytes of a file, once for each of its names: each becomes a file of its own."""
        self._content_left -= size_bytes
        if self._content_left < 0:
            raise refuse(archive, path, f"more than {format_size(self._bounds.content_bytes)} in all")


def refuse(archive: str, entry: str | None, reason: str, hint: str | None = None) -> ImageError:
    """Return the error that says what of which archive is refused, and why."""
    where = f"{archive}: " if entry is None else f"{archive}: entry {entry[:_SHOWN_CHARACTERS]!r}: "
    return ImageError(f"{where}{reason}", hint=hint)


def look(path: Path, archive: str, entry: str | None = None) -> Source:
    """Return the file at ``path`` as it is now. Raises ImageError for what is no file, or larger than an image."""
    try:
        status = path.stat()
    except OSError as error:
        raise refuse(archive, entry, str(error.strerror)) from error
    if not stat.S_ISREG(status.st_mode):
        raise refuse(archive, entry, "no file")
    if status.st_size > BOUNDS.content_bytes:
        raise refuse(archive, entry, f"more than {format_size(BOUNDS.content_bytes)}")
    return Source(path, status)


def path_in_root(archive: str, name: str) -> str:
    """Return ``name`` relative to the root, "" for the root itself. Raises ImageError for one that is not in it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        raise refuse(archive, name, "an absolute path")
    if ".." in parts:
        raise refuse(archive, name, "its path leads upwards (..)")
    if any(character < " " or character == "\x7f" for character in name):
        raise refuse(archive, name, "a control character in its name")
    sizes = [len(part.encode(errors="surrogateescape")) for part in parts]
    if any(size > _NAME_BYTES_MAX for size in sizes) or sum(sizes) + len(parts) > _PATH_BYTES_MAX:
        raise refuse(archive, name, "its name is too long")
    if len(parts) > _DEPTH_MAX:
        raise refuse(archive, name, f"it lies deeper than {_DEPTH_MAX} folders")
    return "/".join(parts)


def check_link(archive: str, path: str, target: str) -> None:
    """Raise ImageError for a symbolic link at ``path`` that leads above the root; an absolute one begins at it."""
    depth = 0 if target.startswith("/") else path.count("/")
    if not target or "\0" in target or len(target.encode(errors="surrogateescape")) > _PATH_BYTES_MAX:
        raise refuse(archive, path, "a link to nothing that a path could be")
    for part in target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise refuse(archive, path, f"a link that leaves the root (to {target[:_SHOWN_CHARACTERS]!r})")


@dataclass
class Node:
    """One entry of a growing tree, with what is in it."""

    entry: Entry
    children: dict[str, "Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: ``kind`` says whether it is there, is another name of ``target``, or is gone."""

    path: str
    kind: Literal["entry", "hard link", "whiteout", "opaque"]
    entry: Entry | None = None
    target: str = ""


class Unpacking:
    """A tree that grows by one archive after another."""

    def __init__(self, contents: Path, bounds: Bounds = BOUNDS) -> None:
        """``contents`` is an empty folder for the contents of files."""
        self._contents, self._bounds = contents, bounds
        self._root = Node(tree.folder(""))
        self._numbers = itertools.count()
        self._allowance = Allowance(bounds)

    def add(self, path: Path | Source, *, name: str | None = None, layer: bool = False) -> None:
        """Lay what is in the archive at ``path`` over the tree; messages call it ``name``.

        A ``layer`` may say that something of those below is gone. Raises ImageError for what is refused.
        """
        called = name or str(path)
        with _opened(path, called, self._bounds.content_bytes) as stream:
            members = list(self._members(called, stream, layer))
        for member in (each for each in members if each.kind in ("whiteout", "opaque")):
            self._take_away(member)
        for member in members:
            self._put(called, member)

    def entries(self) -> list[Entry]:
        """Return the tree as it is now."""
        found, left = [], list(self._root.children.values())
        while left:
            node = left.pop()
            found.append(tree.plain(node.entry))
            left += node.children.values()
        return tree.ordered(found)

    # ---- what is in an archive --------------------------------------------------------------------------------------

    def _members(self, archive: str, stream: "Forward", layer: bool) -> Iterator[Member]:
        try:
            with tarfile.open(
                fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as tar:
                while (info := self._next(tar, stream)) is not None:
                    if len(tar.pax_headers) > _GLOBALS_MAX:
                        raise refuse(archive, info.name, f"more than {_GLOBALS_MAX} attributes of the whole archive")
                    if (member := self._member(archive, tar, info, layer)) is not None:
                        yield member
        except tarfile.ReadError as error:
            raise refuse(archive, None, f"no tar archive, or a broken one: {error}") from error
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise refuse(archive, None, f"a broken tar archive: {error}") from error

    def _next(self, tar: tarfile.TarFile, stream: "Forward") -> TarInfo | None:
        tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
        stream.headers_left = _HEADERS_BYTES_MAX
        info = tar.next()
        stream.headers_left = None
        return info

    def _member(self, archive: str, tar: tarfile.TarFile, info: TarInfo, layer: bool) -> Member | None:
        path = path_in_root(archive, info.name)
        self._allowance.take_entry(archive, path, info.linkname)
        if not path:
            return None
        parent, _, name = path.rpartition("/")
        if layer and name == OPAQUE:
            return Member(parent, "opaque")
        if layer and name.startswith(WHITEOUT):
            return _whiteout(archive, info.name, parent, name.removeprefix(WHITEOUT))
        if info.islnk():
            return Member(path, "hard link", target=path_in_root(archive, info.linkname))
        return Member(path, "entry", self._entry(archive, tar, info, path))

    def _entry(self, archive: str, tar: tarfile.TarFile, info: TarInfo, path: str) -> Entry:
        permissions = info.mode & 0o7777
        if info.isdir():
            return tree.folder(path, permissions)
        if info.issym():
            check_link(archive, path, info.linkname)
            return tree.link(path, info.linkname)
        if info.isreg():
            return tree.file(path, self._content(archive, tar, info), permissions)
        device = info.ischr() or info.isblk()
        what = "a device" if device else "a named pipe" if info.isfifo() else f"of an unknown type ({info.type!r})"
        hint = "leave it out: environments have a /dev of their own" if device else "leave it out of the archive"
        raise refuse(archive, info.name, what, hint)

    def _content(self, archive: str, tar: tarfile.TarFile, info: TarInfo) -> Path:
        path = self._contents / f"{next(self._numbers):08d}"
        source = tar.extractfile(info)
        with path.open("xb") as output:
            while source and (chunk := source.read(_CHUNK_BYTES)):
                self._allowance.take_content(archive, info.name, len(chunk))
                output.write(chunk)
        if path.stat().st_size != info.size:
            raise refuse(archive, info.name, "the archive ends in it")
        return path

    # ---- what becomes of the tree -----------------------------------------------------------------------------------

    def _take_away(self, member: Member) -> None:
        parent, _, name = member.path.rpartition("/")
        node = self._find(member.path if member.kind == "opaque" else parent)
        if node is None:
            return
        if member.kind == "opaque":
            node.children.clear()
        else:
            node.children.pop(name, None)

    def _put(self, archive: str, member: Member) -> None:
        if member.kind == "hard link":
            original = self._find(member.target)
            if original is None or not stat.S_ISREG(original.entry.mode):
                raise refuse(archive, member.path, f"a hard link to {member.target!r}, which is no file of the image")
            self._allowance.take_content(archive, member.path, tree.size_bytes(original.entry.content))
            self._place(archive, replace(original.entry, path=member.path))
        elif member.entry is not None:
            self._place(archive, member.entry)

    def _place(self, archive: str, entry: Entry) -> None:
        parent, _, name = entry.path.rpartition("/")
        siblings = self._folder(archive, entry.path, parent).children
        there = siblings.get(name)
        if there is not None and stat.S_ISDIR(there.entry.mode) and stat.S_ISDIR(entry.mode):
            there.entry = entry
        else:
            siblings[name] = Node(entry)

    def _folder(self, archive: str, path: str, parent: str) -> Node:
        """Return the folder ``parent``, made where it is missing: archives may leave it out."""
        node, so_far = self._root, ""
        for part in parent.split("/") if parent else ():
            so_far = f"{so_far}/{part}".lstrip("/")
            if part not in node.children:
                self._allowance.take_entry(archive, so_far)
                node.children[part] = Node(tree.folder(so_far))
            node = node.children[part]
            if not stat.S_ISDIR(node.entry.mode):
                raise refuse(archive, path, f"it lies in {so_far!r}, which is no folder")
        return node

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._root
        for part in path.split("/") if path else ():
            node = node and node.children.get(part)
        return node


def _whiteout(archive: str, entry: str, parent: str, name: str) -> Member:
    if name in ("", ".", ".."):
        raise refuse(archive, entry, "takes away nothing that an image could have")
    return Member(f"{parent}/{name}".lstrip("/"), "whiteout")


class Forward:
    """A stream that tarfile reads: never back (but for one byte, as it does), in bounded pieces, to a bounded end."""

    def __init__(self, stream: BinaryIO, name: str, limit_bytes: int) -> None:
        self._stream, self._name, self._left = stream, name, limit_bytes
        self._at, self._last, self._back = 0, b"", False
        #: How much of headers may still be read; None while contents are.
        self.headers_left: int | None = _HEADERS_BYTES_MAX

    def tell(self) -> int:
        return self._at - self._back

    def seek(self, position: int) -> int:
        if self._last and position == self._at - 1:
            self._back = True
            return position
        if position < self._at:
            raise tarfile.ReadError("an entry of negative size")
        self._back = False
        while self._at < position and self._take(min(position - self._at, _CHUNK_BYTES)):
            pass
        return self._at

    def read(self, size: int = -1) -> bytes:
        if self.headers_left is not None:
            self.headers_left -= size
        if not 0 <= size <= _HEADER_BYTES_MAX or (self.headers_left or 0) < 0:
            raise tarfile.ReadError("a header that is too large")
        if not self._back or not size:
            return self._take(size)
        self._back = False
        return self._last + self._take(size - 1)

    def close(self) -> None:
        self._stream.close()

    def _take(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        pieces = []
        while size and (piece := self._read(size)):
            pieces.append(piece)
            size -= len(piece)
        data = b"".join(pieces)
        self._at += len(data)
        self._last = data[-1:] or self._last
        return data

    def _read(self, size: int) -> bytes:
        if self._left <= 0:
            raise refuse(self._name, None, "unpacks to more than an image may be")
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


@contextlib.contextmanager
def _opened(path: Path | Source, name: str, limit_bytes: int) -> Iterator[Forward]:
    """Yield what is in the file, unpacked. Headers come on top of the contents: as much again is more than enough."""
    try:
        with tree.opened(path) as file, _unpacked(file, name) as stream:
            yield Forward(stream, name, 2 * limit_bytes + (1 << 20))
    except (EOFError, zlib.error, lzma.LZMAError, _zstd_error(), gzip.BadGzipFile) as error:
        raise refuse(name, None, f"broken compressed data: {error}") from error
    except OSError as error:
        raise ImageError(f"{error.filename or name}: {error.strerror or error}") from error


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
    """Return a stream of the contents of ``file``, packed by gzip, zstd or not at all, as its first bytes say."""
    head = file.read(8)
    file.seek(0)
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD):
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=128 << 20)
        return cast("BinaryIO", decompressor.stream_reader(file, read_across_frames=True, closefd=False))
    for magic, format_name in _OTHERS.items():
        if head.startswith(magic):
            raise refuse(name, None, f"packed with {format_name}", "pack it with gzip or zstd, or not at all")
    return file
