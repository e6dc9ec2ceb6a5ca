"""The store holds whole entries only, whoever else makes them and whatever interrupts."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from benchbox.errors import ImageError
from benchbox.images import store
from tests.folders import nested


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_word(folder: Path) -> None:
    (folder / "word").write_text("whole")


def is_whole(entry: Path) -> bool:
    return (entry / "word").read_text() == "whole"


def test_an_entry_is_made_once_and_then_found(cache: Path) -> None:
    """The second look does not make anything."""
    first = store.find_or_make("kind", "key", write_word, valid=is_whole)
    second = store.find_or_make("kind", "key", lambda _: pytest.fail("made twice"), valid=is_whole)
    assert first == second == cache / "kind" / "key"
    assert (first / "word").read_text() == "whole"
    assert first.stat().st_mode & 0o777 == 0o755


def test_a_damaged_entry_is_made_again() -> None:
    """What does not verify is never handed out."""
    entry = store.find_or_make("kind", "key", write_word, valid=is_whole)
    (entry / "word").write_text("rotten")
    assert is_whole(store.find_or_make("kind", "key", write_word, valid=is_whole))
    assert [path.name for path in entry.parent.iterdir()] == ["key"]


def test_an_interrupted_making_leaves_no_entry(cache: Path) -> None:
    """Half an entry is never visible under its name, and its remains go."""

    def interrupted(folder: Path) -> None:
        write_word(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.find_or_make("kind", "key", interrupted, valid=is_whole)
    assert list((cache / "kind").iterdir()) == []


def test_what_a_maker_left_is_measured_and_removed_however_deep(cache: Path) -> None:
    """Deeper than any path."""
    (cache / "kind").mkdir(parents=True)
    nested(cache / "kind" / ".making-dead", 3000)
    assert store.disk_bytes()["kind"] >= 0
    store.find_or_make("kind", "key", write_word, valid=is_whole)
    assert [path.name for path in (cache / "kind").iterdir()] == ["key"]


def test_what_a_killed_maker_left_is_removed_by_the_next(cache: Path) -> None:
    """A temporary folder whose lock nobody holds belongs to nobody."""
    (cache / "kind" / ".making-dead").mkdir(parents=True)
    store.find_or_make("kind", "key", write_word, valid=is_whole)
    assert [path.name for path in (cache / "kind").iterdir()] == ["key"]


def test_what_a_living_maker_is_at_work_on_stays(cache: Path) -> None:
    """A locked temporary folder is another process's."""
    busy = cache / "kind" / ".making-alive"
    busy.mkdir(parents=True)
    descriptor = os.open(busy, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    store.find_or_make("kind", "key", write_word, valid=is_whole)
    os.close(descriptor)
    assert busy.is_dir()


def test_of_two_makers_at_once_both_get_the_first_one_s_entry() -> None:
    """The one that comes second throws its own away."""

    def overtaken(folder: Path) -> None:
        (folder / "word").write_text("second")
        store.find_or_make("kind", "key", write_word, valid=is_whole)

    entry = store.find_or_make("kind", "key", overtaken, valid=is_whole)
    assert (entry / "word").read_text() == "whole"
    assert [path.name for path in entry.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc", "a/b", ".making-x", "a\n"])
def test_no_name_leaves_its_folder(name: str) -> None:
    """Neither kind nor key can name another place."""
    with pytest.raises(ImageError):
        store.entry_path("kind", name)
    with pytest.raises(ImageError):
        store.entry_path(name, "key")


def test_a_cache_folder_that_cannot_be_written_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user learns which folder and how to choose another."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "file"))
    with pytest.raises(ImageError, match="file/kind: cannot be written") as caught:
        store.find_or_make("kind", "key", write_word, valid=is_whole)
    assert "BENCHBOX_CACHE" in str(caught.value.hint)


def test_a_full_disk_is_an_image_error_with_a_remedy(cache: Path) -> None:
    """No traceback, no half entry."""

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "word"))

    with pytest.raises(ImageError, match="No space left") as caught:
        store.find_or_make("kind", "key", full, valid=is_whole)
    assert "free some space" in str(caught.value.hint)
    assert list((cache / "kind").iterdir()) == []


def test_disk_bytes_counts_each_kind() -> None:
    """What the cache takes is what its files have allocated."""
    assert store.disk_bytes() == {}
    entry = store.find_or_make("kind", "key", lambda folder: None, valid=lambda _: True)
    before_bytes = store.disk_bytes()["kind"]
    (entry / "data").write_bytes(b"x" * 40_000)
    os.sync()
    assert 40_000 <= store.disk_bytes()["kind"] - before_bytes <= 80_000


def test_a_sealed_file_is_known_whole_and_readable_by_all(tmp_path: Path) -> None:
    """Any damage to file or seal breaks it."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "file").chmod(0o600)
    store.seal(tmp_path, "file", {"version": "1"})
    assert store.unseal(tmp_path, "file") == {"version": "1"}
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    (tmp_path / "file").write_bytes(b"damaged")
    assert store.unseal(tmp_path, "file") is None
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "seal.json").write_text("{")
    assert store.unseal(tmp_path, "file") is None
