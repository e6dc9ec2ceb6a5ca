"""The same tree in every format that it may lie in, and what each weighs, exactly.

Each format is built three times: from the tree, from its *skeleton* (the same names, folders and links, all files
empty), and from the tree with one more file. The skeleton in a format is what the format itself costs, the rest is what
the content costs; the third says what a second image costs where the first one is there already.

Nothing here needs root: a file system is made from a folder by its own tool, and written to by ``debugfs``.
"""

import gzip
import hashlib
import io
import json
import os
import random
import re
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from benchbox.images import tree
from benchbox.images.tree import Entry, file
from benchbox.linux import removal

#: What is compared by: the programs and levels of the transfer sizes.
GZIP: Final = ("gzip", "-6", "-n", "-c")
ZSTD: Final = ("zstd", "-3", "-q", "-c", "-T1")
#: The clusters of a qcow2 file, qemu-img's default.
CLUSTER_BYTES: Final = 64 << 10
#: The file that is added, and the seed of its bytes, which do not compress.
CHANGE: Final = "added-by-benchbox"
_SEED: Final = 20200101
_BLOCK_BYTES: Final = 512
_MIB: Final = 1 << 20
_UUID: Final = "00000000-0000-4000-8000-000000000001"
_INODE_BYTES: Final = 16 << 10
#: The times of an ext4 inode that depend on when it was made.
_TIMES: Final = ("atime", "ctime", "crtime", "atime_extra", "ctime_extra", "crtime_extra")


@dataclass(frozen=True)
class Size:
    """What a file, or a folder with all in it, takes: the sum of lengths, and the disk blocks behind them.

    A file with several names counts once. A folder's own length is that which its file system shows.
    """

    apparent_bytes: int
    allocated_bytes: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.apparent_bytes + other.apparent_bytes, self.allocated_bytes + other.allocated_bytes)


class Tools(Protocol):
    """Runs the programs that formats are made with; raises EnvironmentFailure where one fails."""

    def run(self, argv: Sequence[str | Path], stdin: str | None = None) -> None: ...

    def count(self, argv: Sequence[str | Path], feed: Callable[[BinaryIO], Any]) -> int:
        """Return how many bytes a program writes when it is fed on its standard input."""


_TRANSFER: Final = (GZIP[0], ZSTD[0])

#: Format -> the programs that it is made with, the transfer sizes of all included.
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "directory": _TRANSFER,
    "oci": _TRANSFER,
    "squashfs": ("mksquashfs", *_TRANSFER),
    "erofs": ("mkfs.erofs", *_TRANSFER),
    "ext4": ("mke2fs", "debugfs", *_TRANSFER),
    "qcow2": ("mke2fs", "debugfs", "qemu-img", *_TRANSFER),
    "qcow2-compressed": ("mke2fs", "debugfs", "qemu-img", *_TRANSFER),
    "qcow2-overlay": ("mke2fs", "debugfs", "qemu-img", "qemu-io", *_TRANSFER),
    "kernel": _TRANSFER,
    "initramfs": _TRANSFER,
}


def measure(path: Path) -> Size:
    """Return what ``path`` takes, links not followed. Raises OSError."""
    seen: set[tuple[int, int]] = set()
    total = Size(0, 0)
    for each in _walk(path):
        status = each.lstat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += Size(status.st_size, status.st_blocks * _BLOCK_BYTES)
    return total


def settle(path: Path) -> None:
    """Wait until all of ``path`` is on the disk: what is not yet has no final number of blocks."""
    for each in _walk(path):
        if each.is_file() and not each.is_symlink():
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for parent, folders, files in os.walk(path):
            yield from (Path(parent, name) for name in (*folders, *files))


def content_bytes(entries: Sequence[Entry]) -> int:
    """Return the length of all files of a tree: what no format can do without, unless it compresses."""
    return sum(tree.size_bytes(entry.content) for entry in entries if stat.S_ISREG(entry.mode))


def skeleton(entries: Sequence[Entry]) -> list[Entry]:
    """Return the tree with all of its names and none of its bytes. Pure."""
    return [Entry(e.path, e.mode, b"", e.target, e.device) for e in entries]


def changed(entries: Sequence[Entry], change_bytes: int) -> list[Entry]:
    """Return the tree with the file CHANGE of ``change_bytes`` that do not compress. Pure."""
    return [*entries, file(CHANGE, noise(change_bytes))]


def noise(count: int) -> bytes:
    """Return ``count`` bytes that no program compresses, always the same."""
    return random.Random(_SEED).randbytes(count)


def write_tar(entries: Sequence[Entry], output: BinaryIO) -> None:
    """Write a tree as a tar archive (POSIX ustar, GNU for long names), the same bytes for the same tree."""
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for entry in tree.ordered(entries):
            _add(archive, entry)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mode, member.mtime = stat.S_IMODE(entry.mode), tree.MTIME_S
    if stat.S_ISDIR(entry.mode):
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    elif stat.S_ISLNK(entry.mode):
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
        archive.addfile(member)
    elif isinstance(entry.content, bytes):
        member.size = len(entry.content)
        archive.addfile(member, io.BytesIO(entry.content))
    else:
        with tree.opened(entry.content) as content:
            member.size = tree.size_bytes(entry.content)
            archive.addfile(member, content)


# --- one file or folder a format -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A tree in a format: where, and how long it took, of which ``convert_s`` from the file before (qcow2: raw)."""

    path: Path
    build_s: float
    convert_s: float | None = None


def build(name: str, entries: Sequence[Entry], folder: Path, tools: Tools, room_bytes: int = 0) -> Built:
    """Make the tree in the format ``name`` in the new ``folder``, with room for ``room_bytes`` more.

    The tree is written to a folder first; that is no part of the time.
    """
    folder.mkdir()
    root, target = folder / "tree", folder / name
    tree.write(entries, root)
    begun_s = time.monotonic()
    convert_s = _BUILDERS[name](root, target, entries, tools, room_bytes)
    built = Built(target, time.monotonic() - begun_s, convert_s)
    settle(target)
    if name != "directory":
        removal.remove(root)
    return built


def _directory(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> None:
    tree.write(entries, target)
    removal.remove(root)


def _oci(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> None:
    write_layout(target, [entries])


def _squashfs(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> None:
    words = ("-comp", "zstd", "-noappend", "-all-root", "-no-progress", "-quiet", "-no-xattrs", "-processors", "1")
    times = ("-mkfs-time", str(tree.MTIME_S), "-all-time", str(tree.MTIME_S))
    tools.run(["mksquashfs", root, target, *words, *times])


def _erofs(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> None:
    tools.run(["mkfs.erofs", "-zlz4hc", f"-T{tree.MTIME_S}", f"-U{_UUID}", "--all-root", "-x-1", target, root])


def _ext4(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> None:
    lengths = [tree.size_bytes(entry.content) for entry in entries if stat.S_ISREG(entry.mode)]
    size_bytes = file_system_bytes(lengths, len(entries), room_bytes)
    inodes = max(size_bytes // _INODE_BYTES, len(entries) * 5 // 4 + 64)
    extended = f"hash_seed={_UUID},root_owner=0:0"
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", _UUID, "-E", extended, "-N", str(inodes)]
    tools.run([*words, "-d", root, target, f"{size_bytes >> 10}k"])
    # mke2fs takes over when the copy was made, which is another moment each time; inode 10 is the last reserved one.
    inodes_used = (2, *range(11, 12 + len(entries)))
    orders = (f"sif <{inode}> {name} 0\n" for inode in inodes_used for name in _TIMES)
    tools.run(["debugfs", "-w", "-f", "-", target], stdin="".join(orders))


def _qcow2(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> float:
    return _converted(root, target, entries, tools, room_bytes, ())


def _qcow2_compressed(root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int) -> float:
    return _converted(root, target, entries, tools, room_bytes, ("-c",))


def _converted(
    root: Path, target: Path, entries: Sequence[Entry], tools: Tools, room_bytes: int, words: Sequence[str]
) -> float:
    raw = target.with_name("raw")
    _ext4(root, raw, entries, tools, room_bytes)
    begun_s = time.monotonic()
    tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *words, raw, target])
    taken_s = time.monotonic() - begun_s
    raw.unlink()
    return taken_s


_BUILDERS: Final[Mapping[str, Callable[[Path, Path, Sequence[Entry], Tools, int], float | None]]] = {
    "directory": _directory,
    "oci": _oci,
    "squashfs": _squashfs,
    "erofs": _erofs,
    "ext4": _ext4,
    "qcow2": _qcow2,
    "qcow2-compressed": _qcow2_compressed,
}


def file_system_bytes(lengths: Sequence[int], names: int, room_bytes: int) -> int:
    """Return the size of a file system for files of ``lengths`` in whole MiB. Pure.

    Each file in whole blocks of 4 KiB, a block and an inode for each name, a tenth more, and 16 MiB for journal and
    tables. What of it is not used takes no disk blocks: the file is sparse.
    """
    blocks_bytes = sum(-(-length // 4096) * 4096 for length in lengths) + names * (4096 + 256)
    needed_bytes = blocks_bytes * 11 // 10 + room_bytes + 16 * _MIB
    return -(-needed_bytes // _MIB) * _MIB


# --- OCI layout ------------------------------------------------------------------------------------------------------


def write_layout(target: Path, layers: Sequence[Sequence[Entry]]) -> list[int]:
    """Write an OCI image layout (image-spec 1.0) with ``layers`` as gzip -6; return the bytes of each layer's blob."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    made = [_write_layer(blobs, layer) for layer in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": machine, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in made]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _blob(blobs, config, f"{_OCI}.config.v1+json"),
        "layers": [descriptor for descriptor, _ in made],
    }  # fmt: skip
    index = {"schemaVersion": 2, "manifests": [_blob(blobs, manifest, f"{_OCI}.manifest.v1+json")]}
    (target / "index.json").write_text(json.dumps(index))
    (target / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return [int(descriptor["size"]) for descriptor, _ in made]


_OCI: Final = "application/vnd.oci.image"


def _write_layer(blobs: Path, layer: Sequence[Entry]) -> tuple[dict[str, Any], str]:
    draft = blobs / "draft"
    with draft.open("wb") as output:
        packed = gzip.GzipFile("", "wb", 6, output, mtime=0)
        whole = _Summed(packed)
        write_tar(layer, whole)  # type: ignore[arg-type]
        packed.close()
    digest, size = tree.content_sum(draft), draft.stat().st_size
    draft.rename(blobs / digest)
    descriptor = {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": size}
    return descriptor, f"sha256:{whole.sum.hexdigest()}"


class _Summed:
    """Passes bytes on and sums them up: an OCI image names a layer by what it is before it is compressed, too."""

    def __init__(self, output: gzip.GzipFile) -> None:
        self._output, self.sum = output, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self._output.write(data)


def _blob(blobs: Path, value: Mapping[str, Any], kind: str) -> dict[str, Any]:
    data = json.dumps(value, separators=(",", ":")).encode()
    digest = tree.content_sum(data)
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


# --- transfer --------------------------------------------------------------------------------------------------------


def transfer_bytes(name: str, path: Path, entries: Sequence[Entry], tools: Tools) -> tuple[int, int]:
    """Return what is sent where this is sent, by gzip -6 and by zstd -3, in bytes.

    A folder is sent as a tar archive. Of an OCI image the layers are what is compressed, and with them go manifest,
    configuration and index as they are.
    """
    if name not in ("directory", "oci"):
        feed = _from_file(path)
        return tools.count(GZIP, feed), tools.count(ZSTD, feed)

    def feed_tar(output: BinaryIO) -> None:
        write_tar(entries, output)

    if name == "directory":
        return tools.count(GZIP, feed_tar), tools.count(ZSTD, feed_tar)
    whole = sum(each.stat().st_size for each in _walk(path) if each.is_file())
    layers = max(each.stat().st_size for each in (path / "blobs" / "sha256").iterdir())
    return whole, whole - layers + tools.count(ZSTD, feed_tar)


def _from_file(path: Path) -> Callable[[BinaryIO], None]:
    def feed(output: BinaryIO) -> None:
        tree.copy_content(path, output)

    return feed


# --- over a shared base ----------------------------------------------------------------------------------------------


def write_into_ext4(raw: Path, content: Path, tools: Tools) -> None:
    """Write ``content`` as a new file into the ext4 file system in ``raw``, as a guest would: in place."""
    tools.run(["debugfs", "-w", "-f", "-", raw], stdin=f"write {content} {CHANGE}\n")


def differing(first: Path, second: Path, cluster_bytes: int = CLUSTER_BYTES) -> Iterator[int]:
    """Yield the offset of each cluster in which ``second`` differs from ``first``; both are equally long."""
    with first.open("rb") as one, second.open("rb") as other:
        offset = 0
        while data := other.read(cluster_bytes):
            if data != one.read(cluster_bytes):
                yield offset
            offset += cluster_bytes


def make_overlay(base: Path, after: Path, overlay: Path, offsets: Sequence[int], tools: Tools) -> None:
    """Make a qcow2 ``overlay`` over the raw ``base`` and write into it what ``after`` has at ``offsets``.

    These are the clusters that a guest which ran on the overlay would have written.
    """
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay])
    size_bytes = after.stat().st_size
    clusters = overlay.with_suffix(".cluster")
    with after.open("rb") as source:
        orders = []
        for number, offset in enumerate(offsets):
            source.seek(offset)
            part = clusters.with_suffix(f".{number}")
            part.write_bytes(source.read(min(CLUSTER_BYTES, size_bytes - offset)))
            orders.append(f"write -q -s {part} {offset} {part.stat().st_size}")
    if orders:
        tools.run(["qemu-io", "-f", "qcow2", overlay], stdin="\n".join([*orders, "quit", ""]))
    for number in range(len(offsets)):
        clusters.with_suffix(f".{number}").unlink()


# --- what a host needs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """An installed package: bytes that it says it takes, and what it depends on, each a choice of names."""

    name: str
    size_bytes: int
    depends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()


#: What ``parse_packages`` reads: dpkg-query's --showformat.
DPKG_FORMAT: Final = "${Package}\t${db:Status-Abbrev}\t${Installed-Size}\t${Pre-Depends}\t${Depends}\t${Provides}\n"
_RELATION: Final = re.compile(r"[\s(:\[].*")


def parse_packages(text: str) -> dict[str, Package]:
    """Return the packages that dpkg says are installed, by name. ``Installed-Size`` is in KiB (deb-control(5))."""
    found: dict[str, Package] = {}
    for fields in (line.split("\t") for line in text.splitlines()):
        if len(fields) == 6 and fields[1].startswith("ii"):
            size = int(fields[2]) << 10 if fields[2].isdigit() else 0
            relations = ",".join(fields[3:5]).split(",")
            depends = tuple(_names(relation, "|") for relation in relations if relation.strip())
            found[fields[0]] = Package(fields[0], size, depends, _names(fields[5], ","))
    return found


def _names(text: str, separator: str) -> tuple[str, ...]:
    names = (_RELATION.sub("", part.strip()) for part in text.split(separator))
    return tuple(name for name in names if name)


def needed(packages: Mapping[str, Package], roots: Sequence[str]) -> set[str]:
    """Return ``roots`` and everything installed that they depend on, directly or not. Pure.

    Of alternatives all that are installed count; a name that is none of a package may be one that a package provides.
    """
    providers: dict[str, set[str]] = {}
    for package in packages.values():
        for name in (package.name, *package.provides):
            providers.setdefault(name, set()).add(package.name)
    found: set[str] = set()
    left = [name for name in roots if name in packages]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [real for choice in packages[name].depends for word in choice for real in providers.get(word, ())]
    return found


def only_needed(packages: Mapping[str, Package], roots: Sequence[str]) -> set[str]:
    """Return those that no installed package besides them needs: what the host has for the sake of ``roots``. Pure."""
    mine = needed(packages, roots)
    others = needed(packages, [name for name in packages if name not in mine])
    return mine - (others - set(roots))
