"""Which samples count, and what can be read from one of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from benchbox.model import STAGES, headline_metric
from benchbox.record import Sample

DEFAULT_METRIC: Final = "startup.ready"

_STAGE_POSITION: Final = {name: position for position, name in enumerate(STAGES)}


def primary_metric(samples: Iterable[Sample], default: str = DEFAULT_METRIC) -> str:
    """Return the metric that ``samples`` are about: the ``headline_metric`` of those that the valid ones have, else the
    first in the alphabet, ``default`` where none is valid."""
    names = list(dict.fromkeys(name for sample in samples if sample.status == "ok" for name in sample.metrics))
    return headline_metric(names) or min(names, default=default)


@dataclass(frozen=True)
class Taken:
    """What was attempted, by cell: no priming round, nothing skipped, of repeated rounds the last attempt only.

    ``left_out`` counts the samples of earlier attempts. ``skipped`` says of a cell why it was not measured.
    """

    by_cell: Mapping[str, list[Sample]]
    left_out: int
    skipped: Mapping[str, str] = field(default_factory=dict)


def take(samples: Sequence[Sample]) -> Taken:
    """Return the samples that count, by cell in the order of the record."""
    kept = last_attempts(samples)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in kept:
        if sample.round > 0 and sample.status != "skipped":
            groups[sample.cell].append(sample)
    skipped = {sample.cell: sample.reason or "no reason recorded" for sample in kept if sample.status == "skipped"}
    return Taken(dict(groups), len(samples) - len(kept), skipped)


def last_attempts(samples: Sequence[Sample]) -> list[Sample]:
    """Return ``samples`` without those of rounds that were begun anew later.

    Every cell is measured once in a round, so a cell that comes a second time begins the round's next attempt.
    """
    if len({(sample.round, sample.cell) for sample in samples}) == len(samples):
        return list(samples)
    attempts: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        attempt = attempts.setdefault(sample.round, {})
        if sample.cell in attempt:
            attempt = attempts[sample.round] = {}
        attempt[sample.cell] = sample
    return [sample for sample in samples if attempts[sample.round].get(sample.cell) is sample]


def metric_value(sample: Sample, metric: str) -> float | None:
    """Return the sample's value of ``metric`` in its base unit if it is in the statistics, else None."""
    found = sample.metrics.get(metric) if sample.status == "ok" else None
    return None if found is None else found.value


def exclusion(sample: Sample, metric: str) -> tuple[str, str] | None:
    """Return status and reason of a sample that is not in the statistics, None for one that is."""
    if sample.status != "ok":
        return sample.status, sample.reason or "no reason recorded"
    return None if metric_value(sample, metric) is not None else ("ok", f"reports no {metric}")


def stage_durations_ns(samples: Iterable[Sample]) -> dict[str, list[int]]:
    """Return for each stage, in the order of stages, how long it took in each valid sample that has it.

    A stage lasts from its predecessor's end (at first: the request) to its own. Stages that ``model.STAGES`` does not
    know follow in the order of the record.
    """
    durations: dict[str, list[int]] = {}
    for sample in samples:
        if sample.status == "ok":
            stages, before = sample.stages, 0
            for name in _in_order(tuple(stages)):
                instant = stages[name]
                durations.setdefault(name, []).append(instant - before)
                before = instant
    return {name: durations[name] for name in _in_order(tuple(durations))}


@lru_cache(maxsize=256)
def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: _STAGE_POSITION.get(name, len(_STAGE_POSITION))))
