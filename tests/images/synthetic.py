"""Kernels and modules that are nothing but the headers benchbox reads."""

import struct

VERSION = "6.1.0-39-cloud-amd64 (builder@example.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.148-1 (2025-08-26)"


def elf(kind: int, content: bytes) -> bytes:
    """Return a 64-bit ELF file with one segment of type ``kind``."""
    start = 64 + 56
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", kind, 4, start, 0, 0, len(content), len(content), 4)
    return header + segment + content


def note(name: bytes, kind: int, descriptor: bytes) -> bytes:
    padded = [part + bytes(-len(part) % 4) for part in (name, descriptor)]
    return struct.pack("<III", len(name), len(descriptor), kind) + b"".join(padded)


def vmlinux(*, pvh: bool = True) -> bytes:
    """Return an ELF kernel, compressible, larger than one block of any reader."""
    notes = note(b"GNU\0", 3, b"build-id") + note(b"Xen\0", 18 if pvh else 6, bytes(8))
    return elf(4, notes) + f"Linux version {VERSION}\n".encode() + bytes(range(256)) * 8192


def bzimage(payload: bytes, *, protocol: int = 0x20F, version: str = VERSION) -> bytes:
    """Return a bzImage with one setup sector behind the boot sector, and ``payload`` 16 bytes into the kernel."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x300 - 0x200)
    setup[0x300 : 0x300 + len(version)] = version.encode()
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"the checksum behind it"


def module(*depends: str) -> bytes:
    return b"\x7fELF..." + f"license=GPL\0depends={','.join(depends)}\0name=x\0".encode()
