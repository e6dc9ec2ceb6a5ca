"""Mounts are made as asked for, and a refusal names its place (the kernel's own part: tests/integration)."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import mounts, syscalls


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record the calls to the kernel instead of making them."""
    made: list[tuple[Any, ...]] = []
    for name in ("mount", "umount2", "unshare"):
        monkeypatch.setattr(syscalls, name, lambda *arguments, name=name: made.append((name, *arguments)))
    monkeypatch.setattr(mounts, "_private", False)
    return made


def refuse(number: int) -> Any:
    def call(*arguments: object) -> None:
        raise OSError(number, "refused")

    return call


def test_a_private_namespace_is_entered_once(calls: list[tuple[Any, ...]]) -> None:
    """And tells the host nothing from then on."""
    mounts.enter_private()
    mounts.enter_private()
    assert calls == [
        ("unshare", syscalls.CLONE_NEWNS),
        ("mount", "none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE),
    ]


def test_without_the_privilege_there_is_a_hint(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """And a later call tries again."""
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "unshare", refuse(errno.EPERM))
        with pytest.raises(UnavailableError, match="cannot make a mount namespace") as error:
            mounts.enter_private()
    assert error.value.hint == "run as root"
    mounts.enter_private()
    assert calls


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({}, syscalls.MS_NOSUID | syscalls.MS_NODEV),
        ({"read_only": True}, syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_RDONLY),
        ({"read_only": True, "devices": True}, syscalls.MS_RDONLY),
    ],
    ids=["plain", "read-only", "with devices"],
)
def test_a_bind_gives_no_user_and_no_device_unless_asked(
    asked: dict[str, bool], flags: int, calls: list[tuple[Any, ...]]
) -> None:
    """It takes over the flags of its source: its own need a second step."""
    mounts.bind(Path("/a"), Path("/b"), **asked)
    first, second = calls
    assert first == ("mount", "/a", "/b", None, syscalls.MS_BIND)
    assert second == ("mount", "none", "/b", None, syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def test_a_bind_of_devices_has_the_flags_of_its_source(calls: list[tuple[Any, ...]]) -> None:
    """There is nothing to add."""
    mounts.bind(Path("/a"), Path("/b"), devices=True)
    assert calls == [("mount", "/a", "/b", None, syscalls.MS_BIND)]


def test_a_mount_point_is_closed_to_other_users(tmp_path: Path) -> None:
    """Where nothing of ours is mounted on it, a command's writable layer lies in it."""
    with mounts.mount_point(tmp_path / "layers") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("make", [lambda path: mounts.bind(Path("/a"), path), lambda path: mounts.tmpfs(path, 1)])
def test_a_refused_mount_names_its_place(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's reason."""
    monkeypatch.setattr(syscalls, "mount", refuse(errno.ENOENT))
    with pytest.raises(EnvironmentFailure, match="cannot mount /b: refused"):
        make(Path("/b"))


def test_a_tmpfs_takes_no_more_than_half_of_the_memory(calls: list[tuple[Any, ...]]) -> None:
    """As one without a size: a large limit is no leave for more."""
    assert mounts.tmpfs_bytes(4096) == 4096
    half = mounts.tmpfs_bytes(1 << 60)
    assert half * 2 <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    mounts.tmpfs(Path("/b"), 4096, mode="700")
    assert calls[-1][-1] == "mode=700,size=4096"


def test_detaching_what_is_not_mounted_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean-up runs after any failure."""
    monkeypatch.setattr(syscalls, "umount2", refuse(errno.EINVAL))
    mounts.detach(Path("/b"))
