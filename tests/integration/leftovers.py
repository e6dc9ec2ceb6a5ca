"""Nothing is left behind: what this host has before a test and after it, compared.

``nothing_left`` is the promise of every integration test (``conftest.py`` beside this file puts it around each).
``alone`` keeps two test runs on one host apart, because each would take the other's work for its own leftovers.
"""

import contextlib
import fcntl
import gc
import os
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.linux import cgroups, processes
from benchbox.linux.state import cache_folder, state_folder

#: Names of cgroups that benchbox and its tests make, wherever they are in a hierarchy.
CGROUP_NAMES: Final = ("benchbox", "test")
_GONE_WITHIN_S: Final = 5.0
_LOCK: Final = Path(tempfile.gettempdir(), f"benchbox-tests-{os.geteuid()}.lock")


@dataclass(frozen=True)
class Snapshot:
    """What there is of each kind, by name, with how many of it."""

    mount: Counter[str]
    cgroup: Counter[str]
    link: Counter[str]
    process: Counter[str]
    folder: Counter[str]
    descriptor: Counter[str]

    def since(self, before: "Snapshot") -> list[str]:
        """Return what is there now and was not ``before``, and which mounts and links are no longer there."""
        now, then = vars(self), vars(before)
        more = [f"{kind} left: {name}" for kind in now for name in sorted((now[kind] - then[kind]).elements())]
        less = [f"{kind} gone: {name}" for kind in ("mount", "link") for name in sorted(then[kind] - now[kind])]
        return more + less


def snapshot() -> Snapshot:
    """Return what this host has now, as far as benchbox could leave it behind."""
    return Snapshot(
        Counter(mounts()), Counter(our_cgroups()), Counter(links()), Counter(below_us()), Counter(folders()),
        Counter(descriptors()),
    )  # fmt: skip


def mounts() -> Iterator[str]:
    """Yield type, source and place of each mount; not its number, which a new mount namespace changes."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        yield f"{' '.join(tail.split()[:2])} on {fields.split()[4]}"


def our_cgroups() -> Iterator[str]:
    """Yield each cgroup that is called as benchbox or its tests call theirs."""
    for root in cgroups.detect().roots():
        for parent, names, _ in os.walk(root):
            yield from (str(Path(parent, name)) for name in names if name.startswith(CGROUP_NAMES))


def links() -> Iterator[str]:
    """Yield each network interface of this network namespace."""
    yield from (path.name for path in Path("/sys/class/net").iterdir())


def below_us() -> Iterator[str]:
    """Yield each process that descends from this one; zombies too, somebody has forgotten to reap them."""
    for pid in processes.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            yield f"{pid} {words or '(zombie)' if processes.is_zombie(pid) else words}"


def folders() -> Iterator[str]:
    """Yield what stands where benchbox keeps the state of its runs and their scratch files, the lock excepted."""
    for folder, pattern in ((state_folder(), "*"), (cache_folder() / "scratch", "*"), (_LOCK.parent, "benchbox*")):
        yield from (str(path) for path in folder.glob(pattern) if path.name != "lock")  # which stays, open to its owner


def descriptors() -> Iterator[str]:
    """Yield what this process has open, sockets and pipes by kind only (their numbers tell nothing)."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the folder has gone
            mode = os.fstat(int(entry.name)).st_mode
            anonymous = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            yield f"{entry.name} {stat.filemode(mode) if anonymous else entry.readlink()}"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other test run on this host is inside such a block."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def nothing_left(within_s: float = _GONE_WITHIN_S) -> Iterator[Snapshot]:
    """Fail unless all that appears inside the block is gone ``within_s`` seconds after it; yield the state before it.

    This process is a child subreaper from then on, as a run's supervisor is: an orphan does not get out of sight, and
    is reaped when it has ended. A child of this process's own that nobody has waited for is left.
    """
    processes.become_subreaper()
    before = snapshot()
    yield before
    deadline = time.monotonic() + within_s
    while (left := snapshot().since(before)) and time.monotonic() < deadline:
        processes.reap_orphans(known=_started_here())
        time.sleep(0.01)
    assert not left, "\n".join(["something is not as it was before:", *left])


def _started_here() -> set[int]:
    """Return the pids of this process's own children that nobody has waited for yet."""
    found = (item for item in gc.get_objects() if isinstance(item, subprocess.Popen))
    return {process.pid for process in found if process.returncode is None}
