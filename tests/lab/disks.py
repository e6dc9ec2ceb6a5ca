"""What the lab's guest is made of: a root file system that is kept in benchbox's cache, and a job made for each boot.

The root is Debian with libvirt, QEMU, the guest kernel's modules and what benchbox depends on. benchbox itself is in
the job, a tar on a disk of its own: a change of the code makes no new root.
"""

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchbox import images
from benchbox.images import cpio, store, tree
from benchbox.images.kernels import GuestKernel
from benchbox.images.modules import needed
from benchbox.linux.processes import run
from benchbox.model import Availability

PROJECT: Final = Path(__file__).parents[2]
GUEST: Final = Path(__file__).parent / "guest"

SUITE: Final = "bookworm"
#: The Python of that suite: what is installed for it is chosen by this, whatever runs the tests.
PYTHON: Final = "3.11"
PACKAGES: Final = (
    "busybox-static", "kmod", "libvirt-daemon-driver-qemu", "libvirt-daemon-system", "python3", "python3-libvirt",
    "qemu-system-x86", "systemd-sysv", "udev",
)  # fmt: skip
#: Nobody reads them in the lab.
LEFT_OUT: Final = ("doc", "locale", "man", "info")
#: What the lab's kernel must load to find its root, and the disks of the job and of its results.
BOOT_MODULES: Final = ("virtio_pci", "virtio_blk")

_RECIPE_VERSION: Final = 1
_ROOT: Final = "root.ext4"
_ROOT_BYTES: Final = 3 << 30
_MAKE_TIMEOUT_S: Final = 900.0
_PROGRAMS: Final = {
    "qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "chroot": "coreutils",
    "busybox": "busybox-static", "setpriv": "util-linux",
}  # fmt: skip


def availability() -> Availability:
    """Say whether the lab's disks can be made and booted here."""
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        return Availability.no(
            f"not installed: {', '.join(sorted(missing))}", f"apt install {' '.join(sorted(missing))}"
        )
    if os.uname().machine != "x86_64":
        return Availability.no("the lab emulates AMD's virtualisation", "run it on x86_64")
    if os.geteuid() != 0:
        return Availability.no("making the lab's root file system needs root", "run the tests as root")
    return Availability.yes()


@dataclass(frozen=True)
class Disks:
    """What a lab guest boots from. ``root`` is shared and must not be written to."""

    kernel: Path
    initramfs: Path
    root: Path


def kept() -> Disks:
    """Return kernel, initramfs and root from the cache, made where they are not there or not from the same inputs."""
    kernel = images.find_kernel("distribution")
    assert kernel.modules_dir is not None, "the distribution's kernel has no modules"
    key = hashlib.sha256(json.dumps(_inputs(kernel)).encode()).hexdigest()[:32]

    def make(entry: Path) -> None:
        with (entry / "initramfs").open("xb") as output:
            cpio.write(_initramfs(kernel), output)
        _make_root(entry, kernel)
        store.seal(entry, _ROOT)

    entry = store.find_or_make("lab", key, make, valid=lambda entry: store.unseal(entry, _ROOT) is not None)
    return Disks(kernel.path, entry / "initramfs", entry / _ROOT)


def dependencies() -> list[str]:
    """Return what benchbox needs of other Python packages, as pyproject.toml says it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [str(item) for item in project["dependencies"]]


def _inputs(kernel: GuestKernel) -> Sequence[object]:
    scripts = [tree.content_sum(path) for path in sorted(GUEST.iterdir()) if path.name == "initramfs-init"]
    return (_RECIPE_VERSION, SUITE, PYTHON, PACKAGES, LEFT_OUT, BOOT_MODULES, dependencies(), kernel.sha256, scripts)


def _initramfs(kernel: GuestKernel) -> list[tree.Entry]:
    """Return the first root: it loads the modules of the disks and goes on to the real one."""
    assert kernel.modules_dir is not None
    loaded = needed(BOOT_MODULES, kernel.modules_dir)
    busybox = Path(shutil.which("busybox") or "busybox")
    return [
        *map(tree.folder, ("bin", "dev", "modules", "proc", "root", "sys")),
        tree.character_device("dev/console", 5, 1),
        tree.file("bin/busybox", busybox, 0o755),
        tree.file("init", GUEST / "initramfs-init", 0o755),
        *(tree.file(f"modules/{number:02d}-{name}.ko", data) for number, (name, data) in enumerate(loaded)),
    ]


def _make_root(entry: Path, kernel: GuestKernel) -> None:
    root = entry / "tree"
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    bootstrap = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *excluded, SUITE, root]
    run([str(word) for word in bootstrap], timeout_s=_MAKE_TIMEOUT_S)
    _add_kernel(root, kernel)
    install(dependencies(), root / "opt/site")
    run(["chroot", root, "python3", "-m", "compileall", "-q", "/opt/site"], timeout_s=_MAKE_TIMEOUT_S, check=False)
    for name in ("lab", "results"):
        (root / name).mkdir()
    run(["mke2fs", "-q", "-t", "ext4", "-d", root, entry / _ROOT, f"{_ROOT_BYTES >> 10}k"], timeout_s=_MAKE_TIMEOUT_S)
    shutil.rmtree(root)


def _add_kernel(root: Path, kernel: GuestKernel) -> None:
    """Install the lab's kernel as a package does: inside the lab it is the host's own, for guests, too."""
    assert kernel.modules_dir is not None
    shutil.copy(kernel.original, root / f"boot/vmlinuz-{kernel.release}")
    shutil.copytree(kernel.modules_dir, root / "lib/modules" / kernel.release)
    run(["chroot", root, "depmod", kernel.release], timeout_s=_MAKE_TIMEOUT_S)


def install(what: Sequence[str | Path], target: Path) -> None:
    """Install wheels for the lab's Python into ``target``."""
    platforms = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "linux_x86_64")
    chosen = [word for name in platforms for word in ("--platform", name)]
    for_python = ["--implementation", "cp", "--python-version", PYTHON, "--only-binary=:all:", *chosen]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    run([*pip, *for_python, "--target", target, *what], timeout_s=_MAKE_TIMEOUT_S)


def make_job(path: Path, wheel: Path, files: Mapping[str, str | Path]) -> None:
    """Write the disk of a job to ``path``: the benchbox of ``wheel``, the guest's scripts, and ``files`` by name, each
    its text or where it lies."""
    work = path.with_suffix(".d")
    install(["--no-deps", wheel], work / "site")
    for source in GUEST.iterdir():
        shutil.copy(source, work / source.name)
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copy(content, work / name)
        else:
            (work / name).write_text(content)
    with tarfile.open(path, "w") as archive:
        archive.add(work, ".")
    shutil.rmtree(work)
    _pad(path)


def _pad(path: Path) -> None:
    """A disk has whole sectors."""
    with path.open("ab") as disk:
        disk.truncate((disk.tell() + 4095) // 4096 * 4096)


def wheel(folder: Path) -> Path:
    """Return benchbox's wheel: the one that tox has built and installed, else a new one, made in ``folder``."""
    if built := os.environ.get("TOX_PACKAGE"):
        return Path(built)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--wheel-dir", folder, PROJECT], timeout_s=_MAKE_TIMEOUT_S)
    (made,) = folder.glob("benchbox-*.whl")
    return made
