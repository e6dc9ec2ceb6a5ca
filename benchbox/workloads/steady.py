"""Iterations of a steady-state workload: all are kept, the warm-up is marked, the rest is the number.

No steady state is assumed: at most 43 % of the pairs of benchmark and virtual machine that Barrett et al. (Virtual
Machine Warmup Blows Hot and Cold, OOPSLA 2017) looked at reach one as they should.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

from benchbox.model import Direction, Metric

#: Below so many iterations nothing is said about warm-up.
MIN_ITERATIONS: Final = 8
#: How far, as a share of the level, an iteration may lie from the level and still be a part of the steady state.
TOLERANCE: Final = 0.05
#: The same in median absolute deviations, for what varies more than that: of one iteration, of the median of a quarter.
_MADS: Final = 4.5
_MADS_OF_MEDIANS: Final = 3.0


def steady_metric(name: str, iterations: Sequence[float], unit: str, direction: Direction = "lower") -> Metric:
    """Return the metric of ``iterations`` (at least one, base unit): the median of those after the warm-up.

    Where no steady state is reached, ``warm_up`` is None and the value the median of all.
    """
    warm_up = warm_up_length(iterations)
    return Metric(name, median(iterations[warm_up or 0 :]), unit, direction, tuple(iterations), warm_up)


def warm_up_length(iterations: Sequence[float]) -> int | None:
    """Return how many of the first iterations are warm-up, None where no steady state is reached.

    The level is the median of the last half. The state is steady if the medians of the third and the last quarter lie
    within TOLERANCE, or 3 median absolute deviations inside of the quarters, of each other; the warm-up is what comes
    before the first iteration that lies within TOLERANCE, or 4.5 deviations of the last half, of the level, and has to
    end in the first half. Below MIN_ITERATIONS it is 0.
    """
    count = len(iterations)
    if count < MIN_ITERATIONS:
        return 0
    half, last = iterations[count // 2 :], iterations[count - count // 4 :]
    third = iterations[count // 2 : count - count // 4]
    level = median(half)
    tolerated = TOLERANCE * abs(level)
    if abs(median(last) - median(third)) > max(tolerated, _MADS_OF_MEDIANS * max(_mad(third), _mad(last))):
        return None
    near = max(tolerated, _MADS * _mad(half))
    first = next((at for at, value in enumerate(iterations) if abs(value - level) <= near), count)
    return first if first <= count // 2 else None


def _mad(values: Sequence[float]) -> float:
    centre = median(values)
    return median(abs(value - centre) for value in values)
