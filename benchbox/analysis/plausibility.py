"""What cannot be true, whatever was measured. Pure."""

from typing import Final

from benchbox.analysis import statistics as st
from benchbox.analysis.verdicts import TOLERANCE

#: Metrics of what a device does to be written to; nothing in front of it makes it faster.
_WRITES: Final = "disk.write."
#: Where it says how much reached the device, more is no speed.
_SHARE: Final = "disk.write.on_device"


def too_fast(metric: str, direction: str, kind: str, baseline_kind: str, ratio: st.Ratio | None) -> str | None:
    """Return why a guest's cell cannot be true beside native's, whose ``ratio`` to it is given; None where it may.

    A guest writes to the same device through more layers. Where it looks faster beyond doubt (the whole interval of the
    ratio; below so many rounds that there is none, the ratio by more than TOLERANCE), something that is not the
    isolation makes it so: a cache of the host's, dropped flushes, or requests and pages that are cut otherwise.
    """
    if kind != "vm" or baseline_kind != "native" or not metric.startswith(_WRITES) or metric == _SHARE or not ratio:
        return None
    if ratio.low is None or ratio.high is None:
        slowest = ratio.estimate / (1 + TOLERANCE) if direction == "higher" else ratio.estimate * (1 + TOLERANCE)
    else:
        slowest = ratio.low if direction == "higher" else ratio.high
    if (slowest <= 1) if direction == "higher" else (slowest >= 1):
        return None
    return (
        f"writes faster than native, {ratio.estimate:.3g} times its {metric}, to the same device: not by being a guest"
        ", by something else that differs (a cache of the host's, dropped flushes, larger pages or requests)"
    )
