"""``container``: benchbox's own, from namespaces, an overlay root, cgroups and dropped privileges; by ``launch``."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox import native
from benchbox.environments.launched import LaunchedSession, Requested, choose_cpus, instance_limits
from benchbox.errors import UnavailableError
from benchbox.linux import cgroups, mounts, seccomp, users
from benchbox.linux.launch import IdMap, LaunchPlan, MountKind, MountStep, Namespace, Root
from benchbox.model import Availability, Command, EnvironmentSpec, Image, Resources, Session, Workspace

KIND: Final = "container"

#: Capabilities that a container keeps, by number (linux/capability.h): what a program needs to manage files and users
#: of its own root and to serve on a low port. No CAP_SYS_*, no CAP_NET_RAW, no CAP_MKNOD.
KEPT_CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
}
#: Files and folders that would show the host's memory, keys, timers, hardware or firmware, or take orders for it.
MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
#: What root could write even without capabilities.
READ_ONLY: Final = ("/proc/sys",)


class Options(BaseModel):
    """Options of ``container``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Literal["overlay", "bind"] = Field(
        "overlay", description="a writable layer over the image, or the image read-only"
    )
    layer: Literal["tmpfs", "disk"] = Field("tmpfs", description="where the writable layer lies")
    network: bool = Field(True, description="a network namespace of its own with a loopback interface")
    hostname: str = Field("benchbox", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$", description="host name inside")
    seccomp: Literal["default", "off"] = Field("default", description="the filter of system calls, or none")
    user_namespace: bool = Field(False, description="root inside is nobody outside")


@dataclass(frozen=True)
class Prepared:
    """What a session has made for all of its starts: the root, the folder of layers, the filter's descriptor, the maps
    of users and groups (None: those of the host), and what of ``MASKED`` and ``READ_ONLY`` this kernel has: looking for
    the rest at each start would cost as much as hiding it."""

    root: Path
    layers: Path
    devices: Path
    masked: tuple[str, ...] = MASKED
    read_only: tuple[str, ...] = READ_ONLY
    seccomp_fd: int | None = None
    id_maps: tuple[IdMap, IdMap] | None = None


class Container:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options(**spec.options)
        if os.geteuid() != 0:
            return Availability.no("making namespaces and mounts needs root", "run benchbox as root")
        return _missing_piece(options) or cgroups.availability(cgroups.detect(), cgroups.Limits(memory_bytes=1, pids=1))

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options(**spec.options)
        layout = cgroups.detect()
        cpus = choose_cpus(resources, workspace)
        mems = cgroups.prepare(layout, workspace.cgroup_name)
        with ExitStack() as stack:
            prepared, applied = _prepare(options, image.root, workspace.scratch / f"layers-{spec.label}", stack)

            def plan(command: Command, name: str) -> LaunchPlan:
                leaf = f"{spec.label}-{name}"
                groups = cgroups.plan(layout, workspace.cgroup_name, leaf, instance_limits(resources), cpus, mems)
                return container_plan(command, prepared, name, groups, cpus, options)

            program = stack.enter_context(_read_only_program(workspace.scratch / f"launch-{spec.label}"))
            applied |= _applied(options, layout)
            yield LaunchedSession(plan, Requested.of(resources, cpus), applied, cpus, program)


def _missing_piece(options: Options) -> Availability | None:
    """Say what this kernel lacks for a container with ``options``; None if nothing."""
    for name in ("pid", "mnt", "uts", "ipc", "net", "cgroup", *(["user"] if options.user_namespace else [])):
        if not Path("/proc/self/ns", name).exists():
            return Availability.no(f"this kernel has no {name} namespaces", "use a kernel that has them")
    if options.root == "overlay" and "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _loadable():
        return Availability.no("this kernel has no overlay file system", "load it (modprobe overlay) or set root: bind")
    if options.user_namespace and not options.network:
        return Availability.no(
            "/sys cannot be mounted in a user namespace without a network namespace",
            "leave network or user_namespace out",
        )
    if options.seccomp == "default":
        return _missing_filter()
    return None


def _missing_filter() -> Availability | None:
    if "\nSeccomp:" not in Path("/proc/self/status").read_text():
        return Availability.no("this kernel has no seccomp filters", "set seccomp: off")
    try:
        _filter()
    except UnavailableError as error:
        return Availability.no(error.message, error.hint or "set seccomp: off")
    return None


def _filter() -> bytes:
    machine = os.uname().machine
    return seccomp.program(machine, native.syscalls().get(machine, {}))


def _loadable() -> bool:
    """Mounting an overlay loads the module by itself where there is one."""
    return any(Path("/lib/modules", os.uname().release).glob("kernel/fs/overlayfs/overlay.ko*"))


def _prepare(options: Options, image_root: Path, folder: Path, stack: ExitStack) -> tuple[Prepared, dict[str, Any]]:
    """Make what all starts of a session share; it goes with ``stack``. Returns it and what of it is to be told."""
    mounts.enter_private()
    layers = stack.enter_context(_layers(options, folder))
    devices = stack.enter_context(_devices(folder.with_name(f"{folder.name}-dev")))
    hidden = (_existing(MASKED), _existing(READ_ONLY))
    seccomp_fd = stack.enter_context(_filter_descriptor()) if options.seccomp == "default" else None
    if not options.user_namespace:
        return Prepared(image_root, layers, devices, *hidden, seccomp_fd), {}
    id_maps = users.root_maps()
    root = stack.enter_context(_mapped_root(image_root, folder.with_name(f"{folder.name}-root"), layers, *id_maps))
    owner = "root inside" if root != image_root else "nobody inside: this host has no ID-mapped mounts for overlays"
    first = id_maps[0].outside
    told = {"user_namespace": f"users {first} to {first + users.COUNT - 1} of the host", "image_owner": owner}
    return Prepared(root, layers, devices, *hidden, seccomp_fd, id_maps), told


def _existing(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if Path(path).exists())


@contextmanager
def _layers(options: Options, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        if options.layer == "tmpfs":
            mounts.tmpfs(folder, mode="700")
        yield folder
    finally:
        mounts.detach(folder)
        folder.rmdir()


@contextmanager
def _devices(folder: Path) -> Iterator[Path]:
    """Yield a /dev for all starts of a session: read-only, so that none leaves anything there for the next."""
    folder.mkdir()
    try:
        mounts.devices(folder)
        yield folder
    finally:
        mounts.detach(folder)
        folder.rmdir()


@contextmanager
def _filter_descriptor() -> Iterator[int]:
    """Yield a descriptor of the filter, from which each ``launch`` reads it."""
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, _filter())
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _read_only_program(target: Path) -> Iterator[Path]:
    """Yield a read-only way to ``launch``.

    An image may name /proc/self/exe as the interpreter of a script: what then runs inside is ``launch`` itself, and
    root inside could change the file's mode or content through /proc/PID/exe, for the host as well.
    """
    target.touch()
    try:
        mounts.bind(native.program("launch"), target, read_only=True)
        yield target
    finally:
        mounts.detach(target)
        target.unlink()


@contextmanager
def _mapped_root(image_root: Path, target: Path, empty: Path, uid_map: IdMap, gid_map: IdMap) -> Iterator[Path]:
    """Yield the image with its files owned by the namespace's root; the image as it is where this host cannot do that.

    The files then belong to nobody inside: readable, but not to be changed even in a writable layer.
    """
    target.mkdir()
    try:
        try:
            with users.namespace(uid_map, gid_map) as namespace:
                mounts.mapped(image_root, target, namespace)
        except OSError:
            yield image_root
        else:
            yield target if mounts.can_be_layer(target, empty) else image_root
    finally:
        mounts.detach(target)
        target.rmdir()


def container_plan(
    command: Command,
    prepared: Prepared,
    name: str,
    groups: cgroups.CgroupPlan,
    cpus: tuple[int, ...],
    options: Options,
) -> LaunchPlan:
    """Return the start of ``command`` in a container whose layer is called ``name``. Pure."""
    overlay = Root("root-overlay", prepared.root, prepared.layers / name)
    namespaces: tuple[Namespace, ...] = ("pid", "mount", "uts", "ipc", "cgroup")
    namespaces += ("net",) if options.network else ()
    namespaces += ("user",) if prepared.id_maps else ()
    uid_map, gid_map = prepared.id_maps or (None, None)
    return LaunchPlan(
        command.argv,
        overlay if options.root == "overlay" else Root("root-ro-bind", prepared.root),
        cgroups=groups,
        cpus=cpus,
        namespaces=namespaces,
        mounts=_mounts(prepared),
        hostname=options.hostname,
        loopback=options.network,
        capabilities=tuple(KEPT_CAPABILITIES.values()),
        no_new_privs=True,
        seccomp_fd=prepared.seccomp_fd,
        # The filter keeps every call that reaches keys away; making a keyring costs start-up time.
        new_keyring=prepared.seccomp_fd is None,
        no_core=True,
        uid_map=uid_map,
        gid_map=gid_map,
        uid=0,
        gid=0,
        env=command.env,
        cwd=command.cwd,
        signals_ready=command.signals_ready,
        announce=command.stays,
    )


def _mounts(prepared: Prepared) -> tuple[MountStep, ...]:
    fixed: tuple[tuple[MountKind, str], ...] = (
        ("proc", "/proc"), ("tmpfs", "/dev/shm"), ("tmpfs", "/tmp"), ("sys", "/sys"),
    )  # fmt: skip
    steps = [MountStep("bind", "/dev", prepared.devices), *(MountStep(kind, path) for kind, path in fixed)]
    steps += [MountStep("mask", path) for path in prepared.masked]
    return (*steps, *(MountStep("ro", path) for path in prepared.read_only))


def _applied(options: Options, layout: cgroups.Layout) -> dict[str, str | list[str]]:
    return {
        "seccomp": "default filter" if options.seccomp == "default" else "off",
        "root": f"overlay, writable layer on {options.layer}" if options.root == "overlay" else "read-only bind",
        "cgroups": layout.mode,
        "kept_capabilities": list(KEPT_CAPABILITIES),
        "network": "namespace of its own, loopback only" if options.network else "the host's",
    }


ENVIRONMENT: Final = Container()
