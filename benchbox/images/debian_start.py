"""The image ``debian-start``: dynamic programs of the host's distribution, as few as the workloads need."""

from typing import Final

from benchbox.images import distribution
from benchbox.images.store import Progress
from benchbox.images.tree import Entry

NAME: Final = "debian-start"
#: What is in it, with all that these need.
PACKAGES: Final = ("base-files", "libc-bin", "python3-minimal", "redis-server")


def entries(progress: Progress | None = None) -> list[Entry]:
    """Return the tree: the distribution's packages and benchbox's programs, all in /usr/bin, to which /bin leads."""
    return distribution.with_programs(NAME, PACKAGES, progress)
