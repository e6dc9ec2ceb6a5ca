"""The few system calls that Python's standard library lacks, each named as its man page."""

import ctypes
import errno
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
AT_FDCWD: Final = -100
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
AT_EMPTY_PATH: Final = 0x1000
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_IDMAP: Final = 0x00100000
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOSUID: Final = 2
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
PROT_READ: Final = 1
MAP_SHARED: Final = 1
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

#: Newer than the C libraries that benchbox runs with; their numbers are the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _check(result: int, call: str, path: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(namespace: int, kind: int) -> None:
    """setns(2) for the calling thread; ``namespace`` is a descriptor of one of ``kind``. Raises OSError."""
    _check(_libc.setns(namespace, kind), "setns")


def mount(source: str, target: str, fs_type: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError that names the target."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fs_type, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError that names the target."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def syncfs(descriptor: int) -> None:
    """syncfs(2). Raises OSError."""
    _check(_libc.syncfs(descriptor), "syncfs")


def prctl(option: int, argument: int) -> None:
    """prctl(2) for options with one number. Raises OSError."""
    _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def map_file(descriptor: int, size_bytes: int) -> int:
    """Return the address at which the first ``size_bytes`` of an open file are mapped, shared and read-only: mmap(2).

    Unlike ``mmap.mmap`` it keeps no descriptor open. Raises OSError.
    """
    address: int | None = _libc.mmap(None, size_bytes, PROT_READ, MAP_SHARED, descriptor, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")
    return address


def unmap(address: int, size_bytes: int) -> None:
    """munmap(2). Raises OSError."""
    _check(_libc.munmap(address, size_bytes), "munmap")


def mincore(address: int, size_bytes: int) -> bytes:
    """Return a byte for each page that is mapped from ``address`` on: 1 if it is in memory, else 0. Raises OSError."""
    pages = ctypes.create_string_buffer(-(-size_bytes // os.sysconf("SC_PAGE_SIZE")))
    while _libc.mincore(address, size_bytes, pages) < 0:
        if ctypes.get_errno() != errno.EAGAIN:
            _check(-1, "mincore")
    return pages.raw


class _MountAttributes(ctypes.Structure):
    """``struct mount_attr`` of linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def open_tree(path: str) -> int:
    """Return a descriptor of a copy of the mount at ``path`` that is mounted nowhere yet. Raises OSError."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    result: int = _libc.syscall(_OPEN_TREE, ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags))
    _check(result, "open_tree", path)
    return result


def move_mount(tree: int, target: str) -> None:
    """Mount what ``open_tree`` gave on ``target``. Raises OSError that names it."""
    words = (ctypes.c_int(tree), b"", ctypes.c_int(AT_FDCWD), os.fsencode(target))
    _check(_libc.syscall(_MOVE_MOUNT, *words, ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)), "move_mount", target)


def mount_setattr(tree: int, flags: int, user_namespace: int = 0) -> None:
    """Set attributes of the mount that ``tree`` is a descriptor of. Raises OSError."""
    attributes = _MountAttributes(flags, 0, 0, user_namespace)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    words = (ctypes.c_int(tree), b"", ctypes.c_uint(AT_EMPTY_PATH), ctypes.byref(attributes), size)
    _check(_libc.syscall(_MOUNT_SETATTR, *words), "mount_setattr")
