"""What the comparisons in this folder share: a workspace like a run's, and medians side by side."""

import contextlib
import json
import os
import secrets
import shlex
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchbox.linux import cgroups, mounts, processes
from benchbox.model import Workspace
from benchbox.worker import split_cpus


class NoLedger:
    """A comparison cleans up after itself; if it is killed, ``rmdir`` of its cgroups is left to its user."""

    def record(self, kind: str, ident: str) -> None: ...

    def release(self, kind: str, ident: str) -> None: ...


@contextlib.contextmanager
def workspace(cpus: int = 1) -> Iterator[Workspace]:
    """Yield a workspace like the one that a run gets, in a mount namespace of this process's own."""
    chosen, harness = split_cpus(sorted(os.sched_getaffinity(0)), cpus)
    os.sched_setaffinity(0, harness)
    mounts.enter_private()
    name = f"benchbox-bench-{secrets.token_hex(2)}"
    temporary = tempfile.TemporaryDirectory
    with temporary(prefix="benchbox-", dir="/var/tmp") as scratch, temporary(prefix="benchbox-", dir="/tmp") as runtime:
        yield Workspace("bench", Path(scratch), Path(runtime), name, chosen, harness, NoLedger())
    for root in cgroups.detect().roots():
        cgroups.remove_tree(root / name)


def median_line(name: str, values_ns: Sequence[float]) -> str:
    """Return one line of a table: minimum, median, p90 in ms."""
    ordered = sorted(values_ns)
    minimum, median, p90 = ordered[0], statistics.median(ordered), ordered[len(ordered) * 9 // 10]
    return f"{name:<58} {minimum / 1e6:>9.3f} {median / 1e6:>9.3f} {p90 / 1e6:>9.3f}"


def table(title: str, rows: Mapping[str, Sequence[float]]) -> str:
    """Return minimum, median and p90 in ms of each row's values in ns."""
    lines = [f"{title:<58} {'min':>9} {'median':>9} {'p90':>9}  ms"]
    return "\n".join([*lines, *(median_line(name, values) for name, values in rows.items())])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the ratio of the medians."""
    return statistics.median(ours) / statistics.median(theirs)


def ratio_line(what: str, ours: Sequence[float], theirs: Sequence[float], most: float) -> str:
    """Return a line with the ratio of the medians and what it may be at most."""
    return f"  {what} = {ratio(ours, theirs):.3f}   (at most {most:g})"


def hyperfine(
    words: Sequence[str | Path], runs: int, prepare: str | None = None, env: Mapping[str, str] | None = None
) -> list[float]:
    """Run ``words`` ``runs`` times by ``hyperfine -N`` and return how long each took, in ns.

    ``prepare`` is a command that runs before each. ``env`` adds to the environment. Two runs more, first, do not count.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as exported:
        options = ["-N", "--style", "none", "--warmup", "2", "--runs", str(runs), "--export-json", exported.name]
        options += ["--prepare", prepare] if prepare else []
        subprocess.run(
            ["hyperfine", *options, "--", shlex.join(map(str, words))],
            env={**os.environ, **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return [seconds * 1e9 for seconds in json.load(exported)["results"][0]["times"]]


def warm_joins(layout: cgroups.Layout) -> None:
    """Bring the kernel into the state in which a process joins a v1 cgroup by ``cgroup.procs`` without waiting.

    The first such write after a pause waits for an RCU grace period, 5 to 20 ms (the writer side of
    cgroup_threadgroup_rwsem, kernel/cgroup/cgroup.c); the ones soon after do not. ``launch`` joins by ``tasks`` and
    never waits, others do: without this they would look slower than they are in a row. Writing this process into the
    cgroup that it is in already moves nothing and takes the same lock. On pure v2 nothing needs it.
    """
    if path := own_v1_procs(layout):
        path.write_text("0")


def own_v1_procs(layout: cgroups.Layout) -> Path | None:
    """Return ``cgroup.procs`` of the v1 cgroup that this process is in (cgroups(7)), None on pure v2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in layout.v1:
                return layout.v1[controller] / path.lstrip("/") / "cgroup.procs"
    return None


def child(parent: int, module: str) -> int | None:
    """Return the child of ``parent`` that runs the Python module ``module``, if there is one."""
    for pid in processes.children(parent):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return None


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Do what the supervisor does above a run: inherit the QEMUs that libvirt started, and reap them when they end.

    libvirt waits for the end of QEMU's process id; where nobody reaps orphans it waits in vain, see
    ``supervisor.supervise``. QEMUs of libvirt are in a session of their own, unlike what this process waits for.
    """
    processes.become_subreaper()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: _reap_until(stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _reap_until(stop: threading.Event) -> None:
    while not stop.wait(0.003):
        for pid in processes.children(os.getpid()):
            with contextlib.suppress(OSError):
                if processes.is_zombie(pid) and os.getsid(pid) != os.getsid(0):
                    os.waitpid(pid, os.WNOHANG)
