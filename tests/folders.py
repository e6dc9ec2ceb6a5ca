"""Folders as nobody should make them."""

import os
from pathlib import Path


def nested(top: Path, depth: int, *, file_every: int = 0, mode: int = 0o755) -> Path:
    """Make the folder ``top``, and in it ``depth`` folders of ``mode``, one in another, with a file in some."""
    top.mkdir()
    above = os.open(top, os.O_RDONLY)
    for number in range(depth):
        if file_every and number % file_every == 0:
            os.close(os.open("file", os.O_CREAT, dir_fd=above))
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.fchmod(above, mode)
        os.close(above)
        above = below
    os.close(above)
    return top
