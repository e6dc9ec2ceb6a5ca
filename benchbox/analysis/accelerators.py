"""Emulation is not a virtual machine: what ran a guest is said in the same breath as its numbers.

What counts is what each sample says it ran with (flag ``accelerator``), then what was read back for the environment;
never what was asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchbox.record import EnvironmentRecord, Sample

#: What is put behind the label of an environment.
_SUFFIX: Final = {
    "kvm": "KVM",
    "tcg": "emulated, TCG",
    "mixed": "KVM and emulation mixed",
    "unknown": "accelerator not proven",
}

#: Keys of ``applied`` under which the reason for emulation may stand, the first found is taken.
_REASON_KEYS: Final = ("accelerator_reason", "kvm_reason", "accelerator.reason")


def accelerator_of(environment: EnvironmentRecord | None, samples: Iterable[Sample]) -> str | None:
    """Return ``kvm``, ``tcg``, ``mixed`` or ``unknown`` for a guest, None for what needs no accelerator."""
    seen = {sample.flags["accelerator"] for sample in samples if "accelerator" in sample.flags}
    if len(seen) > 1:
        return "mixed"
    if seen:
        return seen.pop()
    applied = environment.applied.get("accelerator") if environment else None
    if isinstance(applied, str):
        return applied
    return "unknown" if environment is not None and environment.kind == "vm" else None


def display_label(label: str, accelerator: str | None) -> str:
    """Return the label with what ran it: ``vm (emulated, TCG)``, ``vm (KVM)``; other environments keep theirs."""
    if accelerator is None:
        return label
    return f"{label} ({_SUFFIX.get(accelerator, accelerator)})"


def missing_kvm_notes(
    environments: Sequence[EnvironmentRecord], accelerators: Mapping[str, set[str | None]]
) -> tuple[str, ...]:
    """Return why there is no number of a VM with KVM, where guests were measured and none of them ran with KVM.

    ``accelerators`` maps the label of each environment to those of its cells. An environment that was skipped or failed
    as a whole says its own reason elsewhere.
    """
    if any("kvm" in found for found in accelerators.values()):
        return ()
    guests = [e for e in environments if e.state == "measured" and accelerators.get(e.label, set()) - {None}]
    return tuple(dict.fromkeys(f"VM with KVM: not measured here: {_reason(guest)}" for guest in guests))


def _reason(environment: EnvironmentRecord) -> str:
    if environment.options.get("accelerator") == "tcg":
        return "the scenario asks for emulation (accelerator: tcg)"
    reasons = [text for text in map(environment.applied.get, _REASON_KEYS) if isinstance(text, str) and text]
    return reasons[0] if reasons else environment.reason or "no guest has booted with KVM on this host"
