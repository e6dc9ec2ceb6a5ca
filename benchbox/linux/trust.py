"""Whether what is in a folder can be believed: nobody but its owner may have put it there.

benchbox does what its files say, and often as root on a host that has other users: a ledger says what is ended and
removed, a cache holds programs, a record holds commands. So a folder must belong to whoever runs benchbox or to root,
others may not write into it, and the same is asked of each folder on the way to it: who may rename one of those decides
what lies below. (sshd asks the same of its files, sshd_config(5) StrictModes.) Once that holds nobody else can change
any part of the path, so it may be used by its name afterwards.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.errors import TrustError

_LINKS_MOST: Final = 40
_READ_OR_WRITTEN_BY_OTHERS: Final = 0o066
_ACCESS_LIST: Final = "system.posix_acl_access"
#: What /proc/self/uid_map shows in the first user namespace, user_namespaces(7).
_ALL_USERS: Final = ["0", "0", "4294967295"]


@dataclass(frozen=True)
class Doubt:
    """Why a path is not believed: the ``place`` on it, what is wrong there, and a command that mends it if any does."""

    place: Path
    reason: str
    fix: str | None = None


def require(path: Path, what: str, remedy: str, *, private: bool = False, shared: bool = False) -> Path:
    """Return ``path``, absolute; ``what`` it is in words. Raises TrustError with ``remedy`` if there is a ``doubt``."""
    path = path.absolute()
    if found := doubt(path, private=private, shared=shared):
        where = "it" if found.place == path else str(found.place)
        hint = f"{remedy}, or, if nobody has put anything there: {found.fix}" if found.fix else remedy
        raise TrustError(f"the {what} {path} is not to be trusted: {where} {found.reason}", hint=hint)
    return path


def doubt(path: Path, *, private: bool = False, shared: bool = False) -> Doubt | None:
    """Return why what is at ``path`` could be another user's work; None if it could not be, or is not there yet.

    ``private``: it must be this very user's, no link, and others may neither write nor list it. ``shared``: others may
    add to the folder as they may to /tmp; what benchbox itself makes there is safe from them.
    """
    trusted, hidden = owners(), _hidden_owner()
    try:
        for place, status, last in _way(path.absolute()):
            found = judge(place, status, trusted if last else trusted | hidden, last=last and not shared)
            found = found or (_not_private(place, status) if private and last else None)
            if found:
                return found
    except OSError as error:
        return Doubt(Path(error.filename or path), f"cannot be looked at: {error.strerror}")
    return None


def owners() -> frozenset[int]:
    """Return the users whose files are believed: root, who runs benchbox, and for root who became it by sudo.

    The last, as git does it (git-config(1), safe.directory): that user has just said what root is to do.
    """
    user = os.geteuid()
    before = os.environ.get("SUDO_UID", "") if user == 0 else ""
    return frozenset({0, user, *([int(before)] if before.isdecimal() else [])})


def judge(place: Path, status: os.stat_result, trusted: Collection[int], *, last: bool) -> Doubt | None:
    """Return what is wrong with one part of a path; ``last`` is what the path leads to, the others lead there.

    In a folder on the way that is sticky (/tmp) all may write, but nobody can rename what is another's.
    """
    if status.st_uid not in trusted:
        return Doubt(place, f"belongs to {_user(status.st_uid)}")
    if stat.S_ISLNK(status.st_mode) or (not last and status.st_mode & stat.S_ISVTX):
        return None
    by_group = status.st_mode & stat.S_IWGRP and not _is_own_group(place, status.st_gid, trusted)
    if status.st_mode & stat.S_IWOTH or by_group:
        return Doubt(place, f"can be written by others (mode {_mode(status)})", f"chmod go-w {place}")
    return None


def _not_private(place: Path, status: os.stat_result) -> Doubt | None:
    if stat.S_ISLNK(status.st_mode):
        return Doubt(place, "is a link")
    if status.st_uid != os.geteuid():
        return Doubt(place, f"belongs to {_user(status.st_uid)}")
    if status.st_mode & _READ_OR_WRITTEN_BY_OTHERS:
        return Doubt(place, f"is open to others (mode {_mode(status)})", f"chmod 700 {place}")
    return None


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yield each part of the way to ``path``, links before what they lead to (path_resolution(7)), while there is one.

    With each comes whether it is the last: what the path leads to, or a link that is its last name.
    """
    done, names, links = Path("/"), list(path.parts[1:]), 0
    yield done, done.lstat(), not names
    while names:
        name = names.pop(0)
        if name == "..":
            done = done.parent
            continue
        place = done / name
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield place, status, not names
        if not stat.S_ISLNK(status.st_mode):
            done = place
            continue
        links += 1
        if links > _LINKS_MOST:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = place.readlink()
        done = Path("/") if target.is_absolute() else done
        names = [*target.parts[target.is_absolute() :], *names]


def _is_own_group(place: Path, group: int, trusted: Collection[int]) -> bool:
    """Say whether only ``trusted`` users are in ``group``, as where each user has a group of their own (umask 002).

    Whom an access list lets in is behind the group's bit as well, acl(5); then nothing is known.
    """
    import grp
    import pwd

    try:
        listed = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:
        return False
    members = listed | {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group}
    return members <= set(trusted) and not _has_access_list(place)


def _has_access_list(place: Path) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(place)
    except OSError:
        return False


def _hidden_owner() -> frozenset[int]:
    """Return whom files of users seem to belong to that this user namespace does not have; nobody in the first one.

    There the host's root owns / and /home like that, so it may own what leads to a folder, never the folder.
    """
    try:
        if Path("/proc/self/uid_map").read_text().split() == _ALL_USERS:
            return frozenset()
        return frozenset({int(Path("/proc/sys/kernel/overflowuid").read_text())})
    except (OSError, ValueError):
        return frozenset()


def _user(number: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(number).pw_name} (user {number})"
    except KeyError:
        return f"user {number}"


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
