"""A report for a terminal, and as JSON types. Pure."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from benchbox import __version__
from benchbox.doctor.findings import SEVERITIES, Finding, Report, Severity
from benchbox.foreign import plain

#: Raised when a key of the JSON goes or changes its meaning.
FORMAT_VERSION: Final = 1

_HEADINGS: Final[dict[Severity, str]] = {
    "blocker": "BLOCKERS", "warning": "WARNINGS", "info": "WORTH KNOWING", "ok": "IN ORDER",
}  # fmt: skip
#: SGR codes (ECMA-48): bold red, bold yellow, bold cyan, bold green; dim.
_COLOURS: Final[dict[Severity, str]] = {"blocker": "1;31", "warning": "1;33", "info": "1;36", "ok": "1;32"}
_DIM: Final = "2"
_INDENT: Final = "  "
_BELOW: Final = "    "
_NARROWEST: Final = 40
_LONGEST: Final = 400


def as_dict(report: Report, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``report`` in JSON types."""
    return {
        "format": FORMAT_VERSION,
        "benchbox": __version__,
        "blocked": report.blocked,
        "verdict": report.verdict,
        "measurable": dict(report.measurable),
        "required": list(required),
        "findings": [asdict(finding) for finding in report.findings],
    }


class Line(NamedTuple):
    """A line of the report, and the SGR code of its colour on a terminal, empty for none."""

    text: str
    colour: str = ""


def as_lines(report: Report, width: int = 80) -> Iterator[Line]:
    """Yield ``report`` for people, the worst first, the verdict last, in lines of at most ``width`` columns."""
    width = max(width, _NARROWEST)
    for severity in SEVERITIES:
        group = [finding for finding in report.findings if finding.severity == severity]
        if group:
            yield Line(_HEADINGS[severity], _COLOURS[severity])
            yield from _group(group, width)
            yield Line("")
    yield Line(_counts(report))
    yield from map(Line, _wrapped(plain(report.verdict), width))


def _group(findings: list[Finding], width: int) -> Iterator[Line]:
    column = max(len(finding.title) for finding in findings) + 2
    for finding in findings:
        head = f"{_INDENT}{finding.title.ljust(column)}"
        yield from map(Line, _wrapped(head + _short(plain(finding.found)), width, " " * len(head)))
        if finding.severity in ("blocker", "warning") or finding.fix:
            for line in _wrapped(_BELOW + finding.why, width, _BELOW):
                yield Line(line, _DIM)
        if finding.fix:
            yield from map(Line, _wrapped(f"{_INDENT}> {plain(finding.fix)}", width, _BELOW))


def _short(text: str) -> str:
    """Return ``text``, cut where it is the end of a console rather than a sentence."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... (--json has all of it)"


def _counts(report: Report) -> str:
    found = [finding.severity for finding in report.findings]
    blockers, warnings = found.count("blocker"), found.count("warning")
    return f"{_plural(blockers, 'blocker')}, {_plural(warnings, 'warning')}"


def _plural(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
