"""What an image takes on this host's disk in the form that an environment runs it from: part of its account.

It is measured once, when the environment is made ready, so that each report says it beside the times.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from benchbox.images import formats
from benchbox.model import IMAGE_STORED, Counter, Image

KERNEL: Final = "kernel.stored"


def folder_of(image: Image) -> Counter:
    """Return what the folder of ``image`` takes, from which whoever uses the host's kernel runs it."""
    return stored(IMAGE_STORED, image.root, "the image's folder")


def stored(name: str, path: Path, form: str) -> Counter:
    """Return the blocks behind ``path``, a file or a folder, in B; ``form`` says what it is. None where it cannot be
    read."""
    try:
        return Counter(name, _allocated_bytes(path), "B", f"{form}: blocks of the file system")
    except OSError as error:
        return Counter(name, None, "B", f"{form}: cannot be measured: {error.strerror}")


@lru_cache(maxsize=16)
def _allocated_bytes(path: Path) -> int:
    """Environments share the image's folder, into which nobody writes."""
    return formats.measure(path).allocated_bytes
