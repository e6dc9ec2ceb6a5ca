"""The image ``debian``: the distribution's own tools for load and measuring, for workloads of every kind."""

from pathlib import Path
from typing import Final

from benchbox.images import distribution
from benchbox.images.store import Progress
from benchbox.images.tree import Entry

NAME: Final = "debian"
#: The list of packages: one a line, after ``#`` a remark.
LIST: Final = Path(__file__).with_name("debian_packages.txt")


def packages(text: str) -> tuple[str, ...]:
    """Return the names in a list of packages. Pure."""
    words = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(word for word in words if word)


#: What is in it, with all that these need.
PACKAGES: Final = packages(LIST.read_text())


def entries(progress: Progress | None = None) -> list[Entry]:
    """Return the tree: the distribution's packages and benchbox's programs, all in /usr/bin, to which /bin leads."""
    return distribution.with_programs(NAME, PACKAGES, progress)
