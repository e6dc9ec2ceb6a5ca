"""All that a run measured at a glance: a line for each table, a column for each environment, against the baseline.

A number of an emulated guest never stands in the column of a virtual machine: that one then says that it was not
measured and why, and emulation has a column of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from benchbox.analysis.accelerators import accelerator_of, display_label, missing_kvm_note
from benchbox.analysis.statistics import Ratio
from benchbox.model import IMAGE_STORED
from benchbox.record import EnvironmentRecord
from benchbox.scenario import FORMAT, PARALLEL

if TYPE_CHECKING:
    from benchbox.analysis.summary import Row, Table

#: What an environment's account says of the image, as a line of its own.
IMAGE: Final = "image"
#: The same as an exact metric.
IMAGE_METRIC: Final = "size.stored"
#: From so many lines on there is something to overlook.
LEAST_LINES: Final = 2


@dataclass(frozen=True)
class Column:
    """An environment. ``absent`` says why it has no numbers, None where it has; ``label`` is its own."""

    label: str
    display: str
    emulated: bool = False
    absent: str | None = None


@dataclass(frozen=True)
class Line:
    """One table: what was measured, and its row in each column, None where there is none.

    The rows are the table's own, with all that they say; those of ``IMAGE`` are made from the environments' accounts.
    """

    workload: str
    title: str
    metric: str
    entries: "tuple[Row | None, ...]"


@dataclass(frozen=True)
class Overview:
    """``lines`` by ``columns``: each line has an entry a column."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def overview(tables: "Sequence[Table]", environments: Sequence[EnvironmentRecord], baseline: str) -> Overview | None:
    """Return the overview of a run; None where it has too few lines to need one.

    What is told by a number of instances or by a format has tables and figures of its own and is left out.
    """
    shown = [table for table in tables if PARALLEL not in table.params and not all(row.is_exact for row in table.rows)]
    labels = {row.label for table in shown for row in table.rows if row.is_control}
    kept = [record for record in environments if record.kind != FORMAT and record.label not in labels]
    if len(shown) < LEAST_LINES or len(kept) < LEAST_LINES:
        return None
    accelerators = {row.label: row.accelerator for table in shown for row in table.rows if row.accelerator}
    columns = [column for record in kept for column in _columns(record, accelerators.get(record.label))]
    lines = [_line(table, columns) for table in shown]
    image = _image(kept, columns, baseline)
    return Overview(tuple(columns), (*lines, *([image] if image else [])))


def _columns(record: EnvironmentRecord, accelerator: str | None) -> list[Column]:
    """Return the column of an environment; of an emulated guest also that of the machine that was not measured."""
    if record.state != "measured":
        return [Column(record.label, record.label, absent=record.reason or "no reason recorded")]
    accelerator = accelerator or accelerator_of(record, ())
    column = Column(record.label, display_label(record.label, accelerator), accelerator == "tcg")
    if accelerator in (None, "kvm"):
        return [column]
    kvm = Column(record.label, display_label(record.label, "kvm"), absent=missing_kvm_note(record))
    return [kvm, column]


def _line(table: "Table", columns: Sequence[Column]) -> Line:
    rows = {row.label: row for row in table.rows}
    entries = tuple(rows.get(column.label) if column.absent is None else None for column in columns)
    return Line(table.workload, table.title, table.metric, entries)


def _image(records: Iterable[EnvironmentRecord], columns: Sequence[Column], baseline: str) -> Line | None:
    """Return what the image takes on the disk; None where the accounts say nothing of it."""
    known = {record.label: record for record in records if IMAGE_STORED in record.account}
    if not known:
        return None
    base = known[baseline].account[IMAGE_STORED].value if baseline in known else None
    rows = {label: _stored(record, base, baseline) for label, record in known.items()}
    # What it weighs is the same whatever runs the guest.
    return Line(IMAGE, IMAGE, IMAGE_METRIC, tuple(rows.get(column.label) for column in columns))


def _stored(record: EnvironmentRecord, base: float | None, baseline: str) -> "Row":
    """Return the size as a row: exact, so with neither interval nor verdict."""
    from benchbox.analysis.summary import Row

    counter = record.account[IMAGE_STORED]
    row = Row(
        cell=f"{record.label}/{IMAGE}", label=record.label, kind=record.kind, display=record.label, accelerator=None,
        workload=IMAGE, params={}, is_baseline=record.label == baseline, metric=IMAGE_METRIC, unit=counter.unit,
        direction="lower", ok=int(counter.value is not None), attempted=1, median=counter.value,
    )  # fmt: skip
    if not base or counter.value is None or row.is_baseline:
        return row
    return replace(row, ratio=Ratio(counter.value / base, None, None, 1))
