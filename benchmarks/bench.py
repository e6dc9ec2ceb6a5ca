"""What the comparisons in this folder share: a workspace like a run's, and medians side by side."""

import contextlib
import os
import secrets
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchbox.linux import cgroups, mounts
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
