"""Workloads ``idle`` and ``light``: they are ready and stay, so that many can be looked at while all of them live."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.model import Command, Metric, Outcome

PROGRAM: Final = "/bin/steady"
#: How long all are left alone, once the last is ready, before they are looked at.
HOLD_S: Final = 1.0
#: The load of ``light``: so much CPU time in each period, 1 % of a CPU.
EVERY_MS: Final = 100
WORK_US: Final = 1000
_SHOWN_BYTES: Final = 60


class Params(BaseModel):
    """They have none: what they do never changes, so that all their numbers can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Steady:
    """``steady`` with ``words``; its metrics are those of all that live at once."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the program, which is ended from outside; ``params`` is empty."""
        Params.model_validate(params)
        return Command((PROGRAM, *self._words), stays=True, hold_s=HOLD_S)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing: see ``linux.occupancy.metrics``. Raises ValueError where it printed something."""
        if outcome.output_tail:
            raise ValueError(f"expected nothing, got {outcome.output_tail[:_SHOWN_BYTES]!r}")
        return ()


IDLE: Final = Steady()
LIGHT: Final = Steady("--every-ms", str(EVERY_MS), "--work-us", str(WORK_US))
