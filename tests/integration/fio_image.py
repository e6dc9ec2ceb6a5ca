"""An image with fio for tests, of the distribution's packages: as few as it needs."""

import functools
from pathlib import Path
from typing import Final

import pytest

from benchbox.errors import ImageError
from benchbox.images import distribution, store, tree
from benchbox.model import Image
from benchbox.native import program
from tests.conftest import REQUIRED

PACKAGES: Final = ("base-files", "fio", "libc-bin")


def image() -> Image:
    """Return the image; skip where its packages cannot be had, unless BENCHBOX_REQUIRE demands ``image``."""
    try:
        return _made()
    except ImageError as error:
        if "image" in REQUIRED:
            raise
        pytest.skip(f"no image with fio: {error.message}")


@functools.cache
def _made() -> Image:
    own = [tree.file(f"usr/bin/{name}", program(name), 0o755) for name in ("files", "ready")]
    entries = [*distribution.entries("fio-test", PACKAGES), *own]
    sums = tree.file_sums(entries)
    digest = tree.digest(entries, sums)

    def make(entry: Path) -> None:
        tree.write(entries, entry / "root")
        (entry / "name").write_text("fio-test")

    root = store.find_or_make("store", digest, make, valid=lambda entry: (entry / "root").is_dir()) / "root"
    return Image("fio-test", digest, root, tree.executables(entries, sums))
