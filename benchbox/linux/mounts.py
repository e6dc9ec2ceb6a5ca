"""Mounts of the measuring process, in a mount namespace of its own: they vanish with it, whatever ends it."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import removal, syscalls

#: Of mounts below which no file gives a user or a device: what can be written to, and what holds images.
GIVES_NOTHING: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV

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


def bind(source: Path, target: Path, *, read_only: bool = False, devices: bool = False) -> None:
    """Bind ``source`` onto ``target``, without what is mounted below it. Raises EnvironmentFailure.

    No file there gives a user (set-user-id) or a device, but for ``devices``.
    """
    flags = (0 if devices else GIVES_NOTHING) | (syscalls.MS_RDONLY if read_only else 0)
    with _named(target):
        syscalls.mount(str(source), str(target), None, syscalls.MS_BIND)
        if flags:
            # A bind takes over the flags of its source: others need a second step, mount(2).
            syscalls.mount("none", str(target), None, syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def mapped(source: Path, target: Path, user_namespace: int) -> None:
    """Mount ``source`` on ``target``, read-only, with the owners of its files as ``user_namespace`` maps them.

    A file of user 0 then belongs to whoever is user 0 in that namespace (an open descriptor). Raises OSError where
    kernel or file system cannot (mount_setattr(2): ID-mapped mounts).
    """
    tree = syscalls.open_tree(os.fspath(source))
    try:
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY, user_namespace)
        syscalls.move_mount(tree, os.fspath(target))
    finally:
        os.close(tree)


def overlay(lower: Path, scratch: Path, target: Path) -> None:
    """Mount ``lower`` on ``target`` with a writable layer in ``scratch``, made here. Raises EnvironmentFailure.

    Not ``volatile`` or ``metacopy``: what an engine mounts by default is what it is compared with.
    """
    folders = [scratch / "upper", scratch / "work"]
    with _named(target):
        for folder in (*folders, target):
            folder.mkdir()
        words = zip(("lowerdir", "upperdir", "workdir"), (lower, *folders), strict=True)
        options = ",".join(f"{name}={_escaped(path)}" for name, path in words)
        syscalls.mount("overlay", str(target), "overlay", GIVES_NOTHING, options)


def _escaped(path: Path) -> str:
    """Return ``path`` as overlayfs takes it: colons separate layers, commas options (Documentation/filesystems)."""
    return re.sub(r"([\\:,])", r"\\\1", str(path))


def can_be_layer(folder: Path, other: Path) -> bool:
    """Say whether an overlay takes ``folder`` as a lower layer, with ``other``: older kernels refuse ID-mapped ones."""
    try:
        options = f"lowerdir={folder}:{other}"
        syscalls.mount("overlay", str(folder), "overlay", syscalls.MS_RDONLY, options)
    except OSError:
        return False
    detach(folder)
    return True


#: What every program may expect in /dev, with major and minor number (Documentation/admin-guide/devices.txt).
DEVICES: Final = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def devices(target: Path) -> None:
    """Mount a minimal /dev on ``target``, read-only; its folder ``shm`` is one to mount on. Raises EnvironmentFailure.

    Read-only means that nobody can change the nodes; what is behind them can be written to.
    """
    with _named(target):
        flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
        syscalls.mount("tmpfs", str(target), "tmpfs", flags, "mode=755,size=64k")
        for name, (major, minor) in DEVICES.items():
            os.mknod(target / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            (target / name).chmod(0o666)
        for name, to in _DEVICE_LINKS.items():
            (target / name).symlink_to(to)
        (target / "shm").mkdir()
        remount = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
        syscalls.mount("none", str(target), None, remount | flags)


def file_system(folder: Path) -> str:
    """Return the type of the file system that ``folder`` lies on, as /proc/self/mountinfo names it."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split()[2] == wanted:
            return tail.split()[0]
    return "a file system of unknown type"


def mounted(folder: Path) -> tuple[str, str]:
    """Return type and source of the file system that ``folder`` lies on, as /proc/self/mountinfo names them."""
    return mounted_at(folder.resolve(), Path("/proc/self/mountinfo").read_text())


def mounted_at(folder: Path, mountinfo: str) -> tuple[str, str]:
    """Return type and source of the mount of ``mountinfo`` that ``folder``, an absolute path, is in. Pure.

    The longest mount point that leads to it, and of several there the last, which hides the others.
    """
    found, deepest = ("unknown", ""), -1
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))
        if folder.is_relative_to(point) and len(point.parts) >= deepest:
            kind, source = tail.split()[:2]
            found, deepest = (kind, source), len(point.parts)
    return found


def tmpfs(target: Path, size_bytes: int, mode: str = "1777") -> None:
    """Mount an empty tmpfs on ``target`` that takes ``size_bytes`` at most. Raises EnvironmentFailure."""
    with _named(target):
        syscalls.mount("tmpfs", str(target), "tmpfs", GIVES_NOTHING, f"mode={mode},size={size_bytes}")


def tmpfs_bytes(limit_bytes: int) -> int:
    """Return the size of a tmpfs that is to take ``limit_bytes`` at most, and no more than the kernel lets one take by
    itself: half of the memory, tmpfs(5)."""
    return min(limit_bytes, os.sysconf("SC_PHYS_PAGES") // 2 * os.sysconf("SC_PAGE_SIZE"))


def detach(target: Path) -> None:
    """Unmount ``target`` with all below it; nothing happens if it is no mount point."""
    with contextlib.suppress(OSError):
        syscalls.umount2(os.fspath(target), syscalls.MNT_DETACH)


@contextlib.contextmanager
def mount_point(folder: Path) -> Iterator[Path]:
    """Make ``folder``, closed to other users, to mount on, and yield it; in the end mount and folder go."""
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        detach(folder)
        removal.try_remove(folder)


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(f"cannot mount {target}: {error.strerror}") from error
