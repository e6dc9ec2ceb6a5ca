"""Emulation is not a virtual machine: what ran a guest is said in the same breath as its numbers.

What counts is what each sample says it ran with (flag ``accelerator``), then what was read back for the environment;
never what was asked for.
"""

import textwrap
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

#: How much of a reason is repeated in a note, by whole words; the record has all of it.
_REASON_LENGTH: Final = 240


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
        reason = _proof_reason(environment) or environment.reason or failure
    text = reason or "no guest has booted with KVM on this host"
    return f"VM with KVM: not measured here: {textwrap.shorten(text, _REASON_LENGTH, placeholder=' …')}"


def kvm_attempts(environments: Iterable[EnvironmentRecord]) -> tuple[str, ...]:
    """Return all that is known of guests that were tried with KVM in vain, each attempt once."""
    proofs = (environment.applied.get("accelerator_proof") for environment in environments)
    attempts = (proof.get("attempts") for proof in proofs if isinstance(proof, Mapping))
    found = (str(text) for each in attempts if isinstance(each, list | tuple) for text in each)
    return tuple(dict.fromkeys(found))


def _proof_reason(environment: EnvironmentRecord) -> str | None:
    """Return what the attempt to boot a guest with KVM said."""
    proof = environment.applied.get("accelerator_proof")
    reason = proof.get("reason") if isinstance(proof, Mapping) else None
    return reason if isinstance(reason, str) else None


def _flagged(samples: Iterable[Sample]) -> set[str]:
    return {sample.flags["accelerator"] for sample in samples if "accelerator" in sample.flags}
