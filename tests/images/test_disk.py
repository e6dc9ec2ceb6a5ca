"""A tree becomes a disk: the same tree the same bytes, everything root's, and what debugfs reads back is the tree."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from benchbox.errors import ImageError, UnavailableError
from benchbox.images import disk, inventory, tree
from benchbox.images.tree import Entry, file, folder, link
from benchbox.linux import processes
from benchbox.linux.processes import Completed
from benchbox.model import Availability, Image

made_by_e2fsprogs = pytest.mark.skipif(not disk.availability().available, reason="e2fsprogs is not installed")

TREE = (
    folder("bin"), file("bin/ready", b"x" * 10_000, 0o755), link("bin/sh", "ready"), folder("dev"),
    folder("odd names"), file('odd names/a "b" $(c)', b"", 0o600), link("far", "/" + "y" * 200),
    folder("tmp", 0o1777), file("umlaut-ü", "ü".encode(), 0o444),
)  # fmt: skip


def made(folder: Path, entries: tuple[Entry, ...] = TREE) -> Path:
    """Return the disk of ``entries``, made below the new ``folder``."""
    folder.mkdir()
    tree.write(entries, folder / "root")
    disk.write(folder / "root", folder / "disk")
    return folder / "disk"


def told(made_disk: Path, request: str) -> str:
    """Return what debugfs answers; it may be installed where an ordinary user does not look."""
    program = shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "debugfs"
    return subprocess.run([program, "-R", request, str(made_disk)], capture_output=True, text=True, check=True).stdout


@made_by_e2fsprogs
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whenever and wherever it is made, whenever its files were read; one byte more gives others."""
    first = made(tmp_path / "first")
    shutil.copytree(tmp_path / "first/root", tmp_path / "elsewhere", symlinks=True)
    os.utime(tmp_path / "elsewhere/bin/ready", (1, tree.MTIME_S))
    disk.write(tmp_path / "elsewhere", tmp_path / "second")
    assert first.read_bytes() == (tmp_path / "second").read_bytes()
    assert made(tmp_path / "third", (*TREE, file("z", b""))).read_bytes() != first.read_bytes()


@made_by_e2fsprogs
def test_what_is_on_the_disk_is_the_tree(tmp_path: Path) -> None:
    """Names, permissions, contents and links; all of it root's and of the same time; nothing besides."""
    found = made(tmp_path / "made")
    assert told(found, 'cat "/bin/ready"') == "x" * 10_000
    listed = {line.split("/")[5] for line in told(found, "ls -p /").splitlines() if line.count("/") > 5}
    assert listed - {".", ".."} == {"bin", "dev", "far", "odd names", "tmp", "umlaut-ü"}
    assert f'Fast link dest: "{"ready"}"' in told(found, "stat /bin/sh")
    for path, mode in (("/", "0755"), ("/tmp", "01777"), ("/umlaut-ü", "0444"), ("/bin/ready", "0755")):
        status = told(found, f"stat {path}")
        assert re.search(rf"Mode:\s+{mode}\b", status), status
        assert re.search(r"User:\s+0\s+Group:\s+0\b", status), status
        assert set(re.findall(r"[acm]time: (0x\w+)", status)) == {f"0x{tree.MTIME_S:08x}"}, status


@made_by_e2fsprogs
def test_a_folder_that_file_systems_make_is_kept_where_it_is_the_image_s(tmp_path: Path) -> None:
    """With what is in it."""
    found = made(tmp_path / "made", (folder("lost+found"), file("lost+found/kept", b"kept")))
    assert told(found, "cat /lost+found/kept") == "kept"


@made_by_e2fsprogs
def test_many_small_files_and_a_large_one_fit(tmp_path: Path) -> None:
    """The size follows what is in it; what it does not use takes no space."""
    many = tuple(file(f"many/{number:05d}-{'x' * 60}", b"x", 0o644) for number in range(3000))
    found = made(tmp_path / "made", (folder("many"), *many, file("large", bytes(30 << 20))))
    assert "Clear" not in told(found, "stat /large")
    assert found.stat().st_size < 80 << 20
    assert found.stat().st_blocks * 512 <= found.stat().st_size


def test_no_name_of_a_tree_is_part_of_a_command() -> None:
    """debugfs would take a line of it for an order."""
    lines = disk.settings(2, lost_and_found=False)
    assert lines[0] == "rmdir lost+found"
    assert all(re.fullmatch(r"set_inode_field <(2|12|13)> \w+ @?\d+", line) for line in lines[1:])
    assert disk.settings(2, lost_and_found=True)[0].startswith("set_inode_field <2>")


def test_a_disk_is_derived_once_and_goes_with_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not as it was made is made again; ``image rm NAME`` finds it."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(disk, "availability", lambda: Availability.yes())
    calls = []

    def write(root: Path, target: Path) -> None:
        calls.append(root)
        target.write_bytes(b"disk")

    monkeypatch.setattr(disk, "write", write)
    image = Image("some", "ab" * 32, tmp_path / "root")
    found = disk.derive_disk(image)
    assert disk.derive_disk(image) == found and len(calls) == 1
    assert stat.S_IMODE(found.stat().st_mode) == 0o644, "QEMU often runs as another user"
    found.write_bytes(b"other")
    assert disk.derive_disk(image).read_bytes() == b"disk" and len(calls) == 2
    assert [entry.what for entry in inventory.find(["some"])] == ["disk of a guest, with image some"]


def test_a_host_without_e2fsprogs_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or to do without the disk."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(UnavailableError, match="mke2fs and debugfs not installed") as caught:
        disk.derive_disk(Image("some", "ab" * 32, tmp_path))
    assert "e2fsprogs" in str(caught.value.hint) and "root: ram" in str(caught.value.hint)


def test_what_mke2fs_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name."""
    said = "mke2fs 1.47.0 (5-Feb-2023)\nmke2fs: Could not allocate block in ext2 filesystem\n"
    monkeypatch.setattr(processes, "run", lambda words, **options: Completed(tuple(words), 1, "", said))
    (tmp_path / "root").mkdir()
    with pytest.raises(ImageError, match="mke2fs could not make the disk of an image: mke2fs: Could not allocate"):
        disk.write(tmp_path / "root", tmp_path / "disk")
