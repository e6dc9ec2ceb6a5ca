"""What the doctor says: a finding a check, and all of them in a report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from benchbox.doctor.facts import Facts

#: ``blocker``: a run would fail, or lacks what is required. ``warning``: it would measure, with less precision or less
#: meaning. ``info``: worth knowing when reading the numbers. ``ok``: as it should be.
Severity = Literal["blocker", "warning", "info", "ok"]
SEVERITIES: Final[tuple[Severity, ...]] = ("blocker", "warning", "info", "ok")


@dataclass(frozen=True)
class Seen:
    """What one check saw; ``fix`` is a command, or words where none helps, or None where nothing has to be done."""

    severity: Severity
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Check:
    """One row of the table. ``look`` is pure and returns None for what does not apply to a host."""

    id: str
    title: str
    why: str
    look: Callable[[Facts], Seen | None]


@dataclass(frozen=True)
class Finding:
    """What a check saw, with why it matters to these measurements."""

    id: str
    title: str
    severity: Severity
    found: str
    why: str
    fix: str | None = None


@dataclass(frozen=True)
class Report:
    """All findings, the worst first; ``measurable`` says how each environment that can be measured would be."""

    findings: tuple[Finding, ...]
    measurable: Mapping[str, str | None]

    @property
    def blocked(self) -> bool:
        """Whether anything is a blocker."""
        return any(finding.severity == "blocker" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Return the report in one line."""
        names = [f"{kind} ({how})" if how else kind for kind, how in self.measurable.items()]
        return f"this host can measure: {', '.join(names) or 'nothing'}"


def ok(found: str) -> Seen:
    """Return that all is well."""
    return Seen("ok", found)


def info(found: str, fix: str | None = None) -> Seen:
    """Return something worth knowing."""
    return Seen("info", found, fix)


def warning(found: str, fix: str | None = None) -> Seen:
    """Return something that costs precision or meaning."""
    return Seen("warning", found, fix)


def blocker(found: str, fix: str | None = None) -> Seen:
    """Return something that keeps a run from measuring."""
    return Seen("blocker", found, fix)
