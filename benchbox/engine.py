"""The loop: every cell once a round, in the planned order, each sample on disk before the next begins.

Sessions, clock-bound conditions and the place where samples go are handed in, so that the loop is tested with an
environment that exists only in the test.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from benchbox import together
from benchbox.caches import Seen, refilled
from benchbox.images import programs
from benchbox.model import (
    HEADLINE_METRICS,
    Command,
    Counter,
    Metric,
    NotDone,
    Outcome,
    Running,
    Session,
    Status,
    headline_metric,
)
from benchbox.record import AbandonedCell, CounterValue, Instance, Iterations, MetricValue, Sample
from benchbox.served import ClientCommand, Clients, Served
from benchbox.together import Sight, Together
from benchbox.workloads import stages
from benchbox.workloads.derived import derived_metrics

#: A cell that failed this often in the same way is not tried again.
ABANDON_AFTER: Final = 3

End = Literal["done", "interrupted"]
Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class PlannedCell:
    """One cell as the loop needs it: where it runs, what, and how to read the outcome.

    ``parallel`` instances of it are started at one moment and are one sample; None is one alone. ``left_out`` says why
    it is not to be measured here. ``client`` returns for a server's address the command that puts load on it; None is
    a workload without a client.
    """

    id: str
    environment: str
    workload: str
    params: Mapping[str, str | int | float]
    command: Command
    parse: Callable[[Outcome], tuple[Metric, ...]]
    parallel: int | None = None
    left_out: str | None = None
    client: ClientCommand | None = None


class Conditions(Protocol):
    """What has to hold before a sample, and what is going on around it."""

    def settle(self) -> None:
        """Wait until the previous sample is gone, and bring the host into the state that every sample starts from."""

    def cache(self, environment: str) -> Callable[[], Seen]:
        """Bring what the environment reads into or out of the page cache; the returned function says after the sample
        what was seen of it."""

    def noise(self) -> Callable[[], dict[str, float]]:
        """Begin to watch; the returned function ends it and says what was seen."""

    def occupancy(self) -> Callable[[], Sight]:
        """Look at the host's memory; the returned function looks again and says what was taken since."""


class Sink(Protocol):
    """Where samples go."""

    def append(self, sample: Sample) -> None: ...

    def sync(self) -> None: ...


@dataclass(frozen=True)
class Around:
    """What was seen around a sample, see ``Conditions``."""

    noise: Mapping[str, float] = field(default_factory=dict)
    cache: Seen = field(default_factory=Seen)
    sight: Sight = field(default_factory=Sight)


@dataclass(frozen=True)
class _Place:
    round: int
    position: int
    predecessor: str | None


@dataclass
class _Failures:
    """Counts failures that are alike, by cell."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    abandoned: dict[str, AbandonedCell] = field(default_factory=dict)

    def note(self, sample: Sample) -> AbandonedCell | None:
        """Take notice of ``sample``; return the cell if it is to be abandoned now."""
        if sample.status in ("ok", "skipped"):
            return None
        key = (sample.cell, alike(sample.reason or ""))
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] < ABANDON_AFTER:
            return None
        found = AbandonedCell(cell=sample.cell, reason=sample.reason or "", after_round=sample.round)
        self.abandoned[sample.cell] = found
        return found


def alike(reason: str) -> str:
    """Return ``reason`` without its numbers: failures that differ only there are the same failure."""
    return re.sub(r"\d+", "#", reason)


class Engine:
    """Runs ``order`` (index 0 is the priming round); cells that were ``abandoned`` before are not tried again.

    ``executables`` are the sums of the image's programs: a sample of another one is invalid.
    """

    def __init__(
        self,
        cells: Sequence[PlannedCell],
        order: Sequence[Sequence[str]],
        sessions: Mapping[str, Session],
        conditions: Conditions,
        sink: Sink,
        emit: Emit,
        abandoned: Sequence[AbandonedCell] = (),
        clients: Clients | None = None,
        executables: Mapping[str, str] | None = None,
    ) -> None:
        self._clients, self._executables = clients, executables or {}
        self._cells = {cell.id: cell for cell in cells}
        self._order, self._sessions, self._conditions = order, sessions, conditions
        self._sink, self._emit = sink, emit
        self._failures = _Failures(abandoned={item.cell: item for item in abandoned})
        self._stop = threading.Event()
        self._running: Running | None = None
        self._previous: str | None = None

    @property
    def abandoned(self) -> tuple[AbandonedCell, ...]:
        return tuple(self._failures.abandoned.values())

    def stop(self) -> None:
        """Ask the loop to end, from any thread: the sample on its way is killed and not recorded."""
        self._stop.set()
        running = self._running
        if running is not None:
            running.kill()

    def run(self, first_round: int = 1) -> End:
        """Measure the priming round, then all rounds from ``first_round`` on; say whether it was stopped."""
        for number in (0, *range(first_round, len(self._order))):
            for place, cell in self._round(number):
                sample = self._measure(cell, place)
                if self._stop.is_set():
                    return "interrupted"
                self._keep(sample)
            self._sink.sync()
            if self._stop.is_set():
                return "interrupted"
        return "done"

    def _round(self, number: int) -> Iterator[tuple[_Place, PlannedCell]]:
        for position, cell_id in enumerate(self._order[number]):
            cell = self._cells[cell_id]
            if cell.environment in self._sessions and cell_id not in self._failures.abandoned:
                yield _Place(number, position, self._previous), cell
                self._previous = cell_id

    def _measure(self, cell: PlannedCell, place: _Place) -> Sample:
        if cell.left_out:
            return sample_of(cell, place, _now(), Outcome("skipped", cell.left_out), Around())
        self._conditions.settle()
        cache = self._conditions.cache(cell.environment)
        started_at = _now()
        noise = self._conditions.noise()
        running = self._running = self._start(cell)
        if self._stop.is_set():
            running.kill()
        outcome = own_program(running.wait(), self._executables)
        self._running = None
        several = running if isinstance(running, Together) else None
        around = Around(noise(), cache(), several.sight if several else Sight())
        instances = several.outcomes if several else ()
        return sample_of(cell, place, started_at, outcome, around, instances)

    def _start(self, cell: PlannedCell) -> Running:
        session = self._sessions[cell.environment]
        if cell.client and self._clients:
            return Served(session, cell.command, cell.client, self._clients)
        if not cell.parallel:
            return session.start(cell.command)
        return Together(session, cell.command, cell.parallel, self._conditions.occupancy())

    def _keep(self, sample: Sample) -> None:
        self._sink.append(sample)
        self._emit(sample_event(sample))
        if abandoned := self._failures.note(sample):
            self._emit({"event": "abandoned", "cell": abandoned.cell, "reason": abandoned.reason})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sample_of(
    cell: PlannedCell,
    place: _Place,
    started_at: str,
    outcome: Outcome,
    around: Around,
    instances: Sequence[Outcome] = (),
) -> Sample:
    """Return the record of one outcome, which is that of all ``instances`` where there are several. Pure."""
    outcome = stages.signalled(outcome, cell.command.signals)
    status, reason = judge(outcome)
    objection = around.cache.objection or refilled(around.cache, outcome.counters)
    if status == "ok" and objection:
        status, reason = "invalid", objection
    metrics: dict[str, Metric] = {}
    if status == "ok":
        try:
            metrics = _metrics(cell, outcome, instances) | {metric.name: metric for metric in around.sight.metrics}
        except NotDone as error:
            status, reason = "invalid", str(error)
        except ValueError as error:
            status, reason = "invalid", f"the output is not what the workload should print: {error}"
    flags = {**outcome.flags, **around.cache.flags, **({"throttled": "yes"} if _throttled(outcome.counters) else {})}
    iterations = {name: stored_iterations(metric) for name, metric in metrics.items() if metric.iterations}
    if any(each.warm_up is None for each in iterations.values()):
        flags["steady_state"] = "none"
    return Sample(
        cell=cell.id,
        environment=cell.environment,
        workload=cell.workload,
        params=dict(cell.params),
        round=place.round,
        position=place.position,
        predecessor=place.predecessor,
        started_at=started_at,
        status=status,
        reason=reason,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        flags=flags,
        requested_ns=outcome.requested_ns,
        stages={name: at_ns - outcome.requested_ns for name, at_ns in outcome.stages.items()},
        spawn_ns=outcome.spawn_ns,
        guest=dict(outcome.guest),
        metrics={name: stored(metric) for name, metric in metrics.items()},
        counters=stored_counters((*outcome.counters, *around.cache.counters)),
        applied={**outcome.applied, **around.sight.told},
        noise=dict(around.noise),
        output_tail=outcome.output_tail.decode(errors="replace"),
        console_tail=outcome.console_tail,
        instances=[_instance(stages.signalled(each, cell.command.signals), outcome.requested_ns) for each in instances],
        iterations=iterations,
    )


def _metrics(cell: PlannedCell, outcome: Outcome, instances: Sequence[Outcome]) -> dict[str, Metric]:
    if instances:
        return together.metrics(instances, cell.parse)
    own = {metric.name: metric for metric in cell.parse(outcome)}
    started = stages.stage_metrics(outcome)
    if cell.client:
        # It is about what the client saw; the server's start is not what is compared.
        started = {name: metric for name, metric in started.items() if name not in HEADLINE_METRICS}
    return started | own | derived_metrics(cell.workload, cell.command, outcome, own)


def _instance(outcome: Outcome, first_ns: int) -> Instance:
    """Return one of several for the record; one that never began has no stamps."""
    asked_ns = outcome.requested_ns
    offsets = {name: at_ns - asked_ns for name, at_ns in outcome.stages.items()}
    return Instance(outcome.status, outcome.reason, asked_ns - first_ns if asked_ns else None, offsets)


def own_program(outcome: Outcome, executables: Mapping[str, str]) -> Outcome:
    """Return ``outcome``, invalid where what was executed is not the image's own (sums of ``executables``). Pure."""
    problem = programs.objection(outcome.applied, executables) if outcome.status == "ok" else None
    return replace(outcome, status="invalid", reason=problem) if problem else outcome


def judge(outcome: Outcome) -> tuple[Status, str | None]:
    """Return the status of a sample: an outcome that is well by itself is invalid if its stages are out of order."""
    if outcome.status != "ok":
        return outcome.status, outcome.reason
    disorder = stages.stages_in_order(outcome)
    return ("invalid", disorder) if disorder else ("ok", None)


def stored(metric: Metric) -> MetricValue:
    return MetricValue(value=metric.value, unit=metric.unit, direction=metric.direction)


def stored_iterations(metric: Metric) -> Iterations:
    return Iterations(values=list(metric.iterations), warm_up=metric.warm_up)


def stored_counters(counters: Sequence[Counter]) -> dict[str, CounterValue]:
    return {item.name: CounterValue(value=item.value, unit=item.unit, source=item.source) for item in counters}


def _throttled(counters: Sequence[Counter]) -> bool:
    return any(counter.name == "cpu.throttled" and counter.value for counter in counters)


def _headline(sample: Sample) -> dict[str, Any] | None:
    """Return what ``sample`` is about; None where it has no such metric."""
    name = headline_metric(list(sample.metrics))
    if name is None:
        return None
    return {"metric": name, "value": sample.metrics[name].value, "unit": sample.metrics[name].unit}


def sample_event(sample: Sample) -> dict[str, Any]:
    """Return what a progress display needs to know of ``sample``; the whole account stays on disk."""
    elapsed_ns = sample.stages.get("cleaned", max(sample.stages.values(), default=0))
    found = (sample.metrics[name] for name in HEADLINE_METRICS if name in sample.metrics)
    ready = next((metric for metric in found if metric.unit == "s"), None)
    return {
        "event": "sample",
        "cell": sample.cell,
        "environment": sample.environment,
        "round": sample.round,
        "status": sample.status,
        "reason": sample.reason,
        "ready_s": ready.value if ready else None,
        "headline": _headline(sample),
        "elapsed_s": elapsed_ns / 1e9,
        "flags": sample.flags,
    }
