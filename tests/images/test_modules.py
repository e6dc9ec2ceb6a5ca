"""Modules come after what they depend on, uncompressed, and only where they are not built in."""

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from benchbox.errors import ImageError
from benchbox.images import modules
from tests.images.synthetic import module

#: ``depends=`` of Debian's 6.1.0-39-cloud-amd64, as modinfo shows it.
RECORDED = {
    "virtio_console": ("virtio_ring", "virtio"),
    "virtio_pci": ("virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio"),
    "virtio_pci_legacy_dev": (),
    "virtio_pci_modern_dev": (),
    "virtio": ("virtio_ring",),
    "virtio_ring": (),
}


def kernel_folder(folder: Path) -> Path:
    """Make a ``/lib/modules/RELEASE`` with one module of each kind of compression."""
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "kernel/drivers/virtio_ring.ko").write_bytes(module())
    (folder / "kernel/drivers/virtio.ko.xz").write_bytes(lzma.compress(module("virtio_ring"), check=lzma.CHECK_CRC32))
    packed = zstandard.ZstdCompressor().compress(module("virtio", "pci-lib"))
    (folder / "kernel/drivers/virtio-pci.ko.zst").write_bytes(packed)
    (folder / "kernel/drivers/virtio_console.ko.gz").write_bytes(gzip.compress(module("virtio", "virtio_ring")))
    (folder / "modules.builtin").write_text("kernel/lib/pci-lib.ko\nkernel/drivers/tty/hvc.ko\n")
    return folder


def test_a_distribution_s_virtio_modules_load_in_this_order() -> None:
    """Each once, after its own dependencies."""
    assert modules.load_order(("virtio_pci", "virtio_console"), RECORDED.__getitem__) == [
        "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio", "virtio_pci", "virtio_console",
    ]  # fmt: skip


def test_modules_that_need_each_other_are_an_error() -> None:
    """Never an endless loop."""
    with pytest.raises(ImageError, match="a -> b -> a"):
        modules.load_order(["a"], {"a": ("b",), "b": ("a",)}.__getitem__)


def test_needed_modules_are_unpacked_whatever_they_are_compressed_with(tmp_path: Path) -> None:
    """The guest loads plain ELF files; what is built in is left out."""
    assert modules.needed(("virtio_pci", "virtio_console"), kernel_folder(tmp_path)) == [
        ("virtio_ring", module()),
        ("virtio", module("virtio_ring")),
        ("virtio_pci", module("virtio", "pci-lib")),
        ("virtio_console", module("virtio", "virtio_ring")),
    ]


def test_a_kernel_with_everything_built_in_needs_nothing(tmp_path: Path) -> None:
    """``modules.builtin`` settles it."""
    assert modules.needed(["hvc"], kernel_folder(tmp_path)) == []


def test_an_updated_module_replaces_the_kernel_s_own(tmp_path: Path) -> None:
    """As depmod's default search order has it."""
    folder = kernel_folder(tmp_path)
    (folder / "updates").mkdir()
    (folder / "updates/virtio_ring.ko").write_bytes(module() + b"newer")
    assert modules.needed(["virtio_ring"], folder) == [("virtio_ring", module() + b"newer")]


def test_a_missing_module_is_named_with_its_folder(tmp_path: Path) -> None:
    """The user can see which kernel lacks what."""
    with pytest.raises(ImageError, match=f"{tmp_path}: the guest's kernel module virtio_blk is missing"):
        modules.needed(["virtio_blk"], kernel_folder(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no module", lzma.compress(module())[:-20]], ids=["empty", "text", "cut"])
def test_a_broken_module_is_named(tmp_path: Path, content: bytes) -> None:
    """Its path is in the message."""
    folder = kernel_folder(tmp_path)
    (folder / "kernel/drivers/broken.ko.xz").write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.ko\.xz: "):
        modules.needed(["broken"], folder)
