"""What one request to the kernel takes: a call, a switch, a process, a mapping, a wake-up.

The operations are those that lmbench made common (McVoy and Staelin, lmbench: Portable Tools for Performance Analysis,
USENIX 1996), by a program of our own (``native/micro.c``), so that it is the same static binary everywhere.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.model import Command, Metric, Outcome
from benchbox.workloads import batches
from benchbox.workloads.steady import steady_metric

Operation = Literal["null_call", "switch", "fork_exec", "map", "futex"]


class Params(BaseModel):
    """``operation`` is what is done again and again, for ``seconds`` in ``batches``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation
    seconds: float = Field(default=0.5, gt=0, le=600, description="how long it is done, in s")
    batches: int = Field(default=20, ge=1, le=1000, description="into how many batches that is divided")


class Kernel:
    """The time of one operation, as ``kernel.<operation>``."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the call of ``micro``; raises ValueError (pydantic's) for what ``Params`` refuses."""
        checked = Params.model_validate(params)
        options = {"seconds": checked.seconds, "batches": checked.batches}
        return Command(batches.arguments(checked.operation, options), signals_ready=False)

    def parse(self, outcome: Outcome, params: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return the time of one operation in s, and how many were done. Raises ValueError for any other output."""
        checked = Params.model_validate(params)
        found = batches.read(outcome.output_tail, checked.operation, checked.batches)
        each = steady_metric(f"kernel.{checked.operation}", found.seconds_each, "s")
        return (each, Metric("kernel.work", found.total, "1", "higher"))


WORKLOAD: Final = Kernel()
