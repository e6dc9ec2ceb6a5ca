"""Every option of a guest's hardware boots a real guest once, and is read back from the live domain."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchbox.environments import vm
from benchbox.model import Command, EnvironmentSpec, Outcome
from tests.conftest import skip_unless_available
from tests.integration.guests import qemus, reaping, session, shell

pytestmark = pytest.mark.integration

#: Long enough for an emulated guest with UEFI on a busy machine.
PATIENT = 120.0


@pytest.fixture(scope="module", autouse=True)
def above() -> Iterator[None]:
    skip_unless_available("vm", vm.ENVIRONMENT.check(EnvironmentSpec("vm", "vm")))
    with reaping():
        yield


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name, for there are sockets in it."""
    return tmp_path_factory.mktemp("g")


def booted(folder: Path, script: str, **options: Any) -> tuple[Outcome, str]:
    """Boot a guest with ``options``, run ``script`` in it and return what came of it; nothing may be left."""
    offer = vm.ENVIRONMENT.check(EnvironmentSpec("vm", "vm", options))
    skip_unless_available(str(options.get("firmware", "vm")), offer)
    command = Command(shell(script), signals_ready=False)
    with session(folder, boot_timeout_s=PATIENT, **options) as guests:
        outcome = guests.start(command).wait()
    assert outcome.status == "ok", (outcome.reason, outcome.console_tail, outcome.output_tail)
    assert qemus(folder) == []
    assert list(folder.glob("**/*.raw")) == []
    return outcome, outcome.output_tail.decode()


def test_a_bzimage_unpacks_itself(folder: Path) -> None:
    """QEMU is given the file that the kernel came in."""
    outcome, _ = booted(folder, "exit 0", kernel_format="bzimage")
    with Path(outcome.applied["domain"]["kernel"]).open("rb") as kernel:
        assert kernel.read(0x206)[0x202:] == b"HdrS"


def test_qboot_stands_in_for_the_machines_firmware(folder: Path) -> None:
    """What the guest reads of its firmware is not what it reads with the machine's own."""
    script = "busybox cat /sys/class/dmi/id/bios_vendor 2>&1; busybox ls /sys/firmware; exit 0"
    outcome, printed = booted(folder, script, firmware="qboot")
    assert outcome.applied["domain"]["firmware"].endswith("qboot.rom")
    assert "SeaBIOS" not in printed
    assert "efi" not in printed.split()


def test_uefi_starts_the_kernel_by_its_stub(folder: Path) -> None:
    """The guest's kernel knows that it runs on EFI."""
    outcome, printed = booted(folder, "busybox ls /sys/firmware", firmware="uefi")
    assert outcome.applied["domain"]["firmware"].endswith(".fd")
    assert "efi" in printed.split()


def test_another_machine_memory_processors_and_model(folder: Path) -> None:
    """Together, for none of them hinders another; the guest itself sees each."""
    script = "busybox grep -c ^processor /proc/cpuinfo; busybox grep -m1 'model name' /proc/cpuinfo"
    outcome, printed = booted(
        folder, script, machine="pc", memory=320 << 20, vcpus=2, cpu_model="qemu64", kernel_format="elf"
    )
    domain, count = outcome.applied["domain"], printed.splitlines()[0]
    assert "i440fx" in domain["machine"]
    assert (domain["memory_bytes"], domain["vcpus"], domain["cpu_model"], count) == (320 << 20, 2, "qemu64", "2")
    assert 256 << 20 < outcome.applied["guest"]["memory_bytes"] < 320 << 20
    assert "QEMU Virtual CPU" in printed


def test_a_network_card_and_a_disk_are_there_with_their_drivers_and_lead_nowhere(folder: Path) -> None:
    """The card's link is down for whoever raises the interface; the disk is as large as asked for and empty."""
    script = (
        "busybox cat /sys/block/vda/size /sys/class/net/eth0/operstate; busybox ip link set eth0 up;"
        " busybox sleep 0.2; busybox cat /sys/class/net/eth0/carrier"
    )
    outcome, printed = booted(folder, script, nic=True, disk=64 << 20)
    assert printed.split() == [str((64 << 20) // 512), "down", "0"]
    assert outcome.applied["domain"]["nics"] == ["virtio, user, link down"]
    assert outcome.applied["domain"]["extra_disks"] == ["virtio, raw, cache writeback"]


def test_a_default_guest_has_neither_card_nor_disk(folder: Path) -> None:
    """Nothing is there that was not asked for."""
    script = "busybox ls /sys/block /sys/class/net; busybox cat /sys/class/dmi/id/bios_vendor"
    outcome, printed = booted(folder, script)
    assert "vda" not in printed and "eth0" not in printed
    assert ("SeaBIOS" in printed) is (os.uname().machine == "x86_64")
    assert (outcome.applied["domain"]["nics"], outcome.applied["domain"]["extra_disks"]) == ([], [])
