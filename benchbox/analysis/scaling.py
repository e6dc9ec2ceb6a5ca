"""Several started at once: what each environment takes by their number, from the tables of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchbox.analysis.summary import Row, Table
from benchbox.scenario import PARALLEL


@dataclass(frozen=True)
class Series:
    """One environment: its rows by how many were started at once, the fewest first; those without a value are left out.

    ``number`` is its place in the tables, which decides its colour.
    """

    display: str
    number: int
    rows: tuple[tuple[int, Row], ...]


@dataclass(frozen=True)
class Scaling:
    """One workload with one set of other parameters, by ``metric``."""

    title: str
    metric: str
    counts: tuple[int, ...]
    series: tuple[Series, ...]


def scalings(tables: Sequence[Table]) -> tuple[Scaling, ...]:
    """Return what can be told by the number of instances; nothing of what was measured with one number only."""
    groups: dict[tuple[str, tuple[tuple[str, object], ...]], dict[int, Table]] = {}
    for table in tables:
        count = table.params.get(PARALLEL)
        if isinstance(count, int) and count > 0:
            rest = tuple(sorted((key, value) for key, value in table.params.items() if key != PARALLEL))
            groups.setdefault((table.workload, rest), {})[count] = table
    return tuple(_scaling(*key, by_count) for key, by_count in groups.items() if len(by_count) > 1)


def _scaling(workload: str, rest: Sequence[tuple[str, object]], by_count: dict[int, Table]) -> Scaling:
    counts = tuple(sorted(by_count))
    found: dict[str, list[tuple[int, Row]]] = {}
    numbers: dict[str, int] = {}
    for count in counts:
        for number, row in enumerate(by_count[count].rows):
            numbers.setdefault(row.display, number)
            if row.median is not None:
                found.setdefault(row.display, []).append((count, row))
    params = ";".join(f"{key}={value}" for key, value in rest)
    series = tuple(Series(display, numbers[display], tuple(rows)) for display, rows in found.items())
    metric = by_count[counts[0]].metric
    return Scaling(f"{workload}[{params}]" if params else workload, metric, counts, series)
