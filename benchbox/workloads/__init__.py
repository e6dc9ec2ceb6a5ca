"""What runs: one module and one row a workload."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from benchbox.model import Workload
from benchbox.workloads import command, python, redis, startup

#: Name -> the workload.
TABLE: Final[dict[str, Workload]] = {
    "startup": startup.WORKLOAD,
    "python": python.WORKLOAD,
    "redis": redis.WORKLOAD,
    "command": command.WORKLOAD,
}

_PARAMS: Final[dict[str, type[BaseModel]]] = {
    "startup": startup.Params,
    "python": python.Params,
    "redis": redis.Params,
    "command": command.Params,
}

NAMES: Final = tuple(TABLE)

#: The distribution's package that a workload runs: its image must have it. The others run what every image has.
PACKAGES: Final[Mapping[str, str]] = {"python": "python3-minimal", "redis": "redis-server"}


def workload(name: str) -> Workload:
    """Return the workload called ``name``; KeyError for one that is not in the table."""
    return TABLE[name]


def params_model(name: str) -> type[BaseModel]:
    """Return the pydantic model of the parameters of ``name``; KeyError for one that is not in the table."""
    return _PARAMS[name]
