"""Latencies by percentile: a workload's metrics of one percentile each, put together to a curve an environment."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchbox.analysis import statistics as st
from benchbox.analysis.samples import metric_value
from benchbox.analysis.summary import Row, Table
from benchbox.record import Sample

#: ``network.latency.p99.9``, ``disk.read.latency_p50``, ``redis.latency.max``; without a point ``p999`` is p99.9.
_NAME: Final = re.compile(r"(.+)[._](?:p(\d{1,2})(?:\.(\d{1,4}))?|p(99)(\d{1,4})|(max))", re.ASCII)
#: Fewer percentiles make no curve.
_MIN_RUNGS: Final = 2


@dataclass(frozen=True)
class Rung:
    """One percentile of one environment: its median over the ``count`` valid samples that have it, above zero.

    ``share`` of the operations were at most as slow, 1.0 for the slowest of all (``max``).
    """

    name: str
    share: float
    median: float
    interval: st.Interval | None
    count: int


@dataclass(frozen=True)
class Curve:
    """The percentiles of one environment, the lowest first; ``number`` is its row in the table, for its colour."""

    display: str
    number: int
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Percentiles:
    """What the percentiles of ``metric`` (in ``unit``) are in each environment; ``names`` are those that any has."""

    metric: str
    unit: str
    names: tuple[str, ...]
    curves: tuple[Curve, ...]


def rung_of(metric: str) -> tuple[str, str, float] | None:
    """Return of ``network.latency.p99`` what it is a percentile of, how that is called and which share it is.

    ``("network.latency", "p99", 0.99)``; the share of ``max`` is 1.0. None for a metric that is no percentile.
    """
    found = _NAME.fullmatch(metric)
    if found is None:
        return None
    family, whole, part, nines, more, largest = found.groups()
    if largest:
        return family, largest, 1.0
    text = f"{whole or nines}.{part or more or 0}"
    return family, f"p{float(text):g}", round(float(text) / 100, 6)


def percentiles(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> tuple[Percentiles, ...]:
    """Return the curves of a table, by what they are about in the order of the record; none without percentiles.

    A percentile that fewer than half of an environment's valid samples have is left out there: a tool says the far ones
    only where enough operations are beyond them, so those samples would be a choice of the busiest.
    """
    families: dict[str, dict[str, tuple[str, float]]] = {}
    units: dict[str, str] = {}
    for row in table.rows:
        for name, unit in _units(by_cell.get(row.cell, ())).items():
            if found := rung_of(name):
                families.setdefault(found[0], {})[name] = found[1:]
                units.setdefault(found[0], unit)
    made = (_percentiles(family, units[family], rungs, table, by_cell) for family, rungs in families.items())
    return tuple(each for each in made if sum(name != "max" for name in each.names) >= _MIN_RUNGS)


def _units(samples: Sequence[Sample]) -> dict[str, str]:
    return {name: metric.unit for sample in samples for name, metric in sample.metrics.items()}


def _percentiles(
    family: str,
    unit: str,
    rungs: Mapping[str, tuple[str, float]],
    table: Table,
    by_cell: Mapping[str, Sequence[Sample]],
) -> Percentiles:
    ordered = sorted(rungs.items(), key=lambda item: item[1][1])
    curves = [
        Curve(row.display, number, _rungs(row, ordered, by_cell.get(row.cell, ())))
        for number, row in enumerate(table.rows)
        if row.ok
    ]
    curves = [curve for curve in curves if curve.rungs]
    known = {rung.name for curve in curves for rung in curve.rungs}
    return Percentiles(family, unit, tuple(name for _, (name, _) in ordered if name in known), tuple(curves))


def _rungs(row: Row, ordered: Sequence[tuple[str, tuple[str, float]]], samples: Sequence[Sample]) -> tuple[Rung, ...]:
    found = []
    for metric, (name, share) in ordered:
        values = [value for sample in samples if (value := metric_value(sample, metric)) is not None and value > 0]
        if values and 2 * len(values) >= row.ok:
            found.append(Rung(name, share, st.median(values), st.median_interval(values), len(values)))
    return tuple(found)
