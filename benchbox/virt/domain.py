"""The libvirt domain of a guest as a pure function, and what is read back from a live one.

Element names and their meaning: https://libvirt.org/formatdomain.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from benchbox.units import format_cpu_list

DomainType = Literal["kvm", "qemu"]

#: How QEMU is given a firmware: as the machine's ROM, or as flash.
LoaderType = Literal["rom", "pflash"]

#: Aliases of machines by the family whose newest version they mean; other aliases are their family's name.
MACHINE_FAMILIES: Final = {"q35": "pc-q35", "pc": "pc-i440fx"}

#: The guest's channels: the serial line and the agent's virtio-serial ports, each a socket ``<channel>.sock``.
SERIAL: Final = "serial"
PORTS: Final = ("control", "output", "ready")
CHANNELS: Final = (SERIAL, *PORTS)

#: ``quiet`` keeps the slow serial line out of the boot time. A panic resets at once, which ends the domain.
BASE_CMDLINE: Final = "quiet panic=-1 oops=panic"

#: Architecture -> the kernel's name of the first serial line, and what libvirt calls it. Others are as x86_64.
_SERIAL_LINES: Final = {"aarch64": ("ttyAMA0", "system-serial")}
_SERIAL_LINE: Final = ("ttyS0", "isa-serial")

#: What is read back of the two devices that a guest may have besides.
NIC: Final = "virtio, user, link down"
TAP: Final = "virtio, ethernet, link up"
DISK: Final = "virtio, raw, cache writeback"
#: And of the disk that its root is on; the agent finds that by its serial number, whatever others there are.
ROOT_DISK: Final = "virtio, raw, cache none, read-only"
ROOT_SERIAL: Final = "benchbox-root"
#: The agent finds the disk of /data by its serial number, whatever others there are.
DATA_SERIAL: Final = "benchbox-data"

#: How QEMU treats the host's page cache and the guest's flushes, https://libvirt.org/formatdomain.html#elementsDisks.
CacheMode = Literal["none", "writeback", "writethrough", "directsync", "unsafe"]
#: Those that leave out the host's page cache: only with them does QEMU take the kernel's asynchronous I/O.
_DIRECT: Final = ("none", "directsync")

_QEMU_NAMESPACE: Final = "http://libvirt.org/schemas/domain/qemu/1.0"


@dataclass(frozen=True)
class GuestSpec:
    """Everything that a guest's domain is made of.

    ``cpus`` are the host CPUs that confine the whole QEMU process, ``sockets`` is the folder in which the host listens
    on ``<channel>.sock``, ``disabled_features`` are CPU features that a KVM guest must not see, ``environment`` is for
    the emulator, ``root_user`` runs QEMU as root where a libvirt daemon would choose another user.

    ``firmware`` is an image (None: the machine's own) that libvirt is given as ``loader``. ``cpu_model`` None is all
    that the host or the emulator offers. ``nic`` adds a network card whose cable is out, ``disk`` an empty disk: the
    path of a sparse file of ``disk_bytes``, ``root_disk`` the file of the read-only disk that its root is on,
    ``data_disk`` that of the disk that becomes /data. ``tap`` is the name of a tap that is there, for a network card
    with ``mac`` that the agent gives ``address`` (``a.b.c.d/N``).
    """

    name: str
    domain_type: DomainType
    emulator: str
    kernel: str
    initramfs: str
    sockets: str
    memory_bytes: int
    vcpus: int
    cpus: tuple[int, ...]
    arch: str = "x86_64"
    machine: str = "q35"
    cmdline: str = ""
    disabled_features: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    root_user: bool = False
    firmware: str | None = None
    loader: LoaderType = "rom"
    cpu_model: str | None = None
    nic: bool = False
    disk: str | None = None
    disk_bytes: int = 0
    root_disk: str | None = None
    data_disk: str | None = None
    data_cache: CacheMode = "none"
    tap: str | None = None
    mac: str | None = None
    address: str | None = None

    def socket(self, channel: str) -> Path:
        """Return the path of the socket of ``channel``."""
        return Path(self.sockets) / f"{channel}.sock"

    @property
    def full_cmdline(self) -> str:
        """The kernel command line; the user's options come last and win."""
        return f"console={_serial_line(self.arch)[0]} {BASE_CMDLINE} {self.cmdline}".strip()


def _serial_line(arch: str) -> tuple[str, str]:
    return _SERIAL_LINES.get(arch, _SERIAL_LINE)


def domain_xml(spec: GuestSpec) -> str:
    """Return the domain of ``spec``: direct kernel boot, virtio only, and no device that a boot would wait for."""
    ElementTree.register_namespace("qemu", _QEMU_NAMESPACE)
    root = Element("domain", type=spec.domain_type)
    _text(root, "name", spec.name)
    _text(root, "memory", str(spec.memory_bytes), unit="b")
    _text(root, "vcpu", str(spec.vcpus), placement="static", cpuset=format_cpu_list(spec.cpus))
    _add_boot(root, spec)
    SubElement(SubElement(root, "features"), "acpi")
    _add_cpu(root, spec)
    for event, action in (("poweroff", "destroy"), ("reboot", "destroy"), ("crash", "destroy")):
        _text(root, f"on_{event}", action)
    _add_devices(SubElement(root, "devices"), spec)
    if spec.root_user:
        _text(SubElement(root, "seclabel", type="static", model="dac", relabel="no"), "label", "+0:+0")
    _add_environment(root, spec.environment)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _add_boot(root: Element, spec: GuestSpec) -> None:
    boot = SubElement(root, "os")
    _text(boot, "type", "hvm", arch=spec.arch, machine=spec.machine)
    if spec.firmware and spec.loader == "rom":
        _text(boot, "loader", spec.firmware, type="rom")
    elif spec.firmware:
        # Without a file for its variables: a fresh machine has none, and nothing is to be kept.
        _text(boot, "loader", spec.firmware, type="pflash", readonly="yes", stateless="yes")
    _text(boot, "kernel", spec.kernel)
    _text(boot, "initrd", spec.initramfs)
    _text(boot, "cmdline", spec.full_cmdline)


def _add_cpu(root: Element, spec: GuestSpec) -> None:
    if spec.cpu_model:
        cpu = SubElement(root, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", spec.cpu_model, fallback="forbid")
    elif spec.domain_type == "qemu":
        SubElement(root, "cpu", mode="maximum")
        return
    else:
        cpu = SubElement(root, "cpu", mode="host-passthrough", check="none")
    for name in spec.disabled_features:
        SubElement(cpu, "feature", policy="disable", name=name)


def _add_devices(devices: Element, spec: GuestSpec) -> None:
    _text(devices, "emulator", spec.emulator)
    SubElement(devices, "controller", type="usb", model="none")
    ports = SubElement(devices, "controller", type="virtio-serial", index="0")
    _add_slot(ports, "0x05")
    serial = SubElement(devices, "serial", type="unix")
    SubElement(serial, "source", mode="connect", path=str(spec.socket(SERIAL)))
    SubElement(serial, "target", type=_serial_line(spec.arch)[1], port="0")
    for number, port in enumerate(PORTS, start=1):
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "source", mode="connect", path=str(spec.socket(port)))
        SubElement(channel, "target", type="virtio", name=f"benchbox.{port}")
        SubElement(channel, "address", type="virtio-serial", controller="0", bus="0", port=str(number))
    SubElement(devices, "memballoon", model="none")
    if spec.nic:
        _add_nic(devices)
    if spec.tap:
        _add_tap(devices, spec.tap, str(spec.mac))
    if spec.disk:
        _add_disk(devices, spec.disk)
    if spec.root_disk:
        _add_root_disk(devices, spec.root_disk)
    if spec.data_disk:
        _add_data_disk(devices, spec.data_disk, spec.data_cache)


def _add_slot(device: Element, slot: str) -> None:
    """On the root bus: each root port that libvirt would put between costs firmware and kernel time to enumerate."""
    SubElement(device, "address", type="pci", domain="0x0000", bus="0x00", slot=slot, function="0x0")


def _add_nic(devices: Element) -> None:
    """User networking needs nothing of the host's network, and with the link down nothing gets out either."""
    card = SubElement(devices, "interface", type="user")
    SubElement(card, "model", type="virtio")
    SubElement(card, "link", state="down")
    _add_slot(card, "0x06")


def _add_tap(devices: Element, name: str, mac: str) -> None:
    """QEMU moves the packets itself: not every host has vhost-net, and what does it must not depend on the host."""
    card = SubElement(devices, "interface", type="ethernet")
    SubElement(card, "mac", address=mac)
    SubElement(card, "target", dev=name, managed="no")
    SubElement(card, "model", type="virtio")
    SubElement(card, "driver", name="qemu")
    SubElement(card, "rom", enabled="no")
    _add_slot(card, "0x06")


def _add_disk(devices: Element, path: str) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw", cache="writeback")
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev="vda", bus="virtio")
    _add_slot(disk, "0x07")


def _add_root_disk(devices: Element, path: str) -> None:
    """Several guests read the same file, which a read-only disk allows; with cache none they do not read the host's
    page cache, so that nothing is cached twice."""
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw", cache="none")
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev="vdz", bus="virtio")
    SubElement(disk, "readonly")
    _text(disk, "serial", ROOT_SERIAL)
    _add_slot(disk, "0x08")


def _add_data_disk(devices: Element, path: str, cache: CacheMode) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw", cache=cache, io=_io(cache))
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev="vdy", bus="virtio")
    _text(disk, "serial", DATA_SERIAL)
    _add_slot(disk, "0x09")


def _io(cache: CacheMode) -> str:
    return "native" if cache in _DIRECT else "threads"


def data_disk_text(cache: CacheMode) -> str:
    """Return what is read back of the disk of /data."""
    return f"virtio, raw, cache {cache}, io {_io(cache)}"


def _add_environment(root: Element, environment: Mapping[str, str]) -> None:
    if environment:
        commandline = SubElement(root, f"{{{_QEMU_NAMESPACE}}}commandline")
        for name, value in environment.items():
            SubElement(commandline, f"{{{_QEMU_NAMESPACE}}}env", name=name, value=value)


def read_back(live_xml: str) -> dict[str, Any]:
    """Return what libvirt says of a live domain: keys ``domain_type``, ``machine``, ``cpu_mode``, ``cpu_model``,
    ``memory_bytes``, ``balloon``, ``vcpus``, ``vcpu_cpus`` (kernel CPU list), ``kernel``, ``cmdline``, ``emulator``,
    ``firmware`` (None: the machine's own), ``nics`` and ``extra_disks`` (what each is, without what differs between
    guests), ``root_disk`` (the same of the disk that the root is on), ``root_disk_file`` and ``data_disk`` (the same of
    the disk of /data, None: there is none)."""
    root = ElementTree.fromstring(live_xml)
    memory = root.find("memory")
    machine, cpu, vcpu = root.find("os/type"), root.find("cpu"), root.find("vcpu")
    balloon = root.find("devices/memballoon")
    return {
        "domain_type": root.get("type"),
        "machine": None if machine is None else machine.get("machine"),
        "cpu_mode": None if cpu is None else cpu.get("mode"),
        "memory_bytes": None if memory is None else int(memory.text or 0) * _unit_bytes(memory.get("unit", "KiB")),
        "vcpus": None if vcpu is None else int(vcpu.text or 0),
        "vcpu_cpus": None if vcpu is None else vcpu.get("cpuset"),
        "cmdline": root.findtext("os/cmdline"),
        "emulator": root.findtext("devices/emulator"),
        "cpu_model": root.findtext("cpu/model"),
        "kernel": root.findtext("os/kernel"),
        "balloon": "none" if balloon is None else balloon.get("model"),
        "firmware": root.findtext("os/loader"),
        "nics": [_nic_text(card) for card in root.findall("devices/interface")],
        "extra_disks": [_disk_text(disk) for disk in root.findall("devices/disk") if not _is_ours(disk)],
        "data_disk": next((_data_text(disk) for disk in root.findall("devices/disk") if _is_data(disk)), None),
        **_root_disk(root),
    }


def _is_ours(disk: Element) -> bool:
    return _is_root(disk) or _is_data(disk)


def _is_root(disk: Element) -> bool:
    return disk.findtext("serial") == ROOT_SERIAL


def _root_disk(root: Element) -> dict[str, Any]:
    disk = next(filter(_is_root, root.findall("devices/disk")), None)
    if disk is None:
        return {"root_disk": None, "root_disk_file": None}
    source = disk.find("source")
    written = "" if disk.find("readonly") is None else ", read-only"
    return {
        "root_disk": _disk_text(disk) + written,
        "root_disk_file": None if source is None else source.get("file"),
    }


def _is_data(disk: Element) -> bool:
    return disk.findtext("serial") == DATA_SERIAL


def _data_text(disk: Element) -> str:
    driver = disk.find("driver")
    return f"{_disk_text(disk)}, io {'default' if driver is None else driver.get('io', 'default')}"


def _nic_text(card: Element) -> str:
    model, link = card.find("model"), card.find("link")
    kind = "unknown" if model is None else model.get("type")
    return f"{kind}, {card.get('type')}, link {'up' if link is None else link.get('state')}"


def _disk_text(disk: Element) -> str:
    driver, target = disk.find("driver"), disk.find("target")
    words = [] if driver is None else [driver.get("type"), f"cache {driver.get('cache', 'default')}"]
    return ", ".join(map(str, ["unknown" if target is None else target.get("bus"), *words]))


def is_machine(asked: str, live: str) -> bool:
    """Say whether the machine ``live`` is the one that was asked for, by its own name or by an alias."""
    return live == asked or live.startswith(f"{MACHINE_FAMILIES.get(asked, asked)}-")


def _unit_bytes(unit: str) -> int:
    return {"b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
