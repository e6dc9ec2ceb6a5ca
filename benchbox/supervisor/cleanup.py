"""Ends and removes what a run has left: by its ledger, and by descent."""

import contextlib
import fcntl
import os
import shlex
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

_DESCENDANTS_TIMEOUT_S: Final = 5.0
_RUNTIME_TIMEOUT_S: Final = 5.0
#: What goes first: whatever runs, by whoever made it, then what it stood on.
_ORDER: Final = ("process", "docker", "cgroup", "refuge", "oci", "libvirt", "folder")


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


def clean_entries(run_id: str, entries: Iterable[Entry]) -> Cleaned:
    """End and remove ``entries``: first whatever runs, then what it stood on."""
    order = {kind: rank for rank, kind in enumerate(_ORDER)}
    removed: list[str] = []
    remaining: list[str] = []
    for entry in sorted(entries, key=lambda entry: order.get(entry.kind, 9)):
        try:
            if _clean(entry):
                removed.append(f"{entry.kind} {entry.ident}")
        except (OSError, EnvironmentFailure, ValueError) as error:
            remaining.append(f"{entry.kind} {entry.ident}: {error}")
    return Cleaned(run_id, tuple(removed), tuple(remaining))


def _clean(entry: Entry) -> bool:
    """Remove one resource and say whether there was anything to remove."""
    if entry.kind == "process":
        return _end_process(entry.ident)
    if entry.kind == "docker":
        return _remove_containers(entry.ident)
    if entry.kind == "oci":
        return _remove_state(entry.ident)
    if entry.kind not in _ORDER:
        raise ValueError("no such kind of resource")
    path = Path(entry.ident)
    if not _is_ours(path):
        raise ValueError("not a folder of benchbox")
    if entry.kind == "libvirt":
        _end_naming(entry.ident)
    if not path.exists():
        return False
    if entry.kind == "cgroup":
        cgroups.kill_tree(path)
        cgroups.remove_tree(path, timeout_s=3.0)
    elif entry.kind == "refuge":
        cgroups.step_back(path)
    else:
        removal.remove(path)
    return True


def _end_process(ident: str) -> bool:
    pid, start = map(int, ident.split())
    if processes.start_time(pid) != start or processes.is_zombie(pid):
        return False
    if not processes.end(pid, expected_start=start):
        raise EnvironmentFailure(f"process {pid} does not end")
    return True


def _remove_containers(ident: str) -> bool:
    """Have a Docker daemon remove all containers of a run; a daemon that is not there has none."""
    socket, run = shlex.split(ident)
    return Path(socket).exists() and bool(Engine(Path(socket)).remove_all(run))


def _remove_state(ident: str) -> bool:
    """Have an OCI runtime delete its containers, whose processes have gone with their cgroups, then what it keeps."""
    runtime, option, state = shlex.split(ident)
    folder = Path(state)
    if option != "--root" or not _is_ours(folder):
        raise ValueError("not a folder of benchbox")
    if not folder.exists():
        return False
    for container in sorted(path.name for path in folder.iterdir()):
        with contextlib.suppress(EnvironmentFailure):
            words = [runtime, option, state, "delete", "--force", container]
            processes.run(words, timeout_s=_RUNTIME_TIMEOUT_S, check=False)
    removal.remove(folder)
    return True


def _end_naming(path: str) -> None:
    """End the QEMU processes of a private libvirt root: each names it in its arguments."""
    for pid in processes.with_argument(path):
        processes.end(pid)


def _is_ours(path: Path) -> bool:
    """Say whether benchbox may remove ``path``, whatever a ledger says: never a link, nor what it leads to."""
    if not path.is_absolute() or ".." in path.parts or path.is_symlink():
        return False
    homes = (state_folder(), cache_folder() / "scratch")
    return "benchbox" in str(path) or any(path != home and path.is_relative_to(home) for home in homes)


def clean_dead_runs() -> list[Cleaned]:
    """Remove what runs that have died left on this host; a run that lives holds its ledger and is not touched."""
    return [cleaned for path in sorted(state_folder().glob(f"*/{ledger.FILE_NAME}")) if (cleaned := _clean_run(path))]


def sweep_scratch() -> list[Path]:
    """Remove scratch folders that no ledger names (a power cut takes the ledgers); call it with the host's lock."""
    return [path for path in lost_scratch() if removal.try_remove(path)]


def lost_scratch() -> list[Path]:
    """Return the scratch folders that no ledger names; changes nothing."""
    known = {path.name for path in state_folder().glob("*")}
    return [path for path in (cache_folder() / "scratch").glob("*") if path.name not in known and not path.is_symlink()]


def living_runs() -> list[str]:
    """Return the ids of the runs that hold their ledger."""
    return [_run_id(path) for path in sorted(state_folder().glob(f"*/{ledger.FILE_NAME}")) if _is_held(path)]


def dead_runs() -> dict[str, tuple[Entry, ...]]:
    """Return what the ledgers that nobody holds still name, by run; changes nothing.

    A ledger that has no first line yet is left out: its owner is about to lock it.
    """
    found = {}
    for path in sorted(state_folder().glob(f"*/{ledger.FILE_NAME}")):
        with contextlib.suppress(OSError):
            header, entries = ledger.read(path)
            if header and not _is_held(path):
                found[header.run_id] = entries
    return found


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
        cleaned = clean_entries(header.run_id if header else path.parent.name, entries)
        if not cleaned.remaining:
            removal.try_remove(path.parent)
        return cleaned
