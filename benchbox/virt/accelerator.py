"""The proof of an accelerator: KVM counts as there when a real guest has booted with it, to its first process.

That ``/dev/kvm`` exists and opens proves nothing: under some hypervisors it does and no kernel boots behind it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchbox.model import Availability, Outcome

Accelerator = Literal["kvm", "tcg"]

DEVICE: Final = Path("/dev/kvm")

#: The one version of the interface that there has ever been since it became stable, Documentation/virt/kvm/api.rst.
API_VERSION: Final = 12
_KVM_GET_API_VERSION: Final = 0xAE00

#: How long a guest may take to its first process under KVM by default (a real one needs less than a second).
PROOF_TIMEOUT_S: Final = 20.0

#: What a guest's CPU is tried with, in this order, the next where QEMU could not set a register of the last: some
#: hypervisors announce IA32_ARCH_CAPABILITIES (MSR 0x10a) and then refuse it, at which QEMU aborts.
ATTEMPTS: Final[tuple[tuple[str, ...], ...]] = ((), ("arch-capabilities",))
_REGISTER_REFUSED: Final = "failed to set MSR"

_CONSOLE_TAIL_CHARACTERS: Final = 400
_CAUSE_CHARACTERS: Final = 100
#: What follows the cause in the reason of a guest that failed.
_AFTERMATH: Final = re.compile(r", killed after |; QEMU says: ")


@dataclass(frozen=True)
class Proof:
    """What a host offers: ``kvm``, with the CPU features that a guest must not see, or ``tcg``, and why in a line.

    ``attempts`` say all of what was tried in vain, each with the end of its console. ``boot_ns`` is what the proving
    guest took from its request to its first process, ``evidence`` what was read back from it: libvirt's live domain,
    and what QEMU says of KVM.
    """

    accelerator: Accelerator
    reason: str
    disabled_features: tuple[str, ...] = ()
    boot_ns: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[str, ...] = ()


def device_availability(device: Path = DEVICE) -> Availability:
    """Say whether this process can open the KVM device; quick, changes nothing, proves nothing more."""
    try:
        if not stat.S_ISCHR(device.stat().st_mode):
            return Availability.no(f"{device} is not a device", "remove it and load the kernel module kvm")
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Availability.no(
            f"{device} does not exist: this host's kernel offers no KVM",
            "enable virtualisation in the firmware (or nested virtualisation in the hypervisor) and load kvm_intel or "
            "kvm_amd",
        )
    except PermissionError:
        return Availability.no(f"{device}: permission denied", "run as root or join the group kvm")
    except OSError as error:
        return Availability.no(f"{device}: {error.strerror}", "load the kernel module kvm_intel or kvm_amd")
    return Availability.yes()


def api_version(device: Path = DEVICE) -> int | None:
    """Return what the KVM device says its interface is (KVM_GET_API_VERSION); None where it does not answer."""
    with contextlib.suppress(OSError):
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            return fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
        finally:
            os.close(descriptor)
    return None


def prove(boot: Callable[[tuple[str, ...]], Outcome]) -> Proof:
    """Return what booting proves; ``boot`` boots a KVM guest without the given CPU features to its first process."""
    attempts: list[str] = []
    causes: list[str] = []
    for features in ATTEMPTS:
        outcome = boot(features)
        if outcome.status == "ok":
            boot_ns = outcome.stages["agent"] - outcome.requested_ns
            reason = f"a guest booted with KVM in {boot_ns / 1e9:.2f} s"
            evidence = dict(outcome.applied.get("domain", {}))
            return Proof("kvm", reason, features, boot_ns, evidence, tuple(attempts))
        attempts.append(f"{_cpu(features)}: {_failure(outcome)}")
        causes.append(_cause(outcome.reason or outcome.status))
        if _REGISTER_REFUSED not in (outcome.reason or ""):
            break
    reason = f"no guest boots with KVM on this host: {', '.join(dict.fromkeys(causes))}"
    return Proof("tcg", reason, attempts=tuple(attempts))


def _cause(reason: str) -> str:
    """Return the gist of ``reason``, by whole words: ``QEMU gave up (failed to set MSR 0x10a to 0x69)``."""
    gist = _AFTERMATH.split(" ".join(reason.split()), maxsplit=1)[0]
    gave_up, said, what = gist.partition("QEMU gave up: ")
    gist = f"{gave_up}QEMU gave up ({what.removeprefix('error: ')})" if said else gist
    return textwrap.shorten(gist, _CAUSE_CHARACTERS, placeholder=" …")


def _cpu(features: tuple[str, ...]) -> str:
    return f"the host's CPU without {', '.join(features)}" if features else "the host's CPU"


def _failure(outcome: Outcome) -> str:
    console = outcome.console_tail.strip()[-_CONSOLE_TAIL_CHARACTERS:]
    return (
        f"{outcome.reason}, its console ends with {console!r}"
        if console
        else f"{outcome.reason}, nothing on its console"
    )


def remembered(folder: Path, facts: Mapping[str, Any], make: Callable[[], Proof]) -> Proof:
    """Return the proof of ``facts`` from ``folder``, made and kept there if there is none.

    The same facts in the same boot give the same answer, a failure takes its whole deadline: both are worth keeping.
    """
    path = folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.json"
    found = _read(path, {})
    if found is None:
        found = make()
        _write(path, found, facts)
    return found


def recalled(folder: Path, facts: Mapping[str, Any]) -> Proof | None:
    """Return what ``folder`` remembers of a host with ``facts``, whatever guest it was proven with; makes nothing.

    A guest that booted says more than one that did not: it may have had another kernel or QEMU.
    """
    proofs = [found for path in sorted(folder.glob("*.json")) if (found := _read(path, facts))]
    return next((found for found in proofs if found.accelerator == "kvm"), proofs[0] if proofs else None)


def _read(path: Path, facts: Mapping[str, Any]) -> Proof | None:
    """Return the proof in ``path``, unless it is of a host without ``facts``."""
    try:
        data = json.loads(path.read_text())
        of_host = data.pop("facts", {})
        if any(of_host.get(name) != value for name, value in facts.items()):
            return None
        return Proof(**{**data, **{name: tuple(data[name]) for name in ("disabled_features", "attempts")}})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, proof: Proof, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({**asdict(proof), "facts": facts}, file)
    Path(file.name).rename(path)


def host_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return what of this host decides whether KVM works: kernel, boot, CPU, KVM's parameters, its device."""
    parameters = sorted(root.glob("sys/module/kvm*/parameters/*"))
    device = root / DEVICE.relative_to("/")
    return {
        "kernel": _text(root / "proc/version"),
        "boot_id": _text(root / "proc/sys/kernel/random/boot_id"),
        "boot_options": _text(root / "proc/cmdline"),
        "cpu": _first_cpu(_text(root / "proc/cpuinfo")),
        "kvm_parameters": {str(path.relative_to(root)): _text(path) for path in parameters},
        "device": f"{device.stat().st_mode:o} {device.stat().st_uid}" if device.exists() else None,
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _first_cpu(cpuinfo: str) -> list[str]:
    lines = cpuinfo.split("\n\n")[0].splitlines()
    return [line for line in lines if not line.startswith(("cpu MHz", "bogomips", "BogoMIPS"))]
