"""The long table of a run: one row a metric, for other programs to read."""

import csv
import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from benchbox.foreign import plain_lines
from benchbox.record import CellRecord, Manifest, Sample, format_pairs

COLUMNS: Final = (
    "run", "scenario", "round", "position", "environment", "workload", "params", "metric", "unit", "value", "status",
    "flags",
)  # fmt: skip

#: What a spreadsheet takes for the beginning of a formula (OWASP, CSV Injection), full-width forms included.
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Cell = str | int | float
Row = tuple[Cell, ...]


def export_rows(manifest: Manifest, samples: Iterable[Sample], *, priming: bool = False) -> Iterator[Row]:
    """Yield a row of ``COLUMNS`` for each metric of each sample that is ``ok``, values in base units.

    Any other sample has one row with neither metric nor value, so that nothing is lost without a trace; so has, with
    neither round nor position, each cell of an environment that was skipped or failed before its first sample. The
    discarded priming round (0) is left out unless ``priming``.
    """
    measured: set[str] = set()
    for sample in samples:
        measured.add(sample.cell)
        if priming or sample.round > 0:
            yield from _sample_rows(manifest, sample)
    states = {record.label: record.state for record in manifest.environments}
    for cell in manifest.cells:
        state = states.get(cell.environment, "measured")
        if state != "measured" and cell.id not in measured:
            yield _absent_row(manifest, cell, state)


def write_csv(rows: Iterable[Row], out: "SupportsWrite[str]", *, raw_text: bool = False) -> None:
    """Write a header and ``rows`` to ``out`` as CSV (RFC 4180 quoting, lines end with a bare line feed).

    Text is ``disarmed`` unless ``raw_text``; numbers are written as they are.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        rows if raw_text else ([disarmed(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    )


@functools.lru_cache(maxsize=4096)  # the same few texts stand in a million rows
def disarmed(cell: str) -> str:
    """Return ``cell`` as what neither a terminal obeys nor a spreadsheet computes: behind an apostrophe it is text."""
    text = plain_lines(cell)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1] in ("\t", "\n") else text


def _sample_rows(manifest: Manifest, sample: Sample) -> Iterator[Row]:
    where = (*_run(manifest), sample.round, sample.position, sample.environment, sample.workload)
    params, flags = format_pairs(sample.params), format_pairs(sample.flags)
    if sample.status != "ok" or not sample.metrics:
        yield (*where, params, "", "", "", sample.status, flags)
        return
    for name, metric in sample.metrics.items():
        yield (*where, params, name, metric.unit, metric.value, sample.status, flags)


def _absent_row(manifest: Manifest, cell: CellRecord, state: str) -> Row:
    return (*_run(manifest), "", "", cell.environment, cell.workload, format_pairs(cell.params), "", "", "", state, "")


def _run(manifest: Manifest) -> tuple[str, str]:
    return manifest.run_id, str(manifest.scenario.get("name", ""))
