"""The guest's kernel: the host's own, else the distribution's, or the one named."""

import os
from pathlib import Path

import pytest

from benchbox.errors import ImageError
from benchbox.images import kernels, packages
from benchbox.images.packages import KernelPackage
from tests.images.synthetic import VERSION, bzimage, module, vmlinux
from tests.images.test_kernel_image import PAYLOADS

RELEASE = "6.1.0-39-cloud-amd64"
BUILD = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.148-1 (2025-08-26)"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that runs the synthetic kernel and has no kernel files, and an empty store."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "HOST_ROOT", tmp_path / "host")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", RELEASE, BUILD, "x86_64")))
    return tmp_path / "host"


def give_host_its_kernel(host: Path) -> Path:
    (host / "boot").mkdir(parents=True)
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(bzimage(PAYLOADS["lz4"]))
    modules = host / "lib/modules" / RELEASE
    modules.mkdir(parents=True)
    for name in ("virtio_pci", "virtio_console"):
        (modules / f"{name}.ko").write_bytes(module())
    return modules


def give_distribution(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    (folder / "vmlinuz").write_bytes(bzimage(PAYLOADS["zstd"]))
    package = KernelPackage("linux-image-x", "6.1-1", folder / "vmlinuz", None)
    monkeypatch.setattr(packages, "kernel_package", lambda progress: package)


def test_the_host_s_own_kernel_is_taken_where_it_can_be_read(host: Path) -> None:
    """Guest and host then run the same build, and the record says so."""
    modules = give_host_its_kernel(host)
    kernel = kernels.find_kernel()
    assert (kernel.source, kernel.release, kernel.version) == ("host", RELEASE, VERSION)
    assert kernel.modules_dir == modules
    assert kernel.same_as_host
    assert kernel.original == host / f"boot/vmlinuz-{RELEASE}"


def test_without_the_host_s_modules_the_distribution_s_kernel_is_taken(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its package and version for the record."""
    (give_host_its_kernel(host) / "virtio_console.ko").unlink()
    give_distribution(monkeypatch, tmp_path / "package")
    kernel = kernels.find_kernel()
    assert (kernel.source, kernel.package, kernel.package_version) == ("distribution", "linux-image-x", "6.1-1")


def test_without_any_kernel_both_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the remedy of the latter."""

    def fail(progress: object) -> KernelPackage:
        raise ImageError("no apt", hint="name one")

    monkeypatch.setattr(packages, "kernel_package", fail)
    with pytest.raises(ImageError, match=r"vmlinuz cannot be read; no apt") as caught:
        kernels.find_kernel()
    assert caught.value.hint == "name one"


def test_a_bzimage_is_unpacked_once_into_the_store(tmp_path: Path, host: Path) -> None:
    """QEMU gets the ELF kernel; a damaged one is unpacked again."""
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(PAYLOADS["xz"]))
    said: list[str] = []
    kernel = kernels.find_kernel(str(image), said.append)
    assert (kernel.format, kernel.original, kernel.source) == ("vmlinux-pvh", image, "path")
    assert kernel.path.read_bytes() == vmlinux()
    assert kernels.find_kernel(str(image), said.append) == kernel
    assert said == [f"unpacking {image}"]
    kernel.path.write_bytes(b"damaged")
    assert kernels.find_kernel(str(image)).path.read_bytes() == vmlinux()


@pytest.mark.parametrize("payload", [b"\x89LZO" + bytes(99), PAYLOADS["lz4"][:-50] + PAYLOADS["lz4"][-4:]])
def test_a_bzimage_that_cannot_be_unpacked_boots_as_it_is(tmp_path: Path, payload: bytes) -> None:
    """Unpacking only saves time; the attempt is made once."""
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(payload))
    said: list[str] = []
    kernel = kernels.find_kernel(str(image), said.append)
    kernels.find_kernel(str(image), said.append)
    assert (kernel.format, kernel.path) == ("bzImage", image)
    assert len(said) == 1


def test_whether_a_bzimage_is_unpacked_can_be_said(tmp_path: Path, host: Path) -> None:
    """Left as it is, or an error where nothing can be unpacked; an ELF kernel needs no unpacking."""
    whole, broken, unpacked = tmp_path / "vmlinuz", tmp_path / "broken", tmp_path / "vmlinux"
    whole.write_bytes(bzimage(PAYLOADS["xz"]))
    broken.write_bytes(bzimage(b"\x89LZO" + bytes(99)))
    unpacked.write_bytes(vmlinux())
    packed = kernels.find_kernel(str(whole), unpack=False)
    assert (packed.format, packed.path) == ("bzImage", whole)
    assert kernels.find_kernel(str(whole), unpack=True).format == "vmlinux-pvh"
    assert kernels.find_kernel(str(unpacked), unpack=True).path == unpacked
    with pytest.raises(ImageError, match="no ELF kernel that can be booted is in it"):
        kernels.find_kernel(str(broken), unpack=True)


def test_a_named_kernel_finds_its_modules_beside_it(tmp_path: Path, host: Path) -> None:
    """Given, in ``modules`` beside it, in the tree that it is in, or the host's of the same release."""
    image = tmp_path / "tree/boot/vmlinux"
    image.parent.mkdir(parents=True)
    image.write_bytes(vmlinux())
    assert kernels.find_kernel(str(image)).modules_dir is None
    for place in (host / "lib/modules" / RELEASE, tmp_path / "tree/lib/modules" / RELEASE, image.parent / "modules"):
        place.mkdir(parents=True)
        assert kernels.find_kernel(str(image)).modules_dir == place
    given = tmp_path / "given"
    with pytest.raises(ImageError, match="no such folder"):
        kernels.find_kernel(str(image), modules_dir=given)
    given.mkdir()
    assert kernels.find_kernel(str(image), modules_dir=given).modules_dir == given


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "pipe"])
def test_what_is_no_kernel_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    """At once, also where reading would block."""
    path = tmp_path / "vmlinuz"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_text("#!/bin/sh\n" * 100 if kind == "text" else "")
    with pytest.raises(ImageError, match=f"{path}: no ") as caught:
        kernels.find_kernel(str(path))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "same"),
    [
        (VERSION, True),
        (VERSION.replace("6.1.148-1", "6.1.147-1"), False),
        (VERSION.replace("6.1.0-39", "6.1.0-38"), False),
        ("", False),
    ],
    ids=["same", "build", "release", "unknown"],
)
def test_same_means_release_and_build(version: str, same: bool) -> None:
    """A rebuilt kernel of the same name is another one."""
    assert kernels.is_same_build(version, RELEASE, BUILD) is same


def test_what_is_at_hand_is_said_without_making_anything(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's kernel first, then a downloaded one; without either the reason why the host's does not do."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "untouched"))
    with pytest.raises(ImageError, match="this host's own kernel cannot boot a guest"):
        kernels.at_hand()
    monkeypatch.setattr(packages, "cached_image", lambda: tmp_path / "cached")
    assert kernels.at_hand() == ("distribution", tmp_path / "cached")
    assert not (tmp_path / "untouched").exists()
