"""What an image weighs in a format: reads the numbers that the environment ``format`` finds."""

import math
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.foreign import DOCUMENTS
from benchbox.model import Command, Metric, Outcome

_PREFIX: Final = "size."
_UNITS: Final = ("B", "s")


class Params(BaseModel):
    """It has none: what is weighed is the environment's matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageSize:
    """Its metrics begin with ``size.``; all but times are exact."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return a command that is none: nothing is executed; ``params`` is empty."""
        Params.model_validate(params)
        return Command(("image-size",), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return the numbers. Raises ValueError for anything but sizes and durations that are none below zero."""
        try:
            found = DOCUMENTS.decode(outcome.output_tail.decode(errors="replace"))
            return tuple(_metric(name, *pair) for name, pair in found.items())
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"expected sizes by name, got {outcome.output_tail[:60]!r} ({error})") from error


def _metric(name: str, value: float, unit: str) -> Metric:
    if not name.startswith(_PREFIX) or unit not in _UNITS or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: {value} {unit} is no size")
    return Metric(name, value, unit)


WORKLOAD: Final = ImageSize()
