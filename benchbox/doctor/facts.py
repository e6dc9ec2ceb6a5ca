"""What the doctor knows of a host, as plain data: read by ``look``, judged by the checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchbox.images.kernels import KernelSource
from benchbox.model import Availability
from benchbox.virt.accelerator import Proof


@dataclass(frozen=True)
class Settings:
    """What the kernel is set to, beside the fingerprint; None for what this kernel does not have.

    ``core_mates`` are the CPUs that share a core with one that environments use and are not among those themselves.
    """

    userns_max: int | None = None
    userns_clone: int | None = None
    userns_apparmor: int | None = None
    aslr: int | None = None
    entropy_bits: int | None = None
    clocks: tuple[str, ...] = ()
    boot_options: tuple[str, ...] = ()
    core_mates: tuple[int, ...] = ()
    memory_available_bytes: int | None = None
    swap_used_bytes: int | None = None


@dataclass(frozen=True)
class GuestTrial:
    """What came of booting a guest for real.

    ``state`` is that of the environment in a run's record, or ``untried``. ``accelerator`` and ``ready_s`` (request to
    ready, with that accelerator) are None unless it booted; ``boot_sector`` says whether KVM ran as much as that, None
    where it was not tried.
    """

    state: str
    reason: str
    accelerator: str | None = None
    ready_s: float | None = None
    boot_sector: bool | None = None


@dataclass(frozen=True)
class Guests:
    """What guests need.

    ``kernel_source`` and ``kernel_path`` are None where their kernel would have to be downloaded. ``proof`` is what an
    earlier guest in this boot of the host has proven of KVM, ``trial`` is None unless one was booted just now.
    """

    device: Availability
    api_version: int | None = None
    package: Availability = field(default_factory=Availability.yes)
    emulator: Availability = field(default_factory=Availability.yes)
    driver: Availability = field(default_factory=Availability.yes)
    kernel: Availability = field(default_factory=Availability.yes)
    kernel_source: KernelSource | None = None
    kernel_path: Path | None = None
    proof: Proof | None = None
    trial: GuestTrial | None = None


@dataclass(frozen=True)
class Busy:
    """A process that took CPU time on CPUs that environments may use; ``share`` is of one CPU."""

    pid: int
    name: str
    share: float


@dataclass(frozen=True)
class Activity:
    """What the host did while the doctor held still for ``interval_s``; ``noise`` as ``noise.between`` names it.

    ``steal_share_since_boot`` is the share of all CPU time since boot that a hypervisor took.
    """

    interval_s: float
    noise: Mapping[str, float] = field(default_factory=dict)
    steal_share_since_boot: float | None = None
    busy: tuple[Busy, ...] = ()


@dataclass(frozen=True)
class Place:
    """A folder that runs write to; what does not exist yet is judged by its nearest parent.

    ``problem`` says why nothing is known of it.
    """

    path: Path
    fs_type: str | None = None
    device: str | None = None
    free_bytes: int | None = None
    writable: bool = True
    problem: str | None = None


@dataclass(frozen=True)
class Runs:
    """Other runs: who holds the host's lock, what dead ones left (resources by run), and scratch that nobody names.

    ``others`` are measuring processes of other users, which no lock keeps away. ``untrusted`` says what may be another
    user's work (so nothing is known of dead runs), and what to do.
    """

    holder: str | None = None
    dead: Mapping[str, int] = field(default_factory=dict)
    lost_folders: tuple[str, ...] = ()
    others: tuple[int, ...] = ()
    untrusted: tuple[str, str] | None = None


@dataclass(frozen=True)
class Facts:
    """Everything. ``host`` is ``host.fingerprint``, ``tools`` is ``host.tools``.

    ``offers`` says of each kind of environment whether it would open; ``overlay`` is the same of a container with an
    overlay root, ``bind`` of one without. ``cpus`` are those that an environment of ``resources`` would get,
    ``harness_cpus`` those for benchbox itself.
    """

    host: Mapping[str, Any]
    tools: Mapping[str, str]
    settings: Settings
    guests: Guests
    offers: Mapping[str, Availability]
    overlay: Availability
    bind: Availability
    cgroups: Availability
    programs: Availability
    activity: Activity
    places: Mapping[str, Place]
    cpus: tuple[int, ...]
    harness_cpus: tuple[int, ...]
    as_root: bool = True
    runs: Runs = field(default_factory=Runs)
