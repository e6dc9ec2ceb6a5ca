"""What other users own, for tests that are not root: files that only seem to be theirs."""

import os
from pathlib import Path
from typing import Final

import pytest

#: nobody, on most hosts; owns nothing there.
STRANGER: Final = 65534


def seems(monkeypatch: pytest.MonkeyPatch, path: Path, *, owner: int | None = None, mode: int | None = None) -> None:
    """Let ``path`` seem to belong to ``owner`` and to have ``mode`` (permission bits)."""
    real = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        found = real(self)
        if self != path:
            return found
        bits = found.st_mode if mode is None else found.st_mode & ~0o7777 | mode
        return os.stat_result((bits, *found[1:4], found.st_uid if owner is None else owner, *found[5:]))

    monkeypatch.setattr(Path, "lstat", lstat)
