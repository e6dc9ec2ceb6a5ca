"""``container``: benchbox's own, from namespaces, an overlay root, cgroups and dropped privileges; by ``launch``."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox import native
from benchbox.environments.data import FOLDER, DataFolders
from benchbox.environments.disk import DiskWatch
from benchbox.environments.launched import LaunchedSession, Requested, choose_cpus, instance_limits
from benchbox.environments.linked import (
    LINK_DESCRIPTION,
    LinkChoice,
    linked_plan,
    offered_link,
    open_link,
    require_network,
    told_link,
    told_network,
)
from benchbox.environments.prepared import Prepared, filter_program, prepare
from benchbox.environments.stored import folder_of
from benchbox.errors import UnavailableError
from benchbox.images.programs import Programs
from benchbox.linux import cgroups, users
from benchbox.linux.launch import LaunchPlan, MountStep, Namespace, Root
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
_LIMITED: Final = cgroups.Limits(memory_bytes=1, pids=1)
_HOSTNAME: Final = "benchbox"

Part = Literal["pid", "uts", "ipc", "cgroup", "limits", "masks", "capabilities"]

#: What can be left out to see what it costs, and what no longer holds then.
PARTS: Final[dict[Part, str]] = {
    "pid": "no pid namespace: it sees the host's processes and may signal them",
    "uts": "no UTS namespace: its host name is the host's",
    "ipc": "no IPC namespace: it shares the host's System V and POSIX queues, semaphores and memory",
    "cgroup": "no cgroup namespace: it sees where in the host's tree its groups are",
    "limits": "no limit of memory, processes or CPU quota",
    "masks": "no path of /proc or /sys is hidden, /proc/sys can be written: it may change the host's kernel settings",
    "capabilities": "no capability is dropped: it is root, held by namespaces and filter alone",
}
_NAMESPACES: Final[tuple[Namespace, ...]] = ("pid", "mount", "uts", "ipc", "cgroup")


class Options(BaseModel):
    """Options of ``container``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Literal["overlay", "bind"] = Field(
        "overlay", description="a writable layer over the image, or the image read-only"
    )
    layer: Literal["tmpfs", "disk"] = Field("tmpfs", description="where the writable layer lies")
    network: bool = Field(True, description="a network namespace of its own with a loopback interface")
    link: LinkChoice = Field("none", description=LINK_DESCRIPTION)
    hostname: str = Field(_HOSTNAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$", description="host name inside")
    seccomp: Literal["default", "off"] = Field("default", description="the filter of system calls, or none")
    user_namespace: bool = Field(False, description="root inside is nobody outside")
    without: tuple[Part, ...] = Field((), description="parts to leave out, to see what they cost: it then holds less")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.without)) < len(self.without):
            raise ValueError("without: expected each part once")
        if "uts" in self.without and self.hostname != _HOSTNAME:
            raise ValueError("expected no hostname without: uts, for the name would be the host's")
        if "pid" in self.without and self.user_namespace:
            raise ValueError("expected a pid namespace beside user_namespace: /proc could not be mounted without: pid")
        if self.link != "none" and self.user_namespace:
            raise ValueError(f"expected no user_namespace beside link: {self.link}, whose network is not its own")
        require_network(self.link, self.network, own=True, host=False)
        return self


class Container:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options(**spec.options)
        rootless = os.geteuid() != 0
        lacking = _missing_piece(options, rootless or options.user_namespace)
        if lacking:
            return lacking
        offer = offered_link(options.link)
        if not offer.available:
            return offer
        if rootless:
            return users.own_namespace_works(native.program("launch"))
        return cgroups.availability(cgroups.detect(), _LIMITED)

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options(**spec.options)
        cpus = choose_cpus(resources, workspace)
        layout, unlimited = usable_cgroups()
        mems = cgroups.prepare(layout, workspace.cgroup_name)
        link = open_link(options.link, workspace)
        limits = cgroups.Limits() if "limits" in options.without else instance_limits(resources)
        with ExitStack() as stack:
            prepared = prepare(
                image.root, workspace, spec.label, layer=options.layer, filtered=options.seccomp == "default",
                other_users=options.user_namespace, disk_bytes=resources.disk_bytes, stack=stack,
            )  # fmt: skip

            def plan(command: Command, name: str) -> LaunchPlan:
                leaf = f"{spec.label}-{name}"
                groups = cgroups.plan(layout, workspace.cgroup_name, leaf, limits, cpus, mems)
                bound = data.source(command.data, name)
                found = container_plan(command, prepared, name, groups, cpus, options, bound)
                return linked_plan(found, link if command.serves else None)

            data = DataFolders(
                workspace, spec.label, image.root, owner=_owner(prepared),
                layer=prepared.layers if options.root == "overlay" else None,
            )  # fmt: skip
            applied = _applied(options, prepared, layout) | ({"limits": unlimited} if unlimited else {})
            yield LaunchedSession(
                plan, Requested.of(limits, cpus), applied | told_link(link), cpus, prepared.program,
                reads=(image.root,), data=data, link=link, account=(folder_of(image),),
                own=Programs(image),
                disk=DiskWatch(resources.disk_bytes, prepared.layers if _on_disk(options, prepared) else None),
            )  # fmt: skip


def usable_cgroups() -> tuple[cgroups.Layout, str | None]:
    """Return where cgroups can be made, and why there are none where an ordinary user may make none."""
    layout = cgroups.detect()
    offer = cgroups.availability(layout, _LIMITED)
    if os.geteuid() == 0 or offer.available:
        return layout, None
    return cgroups.Layout("none"), f"none but the CPUs ({offer.reason}); nothing is accounted"


def _missing_piece(options: Options, other_users: bool) -> Availability | None:
    """Say what this kernel lacks for a container with ``options``; None if nothing."""
    for name in _namespaces(options, other_users):
        if not Path("/proc/self/ns", "mnt" if name == "mount" else name).exists():
            return Availability.no(f"this kernel has no {name} namespaces", "use a kernel that has them")
    if options.root == "overlay" and "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _loadable():
        return Availability.no("this kernel has no overlay file system", "load it (modprobe overlay) or set root: bind")
    if other_users and not options.network:
        return Availability.no(
            "with users of its own it cannot have the host's network: /sys could not be mounted",
            "leave network out, or run as root without user_namespace",
        )
    if other_users and "pid" in options.without:
        return Availability.no(
            "with users of its own it cannot be without a pid namespace: /proc could not be mounted",
            "leave pid out of without, or run as root without user_namespace",
        )
    if options.seccomp == "default":
        return _missing_filter()
    return None


def _missing_filter() -> Availability | None:
    if "\nSeccomp:" not in Path("/proc/self/status").read_text():
        return Availability.no("this kernel has no seccomp filters", "set seccomp: off")
    try:
        filter_program()
    except UnavailableError as error:
        return Availability.no(error.message, error.hint or "set seccomp: off")
    return None


def _loadable() -> bool:
    """Mounting an overlay loads the module by itself where there is one."""
    return any(Path("/lib/modules", os.uname().release).glob("kernel/fs/overlayfs/overlay.ko*"))


def container_plan(
    command: Command,
    prepared: Prepared,
    name: str,
    groups: cgroups.CgroupPlan,
    cpus: tuple[int, ...],
    options: Options,
    data: Path | None = None,
) -> LaunchPlan:
    """Return the start of ``command`` in a container whose layer is called ``name``, its /data ``data``. Pure."""
    overlay = Root("root-overlay", prepared.root, prepared.layers / name)
    uid_map, gid_map = prepared.id_maps or (None, None)
    return LaunchPlan(
        command.argv,
        overlay if options.root == "overlay" else Root("root-ro-bind", prepared.root),
        cgroups=groups,
        cpus=cpus,
        namespaces=_namespaces(options, prepared.id_maps is not None),
        mounts=_mounts(prepared, data, hidden="masks" not in options.without),
        hostname=None if "uts" in options.without else options.hostname,
        loopback=options.network,
        capabilities=None if "capabilities" in options.without else tuple(KEPT_CAPABILITIES.values()),
        no_new_privs=True,
        seccomp_fd=prepared.seccomp_fd,
        # The filter keeps every call that reaches keys away; making a keyring costs start-up time.
        new_keyring=prepared.seccomp_fd is None,
        no_core=True,
        uid_map=uid_map,
        gid_map=gid_map,
        uid=None if prepared.rootless else 0,
        gid=None if prepared.rootless else 0,
        env=command.env,
        cwd=command.cwd,
        signals_ready=command.signals_ready,
        announce=command.stays,
    )


def _namespaces(options: Options, other_users: bool) -> tuple[Namespace, ...]:
    own = tuple(name for name in _NAMESPACES if name not in options.without)
    return own + (("net",) if options.network else ()) + (("user",) if other_users else ())


def _on_disk(options: Options, prepared: Prepared) -> bool:
    return options.root == "overlay" and prepared.on_disk


def _owner(prepared: Prepared) -> tuple[int, int] | None:
    """Return user and group of the host who are root inside, where /data has to be given to them."""
    if prepared.id_maps is None or prepared.rootless:
        return None
    return prepared.id_maps[0].outside, prepared.id_maps[1].outside


def _mounts(prepared: Prepared, data: Path | None, *, hidden: bool) -> tuple[MountStep, ...]:
    devices = [MountStep("dev", "/dev")]
    if prepared.devices:
        devices = [MountStep("dev-bind", "/dev", prepared.devices), _tmpfs("/dev/shm", prepared)]
    kernel = [MountStep("proc", "/proc"), _tmpfs("/tmp", prepared), MountStep("sys", "/sys")]
    hiding = [MountStep("mask", path) for path in prepared.masked]
    hiding += [MountStep("ro", path) for path in prepared.read_only]
    bound = [MountStep("bind", FOLDER, data)] if data else []
    return (*devices, *kernel, *bound, *(hiding if hidden else ()))


def _tmpfs(path: str, prepared: Prepared) -> MountStep:
    return MountStep("tmpfs", path, size_bytes=prepared.tmpfs_bytes)


def _applied(options: Options, prepared: Prepared, layout: cgroups.Layout) -> dict[str, Any]:
    told = dict(prepared.told)
    layer = told.pop("layer")
    return {
        "seccomp": "default filter" if options.seccomp == "default" else "off",
        "root": f"overlay, writable layer on {layer}" if options.root == "overlay" else "read-only bind",
        "cgroups": layout.mode,
        "kept_capabilities": "all" if "capabilities" in options.without else list(KEPT_CAPABILITIES),
        "hidden_paths": _hidden_text(options, prepared),
        "network": told_network(options.link, own=options.network),
        **({"left_out": {part: PARTS[part] for part in options.without}} if options.without else {}),
        **told,
    }


def _hidden_text(options: Options, prepared: Prepared) -> str:
    if "masks" in options.without:
        return "none"
    return f"{len(prepared.masked)} hidden, {len(prepared.read_only)} read-only"


ENVIRONMENT: Final = Container()
