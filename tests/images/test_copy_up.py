"""The files of the image ``copy-up``: the same everywhere, not sparse, of the sizes that they are called."""

import hashlib
from pathlib import Path

import pytest

from benchbox.images import copy_up, minimal, store
from benchbox.units import parse_size


def test_a_file_is_a_function_of_its_size(tmp_path: Path) -> None:
    """Every byte by SHA-256 of a counter; a part of a block is its begin."""
    copy_up.write(tmp_path / "a", 1536 << 10)
    content = (tmp_path / "a").read_bytes()
    assert len(content) == 1536 << 10
    assert content[:32] == hashlib.sha256(bytes(4)).digest()
    assert content[1 << 20 :] == content[: 512 << 10]


def test_nothing_of_it_is_sparse(tmp_path: Path) -> None:
    """A copy of zeros would cost less than one of data."""
    assert not any(copy_up.block()[at : at + 4096] == bytes(4096) for at in range(0, 1 << 20, 4096))


def test_the_image_is_minimal_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once; a file that is not as it was made is made again."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path))
    monkeypatch.setattr(copy_up, "SIZES", ("1KiB", "64KiB"))
    monkeypatch.setattr(copy_up, "program", lambda name: tmp_path / name)
    monkeypatch.setattr(minimal, "entries", lambda progress: [])
    told: list[str] = []
    paths = [entry.path for entry in copy_up.entries(told.append)]
    assert paths == ["bin/files", "data/1KiB", "data/64KiB"]
    made = store.entry_path("files", "copy-up-1")
    assert {path.name: path.stat().st_size for path in made.iterdir() if path.name != "name"} == {
        size: parse_size(size) for size in ("1KiB", "64KiB")
    }
    (made / "1KiB").write_bytes(b"other")
    copy_up.entries(told.append)
    assert (made / "1KiB").stat().st_size == 1024
    assert told == ["image copy-up: making its files"] * 2
