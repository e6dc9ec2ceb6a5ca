"""What one run owns on this host, all of it named by the run's token. Nothing else of a ledger is acted upon."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.linux import mounts
from benchbox.linux.state import cache_folder, state_folder

#: The name of a run's folder in the state folder.
TOKEN: Final = re.compile(r"[0-9a-f]{8}")
_GROUP_FILE_SYSTEMS: Final = ("cgroup", "cgroup2")


@dataclass(frozen=True)
class Place:
    """``runtime`` has ledger and sockets, ``scratch`` what is large; each hierarchy has a group ``cgroup_name``."""

    token: str
    runtime: Path
    scratch: Path

    @property
    def cgroup_name(self) -> str:
        return f"benchbox-{self.token}"

    @property
    def refuge_name(self) -> str:
        """The group that the supervisor steps aside to."""
        return f"{self.cgroup_name}-supervisor"

    def holds(self, path: Path) -> bool:
        """Say whether ``path`` is one of the two folders or lies in one, with no link on the way from there."""
        return any(_is_in(path, home) for home in (self.runtime, self.scratch))


def place_of(token: str) -> Place:
    """Return the place of the run ``token``; nothing of it need exist. Raises TrustError, EnvironmentFailure."""
    return Place(token, state_folder() / token, cache_folder("scratch", token))


def _is_in(path: Path, home: Path) -> bool:
    if not path.is_relative_to(home) or ".." in path.parts:
        return False
    return not any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(home))


def is_group(path: Path, name: str) -> bool:
    """Say whether ``path`` is that of the group ``name`` in a cgroup file system; it need not be there any more."""
    if path.name != name or not path.is_absolute() or ".." in path.parts:
        return False
    return not path.is_symlink() and mounts.mounted(path.parent)[0] in _GROUP_FILE_SYSTEMS
