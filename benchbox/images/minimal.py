"""The image ``minimal``: our own programs, and a busybox to look around where the host has a static one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchbox.images import elf
from benchbox.images.store import Progress
from benchbox.images.tree import Entry, file, folder, link
from benchbox.native import program

APPLETS: Final = (
    "cat", "chmod", "cp", "date", "dd", "df", "dmesg", "echo", "env", "false", "find", "free", "grep", "head",
    "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nproc", "ps", "pwd", "rm", "sh", "sleep",
    "sort", "sync", "tail", "top", "touch", "true", "umount", "uname", "wc",
)  # fmt: skip
#: benchbox's own programs that workloads run.
PROGRAMS: Final = ("micro", "pingpong", "ready", "steady")
_FOLDERS: Final = ("bin", "data", "dev", "etc", "proc", "sys")
_ACCOUNTS: Final = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUPS: Final = "root:x:0:\nnogroup:x:65534:\n"


def entries(progress: Progress | None = None) -> list[Entry]:
    """Return the tree of ``minimal``; its digest depends on benchbox's programs and the host's busybox alone."""
    busybox = find_busybox()
    if busybox is None and progress is not None:
        progress("image minimal: without a shell to look around with, for this host has no static busybox")
    return tree({name: program(name) for name in PROGRAMS}, busybox)


def tree(programs: Mapping[str, Path], busybox: Path | None) -> list[Entry]:
    """Return the tree with ``programs`` by name and, where there is one, ``busybox`` with its applets."""
    return [
        *map(folder, _FOLDERS),
        folder("tmp", 0o1777),
        *(file(f"bin/{name}", path, 0o755) for name, path in sorted(programs.items())),
        file("etc/group", _GROUPS.encode()),
        file("etc/hostname", b"benchbox\n"),
        file("etc/passwd", _ACCOUNTS.encode()),
        *(_shell(busybox) if busybox else ()),
    ]


def _shell(busybox: Path) -> list[Entry]:
    return [file("bin/busybox", busybox, 0o755), *(link(f"bin/{applet}", "busybox") for applet in APPLETS)]


def find_busybox() -> Path | None:
    """Return the host's busybox if it needs no dynamic linker (none of its libraries are in the image)."""
    found = shutil.which("busybox") or "/bin/busybox"
    path = Path(found).resolve()
    return path if elf.is_static_program(path) else None
