"""The life of a guest with a driver that only plays libvirt and QEMU: no root, no hypervisor, no cgroup."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups
from benchbox.linux.cgroups import CgroupPlan, Layout
from benchbox.model import Command, Outcome
from benchbox.virt import guest as guest_module
from benchbox.virt.domain import CHANNELS
from benchbox.virt.frames import Decoder, Frame
from benchbox.virt.guest import Guest
from benchbox.virt.messages import GuestOrder
from benchbox.virt.sockets import Sockets
from tests.virt.observations import ORDER

LIVE = """<domain type="qemu"><memory unit="KiB">262144</memory><vcpu cpuset="1">1</vcpu>
<os><type machine="pc-q35-7.2">hvm</type><kernel>/kernel</kernel></os></domain>"""
END = b"exit_code=0\0run_ns=5\0"
FACTS = b"output_bytes=3\0cpus_online=0\0oom_kills=0\0"

Script = Callable[["PlayedGuest"], None]


class PlayedGuest:
    """libvirt, QEMU and the guest in one: ``script`` is what the guest does once it runs."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.folder, self._script = folder, script
        self.guest: Guest | None = None
        self.channels: dict[str, socket.socket] = {}
        self.hangs = False
        self.killed = threading.Event()
        self._decoder, self._frames = Decoder(), list[Frame]()

    # what the guest does

    def say(self, kind: bytes, payload: bytes = b"") -> None:
        self.channels["control"].sendall(Frame(kind, payload).encoded())

    def hear(self) -> Frame:
        while not self._frames:
            self._frames += self._decoder.feed(self.channels["control"].recv(65536))
        return self._frames.pop(0)

    def boot(self) -> None:
        self.channels["serial"].sendall(b"\1")
        self.say(b"H", b"protocol=1\0")
        assert self.hear().kind == b"R"

    def finish(self, end: bytes = END, facts: bytes = FACTS, said: threading.Event | None = None) -> None:
        self.say(b"D", end)
        self.channels["output"].sendall(b"out")
        self.say(b"O", facts)
        if said:
            said.set()
        while self.hear().kind == b"P":
            self.say(b"p")
        self.stop("shut down")

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()

    def stop(self, detail: str) -> None:
        self.close()
        assert self.guest is not None
        self.guest.post("stopped", detail)

    # what libvirt does

    def create(self, xml: str) -> None:
        for channel in CHANNELS:
            self.channels[channel] = socket.socket(socket.AF_UNIX)
            self.channels[channel].connect(str(self.folder / f"{channel}.sock"))
        assert self.guest is not None
        self.guest.post("running")
        threading.Thread(target=self._play, daemon=True).start()

    def _play(self) -> None:
        with contextlib.suppress(OSError):
            self._script(self)

    def live_xml(self, name: str) -> str:
        return LIVE

    def monitor(self, name: str, command: str) -> Mapping[str, Any]:
        answers: dict[str, Mapping[str, Any]] = {
            "query-kvm": {"enabled": False, "present": True},
            "query-status": {"status": "internal-error"},
        }
        return answers[command]

    def destroy(self, name: str) -> None:
        raise EnvironmentFailure("cannot")

    def on_kill(self, plan: CgroupPlan) -> None:
        if not self.hangs and not self.killed.is_set():
            self.killed.set()
            self.stop("QEMU failed or was killed")


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    """Return a function that plays one guest and returns its outcome."""
    monkeypatch.setattr(guest_module, "END_TIMEOUT_S", 0.3)
    folder = tmp_path / "s1"

    def run(script: Script, order: GuestOrder = ORDER, hangs: bool = False, driver: Any = None) -> Outcome:
        played = driver or PlayedGuest(folder, script)
        played.hangs = hangs
        monkeypatch.setattr(cgroups, "kill", played.on_kill)
        guest = Guest(replace(order, spec=replace(order.spec, sockets=str(folder))), played, Layout("none"))
        played.guest = guest
        outcome = guest.run()
        played.close()
        assert not folder.exists()
        return outcome

    yield run


def good(guest: PlayedGuest) -> None:
    guest.boot()
    guest.say(b"X")
    guest.channels["ready"].sendall(b"!")
    guest.finish()


def test_a_ready_byte_that_is_read_with_the_end_is_before_it(
    play: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host was busy between its wake-up for exec and its look at the channel: ready and end were there by then."""
    booted, said, read = threading.Event(), threading.Event(), Sockets._read

    def read_late(sockets: Sockets, connection: socket.socket, at_ns: int) -> bool:
        if booted.is_set() and sockets._open[connection] == "control":
            assert said.wait(10)
        return read(sockets, connection, at_ns)

    def hasty(guest: PlayedGuest) -> None:
        guest.boot()
        booted.set()
        guest.say(b"X")
        guest.channels["ready"].sendall(b"!")
        guest.finish(said=said)

    monkeypatch.setattr(Sockets, "_read", read_late)
    outcome = play(hasty)

    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.stages["ready"] <= outcome.stages["exited"]


def test_a_good_guest_is_ok_with_its_output(play: Callable[..., Outcome]) -> None:
    """The whole exchange: byte, hello, request, exec, ready, end, output, pings, power-off."""
    outcome = play(good)

    assert (outcome.status, outcome.reason) == ("ok", None)
    assert list(outcome.stages) == ["cgroups", "started", "agent", "exec", "ready", "exited", "cleaned"]
    assert outcome.output_tail == b"out"
    assert outcome.applied["channel_latency_ns"] > 0


def test_a_ready_byte_before_exec_makes_the_sample_invalid(play: Callable[..., Outcome]) -> None:
    """Stages out of order are said, whatever they look like."""
    ready = threading.Event()

    def script(guest: PlayedGuest) -> None:
        guest.boot()
        guest.channels["ready"].sendall(b"!")
        ready.wait(0.1)
        guest.say(b"X")
        guest.finish()

    outcome = play(script)
    assert (outcome.status, outcome.reason) == ("invalid", "stages out of order: ready came before exec")


def test_a_refusal_of_libvirt_is_the_reason(play: Callable[..., Outcome], tmp_path: Path) -> None:
    """What createXML says reaches the user."""

    class Refusing(PlayedGuest):
        def create(self, xml: str) -> None:
            raise EnvironmentFailure("unsupported configuration: machine")

    outcome = play(good, driver=Refusing(tmp_path / "s1", good))
    assert outcome.reason == "libvirt could not start the guest: unsupported configuration: machine"


def test_foreign_bytes_on_the_control_port_end_the_guest(play: Callable[..., Outcome]) -> None:
    """A guest that does not speak the agent's protocol is a failed sample at once."""

    def script(guest: PlayedGuest) -> None:
        guest.channels["control"].sendall(b"login: \xff\xff\xff")

    outcome = play(script)
    assert outcome.status == "failed"
    assert "not its protocol" in (outcome.reason or "")


@pytest.mark.parametrize(
    ("end", "facts"),
    [
        (b"exit_code=0\0run_ns=" + b"9" * 5000, FACTS),
        (END, b"output_bytes=" + b"9" * 5000),
        (END, b"output_bytes=3\0steal_ms=" + b"9" * 5000),
        (END, b"output_bytes=3\0cpus_online=0-4000000000"),
    ],
)
def test_a_number_that_nothing_has_ends_the_guest_at_once(
    end: bytes, facts: bytes, play: Callable[..., Outcome]
) -> None:
    """A failed sample with its reason, and not a thread that died of it while others wait for the guest."""

    def script(guest: PlayedGuest) -> None:
        guest.boot()
        guest.say(b"X")
        guest.channels["ready"].sendall(b"!")
        guest.finish(end, facts)

    began = time.monotonic()
    outcome = play(script)
    assert time.monotonic() - began < 5
    assert outcome.status == "failed"
    assert "not its protocol" in (outcome.reason or "")


def test_a_fault_of_our_own_ends_the_guest_as_well(
    play: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the guest hears of it."""

    def broken(*_: object) -> None:
        raise RuntimeError("not thought of")

    monkeypatch.setattr(guest_module.Guest, "_on_console", broken)
    outcome = play(good)
    assert (outcome.status, outcome.reason) == ("failed", "benchbox itself failed: RuntimeError('not thought of')")


def test_a_paused_guest_is_a_failed_sample_with_qemus_word(play: Callable[..., Outcome], tmp_path: Path) -> None:
    """An internal error of KVM pauses the guest: QEMU's state and its log are in the reason."""
    log = tmp_path / "log"
    log.write_text("-S \\\n-msg timestamp=on\nKVM internal error. Suberror: 1\nemulation failure\n")

    def script(guest: PlayedGuest) -> None:
        assert guest.guest is not None
        guest.guest.post("paused", "detail 0")

    outcome = play(script, replace(ORDER, log=str(log)))
    assert outcome.reason == (
        "QEMU stopped the guest before the agent's first byte: internal-error; "
        "QEMU says: KVM internal error. Suberror: 1; emulation failure"
    )


def test_a_qemu_that_cannot_be_ended_does_not_hang_the_worker(play: Callable[..., Outcome]) -> None:
    """After its deadline a guest is given up; the first reason stays."""
    outcome = play(lambda guest: None, replace(ORDER, boot_timeout_s=0.05), hangs=True)

    assert outcome.status == "failed"
    assert (outcome.reason or "").startswith("the guest hung")


def test_a_guest_that_does_not_power_off_is_a_failed_sample(
    play: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a guest is part of the sample."""
    monkeypatch.setattr(guest_module, "FINISH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(PlayedGuest, "stop", _stop_unless_asked)

    outcome = play(good)
    assert (outcome.status, outcome.reason) == ("failed", "the guest did not power off within 0.1 s")


def _stop_unless_asked(guest: PlayedGuest, detail: str) -> None:
    if detail != "shut down":
        assert guest.guest is not None
        guest.guest.post("stopped", detail)


def test_output_that_never_comes_whole_is_a_failed_sample(
    play: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent says how much there is; less is not the command's output."""
    monkeypatch.setattr(guest_module, "FINISH_TIMEOUT_S", 0.1)

    def script(guest: PlayedGuest) -> None:
        guest.boot()
        guest.say(b"X")
        guest.channels["ready"].sendall(b"!")
        guest.finish(facts=b"output_bytes=4\0")

    assert play(script).reason == "the guest's output did not end within 0.1 s"


def test_a_guest_that_goes_with_a_complaint_is_told_by_it(play: Callable[..., Outcome]) -> None:
    """What kernel or agent wrote last says more than that QEMU has gone."""

    def script(guest: PlayedGuest) -> None:
        guest.channels["serial"].sendall(b"\1\nbenchbox agent: cannot mount /image/proc: No such device\n")
        guest.stop("shut down")

    assert play(script).reason == "the guest's agent gave up: cannot mount /image/proc: No such device"


def test_a_proof_ends_at_the_agents_byte(play: Callable[..., Outcome]) -> None:
    """Without a command the guest is ended as soon as its first process runs; nothing of that is a failure."""

    def script(guest: PlayedGuest) -> None:
        guest.channels["serial"].sendall(b"\1")

    outcome = play(script, replace(ORDER, command=None))
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert list(outcome.stages) == ["cgroups", "started", "agent", "cleaned"]


def test_news_of_readiness_reaches_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's client is told once, while the command still runs."""
    told: list[str] = []
    order = replace(ORDER, spec=replace(ORDER.spec, sockets=str(tmp_path / "s1")), command=Command(("/bin/server",)))
    played = PlayedGuest(tmp_path / "s1", good)
    played.guest = Guest(order, played, Layout("none"), told.append)
    played.guest.run()
    played.close()

    assert told == ["ready"]
