"""The distribution's own guest kernel: downloaded by apt, which checks its signature, and unpacked, not installed."""

import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox.errors import EnvironmentFailure, ImageError
from benchbox.images import store
from benchbox.images.store import Progress
from benchbox.linux import removal
from benchbox.linux.processes import run
from benchbox.model import Availability

#: The package whose dependencies name the current kernel for guests, by ``platform.machine()``.
PACKAGES: Final = {"x86_64": "linux-image-cloud-amd64", "aarch64": "linux-image-cloud-arm64"}

_OTHER_KERNEL: Final = "or give the vm environment the path of a kernel with `kernel:`"
_IMAGE: Final = "vmlinuz"
_PART: Final = re.compile(r"linux-(?:image|modules|binary)-[a-z0-9.+-]+")
_QUERY_TIMEOUT_S: Final = 60.0
_DOWNLOAD_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True)
class KernelPackage:
    """An unpacked kernel package in the store; ``modules_dir`` is None where it has no modules."""

    name: str
    version: str
    image: Path
    modules_dir: Path | None


def kernel_package(progress: Progress | None = None) -> KernelPackage:
    """Return this distribution's kernel for guests, downloading it unless an earlier run did.

    What the store has is kept even when the distribution has a newer one: runs stay comparable. Raises ImageError.
    """
    meta = PACKAGES.get(platform.machine())
    if meta is None:
        raise ImageError(f"no guest kernel package is known for {platform.machine()}", hint=_OTHER_KERNEL[3:])
    folder = store.find_or_make("kernels", meta, lambda entry: _make(entry, meta, progress), valid=_is_whole)
    facts = store.unseal(folder, _IMAGE) or {}
    modules = folder / "modules"
    modules_dir = modules if modules.is_dir() else None
    return KernelPackage(str(facts["name"]), str(facts["version"]), folder / _IMAGE, modules_dir)


def cached_image() -> Path | None:
    """Return the kernel that ``kernel_package`` would return without downloading; None if it would have to."""
    meta = PACKAGES.get(platform.machine())
    entry = store.entry_path("kernels", meta) if meta else None
    return entry / _IMAGE if entry and _is_whole(entry) else None


def obtainable() -> Availability:
    """Say, without asking any server, whether ``kernel_package`` can download a kernel here."""
    meta = PACKAGES.get(platform.machine())
    if meta is None:
        return Availability.no(f"no guest kernel package is known for {platform.machine()}", _OTHER_KERNEL[3:])
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            return Availability.no(f"{program} is not installed: no kernel can be downloaded", _OTHER_KERNEL[3:])
    return Availability.yes()


def _is_whole(entry: Path) -> bool:
    return (store.unseal(entry, _IMAGE) or {}).keys() >= {"name", "version"}


def _make(entry: Path, meta: str, progress: Progress | None) -> None:
    if progress is not None:
        progress(f"downloading a guest kernel: the distribution's package {meta}")
    try:
        parts = _resolve(meta)
        unpacked = _download(parts, entry)
    except EnvironmentFailure as error:
        hint = f"check that apt can download ({error.hint or '`apt-get update`'}), {_OTHER_KERNEL}"
        raise ImageError(f"no guest kernel from the distribution: {error.message}", hint=hint) from error
    _keep(unpacked, entry)
    store.seal(entry, _IMAGE, dict(zip(("name", "version"), parts[0], strict=True)))


def _resolve(meta: str) -> list[tuple[str, str]]:
    """Return (package, version) of the kernel that ``meta`` stands for and of its parts, the image first."""
    parts: dict[str, str] = {}
    waiting = list(kernel_dependencies(_show(meta)))
    while waiting:
        name = waiting.pop(0)
        if name not in parts:
            text = _show(name)
            parts[name] = field(text, "Version")
            waiting += kernel_dependencies(text)
    if not parts:
        raise ImageError(f"package {meta} names no kernel", hint=f"run `apt-get update`, {_OTHER_KERNEL}")
    return list(parts.items())


def _show(package: str) -> str:
    argv = ["apt-cache", "show", "--no-all-versions", package]
    return run(argv, timeout_s=_QUERY_TIMEOUT_S, env={"LC_ALL": "C"}).stdout


def kernel_dependencies(text: str) -> tuple[str, ...]:
    """Return the kernel packages that one package description (deb822) depends on, the first of each choice."""
    first_choices = (choice.partition("|")[0].split() for choice in field(text, "Depends").split(","))
    names = (words[0].partition(":")[0] for words in first_choices if words)
    return tuple(name for name in names if _PART.fullmatch(name))


def field(text: str, name: str) -> str:
    """Return the value of the first one-line field ``name`` in a package description; empty if it has none."""
    match = re.search(rf"^{re.escape(name)}:[ \t]*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _download(parts: Sequence[tuple[str, str]], entry: Path) -> Path:
    """Download the packages ``parts`` and return the folder in ``entry`` that they are unpacked into."""
    downloads, unpacked = entry / "download", entry / "unpacked"
    downloads.mkdir()
    names = [f"{name}={version}" for name, version in parts]
    run(["apt-get", "download", *names], timeout_s=_DOWNLOAD_TIMEOUT_S, env={"LC_ALL": "C"}, cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        run(["dpkg-deb", "--extract", package, unpacked], timeout_s=_DOWNLOAD_TIMEOUT_S)
    return unpacked


def _keep(unpacked: Path, entry: Path) -> None:
    """Keep image and modules of an unpacked kernel, remove the rest."""
    images = [path for path in unpacked.glob("boot/vmlinu[xz]-*") if path.is_file() and not path.is_symlink()]
    if not images:
        raise ImageError("the distribution's kernel package has no kernel in /boot", hint=_OTHER_KERNEL[3:])
    images[0].rename(entry / _IMAGE)
    for modules in (*unpacked.glob("lib/modules/*"), *unpacked.glob("usr/lib/modules/*")):
        if (modules / "kernel").is_dir() and not (entry / "modules").exists():
            modules.rename(entry / "modules")
    for folder in (entry / "download", unpacked):
        removal.remove(folder)
