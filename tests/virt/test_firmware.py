"""Which firmware a guest starts with: descriptors as distributions ship them, and what is no descriptor."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchbox.virt import firmware
from benchbox.virt.firmware import Firmware, descriptor_files, uefi_image

DESCRIPTOR: dict[str, Any] = {
    "description": "UEFI firmware",
    "interface-types": ["uefi"],
    "mapping": {
        "device": "flash",
        "executable": {"filename": "/fw/CODE.fd", "format": "raw"},
        "nvram-template": {"filename": "/fw/VARS.fd", "format": "raw"},
    },
    "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
    "features": ["acpi-s3", "verbose-dynamic"],
    "tags": [],
}


def descriptor(**changes: Any) -> dict[str, Any]:
    return {**deepcopy(DESCRIPTOR), **changes}


@pytest.mark.parametrize("machine", ["q35", "pc", "pc-q35-7.2"])
def test_an_image_is_found_for_a_machine_by_alias_or_version(machine: str) -> None:
    """And is given as flash."""
    assert uefi_image(DESCRIPTOR, "x86_64", machine) == Firmware("/fw/CODE.fd", "pflash")


@pytest.mark.parametrize(
    "other",
    [
        descriptor(features=["secure-boot", "requires-smm"]),
        descriptor(features=["enrolled-keys"]),
        descriptor(targets=[{"architecture": "aarch64", "machines": ["virt-*"]}]),
        descriptor(targets=[{"architecture": "x86_64", "machines": ["microvm"]}]),
        descriptor(mapping={"device": "memory", "filename": "/fw/x"}),
        descriptor(mapping={"device": "flash", "executable": {"filename": "/fw/x", "format": "qcow2"}}),
        descriptor(**{"interface-types": ["bios"]}),
        {},
        {"interface-types": None},
        [],
        None,
        "text",
    ],
)
def test_what_does_not_fit_or_is_no_descriptor_is_passed_over(other: Any) -> None:
    """Secure boot starts signed kernels only; other forms of images are not raw flash."""
    assert uefi_image(other, "x86_64", "q35") is None


def test_an_administrators_descriptor_hides_the_distributions_of_that_name(tmp_path: Path) -> None:
    """The names decide the order, whatever the folder."""
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    for folder, name in ((etc, "60-x.json"), (usr, "60-x.json"), (usr, "50-y.json"), (usr, "README")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert descriptor_files((etc, usr, tmp_path / "none")) == [usr / "50-y.json", etc / "60-x.json"]


def test_an_image_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor may stay when its image goes, and may be broken."""
    folder = tmp_path / "qemu/firmware"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    missing, there = str(tmp_path / "missing.fd"), tmp_path / "code.fd"
    for number, filename in ((2, missing), (3, str(there))):
        executable = {"filename": filename, "format": "raw"}
        text = json.dumps(descriptor(mapping={"device": "flash", "executable": executable}))
        (folder / f"{number}.json").write_text(text)
    monkeypatch.setattr(firmware, "_descriptor_folders", lambda: [folder])
    assert firmware.find("uefi", "x86_64", "q35") is None
    there.touch()
    assert firmware.find("uefi", "x86_64", "q35") == Firmware(str(there), "pflash")


def test_qboot_is_for_one_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where QEMU's data has it."""
    monkeypatch.setattr(firmware, "_QEMU_DATA", (str(tmp_path),))
    assert firmware.find("qboot", "x86_64", "q35") is None
    (tmp_path / "qboot.rom").touch()
    assert firmware.find("qboot", "x86_64", "q35") == Firmware(str(tmp_path / "qboot.rom"), "rom")
    assert firmware.find("qboot", "aarch64", "virt") is None
