"""The kernel of a guest: the host's own where it can be read, else the distribution's, or one that the user names."""

import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchbox.errors import ImageError
from benchbox.images import elf, kernel_image, packages, store, tree
from benchbox.images.kernel_image import KernelFormat
from benchbox.images.modules import GUEST_MODULES, needed
from benchbox.images.store import Progress

KernelSource = Literal["host", "distribution", "path"]

#: Where the host's own kernel is looked for.
HOST_ROOT: Final = Path("/")
_KERNEL_BYTES_MAX: Final = 1 << 30
_VMLINUX: Final = "vmlinux"
_RELEASE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


@dataclass(frozen=True)
class GuestKernel:
    """A kernel that a guest boots.

    ``path`` is what QEMU is given, ``original`` the file that it was made from (the same unless it was unpacked),
    ``sha256`` that of the original. ``version`` is what the kernel says of itself, ``release`` its first word, as
    ``uname -r`` shows it. ``modules_dir`` is its ``/lib/modules/RELEASE`` (None: all it needs is built in).
    ``same_as_host`` is true when release and build are those of the running kernel.
    """

    path: Path
    original: Path
    source: KernelSource
    format: KernelFormat
    release: str
    version: str
    sha256: str
    modules_dir: Path | None
    same_as_host: bool
    package: str | None = None
    package_version: str | None = None


@dataclass(frozen=True)
class _Candidate:
    source: KernelSource
    image: Path
    modules_dir: Path | None
    package: str | None = None
    package_version: str | None = None


def find_kernel(
    choice: str | None = None,
    progress: Progress | None = None,
    *,
    modules_dir: Path | None = None,
    unpack: bool | None = None,
) -> GuestKernel:
    """Return the guest kernel: ``host``, ``distribution``, a path, or (None) the first of the former two to be had.

    ``modules_dir`` belongs to a path; without it a folder ``modules`` beside the kernel, the ``lib/modules`` of the
    tree it is in, or the host's folder of the same release is taken. A bzImage that holds an ELF kernel which can be
    booted is unpacked into the store; with ``unpack`` False it is left as it is, with True one that holds none is an
    error. Raises ImageError.
    """
    if choice is None:
        return _default(progress, unpack)
    if choice == "host":
        return _described(_host(), progress, unpack)
    if choice == "distribution":
        return _described(_distribution(progress), progress, unpack)
    return _described(_chosen(Path(choice), modules_dir), progress, unpack)


def at_hand() -> tuple[KernelSource, Path]:
    """Return source and file of the kernel that guests get by default, if it is there already; makes nothing.

    Raises ImageError that says why there is none; ``packages.obtainable`` says whether one would be downloaded then.
    """
    try:
        return "host", _host().image
    except ImageError:
        cached = packages.cached_image()
        if cached is None:
            raise
        return "distribution", cached


def _default(progress: Progress | None, unpack: bool | None) -> GuestKernel:
    try:
        return _described(_host(), progress, unpack)
    except ImageError as host_error:
        try:
            return _described(_distribution(progress), progress, unpack)
        except ImageError as error:
            raise ImageError(f"no guest kernel: {host_error.message}; {error.message}", hint=error.hint) from error


def _host() -> _Candidate:
    release = os.uname().release
    modules_dir = HOST_ROOT / "lib/modules" / release
    places = (HOST_ROOT / f"boot/vmlinuz-{release}", modules_dir / "vmlinuz")
    image = next((path for path in places if path.is_file() and os.access(path, os.R_OK)), None)
    if image is None or not modules_dir.is_dir():
        missing = f"{modules_dir} is not there" if image else f"{' and '.join(map(str, places))} cannot be read"
        raise ImageError(f"this host's own kernel cannot boot a guest: {missing}")
    needed(GUEST_MODULES, modules_dir)
    return _Candidate("host", image, modules_dir)


def _distribution(progress: Progress | None) -> _Candidate:
    package = packages.kernel_package(progress)
    return _Candidate("distribution", package.image, package.modules_dir, package.name, package.version)


def _chosen(image: Path, modules_dir: Path | None) -> _Candidate:
    if modules_dir is not None and not modules_dir.is_dir():
        raise ImageError(f"{modules_dir}: no such folder of kernel modules")
    with _kernel_file(image) as data:
        release = _release(kernel_image.version_text(data), image)
    trees = (image.parent.parent, HOST_ROOT)
    near = (image.parent / "modules", *(root / "lib/modules" / release for root in trees))
    found = modules_dir or next((folder for folder in near if folder.is_dir()), None)
    return _Candidate("path", image.absolute(), found)


def _described(candidate: _Candidate, progress: Progress | None, unpack: bool | None) -> GuestKernel:
    with _kernel_file(candidate.image) as data:
        kernel_format = kernel_image.identify(data)
        version = kernel_image.version_text(data)
    sha256 = tree.content_sum(candidate.image)
    unpacked = kernel_format == "bzImage" and unpack is not False
    vmlinux = _vmlinux(candidate.image, sha256, progress) if unpacked else None
    if unpack and vmlinux is None and kernel_format != "vmlinux-pvh":
        raise ImageError(
            f"{candidate.image}: no ELF kernel that can be booted is in it", hint="choose the format auto or bzimage"
        )
    host = os.uname()
    return GuestKernel(
        path=vmlinux or candidate.image,
        original=candidate.image,
        source=candidate.source,
        format="vmlinux-pvh" if vmlinux else kernel_format,
        release=_release(version, candidate.image),
        version=version,
        sha256=sha256,
        modules_dir=candidate.modules_dir,
        same_as_host=is_same_build(version, host.release, host.version),
        package=candidate.package,
        package_version=candidate.package_version,
    )


def is_same_build(version: str, host_release: str, host_version: str) -> bool:
    """Say whether a kernel that calls itself ``version`` is the one whose ``uname -r`` and ``uname -v`` are given."""
    return version.startswith(f"{host_release} ") and version.endswith(f" {host_version}")


def _release(version: str, image: Path) -> str:
    """Return a kernel's release by what it says of itself, else by its file name (``vmlinuz-RELEASE``)."""
    for text in (version.partition(" ")[0], image.name.partition("-")[2]):
        if _RELEASE.fullmatch(text):
            return text
    return "unknown"


@contextmanager
def _kernel_file(path: Path) -> Iterator[mmap.mmap]:
    """Yield the contents of the kernel at ``path``; errors inside are ImageErrors that name it."""
    try:
        if not path.is_file() or not 0 < path.stat().st_size <= _KERNEL_BYTES_MAX:
            raise ImageError("no kernel there", hint="give the path of a vmlinuz or vmlinux file")
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}", hint="choose a kernel that this user can read") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error


def _vmlinux(image: Path, sha256: str, progress: Progress | None) -> Path | None:
    """Return the ELF kernel inside a bzImage, unpacked once into the store; None where it cannot be booted as such."""

    def make(entry: Path) -> None:
        if progress is not None:
            progress(f"unpacking {image}")
        reason = _unpack(image, entry / _VMLINUX)
        if reason is not None:
            (entry / _VMLINUX).unlink()
        store.seal(entry, _VMLINUX, {"reason": reason})

    entry = store.find_or_make("vmlinux", sha256, make, valid=lambda entry: store.unseal(entry, _VMLINUX) is not None)
    return entry / _VMLINUX if (entry / _VMLINUX).exists() else None


def _unpack(image: Path, vmlinux: Path) -> str | None:
    """Write the ELF kernel inside ``image`` to ``vmlinux``; return why it cannot be booted as such, None if it can."""
    with vmlinux.open("xb+") as output:
        try:
            with _kernel_file(image) as data:
                kernel_image.unpack_vmlinux(data, output)
        except ImageError as error:
            return error.message
        output.flush()
        with mmap.mmap(output.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            return None if elf.has_pvh_note(contents) else "it has no PVH note"
