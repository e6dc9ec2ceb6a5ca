"""What the cache holds: images, kernels and what was derived from them, with the space that they take.

Everything in it can be made again, so everything in it may be removed while no run lives.
"""

import contextlib
import difflib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchbox.errors import ImageError
from benchbox.images import store
from benchbox.linux.state import cache_folder

#: Folder of the cache -> what an entry of it is. Other folders are listed by their name.
KINDS: Final = {
    "store": "image",
    "distribution": "packages of an image",
    "archives": "what an archive unpacked to: an image",
    "files": "files of an image",
    "kernels": "kernel package",
    "vmlinux": "kernel, unpacked",
    "initramfs": "initramfs of a guest",
    "disk": "disk of a guest, with an image",
    "oci": "OCI layout of an image",
    "emulator": "emulator wrapper",
    "libvirt": "what libvirt knows of emulators",
    "accelerator": "what a guest has proven of KVM",
}
#: Scratch folders belong to runs: `benchbox clean` removes what dead ones left.
_NOT_ENTRIES: Final = frozenset({"scratch"})
#: Kinds whose entries know the image that they belong to.
_NAMED: Final = frozenset({"store", "distribution", "archives", "files", "disk", "oci"})
_SHOWN_CANDIDATES: Final = 5
#: Written beside the root of an image when it is made.
NAME_FILE: Final = "name"


@dataclass(frozen=True)
class Entry:
    """One entry: ``name`` is ``KIND/KEY``, ``image`` the name of the image that it is, or is the packages of."""

    kind: str
    key: str
    path: Path
    size_bytes: int
    made_at: str
    image: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"

    @property
    def what(self) -> str:
        what = KINDS.get(self.kind, self.kind)
        return what.replace("an image", "image") + f" {self.image}" if self.image else what


def entries(*, measured: bool = True) -> list[Entry]:
    """Return what the cache holds, by kind and key; ``measured`` False leaves the sizes 0, which is instant."""
    root = cache_folder()
    folders = [path for path in _listed(root) if path.is_dir() and path.name not in _NOT_ENTRIES]
    return [_entry(path, measured) for folder in folders for path in _listed(folder)]


def _listed(folder: Path) -> list[Path]:
    """Return what is in ``folder``, without what is being made there; nothing where it is not there."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ImageError(
            f"{folder}: cannot be read: {error.strerror}", hint="set BENCHBOX_CACHE to a folder"
        ) from error


def _entry(path: Path, measured: bool) -> Entry:
    size_bytes = store.allocated_bytes(path) if measured else 0
    made = datetime.fromtimestamp(path.lstat().st_mtime, UTC).isoformat(timespec="seconds")
    image = None
    if path.parent.name in _NAMED:
        with contextlib.suppress(OSError):
            image = (path / NAME_FILE).read_text(errors="replace").strip()[:64] or None
    return Entry(path.parent.name, path.name, path, size_bytes, made, image)


def find(names: Sequence[str]) -> list[Entry]:
    """Return the entries that ``names`` mean, each once: the name of an image, a kind, or the beginning of a key.

    Raises ImageError for a name that means nothing, or several things by their beginnings.
    """
    all_entries = entries()
    return list(dict.fromkeys(entry for name in names for entry in _find(name, all_entries)))


def _find(name: str, all_entries: Sequence[Entry]) -> list[Entry]:
    for matches in (
        [entry for entry in all_entries if entry.image == name],
        [entry for entry in all_entries if entry.kind == name],
        [entry for entry in all_entries if name in (entry.name, entry.key)],
    ):
        if matches:
            return matches
    begun = [entry for entry in all_entries if name and (entry.name.startswith(name) or entry.key.startswith(name))]
    if len(begun) == 1:
        return begun
    if begun:
        shown = ", ".join(entry.name for entry in begun[:_SHOWN_CANDIDATES])
        more = ", ..." if len(begun) > _SHOWN_CANDIDATES else ""
        raise ImageError(f"'{name}' means {len(begun)} entries: {shown}{more}", hint="give more of the name")
    raise ImageError(f"the cache holds no '{name}'", hint=_near(name, all_entries))


def _near(name: str, all_entries: Sequence[Entry]) -> str:
    known = {word for entry in all_entries for word in (entry.image, entry.kind) if word}
    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{found[0]}'?" if found else "'benchbox image list' shows what is there"


def remove(entry: Entry) -> None:
    """Take ``entry`` away at once, then free its space. Raises ImageError where it cannot be removed."""
    if not entry.path.is_relative_to(cache_folder()):
        raise ImageError(f"{entry.path} is not in the cache")
    store.discard(entry.path)
    with contextlib.suppress(OSError):
        entry.path.parent.rmdir()


def details(entry: Entry) -> dict[str, Any]:
    """Return what is known of ``entry``, in JSON types."""
    found: dict[str, Any] = {
        "name": entry.name,
        "what": entry.what,
        "path": str(entry.path),
        "size_bytes": entry.size_bytes,
        "made_at": entry.made_at,
    }
    if (entry.path / "root").is_dir():
        known = {"facts": facts} if (facts := _facts(entry.path)) else {"digest": entry.key}
        return found | known | _of_root(entry.path / "root")
    return found | {"facts": _facts(entry.path), "files": [name for name, _ in _files(entry.path)]}


def _of_root(root: Path) -> dict[str, Any]:
    files = list(_files(root))
    programs = [name for name, path in files if not path.is_symlink() and path.stat().st_mode & 0o111]
    return {"files": len(files), "programs": programs}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if not path.is_dir() or path.is_symlink():
            yield str(path.relative_to(folder)), path


def _facts(path: Path) -> dict[str, Any]:
    """Return what the maker of an entry wrote down: the facts of its seal, or the entry itself where it is JSON."""
    for file in (path / store.SEAL, path):
        with contextlib.suppress(OSError, ValueError, UnicodeDecodeError):
            found = json.loads(file.read_text())
            if isinstance(found, dict):
                facts = found.get("facts", found)
                return dict(facts) if isinstance(facts, dict) else {}
    return {}


def free_bytes() -> int:
    """Return the space that is free where the cache is."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
