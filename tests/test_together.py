"""Several at once, with sessions that exist only here: threads, but no process and no clock."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.model import Command, Counter, Metric, Outcome, Running
from benchbox.together import LEFT, Sight, Together, combined, metrics
from tests.played import PlayedSession

OK = Outcome("ok", exit_code=0, requested_ns=1000, stages={"exec": 1500, "ready": 2000, "cleaned": 3000})
LATE = replace(OK, requested_ns=1100, stages={"exec": 1700, "ready": 2600, "cleaned": 2900})


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def gate_is_open(gate: int) -> bool:
    """Say whether the gate's other end is closed, without waiting."""
    os.set_blocking(gate, False)
    try:
        return os.read(gate, 1) == b""
    except BlockingIOError:
        return False


class FakeRunning:
    def __init__(self, outcome: Outcome, on_wait: Callable[[], None] = lambda: None) -> None:
        self._outcome, self._on_wait, self.killed = outcome, on_wait, False

    def ready(self) -> bool:
        return "ready" in self._outcome.stages

    def wait(self) -> Outcome:
        self._on_wait()
        return Outcome("failed", "ended by benchbox") if self.killed else self._outcome

    def kill(self) -> None:
        self.killed = True


class FakeSession(PlayedSession):
    """Gives the outcomes of ``script``, or raises them."""

    def __init__(self, *script: Outcome | Exception, on_wait: Callable[[], None] = lambda: None) -> None:
        self.script, self.on_wait = list(script), on_wait
        self.lock, self.slow_s = threading.Lock(), 0.0
        self.gates: list[bool] = []
        self.running: list[FakeRunning] = []

    def start(self, command: Command) -> Running:
        assert command.gate is not None
        with self.lock:
            time.sleep(self.slow_s)
            self.gates.append(gate_is_open(command.gate))
            given = self.script.pop(0)
            if isinstance(given, Exception):
                raise given
            self.running.append(FakeRunning(given, self.on_wait))
            return self.running[-1]


def run(session: FakeSession) -> tuple[Outcome, Together]:
    together = Together(session, Command(("/bin/ready",)), len(session.script))
    return together.wait(), together


def test_all_are_started_before_the_gate_opens() -> None:
    """So that none begins before the last one can; afterwards no descriptor is left."""
    before = open_descriptors()
    session = FakeSession(OK, OK, OK, OK)
    session.slow_s = 0.01
    outcome, together = run(session)
    assert session.gates == [False] * 4
    assert (outcome.status, len(together.outcomes)) == ("ok", 4)
    assert open_descriptors() == before


def test_one_that_fails_fails_the_sample_and_is_named() -> None:
    """With how many they are; what came of the others is kept."""
    failed = replace(OK, status="failed", reason="exit status 7", exit_code=7, output_tail=b"oops")
    outcome = combined([OK, failed, OK, failed])
    assert (outcome.status, outcome.exit_code, outcome.output_tail) == ("failed", 7, b"oops")
    assert outcome.reason == "instance 2 of 4 (and 1 more of them): exit status 7"
    assert combined([OK, failed]).reason == "instance 2 of 2: exit status 7"


def test_one_that_cannot_be_started_does_not_hold_up_the_others() -> None:
    """They get their gate, end and are waited for."""
    outcome, together = run(FakeSession(OK, EnvironmentFailure("no such cgroup"), OK))
    assert outcome.status == "failed"
    assert (outcome.reason or "").endswith("of 3: cannot be started: no such cgroup")
    assert sorted(each.status for each in together.outcomes) == ["failed", "ok", "ok"]
    assert "ready" not in outcome.stages


def test_one_whose_stamps_cannot_be_true_spoils_the_sample() -> None:
    """However well it is hidden behind the others' later ones."""
    outcome = combined([replace(OK, stages={"exec": 1900, "ready": 1800}), LATE])
    assert outcome.status == "invalid"
    assert outcome.reason == "instance 1 of 2: stage ready is stamped 100 ns before exec"


def test_killing_ends_all_of_them() -> None:
    """Also those that are started after it."""
    waiting, go_on = threading.Semaphore(0), threading.Event()

    def on_wait() -> None:
        waiting.release()
        go_on.wait(10)

    session = FakeSession(OK, OK, OK, on_wait=on_wait)
    together = Together(session, Command(("/bin/ready",)), 3)
    for _ in range(3):
        assert waiting.acquire(timeout=10)
    together.kill()
    go_on.set()
    assert together.wait().reason == "instance 1 of 3 (and 2 more of them): ended by benchbox"
    assert [each.killed for each in session.running] == [True] * 3


def test_what_breaks_in_a_thread_is_not_swallowed() -> None:
    """It is an error of benchbox, and ends the run as it does for one alone."""

    def broken() -> None:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        run(FakeSession(OK, OK, on_wait=broken))


def test_a_stage_is_over_when_it_is_over_in_the_last() -> None:
    """From the first request on."""
    outcome = combined([OK, LATE])
    assert (outcome.requested_ns, outcome.spawn_ns) == (1000, None)
    assert outcome.stages == {"exec": 1700, "ready": 2600, "cleaned": 3000}


def test_the_account_is_that_of_all() -> None:
    """Sums, of pressure the largest, and nothing where one is not told; each says how."""
    usage, pressure = Counter("cpu.usage", 0.5, "s", "cpu.stat"), Counter("pressure.cpu", 0.2, "s", "psi")
    accounts = [
        (usage, pressure, Counter("io.write", None, "B", "v1")),
        (replace(usage, value=0.7), replace(pressure, value=0.1), Counter("memory.peak", 1, "B", "m")),
    ]
    found = {c.name: c for c in combined([replace(OK, counters=account) for account in accounts]).counters}
    assert (found["cpu.usage"].value, found["cpu.usage"].source) == (1.2, "cpu.stat, sum of 2")
    assert (found["pressure.cpu"].value, found["pressure.cpu"].source) == (0.2, "psi, largest of 2")
    assert (found["io.write"].value, found["io.write"].source) == (None, "v1")
    assert (found["memory.peak"].value, found["memory.peak"].source) == (None, "told by 1 of 2 instances only")


def test_what_differs_between_them_is_listed() -> None:
    """What is the same is said once."""
    outcome = combined(
        [
            replace(OK, applied={"pids": 5, "cpus": "1"}, flags={"accelerator": "kvm"}, guest={"boot": 10}),
            replace(OK, applied={"pids": 5, "cpus": "2"}, flags={"accelerator": "tcg"}, guest={"boot": 30}),
        ]
    )
    assert outcome.applied == {"pids": 5, "cpus": ["1", "2"]}
    assert (outcome.flags, outcome.guest) == ({"accelerator": "kvm+tcg"}, {"boot": 20})


def test_the_metrics_say_how_long_all_take_and_how_long_each() -> None:
    """All from the first request, each from its own."""
    found = metrics([OK, LATE], lambda outcome: ())
    assert {name: round(metric.value * 1e9) for name, metric in found.items() if metric.unit == "s"} == {
        "parallel.all_ready": 1600,
        "parallel.each_ready": 1250,
        "parallel.slowest_ready": 1500,
        "parallel.spread": 100,
        "parallel.cleaned": 2000,
    }
    assert found["parallel.rate"].value == pytest.approx(2 / 1600e-9)
    assert found["parallel.rate"].direction == "higher"


def test_a_workload_that_says_nothing_has_no_rate() -> None:
    """It has what is known of it."""
    silent = replace(OK, stages={"exec": 1500, "cleaned": 3000})
    assert sorted(metrics([silent, OK], lambda outcome: ())) == ["parallel.cleaned", "parallel.spread"]


def test_the_workload_s_own_metrics_are_medians() -> None:
    """Of those that each of them has."""
    values = iter(
        [(Metric("w.rate", 10, "1/s", "higher"), Metric("w.odd", 1, "1")), (Metric("w.rate", 30, "1/s", "higher"),)]
    )
    found = metrics([OK, LATE], lambda outcome: next(values))
    assert (found["w.rate"].value, found["w.rate"].direction) == (20, "higher")
    assert "w.odd" not in found


# --- those that stay ---

STAYING = Command(("/bin/steady",), stays=True)
READY_BY_US = replace(OK, exit_code=None)


class Staying(FakeRunning):
    """Lives until it is killed, unless its outcome has an exit code: then it ended by itself."""

    def wait(self) -> Outcome:
        self._on_wait()
        return self._outcome


class StayingSession(FakeSession):
    def start(self, command: Command) -> Running:
        running = super().start(command)
        assert isinstance(running, FakeRunning)
        self.running[-1] = Staying(running._outcome, self.on_wait)
        return self.running[-1]


def test_those_that_stay_are_looked_at_while_all_live_and_ended_then() -> None:
    """Nobody is ended before the look, everybody after it."""
    session = StayingSession(READY_BY_US, READY_BY_US, READY_BY_US)
    alive: list[list[bool]] = []

    def look() -> Sight:
        alive.append([running.killed for running in session.running])
        return Sight((Metric("density.cgroup", 5, "B"),))

    together = Together(session, STAYING, 3, look)
    assert together.wait().status == "ok"
    assert alive == [[False] * 3]
    assert [running.killed for running in session.running] == [True] * 3
    assert [metric.name for metric in together.sight.metrics] == ["density.cgroup"]


def test_one_that_ends_by_itself_spoils_what_was_seen() -> None:
    """It may have been gone when all were looked at, however well it ended."""
    together = Together(StayingSession(READY_BY_US, OK), STAYING, 2)
    outcome = together.wait()
    assert (outcome.status, outcome.reason) == (
        "failed",
        f"instance {[o.exit_code for o in together.outcomes].index(0) + 1} of 2: {LEFT}",
    )


def test_nobody_is_looked_at_where_one_is_missing() -> None:
    """One that never became ready, or could not be started; the others are ended and waited for."""
    dead = Outcome("failed", "exit status 3", exit_code=3)
    for trouble in (dead, EnvironmentFailure("no such cgroup")):
        session = StayingSession(READY_BY_US, trouble, READY_BY_US)
        together = Together(session, STAYING, 3, lambda: pytest.fail("looked"))
        assert together.wait().status == "failed"
        assert together.sight == Sight()
        assert sorted(outcome.status for outcome in together.outcomes) == ["failed", "ok", "ok"]


def test_killing_does_not_wait_until_they_have_been_left_alone() -> None:
    """Ctrl-C ends a long hold at once, and nothing is looked at."""
    session = StayingSession(READY_BY_US, READY_BY_US)
    together = Together(session, replace(STAYING, hold_s=300), 2, lambda: pytest.fail("looked"))
    threading.Timer(0.05, together.kill).start()
    begun_s = time.monotonic()
    together.wait()
    assert time.monotonic() - begun_s < 10
    assert all(running.killed for running in session.running)


def test_what_breaks_a_look_is_not_swallowed_and_leaves_nobody_waiting() -> None:
    """It is an error of benchbox."""
    session = StayingSession(READY_BY_US, READY_BY_US)

    def broken() -> Sight:
        raise RuntimeError("no such look")

    with pytest.raises(RuntimeError, match="no such look"):
        Together(session, STAYING, 2, broken).wait()
    deadline = time.monotonic() + 10
    while not all(running.killed for running in session.running) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(running.killed for running in session.running)
