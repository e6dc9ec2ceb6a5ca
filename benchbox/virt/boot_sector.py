"""The least that KVM can be asked: 512 bytes of real-mode code that write to the serial port and leave.

It needs neither libvirt nor a kernel. Where a Linux guest does not boot, it tells a KVM that runs nothing from one that
runs only what a hypervisor around it interprets.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from benchbox import native
from benchbox.errors import BenchboxError
from benchbox.linux import processes

#: What the code says. The firmware says nothing on the serial port.
WORD: Final = b"benchbox"
_TIMEOUT_S: Final = 10.0
_SERIAL_PORT: Final = 0x3F8
_EXIT_PORT: Final = 0xF4
_LOADED_AT: Final = 0x7C00
_SECTOR_BYTES: Final = 512


def sector() -> bytes:
    """Return the boot sector, as firmware loads it to 0x7c00 and jumps there."""
    serial, leave = _SERIAL_PORT.to_bytes(2, "little"), _EXIT_PORT.to_bytes(2, "little")

    def code(text_at: int) -> bytes:
        return b"".join(
            (
                b"\x31\xc0\x8e\xd8",  # xor ax, ax; mov ds, ax
                b"\xbe" + text_at.to_bytes(2, "little"),  # mov si, text
                b"\xba" + serial,  # mov dx, the serial port
                b"\xac\x84\xc0\x74\x03\xee\xeb\xf8",  # next: lodsb; test al, al; jz done; out dx, al; jmp next
                b"\xba" + leave + b"\xee",  # done: mov dx, the exit port; out dx, al
                b"\xfa\xf4\xeb\xfc",  # stay: cli; hlt; jmp stay
            )
        )

    program = code(_LOADED_AT + len(code(0))) + WORD + b"\0"
    return program.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def runs(qemu: str, accelerator: str = "kvm") -> bool | None:
    """Say whether ``qemu`` runs it with ``accelerator``; None where that cannot be tried.

    Only x86 has boot sectors. QEMU dies with this process; its disk is memory of this process.
    """
    program = shutil.which(qemu)
    if program is None or os.uname().machine != "x86_64":
        return None
    disk = os.memfd_create("benchbox-boot-sector")
    try:
        os.write(disk, sector())
        words = _arguments(program, Path("/proc", str(os.getpid()), "fd", str(disk)), accelerator)
        return WORD.decode() in processes.run(words, timeout_s=2 * _TIMEOUT_S, check=False).stdout
    except BenchboxError:
        return None
    finally:
        os.close(disk)


def _arguments(qemu: str, disk: Path, accelerator: str) -> list[str]:
    launch = [str(native.program("launch")), "--die-with-parent", "--deadline", str(round(_TIMEOUT_S * 1000)), "--"]
    machine = ["-accel", accelerator, "-m", "16", "-nodefaults", "-no-user-config", "-no-reboot"]
    devices = ["-display", "none", "-serial", "stdio", "-device", f"isa-debug-exit,iobase={_EXIT_PORT},iosize=1"]
    return [*launch, qemu, *machine, *devices, "-drive", f"file={disk},format=raw,if=ide"]
