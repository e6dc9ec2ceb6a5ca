"""Several instances of one environment, started at the same moment: one sample.

Those that ``launch`` starts wait at a gate, a pipe that all of them have open, and begin when it is closed. Others
begin as soon as their thread asks for them. How far the requests lie apart is measured (``parallel.spread``).
"""

import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from benchbox.errors import BenchboxError
from benchbox.model import STAGES, Command, Counter, Metric, Outcome, Running, Session
from benchbox.units import NS_PER_S
from benchbox.workloads.stages import stages_in_order

#: Between the start of the last launcher and the opening of the gate: by then all of them wait at it.
_ARRIVAL_S: Final = 0.005
#: Counters of which the largest is that of all together; of the others the sum.
_LARGEST: Final = ("pressure.",)


#: What is said of an instance that was to stay.
LEFT: Final = "it ended by itself, before it was to"


@dataclass(frozen=True)
class Sight:
    """What was seen of the host while all instances lived; ``told`` is for the sample's ``applied``."""

    metrics: tuple[Metric, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


class Together:
    """``count`` commands on their way at once; implements ``model.Running``.

    The thread that starts an instance waits for its end: what it starts dies with it (PR_SET_PDEATHSIG). Instances of a
    command that stays are looked at by ``look``, ``Command.hold_s`` after the last one is ready, and then ended.
    """

    def __init__(self, session: Session, command: Command, count: int, look: Callable[[], Sight] = Sight) -> None:
        self._look, self.sight = look, Sight()
        self._arrived: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._looked = threading.Event()
        self._session = session
        self._gate, self._holder = os.pipe2(os.O_CLOEXEC)
        self._command = replace(command, gate=self._gate)
        self._lock, self._killed = threading.Lock(), False
        self._running: dict[int, Running] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._broken: BaseException | None = None
        self._ready_to_ask, self._asked = threading.Barrier(count), threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of each, after ``wait``."""
        return tuple(self._outcomes[number] for number in sorted(self._outcomes))

    def ready(self) -> bool:
        """Block until all are ready, have ended or have passed their deadline; say whether all became ready."""
        self._open_gate()
        return all(running.ready() for running in list(self._running.values()))

    def wait(self) -> Outcome:
        """Block until all have ended; see ``combined``."""
        self._open_gate()
        if self._command.stays:
            self._look_at_all()
        for thread in self._threads:
            thread.join()
        self._close(self._gate)
        self._gate = -1
        if self._broken:
            raise self._broken
        return combined(self.outcomes)

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            self._looked.set()
            running = list(self._running.values())
        for one in running:
            one.kill()

    def _live(self, number: int) -> None:
        self._ready_to_ask.wait()
        try:
            running = self._start(number)
        except (BenchboxError, OSError) as error:
            self._outcomes[number] = Outcome("failed", f"cannot be started: {error}")
            self._arrived.put(False)
            return
        finally:
            self._asked.release()
        try:
            self._outcomes[number] = self._stayed(running) if self._command.stays else running.wait()
        except BaseException as error:
            self._broken = error

    def _stayed(self, running: Running) -> Outcome:
        """Return the outcome of one that lives until all have been looked at; it must not end before."""
        try:
            is_ready = running.ready()
        except BaseException:
            self._arrived.put(False)
            raise
        self._arrived.put(is_ready)
        if is_ready:
            self._looked.wait()
            running.kill()
        outcome = running.wait()
        by_itself = outcome.status == "ok" and outcome.exit_code is not None
        return replace(outcome, status="failed", reason=LEFT) if by_itself else outcome

    def _look_at_all(self) -> None:
        try:
            arrived = [self._arrived.get() for _ in self._threads]
            if all(arrived) and not self._looked.wait(self._command.hold_s):
                self.sight = self._look()
        finally:
            self._looked.set()

    def _start(self, number: int) -> Running:
        running = self._session.start(self._command)
        with self._lock:
            self._running[number] = running
            killed = self._killed
        if killed:
            running.kill()
        return running

    def _open_gate(self) -> None:
        if self._holder < 0:
            return
        for _ in self._threads:
            self._asked.acquire()
        time.sleep(_ARRIVAL_S)
        self._close(self._holder)
        self._holder = -1

    @staticmethod
    def _close(descriptor: int) -> None:
        if descriptor >= 0:
            os.close(descriptor)


def combined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return all as one outcome, which is ``ok`` if every one is. Pure.

    A stage is over when it is over in the last of them; the request is the first one. Counters are sums but for
    pressure, of which the largest is taken; guest-clock durations are medians. What was applied is listed where it
    differs. Output is that of the first that is not ok.
    """
    judged = [_judged(outcome) for outcome in outcomes]
    wrong = [(number, outcome) for number, outcome in enumerate(judged, 1) if outcome.status != "ok"]
    shown = wrong[0][1] if wrong else judged[0]
    # One that never began has no stamps.
    begun = [outcome for outcome in judged if outcome.requested_ns]
    return replace(
        shown,
        reason=_reason(wrong, len(judged)),
        requested_ns=min((outcome.requested_ns for outcome in begun), default=0),
        stages={name: max(stamps) for name, stamps in _stamps(begun).items() if len(stamps) == len(judged)},
        spawn_ns=None,
        guest={key: round(value) for key, value in _medians([outcome.guest for outcome in judged]).items()},
        counters=_counters([outcome.counters for outcome in judged]),
        applied=_merged([outcome.applied for outcome in judged]),
        flags={key: "+".join(sorted(values)) for key, values in _values([o.flags for o in judged]).items()},
    )


def _judged(outcome: Outcome) -> Outcome:
    """Return ``outcome``, invalid if its own stages are out of order."""
    disorder = stages_in_order(outcome) if outcome.status == "ok" else None
    return replace(outcome, status="invalid", reason=disorder) if disorder else outcome


def _reason(wrong: Sequence[tuple[int, Outcome]], count: int) -> str | None:
    if not wrong:
        return None
    number, first = wrong[0]
    more = f" (and {len(wrong) - 1} more of them)" if len(wrong) > 1 else ""
    return f"instance {number} of {count}{more}: {first.reason}"


def _stamps(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    return {
        name: [outcome.stages[name] for outcome in outcomes if name in outcome.stages]
        for name in (*STAGES, *dict.fromkeys(n for o in outcomes for n in o.stages if n not in STAGES))
        if any(name in outcome.stages for outcome in outcomes)
    }


def _medians(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each key that all have."""
    keys = [key for key in found[0] if all(key in each for each in found)]
    return {key: statistics.median(each[key] for each in found) for key in keys}


def _counters(accounts: Sequence[tuple[Counter, ...]]) -> tuple[Counter, ...]:
    by_name: dict[str, list[Counter]] = {}
    for counter in (counter for account in accounts for counter in account):
        by_name.setdefault(counter.name, []).append(counter)
    return tuple(_counter(counters, len(accounts)) for counters in by_name.values())


def _counter(counters: Sequence[Counter], count: int) -> Counter:
    """Return one counter for all; none where one of them has none."""
    values = [counter.value for counter in counters if counter.value is not None]
    missing = next((counter for counter in counters if counter.value is None), None)
    if missing is not None or len(values) < count:
        return missing or replace(counters[0], value=None, source=f"told by {len(values)} of {count} instances only")
    join, how = (max, "largest") if counters[0].name.startswith(_LARGEST) else (sum, "sum")
    return replace(counters[0], value=join(values), source=f"{counters[0].source}, {how} of {count}")


def _merged(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is the same in all, and of what differs a list."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in found for key in each):
        values = [each.get(key) for each in found]
        merged[key] = values[0] if all(value == values[0] for value in values) else values
    return merged


def _values(found: Sequence[Mapping[str, str]]) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for key, value in ((key, value) for each in found for key, value in each.items()):
        values.setdefault(key, set()).add(value)
    return values


def metrics(outcomes: Sequence[Outcome], parse: Callable[[Outcome], tuple[Metric, ...]]) -> dict[str, Metric]:
    """Return what a sample of several says, by name: ``parallel.*``, and of the workload's own metrics the medians.

    ``parallel.all_ready`` is the time from the first request to the last ready byte, ``parallel.each_ready`` the median
    of each one's own from its request, ``parallel.slowest_ready`` the longest of those, ``parallel.rate`` how many
    became ready in a second, ``parallel.spread`` from the first request to the last, ``parallel.cleaned`` until
    everything of all is gone. ValueError is the workload's, see ``model.Workload.parse``.
    """
    found = _shared(outcomes, "cleaned", "parallel.cleaned")
    first_ns = min(outcome.requested_ns for outcome in outcomes)
    found.append(Metric("parallel.spread", (max(o.requested_ns for o in outcomes) - first_ns) / NS_PER_S, "s"))
    if ready := _shared(outcomes, "ready", "parallel.all_ready"):
        each_s = [(outcome.stages["ready"] - outcome.requested_ns) / NS_PER_S for outcome in outcomes]
        found += ready
        found.append(Metric("parallel.each_ready", statistics.median(each_s), "s"))
        found.append(Metric("parallel.slowest_ready", max(each_s), "s"))
        found.append(Metric("parallel.rate", len(outcomes) / ready[0].value, "1/s", "higher"))
    return {metric.name: metric for metric in (*found, *_own_metrics([parse(outcome) for outcome in outcomes]))}


def _shared(outcomes: Sequence[Outcome], stage: str, name: str) -> list[Metric]:
    """Return the time from the first request until ``stage`` is over in all, nothing if one has not had it."""
    if any(stage not in outcome.stages for outcome in outcomes):
        return []
    first_ns = min(outcome.requested_ns for outcome in outcomes)
    return [Metric(name, (max(outcome.stages[stage] for outcome in outcomes) - first_ns) / NS_PER_S, "s")]


def _own_metrics(parsed: Sequence[tuple[Metric, ...]]) -> list[Metric]:
    medians = _medians([{metric.name: metric.value for metric in metrics} for metrics in parsed])
    own = (metric for metric in parsed[0] if metric.name in medians)
    return [replace(metric, value=medians[metric.name], iterations=()) for metric in own]
