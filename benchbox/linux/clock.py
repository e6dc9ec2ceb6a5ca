"""The one clock of all host-side stamps."""

import time


def monotonic_ns() -> int:
    """Return CLOCK_MONOTONIC in ns: the clock that ``launch`` stamps with, see clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
