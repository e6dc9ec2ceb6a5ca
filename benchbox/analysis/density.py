"""What one more instance takes: the slope of memory over how many live at once, from every valid sample of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchbox.analysis import statistics as st
from benchbox.analysis.samples import metric_value
from benchbox.record import Sample
from benchbox.scenario import PARALLEL

if TYPE_CHECKING:
    from benchbox.analysis.summary import Row

#: The accounts of memory, the one that stands first on a page first.
METRICS: Final = ("density.cgroup", "density.available", "density.pss")


@dataclass(frozen=True)
class Share:
    """What one more instance of an environment takes by each account, in B; those that it does not have are left out.

    ``number`` is its place in the tables, which decides its colour. ``largest`` is the largest number that lived.
    """

    display: str
    number: int
    emulated: bool
    largest: int
    slopes: dict[str, st.Slope]


@dataclass(frozen=True)
class Density:
    """One workload with one set of other parameters."""

    title: str
    workload: str
    params: dict[str, str | int | float]
    shares: tuple[Share, ...]


def densities(rows: Sequence["Row"], by_cell: Mapping[str, Sequence[Sample]], seed: int) -> tuple[Density, ...]:
    """Return what can be told of instances that were looked at in several numbers; nothing of any others."""
    groups: dict[tuple[str, tuple[tuple[str, str | int | float], ...]], dict[str, list[Row]]] = {}
    for row in rows:
        if isinstance(row.params.get(PARALLEL), int):
            rest = tuple(sorted((key, value) for key, value in row.params.items() if key != PARALLEL))
            groups.setdefault((row.workload, rest), {}).setdefault(row.display, []).append(row)
    found = (_density(*key, of_one, by_cell, seed) for key, of_one in groups.items())
    return tuple(density for density in found if density.shares)


def _density(
    workload: str,
    rest: Sequence[tuple[str, str | int | float]],
    of_one: Mapping[str, Sequence["Row"]],
    by_cell: Mapping[str, Sequence[Sample]],
    seed: int,
) -> Density:
    shares = [_share(number, display, rows, by_cell, seed) for number, (display, rows) in enumerate(of_one.items())]
    text = ";".join(f"{key}={value}" for key, value in rest)
    title = f"{workload}[{text}]" if text else workload
    return Density(title, workload, dict(rest), tuple(share for share in shares if share.slopes))


def _share(
    number: int, display: str, rows: Sequence["Row"], by_cell: Mapping[str, Sequence[Sample]], seed: int
) -> Share:
    slopes = {name: st.slope(points(rows, by_cell, name), seed) for name in METRICS}
    return Share(
        display,
        number,
        any(row.accelerator == "tcg" for row in rows),
        max((int(row.params[PARALLEL]) for row in rows if row.ok), default=0),
        {name: found for name, found in slopes.items() if found is not None},
    )


def points(rows: Sequence["Row"], by_cell: Mapping[str, Sequence[Sample]], metric: str) -> list[tuple[int, float]]:
    """Return (how many lived at once, value) of every valid sample of ``rows``. A mixed accelerator has none."""
    return [
        (int(row.params[PARALLEL]), value)
        for row in rows
        if row.accelerator != "mixed"
        for sample in by_cell.get(row.cell, ())
        if (value := metric_value(sample, metric)) is not None
    ]
