"""``container``: benchbox's own, from namespaces, an overlay root, cgroups and dropped privileges; by ``launch``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.environments.launched import LaunchedSession, Requested, choose_cpus, instance_limits
from benchbox.linux import cgroups, mounts
from benchbox.linux.launch import LaunchPlan, MountKind, MountStep, Namespace, Root
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
#: Files of /proc that would show the host's memory, keys or timers, or take orders for it.
MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger")
#: Files of /proc that root could write even without capabilities.
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


class Container:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        if os.geteuid() != 0:
            return Availability.no("making namespaces and mounts needs root", "run benchbox as root")
        for name in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
            if not Path("/proc/self/ns", name).exists():
                return Availability.no(f"this kernel has no {name} namespaces", "use a kernel that has them")
        options = Options(**spec.options)
        if options.root == "overlay" and "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _loadable():
            return Availability.no(
                "this kernel has no overlay file system", "load it (modprobe overlay) or set root: bind"
            )
        return cgroups.availability(cgroups.detect(), cgroups.Limits(memory_bytes=1, pids=1))

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options(**spec.options)
        layout = cgroups.detect()
        cpus = choose_cpus(resources, workspace)
        mems = cgroups.prepare(layout, workspace.cgroup_name)
        with _layers(options, workspace.scratch / f"layers-{spec.label}") as layers:

            def plan(command: Command, name: str) -> LaunchPlan:
                leaf = f"{spec.label}-{name}"
                groups = cgroups.plan(layout, workspace.cgroup_name, leaf, instance_limits(resources), cpus, mems)
                return container_plan(command, image.root, layers / name, groups, cpus, options)

            yield LaunchedSession(plan, Requested.of(resources, cpus), _applied(options, layout), cpus)


def _loadable() -> bool:
    """Mounting an overlay loads the module by itself where there is one."""
    return any(Path("/lib/modules", os.uname().release).glob("kernel/fs/overlayfs/overlay.ko*"))


@contextmanager
def _layers(options: Options, folder: Path) -> Iterator[Path]:
    mounts.enter_private()
    folder.mkdir()
    try:
        if options.layer == "tmpfs":
            mounts.tmpfs(folder, mode="700")
        yield folder
    finally:
        mounts.detach(folder)
        folder.rmdir()


def container_plan(
    command: Command,
    image_root: Path,
    scratch: Path,
    groups: cgroups.CgroupPlan,
    cpus: tuple[int, ...],
    options: Options,
) -> LaunchPlan:
    """Return the start of ``command`` in a container. Pure."""
    root = Root("root-overlay", image_root, scratch) if options.root == "overlay" else Root("root-ro-bind", image_root)
    namespaces: tuple[Namespace, ...] = ("pid", "mount", "uts", "ipc", "cgroup")
    return LaunchPlan(
        command.argv,
        root,
        cgroups=groups,
        cpus=cpus,
        namespaces=(*namespaces, "net") if options.network else namespaces,
        mounts=_mounts(),
        hostname=options.hostname,
        loopback=options.network,
        capabilities=tuple(KEPT_CAPABILITIES.values()),
        no_new_privs=True,
        env=command.env,
        cwd=command.cwd,
        signals_ready=command.signals_ready,
        announce=command.stays,
    )


def _mounts() -> tuple[MountStep, ...]:
    fixed: tuple[tuple[MountKind, str], ...] = (("proc", "/proc"), ("dev", "/dev"), ("tmpfs", "/tmp"), ("sys", "/sys"))
    steps = [MountStep(kind, path) for kind, path in fixed]
    return (*steps, *(MountStep("mask", path) for path in MASKED), *(MountStep("ro", path) for path in READ_ONLY))


def _applied(options: Options, layout: cgroups.Layout) -> dict[str, str | list[str]]:
    return {
        "root": f"overlay, writable layer on {options.layer}" if options.root == "overlay" else "read-only bind",
        "cgroups": layout.mode,
        "kept_capabilities": list(KEPT_CAPABILITIES),
        "network": "namespace of its own, loopback only" if options.network else "the host's",
    }


ENVIRONMENT: Final = Container()
