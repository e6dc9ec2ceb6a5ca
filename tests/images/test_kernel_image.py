"""Kernels are read as their headers say, and no header leads outside of the file."""

import bz2
import gzip
import io
import lzma
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lz4 import block

from benchbox.errors import ImageError
from benchbox.images import elf, kernel_image
from tests.images.synthetic import VERSION, bzimage, vmlinux


def lz4_legacy(data: bytes) -> bytes:
    """Pack as ``lz4 -l``: blocks of 8 MiB, each after its length."""
    packed = [block.compress(data[at : at + (8 << 20)], store_size=False) for at in range(0, len(data), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(part)) + part for part in packed)


def with_size(packed: bytes, data: bytes) -> bytes:
    """Append the size of the contents, as the kernel's build does for all formats but gzip."""
    return packed + struct.pack("<I", len(data))


KERNEL = vmlinux()
PAYLOADS = {
    "gzip": gzip.compress(KERNEL),
    "xz": with_size(lzma.compress(KERNEL, check=lzma.CHECK_CRC32), KERNEL),
    "lzma": with_size(lzma.compress(KERNEL, lzma.FORMAT_ALONE), KERNEL),
    "bzip2": with_size(bz2.compress(KERNEL), KERNEL),
    "zstd": with_size(zstandard.ZstdCompressor().compress(KERNEL), KERNEL),
    "lz4": with_size(lz4_legacy(KERNEL), KERNEL),
}


def unpacked(image: bytes) -> bytes:
    output = io.BytesIO()
    kernel_image.unpack_vmlinux(image, output)
    return output.getvalue()


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_elf_kernel_is_taken_out_of_a_bzimage(name: str) -> None:
    """Whatever the kernel's build packed it with."""
    assert unpacked(bzimage(PAYLOADS[name])) == KERNEL


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_is_cut_off_is_an_error(name: str) -> None:
    """No part of a kernel passes for a whole one."""
    cut = PAYLOADS[name][: len(PAYLOADS[name]) // 2] + PAYLOADS[name][-4:]
    with pytest.raises(ImageError):
        unpacked(bzimage(cut))


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_with_garbage_in_it_ends_in_an_error_or_a_kernel_of_that_size(name: str) -> None:
    """Never in another exception, never in more than the header says."""
    packed = PAYLOADS[name]
    for at in range(6, len(packed) - 4, max(1, len(packed) // 50)):
        damaged = packed[:at] + b"\xff\xff\xff\xff"[: len(packed) - 4 - at] + packed[at + 4 :]
        try:
            assert len(unpacked(bzimage(damaged))) == len(KERNEL)
        except ImageError:
            continue


def test_a_bomb_stops_at_the_size_it_states() -> None:
    """A stream that would go on is not read on."""
    bomb = gzip.compress(bytes(64 << 20))[:-4] + struct.pack("<I", 4096)
    assert unpacked(bzimage(bomb)) == bytes(4096)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (bzimage(PAYLOADS["lz4"])[:0x240], "cut off in its header"),
        (bzimage(PAYLOADS["lz4"])[:-100], "cut off: its payload"),
        (bzimage(b""), "cut off: its payload"),
        (bzimage(PAYLOADS["lz4"], protocol=0x207), "boot protocol 2.07"),
        (bzimage(b"\x89LZO" + bytes(100)), "compressed in an unknown way"),
        (bzimage(PAYLOADS["zstd"][:-4] + b"\xff\xff\xff\xff"), "compressed in an unknown way"),
        (bzimage(PAYLOADS["xz"][:-4] + struct.pack("<I", len(KERNEL) + 1)), "instead of"),
    ],
    ids=["header", "payload", "empty", "protocol", "lzo", "giant", "short"],
)
def test_a_hostile_or_foreign_bzimage_is_refused_with_its_reason(image: bytes, reason: str) -> None:
    """Every offset and size is checked before it is used."""
    with pytest.raises(ImageError, match=reason):
        unpacked(image)


def test_formats_are_told_apart() -> None:
    """By their magic numbers alone."""
    assert kernel_image.identify(bzimage(b"")) == "bzImage"
    assert kernel_image.identify(KERNEL) == "vmlinux-pvh"
    assert kernel_image.identify(bytes(0x38) + b"ARM\x64" + bytes(8)) == "Image"


def test_an_elf_kernel_without_the_note_is_refused_with_a_remedy() -> None:
    """QEMU cannot enter it."""
    with pytest.raises(ImageError, match="PVH") as caught:
        kernel_image.identify(vmlinux(pvh=False))
    assert "bzImage" in str(caught.value.hint)


@given(st.binary(max_size=2048))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    """Random bytes are no kernel, also behind the magic numbers."""
    for start in (b"", elf.MAGIC + b"\x02\x01", bzimage(b"")[:0x206]):
        try:
            kernel_image.version_text(start + data)
            unpacked(start + data)
        except ImageError:
            continue


@given(st.binary(max_size=300), st.integers(0, 119))
def test_no_damage_to_an_elf_header_breaks_the_reader(data: bytes, at: int) -> None:
    """Offsets and counts of any size are checked."""
    damaged = KERNEL[:at] + data + KERNEL[at + len(data) : 1024]
    assert elf.has_pvh_note(damaged) in (True, False)


def test_a_kernel_says_what_it_is() -> None:
    """A bzImage in its header, an ELF kernel in its banner."""
    assert kernel_image.version_text(bzimage(b"")) == VERSION
    assert kernel_image.version_text(KERNEL) == VERSION
