"""Ends and removes what a run has left: by its ledger, and by descent."""

import contextlib
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.environments.engine_api import Engine
from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups, ledger, processes, removal
from benchbox.linux.ledger import Entry
from benchbox.linux.state import cache_folder, state_folder
from benchbox.supervisor.place import TOKEN, Place, is_group, place_of

_DESCENDANTS_TIMEOUT_S: Final = 5.0
#: What goes first: whatever runs, by whoever made it, then what it stood on.
_ORDER: Final = ("process", "docker", "cgroup", "refuge", "libvirt", "folder")


@dataclass(frozen=True)
class Cleaned:
    """What became of one run's leftovers: what was removed, and what could not be with the reason."""

    run_id: str
    removed: tuple[str, ...]
    remaining: tuple[str, ...] = ()


def end_descendants() -> None:
    """Kill and reap every child of this process, orphans that it has inherited included, until there are none."""
    deadline = time.monotonic() + _DESCENDANTS_TIMEOUT_S
    while (found := processes.descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in found:
            processes.end(pid, timeout_s=0)
        processes.reap_orphans()
        time.sleep(0.002)


def clean_entries(run_id: str, place: Place, entries: Iterable[Entry]) -> Cleaned:
    """End and remove ``entries`` of the run at ``place``: first whatever runs, then what it stood on.

    What is not of that run, whatever its ledger says, is not touched and remains.
    """
    order = {kind: rank for rank, kind in enumerate(_ORDER)}
    removed: list[str] = []
    remaining: list[str] = []
    for entry in sorted(entries, key=lambda entry: order.get(entry.kind, 9)):
        try:
            if _clean(place, entry):
                removed.append(f"{entry.kind} {entry.ident}")
        except (OSError, EnvironmentFailure, ValueError) as error:
            remaining.append(f"{entry.kind} {entry.ident}: {error}")
    return Cleaned(run_id, tuple(removed), tuple(remaining))


def _clean(place: Place, entry: Entry) -> bool:
    """Remove one resource and say whether there was anything to remove. Raises ValueError for one of another run."""
    if entry.kind == "process":
        return _end_process(entry.ident)
    if entry.kind == "docker":
        return _remove_containers(place, entry.ident)
    if entry.kind in ("cgroup", "refuge"):
        return _remove_group(place, entry)
    if entry.kind in ("folder", "libvirt"):
        return _remove_folder(place, entry)
    raise ValueError(f"no such kind of resource; if it is gone or was never there, remove {place.runtime}")


def _remove_group(place: Place, entry: Entry) -> bool:
    path = Path(entry.ident)
    if not is_group(path, place.cgroup_name if entry.kind == "cgroup" else place.refuge_name):
        raise ValueError("not a cgroup of this run")
    if not path.exists():
        return False
    if entry.kind == "refuge":
        cgroups.step_back(path)
    else:
        cgroups.kill_tree(path)
        cgroups.remove_tree(path, timeout_s=3.0)
    return True


def _remove_folder(place: Place, entry: Entry) -> bool:
    path = Path(entry.ident)
    if not place.holds(path):
        raise ValueError(f"in neither {place.runtime} nor {place.scratch}; if BENCHBOX_CACHE was another, set it so")
    if entry.kind == "libvirt":
        _end_naming(entry.ident)
    if not path.exists():
        return False
    removal.remove(path)
    return True


def _end_process(ident: str) -> bool:
    pid, start = map(int, ident.split())
    if processes.start_time(pid) != start or processes.is_zombie(pid):
        return False
    if not processes.end(pid, expected_start=start):
        raise EnvironmentFailure(f"process {pid} does not end")
    return True


def _remove_containers(place: Place, ident: str) -> bool:
    """Have a Docker daemon remove all containers of a run; a daemon that is not there has none."""
    name, run = shlex.split(ident)
    socket = Path(name)
    if run != place.cgroup_name or not socket.is_absolute():
        raise ValueError("not the containers of this run")
    if not socket.exists():
        return False
    found = socket.stat()
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise ValueError("no socket of root or of this user")
    return bool(Engine(socket).remove_all(run))


def _end_naming(path: str) -> None:
    """End the QEMU processes of a private libvirt root: each names it in its arguments."""
    for pid in processes.with_argument(path):
        processes.end(pid)


def clean_dead_runs() -> list[Cleaned]:
    """Remove what runs that have died left on this host; a run that lives holds its ledger and is not touched."""
    return [cleaned for path in _ledgers() if (cleaned := _clean_run(path))]


def sweep_scratch() -> list[Path]:
    """Remove scratch folders that no ledger names (a power cut takes the ledgers); call it with the host's lock."""
    return [path for path in lost_scratch() if removal.try_remove(path)]


def lost_scratch() -> list[Path]:
    """Return the scratch folders that no ledger names; changes nothing."""
    known = {path.name for path in state_folder().glob("*")}
    found = cache_folder("scratch").glob("*")
    return [path for path in found if TOKEN.fullmatch(path.name) and path.name not in known and not path.is_symlink()]


def living_runs() -> list[str]:
    """Return the ids of the runs that hold their ledger."""
    return [_run_id(path) for path in _ledgers() if _is_held(path)]


def dead_runs() -> dict[str, tuple[Entry, ...]]:
    """Return what the ledgers that nobody holds still name, by run; changes nothing.

    A ledger that has no first line yet is left out: its owner is about to lock it.
    """
    found = {}
    for path in _ledgers():
        with contextlib.suppress(OSError):
            header, entries = ledger.read(path)
            if header and not _is_held(path):
                found[header.run_id] = entries
    return found


def _ledgers() -> list[Path]:
    """Return the ledgers of all runs. Raises TrustError where another user could have written one."""
    found = sorted(state_folder().glob(f"*/{ledger.FILE_NAME}"))
    return [path for path in found if TOKEN.fullmatch(path.parent.name) and not path.parent.is_symlink()]


def _run_id(path: Path) -> str:
    header, _ = ledger.read(path)
    return header.run_id if header else path.parent.name


def _is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _clean_run(path: Path) -> Cleaned | None:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        header, entries = ledger.read(path)
        token = path.parent.name
        cleaned = clean_entries(header.run_id if header else token, place_of(token), entries)
        if not cleaned.remaining:
            removal.try_remove(path.parent)
        return cleaned
