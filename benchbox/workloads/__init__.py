"""What runs: one module and one row a workload."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pydantic import BaseModel

from benchbox.model import Command, ConfiguredWorkload, Metric, Outcome, ServingWorkload, Workload
from benchbox.workloads import (
    applications,
    command,
    cpu,
    disk,
    files,
    floor,
    image_size,
    kernel,
    memory,
    network,
    python,
    redis,
    startup,
    staying,
)

#: Name -> the workload, of those that have a client outside of the environment.
SERVING: Final[dict[str, ServingWorkload]] = {
    "network-throughput": network.THROUGHPUT,
    "network-latency": network.LATENCY,
    "redis-requests": applications.REDIS,
    "nginx-requests": applications.NGINX_REQUESTS,
}

#: Name -> the workload.
TABLE: Final[dict[str, Workload]] = {
    "startup": startup.WORKLOAD,
    "python": python.WORKLOAD,
    "redis": redis.WORKLOAD,
    "floor": floor.WORKLOAD,
    "idle": staying.IDLE,
    "light": staying.LIGHT,
    "disk": disk.WORKLOAD,
    "metadata": files.METADATA,
    "copy-up": files.COPY_UP,
    "image-size": image_size.WORKLOAD,
    "sqlite": applications.SQLITE_TRANSACTIONS,
    **SERVING,
}

#: The same for those that need their parameters to read what came of them.
CONFIGURED: Final[dict[str, ConfiguredWorkload]] = {
    "cpu": cpu.WORKLOAD,
    "memory": memory.WORKLOAD,
    "kernel": kernel.WORKLOAD,
    "command": command.WORKLOAD,
}

_PARAMS: Final[dict[str, type[BaseModel]]] = {
    "startup": startup.Params,
    "python": python.Params,
    "redis": redis.Params,
    "floor": floor.Params,
    "cpu": cpu.Params,
    "memory": memory.Params,
    "kernel": kernel.Params,
    "idle": staying.Params,
    "light": staying.Params,
    "disk": disk.Params,
    "metadata": files.MetadataParams,
    "copy-up": files.CopyUpParams,
    "image-size": image_size.Params,
    "sqlite": applications.SqliteParams,
    "network-throughput": network.ThroughputParams,
    "network-latency": network.LatencyParams,
    "redis-requests": applications.RedisParams,
    "nginx-requests": applications.NginxParams,
    "command": command.Params,
}

NAMES: Final = (*TABLE, *CONFIGURED)

#: The distribution's package that a workload runs: its image must have it. The others run what every image has.
PACKAGES: Final[Mapping[str, str]] = {
    "python": "python3-minimal",
    "redis": "redis-server",
    "disk": "fio",
    "sqlite": "sqlite3",
    "network-throughput": "iperf3",
    "redis-requests": "redis-tools",
    "nginx-requests": "wrk",
}

#: The parameters that say how to read a workload's output, not what it does: no part of what a cell is.
READING: Final = ("metrics",)


def package_of(name: str, params: Mapping[str, Any]) -> str | None:
    """Return the distribution's package that a workload with ``params`` (unchecked) runs, None if it needs none."""
    return cpu.PACKAGES.get(str(params.get("tool"))) if name == "cpu" else PACKAGES.get(name)


def bound(name: str, params: Mapping[str, Any]) -> tuple[Command, Callable[[Outcome], tuple[Metric, ...]]]:
    """Return the command of the workload ``name`` with ``params``, and what reads its metrics.

    KeyError for one that is not in the tables, ValueError for parameters that it refuses.
    """
    if name in CONFIGURED:
        found = CONFIGURED[name]
        return found.command(params), partial(found.parse, params=params)
    return TABLE[name].command(params), TABLE[name].parse


def workload(name: str) -> Workload:
    """Return the workload called ``name``; KeyError for one that is not in TABLE."""
    return TABLE[name]


def params_model(name: str) -> type[BaseModel]:
    """Return the pydantic model of the parameters of ``name``; KeyError for one that is not in the table."""
    return _PARAMS[name]
