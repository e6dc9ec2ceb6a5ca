"""A run's table for the terminal: with rich where there is one, as plain text everywhere else."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from benchbox.analysis.overview import Line, Overview
from benchbox.analysis.scaling import scalings
from benchbox.analysis.summary import Row, Summary, Table
from benchbox.foreign import plain
from benchbox.report import definitions
from benchbox.report.words import (
    NONE,
    absent_text,
    control_text,
    density_answer,
    difference_text,
    disturbance_text,
    entry_text,
    failure_lines,
    format_value,
    interval_text,
    line_details,
    ratio_text,
    scaling_lines,
    sizes_answer,
    sizes_lines,
    trust_text,
    verdict_text,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as RichTable

#: The widest line of the plain table, in columns.
WIDTH: Final = 112

COLUMNS: Final = (
    "environment", "ok/n", "median", "95% interval", "min", "p90", "× baseline (95%)", "difference (95%)",
)  # fmt: skip
#: What goes first where a terminal is too narrow for all; page, ``show --json`` and wider terminals have it.
SPREAD: Final = ("min", "p90")

#: What stands above the overview.
OVERVIEW: Final = "At a glance"

#: How many columns at the end hold a number with its interval, which may stand below it.
_COMPARING: Final = 2


def cells(row: Row) -> tuple[str, ...]:
    """Return what stands in a row, one text per column."""
    return (
        plain(row.display),
        f"{row.ok}/{row.attempted}",
        format_value(row.median, row.unit),
        interval_text(row.interval, row.unit),
        format_value(row.minimum, row.unit),
        format_value(row.p90, row.unit),
        "baseline" if row.is_baseline else ratio_text(row.ratio),
        "" if row.is_baseline else difference_text(row.difference, row.unit),
    )


def overview_rows(overview: Overview) -> list[tuple[str, ...]]:
    """Return the overview as texts, its heading first: what was measured, then a text per environment."""
    head = ("× baseline", *(plain(column.display) for column in overview.columns))
    return [head, *(_overview_row(line, overview) for line in overview.lines)]


def _overview_row(line: Line, overview: Overview) -> tuple[str, ...]:
    details = line_details(line)
    pairs = zip(line.entries, overview.columns, strict=True)
    texts = (entry_text(row) if row else "not measured" if column.absent else NONE for row, column in pairs)
    return (f"{plain(definitions.aspect(line.workload))}{details and f': {details}'}", *texts)


def remarks(summary: Summary) -> list[str]:
    """Return the lines that belong below the tables: what is missing and why, what failed, what to bear in mind."""
    rows = [row for table in summary.tables for row in table.rows]
    control = control_text(summary)
    return [
        *_verdict_lines(summary),
        *([sizes_answer(summary.sizes), *sizes_lines(summary.sizes)] if summary.sizes else []),
        *(density_answer(density) for density in summary.densities),
        *(line for scaling in scalings(summary.tables) for line in scaling_lines(scaling)),
        *([control] if control else []),
        plain(summary.parity.headline),
        *(f"{plain(absent.label)} {absent_text(absent)}" for absent in summary.absent),
        *(line for row in rows for line in failure_lines(row)),
        *(f"{plain(a.cell)} abandoned after round {a.after_round}: {plain(a.reason)}" for a in summary.abandoned),
        *(plain(note) for note in summary.notes),
        *(disturbance_text(one, summary) for one in summary.disturbances),
    ]


def _verdict_lines(summary: Summary) -> list[str]:
    """Return one line per comparison, with the workload where there are several."""
    many = len(summary.tables) > 1
    return [
        plain(f"{row.display}{f', {table.title}' if many else ''}: {verdict_text(row, table.control)}")
        for table in summary.tables
        for row in table.rows
        if row.verdict or row.is_control
    ]


def plain_text(summary: Summary, width: int = WIDTH) -> str:
    """Return the tables and remarks of a run without colour, at most ``width`` columns wide, ending in a newline."""
    warning = trust_text(summary)
    blocks = ["\n".join(_wrapped(warning, width))] if warning else []
    blocks += [_plain_table(table, _heading(table, summary.cache), width) for table in summary.tables]
    blocks += [_plain_rows(overview_rows(summary.overview), OVERVIEW, width)] if summary.overview else []
    lines = [line for remark in remarks(summary) for line in _wrapped(remark, width)]
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])]) + "\n"


def rich_text(summary: Summary) -> "RenderableType":
    """Return the same for a terminal. Foreign text is never read as markup."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    warning = trust_text(summary)
    head = [Text(warning, style="bold red"), Text()] if warning else []
    tables: list[RenderableType] = [
        part for table in summary.tables for part in (_RichTable(table, _heading(table, summary.cache)), Text())
    ]
    tables += [_rich_overview(summary.overview), Text()] if summary.overview else []
    lines = RichTable.grid(padding=(0, 1))
    for remark in remarks(summary):
        lines.add_row("•", Text(remark))
    return Group(*head, *tables, lines)


def _heading(table: Table, cache: str) -> str:
    cold = ", cold" if cache == "cold" else ""
    return plain(f"{table.title}: {table.metric}{cold}")


def _plain_table(table: Table, heading: str, width: int) -> str:
    return _plain_rows([COLUMNS, *(cells(row) for row in table.rows)], heading, width)


def _plain_rows(rows: Sequence[Sequence[str]], heading: str, width: int) -> str:
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[1:]]
    room = max(12, width - sum(widths) - 2 * len(widths))
    first = min(room, max(len(row[0]) for row in rows))
    lines = [line for row in rows for line in _plain_row(row, first, widths)]
    return "\n".join([*_wrapped(heading, width), "", *lines])


def _plain_row(row: Sequence[str], first: int, widths: Sequence[int]) -> list[str]:
    """Return a row whose numbers stand right-aligned beside its label, which takes more lines where it is long."""
    label, *more = textwrap.wrap(row[0], first) or [NONE]
    numbers = "  ".join(text.rjust(width) for text, width in zip(row[1:], widths, strict=True))
    return [f"{label.ljust(first)}  {numbers}", *more]


def _wrapped(text: str, width: int) -> Iterable[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")


class _RichTable:
    """A table that leaves out on a narrow terminal what it can do without."""

    def __init__(self, table: Table, heading: str) -> None:
        self._rows, self._heading = [cells(row) for row in table.rows], heading

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator["RenderableType"]:
        yield _rich_table(_fitting([COLUMNS, *self._rows], options.max_width), self._heading)


def _rich_frame(heading: str, first: str) -> "RichTable":
    """Return a table without rows that has its ``first`` column only."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(title=Text(heading), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    made.padding = (0, 1, 0, 0)
    made.add_column(first, overflow="fold", min_width=10)
    return made


def _rich_table(rows: Sequence[Sequence[str]], heading: str) -> "RenderableType":
    from rich.text import Text

    names, *texts = rows
    made = _rich_frame(heading, names[0])
    for name in names[1:-_COMPARING]:
        made.add_column(Text(name), justify="right", no_wrap=True)
    for column in range(len(names) - _COMPARING, len(names)):
        widest = max((len(part) for row in texts for part in row[column].split(" (")), default=0)
        made.add_column(Text(names[column]), justify="right", min_width=widest + 1)
    for row in texts:
        made.add_row(*(Text(text) for text in row))
    return made


def _rich_overview(overview: Overview) -> "RenderableType":
    from rich.text import Text

    head, *rows = overview_rows(overview)
    made = _rich_frame(OVERVIEW, head[0])
    for name in head[1:]:
        made.add_column(Text(name), justify="right")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _fitting(rows: Sequence[Sequence[str]], width: int) -> list[Sequence[str]]:
    """Return ``rows`` without the columns of SPREAD where all would take more than ``width`` columns. Pure."""
    needed = sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
    if needed - 2 <= width:
        return list(rows)
    kept = [number for number, name in enumerate(COLUMNS) if name not in SPREAD]
    return [[row[number] for number in kept] for row in rows]
