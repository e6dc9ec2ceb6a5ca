"""Emulation is not a virtual machine: what ran a guest is said in the same breath as its numbers.

What counts is what each sample says it ran with (flag ``accelerator``), then what was read back for the environment;
never what was asked for.
"""

from collections.abc import Iterable, Sequence
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


def accelerator_of(environment: EnvironmentRecord | None, samples: Sequence[Sample]) -> str | None:
    """Return ``kvm``, ``tcg``, ``mixed`` or ``unknown`` for a guest, None for what needs no accelerator.

    Valid samples decide; a guest that never ran may only say what it was meant to run with.
    """
    seen = _flagged(sample for sample in samples if sample.status == "ok") or _flagged(samples)
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


def missing_kvm_note(environment: EnvironmentRecord, failure: str | None = None) -> str:
    """Return why there is no number of a VM with KVM; ``failure`` is the commonest one of its samples."""
    if environment.options.get("accelerator") == "tcg":
        reason: str | None = "the scenario asks for emulation (accelerator: tcg)"
    else:
        applied = [text for text in map(environment.applied.get, _REASON_KEYS) if isinstance(text, str) and text]
        reason = applied[0] if applied else environment.reason or failure
    return f"VM with KVM: not measured here: {reason or 'no guest has booted with KVM on this host'}"


def _flagged(samples: Iterable[Sample]) -> set[str]:
    return {sample.flags["accelerator"] for sample in samples if "accelerator" in sample.flags}
