"""How numbers and names are said to people, the same in the terminal and on the page."""

import unicodedata
from typing import Final

from benchbox.analysis.statistics import Interval, Ratio
from benchbox.analysis.summary import Absent, Row, Table
from benchbox.units import format_duration, format_size

#: What a metric measures, as the beginning of a sentence.
METRIC_MEANING: Final = {
    "startup.ready": "From the request to the workload's first own instruction",
    "startup.cleaned": "From the request until everything of it is gone again",
    "startup.spawn": "From asking for the launcher to its first instruction",
}

#: What is over when a stage is over.
STAGE_MEANING: Final = {
    "cgroups": "the control groups of this one instance exist and are set",
    "started": "the child runs its first instruction (guest: libvirt says that the domain runs)",
    "isolated": "namespaces, mounts, capabilities and filters are in place, just before the program is executed",
    "agent": "firmware, guest kernel and init are done: the first byte of the guest's agent",
    "exec": "the workload's program has been executed",
    "ready": "the first byte that the workload itself writes",
    "exited": "the workload has ended",
    "cleaned": "processes, mounts, control groups and domain are gone",
}

#: Where there is no number.
NONE: Final = "–"


def plain(text: object) -> str:
    """Return ``text`` on one line without anything that could steer a terminal or reorder what is read."""
    return " ".join("".join(_harmless(char) for char in str(text)).split())


def plain_lines(text: str) -> str:
    """Return ``text`` as ``plain`` does, but with its line breaks."""
    return "\n".join("".join(_harmless(char) for char in line) for line in text.splitlines())


def _harmless(char: str) -> str:
    """Control characters become spaces; format characters (bidirectional overrides, zero widths) vanish."""
    category = unicodedata.category(char)
    return " " if category in ("Cc", "Zl", "Zp") else "" if category in ("Cf", "Cs") else char


def significant(value: float) -> str:
    """Return three significant digits, never in exponential notation: ``4.62``, ``46.2``, ``4,620``."""
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 0
    return f"{round(value, 2 - exponent):,.{max(0, 2 - exponent)}f}"


def format_value(value: float | None, unit: str) -> str:
    """Return a value of a base unit as people read it: ``12.3 ms``, ``256 MiB``, ``4,620 1/s``."""
    if value is None:
        return NONE
    if value == 0:
        return "0" if unit in ("", "1") else f"0 {unit}"
    if unit == "s":
        return format_duration(value)
    if unit in ("B", "B/s"):
        return format_size(value) + unit[1:]
    return significant(value) if unit in ("", "1") else f"{significant(value)} {unit}"


def interval_text(interval: Interval | None, unit: str) -> str:
    """Return both ends of an interval, a unit that they share once: ``475–512 µs``, ``998 µs – 1.02 ms``."""
    if interval is None:
        return NONE
    low, high = format_value(interval.low, unit), format_value(interval.high, unit)
    low_number, _, low_unit = low.rpartition(" ")
    high_number, _, high_unit = high.rpartition(" ")
    shared = low_unit == high_unit and low_number and " " not in low_number + high_number
    return f"{low_number}–{high}" if shared else f"{low} – {high}"


def ratio_text(ratio: Ratio | None) -> str:
    """Return a ratio with its interval where there is one: ``4.59 (4.38–4.82)``."""
    if ratio is None:
        return NONE
    if ratio.low is None or ratio.high is None:
        return significant(ratio.estimate)
    return f"{significant(ratio.estimate)} ({significant(ratio.low)}–{significant(ratio.high)})"


def answer(table: Table, metric: str, baseline: str) -> str:
    """Return in one sentence what a table says. Emulation is never called a virtual machine's cost."""
    base = next((row for row in table.rows if row.is_baseline and row.ok), None)
    measured = [row for row in table.rows if row.ok]
    subject = METRIC_MEANING.get(metric, f"Median {metric}")
    if not measured:
        return f"{subject}: nothing could be measured."
    parts = [f"{plain(row.display)} {format_value(row.median, row.unit)}{_versus(row)}" for row in measured]
    caveat = "" if base else f"; nothing is compared, for the baseline {plain(baseline)} has no valid sample"
    return f"{subject}: {'; '.join(parts)}{caveat}."


def _versus(row: Row) -> str:
    if row.ratio is None:
        return ""
    if row.ratio.low is None or row.ratio.high is None:
        text = f", {significant(row.ratio.estimate)} times the baseline (too few rounds for an interval)"
    else:
        ends = f"{significant(row.ratio.low)} to {significant(row.ratio.high)}"
        text = f", {significant(row.ratio.estimate)} times the baseline (95% interval {ends})"
    return f"{text}, which is emulation and no measure of a VM" if row.accelerator == "tcg" else text


def absent_text(absent: Absent) -> str:
    """Return why an environment has no numbers and what helps: ``skipped: no QEMU → install qemu-system-x86``."""
    fix = f" → {plain(absent.fix)}" if absent.fix else ""
    return f"{absent.state}: {plain(absent.reason)}{fix}"


def failure_lines(row: Row) -> list[str]:
    """Return one line per reason for which samples of a cell are not in the statistics."""
    return [f"{plain(row.display)}: {f.count} of {row.attempted} {f.status}: {plain(f.reason)}" for f in row.failures]
