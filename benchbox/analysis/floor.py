"""The harness's floor: what running nothing takes in each environment, and what is too near to it to be compared."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchbox.analysis import statistics as st
from benchbox.analysis.samples import metric_value
from benchbox.record import Sample
from benchbox.units import format_duration

#: What the workload ``floor`` reports, and the ending of the metrics that have the floor in them.
FLOOR_METRIC: Final = "floor.elapsed"
_BOUND: Final = ".elapsed"
#: How many times its spread a time has to be above the floor.
DISTANCE: Final = 5


@dataclass(frozen=True)
class Floor:
    """Median and interquartile range of the workload ``floor`` in one environment, in s."""

    median_s: float
    iqr_s: float


def floors(cells: Iterable[Sequence[Sample]]) -> Mapping[str, Floor]:
    """Return the floor of each environment whose workload ``floor`` has valid samples."""
    values: dict[str, list[float]] = defaultdict(list)
    for sample in (sample for samples in cells for sample in samples):
        if sample.workload == "floor" and (value := metric_value(sample, FLOOR_METRIC)) is not None:
            values[sample.environment].append(value)
    return {label: Floor(st.median(found), st.spread(found).iqr) for label, found in values.items()}


def within_floor(metric: str, median_s: float | None, floor: Floor | None) -> str | None:
    """Say why a time must not be compared, None where it may be.

    Only what benchbox times from outside, from the request on (``<workload>.elapsed``), has the floor in it; what a
    workload timed itself has not, and ``floor.elapsed`` is the floor. It is subtracted from nothing.
    """
    if floor is None or median_s is None or metric == FLOOR_METRIC or not metric.endswith(_BOUND):
        return None
    if median_s - floor.median_s >= DISTANCE * floor.iqr_s:
        return None
    there, nothing, spread = map(format_duration, (median_s, floor.median_s, floor.iqr_s))
    near = f"{there} is nearer to the {nothing} of doing nothing than {DISTANCE} times its spread of {spread}"
    return f"within the harness's floor: {near}"
