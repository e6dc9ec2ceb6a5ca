"""What environments share whose containers another program makes: their cgroups, the filter, what is read back."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchbox import native
from benchbox.environments.bundle import Basis
from benchbox.environments.launched import Requested, choose_cpus, instance_limits
from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import cgroups, mounts, nest, seccomp
from benchbox.linux.processes import describe_status
from benchbox.model import Availability, Command, Outcome, Resources, Workspace
from benchbox.units import format_cpu_list, parse_cpu_list

#: A status above this one is that of a process that was killed by the signal with the number above it: shells, OCI
#: runtimes and engines say no more, so a command that exits with such a status by itself is taken for killed.
SIGNALLED: Final = 128
#: What a session's one look at a container runs: it stands still for as long as nobody reads what it writes.
PROBE: Final = "/bin/ready"
#: Why a sample failed that benchbox was asked to end.
ENDED_BY_US: Final = "ended by benchbox"
_POLL_S: Final = 0.005
_FIELDS: Final = ("CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed_list", "Uid")


def availability(*, filtered: bool) -> Availability:
    """Say whether groups with limits can be made here and, with ``filtered``, whether there is a filter."""
    if filtered:
        try:
            filter_profile()
        except UnavailableError as error:
            return Availability.no(error.message, error.hint or "set seccomp: off")
    return cgroups.availability(cgroups.detect(), cgroups.Limits(memory_bytes=1, pids=1))


def filter_profile() -> dict[str, Any]:
    """Return the default filter as runtimes and engines take it. Raises UnavailableError where there is none."""
    machine = os.uname().machine
    return seccomp.profile(machine, native.syscalls().get(machine, {}))


@contextlib.contextmanager
def hierarchies(workspace: Workspace) -> Iterator[nest.Hierarchies]:
    """Yield this host's hierarchies; in the end the run's folder goes in those that only other programs use."""
    where = nest.find()
    name = f"{where.inside}/{workspace.cgroup_name}"
    others = [Path(f"{mount}{name}") for mount in where.mounts if mount not in where.layout.roots()]
    others = [folder for folder in others if not where.layout.delegated]
    for folder in others:
        workspace.ledger.record("cgroup", str(folder))
    try:
        yield where
    finally:
        for folder in others:
            # Another session of the run may still have its own below it; the last one removes it.
            with contextlib.suppress(OSError):
                folder.rmdir()


@dataclass(frozen=True)
class Ground:
    """What all samples of a session stand on, whichever program makes their containers."""

    label: str
    workspace: Workspace
    basis: Basis
    where: nest.Hierarchies
    groups: nest.Nest

    def nest(self, name: str) -> nest.Nest:
        """Return the groups of the sample ``name``."""
        return nest.named(self.groups, f"{self.label}-{name}")


def ground(
    label: str,
    resources: Resources,
    workspace: Workspace,
    stack: ExitStack,
    *,
    own_network: bool,
    read_only: bool,
    filtered: bool,
    runtime: bool,
    joined: Path | None = None,
) -> Ground:
    """Make the run's groups and return what the samples share; it goes with ``stack``.

    ``runtime``: a group of its own for the program. ``joined`` as in ``bundle.Basis``. Raises EnvironmentFailure,
    UnavailableError.
    """
    cpus = choose_cpus(resources, workspace)
    where = stack.enter_context(hierarchies(workspace))
    mems = cgroups.prepare(where.layout, workspace.cgroup_name)
    swap = limits_swap(where.layout, workspace.cgroup_name)
    profile = filter_profile() if filtered else None
    tmp_bytes = mounts.tmpfs_bytes(resources.disk_bytes)
    basis = Basis(resources, cpus, mems, swap, own_network, read_only, profile, tmp_bytes, joined)
    limits = instance_limits(resources)
    groups = nest.plan(where, workspace.cgroup_name, nest.ANY, limits, cpus, mems, runtime=runtime)
    return Ground(label, workspace, basis, where, groups)


def limits_swap(layout: cgroups.Layout, base: str) -> bool:
    """Say whether this host can limit memory and swap together; ``base`` is a group that was made."""
    roots = [root for root in (layout.v1.get("memory"), layout.v2) if root]
    files = ("memory.memsw.limit_in_bytes", "memory.swap.max")
    return any((root / base / file).exists() for root in roots for file in files)


class Fifo:
    """A named pipe on this host that a workload in a container writes its ready byte to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        path.chmod(0o666)  # who is root inside may be another user outside; the folder is ours alone
        # Open for both: opening it inside does not have to wait, and its end is not reached while nobody writes.
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fill(self) -> None:
        """Write into it for as long as it takes something: the next who writes stands still until ``drain``."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.descriptor, b" " * 65536)

    def drain(self) -> bytes:
        """Return what is in it."""
        try:
            return os.read(self.descriptor, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.descriptor)
        self.path.unlink(missing_ok=True)


def read_back(group: Path, is_running: Callable[[], bool], timeout_s: float) -> dict[str, Any]:
    """Return what the kernel says of the ``PROBE`` that runs below ``group``, in the words of a sample's ``applied``.

    Raises EnvironmentFailure when it does not appear while ``is_running`` says so, at most for ``timeout_s``, or goes.
    """
    pid = standing(group, is_running, timeout_s)
    try:
        return {**status(Path(f"/proc/{pid}/status").read_text()), **limits(pid)}
    except OSError as error:
        raise EnvironmentFailure(f"{PROBE} did not stand still") from error


def standing(group: Path, is_running: Callable[[], bool], timeout_s: float) -> int:
    """Return the process of the ``PROBE`` that runs below ``group``.

    Raises EnvironmentFailure when it does not appear while ``is_running`` says so, at most for ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while is_running() and time.monotonic() < deadline:
        for pid in cgroups.processes(group):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == PROBE.encode():
                    return pid
        time.sleep(_POLL_S)
    raise EnvironmentFailure(f"{PROBE} did not appear in the container's cgroup")


def status(text: str) -> dict[str, Any]:
    """Return what /proc/PID/status says of privileges, in the words of a sample's ``applied``. Pure."""
    pairs = (line.partition(":") for line in text.splitlines())
    found = {name: value.strip() for name, _, value in pairs if name in _FIELDS}
    return {
        "affinity": found["Cpus_allowed_list"],
        "capabilities": found["CapEff"].lstrip("0") or "0",
        "no_new_privs": found["NoNewPrivs"] == "1",
        "seccomp": "filter" if found["Seccomp"] == "2" else "off",
        "user": "root" if found["Uid"].split()[0] == "0" else f"user {found['Uid'].split()[0]} of the host",
    }


def limits(pid: int) -> dict[str, Any]:
    """Return the limits of the group that the program made for ``pid``, cgroups(7)."""
    found = {}
    layout = cgroups.detect()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        roots = [layout.v1[name] for name in controllers.split(",") if name in layout.v1]
        for root in {*roots, *([layout.v2] if not controllers and layout.v2 else [])}:
            found.update(_limits_of(Path(f"{root}{path}")))
    return {"limits_by_program": found}


def _limits_of(folder: Path) -> dict[str, Any]:
    files = {
        "memory_bytes": ("memory.max", "memory.limit_in_bytes"),
        "pids": ("pids.max",),
        "cpus": ("cpuset.cpus",),
    }
    found: dict[str, Any] = {}
    for name, candidates in files.items():
        for path in (folder / file for file in candidates):
            with contextlib.suppress(OSError):
                text = path.read_text().strip()
                found[name] = int(text) if text.isdigit() and name != "cpus" else text
    if "cpus" in found:
        found["cpus"] = format_cpu_list(parse_cpu_list(found["cpus"]))
    return found


@dataclass(frozen=True)
class End:
    """How a container came to its end, by what its program says.

    ``program`` is the program's name; ``exit_status`` what it says that the command ended with, None if it says
    nothing; ``complaint`` what it says went wrong with itself; ``broken`` is why nothing else counts.
    """

    program: str
    exit_status: int | None
    complaint: str | None = None
    broken: str | None = None


def judged(found: Outcome, end: End, seen: nest.Seen, requested: Requested, command: Command) -> Outcome:
    """Return ``found`` (stages, output) with status, reason, account and limits. Pure."""
    kills = cgroups.oom_kills(seen.counters)
    done = replace(found, status="failed", exit_code=None, signal=None, counters=seen.counters, applied=seen.applied)
    if kills:
        reason = f"out of memory: the kernel killed {kills} process(es) of the cgroup at its memory limit"
        return _with_status(replace(done, reason=reason), end.exit_status)
    stayed = command.stays and end.broken == ENDED_BY_US and "ready" in found.stages
    if end.broken and not stayed:
        hung = not seen.ran and end.broken != ENDED_BY_US
        return replace(done, reason=f"{end.broken}; nothing ever ran in its cgroup" if hung else end.broken)
    if end.complaint and end.exit_status != 0 and not stayed:
        return replace(done, reason=f"{end.program}: {end.complaint}")
    if not seen.ran:
        said = f"ended with status {end.exit_status}, but nothing ever ran in its cgroup"
        return replace(done, reason=f"{end.program} {said}{_said(found.output_tail)}")
    done = done if stayed else _with_status(done, end.exit_status)
    if done.signal is not None:
        return replace(done, reason=describe_status(-done.signal))
    if done.exit_code != 0 and not stayed:
        return replace(done, reason=f"exit status {done.exit_code}")
    if command.signals_ready and "ready" not in found.stages:
        return replace(done, status="invalid", reason="the workload ended well but never said that it was ready")
    if difference := requested.difference(seen.applied):
        return replace(done, status="invalid", reason=f"a limit is not the one asked for: {difference}")
    return replace(done, status="ok", reason=None)


def _said(output: bytes) -> str:
    text = " ".join(output[-500:].decode(errors="replace").split())
    return f": {text}" if text else ""


def _with_status(outcome: Outcome, exit_status: int | None) -> Outcome:
    if exit_status is not None and SIGNALLED < exit_status <= SIGNALLED + 64:
        return replace(outcome, signal=exit_status - SIGNALLED)
    return replace(outcome, exit_code=exit_status)


def complaint(log: bytes) -> str | None:
    """Return the last error of a log of JSON lines, as OCI runtimes write it; None for none. Pure."""
    for line in reversed(log.decode(errors="replace").splitlines()):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") in ("error", "fatal", "panic"):
                return str(entry.get("msg", "")).strip() or "an error without words"
    return None
