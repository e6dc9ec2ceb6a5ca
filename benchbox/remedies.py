"""Which package of the distribution a host gets a program from: the one table, for hints and for what is installed.

Nothing that is not in it is ever installed for a scenario, whatever the scenario's file names.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from benchbox.model import Availability, SystemPackage

_E2FSPROGS: Final = SystemPackage("e2fsprogs", "e2fsprogs")
_QEMU_UTILS: Final = SystemPackage("qemu-utils", "qemu-img")

#: Program, or file, that a host may lack -> the package that has it. No container engine: what starts a daemon and
#: changes a host's network is its owner's choice.
PACKAGES: Final[Mapping[str, SystemPackage]] = {
    # the formats of an image
    "gzip": SystemPackage("gzip", "gzip"),
    "zstd": SystemPackage("zstd", "zstd"),
    "mksquashfs": SystemPackage("squashfs-tools", "squashfs-tools"),
    "mkfs.erofs": SystemPackage("erofs-utils", "erofs-utils"),
    "qemu-img": _QEMU_UTILS,
    "qemu-io": _QEMU_UTILS,
    # disks of guests
    "mke2fs": _E2FSPROGS,
    "debugfs": _E2FSPROGS,
    # images of the distribution's packages, which Fedora's are not yet
    "mmdebstrap": SystemPackage("mmdebstrap"),
    # oci
    "runc": SystemPackage("runc", "runc"),
    "crun": SystemPackage("crun", "crun"),
    # vm
    "qemu-system-x86_64": SystemPackage("qemu-system-x86", "qemu-system-x86"),
    "qemu-system-aarch64": SystemPackage("qemu-system-arm", "qemu-system-aarch64"),
    "libvirt_driver_qemu.so": SystemPackage("libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu"),
    "libvirt-qemu": SystemPackage("libvirt-daemon-system", "libvirt-daemon-driver-qemu"),
    "qboot.rom": SystemPackage("qemu-system-data", "qemu-system-x86-core"),
    "UEFI for x86_64": SystemPackage("ovmf", "edk2-ovmf"),
    "UEFI for aarch64": SystemPackage("qemu-efi-aarch64", "edk2-aarch64"),
}


def lacking(reason: str, names: Sequence[str], *, otherwise: str = "") -> Availability:
    """Return that what is called ``names`` is missing, with the packages that have it. Pure.

    ``otherwise`` is what else would help; it alone is said of names that no package is known for.
    """
    packages = tuple(dict.fromkeys(PACKAGES[name] for name in names if name in PACKAGES))
    fixes = [fix for fix in (install_hint(packages), otherwise) if fix]
    return Availability(False, reason, ", or ".join(fixes) or f"install {' '.join(names)}", packages)


def called(debian_names: Sequence[str]) -> tuple[SystemPackage, ...]:
    """Return the packages of the table that Debian calls ``debian_names``; others are left out. Pure."""
    return tuple(dict.fromkeys(package for package in PACKAGES.values() if package.debian in debian_names))


def install_hint(packages: Sequence[SystemPackage]) -> str:
    """Return how people install ``packages``, one way a family of distributions; empty for none. Pure."""
    debian = " ".join(package.debian for package in packages)
    fedora = " ".join(dict.fromkeys(package.fedora for package in packages if package.fedora))
    ways = (("Debian, Ubuntu: apt install", debian), ("Fedora: dnf install", fedora))
    return "; ".join(f"{way} {names}" for way, names in ways if names)
