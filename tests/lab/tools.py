"""A root file system for the lab with two tools of the distribution and what they load, as a tar archive."""

import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchbox.images import distribution, formats, tree
from benchbox.images.tree import Entry
from benchbox.linux.processes import run

PACKAGES: Final = ("base-files", "fio", "libc-bin", "openssl")
TOOLS: Final = ("/usr/bin/fio", "/usr/bin/openssl")
_LOADER: Final = "/lib64/ld-linux-x86-64.so.2"
_KEPT: Final = ("ld.so.cache", "passwd", "group", "openssl.cnf")


def archive(path: Path) -> Path:
    """Write the archive and return it: emulation has no time for what neither tool loads. Raises BenchboxError."""
    entries = distribution.entries("lab", PACKAGES)
    root = path.with_suffix(".d")
    tree.write(entries, root)
    names = _with_targets({*TOOLS, *_KEPT, *_loaded(root)}, entries)
    with path.open("xb") as output:
        formats.write_tar([entry for entry in entries if _is_kept(entry, names)], output)
    shutil.rmtree(root)
    return path


def _loaded(root: Path) -> list[str]:
    """Return the libraries of the tools and who loads them, by the dynamic linker's own word (ld.so(8), --list)."""
    said = [run(["chroot", root, _LOADER, "--list", tool], timeout_s=60).stdout for tool in TOOLS]
    return [_LOADER, *(word for word in " ".join(said).split() if word.startswith("/"))]


def _with_targets(paths: Iterable[str], entries: Iterable[Entry]) -> set[str]:
    """Return the names of ``paths``, and of the files that links of these names lead to."""
    targets = {Path(entry.path).name: Path(entry.target).name for entry in entries if stat.S_ISLNK(entry.mode)}
    names = {Path(path).name for path in paths}
    while more := {targets[name] for name in names if name in targets} - names:
        names |= more
    return names


def _is_kept(entry: Entry, names: set[str]) -> bool:
    return not stat.S_ISREG(entry.mode) or Path(entry.path).name in names
