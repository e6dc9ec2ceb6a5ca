"""What a kernel file says about itself, and how to take the ELF kernel out of a bzImage.

The bzImage's header is described in the kernel's Documentation/arch/x86/boot.rst (offsets below are from there), the
arm64 Image's in Documentation/arch/arm64/booting.rst. Every offset comes from the file and is checked before use.
"""

import re
import struct
from typing import BinaryIO, Final, Literal

from benchbox.errors import ImageError
from benchbox.images import compression, elf
from benchbox.images.elf import Buffer

#: What QEMU is given: an ELF kernel entered through its PVH note, a compressed x86 kernel, an arm64 kernel.
KernelFormat = Literal["vmlinux-pvh", "bzImage", "Image"]

_SECTOR_BYTES: Final = 512
_HEADER_BYTES: Final = 0x250
_PAYLOAD_PROTOCOL: Final = 0x0208
_VMLINUX_BYTES_MAX: Final = 1 << 30
_BANNER: Final = re.compile(rb"Linux version (\d[^\n\0]{0,400})")


def identify(data: Buffer) -> KernelFormat:
    """Return the format of a kernel file. Raises ImageError for one that QEMU cannot boot directly."""
    if data[:4] == elf.MAGIC:
        if not elf.has_pvh_note(data):
            raise ImageError("an ELF kernel without a PVH note", hint="take the bzImage (vmlinuz) of the same kernel")
        return "vmlinux-pvh"
    if data[0x1FE:0x200] == b"\x55\xaa" and data[0x202:0x206] == b"HdrS":
        if len(data) < _HEADER_BYTES:
            raise ImageError("a bzImage that is cut off in its header")
        return "bzImage"
    if data[0x38:0x3C] == b"ARM\x64" or data[4:8] == b"zimg":
        return "Image"
    raise ImageError("no Linux kernel: neither bzImage nor ELF", hint="give the path of a vmlinuz or vmlinux file")


def version_text(data: Buffer) -> str:
    """Return what a kernel calls itself, as in ``6.1.0-39-cloud-amd64 (builder) #1 SMP ...``; empty if it does not."""
    if identify(data) == "bzImage":
        start = 0x200 + struct.unpack_from("<H", data, 0x20E)[0]
        text = bytes(data[start : start + 512]).partition(b"\0")[0] if start > 0x200 else b""
    else:
        match = _BANNER.search(data)
        text = match[1] if match else b""
    return text.decode(errors="replace").strip()


def unpack_vmlinux(data: Buffer, output: BinaryIO) -> None:
    """Write the ELF kernel inside a bzImage to ``output``. Raises ImageError when there is none or it is broken.

    The last four bytes of the payload are the size of its contents (for gzip they are the format's own).
    """
    payload = _payload(data)
    size_bytes = int.from_bytes(payload[-4:], "little")
    if not compression.is_packed(payload) or not 0 < size_bytes <= _VMLINUX_BYTES_MAX:
        raise ImageError("a bzImage whose payload is compressed in an unknown way")
    written_bytes = sum(map(output.write, compression.unpacked(payload, limit_bytes=size_bytes)))
    if written_bytes != size_bytes:
        raise ImageError(f"a bzImage whose payload holds {written_bytes} bytes instead of {size_bytes}")


def _payload(data: Buffer) -> bytes:
    if identify(data) != "bzImage":
        raise ImageError("no bzImage")
    (protocol,) = struct.unpack_from("<H", data, 0x206)
    if protocol < _PAYLOAD_PROTOCOL:
        raise ImageError(f"a bzImage of boot protocol {protocol >> 8}.{protocol & 0xFF:02d}, which names no payload")
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or 4) + 1) * _SECTOR_BYTES + offset
    if length < 4 or start + length > len(data):
        raise ImageError("a bzImage that is cut off: its payload ends behind the end of the file")
    return data[start : start + length]
