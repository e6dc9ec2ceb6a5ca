"""The one gateway to other processes: start, run to the end, find, end, reap."""

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchbox.errors import EnvironmentFailure
from benchbox.linux import syscalls
from benchbox.units import format_cpu_list, parse_cpu_list

_TAIL_CHARACTERS = 2000
_FOLLOWED_LINES = 200


@dataclass(frozen=True)
class Completed:
    """A command that has ended: its exit status (negative: the signal that ended it) and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it printed, decoded leniently.

    ``env`` adds to this process's environment. Raises EnvironmentFailure, naming command, cause and the end of
    its output, when the program is missing, runs longer than ``timeout_s`` or (with ``check``) exits non-zero.
    """
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            words,
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise EnvironmentFailure(f"{words[0]}: no such program", hint=f"install {words[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(f"{' '.join(words)}: not done after {timeout_s:g} s") from error
    except OSError as error:
        raise EnvironmentFailure(f"{words[0]}: {error.strerror}") from error
    result = Completed(
        words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and result.status != 0:
        tail = (result.stderr or result.stdout).strip()[-_TAIL_CHARACTERS:]
        raise EnvironmentFailure(f"{' '.join(words)}: {describe_status(result.status)}: {tail}")
    return result


def follow(
    argv: Sequence[str | Path], on_line: Callable[[str], None], *, timeout_s: float, env: Mapping[str, str]
) -> Completed:
    """Run ``argv`` to its end and hand each line of its standard error to ``on_line`` as it comes.

    Returns whatever its status is, with the last lines of standard error; standard output is thrown away. ``env`` adds
    to this process's environment. Raises EnvironmentFailure when the program cannot be started or runs longer than
    ``timeout_s``: it is killed then, with what it started in its session.
    """
    words = tuple(str(word) for word in argv)
    process = spawn(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **env}, new_session=True
    )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout_s, expire)
    timer.start()
    lines: deque[str] = deque(maxlen=_FOLLOWED_LINES)
    with process:
        for raw in process.stderr or ():
            lines.append(raw.decode(errors="replace"))
            on_line(lines[-1].rstrip())
        timer.cancel()
    if expired.is_set():
        raise EnvironmentFailure(f"{words[0]}: not done after {timeout_s:g} s")
    return Completed(words, process.returncode, "", "".join(lines))


def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    pass_fds: Collection[int] = (),
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start ``argv`` and return at once; ``env`` replaces this process's environment. Raises EnvironmentFailure.

    No code runs between fork and exec: that would make CPython copy this process instead of using vfork.
    """
    try:
        return subprocess.Popen(
            [str(word) for word in argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            env=None if env is None else dict(env),
            start_new_session=new_session,
        )
    except OSError as error:
        raise EnvironmentFailure(f"{argv[0]}: {error.strerror}") from error


def thread_cpus(pid: int) -> set[str]:
    """Return the lists of CPUs on which the threads of ``pid`` may run, each once; empty if it has gone."""
    found: set[str] = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            lists = re.findall(r"^Cpus_allowed_list:\s*(\S+)$", status.read_text(), re.MULTILINE)
            found.update(format_cpu_list(parse_cpu_list(text)) for text in lists)
    return found


def describe_status(status: int) -> str:
    """Return what an exit status in subprocess's convention means: ``exit status 7``, ``killed by SIGKILL``."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def become_subreaper() -> None:
    """Make orphans below this process its children, prctl(2) PR_SET_CHILD_SUBREAPER."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends; leave now if it already has."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def reap_orphans(known: Collection[int] = ()) -> list[int]:
    """Wait for each ended child that is not in ``known`` (those have a waiter of their own); return their pids."""
    reaped = []
    for pid in children(os.getpid()):
        if pid not in known:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    reaped.append(pid)
    return reaped


def children(pid: int) -> list[int]:
    """Return the direct children of ``pid``, zombies included; none if it has gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Return all that descend from ``pid``, nearest first."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def start_time(pid: int) -> int | None:
    """Return the start time of ``pid`` in clock ticks since boot (field 22 of /proc/PID/stat), None if it is gone.

    With the pid it names one process for the whole life of a boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def is_zombie(pid: int) -> bool:
    """Say whether ``pid`` has ended and only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def end(pid: int, *, expected_start: int | None = None, timeout_s: float = 5.0) -> bool:
    """Kill ``pid`` unless it is another process by now; say whether it is gone (a zombie counts as gone)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if expected_start is not None and start_time(pid) != expected_start:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def with_argument(text: str) -> list[int]:
    """Return the processes whose command line contains ``text``, this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found
