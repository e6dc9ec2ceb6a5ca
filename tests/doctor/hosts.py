"""Hosts for the doctor, as facts: one that is perfect, and one on which all is wrong."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchbox.doctor.facts import Activity, Busy, Facts, Guests, GuestTrial, Place, Runs, Settings
from benchbox.model import Availability
from benchbox.virt.accelerator import Proof

YES = Availability.yes()
GIB = 1 << 30

FINGERPRINT: Mapping[str, Any] = {
    "os": "Debian GNU/Linux 12 (bookworm)",
    "kernel": {"clock_source": "tsc"},
    "cpu": {"online": 8, "governor": "performance", "frequency_driver": "intel_pstate", "boost": False},
    "mitigations": {"meltdown": "Not affected", "spectre_v2": "Mitigation: Enhanced IBRS"},
    "memory": {
        "total_bytes": 32 * GIB,
        "swap_bytes": 0,
        "transparent_huge_pages": "madvise",
        "same_page_merging": False,
    },
    "cgroups": {"mode": "v2", "v1": [], "v2": ["cpu", "cpuset", "io", "memory", "pids"]},
    "virtualisation": {"virtual": False, "hypervisor": None, "container": None},
    "kvm": {"exists": True, "mode": "0660", "usable": True},
}
QUIET: Mapping[str, float] = {
    "load1": 0.1,
    "steal_share": 0.0,
    "psi.cpu.some_share": 0.0,
    "psi.io.some_share": 0.0,
    "psi.memory.some_share": 0.0,
    "throttled.thermal": 0,
    "throttled.quota_share": 0.0,
}
PROOF = Proof("kvm", "a guest booted with KVM in 0.31 s")

#: All as it should be.
PERFECT = Facts(
    host=FINGERPRINT,
    tools={"qemu": "7.2.22", "libvirt": "9.0.0", "libvirt-python": "9.0.0"},
    settings=Settings(
        userns_max=100_000,
        aslr=2,
        entropy_bits=256,
        clocks=("tsc", "hpet"),
        memory_available_bytes=30 * GIB,
        swap_used_bytes=0,
    ),
    guests=Guests(YES, 12, kernel_source="host", kernel_path=Path("/boot/vmlinuz"), proof=PROOF),
    offers={"native": YES, "container": YES, "vm": YES},
    overlay=YES,
    bind=YES,
    cgroups=YES,
    programs=YES,
    activity=Activity(0.4, QUIET, 0.0),
    places={
        "cache": Place(Path("/root/.cache/benchbox"), "ext4", "/dev/sda1", 100 * GIB),
        "scratch": Place(Path("/root/.cache/benchbox/scratch"), "ext4", "/dev/sda1", 100 * GIB),
        "results": Place(Path("results"), "ext4", "/dev/sda1", 100 * GIB),
    },
    cpus=(7,),
    harness_cpus=(0, 1, 2, 3, 4, 5, 6),
)

_NO = Availability.no("it is not there", "apt install it")

#: Nothing as it should be: the longest report there is.
BROKEN = Facts(
    host={
        "kernel": {"clock_source": "acpi_pm"},
        "cpu": {"online": 2, "governor": "powersave", "frequency_driver": "acpi-cpufreq", "boost": True},
        "mitigations": {"meltdown": "Vulnerable"},
        "memory": {"swap_bytes": GIB, "transparent_huge_pages": "always", "same_page_merging": True},
        "cgroups": {"mode": "v1", "v1": ["cpu"], "v2": []},
        "virtualisation": {"virtual": True, "hypervisor": "kvm", "container": "docker"},
        "kvm": {"exists": True, "mode": "0600", "usable": True},
    },
    tools={},
    settings=Settings(
        userns_max=0,
        aslr=0,
        entropy_bits=40,
        clocks=("tsc", "acpi_pm"),
        boot_options=("quiet", "mitigations=off"),
        core_mates=(0,),
        memory_available_bytes=100 << 20,
        swap_used_bytes=GIB // 2,
    ),
    guests=Guests(
        YES,
        12,
        package=_NO,
        emulator=_NO,
        driver=_NO,
        kernel=_NO,
        trial=GuestTrial("failed", "QEMU gave up: \x1b[2J" + "words " * 200, boot_sector=False),
    ),
    offers={"native": _NO, "container": _NO, "vm": _NO},
    overlay=_NO,
    bind=YES,
    cgroups=_NO,
    programs=_NO,
    activity=Activity(
        0.4,
        {key: 0.5 for key in QUIET} | {"load1": 9.0},
        0.2,
        (Busy(123, "cc1\x1b]0;title\x07", 1.02), Busy(124, "make", 0.5)),
    ),
    places={
        "cache": Place(Path("/nfs/cache"), "nfs4", "server:/", 100 * GIB),
        "scratch": Place(Path("/cache/scratch"), "ext4", "/dev/sda1", GIB // 100),
        "results": Place(Path("results"), "ext4", "/dev/sda1", 100 * GIB, writable=False),
    },
    cpus=(1,),
    harness_cpus=(1,),
    as_root=False,
    runs=Runs("run startup-x, process 7, since yesterday", {"startup-y": 3}, ("/cache/scratch/abc",)),
)


def host(**changes: Any) -> Facts:
    """Return the perfect host with ``changes`` to parts of its fingerprint, as ``cpu={"boost": True}``."""
    fingerprint = {
        key: {**value, **changes[key]} if key in changes and isinstance(value, dict) else changes.get(key, value)
        for key, value in FINGERPRINT.items()
    }
    return replace(PERFECT, host=fingerprint)


def settings(**changes: Any) -> Facts:
    """Return the perfect host with ``changes`` to the kernel's settings."""
    return replace(PERFECT, settings=replace(PERFECT.settings, **changes))


def guests(**changes: Any) -> Facts:
    """Return the perfect host with ``changes`` to what guests need."""
    return replace(PERFECT, guests=replace(PERFECT.guests, **changes))


def noise(changes: Mapping[str, float | None], **others: Any) -> Facts:
    """Return the perfect host with ``changes`` to its noise (None: not known) and to the rest of its activity."""
    merged = {**QUIET, **changes}
    known = {key: value for key, value in merged.items() if value is not None}
    return replace(PERFECT, activity=replace(PERFECT.activity, noise=known, **others))


def place(name: str, **changes: Any) -> Facts:
    """Return the perfect host with ``changes`` to the folder ``name``."""
    changed = replace(PERFECT.places[name], **changes)
    return replace(PERFECT, places={**PERFECT.places, name: changed})
