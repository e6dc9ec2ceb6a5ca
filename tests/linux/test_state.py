"""Where benchbox keeps its things."""

import os
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure, TrustError
from benchbox.linux import state
from tests.foreign import STRANGER, seems


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
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/u"}, "/home/u/.cache/benchbox"),
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


def test_the_state_folder_is_made_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its parents; a second call finds it."""
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path / "a/b"))
    for _ in range(2):
        assert state.make_state_folder() == tmp_path / "a/b"
        assert (tmp_path / "a/b").stat().st_mode & 0o7777 == 0o700


def test_what_is_made_is_open_to_nobody_by_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the folder nor a parent that was made with it."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "a/cache"))
    before = os.umask(0)
    try:
        state.make_cache_folder("kind")
        state.make_cache_folder("scratch", mode=0o700)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o755, "cache": 0o755, "kind": 0o755, "scratch": 0o700}


def test_a_link_in_place_of_the_state_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything behind it is read."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path / "link"))
    with pytest.raises(TrustError, match="it is a link"):
        state.state_folder()


def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it; what is to be done is said."""
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path))
    seems(monkeypatch, tmp_path, owner=STRANGER)
    for ask in (state.state_folder, state.make_state_folder):
        with pytest.raises(TrustError, match=r"it belongs to .*65534") as caught:
            ask()
        assert "BENCHBOX_STATE" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o755])
def test_a_state_folder_that_others_may_write_or_list_is_refused(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sticky or not."""
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path))
    seems(monkeypatch, tmp_path, mode=mode)
    with pytest.raises(TrustError, match=f"mode {mode:04o}") as caught:
        state.state_folder()
    assert f"chmod 700 {tmp_path}" in str(caught.value.hint) or f"chmod go-w {tmp_path}" in str(caught.value.hint)


@pytest.mark.parametrize("mark", [{"owner": STRANGER}, {"mode": 0o777}])
def test_a_cache_that_another_user_owns_or_can_write_is_refused(
    mark: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, or one kind of entry in it."""
    (tmp_path / "cache/emulator").mkdir(parents=True, mode=0o755)
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    assert state.cache_folder("emulator") == tmp_path / "cache/emulator"
    for path in (tmp_path / "cache/emulator", tmp_path / "cache"):
        seems(monkeypatch, path, **mark)
        with pytest.raises(TrustError) as caught:
            state.cache_folder("emulator")
        assert "BENCHBOX_CACHE" in str(caught.value.hint)


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
