"""Another user's files are not believed, and neither is what another user could have put there."""

import grp
import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchbox.errors import TrustError
from benchbox.linux import trust
from tests.foreign import STRANGER, seems

ME, SOMEBODY = 1000, 1001


def status(mode: int, owner: int = ME, group: int = 4242) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, owner, group, 0, 0, 0, 0))


def judged(mode: int, owner: int = ME, *, last: bool = True) -> str | None:
    found = trust.judge(Path("/x"), status(mode, owner), {0, ME}, last=last)
    return found.reason if found else None


@pytest.mark.parametrize("owner", [0, ME])
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o500])
def test_what_root_or_this_user_alone_can_write_is_believed(owner: int, mode: int) -> None:
    """Whoever may read it."""
    assert judged(stat.S_IFDIR | mode, owner) is None


@pytest.mark.parametrize("last", [False, True])
def test_what_belongs_to_another_user_is_not(last: bool) -> None:
    """On the way as little as at its end; the reason names who it is."""
    assert judged(stat.S_IFDIR | 0o700, SOMEBODY, last=last) == f"belongs to {trust._user(SOMEBODY)}"
    assert judged(stat.S_IFLNK | 0o777, SOMEBODY, last=last) is not None


@pytest.mark.parametrize(("mode", "last"), [(0o777, False), (0o777, True), (0o1777, True), (0o757, True)])
def test_what_all_may_write_is_not_believed(mode: int, last: bool) -> None:
    """The reason has the mode as chmod takes it."""
    assert judged(stat.S_IFDIR | mode, last=last) == f"can be written by others (mode {mode:04o})"


def test_a_sticky_folder_on_the_way_may_be_written_by_all() -> None:
    """As /tmp: nobody can rename there what is another's."""
    assert judged(stat.S_IFDIR | 0o1777, 0, last=False) is None


def test_the_mode_of_a_link_says_nothing() -> None:
    """All may write it, says lstat, and nobody can."""
    assert judged(stat.S_IFLNK | 0o777) is None


@pytest.mark.parametrize(
    ("listed", "primary", "believed"),
    [
        ([], [ME], True),
        (["me"], [], True),
        (["me", "root"], [ME], True),
        (["me", "somebody"], [], False),
        ([], [ME, SOMEBODY], False),
        (["gone"], [ME], False),
    ],
)
def test_a_group_may_write_where_it_is_the_user_s_own(
    listed: list[str], primary: list[int], believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the umask is 002: nobody but this user and root is in it, neither listed nor by its own entry."""
    users = {"root": 0, "me": ME, "somebody": SOMEBODY}
    monkeypatch.setattr(grp, "getgrgid", lambda group: SimpleNamespace(gr_mem=listed))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=users[name]))
    entries = [SimpleNamespace(pw_uid=uid, pw_gid=4242 if uid in primary else 1) for uid in users.values()]
    monkeypatch.setattr(pwd, "getpwall", lambda: entries)
    assert (judged(stat.S_IFDIR | 0o775) is None) is believed


def test_a_group_that_nobody_knows_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any process may be in it."""

    def unknown(group: int) -> None:
        raise KeyError(group)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    assert judged(stat.S_IFDIR | 0o775) == "can be written by others (mode 0775)"


def test_a_path_is_judged_from_its_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a folder on the way can put another in place of all that is below."""
    folder = tmp_path / "a/b/c"
    folder.mkdir(parents=True)
    assert trust.doubt(folder) is None
    seems(monkeypatch, tmp_path / "a", owner=STRANGER)
    found = trust.doubt(folder)
    assert found and found.place == tmp_path / "a"


def test_a_path_that_is_not_there_yet_is_judged_as_far_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What benchbox makes there could be replaced, too."""
    assert trust.doubt(tmp_path / "never/made") is None
    seems(monkeypatch, tmp_path, mode=0o777)
    found = trust.doubt(tmp_path / "never/made")
    assert found and found.fix == f"chmod go-w {tmp_path}"


def test_a_link_is_judged_as_what_it_is_and_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cache may be on another disk; somebody else's link there is refused."""
    (tmp_path / "real/in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/../real")
    assert trust.doubt(tmp_path / "link/in") is None
    for name in ("link", "real"):
        with monkeypatch.context() as patch:
            seems(patch, tmp_path / name, owner=STRANGER)
            found = trust.doubt(tmp_path / "link/in")
            assert found and found.place == tmp_path / name


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    """With the kernel's own word for it."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    found = trust.doubt(tmp_path / "a")
    assert found and "cannot be looked at" in found.reason


@pytest.mark.parametrize(
    ("sudo", "user", "believed"),
    [("1000", 0, True), ("1000", 1001, False), ("", 0, False), ("x", 0, False), (None, 0, False)],
)
def test_root_by_sudo_believes_who_called_it(
    sudo: str | None, user: int, believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That user has just said what root is to do; of others than root the variable changes nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("SUDO_UID", raising=False)
    if sudo is not None:
        monkeypatch.setenv("SUDO_UID", sudo)
    assert trust.owners() == {0, user} | ({1000} if believed else set())


def test_the_error_says_what_where_whose_and_what_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told to take what is another's for their own."""
    seems(monkeypatch, tmp_path, owner=STRANGER)
    with pytest.raises(TrustError) as caught:
        trust.require(tmp_path / "x", "cache folder", "set BENCHBOX_CACHE")
    said = f"the cache folder {tmp_path}/x is not to be trusted: {tmp_path} belongs to {trust._user(STRANGER)}"
    assert (caught.value.message, caught.value.hint) == (said, "set BENCHBOX_CACHE")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o720, 0o702])
def test_a_private_folder_is_closed_to_others(mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may pass through at most; the remedy is a command."""
    seems(monkeypatch, tmp_path, mode=mode)
    found = trust.doubt(tmp_path, private=True)
    assert found and found.fix in (f"chmod 700 {tmp_path}", f"chmod go-w {tmp_path}")
    seems(monkeypatch, tmp_path, mode=0o711)
    assert trust.doubt(tmp_path, private=True) is None


def test_a_private_folder_is_no_link(tmp_path: Path) -> None:
    """Not even one of this user's own."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    found = trust.doubt(tmp_path / "link", private=True)
    assert found and found.reason == "is a link"


def test_in_a_user_namespace_who_is_hidden_may_own_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There / and /home belong to nobody that has a number; what they lead to must be this user's all the same."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    monkeypatch.setattr(trust, "_hidden_owner", lambda: frozenset({STRANGER}))
    seems(monkeypatch, tmp_path / "a", owner=STRANGER)
    assert trust.doubt(folder) is None
    assert trust.doubt(tmp_path / "a")


def test_an_access_list_is_not_taken_for_a_group_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom it lets in stands behind the group's bit."""
    monkeypatch.setattr(grp, "getgrgid", lambda group: SimpleNamespace(gr_mem=[]))
    monkeypatch.setattr(pwd, "getpwall", list)
    assert judged(stat.S_IFDIR | 0o775) is None
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"])
    assert judged(stat.S_IFDIR | 0o775) == "can be written by others (mode 0775)"


def test_a_shared_folder_may_be_added_to_as_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is sticky; else what is made there can be taken away."""
    seems(monkeypatch, tmp_path, mode=0o1777)
    assert trust.doubt(tmp_path)
    assert trust.doubt(tmp_path, shared=True) is None
    seems(monkeypatch, tmp_path, mode=0o777)
    assert trust.doubt(tmp_path, shared=True)
