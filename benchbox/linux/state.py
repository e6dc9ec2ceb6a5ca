"""Where benchbox keeps what must not outlive a boot (state) and what should (cache).

Whoever asks for one of these folders gets it only if no other user can have put anything there, see ``trust``.
"""

import os
from pathlib import Path

from benchbox.errors import EnvironmentFailure
from benchbox.linux import trust


def state_folder() -> Path:
    """Return the folder of ledgers and sockets: ``$BENCHBOX_STATE``, else the host's runtime folder.

    Its path is short, because the path of a Unix socket has at most 107 bytes (unix(7)).
    Raises TrustError where it is not this user's alone.
    """
    remedy = "set BENCHBOX_STATE to a folder that is yours alone"
    return trust.require(_state_path(), "state folder", remedy, private=True)


def _state_path() -> Path:
    if given := os.environ.get("BENCHBOX_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/benchbox")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "benchbox")
    return Path(f"/tmp/benchbox-{os.getuid()}")


def cache_folder(*inside: str) -> Path:
    """Return the folder of images and kernels: ``$BENCHBOX_CACHE``, else the user's cache folder; or one ``inside``.

    As the XDG base directory specification says, a relative ``XDG_CACHE_HOME`` is ignored.
    Raises EnvironmentFailure for a user without a home, TrustError where another user could have written into it.
    """
    remedy = "set BENCHBOX_CACHE to a folder that is yours"
    return trust.require(Path(_cache_path(), *inside), "cache folder", remedy)


def _cache_path() -> Path:
    if given := os.environ.get("BENCHBOX_CACHE"):
        return Path(given)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():
        return shared / "benchbox"
    try:
        return Path.home() / ".cache" / "benchbox"
    except RuntimeError as error:
        hint = "set BENCHBOX_CACHE to a folder"
        raise EnvironmentFailure("no cache folder: this user has no home", hint=hint) from error


def make_state_folder() -> Path:
    """Return ``state_folder()``, made where it is missing. Raises OSError."""
    make_folder(state_folder(), 0o700)
    return state_folder()  # in a folder that all may write to somebody else could have been first


def make_cache_folder(*inside: str, mode: int = 0o755) -> Path:
    """Return ``cache_folder(*inside)``, made where it is missing. Raises OSError."""
    make_folder(cache_folder(*inside), mode)
    return cache_folder(*inside)


def make_folder(folder: Path, mode: int) -> None:
    """Make ``folder`` and the parents that it lacks. Raises OSError.

    The umask may close them further than ``mode`` does, and opens them to nobody.
    """
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir(mode, exist_ok=True)
    folder.mkdir(mode, exist_ok=True)


def boot_id() -> str:
    """Return the kernel's name for this boot, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
