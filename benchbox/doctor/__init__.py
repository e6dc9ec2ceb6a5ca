"""``benchbox doctor``: what this host can measure, and what would disturb it. Changes nothing.

``look`` reads the host into ``facts.Facts``; everything after it is pure: each row of ``table.TABLE`` makes at most one
finding of them, ``offers`` says which environments can be measured, ``text`` writes the report for people or programs.
"""

from benchbox.doctor.findings import Finding, Report, Severity
from benchbox.doctor.report import examine, required_words

__all__ = ["Finding", "Report", "Severity", "examine", "required_words"]
