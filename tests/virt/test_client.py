"""The engine's handle to the libvirt worker, with a worker that only plays it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import processes
from benchbox.linux.cgroups import Layout
from benchbox.virt import client as client_module
from benchbox.virt.client import Client, Connection
from tests.virt.observations import ORDER

PLAYED = Path(__file__).with_name("played_worker.py")


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Return a function that makes a client whose worker does as told; afterwards no worker is left."""
    clients: list[Client] = []

    def make(*doings: str) -> Client:
        connection = Connection("test:///", "/emulator", "q35", tmp_path)
        clients.append(Client(connection, Layout("none"), (sys.executable, str(PLAYED), *doings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    assert not set(processes.with_argument(str(PLAYED))) & set(processes.children(os.getpid()))
    assert not [thread for thread in threading.enumerate() if thread.name == "libvirt-worker"]


def test_an_outcome_comes_back(connect: Callable[..., Client]) -> None:
    """Ready first, then the outcome, output decoded."""
    running = connect("start=ready").start(ORDER)

    assert running.ready()
    outcome = running.wait()
    assert (outcome.status, outcome.output_tail, dict(outcome.stages)) == ("ok", b"out", {"ready": 5})


def test_a_guest_that_ends_without_being_ready_says_so(connect: Callable[..., Client]) -> None:
    """Whoever waits for readiness is told of the end."""
    assert not connect("start=done").start(ORDER).ready()


@pytest.mark.parametrize(
    ("op", "doing", "message"), [("open", "refuse", "no domain"), ("open", "die", "no such thing")]
)
def test_what_libvirt_says_is_raised(connect: Callable[..., Client], op: str, doing: str, message: str) -> None:
    """An error of libvirt, and the last words of a worker that died, reach the user."""
    with pytest.raises(EnvironmentFailure, match=message):
        connect(f"{op}={doing}").open("qemu")


def test_a_worker_that_does_not_answer_is_killed(
    connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request has a deadline."""
    monkeypatch.setattr(client_module, "OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(EnvironmentFailure, match=r"did not answer \(open\) within 0\.3 s"):
        connect("open=hang").open("qemu")


def test_a_guest_whose_worker_forgets_it_is_a_failed_sample_in_time(
    connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that does not come is not waited for without end."""
    monkeypatch.setattr(client_module, "SLACK_S", -ORDER.boot_timeout_s - 60.0 + 0.3)
    running = connect("start=reply").start(ORDER)

    assert not running.ready()
    outcome = running.wait()
    assert (outcome.status, outcome.flags["accelerator"]) == ("failed", "tcg")
    assert "did not end a guest by its deadline" in (outcome.reason or "")


def test_a_worker_that_dies_is_replaced(connect: Callable[..., Client]) -> None:
    """The guest of a dead worker is a failed sample; the next one gets a new worker."""
    client = connect("kill=die")
    first = client.start(ORDER)
    first.kill()
    outcome = first.wait()
    second = client.start(ORDER)
    second.kill()

    assert outcome.status == "failed"
    assert "the libvirt worker ended (exit status 1): libvirt: no such thing" in (outcome.reason or "")
    assert second.wait().status == "failed"


def test_closing_a_worker_that_hangs_does_not_hang(
    connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a session has a deadline, too; closing again does nothing."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT_S", 0.2)
    client = connect("close=hang")
    client.open("qemu")
    started_s = time.monotonic()
    for _ in range(2):
        client.close()

    assert time.monotonic() - started_s < 5


def test_the_worker_survives_the_thread_that_asked_for_it(connect: Callable[..., Client]) -> None:
    """Sessions may be opened from a thread that ends."""
    client, first = connect(), list[object]()
    thread = threading.Thread(target=lambda: first.append(client.open("qemu")["pid"]))
    thread.start()
    thread.join()

    assert [client.open("qemu")["pid"]] == first
