"""User namespaces: which users of the host stand behind those inside, and a namespace to map mounts with."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.linux import syscalls
from benchbox.linux.launch import IdMap

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


@contextlib.contextmanager
def namespace(users: IdMap, groups: IdMap) -> Iterator[int]:
    """Yield a descriptor of a user namespace with these maps. Needs root; raises OSError.

    A child makes it and waits; with its end only the descriptor holds it.
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
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
