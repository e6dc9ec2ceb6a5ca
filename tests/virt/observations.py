"""Orders and observations that the tests of guests start from."""

from dataclasses import replace
from typing import Any

from benchbox.model import Command
from benchbox.virt.channels import Control
from benchbox.virt.domain import GuestSpec
from benchbox.virt.messages import GuestOrder
from benchbox.virt.verdict import Observed

SPEC = GuestSpec("bb-1", "qemu", "/emulator", "/kernel", "/initramfs", "/run/s1", 256 << 20, 1, (1,))
ORDER = GuestOrder(SPEC, Command(("/bin/ready",)), boot_timeout_s=60.0, cgroup_base="test", cgroup_leaf="vm-1")
LIVE: dict[str, Any] = {
    "domain_type": "qemu", "memory_bytes": 256 << 20, "vcpus": 1, "machine": "pc-q35-7.2", "kernel": "/kernel",
    "firmware": None, "cpu_model": None, "nics": [], "extra_disks": [], "root_disk": None,
    "root_disk_file": None, "data_disk": None, "balloon": "none",
}  # fmt: skip
FACTS = {"output_bytes": "0", "memory_bytes": "228999168", "cpus_online": "0", "oom_kills": "0", "clocksource": "tsc"}
FACTS["hypervisor"] = "TCGTCGTCGTCG"
STAGES = {"cgroups": 1, "started": 2, "agent": 3, "exec": 4, "ready": 5, "exited": 6, "cleaned": 7}


def observed(**changes: Any) -> Observed:
    """Return a good sample's observations with ``changes``."""
    control = Control(executed=True, ended={"exit_code": 0, "boot_ns": 9, "user_ns": 3}, facts=dict(FACTS))
    good = Observed(stages=dict(STAGES), control=control, live=dict(LIVE), kvm_enabled=False, latencies_ns=[3, 1, 2])
    good.thread_cpus = ("1",)
    return replace(good, **changes)
