"""The libvirt worker, ``python -m benchbox.virt.worker FD PARENT [NETWORK]``: the only one that imports libvirt.

It moves to the network namespace of the descriptor NETWORK: libvirt finds taps there, and QEMU is born in it.
It answers requests (a JSON object a line) on the socket FD and dies with the process PARENT. Requests have ``id`` and
``op``; replies have that ``id`` and either ``result`` or ``error``:

    open    {uri, emulator, domain_type, machine}   connect, let libvirt learn what the emulator can do
    start   {order}     boot a guest; afterwards events {guest, event: "ready"} and {guest, event: "done", outcome}
    kill    {guest}     end it; its "done" follows
    close   {}          end all guests and leave

At the end of the socket it does what ``close`` does.
"""

import contextlib
import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import libvirt
import libvirt_qemu  # type: ignore[import-not-found, import-untyped, unused-ignore]

from benchbox.errors import BenchboxError, EnvironmentFailure
from benchbox.linux import cgroups, processes, syscalls
from benchbox.linux.clock import monotonic_ns
from benchbox.virt.guest import Guest, Happening
from benchbox.virt.messages import decode, encode, order_from_json, outcome_to_json

_CLOSE_TIMEOUT_S: Final = 25.0

_STOPPED: Final = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "QEMU failed or was killed",
}


class LibvirtDriver:
    """``guest.Driver`` on one connection; libvirt's errors become EnvironmentFailure."""

    def __init__(self, uri: str) -> None:
        self._guests: dict[str, Guest] = {}
        libvirt.registerErrorHandler(lambda context, error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._run_events, name="libvirt-events", daemon=True).start()
        self._connection = _ask(lambda: libvirt.open(uri))
        self._connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)

    def versions(self) -> dict[str, str]:
        """Return the version of libvirt."""
        number = _ask(self._connection.getLibVersion)
        return {"libvirt": f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"}

    def learn(self, emulator: str, domain_type: str, machine: str) -> None:
        """Have libvirt ask the emulator what it can do, or read what it remembers of that."""
        _ask(lambda: self._connection.getDomainCapabilities(emulator, None, machine, domain_type))

    def watch(self, guest: Guest) -> None:
        """Tell ``guest`` from now on what happens to its domain."""
        self._guests[guest.order.spec.name] = guest

    def forget(self, guest: Guest) -> None:
        self._guests.pop(guest.order.spec.name, None)

    def create(self, xml: str) -> None:
        _ask(lambda: self._connection.createXML(xml))

    def live_xml(self, name: str) -> str:
        return str(_ask(lambda: self._connection.lookupByName(name).XMLDesc()))

    def monitor(self, name: str, command: str) -> Mapping[str, Any]:
        request = json.dumps({"execute": command})

        def ask() -> str:
            return str(libvirt_qemu.qemuMonitorCommand(self._connection.lookupByName(name), request, 0))

        answer: dict[str, Any] = json.loads(_ask(ask)).get("return", {})
        return answer

    def destroy(self, name: str) -> None:
        _ask(lambda: self._connection.lookupByName(name).destroy())

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    @staticmethod
    def _run_events() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        guest = self._guests.get(domain.name())
        happened = _happening(event, detail)
        if guest is not None and happened is not None:
            guest.post(*happened)


def _happening(event: int, detail: int) -> tuple[Happening, str] | None:
    if event in (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED):
        return "running", ""
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
        return "stopped", _STOPPED.get(detail, f"stopped, detail {detail}")
    if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
        return "paused", f"paused, detail {detail}"
    if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
        return "paused", "crashed"
    return None


def _ask(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except libvirt.libvirtError as error:
        raise EnvironmentFailure(str(error)) from error


class Worker:
    """Answers requests on one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._layout = cgroups.detect()
        self._driver: LibvirtDriver | None = None
        self._guests: dict[str, tuple[Guest, threading.Thread]] = {}

    def serve(self) -> None:
        """Answer until ``close`` or the end of the socket; then nothing of ours runs any more."""
        with self._connection.makefile("rb") as requests:
            for line in requests:
                request = decode(line)
                self._answer(request)
                if request["op"] == "close":
                    return
        self._close({})

    def _answer(self, request: Mapping[str, Any]) -> None:
        operations: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "open": self._open,
            "start": self._start,
            "kill": self._kill,
            "close": self._close,
        }
        try:
            self._send({"id": request["id"], "result": operations[request["op"]](request)})
        except BenchboxError as error:
            self._send({"id": request["id"], "error": error.message})

    def _open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        started_ns = monotonic_ns()
        self._driver = self._driver or LibvirtDriver(request["uri"])
        opened_ns = monotonic_ns()
        self._driver.learn(request["emulator"], request["domain_type"], request["machine"])
        durations = {"open_ns": opened_ns - started_ns, "capabilities_ns": monotonic_ns() - opened_ns}
        return {"versions": self._driver.versions(), **durations}

    def _start(self, request: Mapping[str, Any]) -> None:
        if self._driver is None:
            raise EnvironmentFailure("no connection to libvirt")
        order = order_from_json(request["order"])
        name = order.spec.name
        guest = Guest(order, self._driver, self._layout, lambda event: self._send({"guest": name, "event": event}))
        thread = threading.Thread(target=self._run, args=(self._driver, guest), name=name)
        self._guests[name] = (guest, thread)
        self._driver.watch(guest)
        thread.start()

    def _run(self, driver: LibvirtDriver, guest: Guest) -> None:
        outcome = guest.run()
        driver.forget(guest)
        name = guest.order.spec.name
        self._guests.pop(name, None)
        self._send({"guest": name, "event": "done", "outcome": outcome_to_json(outcome)})
        # Between guests, so that the collector never stops a thread that stamps.
        gc.collect()

    def _kill(self, request: Mapping[str, Any]) -> None:
        found = self._guests.get(request["guest"])
        if found is not None:
            found[0].kill()

    def _close(self, request: Mapping[str, Any]) -> None:
        running = list(self._guests.values())
        for guest, _ in running:
            guest.kill()
        for _, thread in running:
            thread.join(_CLOSE_TIMEOUT_S)
        if self._driver is not None:
            self._driver.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        # The engine may be gone: then nobody waits for it.
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(encode(message))


def main() -> None:
    descriptor, parent_pid, *networks = map(int, sys.argv[1:])
    processes.die_with_parent(parent_pid)
    for network in networks:  # before there are threads: each has a network namespace of its own
        syscalls.setns(network, syscalls.CLONE_NEWNET)
        os.close(network)
    gc.freeze()
    gc.disable()
    Worker(socket.socket(fileno=descriptor)).serve()
    # libvirt's event thread never ends by itself.
    os._exit(0)


if __name__ == "__main__":
    main()
