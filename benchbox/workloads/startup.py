"""The frozen startup workload: writes its ready byte and ends. All its metrics are those of the stages."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.model import Command, Metric, Outcome


class Params(BaseModel):
    """It has none: what it does never changes, so that all its numbers can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Startup:
    """Time from the request to the first instruction of a program that does nothing else."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return ``/bin/ready``; ``params`` is empty."""
        Params.model_validate(params)
        return Command(("/bin/ready",))

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing: see ``stages.stage_metrics``."""
        return ()


WORKLOAD: Final = Startup()
