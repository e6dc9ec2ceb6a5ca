"""One guest, booted for real in a run of its own, to see what this host can do: the supervised part of the doctor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchbox import record
from benchbox.doctor.facts import GuestTrial
from benchbox.environments.vm import qemu_name
from benchbox.errors import BenchboxError
from benchbox.record import EnvironmentRecord, Sample
from benchbox.supervisor.lock import host_lock
from benchbox.supervisor.supervise import supervise
from benchbox.virt import boot_sector
from benchbox.virt.accelerator import device_availability

#: The run: one guest to prime, one that counts, with KVM where it boots one.
SCENARIO: Final = """
name: doctor
rounds: 1
environments: [vm]
workloads: [startup]
"""


def boot_guest(job: Mapping[str, Any]) -> GuestTrial:
    """Run ``job``, which is of ``SCENARIO``, and say what came of its guest. Nothing of it is left but its record.

    ``state`` is ``untried`` where the run came to nothing (another one holds the host), ``interrupted`` where the user
    ended it. Where KVM is there and boots no guest, a boot sector is tried.
    """
    try:
        ending = supervise(str(job["run_id"]), job, lambda event: None)
        if ending.state == "interrupted":
            return GuestTrial("interrupted", str(ending.reason))
        found = _judged(Path(job["results"], str(job["run_id"])))
        return replace(found, boot_sector=None if found.accelerator == "kvm" else _boot_sector())
    except BenchboxError as error:
        return GuestTrial("untried", error.message)
    except OSError as error:
        return GuestTrial("untried", str(error))


def _judged(folder: Path) -> GuestTrial:
    """Return what the record in ``folder`` says. Raises RecordError where there is none."""
    manifest = record.read_manifest(folder)
    if not manifest.environments:
        return GuestTrial("untried", manifest.exit_reason or manifest.exit_state)
    return judged(manifest.environments[0], record.read_samples(folder)[0])


def judged(environment: EnvironmentRecord, samples: Sequence[Sample]) -> GuestTrial:
    """Return what became of the guest of a run with one environment. Pure."""
    if environment.state != "measured":
        return GuestTrial(environment.state, environment.reason or environment.state)
    last = max(samples, key=lambda sample: sample.round, default=None)
    if last is None or last.status != "ok":
        return GuestTrial("failed", (last and last.reason) or "the guest did not start")
    ready = last.metrics.get("startup.ready")
    return GuestTrial(
        "measured",
        str(environment.applied.get("accelerator_proof", {}).get("reason", "")),
        environment.applied.get("accelerator"),
        ready.value if ready else None,
    )


def _boot_sector() -> bool | None:
    """Say how much of KVM is there, where any is."""
    if not device_availability().available:
        return None
    with host_lock():
        return boot_sector.runs(qemu_name())
