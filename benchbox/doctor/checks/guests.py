"""KVM, QEMU, libvirt and what a guest boots."""

from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Seen, info, ok, warning
from benchbox.model import Availability
from benchbox.units import format_duration
from benchbox.virt.accelerator import API_VERSION, Proof

TRY_IT = "benchbox doctor --boot"


def kvm_device(facts: Facts) -> Seen:
    """The device is there and opens."""
    kvm = facts.host.get("kvm", {})
    return _availability(facts.guests.device, f"/dev/kvm opens (mode {kvm.get('mode') or 'unknown'})")


def kvm_api(facts: Facts) -> Seen | None:
    """The device answers as QEMU expects."""
    if not facts.guests.device.available:
        return None
    version = facts.guests.api_version
    if version == API_VERSION:
        return ok(f"version {version}")
    found = "no answer" if version is None else f"version {version}, expected {API_VERSION}"
    return warning(found, "use another host: this device is not KVM as QEMU knows it")


def kvm_boot_sector(facts: Facts) -> Seen | None:
    """KVM ran 512 bytes of real-mode code."""
    trial = facts.guests.trial
    if trial is None or trial.boot_sector is None or not facts.guests.device.available:
        return None
    if trial.boot_sector:
        return ok("512 bytes of it run and write to the serial port")
    return warning("not even 512 bytes of it run", "use a host whose hypervisor offers nested virtualisation")


def kvm_guest(facts: Facts) -> Seen | None:
    """A Linux guest booted with KVM."""
    if not facts.guests.device.available:
        return None
    trial = facts.guests.trial
    if trial is None:
        return _remembered(facts.guests.proof)
    if trial.accelerator == "kvm":
        return ok(f"boots: {trial.reason}{_ready(trial.ready_s)}")
    if trial.state == "measured":
        return warning(f"does not boot: {trial.reason}", "use a host whose KVM boots a Linux guest")
    return warning(f"not known: {trial.reason}", TRY_IT)


def _remembered(proof: Proof | None) -> Seen:
    if proof is None:
        return info("not tried", TRY_IT)
    if proof.accelerator == "kvm":
        return ok(f"has booted: {proof.reason}")
    return warning(f"does not boot: {proof.reason}", "use a host whose KVM boots a Linux guest")


def emulated_guest(facts: Facts) -> Seen | None:
    """What came of a guest that was booted without KVM, or not at all."""
    trial = facts.guests.trial
    if trial is None or trial.accelerator == "kvm":
        return None
    if trial.state == "measured":
        return ok(f"boots under emulation{_ready(trial.ready_s)}")
    return info(trial.reason, TRY_IT) if trial.state == "untried" else warning(trial.reason)


def _ready(ready_s: float | None) -> str:
    return "" if ready_s is None else f", ready {format_duration(ready_s)} after the request"


def nested(facts: Facts) -> Seen:
    """This host is itself a guest."""
    virtual = facts.host.get("virtualisation", {})
    if not virtual.get("virtual"):
        return ok("no: this host runs on the hardware itself")
    return info(f"yes: this host is itself a guest ({virtual.get('hypervisor')})")


def qemu(facts: Facts) -> Seen:
    """The emulator of this architecture is there."""
    return _availability(facts.guests.emulator, facts.tools.get("qemu", "there, of unknown version"))


def libvirt_package(facts: Facts) -> Seen:
    """libvirt's Python package is there."""
    return _availability(facts.guests.package, facts.tools.get("libvirt-python", "there, of unknown version"))


def libvirt_driver(facts: Facts) -> Seen:
    """libvirt's QEMU driver is there."""
    return _availability(facts.guests.driver, facts.tools.get("libvirt", "there, of unknown version"))


def guest_kernel(facts: Facts) -> Seen:
    """A guest has a kernel to boot."""
    guests = facts.guests
    if not guests.kernel.available:
        return warning(guests.kernel.reason or "none", guests.kernel.fix)
    if guests.kernel_source == "host":
        return ok(f"the host's own, {guests.kernel_path}")
    if guests.kernel_source is None:
        return info("none yet: the first guest downloads the distribution's")
    return info(f"the distribution's, {guests.kernel_path}")


def _availability(offer: Availability, found: str) -> Seen:
    return ok(found) if offer.available else warning(offer.reason or "not available", offer.fix)
