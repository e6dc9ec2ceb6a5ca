"""What runs: one module and one row a workload."""

from typing import Final

from pydantic import BaseModel

from benchbox.model import Workload
from benchbox.workloads import command, startup

#: Name -> the workload.
TABLE: Final[dict[str, Workload]] = {
    "startup": startup.WORKLOAD,
    "command": command.WORKLOAD,
}

_PARAMS: Final[dict[str, type[BaseModel]]] = {
    "startup": startup.Params,
    "command": command.Params,
}

NAMES: Final = tuple(TABLE)


def workload(name: str) -> Workload:
    """Return the workload called ``name``; KeyError for one that is not in the table."""
    return TABLE[name]


def params_model(name: str) -> type[BaseModel]:
    """Return the pydantic model of the parameters of ``name``; KeyError for one that is not in the table."""
    return _PARAMS[name]
