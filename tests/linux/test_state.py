"""Where benchbox keeps its things."""

import os
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import state


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENCHBOX_STATE", "BENCHBOX_CACHE", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("user", "variables", "folder"),
    [
        (0, {}, "/run/benchbox"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/benchbox"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/benchbox"),
        (1000, {}, "/tmp/benchbox-1000"),
        (0, {"BENCHBOX_STATE": "/srv/state"}, "/srv/state"),
        (1000, {"BENCHBOX_STATE": "/srv/state"}, "/srv/state"),
    ],
)
def test_the_state_folder_is_one_that_a_reboot_empties(
    user: int, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's, the user's runtime folder, or the one that is named."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "getuid", lambda: user)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert state.state_folder() == Path(folder)
    assert len(folder) < 40


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "/home/u"}, "/home/u/.cache/benchbox"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/benchbox"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/u"}, "/home/u/.cache/benchbox"),
        ({"BENCHBOX_CACHE": "/b", "XDG_CACHE_HOME": "/c"}, "/b"),
    ],
)
def test_the_cache_folder_is_the_user_s(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the XDG base directory specification says, unless one is named."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert state.cache_folder() == Path(folder)


def test_a_private_folder_is_this_user_s_alone(tmp_path: Path) -> None:
    """Made with all its parents; a second call finds it."""
    folder = state.make_private(tmp_path / "a/b")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert state.make_private(folder) == folder


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    """In a folder that all may write to somebody else could have put it there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        state.make_private(tmp_path / "link")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could put things into it."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        state.make_private(tmp_path)


def test_a_boot_has_a_name_that_stays() -> None:
    """The kernel's."""
    assert state.boot_id() == state.boot_id()
    assert len(state.boot_id()) == 36


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is a variable."""
    for name in ("BENCHBOX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(EnvironmentFailure, match="no cache folder") as error:
        state.cache_folder()
    assert "BENCHBOX_CACHE" in str(error.value.hint)
