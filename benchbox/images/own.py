"""Images of the user's own: a folder, a tar archive, an OCI image, or a list of the distribution's packages.

What a root file system lacks so that benchbox can run something in it is added, and told. Everything belongs to root,
nothing has other rights than who runs it, and what is below /dev, /proc, /sys and /tmp is left out: it is mounted over.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchbox.errors import ImageError
from benchbox.images import distribution, oci, tree
from benchbox.images.archive import BOUNDS, Allowance, Bounds, Unpacking, check_link, look, path_in_root, refuse
from benchbox.images.store import Progress
from benchbox.images.tree import Entry, Source, file, folder
from benchbox.native import program

Kind = Literal["directory", "tar", "oci", "packages"]

#: Folders that are mounted on in every environment, with the permissions of those that are added.
MOUNTED: Final[Mapping[str, int]] = {"dev": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o1777}
#: Programs of benchbox by the path that workloads know.
PROGRAMS: Final[Mapping[str, str]] = {"bin/ready": "ready", "usr/bin/first_answer": "first_answer"}
#: In every image that is a list of packages: the folders of a system, and what makes the dynamic linker's cache.
BASE_PACKAGES: Final = ("base-files", "libc-bin")
PACKAGE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,127}")

_NAME_CHARACTERS: Final = 40


@dataclass(frozen=True)
class OwnImage:
    """Where an image of the user's own comes from: ``path`` is absolute, ``packages`` are for that kind alone."""

    kind: Kind
    path: Path = Path()
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in records, in the cache and by Docker: small letters, digits and dashes."""
        if self.kind == "packages":
            return f"packages-{hashlib.sha256(' '.join(sorted(self.packages)).encode()).hexdigest()[:8]}"
        plain = re.sub(r"\.(tar|tgz|gz|zst|oci)\b", "", self.path.name.lower())
        return f"{self.kind}-{re.sub(r'[^a-z0-9]+', '-', plain).strip('-')[:_NAME_CHARACTERS].strip('-') or 'image'}"

    def __str__(self) -> str:
        return f"of {len(self.packages)} packages" if self.kind == "packages" else f"{self.kind} {self.path}"

    def written(self) -> dict[str, object]:
        """Return it as a scenario says it, in JSON types."""
        return {self.kind: list(self.packages) if self.kind == "packages" else str(self.path)}

    def problem(self) -> str | None:
        """Say what is wrong with it by a look at this host; None if nothing is."""
        if self.kind == "packages":
            names = all(PACKAGE_NAME.fullmatch(name) for name in self.packages)
            return None if names else "expected names of packages of the distribution"
        if self.path.exists() and self.path.samefile("/"):
            return "expected a folder of its own; this is the root of this host"
        there = self.path.is_dir() if self.kind == "directory" else self.path.is_file()
        if there or (self.kind == "oci" and self.path.is_dir()):
            return None
        return {
            "directory": "expected a folder that is there",
            "tar": "expected a tar archive that is there",
            "oci": "expected an OCI archive or layout that is there",
        }[self.kind]


def is_archive(source: OwnImage) -> bool:
    """Say whether it has to be unpacked: that is done once for each ``key``."""
    return source.kind in ("tar", "oci")


def looked_at(source: OwnImage) -> Source:
    """Return the file that the tree of an archive is a function of. Raises ImageError for one that cannot be had."""
    found = source.problem()
    if found is not None:
        raise ImageError(f"{source.path}: {found}")
    return oci.looked_at(source.path) if source.kind == "oci" else look(source.path, str(source.path))


def unpacked(source: OwnImage, file: Source, contents: Path) -> list[Entry]:
    """Return the tree in an archive, as it was ``looked_at``; contents of files are put into the empty ``contents``."""
    if source.kind == "oci":
        return oci.entries(source.path, file, contents)
    unpacking = Unpacking(contents)
    unpacking.add(file)
    return unpacking.entries()


def entries(source: OwnImage, progress: Progress | None = None) -> list[Entry]:
    """Return the tree of what is no archive. Raises ImageError for what cannot be had or is refused."""
    if source.kind == "packages":
        return distribution.entries(source.name, all_packages(source), progress)
    return from_folder(source.path)


def all_packages(source: OwnImage) -> tuple[str, ...]:
    """Return what a list of packages is made of; nothing for what is no such list."""
    return tuple(sorted({*BASE_PACKAGES, *source.packages})) if source.kind == "packages" else ()


def from_folder(root: Path, bounds: Bounds = BOUNDS) -> list[Entry]:
    """Return the tree at ``root``. Raises ImageError for what an archive could not have either.

    Its owner may change it meanwhile: folders are entered by descriptors and never through a link, and files are read
    later as they are now, or not at all.
    """
    allowance, found = Allowance(bounds), []
    try:
        for entry in _in_folder(root, os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ""):
            allowance.take_entry(str(root), entry.path, entry.target)
            allowance.take_content(str(root), entry.path, tree.size_bytes(entry.content))
            found.append(entry)
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else None
        hint = "make all of it readable, and let nobody change it meanwhile"
        raise refuse(str(root), name, str(error.strerror), hint) from error
    return tree.ordered(found)


def _in_folder(root: Path, opened: int, above: str) -> Iterator[Entry]:
    """Yield what is in an open folder, which is closed in the end; ``above`` is its path with a slash, "" for the root.

    It calls itself for each folder in it, as deep as ``path_in_root`` lets one lie.
    """
    try:
        for name in os.listdir(opened):
            entry = _from_file(root, opened, name, above)
            yield entry
            if stat.S_ISDIR(entry.mode) and entry.path not in MOUNTED:
                how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                yield from _in_folder(root, os.open(name, how, dir_fd=opened), f"{entry.path}/")
    finally:
        os.close(opened)


def _from_file(root: Path, opened: int, name: str, above: str) -> Entry:
    path = path_in_root(str(root), above + name)
    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
    permissions = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return tree.plain(folder(path, permissions))
    if stat.S_ISREG(status.st_mode):
        return tree.plain(file(path, Source(root / path, status), permissions))
    if not stat.S_ISLNK(status.st_mode):
        raise refuse(str(root), path, "neither file, folder nor symbolic link", "remove it, or take another folder")
    target = os.readlink(name, dir_fd=opened)
    check_link(str(root), path, target)
    return tree.link(path, target)


# ---- what it lacks --------------------------------------------------------------------------------------------------


def completed(
    source: str, found: Sequence[Entry], of: Callable[[str], Path] = program
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return ``found`` with all that benchbox needs in it, and the paths of what was added.

    ``of`` returns where a program of benchbox is. Raises ImageError where something is in the way.
    """
    there = {entry.path: entry for entry in found if not _is_mounted_over(entry.path)}
    before = set(there)
    for name, permissions in MOUNTED.items():
        _add_folder(source, there, name, permissions)
    _add_folder(source, there, "data", 0o755)
    for path, name in PROGRAMS.items():
        _add_program(source, there, path, of(name))
    added = tuple(f"/{path}" for path in there if path not in before)
    return tree.ordered(there.values()), added


def _is_mounted_over(path: str) -> bool:
    return "/" in path and path.partition("/")[0] in MOUNTED


def _add_folder(source: str, there: dict[str, Entry], path: str, permissions: int = 0o755) -> None:
    entry = there.setdefault(path, folder(path, permissions))
    if not stat.S_ISDIR(entry.mode):
        raise refuse(source, path, "no folder, where something is to be mounted")


def _add_program(source: str, there: dict[str, Entry], path: str, content: Path) -> None:
    above, _, name = path.rpartition("/")
    place = resolved(above, there)
    if place is None:
        raise refuse(source, above, "a link in a circle, or upwards")
    parts = place.split("/")
    for length in range(1, len(parts) + 1):
        _add_folder(source, there, "/".join(parts[:length]))
    wanted = resolved(f"{place}/{name}", there)
    if wanted not in there:
        there[f"{place}/{name}"] = file(f"{place}/{name}", content, 0o755)


def resolved(path: str, there: Mapping[str, Entry]) -> str | None:
    """Return ``path`` as ``tree.followed`` does, among the entries ``there``; it need not be one of them."""

    def target(here: str) -> str | None:
        entry = there.get(here)
        return entry.target if entry and stat.S_ISLNK(entry.mode) else None

    return tree.followed(path, target)
