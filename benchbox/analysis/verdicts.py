"""What a comparison says, in one of three values; and what the A/A control says about the day.

The ratio's interval decides, never a p-value beside it. A comparison that must not be made (emulation, another kernel)
has no verdict but a reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchbox.analysis import statistics as st

#: ``worse`` and ``better`` by the metric's direction.
Kind = Literal["worse", "better", "equivalent", "inconclusive", "not judged"]

#: Two things are equivalent when the whole interval of their ratio lies within 1/(1+t) and 1+t.
TOLERANCE: Final = 0.05

#: The probability with which a run without any difference says that there is one, over all its verdicts.
ALPHA: Final = 1 - st.CONFIDENCE


@dataclass(frozen=True)
class Verdict:
    """``reason`` says why it is inconclusive or not judged; ``rounds_needed`` how many rounds might decide it."""

    kind: Kind
    reason: str = ""
    rounds_needed: int | None = None


@dataclass(frozen=True)
class Control:
    """The baseline measured twice (A/A): ``ratio`` of the second to the first, with its interval.

    ``smallest_effect`` is how far from 1 a ratio has to be to be told from this noise (0.03: 3 %), None where there
    are too few rounds. ``trusted`` is False where the interval excludes 1, None where there is no interval.
    """

    label: str
    baseline: str
    ratio: st.Ratio | None
    confidence: float
    smallest_effect: float | None
    trusted: bool | None


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made of.

    ``ratio`` has the 95 % interval that is shown, ``strict`` the one that holds for all comparisons of a run at once,
    ``without_outliers`` is ``strict`` without the rounds in which either sample is flagged (None: there are none).
    ``blocks`` names what forbids to call two things equivalent.
    """

    ratio: st.Ratio | None
    strict: st.Ratio | None
    without_outliers: st.Ratio | None
    direction: str
    blocks: tuple[str, ...] = ()


def control(label: str, baseline: str, ratio: st.Ratio | None, confidence: float) -> Control:
    """Return what the A/A ratio says. An effect must lie outside of what the baseline does to itself."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return Control(label, baseline, ratio, confidence, None, None)
    smallest = max(ratio.high, 1 / ratio.low) - 1
    return Control(label, baseline, ratio, confidence, smallest, ratio.low <= 1 <= ratio.high)


def shared_confidence(comparisons: int) -> float:
    """Return the confidence that each of so many intervals needs for all to hold at once with st.CONFIDENCE."""
    return 1 - ALPHA / max(comparisons, 1)


def judge(evidence: Evidence) -> Verdict:
    """Return what the evidence says.

    ``worse`` and ``better`` need a strict interval that excludes 1; ``equivalent`` one inside of the tolerance, and
    nothing that blocks it. A verdict that outliers alone carry, or alone forbid, is none.
    """
    ratio, strict = evidence.ratio, evidence.strict
    if ratio is None or strict is None or strict.low is None or strict.high is None:
        pairs = ratio.pairs if ratio else 0
        return Verdict("inconclusive", f"{pairs} rounds, at least {st.MIN_VALUES} are needed", st.MIN_VALUES)
    kind = _kind(strict, evidence.direction)
    again = evidence.without_outliers
    if again is not None and again.low is not None and _kind(again, evidence.direction) != kind:
        return Verdict("inconclusive", "it hangs on a few outliers: without them it would be another")
    if kind == "equivalent" and evidence.blocks:
        return Verdict("inconclusive", " and ".join(evidence.blocks))
    if kind == "inconclusive":
        return Verdict(kind, "the interval contains 1", rounds_needed(strict))
    return Verdict(kind)


def rounds_needed(ratio: st.Ratio) -> int:
    """Return how many rounds would make the interval as narrow as the tolerance: n (width / wanted width)^2."""
    assert ratio.low is not None and ratio.high is not None
    half = math.log(ratio.high / ratio.low) / 2
    return max(ratio.pairs + 1, math.ceil(round(ratio.pairs * (2 * half / math.log1p(TOLERANCE)) ** 2, 6)))


def _kind(ratio: st.Ratio, direction: str) -> Kind:
    assert ratio.low is not None and ratio.high is not None
    if ratio.low >= 1 / (1 + TOLERANCE) and ratio.high <= 1 + TOLERANCE:
        return "equivalent"
    if ratio.low <= 1 <= ratio.high:
        return "inconclusive"
    return "worse" if (ratio.low > 1) == (direction == "lower") else "better"


def worst(controls: Sequence[Control]) -> Control | None:
    """Return the control that says least good of a run: an untrusted one, else the one with the largest effect."""
    untrusted = [each for each in controls if each.trusted is False]
    known = [each for each in controls if each.smallest_effect is not None]
    return next(iter(untrusted), None) or max(known, key=lambda c: c.smallest_effect or 0, default=None)
