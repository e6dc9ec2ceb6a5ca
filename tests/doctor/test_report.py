"""What this host can measure, what was required, and in which order it is said."""

from dataclasses import replace
from typing import Final

import pytest

from benchbox.doctor import examine, required_words
from benchbox.doctor.facts import Facts, GuestTrial
from benchbox.doctor.findings import SEVERITIES
from benchbox.errors import UsageError
from benchbox.model import Availability
from benchbox.virt.accelerator import Proof
from tests.doctor.hosts import BROKEN, PERFECT, guests

NO: Final = Availability.no("a reason", "a fix")


def without(*kinds: str) -> Facts:
    return replace(PERFECT, offers={kind: NO if kind in kinds else offer for kind, offer in PERFECT.offers.items()})


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (PERFECT, "native, container, vm (KVM)"),
        (guests(proof=None), "native, container, vm (KVM not proven)"),
        (guests(proof=Proof("tcg", "it hung")), "native, container, vm (emulated only)"),
        (guests(proof=None, trial=GuestTrial("measured", "", "kvm")), "native, container, vm (KVM)"),
        (guests(trial=GuestTrial("measured", "", "tcg")), "native, container, vm (emulated only)"),
        (guests(trial=GuestTrial("failed", "no agent")), "native, container"),
        (guests(trial=GuestTrial("untried", "held")), "native, container, vm (KVM)"),
        (guests(device=NO), "native, container, vm (emulated only)"),
        (guests(api_version=None), "native, container, vm (emulated only)"),
        (guests(kernel=NO), "native, container"),
        (without("native", "container"), "vm (KVM)"),
        (without("native", "container", "vm"), "nothing"),
        (replace(PERFECT, programs=NO), "nothing"),
    ],
)
def test_the_verdict_names_what_can_be_measured_and_how(facts: Facts, verdict: str) -> None:
    """KVM counts as proven by a guest only; a guest that was tried just now says more than a memory."""
    assert examine(facts).verdict == f"this host can measure: {verdict}"


@pytest.mark.parametrize(
    ("facts", "required", "blockers"),
    [
        (PERFECT, "vm:kvm,container,native", []),
        (without("container"), "", []),
        (without("container"), "native", []),
        (without("container"), "container", ["environment.container"]),
        (without("native", "container", "vm"), "", ["environment.native", "environment.container", "environment.vm"]),
        (guests(proof=None), "vm", []),
        (guests(proof=None), "vm:tcg", []),
        (guests(proof=None), "vm:kvm", ["environment.vm"]),
        (guests(device=NO), "vm:kvm", ["environment.vm"]),
        (guests(device=NO), "vm:tcg", []),
        (guests(proof=Proof("tcg", "it hung")), "vm:kvm", ["environment.vm"]),
        (guests(kernel=NO), "vm", ["environment.vm"]),
    ],
)
def test_what_is_required_and_missing_blocks(facts: Facts, required: str, blockers: list[str]) -> None:
    """What is not required is only skipped, unless nothing is left to measure."""
    report = examine(facts, required_words(required))
    assert [item.id for item in report.findings if item.severity == "blocker"] == blockers
    assert report.blocked is bool(blockers)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_programs_of_others_are_no_fault_where_they_are_missing(kind: str) -> None:
    """It is said, with what to do; only whoever requires them is held up."""
    facts = replace(PERFECT, offers={**PERFECT.offers, kind: NO})
    for required, severity in (("", "info"), (kind, "blocker")):
        report = examine(facts, required_words(required))
        (found,) = [item for item in report.findings if item.id == f"environment.{kind}"]
        assert (found.severity, found.fix) == (severity, "a fix")
        assert "a reason" in found.found
    alone = replace(PERFECT, offers={"native": NO, kind: NO})
    blockers = [item.id for item in examine(alone).findings if item.severity == "blocker"]
    assert blockers == ["environment.native"]


def test_a_missing_kvm_is_explained() -> None:
    """By the device where that is missing, else by the guest that did not boot."""
    for facts, reason, fix in (
        (guests(device=NO), "a reason", "a fix"),
        (guests(proof=None), "no guest was booted with it", "benchbox doctor --boot"),
        (guests(proof=Proof("tcg", "it hung")), "it hung", "use a host whose KVM boots a Linux guest"),
        (guests(trial=GuestTrial("measured", "it hung", "tcg")), "it hung", "use a host whose KVM boots a Linux guest"),
    ):
        found = examine(facts, ("vm:kvm",)).findings[0]
        assert (found.found, found.fix) == (f"KVM is required: {reason}", fix)


def test_the_worst_comes_first() -> None:
    """Findings are in the order of their severity."""
    order = [SEVERITIES.index(item.severity) for item in examine(BROKEN).findings]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2, 3}


def test_words_of_require_are_split() -> None:
    """Empty ones are nothing."""
    assert required_words("vm:kvm, container,") == ("vm:kvm", "container")
    assert required_words(None) == ()


@pytest.mark.parametrize(("word", "hint"), [("vm:kwm", "did you mean vm:kvm?"), ("moon", "known are native, ")])
def test_a_word_that_means_nothing_is_refused(word: str, hint: str) -> None:
    """With the nearest right one."""
    with pytest.raises(UsageError, match=f"--require {word}: no such environment") as error:
        required_words(word)
    assert hint in str(error.value.hint)
