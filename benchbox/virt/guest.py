"""One guest from its request until nothing of it is left. Runs in the libvirt worker, a thread a guest.

The thread that reads the guest's sockets stamps what arrives, with the host's CLOCK_MONOTONIC, right after it wakes.
``createXML`` blocks in a thread beside it, libvirt's events come from a third: both post into the guest's mailbox.
Whatever goes wrong ends in the same way: QEMU is killed by its cgroup, libvirt notices, the rest is removed.
"""

import contextlib
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

from benchbox.errors import BenchboxError
from benchbox.linux import cgroups, processes, removal
from benchbox.linux.cgroups import Layout
from benchbox.linux.clock import monotonic_ns
from benchbox.model import Outcome
from benchbox.units import NS_PER_S
from benchbox.virt import domain, frames, verdict
from benchbox.virt.domain import GuestSpec
from benchbox.virt.messages import GuestOrder
from benchbox.virt.sockets import Sockets
from benchbox.virt.verdict import Observed

#: Round trips on the control port after a sample; their median is the latency of the channel.
PINGS: Final = 11
#: Deadlines of the parts that are benchbox's own.
FINISH_TIMEOUT_S: Final = 10.0
END_TIMEOUT_S: Final = 15.0
ASK_TIMEOUT_S: Final = 3.0
#: A panicking kernel resets at once; this is for the rest of its message to arrive.
PANIC_GRACE_S: Final = 1.0

_KILL_AGAIN_S: Final = 0.1
_LOG_TAIL_BYTES: Final = 8192

Happening = Literal["running", "created", "refused", "paused", "stopped", "kill"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class News:
    """Something that happened outside the guest's own thread: what, when, and a word on it."""

    what: Happening
    at_ns: int
    detail: str = ""


class Driver(Protocol):
    """What a guest needs of libvirt; ``name`` is the domain's. Every method may block and may raise BenchboxError."""

    def create(self, xml: str) -> None: ...

    def live_xml(self, name: str) -> str: ...

    def monitor(self, name: str, command: str) -> Mapping[str, Any]: ...

    def destroy(self, name: str) -> None: ...


class Mailbox:
    """News for the guest's thread; its descriptor is readable while there is some."""

    def __init__(self) -> None:
        self._news: deque[News] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._event

    def post(self, news: News) -> None:
        """Add ``news``, from any thread."""
        self._news.append(news)
        os.eventfd_write(self._event, 1)

    def take(self) -> list[News]:
        """Return what is there, oldest first."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return [self._news.popleft() for _ in range(len(self._news))]

    def __del__(self) -> None:
        # Not sooner: a thread that is still in libvirt may post when the guest's own thread has ended.
        os.close(self._event)


class Guest:
    """One guest; ``run`` is its life, ``post`` and ``kill`` may be called from any thread."""

    def __init__(
        self, order: GuestOrder, driver: Driver, layout: Layout, announce: Callable[[str], None] = lambda stage: None
    ) -> None:
        self.order = order
        self._driver, self._announce = driver, announce
        self._plan = order.cgroups(layout)
        self._seen = Observed()
        self._mailbox = Mailbox()
        self._selector = selectors.DefaultSelector()
        greetings = (
            {}
            if order.command is None
            else {"control": frames.run_request(order.command, address=order.spec.address).encoded()}
        )
        self._sockets = Sockets(self._selector, self._receive, greetings)
        self._deadline_ns = 0
        self._asked = self._created = self._gone = self._killing = False
        self._finished = self._quitting = False
        self._pings_sent, self._pinged_ns = 0, 0

    def post(self, what: Happening, detail: str = "") -> None:
        """Tell the guest's thread what happened just now."""
        self._mailbox.post(News(what, monotonic_ns(), detail))

    def kill(self) -> None:
        """End the guest; ``run`` returns with an outcome that says so."""
        self.post("kill")

    def run(self) -> Outcome:
        """Boot the guest, run its command, end and remove everything, and return what came of it.

        Never raises for what guest, QEMU or libvirt did: that is in the outcome.
        """
        self._guarded(self._begin)
        while not self._gone:
            self._guarded(self._watch)
        self._guarded(self._end)
        self._seen.stamp("cleaned", monotonic_ns())
        return verdict.outcome(self.order, self._seen, self._plan)

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except (BenchboxError, OSError) as error:
            self._fail(str(error))
        except Exception as error:  # of ours: else the guest lives on until the deadline of whoever waits for it
            self._fail(f"benchbox itself failed: {error!r}")

    # ---- begin ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._seen.requested_ns = monotonic_ns()
        self._set_deadline(self.order.boot_timeout_s)
        cgroups.make(self._plan)
        self._seen.stamp("cgroups", monotonic_ns())
        self._sockets.listen(Path(self.order.spec.sockets), domain.CHANNELS)
        _make_disk(self.order.spec)
        self._selector.register(self._mailbox, selectors.EVENT_READ, self._on_mail)
        self._asked = True
        threading.Thread(target=self._create, name=f"create-{self.order.spec.name}", daemon=True).start()

    def _create(self) -> None:
        try:
            self._driver.create(domain.domain_xml(self.order.spec))
        except BenchboxError as error:
            self.post("refused", str(error))
        else:
            self.post("created")

    # ---- watch: what arrives ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the next thing to happen, at most until the deadline, and act on it."""
        left_s = (self._deadline_ns - monotonic_ns()) / NS_PER_S
        if left_s <= 0:
            self._on_deadline()
            return
        events = self._selector.select(min(left_s, _KILL_AGAIN_S) if self._killing else left_s)
        at_ns = monotonic_ns()
        for key, _ in events:
            key.data(at_ns)
        if self._killing:
            self._kill_qemu()
        else:
            self._proceed()

    def _receive(self, channel: str, data: bytes, at_ns: int) -> None:
        if channel == "output":
            self._seen.output.feed(data)
        elif channel == "ready":
            self._on_ready(at_ns)
        elif channel == "control":
            self._on_control(data, at_ns)
        else:
            self._on_console(data, at_ns)

    def _on_ready(self, at_ns: int) -> None:
        if "ready" not in self._seen.stages:
            self._seen.stamp("ready", at_ns)
            self._announce("ready")

    def _on_control(self, data: bytes, at_ns: int) -> None:
        seen, control = self._seen, self._seen.control
        pongs = control.pongs
        control.feed(data)
        if control.executed and "exec" not in seen.stages and self.order.command is not None:
            seen.stamp("exec", at_ns)
            self._set_deadline(self.order.command.timeout_s)
        if control.ended and "exited" not in seen.stages:
            # The byte came first, but perhaps after this wake-up: it must not look later than the end.
            self._sockets.take("ready", at_ns)
            seen.stamp("exited", at_ns)
            # Not later: QEMU flushes what it holds back when it ends, and the command has not waited for that.
            seen.device_stat = _text_of(self.order.device_stat)
            self._set_deadline(FINISH_TIMEOUT_S)
        if control.pongs > pongs:
            seen.latencies_ns.append(at_ns - self._pinged_ns)

    def _on_console(self, data: bytes, at_ns: int) -> None:
        console = self._seen.console
        panicked = console.panicked
        console.feed(data)
        if console.agent_seen:
            self._seen.stamp("agent", at_ns)
        if console.panicked and not panicked:
            self._deadline_ns = min(self._deadline_ns, at_ns + round(PANIC_GRACE_S * NS_PER_S))

    def _on_mail(self, at_ns: int) -> None:
        for news in self._mailbox.take():
            if news.what in ("running", "created"):
                # libvirt's event that the CPUs run comes some ms before createXML returns; its first word counts.
                self._seen.stamp("started", news.at_ns)
                self._created = self._created or news.what == "created"
            elif news.what == "refused":
                self._gone = True
                self._fail(verdict.refusal(news.detail))
            elif news.what == "stopped":
                self._on_stopped(news.detail)
            elif news.what == "paused":
                self._on_paused(news.detail)
            else:
                self._on_kill()

    def _on_kill(self) -> None:
        """End it as asked; one that stays is asked first what it runs on, for that is its proper end."""
        if verdict.stayed(self.order, self._seen):
            self._read_back()
        self._fail(verdict.ENDED_BY_US)

    def _on_stopped(self, detail: str) -> None:
        self._gone = True
        self._sockets.drain()
        if not self._quitting:
            where = verdict.progress(self._seen)
            complaint = self._seen.console.complaint()
            self._fail(complaint or self._with_log(f"the guest vanished {where} (libvirt: {detail})"))

    def _on_paused(self, detail: str) -> None:
        if not self._killing and not self._quitting:
            state = self._monitor("query-status").get("status", detail)
            self._fail(self._with_log(f"QEMU stopped the guest {verdict.progress(self._seen)}: {state}"))

    def _on_deadline(self) -> None:
        seen, command = self._seen, self.order.command
        if self._killing:
            self._gone = True
            self._ask(lambda: self._driver.destroy(self.order.spec.name), None)
            self._fail(f"QEMU could not be ended within {END_TIMEOUT_S:g} s")
        elif seen.console.panicked:
            self._fail(seen.console.complaint() or "the guest's kernel panicked")
        elif self._quitting:
            self._fail(f"the guest did not power off within {FINISH_TIMEOUT_S:g} s")
        elif "exited" in seen.stages:
            self._fail(f"the guest's output did not end within {FINISH_TIMEOUT_S:g} s")
        elif "exec" in seen.stages and command is not None:
            self._fail(f"not done after {command.timeout_s:g} s, killed")
        else:
            self._fail(f"the guest hung {verdict.progress(seen)}, killed after {self.order.boot_timeout_s:g} s")

    # ---- proceed: what the host does next ---------------------------------------------------------------------------

    def _proceed(self) -> None:
        if self._gone or self._quitting or not self._created:
            return
        if self.order.command is None:
            if self._seen.console.agent_seen:
                self._read_back()
                self._quitting = True
                self._end_qemu()
        elif self._seen.control.failure:
            self._seen.failure = f"cannot execute {self._seen.control.failure}"
            self._quit()
        elif self._output_complete():
            self._read_back()
            self._ping_or_quit()

    def _output_complete(self) -> bool:
        expected = self._seen.control.output_bytes()
        return expected is not None and self._seen.output.total_bytes >= expected

    def _read_back(self) -> None:
        """Ask, once, what the guest runs on, while it still lives and nothing of it is timed any more."""
        if self._finished:
            return
        self._finished = True
        name, driver = self.order.spec.name, self._driver
        self._seen.live = self._ask(lambda: domain.read_back(driver.live_xml(name)), {})
        self._look_at_qemu()
        kvm = self._monitor("query-kvm")
        self._seen.kvm_enabled = bool(kvm["enabled"] and kvm["present"]) if kvm else None

    def _look_at_qemu(self) -> None:
        """See on which CPUs its threads may run, wherever they were put, and what it has read from devices."""
        if not self._plan.groups:
            return
        pids = {pid for group in self._plan.groups for pid in cgroups.processes(group.path)}
        self._seen.thread_cpus = tuple(sorted({cpus for pid in pids for cpus in processes.thread_cpus(pid)}))
        self._seen.process_io = _text_of(f"/proc/{min(pids)}/io") if pids else None

    def _ping_or_quit(self) -> None:
        answered = len(self._seen.latencies_ns)
        if answered >= PINGS:
            self._quit()
        elif self._pings_sent == answered:
            self._pings_sent += 1
            self._pinged_ns = monotonic_ns()
            self._sockets.send("control", frames.Frame(frames.PING, b"ping").encoded())

    def _quit(self) -> None:
        self._quitting = True
        self._set_deadline(FINISH_TIMEOUT_S)
        self._sockets.send("control", frames.Frame(frames.QUIT).encoded())

    # ---- end --------------------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        self._seen.failure = self._seen.failure or reason
        if not self._asked:
            self._gone = True
        if not self._killing:
            self._end_qemu()

    def _end_qemu(self) -> None:
        self._killing = True
        self._set_deadline(END_TIMEOUT_S)
        self._kill_qemu()

    def _kill_qemu(self) -> None:
        # By its cgroup, not by libvirt: a stopped or hanging QEMU keeps libvirt busy for 10 s and more.
        cgroups.kill(self._plan)

    def _end(self) -> None:
        self._sockets.close()
        self._selector.close()
        self._seen.cgroup_texts = cgroups.read(self._plan)
        removal.try_remove(Path(self.order.spec.sockets))
        if self.order.spec.disk is not None:
            Path(self.order.spec.disk).unlink(missing_ok=True)
        if self.order.log is not None:
            Path(self.order.log).unlink(missing_ok=True)
        cgroups.remove(self._plan)

    def _set_deadline(self, after_s: float) -> None:
        self._deadline_ns = monotonic_ns() + round(after_s * NS_PER_S)

    def _ask(self, question: Callable[[], _T], default: _T) -> _T:
        """Return libvirt's answer, or ``default`` if it has none or takes too long: QEMU may hang."""
        answers: list[_T] = []

        def ask() -> None:
            with contextlib.suppress(BenchboxError, KeyError, ValueError):
                answers.append(question())

        thread = threading.Thread(target=ask, name=f"ask-{self.order.spec.name}", daemon=True)
        thread.start()
        thread.join(ASK_TIMEOUT_S)
        return answers[0] if answers else default

    def _monitor(self, command: str) -> Mapping[str, Any]:
        nothing: Mapping[str, Any] = {}
        return self._ask(lambda: self._driver.monitor(self.order.spec.name, command), nothing)

    def _with_log(self, reason: str) -> str:
        """Return ``reason`` with the end of what QEMU wrote to its log."""
        if self.order.log is None:
            return reason
        try:
            with Path(self.order.log).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                lines = verdict.log_messages(log.read().decode(errors="replace"))
        except OSError:
            return reason
        return f"{reason}; QEMU says: {lines}" if lines else reason


def _text_of(path: str | None) -> str | None:
    """Return what is in the file ``path``, None where there is none."""
    with contextlib.suppress(OSError):
        return Path(path).read_text() if path else None
    return None


def _make_disk(spec: GuestSpec) -> None:
    """Make the guest's disk, an empty sparse file, where it is to have one."""
    if spec.disk is not None:
        with Path(spec.disk).open("xb") as disk:
            disk.truncate(spec.disk_bytes)
