"""Mounts of the measuring process, in a mount namespace of its own: they vanish with it, whatever ends it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import syscalls

_private = False


def enter_private() -> None:
    """Move the calling thread (the main one) into a mount namespace that tells the host nothing; once is enough.

    Raises UnavailableError without the privilege (CAP_SYS_ADMIN), and in a plain chroot.
    """
    global _private
    if _private:
        return
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as error:
        raise UnavailableError(f"cannot make a mount namespace: {error.strerror}", hint=_hint(error)) from error
    _private = True


def _hint(error: OSError) -> str:
    if error.errno == errno.EINVAL:
        return "the root of this process is no mount point (a plain chroot?): run benchbox outside of it"
    return "run as root"


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Bind ``source`` onto ``target``, without what is mounted below it. Raises EnvironmentFailure."""
    with _named(target):
        syscalls.mount(str(source), str(target), None, syscalls.MS_BIND)
        if read_only:
            # A bind takes over the flags of its source: read-only needs a second step, mount(2).
            syscalls.mount("none", str(target), None, syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)


def tmpfs(target: Path, mode: str = "1777") -> None:
    """Mount an empty tmpfs on ``target``. Raises EnvironmentFailure."""
    with _named(target):
        syscalls.mount("tmpfs", str(target), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"mode={mode}")


def detach(target: Path) -> None:
    """Unmount ``target`` with all below it; nothing happens if it is no mount point."""
    with contextlib.suppress(OSError):
        syscalls.umount2(os.fspath(target), syscalls.MNT_DETACH)


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(f"cannot mount {target}: {error.strerror}") from error
