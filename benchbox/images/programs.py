"""Which program of an image a command executed, and whether it is still the one that the image was opened with.

An image is compared byte by byte with its digest when it is opened. Whatever happens to a file later moves the time of
its last change, which nobody can set (inode(7), ctime); only then is it read again.
"""

import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchbox.errors import ImageError
from benchbox.images import tree
from benchbox.model import Command, Image

#: Under which a sample's ``applied`` says what was executed: ``path`` inside the image without links, ``sha256``.
KEY: Final = "program"
_GONE: Final = "gone"


class Programs:
    """The programs of ``image``, from now on."""

    def __init__(self, image: Image) -> None:
        self._image, self._since_ns = image, time.time_ns()

    def executed(self, command: Command) -> dict[str, str] | None:
        """Return path and sum of the file that ``command`` names; None for a name that is looked for in PATH."""
        name = command.argv[0]
        if "/" not in name:
            return None
        try:
            path = resolved(self._image.root, f"{command.cwd}/{name}" if not name.startswith("/") else name)
            return {"path": path, "sha256": self._sum(path)}
        except (OSError, ImageError):
            return {"path": name, "sha256": _GONE}

    def _sum(self, path: str) -> str:
        file = self._image.root / path.lstrip("/")
        known = self._image.executables.get(path)
        return known if known and file.stat().st_ctime_ns <= self._since_ns else tree.content_sum(file)


def resolved(root: Path, path: str) -> str:
    """Return ``path``, a file inside ``root``, with all links followed as a process in that root would.

    Raises OSError where it leads to none.
    """

    def target(here: str) -> str | None:
        place = root / here
        return tree.link_target(place) if stat.S_ISLNK(place.lstat().st_mode) else None

    found = tree.followed(path, target)
    if found is None:
        raise OSError(f"{path}: too many links")
    return f"/{found}"


def objection(applied: Mapping[str, Any], executables: Mapping[str, str]) -> str | None:
    """Say what was executed in place of the image's own program; None where it was that, or nothing says so. Pure.

    Of several instances that differ every one is looked at.
    """
    told = applied.get(KEY)
    for each in told if isinstance(told, list) else [told]:
        if not isinstance(each, Mapping):
            continue
        own = executables.get(each["path"])
        if own and each["sha256"] != own:
            found = f"sha256 {each['sha256'][:12]}" if each["sha256"] != _GONE else "nothing any more"
            return f"another program was executed: {each['path']} is {found}, the image's is sha256 {own[:12]}"
    return None
