"""The domain of a guest, compared with files in tests/golden, and what is read back from a live one."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.virt.domain import DISK, NIC, ROOT_DISK, ROOT_SERIAL, TAP, GuestSpec, domain_xml, is_machine, read_back

GOLDEN = Path(__file__).parents[1] / "golden"

EMULATED = GuestSpec(
    name="bb-1",
    domain_type="qemu",
    emulator="/cache/emulator/0123/qemu-system-x86_64",
    kernel="/cache/vmlinux",
    initramfs="/cache/initramfs",
    sockets="/run/benchbox/r/lv0/s1",
    memory_bytes=256 << 20,
    vcpus=1,
    cpus=(1,),
    environment={"BENCHBOX_JOIN": "/sys/fs/cgroup/benchbox/vm-1/cgroup.procs", "BENCHBOX_CPUS": "1"},
)
GUESTS = {
    "domain-tcg": EMULATED,
    "domain-kvm": replace(EMULATED, domain_type="kvm", vcpus=2, cpus=(2, 3), environment={}),
    "domain-kvm-without-feature": replace(
        EMULATED, domain_type="kvm", disabled_features=("arch-capabilities",), environment={}, root_user=True
    ),
    "domain-escaped": replace(
        EMULATED, name="<&>", cmdline="systemd.unit=\"a\" <b> &amp; 'c'", kernel="/boot/a&b", environment={"A": '"<'}
    ),
    "domain-qboot": replace(EMULATED, firmware="/usr/share/qemu/qboot.rom", environment={}),
    "domain-uefi": replace(EMULATED, firmware="/fw/CODE.fd", loader="pflash", kernel="/vmlinuz", environment={}),
    "domain-cpu-model": replace(EMULATED, cpu_model="qemu64", vcpus=2, memory_bytes=1 << 30, environment={}),
    "domain-kvm-cpu-model": replace(
        EMULATED, domain_type="kvm", cpu_model="EPYC", disabled_features=("x2apic",), environment={}
    ),
    "domain-nic": replace(EMULATED, nic=True, environment={}),
    "domain-tap": replace(EMULATED, tap="tap3", mac="02:62:62:00:00:03", address="198.18.0.3/24", environment={}),
    "domain-disk": replace(EMULATED, disk="/scratch/vm-1.raw", disk_bytes=64 << 20, machine="pc", environment={}),
    "domain-data": replace(EMULATED, data_disk="/scratch/data-vm-1/disk.raw", environment={}),
    "domain-arm": replace(EMULATED, arch="aarch64", machine="virt", environment={}),
}


@pytest.mark.parametrize("name", GUESTS)
def test_a_domain_is_the_golden_one(name: str) -> None:
    """Each kind of guest has exactly the domain that is on file."""
    assert domain_xml(GUESTS[name]) == (GOLDEN / f"{name}.xml").read_text()


printable = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_characters="\x7f\x85"), max_size=40)


@given(printable, printable)
def test_no_text_leaves_its_place(cmdline: str, value: str) -> None:
    """Whatever the user's options contain, they are one text in the domain and add no element."""
    root = ElementTree.fromstring(domain_xml(replace(EMULATED, cmdline=cmdline, environment={"A": value})))

    assert (root.findtext("os/cmdline") or "").endswith(cmdline.strip())
    assert {element.get("value") for element in root.iter() if element.tag.endswith("}env")} == {value}
    plain = ElementTree.fromstring(domain_xml(EMULATED))
    assert len(list(root.iter())) == len(list(plain.iter())) - 1


def test_the_users_kernel_options_come_last() -> None:
    """The last option of a name wins in the kernel, so the user's do."""
    assert replace(EMULATED, cmdline="panic=0").full_cmdline == "console=ttyS0 quiet panic=-1 oops=panic panic=0"


def test_what_is_asked_for_is_read_back() -> None:
    """Reading a domain back gives what it was made of, sizes in bytes whatever unit libvirt prefers."""
    live = domain_xml(EMULATED).replace('unit="b">268435456', "unit='KiB'>262144")

    assert read_back(live) == {
        "domain_type": "qemu",
        "machine": "q35",
        "cpu_mode": "maximum",
        "memory_bytes": 256 << 20,
        "vcpus": 1,
        "vcpu_cpus": "1",
        "cmdline": "console=ttyS0 quiet panic=-1 oops=panic",
        "emulator": EMULATED.emulator,
        "cpu_model": None,
        "kernel": EMULATED.kernel,
        "balloon": "none",
        "firmware": None,
        "nics": [],
        "extra_disks": [],
        "root_disk": None,
        "root_disk_file": None,
        "data_disk": None,
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"firmware": "/fw", "loader": "pflash"}, {"firmware": "/fw"}),
        ({"cpu_model": "qemu64"}, {"cpu_model": "qemu64", "cpu_mode": "custom"}),
        ({"nic": True}, {"nics": [NIC]}),
        ({"disk": "/a.raw"}, {"extra_disks": [DISK]}),
        ({"root_disk": "/root.ext4"}, {"root_disk": ROOT_DISK, "root_disk_file": "/root.ext4"}),
        ({"data_disk": "/a.raw"}, {"data_disk": "virtio, raw, cache none, io native"}),
        ({"data_disk": "/a.raw", "data_cache": "unsafe"}, {"data_disk": "virtio, raw, cache unsafe, io threads"}),
    ],
)
def test_each_option_is_read_back(options: dict[str, Any], found: dict[str, Any]) -> None:
    """And none of the others changes."""
    plain = read_back(domain_xml(EMULATED))
    assert read_back(domain_xml(replace(EMULATED, **options))) == {**plain, **found}


@pytest.mark.parametrize(
    ("live", "found"),
    [
        ("cache='none'/><readonly/>", "virtio, raw, cache none, read-only"),
        ("cache='none'/>", "virtio, raw, cache none"),
        ("cache='unsafe'/><readonly/>", "virtio, raw, cache unsafe, read-only"),
        ("/><readonly/>", "virtio, raw, cache default, read-only"),
    ],
)
def test_how_the_root_disk_is_read_is_what_the_live_domain_says(live: str, found: str) -> None:
    """Whatever was asked for."""
    disk = f"<disk><target bus='virtio'/><serial>{ROOT_SERIAL}</serial><driver type='raw' {live}</disk>"
    read = read_back(f"<domain><devices>{disk}</devices></domain>")
    assert (read["root_disk"], read["root_disk_file"], read["extra_disks"]) == (found, None, [])


def test_a_device_that_libvirt_says_little_of_is_still_told() -> None:
    """Nothing is guessed into it."""
    live = "<domain type='qemu'><devices><interface type='bridge'/><disk/></devices></domain>"
    found = read_back(live)
    assert (found["nics"], found["extra_disks"]) == (["unknown, bridge, link up"], ["unknown"])


@pytest.mark.parametrize(
    ("asked", "live", "same"),
    [
        ("q35", "pc-q35-7.2", True),
        ("pc", "pc-i440fx-rhel7.6.0", True),
        ("pc-q35-7.2", "pc-q35-7.2", True),
        ("virt", "virt-8.0", True),
        ("q35", "pc-i440fx-7.2", False),
        ("pc", "pc-q35-7.2", False),
        ("pc-q35-7.2", "pc-q35-8.0", False),
        ("q35", "", False),
    ],
)
def test_an_alias_means_a_family_of_machines(asked: str, live: str, same: bool) -> None:
    """libvirt says the version that QEMU chose."""
    assert is_machine(asked, live) is same


def test_a_tap_is_read_back_as_what_it_is() -> None:
    """Its own kind of network card, with the cable in."""
    assert read_back(domain_xml(GUESTS["domain-tap"]))["nics"] == [TAP]
    assert read_back(domain_xml(GUESTS["domain-nic"]))["nics"] == [NIC]
