"""What an ordinary host of today has and an emulated-only machine lacks: real KVM, and cgroup v2 alone."""

import json
from pathlib import Path

import pytest

from benchbox import record
from tests.conftest import skip_unless_available
from tests.lab import disks, machine

pytestmark = pytest.mark.lab

ROUNDS = 2
_TIMEOUT_S = 1500.0
SCENARIO = {
    "name": "lab",
    "rounds": ROUNDS,
    "environments": [
        "native",
        "container",
        # Everything here is emulated: a guest takes half a minute, not half a second.
        {"kind": "vm", "label": "vm-kvm", "accelerator": "kvm", "boot_timeout_s": 120, "proof_timeout_s": 120},
        {"kind": "vm", "label": "vm-auto", "accelerator": "auto", "boot_timeout_s": 120, "proof_timeout_s": 120},
    ],
    "workloads": ["startup"],
}
LOOK_FOR_LEFTOVERS = "find /sys/fs/cgroup -type d -name 'benchbox-*'; ls /run/benchbox /root/cache/scratch"


@pytest.mark.parametrize("init", ["bare", "systemd"])
def test_kvm_is_taken_where_it_is_real(init: machine.Init, tmp_path: Path) -> None:
    """Under a bare init and under systemd with delegation: `kvm` and `auto` both boot a stock Linux by KVM.

    The record proves it three times: the live domain's type, QEMU's own `query-kvm`, and what the guest itself sees.
    Native and container run on pure cgroup v2, with their limits in force; nothing is left.
    """
    skip_unless_available("lab", disks.availability())
    files = {"lab.yaml": json.dumps(SCENARIO)}
    steps = ["python3 -m benchbox.cli run /lab/lab.yaml", LOOK_FOR_LEFTOVERS]
    job = machine.boot(disks.kept(), init, steps, files, tmp_path, disks.wheel(tmp_path), _TIMEOUT_S)
    run, leftovers = job.steps
    assert run.status == 0, run.err
    assert "(KVM)" in run.out
    assert "benchbox-" not in leftovers.out and len(leftovers.out.split()) == 2, leftovers.out
    (folder,) = record.list_runs(job.folder / "results")
    manifest, (samples, notes) = record.read_manifest(folder), record.read_samples(folder)
    assert notes == []
    assert {item.state for item in manifest.environments} == {"measured"}
    assert manifest.host["cgroups"]["mode"] == "v2"
    assert {sample.status for sample in samples} == {"ok"}
    assert len(samples) == (ROUNDS + 1) * 4
    for sample in samples:
        if sample.environment.startswith("vm-"):
            _assert_kvm(sample)
        else:
            assert sample.applied["memory_bytes"] == 256 << 20
            assert sample.counters["memory.peak"].source.startswith("cgroup2")


def _assert_kvm(sample: record.Sample) -> None:
    assert sample.flags["accelerator"] == "kvm"
    assert sample.applied["domain"]["domain_type"] == "kvm"
    assert sample.applied["domain"]["query_kvm_enabled"] is True
    assert sample.applied["guest"]["clocksource"] == "kvm-clock"
    assert sample.applied["guest"]["hypervisor"] == "KVMKVMKVM"
