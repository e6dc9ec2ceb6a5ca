"""What an OCI runtime is told: the bundle's ``config.json``, from a command and what a session fixed. Pure.

It asks for what benchbox's own container consists of: the same namespaces, mounts, masked paths, capabilities, filter
and limits, as far as the specification has words for them. The share of CPU time is not in it: that limit is in the
group around the container's (``linux/nest.py``), because the same one twice, in two groups whose periods begin at
different times, holds a workload back more than once.

Source: https://github.com/opencontainers/runtime-spec (config.md, config-linux.md), version 1.0.2.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.data import FOLDER
from benchbox.environments.prepared import MASKED, READ_ONLY
from benchbox.model import READY_VARIABLE, Command, Resources
from benchbox.units import format_cpu_list

HOSTNAME: Final = "benchbox"
#: Where a named pipe of the host is inside, for programs that pass no descriptors on.
FIFO: Final = "/dev/benchbox-ready"
#: The newest one that all runtimes of today accept.
SPECIFICATION: Final = "1.0.2"
_QUIET: Final = ("nosuid", "noexec", "nodev")
_MOUNTS: Final = (
    ("/proc", "proc", _QUIET),
    ("/dev", "tmpfs", ("nosuid", "noexec", "strictatime", "mode=755", "size=65536k")),
    ("/dev/shm", "tmpfs", (*_QUIET, "mode=1777", "size=65536k")),
    ("/sys", "sysfs", (*_QUIET, "ro")),
)


@dataclass(frozen=True)
class Basis:
    """What all samples of a session have in common. ``swap`` says whether this host can limit it; ``seccomp`` is the
    filter in the specification's words, None for none; ``tmp_bytes`` is how much /tmp takes at most. With ``network`` a
    container has a network namespace of its own, of which a server's is the one at the path ``joined``."""

    resources: Resources
    cpus: tuple[int, ...]
    mems: str
    swap: bool
    network: bool
    read_only: bool
    seccomp: Mapping[str, Any] | None
    tmp_bytes: int
    joined: Path | None = None


def config(
    command: Command,
    basis: Basis,
    root: Path,
    cgroups_path: str,
    ready: str,
    fifo: Path | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """Return the configuration of a container that runs ``command`` in ``root``.

    ``cgroups_path`` is where the runtime makes its group, from the mount point of each hierarchy on; ``ready`` is what
    BENCHBOX_READY says inside; ``fifo`` is found inside as ``FIFO``, ``data`` as /data.
    """
    bound = [
        {"destination": inside, "type": "bind", "source": str(source), "options": list(options)}
        for inside, source, options in ((FIFO, fifo, ("bind",)), (FOLDER, data, ("bind", "nosuid", "nodev")))
        if source
    ]
    return {
        "ociVersion": SPECIFICATION,
        "hostname": HOSTNAME,
        "root": {"path": str(root), "readonly": basis.read_only},
        "mounts": [
            {"destination": path, "type": kind, "source": kind, "options": list(options)}
            for path, kind, options in (*_MOUNTS, ("/tmp", "tmpfs", tmp_options(basis)))
        ]
        + bound,
        "process": _process(command, ready),
        # The last key, for ``text``.
        "linux": {
            "namespaces": _namespaces(basis, command),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "cgroupsPath": cgroups_path,
            "resources": _resources(basis),
            **({"seccomp": dict(basis.seccomp)} if basis.seccomp is not None else {}),
        },
    }


def text(found: dict[str, Any], seccomp: str | None) -> str:
    """Return a configuration as the file's content; ``seccomp`` is the text of its filter, written once a session: most
    of the file, and half a millisecond."""
    linux = {name: value for name, value in found["linux"].items() if name != "seccomp"}
    content = json.dumps({**found, "linux": linux})
    return content if seccomp is None else f'{content[:-2]}, "seccomp": {seccomp}}}}}'


def tmp_options(basis: Basis) -> tuple[str, ...]:
    """Return how /tmp is mounted, which is a file system of its own."""
    return ("nosuid", "nodev", "mode=1777", f"size={basis.tmp_bytes}")


def variables(command: Command, ready: str) -> dict[str, str]:
    """Return the environment of ``command``."""
    return {**command.env, **({READY_VARIABLE: ready} if command.signals_ready else {})}


def _process(command: Command, ready: str) -> dict[str, Any]:
    kept = list(KEPT_CAPABILITIES)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(command.argv),
        "env": [f"{name}={value}" for name, value in variables(command, ready).items()],
        "cwd": command.cwd,
        "capabilities": {name: kept for name in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "noNewPrivileges": True,
    }


def _namespaces(basis: Basis, command: Command) -> list[dict[str, str]]:
    network = {"type": "network", **({"path": str(basis.joined)} if basis.joined and command.serves else {})}
    own = [{"type": name} for name in ("pid", "mount", "uts", "ipc", "cgroup")]
    return [*own, *([network] if basis.network else [])]


def _resources(basis: Basis) -> dict[str, Any]:
    limit = basis.resources.memory_bytes
    return {
        # The runtime adds /dev/null and its like.
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": limit, **({"swap": limit} if basis.swap else {})},
        "pids": {"limit": basis.resources.pids},
        "cpu": {"cpus": format_cpu_list(basis.cpus), "mems": basis.mems},
    }
