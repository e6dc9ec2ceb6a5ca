"""``vm``: a guest under libvirt, booted for each sample.

Once per session: the guest's kernel and initramfs, the emulator's wrapper, libvirt with what it knows of the emulator,
the proof of the accelerator. Per sample: a cgroup, a domain, its boot, the command, its end.
"""

import importlib.util
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox import images, native, remedies
from benchbox.environments.data import DataDisks, with_data
from benchbox.environments.launched import choose_cpus
from benchbox.environments.sizes import Size
from benchbox.environments.stored import KERNEL, stored
from benchbox.errors import EnvironmentFailure, ImageError, UnavailableError
from benchbox.images import GuestKernel
from benchbox.linux import blockdev, cgroups, links, processes, removal
from benchbox.linux.blockdev import Backing
from benchbox.linux.cgroups import Layout
from benchbox.linux.state import make_cache_folder
from benchbox.model import (
    IMAGE_STORED,
    READY_VARIABLE,
    AcceleratorChoice,
    Availability,
    Command,
    Counter,
    EnvironmentSpec,
    Image,
    Link,
    Outcome,
    Resources,
    Running,
    Session,
    Workspace,
)
from benchbox.units import format_cpu_list, format_size
from benchbox.virt import accelerator, domain, firmware, private_root
from benchbox.virt.accelerator import PROOF_TIMEOUT_S, Proof
from benchbox.virt.client import Client, Connection
from benchbox.virt.domain import CacheMode, DomainType, GuestSpec
from benchbox.virt.firmware import Firmware, FirmwareChoice
from benchbox.virt.messages import GuestOrder

KIND: Final = "vm"
EMBEDDED: Final = "qemu:///embed"

#: The path of the ready port inside the guest's root (made by the agent).
_READY_PATH: Final = "/dev/ready"
_DRIVER: Final = "libvirt/connection-driver/libvirt_driver_qemu.so"
_LIBRARY_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")
_QEMU_TIMEOUT_S: Final = 10.0
_T = TypeVar("_T")

RootChoice = Literal["auto", "ram", "disk"]
#: Up to this size of its files ``root: auto`` has an image in the guest's memory.
RAM_ROOT_BYTES_MAX: Final = 64 << 20
#: Where a guest's root is, as records say it.
RAM_ROOT: Final = "initramfs, in the guest's memory"
DISK_ROOT: Final = f"ext4 disk ({domain.ROOT_DISK})"


class Options(BaseModel):
    """The options of a ``vm`` environment.

    ``kernel`` is ``host``, ``distribution`` or a path; ``kernel_modules`` the folder of the modules of a path.
    ``cmdline`` is added to the kernel's options. ``boot_timeout_s`` is the deadline from the request to the command,
    ``proof_timeout_s`` that of the guest which is to prove KVM, to its first process. ``memory`` and ``vcpus`` stand
    for this guest in place of what ``resources`` says; the CPUs of the host that it may use stay the same. ``root`` is
    where the image is: in the guest's memory, or on a disk; ``auto`` takes the disk for what is too large for memory.
    ``disk_cache`` is how QEMU treats the disk of /data: ``none`` leaves out the host's page cache and obeys flushes,
    ``unsafe`` drops them. ``link`` gives it a network card on the bridge of the run, for workloads with a client.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: AcceleratorChoice = "auto"
    uri: str | None = None
    kernel: str | None = None
    kernel_modules: str | None = None
    machine: str = "q35"
    cmdline: str = ""
    kernel_format: Literal["auto", "elf", "bzimage"] = "auto"
    firmware: FirmwareChoice = "default"
    memory: Size | None = None
    vcpus: int | None = Field(default=None, ge=1, le=255)
    cpu_model: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    nic: bool = False
    link: Literal["none", "bridge"] = "none"
    disk: Size | None = None
    root: RootChoice = "auto"
    disk_cache: CacheMode = "none"
    boot_timeout_s: float = Field(default=60.0, gt=0)
    proof_timeout_s: float = Field(default=PROOF_TIMEOUT_S, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.firmware == "uefi" and self.kernel_format == "elf":
            raise ValueError(
                "expected kernel_format: bzimage or auto beside firmware: uefi, which starts no ELF kernel"
            )
        if self.nic and self.link != "none":
            raise ValueError("expected nic or link, not both: each is a network card")
        if self.link != "none" and not self.embedded:
            raise ValueError(f"expected no uri of a daemon beside link: {self.link}, whose QEMU could not open the tap")
        return self

    @property
    def unpack(self) -> bool | None:
        """What becomes of a bzImage, as images.find_kernel takes it."""
        if self.kernel_format == "auto":
            return False if self.firmware == "uefi" else None
        return self.kernel_format == "elf"

    @property
    def embedded(self) -> bool:
        """Whether libvirt's driver runs in benchbox's own worker, with no daemon."""
        return self.uri is None or self.uri.startswith(EMBEDDED)


class Vm:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options.model_validate(spec.options)
        needs = [python_package(), emulator_program(), *([libvirt_driver()] if options.embedded else [])]
        needs += [hardware(options), *([links.availability(tap=True)] if options.link != "none" else [])]
        missing = next((need for need in needs if not need.available), None)
        return missing or cgroups.availability(cgroups.detect(), cgroups.Limits())

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options.model_validate(spec.options)
        preparation = Preparation()
        plan = _plan(options, spec.label, image, resources, workspace, preparation)
        plan = replace(plan, link=_link(options, workspace))
        with _client(options, workspace, plan) as (client, root):
            orders = Orders(plan, root)
            proof = _accelerator(plan, client, orders, preparation)
            hardware = Hardware("kvm" if proof.accelerator == "kvm" else "qemu", proof.disabled_features)
            opened = preparation.timed("libvirt", lambda: client.open(hardware.domain_type))
            applied = plan.applied() | {
                "accelerator": proof.accelerator,
                "accelerator_proof": asdict(proof),
                "versions": {"qemu": plan.qemu_version, **opened["versions"]},
                "uri": client.connection.uri,
            }
            reads = (plan.kernel.path, plan.initramfs)
            data = DataDisks(workspace, spec.label, image.root)
            account = (*plan.stored(), *preparation.account())
            yield VmSession(client, orders, hardware, applied, account, reads, data, plan.link)


class Preparation:
    """Times what is made once for many samples."""

    def __init__(self) -> None:
        self._spent_s: dict[str, float] = {}

    def timed(self, name: str, make: Callable[[], _T]) -> _T:
        """Return what ``make`` returns, its duration noted under ``name``."""
        started_s = time.monotonic()
        made = make()
        self._spent_s[name] = self._spent_s.get(name, 0.0) + time.monotonic() - started_s
        return made

    def account(self) -> tuple[Counter, ...]:
        return tuple(Counter(f"prepare.{name}", spent_s, "s", "wall clock") for name, spent_s in self._spent_s.items())


@dataclass(frozen=True)
class GuestPlan:
    """What all guests of one session have in common, before libvirt is asked anything."""

    options: Options
    label: str
    kernel: GuestKernel
    initramfs: Path
    emulator: Path
    qemu_version: str
    resources: Resources
    cpus: tuple[int, ...]
    layout: Layout
    cgroup_base: str
    mems: str
    scratch: Path
    firmware: Firmware | None
    image: Image
    device: Backing
    root_disk: Path | None = None
    link: Link | None = None

    def applied(self) -> dict[str, Any]:
        """Return what holds for each guest of the session; what each really got is in its own outcome."""
        kernel = self.kernel
        return {
            "kernel": {
                "release": kernel.release,
                "version": kernel.version,
                "source": kernel.source,
                "format": kernel.format,
                "sha256": kernel.sha256,
                "same_as_host": kernel.same_as_host,
                "package": kernel.package,
                "package_version": kernel.package_version,
            },
            "emulator": str(self.emulator),
            "emulator_real": str((self.emulator.parent / "real").readlink()),
            "machine": self.options.machine,
            "hardware": self._hardware(),
            "root": DISK_ROOT if self.root_disk else RAM_ROOT,
            "disk_cache": self.options.disk_cache,
            "cgroups": self.layout.mode,
            "cpus": format_cpu_list(self.cpus),
            "memory_bytes": self.memory_bytes,
            **({"link": self.link.applied()} if self.link else {}),
        }

    def initramfs_for(self, command: Command | None) -> Path:
        """Return what boots ``command``: one that has a disk for its /data needs the drivers of that."""
        if command is None or command.data is None or self.root_disk:
            return self.initramfs
        modules = tuple(dict.fromkeys((*_modules(self.options), "virtio_blk", "ext4")))
        return images.derive_initramfs(self.image, self.kernel, native.program("agent"), modules)

    def stored(self) -> tuple[Counter, ...]:
        """Return what a guest's root and kernel take on the disk."""
        root, form = (self.root_disk, DISK_ROOT) if self.root_disk else (self.initramfs, RAM_ROOT)
        return stored(IMAGE_STORED, root, form), stored(KERNEL, self.kernel.path, "the guest's kernel")

    @property
    def memory_bytes(self) -> int:
        return self.options.memory or self.resources.memory_bytes

    @property
    def vcpus(self) -> int:
        return self.options.vcpus or self.resources.cpus

    def _hardware(self) -> str:
        """Return in words what a guest is made of; each part is held against the live domain of every sample."""
        options = self.options
        parts = [options.machine, f"{options.firmware} firmware", self.kernel.format, f"{self.vcpus} virtual CPU"]
        parts[-1] += "s" if self.vcpus > 1 else ""
        parts += ["network card"] if options.nic or options.link != "none" else []
        parts += [f"disk of {format_size(options.disk)}"] if options.disk else []
        parts += ["root disk"] if self.root_disk else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Hardware:
    """What a guest runs on: real CPUs but for some of their features, or emulated ones."""

    domain_type: DomainType
    disabled_features: tuple[str, ...] = ()


class Orders:
    """Numbers the guests of a session and says what each is made of."""

    def __init__(self, plan: GuestPlan, root: Path) -> None:
        self._plan, self._root = plan, root
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Return the number of the next guest."""
        return next(self._numbers)

    def next(
        self, command: Command | None, hardware: Hardware, number: int | None = None, data: Path | None = None
    ) -> GuestOrder:
        """Return the order of a fresh guest for ``command`` (None: for a proof), with the disk ``data``."""
        plan, number = self._plan, self.number() if number is None else number
        spec = replace(self._spec(hardware, number), initramfs=str(plan.initramfs_for(command)))
        if command and command.serves:
            spec = _linked(spec, plan.link)
        if data:
            spec = replace(spec, data_disk=str(data), data_cache=plan.options.disk_cache)
        order = GuestOrder(
            spec,
            command and replace(command, env={**command.env, READY_VARIABLE: _READY_PATH}),
            plan.options.proof_timeout_s if command is None else plan.options.boot_timeout_s,
            plan.cgroup_base,
            f"{plan.label}-{number}",
            plan.mems,
            plan.resources.cpu_quota,
            device_stat=str(plan.device.stat) if data and plan.device.stat else None,
        )
        return self._joined(order)

    def _spec(self, hardware: Hardware, number: int) -> GuestSpec:
        plan = self._plan
        return GuestSpec(
            name=f"bb-{os.getpid()}-{self._root.name}-{number}",
            domain_type=hardware.domain_type,
            emulator=str(plan.emulator),
            kernel=str(plan.kernel.path),
            initramfs=str(plan.initramfs),
            sockets=str(self._root / f"s{number}"),
            memory_bytes=plan.memory_bytes,
            vcpus=plan.vcpus,
            cpus=plan.cpus,
            arch=os.uname().machine,
            machine=plan.options.machine,
            cmdline=plan.options.cmdline,
            disabled_features=hardware.disabled_features,
            root_user=not plan.options.embedded and os.geteuid() == 0,
            firmware=plan.firmware.path if plan.firmware else None,
            loader=plan.firmware.loader if plan.firmware else "rom",
            cpu_model=plan.options.cpu_model,
            nic=plan.options.nic,
            disk=str(plan.scratch / f"{plan.label}-{number}.raw") if plan.options.disk else None,
            disk_bytes=plan.options.disk or 0,
            root_disk=str(plan.root_disk) if plan.root_disk else None,
        )

    def _joined(self, order: GuestOrder) -> GuestOrder:
        """Return ``order`` with what the emulator's wrapper is told: which groups to join, on which CPUs to be."""
        join = ":".join(map(str, order.cgroups(self._plan.layout).join_files))
        environment = {"BENCHBOX_JOIN": join, "BENCHBOX_CPUS": format_cpu_list(order.spec.cpus)}
        log = str(self._root / "log" / "qemu" / f"{order.spec.name}.log") if self._plan.options.embedded else None
        return replace(order, spec=replace(order.spec, environment=environment), log=log)


def _linked(spec: GuestSpec, link: Link | None) -> GuestSpec:
    """Return ``spec`` with a network card at the end of ``link``."""
    if link is None:
        return spec
    return replace(spec, tap=link.device, mac=link.mac, address=f"{link.address}/{links.PREFIX_BITS}")


class VmSession:
    """Boots a guest for each command."""

    def __init__(
        self,
        client: Client,
        orders: Orders,
        hardware: Hardware,
        applied: Mapping[str, Any],
        account: tuple[Counter, ...],
        reads: tuple[Path, ...],
        data: DataDisks,
        link: Link | None = None,
    ) -> None:
        self._data, self.link = data, link
        self._client, self._orders, self._hardware = client, orders, hardware
        self._applied, self._account, self._reads = applied, account, reads

    def start(self, command: Command) -> Running:
        number = self._orders.number()
        disk = self._data.source(str(number)) if command.data else None
        order = self._orders.next(command, self._hardware, number, disk)
        return with_data(self._data, command.data, str(number), lambda: self._client.start(order))

    def applied(self) -> Mapping[str, Any]:
        return self._applied

    def account(self) -> tuple[Counter, ...]:
        return self._account

    def reads(self) -> tuple[Path, ...]:
        return self._reads


def qemu_name() -> str:
    """Return the name of the emulator of this host's architecture."""
    return f"qemu-system-{os.uname().machine}"


def python_package() -> Availability:
    """Say whether libvirt-python is there, without loading it."""
    if importlib.util.find_spec("libvirt") is not None:
        return Availability.yes()
    return Availability.no(
        "the Python package libvirt-python is not installed",
        "pip install 'benchbox[vm]' (needs libvirt-dev, pkg-config and gcc), or run ./benchboxw again",
    )


def emulator_program() -> Availability:
    """Say whether QEMU for this host's architecture is there."""
    if shutil.which(qemu_name()) is not None:
        return Availability.yes()
    return remedies.lacking(f"{qemu_name()} is not installed", [qemu_name()])


def libvirt_driver() -> Availability:
    """Say whether libvirt's driver for QEMU is there, which the embedded connection loads."""
    if _has_driver():
        return Availability.yes()
    missing = ("libvirt_driver_qemu.so", "libvirt-qemu")
    return remedies.lacking("libvirt's QEMU driver is not installed", missing)


def hardware(options: Options) -> Availability:
    """Say whether this host can build the guest that ``options`` describe."""
    if options.machine.startswith("microvm"):
        return Availability.no(
            "libvirt puts a guest's devices on a PCI bus and microvm has none (it says: No PCI buses available)",
            "choose machine: q35 or pc",
        )
    if options.firmware != "default" and firmware.find(options.firmware, os.uname().machine, options.machine) is None:
        return _no_firmware(options.firmware, os.uname().machine)
    if options.nic and "user" not in _network_backends():
        return Availability.no(
            f"this {qemu_name()} has no user networking",
            "leave nic out, or install a QEMU that was built with libslirp",
        )
    return Availability.yes()


def _no_firmware(choice: FirmwareChoice, arch: str) -> Availability:
    if choice == "qboot" and arch != "x86_64":
        return Availability.no("qboot is for x86_64 only", "choose firmware: default")
    if choice == "qboot":
        return remedies.lacking("qboot.rom of QEMU is not installed", ["qboot.rom"])
    reason = "no UEFI firmware without secure boot is installed for this machine"
    return remedies.lacking(reason, [f"UEFI for {arch}"], otherwise="choose firmware: default")


def _network_backends() -> list[str]:
    return processes.run([qemu_name(), "-netdev", "help"], timeout_s=_QEMU_TIMEOUT_S).stdout.split()


def _has_driver() -> bool:
    folders = [Path(folder) for folder in _LIBRARY_FOLDERS]
    return any(next(folder.glob(pattern), None) for folder in folders for pattern in (_DRIVER, f"*/{_DRIVER}"))


def _plan(
    options: Options,
    label: str,
    image: Image,
    resources: Resources,
    workspace: Workspace,
    preparation: Preparation,
) -> GuestPlan:
    kernel = preparation.timed("kernel", lambda: _kernel(options))
    root_disk, initramfs = _root(options, image, kernel, preparation)
    _check_memory(options.memory or resources.memory_bytes, image, kernel, initramfs)
    qemu = shutil.which(qemu_name())
    if qemu is None:
        missing = emulator_program()
        raise UnavailableError(str(missing.reason), hint=missing.fix)
    layout = cgroups.detect()
    return GuestPlan(
        options,
        label,
        kernel,
        initramfs,
        private_root.emulator(native.program("launch"), Path(qemu), make_cache_folder("emulator")),
        processes.run([qemu, "--version"], timeout_s=_QEMU_TIMEOUT_S).stdout.splitlines()[0],
        resources,
        choose_cpus(resources, workspace),
        layout,
        workspace.cgroup_name,
        cgroups.prepare(layout, workspace.cgroup_name),
        workspace.scratch,
        _firmware(options),
        image,
        blockdev.backing(workspace.scratch),
        root_disk,
    )


def _root(options: Options, image: Image, kernel: GuestKernel, preparation: Preparation) -> tuple[Path | None, Path]:
    """Return the disk with the image (None: it is in memory) and the initramfs that goes with it."""
    agent, modules = native.program("agent"), _modules(options)
    if not on_disk(options.root, image):
        return None, preparation.timed("initramfs", lambda: images.derive_initramfs(image, kernel, agent, modules))
    disk = preparation.timed("disk", lambda: images.derive_disk(image))
    needed = tuple(dict.fromkeys((*modules, "virtio_blk", "ext4")))
    serial = domain.ROOT_SERIAL
    return disk, preparation.timed("initramfs", lambda: images.derive_disk_initramfs(kernel, agent, serial, needed))


def on_disk(choice: RootChoice, image: Image) -> bool:
    """Say whether the root of a guest is on a disk."""
    return choice == "disk" or (choice == "auto" and images.content_bytes(image) > RAM_ROOT_BYTES_MAX)


def _kernel(options: Options) -> GuestKernel:
    """Raises ImageError for a kernel that cannot be had in the format asked for."""
    modules = None if options.kernel_modules is None else Path(options.kernel_modules)
    kernel = images.find_kernel(options.kernel, modules_dir=modules, unpack=options.unpack)
    if options.kernel_format == "bzimage" and kernel.format != "bzImage":
        raise ImageError(f"{kernel.original}: a {kernel.format} kernel, no bzImage", hint="give the path of a vmlinuz")
    return kernel


def _modules(options: Options) -> tuple[str, ...]:
    """Return what the guest's kernel loads: a device without its driver would cost half."""
    return (
        *images.GUEST_MODULES,
        *(["virtio_net"] if options.nic or options.link != "none" else []),
        *(["virtio_blk"] if options.disk else []),
    )


def _firmware(options: Options) -> Firmware | None:
    if options.firmware == "default":
        return None
    found = firmware.find(options.firmware, os.uname().machine, options.machine)
    if found is None:
        missing = _no_firmware(options.firmware, os.uname().machine)
        raise UnavailableError(str(missing.reason), hint=missing.fix)
    return found


def _check_memory(memory_bytes: int, image: Image, kernel: GuestKernel, initramfs: Path) -> None:
    """Raises EnvironmentFailure where the guest could not even boot in so much."""
    needed_bytes = least_memory_bytes(kernel.path.stat().st_size, initramfs.stat().st_size)
    if memory_bytes < needed_bytes:
        raise EnvironmentFailure(
            f"a guest has its whole image in memory: {image.name} takes {format_size(initramfs.stat().st_size)}, three"
            f" times that and the kernel while it boots; its memory is {format_size(memory_bytes)}",
            hint=f"set resources.memory to {format_size(enough_memory_bytes(needed_bytes))} or more, or root: disk",
        )


def least_memory_bytes(kernel_bytes: int, initramfs_bytes: int) -> int:
    """Return the RAM below which no guest can boot: kernel, archive, and what is unpacked of it, which may take at most
    half of what the kernel has left (the default of a tmpfs, Documentation/filesystems/tmpfs.rst). Pure."""
    return kernel_bytes + 3 * initramfs_bytes


def enough_memory_bytes(size_bytes: int) -> int:
    """Return what to advise where ``size_bytes`` are the least: a little more, in whole steps of 16 MiB. Pure."""
    step_bytes = 16 << 20
    return (size_bytes // step_bytes + 2) * step_bytes


def _link(options: Options, workspace: Workspace) -> Link | None:
    if options.link == "none" or workspace.links is None:
        return None
    return workspace.links.tap()


def _connection(uri: str, plan: GuestPlan, root: Path) -> Connection:
    network = plan.link.namespace if plan.link else None
    return Connection(uri, str(plan.emulator), plan.options.machine, root, network)


@contextmanager
def _client(options: Options, workspace: Workspace, plan: GuestPlan) -> Iterator[tuple[Client, Path]]:
    """Yield a client and the session's own folder; at the end neither is there any more."""
    numbers = itertools.count()
    root = next(path for path in (workspace.runtime / f"lv{number}" for number in numbers) if not path.exists())
    workspace.ledger.record("libvirt", str(root))
    root.mkdir(parents=True, mode=0o700)
    if options.embedded:
        private_root.make(root, make_cache_folder("libvirt", mode=0o700))
    uri = private_root.uri(root) if options.uri in (None, EMBEDDED) else str(options.uri)
    client = Client(_connection(uri, plan, root), plan.layout)
    try:
        yield client, root
    finally:
        client.close()
        for pid in processes.with_argument(f"{root}/"):
            processes.end(pid)
        if removal.try_remove(root):
            workspace.ledger.release("libvirt", str(root))


def _accelerator(plan: GuestPlan, client: Client, orders: Orders, preparation: Preparation) -> Proof:
    """Return what the guests of the session run on. Raises EnvironmentFailure for a ``kvm`` that cannot be had."""
    options = plan.options
    if options.accelerator == "tcg":
        return Proof("tcg", "asked for by the scenario")
    device = accelerator.device_availability()
    proof = (
        preparation.timed("accelerator", lambda: _proof(plan, client, orders))
        if device.available
        else Proof("tcg", str(device.reason))
    )
    if options.accelerator == "kvm" and proof.accelerator != "kvm":
        raise EnvironmentFailure(
            f"accelerator: kvm was asked for and cannot be had: {proof.reason}",
            hint=device.fix or "choose accelerator: auto or tcg, or a host whose KVM boots a Linux guest",
        )
    return proof


def _proof(plan: GuestPlan, client: Client, orders: Orders) -> Proof:
    facts = accelerator.host_facts() | {
        "guest_kernel": plan.kernel.sha256,
        "guest_format": plan.kernel.format,
        "qemu": plan.qemu_version,
        "emulator": str(plan.emulator),
        "machine": plan.options.machine,
        "firmware": plan.options.firmware,
        "cpu_model": plan.options.cpu_model,
        "cmdline": plan.options.cmdline,
        "uri": plan.options.uri,
        "timeout_s": plan.options.proof_timeout_s,
    }

    def boot(disabled_features: tuple[str, ...]) -> Outcome:
        client.open("kvm")
        return client.start(orders.next(None, Hardware("kvm", disabled_features))).wait()

    folder = make_cache_folder("accelerator")
    in_vain = _tried_in_vain(folder, facts) if plan.options.accelerator == "auto" else None
    return in_vain or accelerator.remembered(folder, facts, lambda: accelerator.prove(boot))


def _tried_in_vain(folder: Path, facts: Mapping[str, Any]) -> Proof | None:
    """Return the proof that the default guest of the same kernel does not boot with KVM, where that was tried.

    Each guest of another make would only wait for its whole deadline again.
    """
    default = Options()
    names = ("machine", "firmware", "cpu_model", "cmdline")
    plain = {**facts, **{name: getattr(default, name) for name in names}}
    plain.pop("guest_format")
    found = accelerator.recalled(folder, plain)
    return found if found and found.accelerator == "tcg" else None


ENVIRONMENT: Final = Vm()
