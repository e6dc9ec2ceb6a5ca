"""Plans for ``launch``: what a start consists of, as data, and what came of it. Pure; native/launch.c executes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from benchbox.errors import EnvironmentFailure
from benchbox.linux.cgroups import CgroupPlan
from benchbox.units import format_cpu_list

Namespace = Literal["pid", "mount", "uts", "ipc", "net", "cgroup", "user"]
RootKind = Literal["host", "chroot", "root-bind", "root-ro-bind", "root-overlay"]
MountKind = Literal["proc", "sys", "dev", "tmpfs", "bind", "ro-bind", "dev-bind", "mask", "ro"]
EndKind = Literal["exit", "signal", "timeout", "killed", "error"]

#: The descriptor on which a command finds the way to say that it is ready.
READY_FD: Final = 3


@dataclass(frozen=True)
class Root:
    """The root of the command; ``scratch`` holds an overlay's upper and work folder while it runs."""

    kind: RootKind
    path: Path
    scratch: Path | None = None


#: For programs of the host.
HOST_ROOT: Final = Root("host", Path("/"))


@dataclass(frozen=True)
class MountStep:
    """One mount inside the new root; ``source`` is a path outside it, for the kinds of bind. A tmpfs takes
    ``size_bytes`` at most.

    Nothing below a bind gives a user (set-user-id) or a device, unless it is ``dev-bind``.
    """

    kind: MountKind
    path: str
    source: Path | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class IdMap:
    """``count`` users (or groups) of a user namespace, from ``inside`` on, are the host's from ``outside`` on."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True)
class LaunchPlan:
    """One start, whole. ``capabilities`` None keeps all; ``deadline_ms`` 0 is no deadline. It begins when ``gate_fd``
    is at its end, where there is one.

    The maps go with the namespace ``user``. ``network_fd`` is a network namespace to join in place of a new one.
    """

    command: tuple[str, ...]
    root: Root
    cgroups: CgroupPlan = field(default_factory=lambda: CgroupPlan(()))
    cpus: tuple[int, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    mounts: tuple[MountStep, ...] = ()
    hostname: str | None = None
    loopback: bool = False
    capabilities: tuple[int, ...] | None = None
    no_new_privs: bool = False
    seccomp_fd: int | None = None
    network_fd: int | None = None
    new_keyring: bool = False
    no_core: bool = False
    uid_map: IdMap | None = None
    gid_map: IdMap | None = None
    uid: int | None = None
    gid: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    signals_ready: bool = True
    announce: bool = False
    gate_fd: int | None = None
    deadline_ms: int = 0


@dataclass(frozen=True)
class Report:
    """What ``launch`` saw. Times are CLOCK_MONOTONIC in ns; ``files`` are cgroup files by path, read after the end.

    ``end`` says how the command ended and ``detail`` with what: an exit status, a signal's number, a reason.
    """

    requested_ns: int
    stages: Mapping[str, int]
    files: Mapping[str, str]
    applied: Mapping[str, str]
    end: EndKind
    detail: str


def arguments(plan: LaunchPlan, program: Path, report_fd: int) -> list[str]:
    """Return the argument list that makes ``launch`` execute ``plan``, ``launch --help`` explains each."""
    words = [str(program), "--report", str(report_fd), "--die-with-parent"]
    words += _cgroup_arguments(plan.cgroups)
    words += ["--cpus", format_cpu_list(plan.cpus)] if plan.cpus else []
    words += [f"--unshare-{name}" for name in plan.namespaces]
    words += _map_arguments("--uid-map", plan.uid_map) + _map_arguments("--gid-map", plan.gid_map)
    words += ["--hostname", plan.hostname] if plan.hostname else []
    words += ["--loopback"] if plan.loopback else []
    words += [] if plan.network_fd is None else ["--join-net", str(plan.network_fd)]
    words += _root_arguments(plan.root) if plan.root != HOST_ROOT else []
    for step in plan.mounts:
        words += ["--size", str(step.size_bytes)] if step.size_bytes else []
        words += [f"--{step.kind}", *([str(step.source)] if step.source else []), step.path]
    words += _privilege_arguments(plan)
    words += ["--chdir", plan.cwd, "--clearenv"]
    for name, value in plan.env.items():
        words += ["--setenv", f"{name}={value}"]
    words += ["--ready", str(READY_FD)] if plan.signals_ready else []
    words += ["--announce"] if plan.announce else []
    words += [] if plan.gate_fd is None else ["--gate", str(plan.gate_fd)]
    words += ["--deadline", str(plan.deadline_ms)] if plan.deadline_ms else []
    return [*words, "--", *plan.command]


def _root_arguments(root: Root) -> list[str]:
    return [f"--{root.kind}", str(root.path), *([str(root.scratch)] if root.scratch else [])]


def _cgroup_arguments(plan: CgroupPlan) -> list[str]:
    words = []
    for group in plan.groups:
        words += ["--cgroup2" if group.version == 2 else "--cgroup", str(group.path)]
        for write in group.writes:
            words += ["--cgroup-try" if write.optional else "--cgroup-set", write.file, write.value]
        for file in group.reads:
            words += ["--cgroup-read", file]
    return words


def _map_arguments(option: str, ids: IdMap | None) -> list[str]:
    return [option, str(ids.inside), str(ids.outside), str(ids.count)] if ids else []


def _privilege_arguments(plan: LaunchPlan) -> list[str]:
    words = []
    if plan.uid is not None:
        words += ["--uid", str(plan.uid)]
    if plan.gid is not None:
        words += ["--gid", str(plan.gid)]
    if plan.capabilities is not None:
        words += ["--cap-keep", ",".join(map(str, plan.capabilities))]
    if plan.no_new_privs:
        words += ["--no-new-privs"]
    words += ["--new-keyring"] if plan.new_keyring else []
    words += ["--no-core"] if plan.no_core else []
    if plan.seccomp_fd is not None:
        words += ["--seccomp", str(plan.seccomp_fd)]
    return words


_LINE: Final = re.compile(rb"([^\n]*)\n")
_ENDS: Final[Mapping[str, EndKind]] = {
    "exit": "exit", "signal": "signal", "timeout": "timeout", "killed": "killed", "error": "error",
}  # fmt: skip


def parse_report(content: bytes) -> Report:
    """Return the report that ``launch`` wrote; see report_all in native/launch.c for its lines.

    Raises EnvironmentFailure when it is not whole: the launcher was killed.
    """
    requested_ns = 0
    stages: dict[str, int] = {}
    files: dict[str, str] = {}
    applied: dict[str, str] = {}
    at = 0
    while match := _LINE.match(content, at):
        at = match.end()
        word, _, rest = match[1].decode(errors="replace").partition(" ")
        name, _, value = rest.partition(" ")
        if word == "read":
            length = int(name)
            files[value] = content[at : at + length].decode(errors="replace")
            at += length + 1
        elif word == "requested":
            requested_ns = int(name)
        elif word == "stage":
            stages[name] = int(value)
        elif word == "applied":
            applied[name] = value
        elif word == "end" and name in _ENDS:
            return Report(requested_ns, stages, files, applied, _ENDS[name], value)
    raise EnvironmentFailure("the launcher ended without a report", hint="was it killed? look at the kernel's log")
