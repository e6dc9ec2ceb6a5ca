"""Facts in, report out. Pure."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from benchbox.doctor import offers
from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import SEVERITIES, Finding, Report
from benchbox.doctor.table import TABLE
from benchbox.environments import KINDS
from benchbox.errors import UsageError

_ACCELERATORS: Final = ("kvm", "tcg")


def examine(facts: Facts, required: Sequence[str] = ()) -> Report:
    """Return what there is to say about a host; what is missing of ``required`` (see ``required_words``) blocks."""
    found = [*offers.findings(facts, required), *_checked(facts)]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(tuple(found), offers.measurable(facts))


def _checked(facts: Facts) -> Iterator[Finding]:
    for check in TABLE:
        seen = check.look(facts)
        if seen is not None:
            yield Finding(check.id, check.title, seen.severity, seen.found, check.why, seen.fix)


def required_words(text: str | None) -> tuple[str, ...]:
    """Return the words of ``--require`` (``vm:kvm,container``). Raises UsageError for one that means nothing."""
    words = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    for word in words:
        _check_word(word)
    return words


def _check_word(word: str) -> None:
    known = [*KINDS, *(f"vm:{accelerator}" for accelerator in _ACCELERATORS)]
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UsageError(f"--require {word}: no such environment", hint=hint)
