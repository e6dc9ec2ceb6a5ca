"""The engine's handle to the libvirt worker. Every wait has a deadline: a worker that hangs is killed.

Imports no libvirt. When the worker is gone, for whatever reason, what its guests have left is ended and removed here,
and the next guest gets a new worker.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups, processes, removal
from benchbox.linux.cgroups import Layout
from benchbox.model import Outcome
from benchbox.virt import guest
from benchbox.virt.messages import GuestOrder, decode, encode, order_to_json, outcome_from_json

#: libvirt asks an emulator that it does not know yet what it can do: about 1.5 s, 10 times that on a bad host.
OPEN_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 30.0
REQUEST_TIMEOUT_S: Final = 10.0
#: What the worker may need beyond the deadlines that it keeps itself.
SLACK_S: Final = guest.FINISH_TIMEOUT_S + guest.END_TIMEOUT_S + 4 * guest.ASK_TIMEOUT_S + 5.0

#: How the worker is started; the number of its socket and of this process follow.
PROGRAM: Final = (sys.executable, "-P", "-m", "benchbox.virt.worker")

_LOG_TAIL_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Connection:
    """What a worker is to connect to, and what its guests are made with; ``folder`` takes the worker's logs.

    ``network`` is a descriptor of the network namespace that it lives in, None for that of this process: QEMU's tap has
    to be opened there.
    """

    uri: str
    emulator: str
    machine: str
    folder: Path
    network: int | None = None


@dataclass
class _Pending:
    """Somebody's wait for the worker."""

    done: threading.Event = field(default_factory=threading.Event)
    ready: threading.Event = field(default_factory=threading.Event)
    became_ready: bool = False
    message: dict[str, Any] = field(default_factory=dict)

    def announce(self) -> None:
        self.became_ready = True
        self.ready.set()

    def finish(self, message: dict[str, Any]) -> None:
        self.message = message
        self.ready.set()
        self.done.set()


class Client:
    """Starts guests in a libvirt worker; ``start`` and the guests' methods may be called from several threads."""

    def __init__(self, connection: Connection, layout: Layout, program: Sequence[str] = PROGRAM) -> None:
        self.connection = connection
        self._layout, self._program = layout, program
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def open(self, domain_type: str) -> dict[str, Any]:
        """Start a worker if none lives, and return its versions and what connecting took (ns).

        Raises EnvironmentFailure, with what libvirt says.
        """
        with self._lock:
            if self._worker is None or self._worker.dead.is_set():
                self._worker = _Worker(self.connection, self._program)
            return self._opened(self._worker, domain_type)

    def start(self, order: GuestOrder) -> "RunningGuest":
        """Ask for the guest of ``order`` and return at once. Raises EnvironmentFailure if no worker can be had."""
        with self._lock:
            worker = self._worker
            if worker is None or worker.dead.is_set():
                worker = self._worker = _Worker(self.connection, self._program)
                self._opened(worker, order.spec.domain_type)
        return RunningGuest(order, worker, worker.start(order), self._layout)

    def _opened(self, worker: "_Worker", domain_type: str) -> dict[str, Any]:
        asked = {"uri": self.connection.uri, "emulator": self.connection.emulator, "machine": self.connection.machine}
        return worker.request("open", {**asked, "domain_type": domain_type}, OPEN_TIMEOUT_S)

    def close(self) -> None:
        """End all guests and the worker; what does not end by itself is killed."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(EnvironmentFailure):
                worker.request("close", {}, CLOSE_TIMEOUT_S)
            worker.end("closed")


class _Worker:
    """One worker process and the thread that reads what it says."""

    def __init__(self, connection: Connection, program: Sequence[str]) -> None:
        self.dead = threading.Event()
        self.reason = ""
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Pending] = {}
        self._guests: dict[str, _Pending] = {}
        self._log, self._libvirt_log = connection.folder / "worker.log", connection.folder / "libvirt.log"
        self._networks = () if connection.network is None else (connection.network,)
        self._program = program
        self._socket, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        started = threading.Event()
        # The worker dies with the *thread* that started it (PR_SET_PDEATHSIG), so that is one that stays.
        self._thread = threading.Thread(target=self._live, args=(theirs, started), name="libvirt-worker", daemon=True)
        self._thread.start()
        started.wait()

    def request(self, op: str, fields: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the worker's answer. Raises EnvironmentFailure when it is an error or does not come in time."""
        number, pending = next(self._numbers), _Pending()
        self._requests[number] = pending
        if self.dead.is_set():
            pending.finish({"error": self.reason})
        self._send({"id": number, "op": op, **fields})
        if not pending.done.wait(timeout_s):
            self.end(f"libvirt did not answer ({op}) within {timeout_s:g} s")
            pending.done.wait()
        if "error" in pending.message:
            raise EnvironmentFailure(pending.message["error"])
        return pending.message.get("result") or {}

    def start(self, order: GuestOrder) -> _Pending:
        """Ask for a guest; its wait ends with the outcome, or with an error when the worker dies.

        Raises EnvironmentFailure when the worker cannot start it.
        """
        pending = self._guests[order.spec.name] = _Pending()
        self.request("start", {"order": order_to_json(order)}, REQUEST_TIMEOUT_S)
        return pending

    def kill_guest(self, name: str) -> None:
        self._send({"id": 0, "op": "kill", "guest": name})

    def end(self, reason: str) -> None:
        """Kill the worker process; every wait ends with ``reason``."""
        self.reason = self.reason or reason
        if self._process is not None:
            self._process.kill()
        self._thread.join(REQUEST_TIMEOUT_S)

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(encode(message))

    def _live(self, theirs: socket.socket, started: threading.Event) -> None:
        try:
            self._spawn(theirs)
            started.set()
            self._listen()
        except EnvironmentFailure as error:
            self.reason = error.message
        finally:
            theirs.close()
            started.set()
            self._bury()

    def _spawn(self, theirs: socket.socket) -> None:
        passed = (theirs.fileno(), *self._networks)
        words = [*self._program, str(theirs.fileno()), str(os.getpid()), *map(str, self._networks)]
        # libvirt's own log takes its errors, not the user's terminal; its warnings come with every guest.
        env = {**os.environ, "LIBVIRT_LOG_OUTPUTS": f"4:file:{self._libvirt_log}"}
        with self._log.open("ab") as log:
            self._process = processes.spawn(words, stderr=log, stdout=log, pass_fds=passed, env=env)
        theirs.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._take(decode(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "guest" in message:
            pending = self._guests.get(message["guest"])
            if pending is not None and message["event"] == "done":
                del self._guests[message["guest"]]
                pending.finish(message)
            elif pending is not None:
                pending.announce()
        elif (waiting := self._requests.pop(message["id"], None)) is not None:
            waiting.finish(message)

    def _bury(self) -> None:
        if self._process is not None:
            status = self._process.wait()
            self.reason = self.reason or self._epitaph(status)
        self.dead.set()
        self._socket.close()
        for pending in (*self._requests.values(), *self._guests.values()):
            pending.finish({"error": self.reason})

    def _epitaph(self, status: int) -> str:
        """Say how the worker ended, and the last line that it wrote (of a traceback: the exception)."""
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        end = f"the libvirt worker ended ({processes.describe_status(status)})"
        return f"{end}: {lines[-1][:_LOG_TAIL_CHARACTERS]}" if lines else end


class RunningGuest:
    """One guest on its way; implements ``model.Running``."""

    def __init__(self, order: GuestOrder, worker: _Worker, pending: _Pending, layout: Layout) -> None:
        self._order, self._worker, self._pending, self._layout = order, worker, pending, layout
        timeout_s = order.command.timeout_s if order.command else 0.0
        self._deadline_s = time.monotonic() + order.boot_timeout_s + timeout_s + SLACK_S

    def ready(self) -> bool:
        self._pending.ready.wait(max(0.0, self._deadline_s - time.monotonic()))
        return self._pending.became_ready

    def wait(self) -> Outcome:
        if not self._pending.done.wait(max(0.0, self._deadline_s - time.monotonic())):
            self._worker.end("the libvirt worker did not end a guest by its deadline")
            self._pending.done.wait()
        if "outcome" in self._pending.message:
            return outcome_from_json(self._pending.message["outcome"])
        self._clean()
        accelerator = "kvm" if self._order.spec.domain_type == "kvm" else "tcg"
        return Outcome("failed", self._pending.message["error"], flags={"accelerator": accelerator})

    def kill(self) -> None:
        self._worker.kill_guest(self._order.spec.name)

    def _clean(self) -> None:
        """End and remove what a worker that died could not."""
        plan = self._order.cgroups(self._layout)
        cgroups.kill(plan)
        for pid in processes.with_argument(f"{self._order.spec.sockets}/"):
            processes.end(pid)
        with contextlib.suppress(EnvironmentFailure):
            cgroups.remove(plan)
        removal.try_remove(Path(self._order.spec.sockets))
