"""One run per host at a time, as far as one user may decide that for another.

Root's lock is a file of root's (flock(2)), one for the host: runs of root exclude each other, and other users see it
and are refused. Each other user has a lock of their own in their state folder. So nobody but root can keep root from
measuring. The kernel drops a lock when its holder ends.

The lock itself can only be opened by its owner, because whoever may open a file may lock it. What others read is beside
it: who holds it, as a pid and its start time. (/proc/locks would say so too, but shows other numbers of inodes than
stat(2) on overlay and btrfs.)
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.errors import BenchboxError, EnvironmentFailure, LockError
from benchbox.linux import ledger, processes, trust
from benchbox.linux.state import make_folder, make_state_folder, state_folder

#: Root's, whatever BENCHBOX_STATE says: there is one for the host. All may enter it, nobody else may list it.
_HOST_FOLDER: Final = Path("/run/benchbox")
_HOST_FOLDER_MODE: Final = 0o711
_ROOT_S_OWN: Final = "it must be root's own; in a user namespace run benchbox as an ordinary user of it"
_CHOOSE: Final = "set BENCHBOX_STATE to a folder of yours"
_LOCK: Final = "lock"
_HOLDER: Final = "holder"
#: What every measuring process has in its command line.
_WORKER: Final = "benchbox.worker"


@contextlib.contextmanager
def host_lock() -> Iterator[None]:
    """Hold this host. Raises LockError that says who does; EnvironmentFailure, TrustError: no place for the lock."""
    if not _is_root() and (pid := _pid_in(_HOST_FOLDER)):
        raise _refusal(f"{_described(pid)}, of root")
    folder = _root_s_folder() if _is_root() else _user_s_folder()
    descriptor = _opened(folder / _LOCK)
    try:
        _take(descriptor)
        with _told(folder / _HOLDER):
            yield
    finally:
        os.close(descriptor)


def _refusal(holder: str) -> LockError:
    return LockError(
        f"another run holds this host: {holder}",
        hint="wait for its end, or stop it (Ctrl-C there keeps what it has measured)",
    )


def describe_holder() -> str:
    """Return who holds the lock, or who has just held it."""
    return holder() or "somebody who has just let go"


def holder() -> str | None:
    """Return whose run keeps this user's from beginning, None for nobody: pid, command and, where its ledger can be
    read, run and start. Changes nothing."""
    if pid := _pid_in(_HOST_FOLDER):
        return _described(pid)
    if _is_root():
        return None
    with contextlib.suppress(BenchboxError):
        pid = _pid_in(state_folder())
    return _described(pid) if pid else None


def others() -> list[int]:
    """Return the measuring processes of other users, which disturb a run and do not keep it from beginning.

    Only what their command lines say: anybody can look like that.
    """
    found = []
    for pid in processes.with_argument(_WORKER):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid not in (os.geteuid(), 0):
                found.append(pid)
    return found


def _is_root() -> bool:
    return os.geteuid() == 0


def _user_s_folder() -> Path:
    try:
        return make_state_folder()
    except OSError as error:
        raise _no_place(error, _CHOOSE) from error


def _root_s_folder() -> Path:
    try:
        make_folder(_HOST_FOLDER, _HOST_FOLDER_MODE)
        trust.require(_HOST_FOLDER, "folder of the host's lock", _ROOT_S_OWN)
        _HOST_FOLDER.chmod(_HOST_FOLDER_MODE)
    except OSError as error:
        raise _no_place(error, _ROOT_S_OWN) from error
    return _HOST_FOLDER


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_place(error, _ROOT_S_OWN if _is_root() else _CHOOSE) from error


def _take(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _refusal(describe_holder()) from error


def _no_place(error: OSError, hint: str) -> EnvironmentFailure:
    return EnvironmentFailure(f"no place for the host's lock: {error.filename}: {error.strerror}", hint=hint)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Have it written down who holds the lock; others may read it whatever the umask is.

    Where there is no space for that nobody is told, and the lock holds all the same.
    """
    new = path.with_name(f".{path.name}")
    with contextlib.suppress(OSError):
        new.write_text(f"{os.getpid()} {processes.start_time(os.getpid())}\n")
        new.chmod(0o644)
        new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _pid_in(folder: Path) -> int | None:
    """Return who holds the lock in ``folder``, None for nobody; another user than its owner is not believed."""
    path = folder / _HOLDER
    if trust.doubt(path):
        return None
    with contextlib.suppress(OSError, ValueError):
        pid, start = map(int, path.read_text().split())
        return pid if _lives(pid, start) else None
    return None


def _lives(pid: int, start: int) -> bool:
    """Say whether that process is there; where /proc hides it (hidepid) any with its number is taken for it."""
    found = processes.start_time(pid)
    if found is not None:
        return found == start
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _described(pid: int) -> str:
    with contextlib.suppress(BenchboxError):
        for path in state_folder().glob(f"*/{ledger.FILE_NAME}"):
            with contextlib.suppress(OSError):
                header, _ = ledger.read(path)
                if header and header.supervisor_pid == pid:
                    return f"run {header.run_id}, process {pid}, since {header.created_at}"
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"process {pid} ({b' '.join(words).decode(errors='replace').strip()})"
    return f"process {pid}"
