"""What a steady-state metric was made of: the iterations of each sample, their warm-up, and whether they settled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchbox.analysis.summary import Row, Table
from benchbox.record import Iterations, Sample


@dataclass(frozen=True)
class Unfolded:
    """The iterations of one environment's valid samples, each with its round; ``number`` is its row in the table.

    ``unsettled`` of the samples reached no steady state. ``warm_up`` is the shortest and the longest one of the others,
    None where there are no others.
    """

    row: Row
    number: int
    samples: tuple[tuple[int, Iterations], ...]

    @property
    def unsettled(self) -> int:
        return sum(each.warm_up is None for _, each in self.samples)

    @property
    def warm_up(self) -> tuple[int, int] | None:
        lengths = [each.warm_up for _, each in self.samples if each.warm_up is not None]
        return (min(lengths), max(lengths)) if lengths else None


@dataclass(frozen=True)
class Unfolding:
    """The iterations behind ``metric`` in ``unit``; ``longest`` is how many the longest sample has."""

    metric: str
    unit: str
    longest: int
    rows: tuple[Unfolded, ...]


def unfolding(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> Unfolding | None:
    """Return the iterations behind the metric of ``table``, or behind the first that has any; None where none has."""
    metric = _metric(table, by_cell)
    if metric is None:
        return None
    rows = [_unfolded(row, number, metric, by_cell.get(row.cell, ())) for number, row in enumerate(table.rows)]
    kept = tuple(row for row in rows if row.samples)
    valid = (sample for row in table.rows for sample in by_cell.get(row.cell, ()) if metric in sample.metrics)
    unit = next((sample.metrics[metric].unit for sample in valid), "1")
    longest = max(len(each.values) for row in kept for _, each in row.samples)
    return Unfolding(metric, unit, longest, kept)


def _metric(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> str | None:
    samples = (sample for row in table.rows if row.ok for sample in by_cell.get(row.cell, ()) if sample.status == "ok")
    names = list(dict.fromkeys(name for sample in samples for name, each in sample.iterations.items() if each.values))
    return table.metric if table.metric in names else next(iter(names), None)


def _unfolded(row: Row, number: int, metric: str, samples: Sequence[Sample]) -> Unfolded:
    found = (
        (sample.round, sample.iterations[metric])
        for sample in samples
        if row.ok and sample.status == "ok" and metric in sample.iterations
    )
    return Unfolded(row, number, tuple((at, each) for at, each in found if each.values))
