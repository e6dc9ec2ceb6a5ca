"""What native and container share: one start by ``launch``, watched to its end."""

import contextlib
import fcntl
import itertools
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchbox import native
from benchbox.environments.data import DataFolders, with_data
from benchbox.environments.disk import DiskWatch
from benchbox.errors import EnvironmentFailure
from benchbox.images import programs
from benchbox.images.programs import Programs
from benchbox.linux import cgroups, processes
from benchbox.linux.clock import monotonic_ns
from benchbox.linux.launch import LaunchPlan, Report, arguments, parse_report
from benchbox.model import (
    OUTPUT_TAIL_BYTES,
    PROCESS_READ,
    Command,
    Counter,
    Link,
    Outcome,
    Resources,
    Running,
    Status,
    Workspace,
)
from benchbox.units import NS_PER_S, format_cpu_list

#: How long after a command's deadline the launcher itself may take to clean up.
GRACE_S: Final = 5.0
_READ_BYTES: Final = 64 * 1024
_BLOCK_BYTES: Final = 512

Planner = Callable[[Command, str], LaunchPlan]


@dataclass(frozen=True)
class Requested:
    """The limits that were asked for, in the words of ``cgroups.applied``."""

    limits: Mapping[str, Any]

    @classmethod
    def of(cls, limits: cgroups.Limits, cpus: tuple[int, ...]) -> "Requested":
        return cls({"cpus": format_cpu_list(cpus), **asdict(limits)})

    def difference(self, applied: Mapping[str, Any]) -> str | None:
        """Say which limit in force is not the one asked for; None if all are."""
        for name, asked in self.limits.items():
            if name in applied and applied[name] != asked and not _same_memory(name, asked, applied[name]):
                return f"{name}: asked for {asked}, in force {applied[name]}"
        return None


def _same_memory(name: str, asked: Any, applied: Any) -> bool:
    """The kernel rounds memory limits down to whole pages."""
    if name != "memory_bytes" or not isinstance(asked, int) or not isinstance(applied, int):
        return False
    return 0 <= asked - applied < os.sysconf("SC_PAGE_SIZE")


def channel_latency_ns(program: Path, cpus: tuple[int, ...]) -> int:
    """Return how late ``launch`` may stamp a ready byte that comes from ``cpus``."""
    found = processes.run([program, "--cpus", format_cpu_list(cpus), "--channel-latency", "200"], timeout_s=10)
    return int(found.stdout)


class LaunchedSession:
    """Starts commands by ``launch``, each by the plan that ``planner`` makes for it and a fresh instance name.

    ``reads`` is what ``model.Session.reads`` answers; ``before_first`` is called before a command that starts while
    none runs. ``link`` is how a client reaches what is started, ``account`` what ``model.Session.account`` answers,
    ``own`` are the programs that a command may name, ``disk`` is who ends what takes too much of the host's disk.
    """

    def __init__(
        self,
        planner: Planner,
        requested: Requested,
        applied: Mapping[str, Any],
        cpus: tuple[int, ...],
        program: Path | None = None,
        reads: tuple[Path, ...] = (),
        before_first: Callable[[], None] = lambda: None,
        data: DataFolders | None = None,
        link: Link | None = None,
        account: tuple[Counter, ...] = (),
        own: Programs | None = None,
        disk: DiskWatch | None = None,
    ) -> None:
        self._disk = disk
        self._data, self.link, self._account, self._own = data, link, account, own
        self._planner, self._reads, self._before_first = planner, reads, before_first
        self._lock, self._running = threading.Lock(), 0
        self._requested = requested
        self._program = program or native.program("launch")
        self._names = (f"s{number}" for number in itertools.count(1))
        self._applied = {**applied, "channel_latency_ns": channel_latency_ns(self._program, cpus)}

    def start(self, command: Command) -> Running:
        with self._lock:
            name = next(self._names)
        return with_data(self._data, command.data, name, lambda: self._watched(command, name))

    def _watched(self, command: Command, name: str) -> Running:
        if self._disk is None:
            return self._launched(command, name)
        data = self._data.source(command.data, name) if self._data else None
        return self._disk.around(name, data, lambda: self._launched(command, name))

    def _launched(self, command: Command, name: str) -> Running:
        with self._lock:
            if not self._running:
                self._before_first()
            plan = replace(self._planner(command, name), gate_fd=command.gate)
            self._running += 1
        try:
            return LaunchedCommand(
                plan, self._program, self._requested, command.timeout_s, self._ended, lambda: self._executed(command)
            )
        except BaseException:
            self._ended()
            raise

    def _executed(self, command: Command) -> dict[str, Any]:
        """Say for the record which program it was, after the end."""
        found = self._own.executed(command) if self._own else None
        return {programs.KEY: found} if found else {}

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1

    def applied(self) -> Mapping[str, Any]:
        return self._applied

    def account(self) -> tuple[Counter, ...]:
        return self._account

    def reads(self) -> tuple[Path, ...]:
        return self._reads


class LaunchedCommand:
    """One running ``launch``; ``tell`` is asked at its end what else is to be said of it in ``applied``."""

    def __init__(
        self,
        plan: LaunchPlan,
        program: Path,
        requested: Requested,
        timeout_s: float,
        ended: Callable[[], None] = lambda: None,
        tell: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._ended, self._tell = ended, tell
        plan = replace(plan, deadline_ms=max(1, round(timeout_s * 1000)))
        self._plan, self._requested, self._killed = plan, requested, False
        self._deadline_ns = monotonic_ns() + round((timeout_s + GRACE_S) * NS_PER_S)
        self._report, self._output = bytearray(), bytearray()
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        output_read, output_write = os.pipe2(os.O_CLOEXEC)
        words = arguments(plan, program, report_write)
        self._asked_ns = monotonic_ns()
        try:
            passed = [fd for fd in (report_write, plan.seccomp_fd, plan.network_fd, plan.gate_fd) if fd is not None]
            self._process = processes.spawn(words, stdout=output_write, stderr=output_write, pass_fds=passed, env={})
        finally:
            os.close(report_write)
            os.close(output_write)
        self._open = {report_read: self._report, output_read: self._output}
        for descriptor in self._open:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)

    def ready(self) -> bool:
        self._drain(until_ready=self._plan.announce)
        return b"ready " in self._report

    def has_ended(self) -> bool:
        """Say, without waiting, whether the launcher has ended."""
        return self._process.poll() is not None

    def wait(self) -> Outcome:
        self._drain(until_ready=False)
        self._process.wait()
        self._ended, ended = lambda: None, self._ended
        ended()
        spawn_ns = None
        try:
            report = parse_report(bytes(self._report))
        except EnvironmentFailure as error:
            return Outcome("failed", self._without_report(error), output_tail=bytes(self._output))
        if report.requested_ns and self._plan.gate_fd is None:
            spawn_ns = report.requested_ns - self._asked_ns
        found = outcome(report, self._plan, self._requested, spawn_ns, bytes(self._output))
        return replace(found, applied={**found.applied, **self._tell()})

    def kill(self) -> None:
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def _without_report(self, error: EnvironmentFailure) -> str:
        if self._killed:
            return "ended by benchbox"
        return f"{error.message} ({processes.describe_status(self._process.returncode)})"

    def _drain(self, *, until_ready: bool) -> None:
        """Read report and output until both are closed (or the ready line is there, or the time is over)."""
        with selectors.DefaultSelector() as selector:
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            while self._open and not (until_ready and b"ready " in self._report):
                left_s = (self._deadline_ns - monotonic_ns()) / NS_PER_S
                events = selector.select(max(0.0, left_s))
                if not events and left_s <= 0:
                    self._give_up(selector)
                    return
                for key, _ in events:
                    if key.fd in self._open:
                        self._read(selector, key.fd)

    def _read(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        chunk = os.read(descriptor, _READ_BYTES)
        buffer = self._open[descriptor]
        buffer += chunk
        if buffer is self._output:
            del buffer[:-OUTPUT_TAIL_BYTES]
        if not chunk:
            # A command may hand its output to a process that outlives it: after the report nobody waits for that.
            self._close(selector, descriptor)
            if buffer is self._report:
                self._finish_output(selector)

    def _finish_output(self, selector: selectors.BaseSelector) -> None:
        for descriptor in list(self._open):
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(descriptor, _READ_BYTES):
                    self._output += chunk
                    del self._output[:-OUTPUT_TAIL_BYTES]
            self._close(selector, descriptor)

    def _close(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        selector.unregister(descriptor)
        os.close(descriptor)
        del self._open[descriptor]

    def _give_up(self, selector: selectors.BaseSelector) -> None:
        """The launcher itself hangs: end it (the command dies with it) and remove what it would have removed."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        cgroups.kill(self._plan.cgroups)
        with contextlib.suppress(EnvironmentFailure):
            cgroups.remove(self._plan.cgroups)
        for descriptor in list(self._open):
            self._close(selector, descriptor)


def outcome(
    report: Report, plan: LaunchPlan, requested: Requested, spawn_ns: int | None, output_tail: bytes
) -> Outcome:
    """Return what the launcher's report says about the sample. Pure."""
    account = (*cgroups.counters(plan.cgroups, report.files), *_own_counters(report))
    applied = {**cgroups.applied(plan.cgroups, report.files), **_applied(report)}
    status, reason = _judge(report, plan, account, requested.difference(applied))
    return Outcome(
        status,
        reason,
        exit_code=int(report.detail) if report.end == "exit" else None,
        signal=int(report.detail) if report.end == "signal" else None,
        requested_ns=report.requested_ns,
        stages=report.stages,
        spawn_ns=spawn_ns,
        counters=account,
        applied=applied,
        output_tail=output_tail,
    )


#: What ``launch`` knows of the command by wait4(2): its word, the counter, its unit, the field, how much one is.
_OF_USAGE: Final = (
    ("read_blocks", PROCESS_READ, "B", "ru_inblock", _BLOCK_BYTES),
    ("voluntary_switches", "process.switches.voluntary", "1", "ru_nvcsw", 1),
    ("involuntary_switches", "process.switches.involuntary", "1", "ru_nivcsw", 1),
)


def _own_counters(report: Report) -> tuple[Counter, ...]:
    return tuple(
        Counter(name, int(report.applied[word]) * each, unit, f"wait4 {field}: the command and all that it waited for")
        for word, name, unit, field, each in _OF_USAGE
        if word in report.applied
    )


def _applied(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if report.applied.get("cpus"):
        found["affinity"] = report.applied["cpus"]
        found.update(
            capabilities=report.applied["capabilities"],
            no_new_privs=report.applied["no_new_privs"] == "1",
            seccomp="filter" if report.applied["seccomp"] == "2" else "off",
        )
        found["user"] = _user(report.applied.get("users"))
    if "namespaces" in report.applied:
        found["namespaces"] = report.applied["namespaces"].split()
    return found


def _user(users: str | None) -> str:
    """Say who root inside is; ``users`` is the first line of the user map, first user inside, outside, how many."""
    return f"root inside, user {users.split()[1]} of the host" if users else "root"


def _judge(
    report: Report, plan: LaunchPlan, account: tuple[Counter, ...], difference: str | None
) -> tuple[Status, str | None]:
    kills = cgroups.oom_kills(account)
    if kills:
        return "failed", f"out of memory: the kernel killed {kills} process(es) of the cgroup at its memory limit"
    if report.end == "timeout":
        return "failed", f"not done after {plan.deadline_ms / 1000:g} s, killed"
    if report.end == "killed" and not (plan.announce and "ready" in report.stages):
        return "failed", "ended by benchbox"
    if report.end == "error":
        return "failed", report.detail if report.detail.startswith("cannot execute") else f"launch: {report.detail}"
    if report.end == "signal":
        return "failed", processes.describe_status(-int(report.detail))
    if report.end == "exit" and report.detail != "0":
        return "failed", f"exit status {report.detail}"
    if plan.signals_ready and "ready" not in report.stages:
        return "invalid", "the workload ended well but never said that it was ready"
    if difference:
        return "invalid", f"a limit is not the one asked for: {difference}"
    return "ok", None


def instance_limits(resources: Resources) -> cgroups.Limits:
    """Return the cgroup limits of a process environment."""
    return cgroups.Limits(resources.memory_bytes, resources.pids, resources.cpu_quota)


def choose_cpus(resources: Resources, workspace: Workspace) -> tuple[int, ...]:
    """Return the named CPUs of the environment. Raises EnvironmentFailure if this host has fewer than asked for."""
    if resources.cpus > len(workspace.cpus):
        raise EnvironmentFailure(
            f"resources.cpus asks for {resources.cpus} CPUs, this host has {len(workspace.cpus)}",
            hint="lower resources.cpus",
        )
    return workspace.cpus[: resources.cpus]
