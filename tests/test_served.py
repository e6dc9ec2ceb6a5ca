"""A server and its client as one sample, with environments and clients that exist only here."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.model import Command, Counter, Link, Outcome, Running
from benchbox.served import CLIENT_BOUND, LEFT, SHARE_COUNTER, Served, client_share, combined
from tests.played import PlayedSession

LINK = Link("bridge", "veth", "198.18.0.2")
SERVER = Outcome(
    "ok", stages={"exec": 5, "ready": 9}, counters=(Counter("cpu.usage", 1.5, "s", "x"),), output_tail=b"log"
)
ASKED = ("/bin/ask", LINK.address)


def client(used_s: float = 0.5, **changes: Any) -> Outcome:
    stages = {"exec": 1_000_000_000, "exited": 3_000_000_000}
    counters = (Counter("cpu.usage", used_s, "s", "cgroup1 cpuacct.usage"),)
    return replace(
        Outcome("ok", stages=stages, counters=counters, output_tail=b"rate=1", applied={"cpus": "0"}), **changes
    )


class Played:
    """A command that runs until it is ended, or ends by itself."""

    def __init__(self, outcome: Outcome, log: list[str], name: str, *, stays: bool = False) -> None:
        self.outcome, self.log, self.name = outcome, log, name
        self.ended = threading.Event()
        if not stays:
            self.ended.set()

    def ready(self) -> bool:
        return "ready" in self.outcome.stages

    def wait(self) -> Outcome:
        assert self.ended.wait(10)
        self.log.append(f"{self.name} has ended")
        return self.outcome

    def kill(self) -> None:
        self.log.append(f"{self.name} is ended")
        self.ended.set()


class Session(PlayedSession):
    def __init__(self, server: Played, link: Link | None = LINK) -> None:
        self.server, self.link = server, link
        self.started: list[Command] = []

    def start(self, command: Command) -> Running:
        self.started.append(command)
        return self.server


class Clients:
    shares_cpu = False

    def __init__(self, running: Played | None) -> None:
        self.running, self.asked = running, [Command(())]

    def start(self, command: Command, link: Link) -> Running:
        if self.running is None:
            raise EnvironmentFailure("no more processes")
        self.asked.append(command)
        return self.running


def served(session: Session, clients: Clients) -> Outcome:
    command = Command(("/bin/serve",), stays=True, timeout_s=7)
    return Served(session, command, lambda address: Command(("/bin/ask", address)), clients).wait()


def test_the_client_runs_while_the_server_is_there_and_then_that_is_ended() -> None:
    """What the client printed is the sample's output; it has the sample's deadline."""
    log: list[str] = []
    clients = Clients(Played(client(), log, "client"))
    found = served(Session(Played(SERVER, log, "server", stays=True)), clients)
    assert log == ["client has ended", "server is ended", "server has ended"]
    assert (found.status, found.output_tail, found.stages) == ("ok", b"rate=1", SERVER.stages)
    assert clients.asked[-1] == Command(("/bin/ask", "198.18.0.2"), timeout_s=7)


def test_what_a_client_asks_is_started_as_a_server() -> None:
    """By that environments know who is to have their link; the rest of the command is the workload's."""
    session = Session(Played(SERVER, [], "server", stays=True))
    served(session, Clients(Played(client(), [], "client")))
    assert session.started == [Command(("/bin/serve",), stays=True, timeout_s=7, serves=True)]


def test_a_server_that_leaves_early_failed() -> None:
    """Whatever its client says, which ends after it."""

    class Later(Played):
        def wait(self) -> Outcome:
            for thread in threading.enumerate():
                if thread.name == "server":
                    thread.join(10)
            return super().wait()

    found = served(Session(Played(SERVER, [], "server")), Clients(Later(client(), [], "client")))
    assert found.status == "failed" and found.reason == LEFT


def test_a_server_that_never_was_ready_is_not_asked() -> None:
    """Its own reason is the sample's."""
    broken = Outcome("failed", "exit status 1", output_tail=b"cannot bind")
    clients = Clients(None)
    found = served(Session(Played(broken, [], "server")), clients)
    assert (found.reason, found.output_tail, len(clients.asked)) == ("exit status 1", b"cannot bind", 1)
    early = served(Session(Played(Outcome("ok"), [], "server")), clients)
    assert (early.status, early.reason) == ("failed", "the server ended before it could be asked")


def test_a_client_that_fails_or_cannot_be_started_is_the_reason() -> None:
    """The server is ended all the same."""
    for played, reason in (
        (
            Played(client(status="failed", reason="exit status 1", output_tail=b"refused"), [], "client"),
            "exit status 1",
        ),
        (None, "cannot be started: no more processes"),
    ):
        log: list[str] = []
        found = served(Session(Played(SERVER, log, "server", stays=True)), Clients(played))
        assert (found.status, found.reason) == ("failed", f"the client: {reason}")
        assert log == ["server is ended", "server has ended"]


def test_an_environment_without_a_link_is_not_asked() -> None:
    """There is no way to it."""
    found = served(Session(Played(SERVER, [], "server", stays=True), None), Clients(None))
    assert found.reason == "the environment has no link by which a client could reach it"


def test_a_sample_that_is_ended_ends_both() -> None:
    """Also what is started after that."""
    log: list[str] = []
    one = Served(
        Session(Played(SERVER, log, "server", stays=True)),
        Command(("/bin/serve",), stays=True),
        lambda address: Command(ASKED),
        Clients(Played(client(), log, "client", stays=True)),
    )
    one.kill()
    one.wait()
    assert "client is ended" in log and log.count("server has ended") == 1


def test_the_client_s_account_stands_beside_the_server_s() -> None:
    """Under names of its own, with the share of its CPU that it took."""
    found = combined(SERVER, client(0.5), ASKED)
    counters = {counter.name: counter.value for counter in found.counters}
    assert counters == {"cpu.usage": 1.5, "client.cpu.usage": 0.5, SHARE_COUNTER: 0.25}
    assert found.applied["client"] == {"argv": list(ASKED), "cpus": "0"}
    assert found.flags == {}


@pytest.mark.parametrize(("used_s", "flags"), [(1.59, {}), (1.61, {CLIENT_BOUND: "yes"}), (2.0, {CLIENT_BOUND: "yes"})])
def test_a_client_that_takes_more_than_80_percent_of_its_cpu_is_flagged(used_s: float, flags: dict[str, str]) -> None:
    """Over 2 s."""
    assert combined(SERVER, client(used_s), ASKED).flags == flags


def test_a_client_without_a_cpu_of_its_own_is_flagged() -> None:
    """It takes from the server what it uses."""
    assert combined(SERVER, client(), ASKED, shares_cpu=True).flags == {"client_cpu": "shared"}


def test_a_share_that_nothing_tells_is_none() -> None:
    """A client that never ran has no share."""
    assert client_share(client()) == 0.25
    assert client_share(client(counters=())) is None
    assert client_share(client(stages={"exec": 5})) is None
    assert client_share(client(stages={"exec": 5, "exited": 5})) is None
