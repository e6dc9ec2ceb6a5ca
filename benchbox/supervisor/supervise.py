"""Starts the measuring worker, hears its events, and cleans up after it, however it ends.

The supervisor is a child subreaper: what the worker leaves behind becomes its child. It must be started from the main
thread, because the kernel ties a worker's life (PR_SET_PDEATHSIG) to the thread that started it.
"""

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups, ledger, processes, removal
from benchbox.linux.state import make_cache_folder, make_state_folder
from benchbox.supervisor import cleanup
from benchbox.supervisor.lock import host_lock
from benchbox.supervisor.place import Place, place_of

Event = Mapping[str, Any]

#: How long a worker that was asked to stop may take to end its sample and write its record.
STOP_GRACE_S: Final = 15.0


@dataclass(frozen=True)
class Ending:
    """How a run ended: ``done``, ``interrupted``, ``failed``; ``leftovers`` could not be removed."""

    state: str
    reason: str | None = None
    hint: str | None = None
    leftovers: tuple[str, ...] = ()


def supervise(run_id: str, job: Mapping[str, Any], on_event: Callable[[Event], None]) -> Ending:
    """Run ``job`` in a worker of its own and return how it ended; nothing of it is left then.

    ``job`` is what ``benchbox.worker`` takes (JSON types). ``on_event`` gets each event of the worker. SIGINT and
    SIGTERM ask the worker to stop, a second one ends it. Raises LockError when another run holds this host.
    """
    with host_lock():
        cleanup.clean_dead_runs()
        cleanup.sweep_scratch()
        processes.become_subreaper()
        with _place(run_id) as (place, book):
            try:
                _step_aside(place, book)
                ending = _Watch(place, book, job, on_event).run()
            finally:
                cleanup.end_descendants()
                cleaned = cleanup.clean_entries(run_id, place, ledger.read(book.path)[1])
                if not cleaned.remaining:  # else the next clean-up finds the ledger, and tries again
                    removal.try_remove(place.runtime)
        return Ending(ending.state, ending.reason, ending.hint, cleaned.remaining)


@contextlib.contextmanager
def _place(run_id: str) -> Iterator[tuple[Place, ledger.Ledger]]:
    token = secrets.token_hex(4)
    place = place_of(token)
    try:
        make_state_folder()
        place.runtime.mkdir(0o700)
    except OSError as error:
        message = f"{error.filename}: cannot be made: {error.strerror}"
        raise EnvironmentFailure(message, hint="set BENCHBOX_STATE to a folder of yours") from error
    book = ledger.Ledger(place.runtime / ledger.FILE_NAME)
    book.lock()
    book.begin(ledger.Header(run_id, os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")))
    try:
        _record_place(place, book)
    except BaseException:
        removal.try_remove(place.runtime)
        raise
    try:
        yield place, book
    finally:
        book.close()


def _record_place(place: Place, book: ledger.Ledger) -> None:
    """Write down what the worker will make first: one folder a hierarchy covers all its cgroups."""
    for root in cgroups.detect().roots():
        book.record("cgroup", str(root / place.cgroup_name))
    book.record("folder", str(place.scratch))
    try:
        # Closed: whatever a workload leaves there, set-user-id files as well, is out of the reach of other users.
        make_cache_folder()
        make_cache_folder("scratch", mode=0o700)
        place.scratch.mkdir(0o700)
    except OSError as error:
        message = f"{place.scratch.parent}: cannot be written: {error.strerror}"
        raise EnvironmentFailure(message, hint="set BENCHBOX_CACHE to a folder of yours") from error


def _step_aside(place: Place, book: ledger.Ledger) -> None:
    """Leave a cgroup that was delegated to us to the groups of the run; the clean-up brings us back."""
    if refuge := cgroups.refuge(cgroups.detect(), place.refuge_name):
        book.record("refuge", str(refuge))
        cgroups.step_aside(refuge)


class _Watch:
    """One worker, from its start to its end."""

    def __init__(
        self, place: Place, book: ledger.Ledger, job: Mapping[str, Any], on_event: Callable[[Event], None]
    ) -> None:
        self._place, self._book, self._job, self._on_event = place, book, job, on_event
        self._stops = 0
        self._kill_at: float | None = None
        self._last: dict[str, Any] = {}
        self._rest = b""

    def run(self) -> Ending:
        events_read, events_write = os.pipe2(os.O_CLOEXEC)
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._worker = self._start(events_write)
        os.close(events_write)
        with self._signals(wake_write):
            self._send_job()
            self._loop(events_read, wake_read)
        for descriptor in (events_read, wake_read, wake_write):
            os.close(descriptor)
        return self._ending()

    def _start(self, events: int) -> "subprocess.Popen[bytes]":
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which asks the worker to stop.
        worker = processes.spawn(
            # -P: the folder that benchbox is started in may be somebody else's, and is no place to import from.
            [sys.executable, "-P", "-m", "benchbox.worker", str(events)],
            stdin=subprocess.PIPE,
            pass_fds=(events,),
            new_session=True,
        )
        # It dies with us; should it ever not, whoever cleans up finds it. Nothing is made before it has its job.
        self._book.record("process", f"{worker.pid} {processes.start_time(worker.pid)}")
        return worker

    def _send_job(self) -> None:
        assert self._worker.stdin
        job = {
            **self._job,
            "supervisor_pid": os.getpid(),
            "ledger": str(self._book.path),
            "runtime": str(self._place.runtime),
            "scratch": str(self._place.scratch),
            "cgroup_name": self._place.cgroup_name,
        }
        with contextlib.suppress(BrokenPipeError):
            self._worker.stdin.write(json.dumps(job).encode() + b"\n")
            self._worker.stdin.flush()

    @contextlib.contextmanager
    def _signals(self, wake: int) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM, and wake at each SIGCHLD: an orphan that nobody reaps holds up libvirt."""
        before_fd = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._note_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1
        if self._stops == 1:
            self._kill_at = time.monotonic() + STOP_GRACE_S
            with contextlib.suppress(OSError, ValueError):
                assert self._worker.stdin
                self._worker.stdin.write(b"stop\n")
                self._worker.stdin.flush()
        else:
            self._kill_at = time.monotonic()

    def _loop(self, events: int, wake: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(events, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while self._worker.poll() is None:
                self._end_if_due()
                for key, _ in selector.select(self._patience_s()):
                    if key.fd == wake:
                        os.read(wake, 4096)
                        processes.reap_orphans(known=(self._worker.pid,))
                    elif not self._hear(events):
                        selector.unregister(events)
        while self._hear(events):
            pass

    def _patience_s(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic()) + 0.01

    def _end_if_due(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._worker.kill()

    def _hear(self, events: int) -> bool:
        chunk = os.read(events, 65536)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event.get("event") == "end":
                self._last = event
            self._on_event(event)
        return bool(chunk)

    def _ending(self) -> Ending:
        if self._last:
            return Ending(self._last["state"], self._last.get("reason"), self._last.get("hint"))
        if self._stops:
            return Ending("interrupted", "ended before it could close its record")
        status = processes.describe_status(self._worker.returncode)
        return Ending("failed", f"the measuring process ended unexpectedly: {status}")
