"""The ledger: every resource of a run, written down before it is made.

One file of JSON lines per run. Its first line says whose run it is. The supervisor holds a lock on the file (flock)
for as long as it lives, so that nobody else takes the run for dead.
"""

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """One resource: ``cgroup``, ``refuge`` (a cgroup that the supervisor has gone to), ``folder`` and ``libvirt`` name
    a path, ``process`` a pid and its start time, ``docker`` a daemon's socket and the run whose containers it has, as a
    shell reads words. No entry names a program: nothing that a ledger says is ever run."""

    kind: str
    ident: str


@dataclass(frozen=True)
class Header:
    """Whose run it is."""

    run_id: str
    supervisor_pid: int
    created_at: str


class Ledger:
    """Appends to a ledger; one write an entry, so that several processes may share it. Implements LedgerWriter."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock(self) -> None:
        """Hold the ledger until this process ends. Raises BlockingIOError if another process holds it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def begin(self, header: Header) -> None:
        self._append({"run": header.run_id, "supervisor": header.supervisor_pid, "created_at": header.created_at})

    def record(self, kind: str, ident: str) -> None:
        self._append({"op": "record", "kind": kind, "ident": ident})

    def release(self, kind: str, ident: str) -> None:
        self._append({"op": "release", "kind": kind, "ident": ident})

    def close(self) -> None:
        os.close(self._descriptor)

    def _append(self, entry: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def read(path: Path) -> tuple[Header | None, tuple[Entry, ...]]:
    """Return the header and what is recorded and not yet released, in the order of its making.

    A torn last line (the machine lost power) is left out: what it would have named was not made yet. So is a line that
    is no entry.
    """
    header: Header | None = None
    entries: dict[Entry, None] = {}
    for line in path.read_text(errors="replace").splitlines():
        # KeyError, TypeError: JSON, but no entry. The rest is what has to be cleaned up all the same.
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            item = json.loads(line)
            if "run" in item:
                header = Header(item["run"], item["supervisor"], item["created_at"])
            elif item["op"] == "record":
                entries[Entry(item["kind"], item["ident"])] = None
            else:
                entries.pop(Entry(item["kind"], item["ident"]), None)
    return header, tuple(entries)
