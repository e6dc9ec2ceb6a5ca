"""What somebody else has filled is removed, whatever it is, or said to be left with the reason."""

import errno
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import removal
from tests.folders import nested


def test_however_deep_a_folder_is_nested_it_is_removed(tmp_path: Path) -> None:
    """With files on the way: no path could name the last of 3,000, no recursion could reach it."""
    top = nested(tmp_path / "top", 3_000, file_every=100)
    removal.remove(top)
    assert list(tmp_path.iterdir()) == []


def test_few_folders_are_open_at_once(tmp_path: Path) -> None:
    """However many lie in one another, and beside one another."""
    top = nested(tmp_path / "top", 300)
    for number in range(100):
        nested(top / str(number), 60, file_every=7)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        removal.remove(top)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not top.exists()


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    """In a folder, and where the folder is one."""
    kept, top = tmp_path / "kept", tmp_path / "top"
    (kept / "file").parent.mkdir()
    (kept / "file").write_text("x")
    top.mkdir()
    (top / "folder").symlink_to(kept)
    (top / "file").symlink_to(kept / "file")
    removal.remove(top)
    top.symlink_to(kept)
    removal.remove(top)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "x"


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its turn."""
    kept, top = tmp_path / "kept", tmp_path / "top"
    (kept / "file").parent.mkdir()
    (kept / "file").touch()
    top.mkdir()
    (top / "x").symlink_to(kept)
    monkeypatch.setattr(removal, "_listed", lambda folder: [("x", True)])
    removal.remove(top)
    assert (kept / "file").exists() and not top.exists()


def test_what_is_not_there_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, or by somebody else meanwhile."""
    removal.remove(tmp_path / "none" / "at all")
    top = tmp_path / "top"
    (top / "folder").mkdir(parents=True)
    found = [("file", False), ("gone", True), ("folder", True)]
    monkeypatch.setattr(removal, "_listed", lambda folder: found)
    removal.remove(top)
    assert not top.exists()


def test_any_name_and_kind_goes(tmp_path: Path) -> None:
    """Names that are no text, pipes, files with several names, folders without rights."""
    top = tmp_path / "top"
    (top / "closed" / "in").mkdir(parents=True)
    os.mkfifo(top / "pipe")
    (top / os.fsdecode(b"\xff\n")).touch()
    os.link(top / os.fsdecode(b"\xff\n"), top / "closed" / "again")
    (top / "closed").chmod(0)
    assert removal.try_remove(top)
    assert not top.exists()


def as_ordinary_user(do: Callable[[], object]) -> int:
    """Return the exit status of a process of an ordinary user: 0 if ``do`` raises nothing."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            do()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_ordinary_user_removes_folders_that_are_closed_to_that_user(tmp_path: Path) -> None:
    """They belong to that user: also where they lie deep, and cannot be moved as they are."""
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(above.stat().st_mode | stat.S_IXOTH)
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)

    def fill_and_remove() -> None:
        nested(place / "top", 100, file_every=10, mode=0)
        removal.remove(place / "top")

    assert as_ordinary_user(fill_and_remove) == 0
    assert list(place.iterdir()) == []


def test_what_cannot_be_removed_is_said_and_the_rest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path as it is then, in letters that steer no terminal, and the reason; the next call tries again."""
    top = tmp_path / "top"
    for name in ("a", "b", "c", "d", "stays\x1b[2J", "e"):
        (top / name).mkdir(parents=True)
        (top / name / "file").touch()
    unlink = os.unlink

    def refusing(name: str, *, dir_fd: int) -> None:
        if "stays" in str(Path(f"/proc/self/fd/{dir_fd}").readlink()):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(EnvironmentFailure) as caught:
        removal.remove(top)
    assert caught.value.message == (f"could not be removed: {top}/stays\\x1b[2J/file: {os.strerror(errno.EPERM)}")
    assert [path.name for path in top.iterdir()] == ["stays\x1b[2J"]
    assert not removal.try_remove(top)
    monkeypatch.undo()
    assert removal.try_remove(top)


def test_only_the_first_of_many_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is to be read."""
    top = tmp_path / "top"
    top.mkdir()
    for number in range(10):
        (top / str(number)).touch()

    def refusing(name: str, *, dir_fd: int) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(EnvironmentFailure) as caught:
        removal.remove(top)
    assert caught.value.message.count(": no") == 3 and caught.value.message.endswith("; 7 more")
