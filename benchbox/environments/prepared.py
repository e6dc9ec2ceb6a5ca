"""What a session of ``container`` makes once for all of its starts, as root and as an ordinary user.

Root mounts it in the mount namespace of the measuring process. An ordinary user has no mounts outside of the container:
the layers lie in a folder of the user's, the devices are bound at each start, and ``launch`` runs from memory.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from benchbox import native
from benchbox.linux import mounts, seccomp, users
from benchbox.linux.launch import IdMap
from benchbox.model import Workspace

#: Files and folders that would show the host's memory, keys, timers, hardware or firmware, or take orders for it.
#: /proc/kpage* say of each page of the host who has it and in which state, slabinfo, /sys/kernel/slab and vmallocinfo
#: where the kernel's own objects are and how many: root inside could read them, and what aims at the kernel asks first.
MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/slab",
)
#: What root could write even without capabilities.
READ_ONLY: Final = ("/proc/sys",)

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Prepared:
    """All that the plan of a start needs to know.

    ``devices`` None: bound at each start. ``id_maps`` None: users are those of the host. ``rootless``: groups stay
    those of the user. ``masked`` and ``read_only`` are those that this kernel has: looking for the rest at each start
    would cost as much as hiding it. ``tmpfs_bytes`` is what each file system in memory takes at most. ``on_disk`` says
    that what is written into a layer is held by nothing of its own. ``told`` is for the record.
    """

    root: Path
    layers: Path
    program: Path
    devices: Path | None = None
    seccomp_fd: int | None = None
    id_maps: tuple[IdMap, IdMap] | None = None
    rootless: bool = False
    tmpfs_bytes: int | None = None
    on_disk: bool = False
    masked: tuple[str, ...] = MASKED
    read_only: tuple[str, ...] = READ_ONLY
    told: dict[str, str] = field(default_factory=dict)


def prepare(
    image_root: Path,
    workspace: Workspace,
    label: str,
    *,
    layer: Literal["tmpfs", "disk"],
    filtered: bool,
    other_users: bool,
    disk_bytes: int,
    stack: ExitStack,
) -> Prepared:
    """Make what all starts share; it goes with ``stack``. ``disk_bytes`` is what one of them may write.

    Raises EnvironmentFailure, UnavailableError.
    """
    rootless = os.geteuid() != 0
    tmpfs_bytes = mounts.tmpfs_bytes(disk_bytes)
    prepared = (
        _for_user(image_root, workspace, label, layer, stack)
        if rootless
        else _for_root(image_root, workspace, label, layer, other_users, tmpfs_bytes, stack)
    )
    return Prepared(
        **{
            **vars(prepared),
            "tmpfs_bytes": tmpfs_bytes,
            "on_disk": rootless or layer == "disk",
            "seccomp_fd": stack.enter_context(_filter_descriptor()) if filtered else None,
            "masked": _existing(MASKED),
            "read_only": _existing(READ_ONLY),
        }
    )


def filter_program() -> bytes:
    """Return the default filter of this machine. Raises UnavailableError where there is none."""
    machine = os.uname().machine
    return seccomp.program(machine, native.syscalls().get(machine, {}))


def _existing(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that are there, folders with a slash at their end: ``launch`` then need not look."""
    found = (Path(path) for path in paths)
    return tuple(f"{path}/" if path.is_dir() else str(path) for path in found if path.exists())


def _for_root(
    image_root: Path,
    workspace: Workspace,
    label: str,
    layer: str,
    other_users: bool,
    tmpfs_bytes: int,
    stack: ExitStack,
) -> Prepared:
    mounts.enter_private()
    scratch = workspace.scratch
    layers = stack.enter_context(mounts.mount_point(scratch / f"layers-{label}"))
    if layer == "tmpfs":
        mounts.tmpfs(layers, tmpfs_bytes, mode="700")
    devices = stack.enter_context(mounts.mount_point(scratch / f"devices-{label}"))
    mounts.devices(devices)
    program = stack.enter_context(_read_only_program(scratch / f"launch-{label}"))
    told = {"layer": layer}
    if not other_users:
        return Prepared(image_root, layers, program, devices, told=told)
    id_maps = users.root_maps()
    root = stack.enter_context(_mapped_root(image_root, scratch / f"root-{label}", layers, *id_maps))
    owner = "root inside" if root != image_root else "nobody inside: this host has no ID-mapped mounts for overlays"
    first = id_maps[0].outside
    told |= {"user_namespace": f"users {first} to {first + users.COUNT - 1} of the host", "image_owner": owner}
    return Prepared(root, layers, program, devices, id_maps=id_maps, told=told)


def _for_user(image_root: Path, workspace: Workspace, label: str, layer: str, stack: ExitStack) -> Prepared:
    # The user's runtime folder is a tmpfs wherever a session manager makes it.
    place = workspace.runtime if layer == "tmpfs" else workspace.scratch
    layers = stack.enter_context(mounts.mount_point(place / f"layers-{label}"))
    program = stack.enter_context(_program_in_memory())
    id_maps = users.own_maps()
    told = {
        "layer": mounts.file_system(layers),
        "user_namespace": f"rootless: root inside is user {id_maps[0].outside} of the host, no other user is mapped",
        "image_owner": "root inside" if image_root.stat().st_uid == id_maps[0].outside else "nobody inside",
    }
    return Prepared(image_root, layers, program, id_maps=id_maps, rootless=True, told=told)


@contextmanager
def _filter_descriptor() -> Iterator[int]:
    """Yield a descriptor of the filter, from which each ``launch`` reads it."""
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, filter_program())
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
def _program_in_memory() -> Iterator[Path]:
    """Yield a way to a copy of ``launch`` whose content nobody can change, for whoever cannot mount: memfd_create(2).

    Its mode could still be changed from inside; that harms nothing but the session's own next samples.
    """
    writable = os.memfd_create("launch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        content = native.program("launch").read_bytes()
        while content:
            content = content[os.write(writable, content) :]
        os.fchmod(writable, stat.S_IRUSR | stat.S_IXUSR)
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        # What is open for writing cannot be executed.
        readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{readable}")
    finally:
        os.close(readable)


@contextmanager
def _mapped_root(image_root: Path, target: Path, empty: Path, uid_map: IdMap, gid_map: IdMap) -> Iterator[Path]:
    """Yield the image with its files owned by the namespace's root; the image as it is where this host cannot do that.

    The files then belong to nobody inside: readable, but not to be changed even in a writable layer.
    """
    with mounts.mount_point(target):
        try:
            with users.namespace(uid_map, gid_map) as namespace:
                mounts.mapped(image_root, target, namespace)
        except OSError:
            yield image_root
        else:
            yield target if mounts.can_be_layer(target, empty) else image_root
