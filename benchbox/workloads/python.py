"""A Python interpreter's hello: how long until a program in Python runs its first line."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.model import READY_VARIABLE, Command, Metric, Outcome

INTERPRETER: Final = "/usr/bin/python3"
#: The byte comes first: what follows it is not measured. ``os`` is loaded by every start of the interpreter.
PROGRAM: Final = f"""\
import os
ready = os.environ["{READY_VARIABLE}"]
os.write(int(ready) if ready.isdigit() else os.open(ready, os.O_WRONLY), b"!")
print("hello")
"""
_EXPECTED: Final = b"hello\n"
_SHOWN_BYTES: Final = 60


class Params(BaseModel):
    """It has none: what it does never changes, so that all its numbers can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Python:
    """Time from the request to the first line of a program in Python; its metrics are those of the stages."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the interpreter with its program; ``params`` is empty."""
        Params.model_validate(params)
        return Command((INTERPRETER, "-c", PROGRAM))

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing: see ``stages.stage_metrics``. Raises ValueError unless all that was printed is the hello."""
        found = outcome.output_tail
        if found != _EXPECTED:
            cut = "..." if len(found) > _SHOWN_BYTES else ""
            raise ValueError(f"expected {_EXPECTED!r}, got {found[:_SHOWN_BYTES]!r}{cut}")
        return ()


WORKLOAD: Final = Python()
