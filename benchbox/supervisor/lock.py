"""One run per host at a time.

The lock is an abstract Unix socket (unix(7)): it needs no file that somebody must be allowed to write, every user
sees the same one, the kernel drops it when its holder ends, and it knows the holder's pid.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.errors import LockError
from benchbox.linux import ledger
from benchbox.linux.state import state_folder

_NAME: Final = "\0benchbox.run"
#: Nobody accepts: each question who holds the lock takes a place in the queue until its holder ends.
_QUESTIONS: Final = 128


@contextlib.contextmanager
def host_lock() -> Iterator[None]:
    """Hold this host. Raises LockError that says who holds it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.bind(_NAME)
        except OSError as error:
            raise LockError(
                f"another run holds this host: {describe_holder()}",
                hint="wait for its end, or stop it (Ctrl-C there keeps what it has measured)",
            ) from error
        server.listen(_QUESTIONS)
        yield


def describe_holder() -> str:
    """Return who holds the lock, or who has just held it."""
    return holder() or "somebody who has just let go"


def holder() -> str | None:
    """Return who holds the lock, None for nobody: pid, command and, where its ledger can be read, run and start."""
    pid = _holder_pid()
    if pid is None:
        return "a process that does not answer" if _is_held() else None
    for path in state_folder().glob(f"*/{ledger.FILE_NAME}"):
        with contextlib.suppress(OSError):
            header, _ = ledger.read(path)
            if header and header.supervisor_pid == pid:
                return f"run {header.run_id}, process {pid}, since {header.created_at}"
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"process {pid} ({b' '.join(words).decode(errors='replace').strip()})"
    return f"process {pid}"


def _is_held() -> bool:
    """Say whether somebody is bound to the name, from /proc/net/unix (proc(5); ``@`` stands for the zero byte)."""
    with contextlib.suppress(OSError):
        names = (line.split()[-1] for line in Path("/proc/net/unix").read_text(errors="replace").splitlines())
        return _NAME.replace("\0", "@") in names
    return False


def _holder_pid() -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(_NAME)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
        pid: int = struct.unpack("3i", credentials)[0]
        return pid
