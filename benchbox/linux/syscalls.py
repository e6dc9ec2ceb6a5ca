"""The few system calls that Python's standard library lacks, each named as its man page."""

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOSUID: Final = 2
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _check(result: int, call: str, path: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fs_type: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError that names the target."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fs_type, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError that names the target."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def prctl(option: int, argument: int) -> None:
    """prctl(2) for options with one number. Raises OSError."""
    _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")
