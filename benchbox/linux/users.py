"""User namespaces: which users of the host stand behind those inside, and a namespace to map mounts with."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.errors import EnvironmentFailure
from benchbox.linux import processes, syscalls
from benchbox.linux.launch import IdMap
from benchbox.model import Availability

#: How many users a container's namespace has: all that a program expects, up to ``nobody`` (65534).
COUNT: Final = 65536
#: Where no range is set aside for benchbox: above what systemd's uids-gids.md hands out to containers, below 2^31.
FALLBACK_FIRST: Final = 0x71000000
#: Whose ranges in /etc/subuid and /etc/subgid may be used by root.
_OWNERS: Final = ("benchbox", "root")


def subordinate(text: str, owners: tuple[str, ...] = _OWNERS) -> int | None:
    """Return where the first range of ``COUNT`` users begins that subuid(5) gives to one of ``owners``, in their order.

    Lines that are no such entry are passed over.
    """
    entries = [line.split(":") for line in text.splitlines() if line.count(":") == 2]
    ranges = [(name, int(first), int(count)) for name, first, count in entries if (first + count).isdecimal()]
    fitting = [(owner, first) for owner in owners for name, first, count in ranges if name == owner and count >= COUNT]
    return fitting[0][1] if fitting else None


def root_maps(etc: Path = Path("/etc")) -> tuple[IdMap, IdMap]:
    """Return the maps of users and groups with which root starts a container: no user inside is one of the host's."""
    firsts = []
    for name in ("subuid", "subgid"):
        try:
            first = subordinate((etc / name).read_text(errors="replace"))
        except OSError:
            first = None
        firsts.append(FALLBACK_FIRST if first is None else first)
    return IdMap(0, firsts[0], COUNT), IdMap(0, firsts[1], COUNT)


def own_maps() -> tuple[IdMap, IdMap]:
    """Return the only maps that a user may write without help: root inside is that user, user_namespaces(7)."""
    return IdMap(0, os.geteuid(), 1), IdMap(0, os.getegid(), 1)


def own_namespace_works(launch: Path) -> Availability:
    """Say whether an ordinary user may make a user namespace here, by making one; ``launch`` is the program."""
    uid_map, gid_map = own_maps()
    words: list[str | Path] = [launch, "--unshare-user", "--unshare-mount", "--unshare-pid"]
    for option, ids in (("--uid-map", uid_map), ("--gid-map", gid_map)):
        words += [option, str(ids.inside), str(ids.outside), str(ids.count)]
    try:
        processes.run([*words, "--", launch, "--help"], timeout_s=10)
    except EnvironmentFailure as error:
        return Availability.no(
            f"an ordinary user cannot make a user namespace here ({error.message.rpartition('launch: ')[2]})",
            "run benchbox as root, or allow it: user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0 (sysctl), whichever this host has",
        )
    return Availability.yes()


@contextlib.contextmanager
def namespace(users: IdMap, groups: IdMap) -> Iterator[int]:
    """Yield a descriptor of a user namespace with these maps. Needs root; raises OSError.

    A child makes it and waits; with its end only the descriptor holds it.
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    with warnings.catch_warnings():
        # Other threads do not matter to a child that calls the kernel and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _make_and_wait(ready_write, hold_read, hold_write)
    os.close(ready_write)
    os.close(hold_read)
    try:
        descriptor = _mapped(child, ready_read, users, groups)
    finally:
        os.close(ready_read)
        os.close(hold_write)
        os.waitpid(child, 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_and_wait(ready: int, hold: int, other_end: int) -> None:
    try:
        os.close(other_end)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready, b"!")
        os.read(hold, 1)
    finally:
        os._exit(0)


def _mapped(child: int, ready: int, users: IdMap, groups: IdMap) -> int:
    if os.read(ready, 1) != b"!":
        raise OSError(1, "cannot make a user namespace")
    for name, ids in (("uid_map", users), ("gid_map", groups)):
        Path(f"/proc/{child}/{name}").write_text(f"{ids.inside} {ids.outside} {ids.count}\n")
    return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
