"""The image minimal: our own programs and, where there is one, a shell."""

from pathlib import Path

import pytest

from benchbox.images import minimal, tree
from tests.images.synthetic import elf


def test_it_holds_the_ready_program_a_shell_and_the_folders_that_environments_mount_on(tmp_path: Path) -> None:
    """Modes as a system has them."""
    tree.write(
        minimal.tree({name: _file(tmp_path, name.encode()) for name in minimal.PROGRAMS}, _file(tmp_path, b"busybox")),
        tmp_path / "root",
    )
    root = tmp_path / "root"
    assert (root / "bin/ready").read_bytes() == b"ready"
    assert (root / "bin/micro").read_bytes() == b"micro"
    assert (root / "bin/sh").read_bytes() == b"busybox"
    assert (root / "bin/ready").stat().st_mode & 0o777 == 0o755
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert sorted(path.name for path in root.iterdir()) == ["bin", "data", "dev", "etc", "proc", "sys", "tmp"]
    assert all(not list((root / name).iterdir()) for name in ("data", "dev", "proc", "sys", "tmp"))


def test_without_a_busybox_it_still_has_the_ready_program(tmp_path: Path) -> None:
    """A host without one can measure."""
    entries = minimal.tree({name: _file(tmp_path, name.encode()) for name in minimal.PROGRAMS}, None)
    assert [entry.path for entry in entries if entry.path.startswith("bin/")] == [
        "bin/micro",
        "bin/pingpong",
        "bin/ready",
        "bin/steady",
    ]


def test_a_missing_busybox_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user learns why there is no shell."""
    monkeypatch.setattr(minimal, "program", lambda name: tmp_path / name)
    monkeypatch.setattr(minimal, "find_busybox", lambda: None)
    said: list[str] = []
    minimal.entries(said.append)
    assert said == ["image minimal: without a shell to look around with, for this host has no static busybox"]


@pytest.mark.parametrize(
    ("content", "found"),
    [(elf(1, b"code"), True), (elf(3, b"/lib64/ld-linux-x86-64.so.2\0"), False), (b"#!/bin/sh\n", False)],
    ids=["static", "dynamic", "script"],
)
def test_only_a_static_busybox_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, found: bool
) -> None:
    """One that needs libraries would not start in the image."""
    (tmp_path / "busybox").write_bytes(content)
    (tmp_path / "busybox").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert minimal.find_busybox() == (tmp_path / "busybox" if found else None)


def _file(folder: Path, content: bytes) -> Path:
    path = folder / content.decode()
    path.write_bytes(content)
    return path
