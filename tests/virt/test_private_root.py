"""The folders of libvirt's embedded driver and of the emulator's wrapper."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.virt import private_root
from tests.foreign import STRANGER, seems


def test_the_driver_runs_qemu_as_root_only_for_root() -> None:
    """The trade of root's configuration is not made for other users."""
    assert 'user = "root"' in private_root.configuration(as_root=True)
    assert "user" not in private_root.configuration(as_root=False)
    for as_root in (True, False):
        assert 'stdio_handler = "file"' in private_root.configuration(as_root=as_root)


def test_what_libvirt_learned_outlives_a_private_root(tmp_path: Path) -> None:
    """Each private root shares one folder of capabilities, and may be made again."""
    for name in ("a", "a", "b"):
        private_root.make(tmp_path / name, tmp_path / "capabilities")
    (tmp_path / "a" / "cache" / "learned").write_text("x")

    assert (tmp_path / "b" / "cache" / "learned").read_text() == "x"
    assert (tmp_path / "b" / "etc" / "qemu.conf").read_text() == private_root.configuration(as_root=os.geteuid() == 0)


def test_a_root_with_odd_characters_is_escaped_in_the_uri() -> None:
    """A path is one parameter of the URI whatever it contains."""
    assert private_root.uri(Path("/run/a b&c")) == "qemu:///embed?root=/run/a%20b%26c"


@pytest.fixture
def programs(tmp_path: Path) -> tuple[Path, Path]:
    launch, qemu = tmp_path / "launch", tmp_path / "qemu-system-x86_64"
    launch.write_bytes(b"launch 1")
    qemu.write_bytes(b"qemu 1")
    return launch, qemu


def test_the_wrapper_is_launch_under_qemus_name_with_a_link_to_it(programs: tuple[Path, Path], tmp_path: Path) -> None:
    """``launch`` knows by its name what to be, and by the link what to become."""
    wrapper = private_root.emulator(*programs, tmp_path / "cache")

    assert wrapper.name == "qemu-system-x86_64"
    assert wrapper.read_bytes() == b"launch 1"
    assert os.access(wrapper, os.X_OK)
    assert (wrapper.parent / "real").readlink() == programs[1]


def test_the_wrapper_keeps_its_path_and_time_while_both_programs_are_the_same(
    programs: tuple[Path, Path], tmp_path: Path
) -> None:
    """libvirt remembers what an emulator can do by its path and time: neither may change without need."""
    first = private_root.emulator(*programs, tmp_path / "cache")
    changed_ns = first.stat().st_ctime_ns
    again = private_root.emulator(*programs, tmp_path / "cache")

    assert (again, again.stat().st_ctime_ns) == (first, changed_ns)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.parent.name]


def planted(wrapper: Path) -> None:
    wrapper.write_bytes(b"something else")


def led_elsewhere(wrapper: Path) -> None:
    (wrapper.parent / "real").unlink()
    (wrapper.parent / "real").symlink_to("/bin/false")


def linked(wrapper: Path) -> None:
    other = wrapper.with_name("other")
    wrapper.rename(other)
    wrapper.symlink_to(other)


def folder_linked(wrapper: Path) -> None:
    other = wrapper.parent.with_name("other")
    wrapper.parent.rename(other)
    wrapper.parent.symlink_to(other)


def in_part(wrapper: Path) -> None:
    (wrapper.parent / "real").unlink()


def writable(wrapper: Path) -> None:
    wrapper.chmod(0o777)


def in_a_writable_folder(wrapper: Path) -> None:
    wrapper.parent.chmod(0o777)


def not_executable(wrapper: Path) -> None:
    wrapper.chmod(0o644)


def a_file(wrapper: Path) -> None:
    shutil.rmtree(wrapper.parent)
    wrapper.parent.write_text("no folder")


CHANGES: Final = (
    planted, led_elsewhere, linked, folder_linked, in_part, writable, in_a_writable_folder, not_executable, a_file,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapper_that_is_not_as_it_was_made_is_made_anew(
    change: Callable[[Path], None], programs: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is compared with its sources at each use: it runs with the rights of who measures."""
    change(private_root.emulator(*programs, tmp_path / "cache"))
    wrapper = private_root.emulator(*programs, tmp_path / "cache")
    assert (wrapper.read_bytes(), (wrapper.parent / "real").readlink()) == (b"launch 1", programs[1])
    assert not wrapper.is_symlink() and not wrapper.parent.is_symlink()
    assert {wrapper.stat().st_mode & 0o7777, wrapper.parent.stat().st_mode & 0o7777} == {0o755}
    assert {path.name for path in wrapper.parent.parent.iterdir()} - {"other"} == {wrapper.parent.name}


def test_a_wrapper_in_a_folder_of_another_user_is_not_used(
    programs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what was made there anew: that user can change it."""
    private_root.emulator(*programs, tmp_path / "cache")
    seems(monkeypatch, tmp_path / "cache", owner=STRANGER)
    with pytest.raises(EnvironmentFailure, match="is no emulator wrapper"):
        private_root.emulator(*programs, tmp_path / "cache")


@pytest.mark.parametrize("index", [0, 1])
def test_a_new_launch_or_qemu_is_a_new_wrapper(programs: tuple[Path, Path], tmp_path: Path, index: int) -> None:
    """An upgraded QEMU must be asked anew, although the wrapper's own bytes are the same."""
    before = private_root.emulator(*programs, tmp_path / "cache")
    programs[index].write_bytes(b"version 2, longer")

    assert private_root.emulator(*programs, tmp_path / "cache") != before
