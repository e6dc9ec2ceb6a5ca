"""Which environments this host can measure, and what was required of it."""

from collections.abc import Sequence
from typing import Final

from benchbox.doctor.checks.guests import TRY_IT
from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Finding, Seen, blocker, info, ok, warning
from benchbox.model import Availability
from benchbox.virt.accelerator import API_VERSION

KVM: Final = "KVM"
UNPROVEN: Final = "KVM not proven"
EMULATED: Final = "emulated only"
#: Programs of others: to have none of them is no fault of a host.
PEERS: Final = ("oci", "docker")

_WHY: Final = "Only what this host offers is measured; the rest is skipped, with its reason in table and page."


def measurable(facts: Facts) -> dict[str, str | None]:
    """Return each kind of environment that can be measured, and how where there is more than one way."""
    return {kind: accelerator(facts) if kind == "vm" else None for kind in facts.offers if offer(facts, kind).available}


def findings(facts: Facts, required: Sequence[str] = ()) -> list[Finding]:
    """Return a finding for each kind; a blocker where ``required`` (``vm:kvm``) names what is missing."""
    nothing = not measurable(facts)
    found = []
    for kind in facts.offers:
        words = [word for word in required if word.partition(":")[0] == kind]
        seen = _seen(facts, kind, words, nothing=nothing)
        found.append(Finding(f"environment.{kind}", kind, seen.severity, seen.found, _WHY, seen.fix))
    return found


def offer(facts: Facts, kind: str) -> Availability:
    """Return whether ``kind`` would open and run, as far as that is known."""
    if not facts.programs.available or not facts.offers[kind].available:
        return facts.offers[kind] if facts.programs.available else facts.programs
    if kind != "vm":
        return facts.offers[kind]
    trial = facts.guests.trial
    if trial is not None and trial.state in ("failed", "skipped"):
        return Availability.no(trial.reason, TRY_IT)
    return facts.guests.kernel


def accelerator(facts: Facts) -> str:
    """Return what a guest would run on, by what is known."""
    guests = facts.guests
    if not guests.device.available or guests.api_version != API_VERSION:
        return EMULATED
    proven = (guests.trial and guests.trial.accelerator) or (guests.proof and guests.proof.accelerator)
    if proven is None:
        return UNPROVEN
    return KVM if proven == "kvm" else EMULATED


def _seen(facts: Facts, kind: str, words: Sequence[str], *, nothing: bool) -> Seen:
    offered = offer(facts, kind)
    if not offered.available:
        judged = blocker if words or (nothing and kind not in PEERS) else info if kind in PEERS else warning
        return judged(f"{'required, and ' if words else ''}not offered: {offered.reason}", offered.fix)
    if kind != "vm":
        return ok("offered")
    how = accelerator(facts)
    if f"{kind}:kvm" in words and how != KVM:
        return blocker(f"KVM is required: {_lack(facts)}", _remedy(facts))
    if how == EMULATED:
        return warning(f"offered, {how}", _remedy(facts))
    return ok(f"offered, {how}") if how == KVM else info(f"offered, {how}")


def _lack(facts: Facts) -> str:
    """Say why KVM does not count."""
    guests = facts.guests
    if not guests.device.available:
        return str(guests.device.reason)
    if guests.trial is not None:
        return guests.trial.reason
    return guests.proof.reason if guests.proof else "no guest was booted with it"


def _remedy(facts: Facts) -> str:
    if facts.guests.device.fix:
        return facts.guests.device.fix
    return TRY_IT if accelerator(facts) == UNPROVEN else "use a host whose KVM boots a Linux guest"
