"""Where benchbox keeps what must not outlive a boot (state) and what should (cache)."""

import os
from pathlib import Path

from benchbox.errors import EnvironmentFailure


def state_folder() -> Path:
    """Return the folder of ledgers and sockets: ``$BENCHBOX_STATE``, else the host's runtime folder.

    Its path is short, because the path of a Unix socket has at most 107 bytes (unix(7)).
    """
    if given := os.environ.get("BENCHBOX_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/benchbox")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "benchbox")
    return Path(f"/tmp/benchbox-{os.getuid()}")


def cache_folder() -> Path:
    """Return the folder of images and kernels: ``$BENCHBOX_CACHE``, else the user's cache folder.

    Raises EnvironmentFailure for a user without a home.
    """
    if given := os.environ.get("BENCHBOX_CACHE"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "benchbox")
    except RuntimeError as error:
        hint = "set BENCHBOX_CACHE to a folder"
        raise EnvironmentFailure("no cache folder: this user has no home", hint=hint) from error


def make_private(folder: Path) -> Path:
    """Make ``folder`` for this user alone and return it. Raises PermissionError if it belongs to somebody else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.geteuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def boot_id() -> str:
    """Return the kernel's name for this boot, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
