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
from benchbox.images.archive import BOUNDS, Bounds, Unpacking, check_link, path_in_root, refuse
from benchbox.images.store import Progress
from benchbox.images.tree import Entry, file, folder
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
        if self.path.resolve() == Path("/"):
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


def key(source: OwnImage) -> str:
    """Return what the tree of an archive is a function of. Raises ImageError for a file that cannot be read."""
    found = source.problem()
    if found is not None:
        raise ImageError(f"{source.path}: {found}")
    return f"{source.kind}-{oci.key(source.path) if source.kind == 'oci' else tree.content_sum(source.path)}"


def unpacked(source: OwnImage, contents: Path) -> list[Entry]:
    """Return the tree in an archive; the contents of its files are put into the empty folder ``contents``."""
    if source.kind == "oci":
        return oci.entries(source.path, contents)
    unpacking = Unpacking(contents)
    unpacking.add(source.path)
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
    """Return the tree at ``root``. Raises ImageError for what an archive could not have either."""
    found, bytes_left = [], bounds.content_bytes
    try:
        for path in _walk(root, root):
            entry = _from_file(root, path)
            found.append(entry)
            bytes_left -= path.lstat().st_size if stat.S_ISREG(entry.mode) else 0
            if len(found) > bounds.entries or bytes_left < 0:
                raise refuse(str(root), entry.path, "there is more than an image may be")
    except OSError as error:
        raise ImageError(f"{error.filename or root}: {error.strerror}") from error
    return tree.ordered(found)


def _walk(root: Path, at: Path) -> Iterator[Path]:
    left = [at]
    while left:
        with os.scandir(left.pop()) as items:
            for item in items:
                path = Path(item.path)
                yield path
                if item.is_dir(follow_symlinks=False) and str(path.relative_to(root)) not in MOUNTED:
                    left.append(path)


def _from_file(root: Path, path: Path) -> Entry:
    status = path.lstat()
    name = path_in_root(str(root), path.relative_to(root).as_posix())
    permissions = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return tree.plain(folder(name, permissions))
    if stat.S_ISREG(status.st_mode):
        return tree.plain(file(name, path, permissions))
    if not stat.S_ISLNK(status.st_mode):
        raise refuse(str(root), name, "neither file, folder nor symbolic link", "remove it, or take another folder")
    target = tree.link_target(path)
    check_link(str(root), name, target)
    return tree.link(name, target)


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
