"""What a guest may be asked to be made of, and what this host says to it: nothing is started."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from benchbox.environments import vm
from benchbox.environments.vm import Options
from benchbox.model import Image
from benchbox.virt import accelerator, firmware
from benchbox.virt.accelerator import Proof


def hardware(**options: Any) -> tuple[bool, str, str]:
    offer = vm.hardware(Options(**options))
    return offer.available, offer.reason or "", offer.fix or ""


@pytest.mark.parametrize(
    ("options", "unpack"),
    [
        ({}, None),
        ({"kernel_format": "elf"}, True),
        ({"kernel_format": "bzimage"}, False),
        ({"firmware": "uefi"}, False),
        ({"firmware": "qboot"}, None),
    ],
)
def test_a_kernel_is_unpacked_as_the_format_says_and_the_firmware_needs(
    options: dict[str, Any], unpack: bool | None
) -> None:
    """UEFI starts what has an EFI stub, which an unpacked kernel has not."""
    assert Options(**options).unpack is unpack


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"firmware": "uefi", "kernel_format": "elf"}, "kernel_format: bzimage or auto"),
        ({"firmware": "bios"}, "'default', 'qboot' or 'uefi'"),
        ({"kernel_format": "vmlinux"}, "'auto', 'elf' or 'bzimage'"),
        ({"memory": "12"}, "at least 1MiB"),
        ({"disk": True}, "at least 1MiB"),
        ({"root": "rom"}, "'auto', 'ram' or 'disk'"),
        ({"vcpus": 0}, "greater than or equal to 1"),
        ({"vcpus": 256}, "less than or equal to 255"),
        ({"cpu_model": "a b"}, "pattern"),
        ({"cpu_model": "<x/>"}, "pattern"),
    ],
)
def test_what_no_guest_can_be_is_refused(options: dict[str, Any], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(ValidationError, match=said):
        Options(**options)


@pytest.mark.parametrize(
    ("choice", "size_bytes", "disk"),
    [
        ("auto", 0, False),
        ("auto", vm.RAM_ROOT_BYTES_MAX, False),
        ("auto", vm.RAM_ROOT_BYTES_MAX + 1, True),
        ("ram", 1 << 40, False),
        ("disk", 0, True),
    ],
)
def test_a_root_is_on_a_disk_where_that_is_asked_for_or_it_is_large(
    choice: vm.RootChoice, size_bytes: int, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory otherwise."""
    monkeypatch.setattr("benchbox.images.content_bytes", lambda image: size_bytes)
    assert vm.on_disk(choice, Image("some", "0" * 64, Path("/"))) is disk


def test_sizes_are_read_as_people_write_them() -> None:
    """As in ``resources``."""
    options = Options.model_validate({"memory": "1GiB", "disk": 1 << 26})
    assert (options.memory, options.disk) == (1 << 30, 64 << 20)


def test_the_default_guest_needs_nothing_more() -> None:
    """Firmware, card and disk of one's own are looked for only where they are asked for."""
    assert hardware() == (True, "", "")


def test_a_machine_that_libvirt_cannot_describe_says_why() -> None:
    """microvm has no PCI bus."""
    available, reason, fix = hardware(machine="microvm")
    assert not available
    assert "No PCI buses available" in reason
    assert "q35" in fix


@pytest.mark.parametrize(("choice", "package"), [("uefi", "ovmf"), ("qboot", "qemu-system-data")])
def test_a_firmware_that_is_not_installed_names_its_package(
    choice: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A skip with its remedy."""
    monkeypatch.setattr(firmware, "find", lambda *asked: None)
    available, reason, fix = hardware(firmware=choice)
    assert not available
    assert reason
    assert package in fix


@pytest.mark.parametrize(("backends", "available"), [("socket\nuser\ntap\n", True), ("socket\ntap\n", False)])
def test_a_network_card_needs_user_networking(backends: str, available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some distributions build QEMU without."""

    def run(words: Sequence[str], **how: Any) -> SimpleNamespace:
        assert list(words) == [f"qemu-system-{os.uname().machine}", "-netdev", "help"]
        return SimpleNamespace(stdout=f"Available netdev backend types:\n{backends}")

    monkeypatch.setattr("benchbox.environments.vm.processes.run", run)
    assert hardware(nic=True)[0] is available


def test_devices_come_with_their_drivers() -> None:
    """What the guest's kernel loads for each."""
    assert vm._modules(Options()) == ("virtio_pci", "virtio_console")
    assert vm._modules(Options(nic=True, disk=1 << 20))[2:] == ("virtio_net", "virtio_blk")


def remember(folder: Path, found: Literal["kvm", "tcg"], **facts: Any) -> None:
    """Note what a guest of ``facts`` was proven to run on."""
    accelerator.remembered(folder, {**FACTS, **facts}, lambda: Proof(found, "tried"))


FACTS: dict[str, Any] = {
    "guest_kernel": "a", "guest_format": "vmlinux-pvh", "machine": "q35", "firmware": "default", "cpu_model": None,
    "cmdline": "",
}  # fmt: skip


def test_a_guest_of_another_make_is_not_tried_where_the_default_one_was_in_vain(tmp_path: Path) -> None:
    """It would hang until its deadline like that one, once for each make."""
    other = {**FACTS, "machine": "pc", "guest_format": "bzImage"}
    assert vm._tried_in_vain(tmp_path, other) is None
    remember(tmp_path, "tcg", firmware="qboot")
    assert vm._tried_in_vain(tmp_path, other) is None
    remember(tmp_path, "tcg", guest_kernel="b")
    assert vm._tried_in_vain(tmp_path, other) is None
    remember(tmp_path, "tcg")
    assert vm._tried_in_vain(tmp_path, other) == Proof("tcg", "tried")


def test_a_guest_of_another_make_is_tried_where_the_default_one_boots(tmp_path: Path) -> None:
    """KVM works: whether it does for this one only its own boot can tell."""
    remember(tmp_path, "kvm")
    assert vm._tried_in_vain(tmp_path, {**FACTS, "machine": "pc"}) is None
