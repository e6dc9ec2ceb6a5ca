"""What the tests of guests share: a workspace, a session, and somebody who reaps QEMU."""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchbox import images
from benchbox.environments import vm
from benchbox.linux import cgroups, processes
from benchbox.model import EnvironmentSpec, Image, Outcome, Resources, Session, Workspace

CGROUP = f"benchbox-test-guests-{os.getpid()}"
_REAP_EVERY_S = 0.003
_numbers = itertools.count()


class Ledger:
    """Notes what is recorded and not yet released."""

    def __init__(self) -> None:
        self.open: list[tuple[str, str]] = []

    def record(self, kind: str, ident: str) -> None:
        self.open.append((kind, ident))

    def release(self, kind: str, ident: str) -> None:
        self.open.remove((kind, ident))


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Do what the supervisor does above a run: inherit QEMUs that libvirt started, and reap them when they end.

    They have a session of their own, unlike what the tests themselves start and wait for.
    """
    processes.become_subreaper()
    stop = threading.Event()

    def reap() -> None:
        while not stop.wait(_REAP_EVERY_S):
            for pid in processes.children(os.getpid()):
                with contextlib.suppress(OSError, IndexError):
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    if fields[0] == "Z" and int(fields[3]) != os.getsid(0):
                        os.waitpid(pid, os.WNOHANG)

    thread = threading.Thread(target=reap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def session(
    folder: Path,
    ledger: Ledger | None = None,
    image: Image | None = None,
    resources: Resources | None = None,
    scratch: Path | None = None,
    **options: Any,
) -> Iterator[Session]:
    """Yield a session of ``vm`` with ``options``, by default emulated; its private root is below ``folder``.

    ``scratch`` is where its files go, without it ``folder``: the name of that has to be short.
    """
    spec = EnvironmentSpec("vm", "vm", {"accelerator": "tcg", **options})
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    runtime = folder / "benchbox"
    runtime.mkdir(exist_ok=True)
    cgroup = f"{CGROUP}-{next(_numbers)}"
    workspace = Workspace("test", scratch or folder, runtime, cgroup, allowed[-1:], allowed[:1], ledger or Ledger())
    image = image or images.open_image("minimal")
    try:
        with vm.ENVIRONMENT.open(spec, image, resources or Resources(), workspace) as opened:
            yield opened
    finally:
        for root in cgroups.detect().roots():
            cgroups.remove_tree(root / cgroup)


def shell(script: str) -> tuple[str, ...]:
    """Return the words that run ``script`` in the image's shell."""
    return ("/bin/busybox", "sh", "-c", script)


def qemus(folder: Path) -> list[int]:
    """Return the QEMU processes that name ``folder`` and have not ended."""
    return [pid for pid in processes.with_argument(f"{folder}/benchbox/lv") if _is_qemu(pid)]


def _is_qemu(pid: int) -> bool:
    return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


def took_s(outcome: Outcome) -> float:
    """Return the time from the request until nothing of the guest was left."""
    return (outcome.stages["cleaned"] - outcome.requested_ns) / 1e9
