"""Which firmware a guest starts with, and where this host has it.

UEFI images are found by the descriptors that come with them (QEMU's docs/interop/firmware.json): JSON files that say
for which architecture and machines an image is, and how QEMU is to be given it.
"""

import fnmatch
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchbox.virt.domain import MACHINE_FAMILIES, LoaderType

#: ``default`` is what the machine has by itself: SeaBIOS for q35 and pc.
FirmwareChoice = Literal["default", "qboot", "uefi"]

_QEMU_DATA: Final = ("/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/qemu-kvm")
_QBOOT: Final = "qboot.rom"
_QBOOT_ARCHITECTURE: Final = "x86_64"

#: Features of a descriptor that rule it out: such an image boots signed kernels only, or needs a machine for itself.
_UNWANTED: Final = frozenset({"secure-boot", "enrolled-keys", "requires-smm"})


@dataclass(frozen=True)
class Firmware:
    """An image, and as what QEMU is given it; nothing is ever written to it."""

    path: str
    loader: LoaderType


def find(choice: FirmwareChoice, arch: str, machine: str) -> Firmware | None:
    """Return the firmware of ``choice`` for such a guest; None for one that this host does not have.

    Not for ``default``, which needs none.
    """
    if choice == "qboot":
        return _qboot(arch)
    descriptors = (_content(path) for path in descriptor_files(_descriptor_folders()))
    found = (uefi_image(each, arch, machine) for each in descriptors)
    return next((firmware for firmware in found if firmware and Path(firmware.path).is_file()), None)


def uefi_image(descriptor: Any, arch: str, machine: str) -> Firmware | None:
    """Return the UEFI image that ``descriptor`` names for such a guest; None if it names none, or is no descriptor."""
    try:
        fits = "uefi" in descriptor["interface-types"] and _UNWANTED.isdisjoint(descriptor["features"])
        mapping = descriptor["mapping"]
        if not fits or mapping["device"] != "flash" or not _is_for(descriptor["targets"], arch, machine):
            return None
        image = mapping["executable"]
        return Firmware(str(image["filename"]), "pflash") if image["format"] == "raw" else None
    except (KeyError, TypeError):
        return None


def descriptor_files(folders: Iterable[Path]) -> list[Path]:
    """Return the descriptors in ``folders`` in the order of their names; an earlier folder's hides one of that name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob("*.json"):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def _is_for(targets: Iterable[Mapping[str, Any]], arch: str, machine: str) -> bool:
    """Descriptors name versions of machines (``pc-q35-*``), scenarios mostly an alias (``q35``)."""
    names = (machine, f"{MACHINE_FAMILIES.get(machine, machine)}-")
    patterns = [pattern for target in targets if target["architecture"] == arch for pattern in target["machines"]]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _descriptor_folders() -> Iterator[Path]:
    home = os.environ.get("XDG_CONFIG_HOME")
    yield Path(home) / "qemu/firmware" if home else Path.home() / ".config/qemu/firmware"
    yield from (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _qboot(arch: str) -> Firmware | None:
    places = (Path(folder, _QBOOT) for folder in _QEMU_DATA)
    image = next((path for path in places if path.is_file()), None)
    return Firmware(str(image), "rom") if image and arch == _QBOOT_ARCHITECTURE else None
