"""Which samples count, and what can be read from one of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from benchbox.model import STAGES
from benchbox.record import Sample
from benchbox.units import NS_PER_S

DEFAULT_METRIC: Final = "startup.ready"

_STAGE_POSITION: Final = {name: position for position, name in enumerate(STAGES)}


def primary_metric(samples: Iterable[Sample]) -> str:
    """Return the metric a run is about: DEFAULT_METRIC where a valid sample has it, else the first in the alphabet."""
    names = {name for sample in samples if sample.status == "ok" for name in sample.metrics}
    return DEFAULT_METRIC if DEFAULT_METRIC in names or not names else min(names)


def last_attempts(samples: Sequence[Sample]) -> list[Sample]:
    """Return ``samples`` without those of rounds that were begun anew later.

    Every cell is measured once in a round, so a cell that comes a second time begins the round's next attempt.
    """
    attempts: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        attempt = attempts.setdefault(sample.round, {})
        if sample.cell in attempt:
            attempt = attempts[sample.round] = {}
        attempt[sample.cell] = sample
    return [sample for sample in samples if attempts[sample.round].get(sample.cell) is sample]


def group_by_cell(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return what was attempted per cell: no priming round, nothing that was skipped."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.round > 0 and sample.status != "skipped":
            groups[sample.cell].append(sample)
    return groups


def metric_value(sample: Sample, metric: str) -> float | None:
    """Return the sample's value of ``metric`` in its base unit if it is in the statistics, else None."""
    found = sample.metrics.get(metric) if sample.status == "ok" else None
    return found.value if found is not None and math.isfinite(found.value) else None


def exclusion(sample: Sample, metric: str) -> tuple[str, str] | None:
    """Return status and reason of a sample that is not in the statistics, None for one that is."""
    if sample.status != "ok":
        return sample.status, sample.reason or "no reason recorded"
    return None if metric_value(sample, metric) is not None else ("ok", f"reports no {metric}")


def stage_durations_s(sample: Sample) -> dict[str, float]:
    """Return the time in s from each stage's predecessor (at first: the request) to its end, in the order of stages.

    Stages that ``model.STAGES`` does not know follow by the instant at which they ended.
    """
    unknown = len(_STAGE_POSITION)
    ordered = sorted(sample.stages.items(), key=lambda item: (_STAGE_POSITION.get(item[0], unknown), item[1]))
    before = 0
    durations: dict[str, float] = {}
    for name, instant in ordered:
        durations[name] = (instant - before) / NS_PER_S
        before = instant
    return durations
