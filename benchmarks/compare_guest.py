"""What does benchbox add to the start of a guest, beside libvirt and QEMU?

    sudo python benchmarks/compare_guest.py [ROUNDS [auto|kvm|tcg]]

The time from the request to the first byte that the guest's first process writes to the serial line, three ways:

- benchbox's session, its cgroups, stamps and channels included, as the record of a run has it;
- guest_by_libvirt.py, which does nothing but ``createXML`` and wait for that byte;
- QEMU started by hand.

Why it is fair: kernel, initramfs, command line, memory, CPU model, devices and the CPU that confines QEMU are the same
(the domain's XML is the one that benchbox's session would use next, but for the names of domain, sockets and cgroup).
What each does once only (connecting, asking the emulator for its capabilities) is done before. Each round does all
three in random order, one at a time, and the next begins when the last guest has gone; the first round does not count.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import bench

from benchbox import images
from benchbox.environments import environment
from benchbox.environments.vm import VmSession
from benchbox.linux.clock import monotonic_ns
from benchbox.linux.state import cache_folder
from benchbox.model import Command, EnvironmentSpec, Resources
from benchbox.units import format_cpu_list
from benchbox.virt import private_root
from benchbox.virt.channels import AGENT_BYTE
from benchbox.virt.domain import CHANNELS, PORTS, SERIAL, GuestSpec, domain_xml

OURS, LIBVIRT, BY_HAND = "benchbox", "a script that calls createXML", "QEMU by hand"
MOST_RATIO = 1.1
MOST_ABOVE_S = 0.6
PATIENCE_S = 60.0


@contextmanager
def libvirt_script(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Yield the script, connected to a private driver below ``root`` like benchbox's own."""
    private_root.make(root, cache_folder() / "libvirt")
    words = [sys.executable, str(Path(__file__).with_name("guest_by_libvirt.py")), private_root.uri(root), *CHANNELS]
    env = {**os.environ, "LIBVIRT_LOG_OUTPUTS": f"3:file:{root}/libvirt.log"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as script:
        yield script
        assert script.stdin
        script.stdin.close()


def by_session(session: VmSession) -> float:
    outcome = session.start(Command(("/bin/ready",))).wait()
    assert outcome.status == "ok", outcome.reason
    return outcome.stages["agent"] - outcome.requested_ns


def by_libvirt(script: "subprocess.Popen[str]", spec: GuestSpec) -> float:
    assert script.stdin and script.stdout
    path = Path(spec.sockets, "domain.xml")
    path.write_text(domain_xml(spec))
    script.stdin.write(f"{path}\n")
    script.stdin.flush()
    return float(script.stdout.readline())  # no number: the script has said on standard error why it ended


def by_hand(spec: GuestSpec) -> float:
    """Start QEMU, wait for the byte, kill it."""
    requested_ns = monotonic_ns()
    with ExitStack() as stack:
        listeners = {channel: stack.enter_context(socket.socket(socket.AF_UNIX)) for channel in CHANNELS}
        for channel, listener in listeners.items():
            listener.bind(str(spec.socket(channel)))
            listener.listen()
        qemu = stack.enter_context(subprocess.Popen(qemu_words(spec), env=dict(spec.environment)))
        stack.callback(qemu.kill)
        listeners[SERIAL].settimeout(PATIENCE_S)
        serial = stack.enter_context(listeners[SERIAL].accept()[0])
        serial.settimeout(PATIENCE_S)
        while AGENT_BYTE not in (data := serial.recv(4096)):
            assert data, "QEMU has gone"
        return monotonic_ns() - requested_ns


def qemu_words(spec: GuestSpec) -> list[str]:
    """Return the command that one would type for the guest of ``spec``."""
    cpu = ",-".join(["host", *spec.disabled_features]) if spec.domain_type == "kvm" else "max"
    words = [spec.emulator, "-nodefaults", "-no-user-config", "-display", "none", "-M", f"{spec.machine},usb=off"]
    words += ["-accel", "kvm" if spec.domain_type == "kvm" else "tcg", "-cpu", cpu, "-smp", str(spec.vcpus)]
    words += ["-m", str(spec.memory_bytes >> 20), "-kernel", spec.kernel, "-initrd", spec.initramfs]
    words += ["-append", spec.full_cmdline, "-device", "virtio-serial-pci,bus=pcie.0,addr=0x5"]
    words += ["-chardev", f"socket,id={SERIAL},path={spec.socket(SERIAL)}", "-serial", f"chardev:{SERIAL}"]
    for port in PORTS:
        words += ["-chardev", f"socket,id={port},path={spec.socket(port)}"]
        words += ["-device", f"virtserialport,chardev={port},name=benchbox.{port}"]
    return words


class Specs:
    """Guests like the session's next one, each with sockets in a folder of its own and no cgroup."""

    def __init__(self, session: VmSession, folder: Path) -> None:
        self._session, self._folder = session, folder

    def next(self) -> GuestSpec:
        spec = self._session._orders.next(None, self._session._hardware).spec
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        where = {"BENCHBOX_CPUS": format_cpu_list(spec.cpus)}
        return replace(spec, name=f"{spec.name}-compared", sockets=str(self._folder), environment=where)


def measure(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in random.sample(list(steps), len(steps)):
            took_ns = steps[name]()
            if number:
                seen[name].append(took_ns)
    return seen


def main(rounds: int, accelerator: str) -> None:
    image, spec = images.open_image("minimal"), EnvironmentSpec("vm", "vm", {"accelerator": accelerator})
    with bench.reaping(), bench.workspace() as workspace, ExitStack() as stack:
        session = stack.enter_context(environment("vm").open(spec, image, Resources(), workspace))
        assert isinstance(session, VmSession)
        script = stack.enter_context(libvirt_script(workspace.runtime / "peer"))
        specs = Specs(session, workspace.runtime / "sockets")
        seen = measure(
            {
                OURS: lambda: by_session(session),
                LIBVIRT: lambda: by_libvirt(script, specs.next()),
                BY_HAND: lambda: by_hand(specs.next()),
            },
            rounds,
        )
        used = session.applied()["accelerator"]
    print(bench.table(f"guest ({used}), request to its first byte", seen))
    print(bench.ratio_line(f"{OURS} / {LIBVIRT}", seen[OURS], seen[LIBVIRT], MOST_RATIO))
    above_s = (median(seen[OURS]) - median(seen[BY_HAND])) / 1e9
    print(f"  {OURS} - {BY_HAND} = {above_s:.3f} s   (at most {MOST_ABOVE_S:g} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2] if len(sys.argv) > 2 else "auto")
