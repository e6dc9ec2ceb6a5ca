"""A server in an environment and a client outside that puts load on it: one sample.

The server is started, says that it can be asked, and goes on; the client runs to its end on a CPU of its own; the
server is ended. What the client printed is the output of the sample. What it took is in the account, apart: the number
of a client that has no CPU time left says how fast the client is, not the server.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from benchbox.errors import BenchboxError
from benchbox.model import Command, Counter, Link, LinkedSession, Outcome, Running, Session
from benchbox.units import NS_PER_S

#: From this share of its CPU on a client counts as the one that limits.
CLIENT_BOUND_SHARE: Final = 0.8
#: Flags of a sample.
CLIENT_BOUND: Final = "client_bound"
CLIENT_CPU: Final = "client_cpu"
SHARE_COUNTER: Final = "client.cpu.share"
#: What is said of a server that was to stay.
LEFT: Final = "the server ended by itself, while its client ran"

ClientCommand = Callable[[str], Command]


class Clients(Protocol):
    """Starts clients. ``shares_cpu`` says that their CPU is one that environments use as well."""

    @property
    def shares_cpu(self) -> bool: ...

    def start(self, command: Command, link: Link) -> Running: ...


class Served:
    """One server with one client; implements ``model.Running``.

    The thread that makes it must be the one that waits for it: what it starts dies with it (PR_SET_PDEATHSIG).
    """

    def __init__(self, session: Session, command: Command, client: ClientCommand, clients: Clients) -> None:
        self._link = session.link if isinstance(session, LinkedSession) else None
        self._client, self._clients = client, clients
        self._timeout_s = command.timeout_s
        self._lock, self._killed = threading.Lock(), False
        self._running: list[Running] = []
        self._server = self._started(session.start(replace(command, serves=True)))

    def ready(self) -> bool:
        return self._server.ready()

    def wait(self) -> Outcome:
        """Block until client and server have ended; see ``combined``."""
        if self._link is None or not self._server.ready():
            self._server.kill()
            found = self._server.wait()
            return _without_link(found) if self._link is None else _never_ready(found)
        outcomes: list[Outcome] = []
        # It may print more than a pipe takes while the client runs.
        listener = threading.Thread(target=lambda: outcomes.append(self._server.wait()), name="server")
        listener.start()
        try:
            command = replace(self._client(self._link.address), timeout_s=self._timeout_s)
            asked = self._asked(command, self._link)
            left = bool(outcomes)
        finally:
            self._server.kill()
            listener.join()
        server = outcomes[0]
        if left and server.status == "ok":
            server = replace(server, status="failed", reason=LEFT)
        return combined(server, asked, command.argv, shares_cpu=self._clients.shares_cpu)

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            running = list(self._running)
        for one in running:
            one.kill()

    def _asked(self, command: Command, link: Link) -> Outcome:
        try:
            return self._started(self._clients.start(command, link)).wait()
        except BenchboxError as error:
            return Outcome("failed", f"cannot be started: {error}")

    def _started(self, running: Running) -> Running:
        with self._lock:
            self._running.append(running)
            killed = self._killed
        if killed:
            running.kill()
        return running


def combined(server: Outcome, client: Outcome, argv: Sequence[str], *, shares_cpu: bool = False) -> Outcome:
    """Return server and client as one outcome: the server's, with the client's output and account. Pure.

    A server that failed explains a client that did, so its reason comes first.
    """
    share = client_share(client)
    flags = dict(server.flags)
    if share is not None and share > CLIENT_BOUND_SHARE:
        flags[CLIENT_BOUND] = "yes"
    if shares_cpu:
        flags[CLIENT_CPU] = "shared"
    told = {"argv": list(argv), "cpus": client.applied.get("cpus") or client.applied.get("affinity")}
    counters = [replace(counter, name=f"client.{counter.name}") for counter in client.counters]
    if share is not None:
        counters.append(Counter(SHARE_COUNTER, share, "1", "cpu.usage of the client, its run time"))
    found = replace(
        server, flags=flags, counters=(*server.counters, *counters), applied={**server.applied, "client": told}
    )
    if server.status != "ok":
        return found
    if client.status != "ok":
        return replace(
            found, status=client.status, reason=f"the client: {client.reason}", output_tail=client.output_tail
        )
    return replace(found, output_tail=client.output_tail)


def client_share(client: Outcome) -> float | None:
    """Return how much of one CPU the client took from its exec to its end, None where nothing says so. Pure."""
    used = next((counter.value for counter in client.counters if counter.name == "cpu.usage"), None)
    begin_ns, end_ns = client.stages.get("exec"), client.stages.get("exited")
    if used is None or begin_ns is None or end_ns is None or end_ns <= begin_ns:
        return None
    return used / ((end_ns - begin_ns) / NS_PER_S)


def _never_ready(server: Outcome) -> Outcome:
    if server.status != "ok":
        return server
    return replace(server, status="failed", reason="the server ended before it could be asked")


def _without_link(server: Outcome) -> Outcome:
    return replace(server, status="failed", reason="the environment has no link by which a client could reach it")
