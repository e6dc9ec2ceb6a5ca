"""Where workloads run: one module and one row a kind."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from benchbox.model import Environment

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Kind -> module with ``ENVIRONMENT`` (a model.Environment) and ``Options`` (the pydantic model of its options).
#: Imported when asked for: one kind's needs are not another's.
TABLE: Final = {
    "native": "benchbox.environments.native",
    "container": "benchbox.environments.container",
    "vm": "benchbox.environments.vm",
    "oci": "benchbox.environments.oci",
    "docker": "benchbox.environments.docker",
    "format": "benchbox.environments.format",
}

KINDS: Final = tuple(TABLE)


def environment(kind: str) -> Environment:
    """Return the environment of ``kind``; KeyError for one that is not in the table."""
    found: Environment = import_module(TABLE[kind]).ENVIRONMENT
    return found


def options_model(kind: str) -> "type[BaseModel]":
    """Return the pydantic model of the options of ``kind``; KeyError for one that is not in the table."""
    found: type[BaseModel] = import_module(TABLE[kind]).Options
    return found
