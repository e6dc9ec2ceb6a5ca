"""The least that a script does to have a guest from libvirt; compare_guest.py drives it and says why.

    python guest_by_libvirt.py URI CHANNEL...

Each line that it reads names the file of a domain's XML; it answers with the ns to the guest's first byte. The script
listens on ``<channel>.sock`` beside the file, QEMU connects; the first channel is the serial line.
"""

import socket
import sys
import threading
import time
from pathlib import Path

import libvirt


def run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=run_events, daemon=True).start()
connection = libvirt.open(sys.argv[1])
for line in sys.stdin:
    xml = Path(line.strip())
    requested_ns = time.monotonic_ns()
    sockets = [socket.socket(socket.AF_UNIX) for _ in sys.argv[2:]]
    for channel, listener in zip(sys.argv[2:], sockets, strict=True):
        listener.bind(str(xml.with_name(f"{channel}.sock")))
        listener.listen()
    domain = connection.createXML(xml.read_text())
    serial, _ = sockets[0].accept()
    serial.settimeout(60)
    while b"\1" not in (data := serial.recv(4096)):
        assert data, "QEMU has gone"
    print(time.monotonic_ns() - requested_ns, flush=True)
    domain.destroy()
    for used in (serial, *sockets):
        used.close()
