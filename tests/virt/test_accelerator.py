"""The proof of an accelerator, with guests that only say what came of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchbox.model import Outcome
from benchbox.virt import accelerator
from benchbox.virt.accelerator import Proof

REGISTER = Outcome("failed", "QEMU gave up: error: failed to set MSR 0x10a to 0x69")
HANGS = Outcome("failed", "the guest hung before the agent's first byte, killed after 20 s", console_tail="early\n")
BOOTS = Outcome("ok", requested_ns=10, stages={"agent": 500_000_010})


class Guests:
    """Gives one outcome after the other and notes what was asked for."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.asked = list(outcomes), list[tuple[str, ...]]()

    def boot(self, features: tuple[str, ...]) -> Outcome:
        self.asked.append(features)
        return self.outcomes.pop(0)


def test_a_guest_that_boots_proves_kvm() -> None:
    """The first guest is enough."""
    guests = Guests(BOOTS)

    proof = accelerator.prove(guests.boot)
    assert (proof.accelerator, proof.disabled_features, proof.boot_ns) == ("kvm", (), 500_000_000)
    assert guests.asked == [()]


def test_a_proof_keeps_its_evidence(tmp_path: Path) -> None:
    """What libvirt and QEMU said of the guest stays with the proof, from one run to the next."""
    domain = {"domain_type": "kvm", "query_kvm_enabled": True}
    proof = accelerator.prove(Guests(replace(BOOTS, applied={"domain": domain})).boot)

    assert proof.evidence == domain
    accelerator.remembered(tmp_path, {}, lambda: proof)
    assert accelerator.remembered(tmp_path, {}, lambda: Proof("tcg", "no")) == proof


def test_a_refused_register_is_tried_again_without_the_feature() -> None:
    """Only where QEMU could not set a register; the proof says what guests must not see."""
    guests = Guests(REGISTER, BOOTS)

    proof = accelerator.prove(guests.boot)
    assert (proof.accelerator, proof.disabled_features) == ("kvm", ("arch-capabilities",))
    assert guests.asked == [(), ("arch-capabilities",)]


def test_a_guest_that_hangs_is_not_tried_again() -> None:
    """A hang costs a whole deadline: once is enough, and what is known of it has the console."""
    guests = Guests(HANGS)

    proof = accelerator.prove(guests.boot)
    assert proof.accelerator == "tcg"
    assert proof.reason == "no guest boots with KVM on this host: the guest hung before the agent's first byte"
    assert proof.attempts == (
        "the host's CPU: the guest hung before the agent's first byte, killed after 20 s, "
        "its console ends with 'early'",
    )


def test_the_reason_is_a_short_line_and_the_attempts_say_all() -> None:
    """A user reads the cause; who wants to know more finds what was tried, and what became of it."""
    proof = accelerator.prove(Guests(REGISTER, HANGS).boot)

    assert proof.reason == (
        "no guest boots with KVM on this host: QEMU gave up (failed to set MSR 0x10a to 0x69), "
        "the guest hung before the agent's first byte"
    )
    assert proof.attempts[0] == (
        "the host's CPU: QEMU gave up: error: failed to set MSR 0x10a to 0x69, nothing on its console"
    )
    assert "without arch-capabilities: the guest hung before the agent's first byte, killed" in proof.attempts[1]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("QEMU stopped it: internal-error; QEMU says: KVM", "QEMU stopped it: internal-error"),
        ("QEMU gave up: it\nis   full", "QEMU gave up (it is full)"),
        ("word " * 100, "word " * 18 + "word …"),
    ],
)
def test_a_cause_is_cut_where_a_word_ends(reason: str, cause: str) -> None:
    """One line, without what came after it."""
    assert accelerator.prove(Guests(Outcome("failed", reason)).boot).reason.partition("host: ")[2] == cause


def test_a_proof_of_an_earlier_version_is_made_again(tmp_path: Path) -> None:
    """What was tried was part of its reason then."""
    accelerator.remembered(tmp_path, {}, lambda: Proof("tcg", "no"))
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace('"attempts": [], ', ""))
    assert "attempts" not in path.read_text()
    assert accelerator.remembered(tmp_path, {}, lambda: Proof("tcg", "why")) == Proof("tcg", "why")


def test_a_proof_is_made_once_for_the_same_facts(tmp_path: Path) -> None:
    """The same facts give the remembered answer, other facts a new one."""
    made: list[int] = []

    def make() -> Proof:
        made.append(1)
        return Proof("kvm", "why", ("a",), 5)

    first = accelerator.remembered(tmp_path / "new", {"kernel": "a"}, make)
    assert accelerator.remembered(tmp_path / "new", {"kernel": "a"}, make) == first
    accelerator.remembered(tmp_path / "new", {"kernel": "b"}, make)

    assert len(made) == 2


def test_a_broken_memory_is_made_again(tmp_path: Path) -> None:
    """A torn file is no proof."""
    accelerator.remembered(tmp_path, {}, lambda: Proof("kvm", "why"))
    (path,) = tmp_path.iterdir()
    path.write_text('{"accelerator": "k')

    assert accelerator.remembered(tmp_path, {}, lambda: Proof("tcg", "no")) == Proof("tcg", "no")
    assert accelerator.remembered(tmp_path, {}, lambda: Proof("kvm", "why")) == Proof("tcg", "no")


@pytest.mark.parametrize(("name", "reason"), [("absent", "does not exist"), ("file", "is not a device")])
def test_a_device_that_is_none_is_said_with_a_fix(tmp_path: Path, name: str, reason: str) -> None:
    """The quick check reads the device and nothing else."""
    (tmp_path / "file").write_text("")

    found = accelerator.device_availability(tmp_path / name)
    assert not found.available
    assert reason in (found.reason or "")
    assert found.fix


def test_a_device_that_opens_is_available() -> None:
    """What opens may be tried."""
    assert accelerator.device_availability(Path("/dev/null")).available


def test_the_facts_change_with_what_decides_about_kvm(tmp_path: Path) -> None:
    """Boot, CPU and KVM's parameters are facts; the clock of a CPU is none."""
    for path, text in {
        "proc/sys/kernel/random/boot_id": "1",
        "proc/cpuinfo": "processor: 0\nflags: vmx\ncpu MHz: 1\n\nprocessor: 1\nflags: vmx\ncpu MHz: 2\n",
        "sys/module/kvm_intel/parameters/nested": "Y",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    before = accelerator.host_facts(tmp_path)

    assert before["cpu"] == ["processor: 0", "flags: vmx"]
    assert before["device"] is None
    (tmp_path / "sys/module/kvm_intel/parameters/nested").write_text("N")
    assert accelerator.host_facts(tmp_path) != before


def test_a_device_that_is_no_kvm_has_no_version(tmp_path: Path) -> None:
    """A file that opens but does not answer, and one that is not there."""
    (tmp_path / "kvm").touch()
    assert accelerator.api_version(tmp_path / "kvm") is None
    assert accelerator.api_version(tmp_path / "none") is None


def test_a_proof_is_recalled_by_what_it_says_of_the_host(tmp_path: Path) -> None:
    """Whatever guest it was made with; of another host, or of nothing that can be read, there is none."""
    host = {"boot_id": "1", "cpu": ["model : x"]}
    failed, booted = Proof("tcg", "no guest boots"), Proof("kvm", "a guest booted", ("arch-capabilities",), 7)
    assert accelerator.recalled(tmp_path, host) is None
    accelerator.remembered(tmp_path, host | {"guest_kernel": "a"}, lambda: failed)
    assert accelerator.recalled(tmp_path, host) == failed
    accelerator.remembered(tmp_path, host | {"guest_kernel": "b"}, lambda: booted)
    (tmp_path / "broken.json").write_text("[]")
    (tmp_path / "old.json").write_text('{"accelerator": "kvm", "reason": "", "disabled_features": [], "boot_ns": 1}')
    assert accelerator.recalled(tmp_path, host) == booted
    assert accelerator.recalled(tmp_path, host | {"boot_id": "2"}) is None
