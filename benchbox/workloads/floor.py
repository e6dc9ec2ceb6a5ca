"""The harness's floor: a program that does nothing. What its run takes is what starting and ending anything takes."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.model import Command, Metric, Outcome
from benchbox.workloads.batches import MICRO


class Params(BaseModel):
    """It has none: what it does never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing:
    """``floor.elapsed`` comes by itself, see ``derived``. It says nothing and needs no ready byte."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return ``micro null``; ``params`` is empty."""
        Params.model_validate(params)
        return Command((MICRO, "null"), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing. Raises ValueError if anything was printed."""
        if outcome.output_tail:
            raise ValueError(f"expected nothing, got {outcome.output_tail[-200:]!r}")
        return ()


WORKLOAD: Final = Nothing()
