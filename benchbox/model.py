"""The words that all layers share, as frozen dataclasses.

Environments and workloads never import each other: they meet in ``Command`` (what to run) and ``Outcome``
(what came of it). Standard library only: this module is imported by every process benchbox starts.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

Status = Literal["ok", "failed", "invalid", "skipped"]
Direction = Literal["lower", "higher"]
AcceleratorChoice = Literal["auto", "kvm", "tcg"]

#: Every stage in the order in which it ends. An environment has those that apply to it:
#: ``isolated`` is a container's, ``agent`` a guest's; ``ready`` or ``served`` is a workload's that writes to
#: BENCHBOX_READY, whichever its ``Command.signals`` says.
STAGES: Final = ("cgroups", "started", "isolated", "agent", "exec", "ready", "served", "exited", "cleaned")

#: What the byte of a workload may mean: its first own instruction, or a server's first answered request.
Signal = Literal["ready", "served"]

#: What a sample is about: the first of these metrics that it has. A server has no ``startup.ready``, and several that
#: were started at once have one number for all.
HEADLINE_METRICS: Final = (
    "startup.ready", "startup.served", "density.cgroup", "density.available", "size.allocated",
    "parallel.all_ready",
)  # fmt: skip

#: How the names of metrics begin that any workload may have.
_OF_EVERY_WORKLOAD: Final = ("startup.", "parallel.")

#: Metrics that are counted, not sampled: they have neither interval nor verdict.
EXACT: Final = "size."

#: The environment variable through which a workload learns where to write its ready byte:
#: a path, or the number of an open descriptor.
READY_VARIABLE: Final = "BENCHBOX_READY"

#: The key of ``Outcome.applied`` under which an environment hands on what the device below /data had transferred when
#: the command ended, where that is not the end of all. It is no part of a record.
DEVICE_STAT: Final = "device_stat"

#: The counter of what the processes of a sample had read from block devices themselves, whoever else read the same.
PROCESS_READ: Final = "process.read"

#: The counter of an environment's account that says what the image takes on the disk as it runs it.
IMAGE_STORED: Final = "image.stored"

#: How much of a workload's output and of a guest's console is kept, from the end.
OUTPUT_TAIL_BYTES: Final = 64 * 1024


def headline_metric(names: Sequence[str]) -> str | None:
    """Return which of the metrics ``names`` a sample is about: the first of HEADLINE_METRICS, else the first that is
    the workload's own; None where there is neither."""
    own = (name for name in names if not name.startswith(_OF_EVERY_WORKLOAD))
    return next((name for name in (*HEADLINE_METRICS, *own) if name in names), None)


@dataclass(frozen=True)
class Resources:
    """What one environment may use; the same meaning everywhere.

    ``cpus`` is a number of named CPUs that confine the whole environment. ``memory_bytes`` is the cgroup limit of
    native and container and the RAM of a guest. ``cpu_quota`` is a share of CPU time in CPUs (0.5 is half of one).
    ``disk_bytes`` is how much an instance may write into /data and its writable layer together; a guest's disks have
    the size that they are made with.
    """

    cpus: int = 1
    memory_bytes: int = 256 << 20
    pids: int = 512
    cpu_quota: float | None = None
    disk_bytes: int = 10 << 30


@dataclass(frozen=True)
class Metric:
    """A named number: value in the base unit (s, B, B/s, 1/s, 1) and which way is better.

    ``iterations`` are what it was made of, all of them, in the same unit, where the workload repeats itself; the first
    ``warm_up`` of them are not in it, None where no steady state was reached. Raises ValueError for a value that is not
    finite: whoever printed it, nothing can be compared with it.
    """

    name: str
    value: float
    unit: str
    direction: Direction = "lower"
    iterations: tuple[float, ...] = ()
    warm_up: int | None = None

    def __post_init__(self) -> None:
        if not -math.inf < self.value < math.inf:
            raise ValueError(f"{self.name} is {self.value}, which is no number that can be compared")


@dataclass(frozen=True)
class Counter:
    """One number of a sample's account, with the interface it was read from.

    ``value`` is None where this host cannot attribute it; ``source`` then says why, and it is never compared.
    """

    name: str
    value: float | None
    unit: str
    source: str


@dataclass(frozen=True)
class DataSpec:
    """The folder ``/data`` that a command may write to: fresh for each sample, gone after it, on the file system of
    ``Workspace.scratch`` in every environment; in a guest a disk whose file lies there.

    It is made for ``size_bytes``: a guest's disk has room for that, elsewhere the host's file system is the limit.
    ``place`` ``layer`` leaves it to the writable layer of environments that have one (``/data`` is then that of the
    image, in the layer); others have it as with ``data``. ``copies`` are files of the image's ``/data`` that are in a
    fresh one as well.
    """

    size_bytes: int
    place: Literal["data", "layer"] = "data"
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """What to run inside an environment; paths are inside its root.

    ``signals`` is the stage that its byte ends. Environments know one byte and call it ``ready``; the engine gives it
    its name. ``stays`` says that it goes on after it is ready (a server): ``Running.ready`` then returns while it runs,
    and its end by ``Running.kill`` is a good one, without exit code or signal. ``hold_s`` is how long the host is left
    alone with it, once all that were started are ready, before it is looked at and ended.
    ``gate`` is a descriptor at whose end the start is to begin, so that several begin at one moment; an environment
    that cannot wait for that starts at once. ``data`` asks for a writable ``/data``; without it there is none.
    ``serves`` says that a client outside will ask it: it alone gets the environment's link, so that what else is
    measured beside it starts as it does without one.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    timeout_s: float = 60.0
    signals_ready: bool = True
    stays: bool = False
    hold_s: float = 0.0
    signals: Signal = "ready"
    gate: int | None = None
    data: DataSpec | None = None
    serves: bool = False


class NotDone(ValueError):
    """A workload ended well and did not do its work, or did it elsewhere: the sample is invalid for that reason."""


@dataclass(frozen=True)
class Outcome:
    """What came of one command.

    ``stages`` maps a stage to the host's CLOCK_MONOTONIC in ns at which it was over, ``requested_ns`` is on the same
    clock. ``guest`` holds durations in ns that a guest's own clock measured. ``spawn_ns`` is the time from asking for
    the launcher to its first instruction (None where no launcher is started per sample).
    ``reason`` is None exactly when ``status`` is ``ok``.
    """

    status: Status
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    requested_ns: int = 0
    stages: Mapping[str, int] = field(default_factory=dict)
    spawn_ns: int | None = None
    guest: Mapping[str, int] = field(default_factory=dict)
    counters: tuple[Counter, ...] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    output_tail: bytes = b""
    console_tail: str = ""


@dataclass(frozen=True)
class SystemPackage:
    """What a package is called by Debian and Ubuntu, and by Fedora; None where that has none."""

    debian: str
    fedora: str | None = None


@dataclass(frozen=True)
class Availability:
    """Whether this host offers an environment; if not, why, and what the user can do about it.

    ``packages`` are what may be installed to have it.
    """

    available: bool
    reason: str | None = None
    fix: str | None = None
    packages: tuple[SystemPackage, ...] = ()

    @classmethod
    def yes(cls) -> "Availability":
        return cls(True)

    @classmethod
    def no(cls, reason: str, fix: str) -> "Availability":
        return cls(False, reason, fix)


@dataclass(frozen=True)
class EnvironmentSpec:
    """One entry of a scenario's ``environments``: kind, label and its validated options (JSON types)."""

    kind: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """A root file system in the store and what is derived from it. Nothing ever writes into it.

    ``digest`` is that of the tree (sha256 hex); ``executables`` maps a path inside the root to its sha256.
    """

    name: str
    digest: str
    root: Path
    executables: Mapping[str, str] = field(default_factory=dict)


class LedgerWriter(Protocol):
    """Where a resource is written down *before* it is made, so that whoever cleans up knows of it.

    Kinds: ``cgroup`` (a directory), ``folder`` (removed with its contents), ``process`` (pid and start time),
    ``libvirt`` (a private libvirt root: QEMU processes that name it are ended, then it is removed), ``oci`` (a runtime
    and its state: its containers are deleted), ``docker`` (a daemon and a run: its containers are removed).
    """

    def record(self, kind: str, ident: str) -> None: ...

    def release(self, kind: str, ident: str) -> None: ...


@dataclass(frozen=True)
class Link:
    """The way from a load client to what an environment serves at ``address``.

    ``path`` is ``bridge`` (a bridge of benchbox's own, in network namespaces of its own) or ``host`` (the host's own
    network, by loopback), ``end`` what the environment has of it: ``veth``, ``tap`` or ``loopback``. ``namespace`` is a
    descriptor of the network namespace that the environment's process joins (for a guest: QEMU), ``client`` of the
    client's; None is the host's. ``device`` and ``mac`` are a guest's network card.
    """

    path: Literal["bridge", "host"]
    end: Literal["veth", "tap", "loopback"]
    address: str
    namespace: int | None = None
    client: int | None = None
    device: str | None = None
    mac: str | None = None

    def applied(self) -> dict[str, str]:
        """Return what of it goes into a record."""
        return {"path": self.path, "end": self.end, "address": self.address}


class LinkMaker(Protocol):
    """Makes links to the bridge of a run; each raises BenchboxError where this host cannot."""

    def veth(self, namespace: int | None = None) -> Link:
        """Link a network namespace to the bridge: a new one, or ``namespace``, whose descriptor stays the caller's."""

    def tap(self) -> Link: ...


@dataclass(frozen=True)
class Workspace:
    """What one run owns on this host.

    ``scratch`` holds per-sample folders, on the file system of the image store; ``runtime`` is a short path for
    sockets; ``cgroup_name`` is the folder of this run below each cgroup hierarchy's base; ``cpus`` are the CPUs that
    environments may use, ``harness_cpus`` those for benchbox itself (never empty, disjoint where the host has enough).
    ``links`` makes the links of environments that serve a load client.
    """

    run_id: str
    scratch: Path
    runtime: Path
    cgroup_name: str
    cpus: tuple[int, ...]
    harness_cpus: tuple[int, ...]
    ledger: LedgerWriter
    links: LinkMaker | None = None


class Running(Protocol):
    """One command on its way."""

    def ready(self) -> bool:
        """Block until the workload is ready, has ended or its deadline has passed; say whether it became ready."""

    def wait(self) -> Outcome:
        """Block until the command has ended and everything that belonged to it is gone, at most until its deadline
        (then end it). Never raises for what the workload did: that is in the outcome."""

    def kill(self) -> None:
        """End it now; ``wait`` still returns the outcome."""


class Session(Protocol):
    """An environment made ready for many samples; ``start`` may be called repeatedly and concurrently."""

    def start(self, command: Command) -> Running: ...

    def applied(self) -> Mapping[str, Any]:
        """What holds for all samples of this session, read back from the host (JSON types)."""

    def account(self) -> tuple[Counter, ...]:
        """What preparing the session cost, apart from its samples."""

    def reads(self) -> tuple[Path, ...]:
        """The files, and the folders with all below them, that a start reads on this host.

        They can then be made cold or warm. Empty where that is not known: it cannot be measured cold then."""


@runtime_checkable
class LinkedSession(Session, Protocol):
    """A session whose commands a load client can reach; ``link`` is None where it has no link."""

    @property
    def link(self) -> Link | None: ...


class Environment(Protocol):
    """A kind of place where a workload runs; one module and one row in ``environments.TABLE``."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        """Say quickly, changing nothing, whether this host offers it."""

    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> AbstractContextManager[Session]: ...


class ConfiguredWorkload(Protocol):
    """A command and how to read metrics out of what came of it, which depends on its parameters."""

    def command(self, params: Mapping[str, Any]) -> Command: ...

    def parse(self, outcome: Outcome, params: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Read the metrics. Raises ValueError that says what of the output is wrong."""


class Workload(Protocol):
    """A command and how to read metrics out of what came of it."""

    def command(self, params: Mapping[str, Any]) -> Command: ...

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read the metrics. Raises ValueError that says what of the output is wrong."""


class ServingWorkload(Workload, Protocol):
    """A server, and a client outside of the environment that puts load on it.

    ``command`` stays and says when it can be asked; ``parse`` reads the client's output.
    """

    def client(self, params: Mapping[str, Any], address: str) -> Command:
        """Return the client's command, from the same image, for a server at ``address``."""
