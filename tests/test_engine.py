"""The loop, with an environment that exists only here: no clock, no sleeping, no kernel."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from benchbox import engine
from benchbox.caches import Seen
from benchbox.engine import ABANDON_AFTER, Engine, PlannedCell
from benchbox.model import Command, Counter, Metric, NotDone, Outcome, Running, Status
from benchbox.record import Sample
from benchbox.together import Sight
from tests.played import PlayedSession

OK = Outcome("ok", exit_code=0, requested_ns=1000, stages={"exec": 1500, "ready": 2000, "cleaned": 3000})
FAILED = Outcome("failed", "exit status 7", exit_code=7, requested_ns=1000)


class FakeRunning:
    def __init__(self, outcome: Outcome, on_wait: Callable[[], None]) -> None:
        self._outcome, self._on_wait, self.killed = outcome, on_wait, False

    def ready(self) -> bool:
        return "ready" in self._outcome.stages

    def wait(self) -> Outcome:
        self._on_wait()
        return dataclasses.replace(FAILED, reason="ended by benchbox") if self.killed else self._outcome

    def kill(self) -> None:
        self.killed = True


class FakeSession(PlayedSession):
    """Gives the outcomes of ``script``, one a start, and ``OK`` from then on."""

    def __init__(self, label: str, log: list[str], script: Sequence[Outcome] = ()) -> None:
        self.label, self.log, self.script = label, log, list(script)
        self.on_wait: Callable[[], None] = lambda: None
        self.running: list[FakeRunning] = []

    def start(self, command: Command) -> Running:
        self.log.append(f"start {self.label}/{command.argv[0]}")
        self.running.append(FakeRunning(self.script.pop(0) if self.script else OK, self.on_wait))
        return self.running[-1]


class FakeConditions:
    def __init__(self, log: list[str], cache: Seen) -> None:
        self.log, self.seen = log, cache

    def settle(self) -> None:
        self.log.append("settle")

    def cache(self, environment: str) -> Callable[[], Seen]:
        self.log.append(f"cache {environment}")
        return lambda: self.seen

    def occupancy(self) -> Callable[[], Sight]:
        return Sight

    def noise(self) -> Callable[[], dict[str, float]]:
        self.log.append("watch")

        def seen() -> dict[str, float]:
            self.log.append("seen")
            return {"load": 0.5}

        return seen


class FakeSink:
    def __init__(self, log: list[str]) -> None:
        self.log, self.samples = log, list[Sample]()

    def append(self, sample: Sample) -> None:
        self.log.append(f"append {sample.cell}")
        self.samples.append(sample)

    def sync(self) -> None:
        self.log.append("sync")


class Bench:
    """An engine over the environments a and b, each with one workload w."""

    def __init__(
        self, order: Sequence[Sequence[str]], parse: Callable[[Outcome], tuple[Metric, ...]] = lambda o: ()
    ) -> None:
        self.log: list[str] = []
        self.events: list[Mapping[str, Any]] = []
        self.sessions = {label: FakeSession(label, self.log) for label in "ab"}
        self.sink = FakeSink(self.log)
        self.cells = [PlannedCell(f"{label}/w", label, "w", {"n": 1}, Command(("w",)), parse) for label in "ab"]
        self.order = order
        self.cache = Seen()

    def engine(self) -> Engine:
        conditions = FakeConditions(self.log, self.cache)
        return Engine(self.cells, self.order, self.sessions, conditions, self.sink, self.events.append)

    def run(self, first_round: int = 1) -> str:
        return self.engine().run(first_round)

    def measured(self) -> list[tuple[int, int, str, str | None]]:
        return [(sample.round, sample.position, sample.cell, sample.predecessor) for sample in self.sink.samples]


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench([["b/w", "a/w"], ["a/w", "b/w"], ["b/w", "a/w"]])


def test_the_planned_order_is_obeyed(bench: Bench) -> None:
    """The priming round comes first, as round 0, and each sample knows the one before it, across rounds."""
    assert bench.run() == "done"
    assert bench.measured() == [
        (0, 0, "b/w", None),
        (0, 1, "a/w", "b/w"),
        (1, 0, "a/w", "a/w"),
        (1, 1, "b/w", "a/w"),
        (2, 0, "b/w", "b/w"),
        (2, 1, "a/w", "b/w"),
    ]


def test_each_sample_is_on_disk_before_the_next_begins(bench: Bench) -> None:
    """Settle, watch, start, record; a sync after each round, never inside one."""
    bench.run()
    one = ["settle", "cache b", "watch", "start b/w", "seen", "append b/w"]
    other = ["settle", "cache a", "watch", "start a/w", "seen", "append a/w"]
    assert bench.log == [*one, *other, "sync", *other, *one, "sync", *one, *other, "sync"]


def test_a_resumed_run_is_primed_and_goes_on_where_it_broke(bench: Bench) -> None:
    """The rounds before are not measured again."""
    bench.run(first_round=2)
    assert [(number, cell) for number, _, cell, _ in bench.measured()] == [
        (0, "b/w"), (0, "a/w"), (2, "b/w"), (2, "a/w"),
    ]  # fmt: skip


def test_a_run_that_was_complete_measures_no_round_again(bench: Bench) -> None:
    """Only the priming round."""
    bench.run(first_round=3)
    assert {number for number, *_ in bench.measured()} == {0}


def test_cells_of_an_environment_that_is_not_there_are_left_out(bench: Bench) -> None:
    """Without a gap in what is before what: positions stay those of the plan, predecessors are what really ran."""
    del bench.sessions["b"]
    assert bench.run() == "done"
    assert bench.measured() == [(0, 1, "a/w", None), (1, 0, "a/w", "a/w"), (2, 1, "a/w", "a/w")]


def test_a_sample_holds_the_whole_outcome(bench: Bench) -> None:
    """Stages as ns after the request, metrics in s, counters with their source, noise, what was applied, output."""
    bench.sessions["b"].script = [
        dataclasses.replace(
            OK,
            spawn_ns=70,
            counters=(Counter("cpu.usage", 0.5, "s", "cgroup2 cpu.stat"), Counter("io.write", None, "B", "not here")),
            applied={"pids": 5},
            flags={"accelerator": "tcg"},
            guest={"kernel": 9},
            output_tail=b"caf\xc3\xa9 \xff",
            console_tail="boot",
        )
    ]
    bench.run()
    sample = bench.sink.samples[0]
    assert (sample.status, sample.reason, sample.exit_code, sample.requested_ns) == ("ok", None, 0, 1000)
    assert sample.stages == {"exec": 500, "ready": 1000, "cleaned": 2000}
    assert (sample.spawn_ns, sample.guest, sample.applied) == (70, {"kernel": 9}, {"pids": 5})
    assert sample.metrics["startup.ready"].value == 1e-6
    assert sample.metrics["startup.spawn"].value == 7e-8
    assert (sample.counters["cpu.usage"].value, sample.counters["io.write"].value) == (0.5, None)
    assert sample.counters["io.write"].source == "not here"
    assert (sample.output_tail, sample.console_tail) == ("café �", "boot")
    assert (sample.noise, sample.params, sample.flags) == ({"load": 0.5}, {"n": 1}, {"accelerator": "tcg"})


def test_a_server_s_byte_is_recorded_as_served(bench: Bench) -> None:
    """Whatever environment stamped it; a progress display gets its time all the same."""
    command = Command(("w",), signals="served")
    bench.cells = [dataclasses.replace(cell, command=command) for cell in bench.cells]
    bench.run()
    sample = bench.sink.samples[0]
    assert sample.stages == {"exec": 500, "served": 1000, "cleaned": 2000}
    assert sample.metrics["startup.served"].value == 1e-6
    assert "startup.ready" not in sample.metrics
    assert [event["ready_s"] for event in bench.events if event["event"] == "sample"] == [1e-6] * 6


def test_the_workload_s_metrics_stand_beside_those_of_the_stages() -> None:
    """What the workload read out of its output is kept under its name."""
    bench = Bench([["a/w"]], parse=lambda outcome: (Metric("requests", 12.0, "1/s", "higher"),))
    bench.run()
    metric = bench.sink.samples[0].metrics["requests"]
    assert (metric.value, metric.unit, metric.direction) == (12.0, "1/s", "higher")


def test_a_failed_sample_has_no_metrics() -> None:
    """It is kept and marked, and the workload's reader never sees its output."""

    def parse(outcome: Outcome) -> tuple[Metric, ...]:
        raise AssertionError("a failed sample was parsed")

    bench = Bench([["a/w"]], parse)
    bench.sessions["a"].script = [dataclasses.replace(FAILED, stages={"exec": 1200}, output_tail=b"oops")]
    bench.run()
    (sample,) = bench.sink.samples
    assert (sample.status, sample.reason, sample.exit_code, sample.metrics) == ("failed", "exit status 7", 7, {})
    assert (sample.stages, sample.output_tail) == ({"exec": 200}, "oops")


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"exec": 2000, "ready": 1999}, "stage ready is stamped 1 ns before exec"),
        ({"exec": 999}, "stage exec is stamped 1 ns before requested"),
        ({"bogus": 2000}, "unknown stage bogus"),
    ],
)
def test_stages_out_of_order_make_a_sample_invalid(stages: dict[str, int], words: str) -> None:
    """However well the workload itself ended."""
    bench = Bench([["a/w"]])
    bench.sessions["a"].script = [dataclasses.replace(OK, stages=stages)]
    bench.run()
    (sample,) = bench.sink.samples
    assert (sample.status, sample.reason, sample.metrics) == ("invalid", words, {})


def test_a_throttled_sample_is_flagged_and_kept() -> None:
    """It counts, and the reader is told."""
    bench = Bench([["a/w"], ["a/w"]])
    throttled = Counter("cpu.throttled", 0.1, "s", "cgroup2 cpu.stat")
    bench.sessions["a"].script = [dataclasses.replace(OK, counters=(throttled,)), OK]
    bench.run()
    assert [sample.flags for sample in bench.sink.samples] == [{"throttled": "yes"}, {}]
    assert bench.sink.samples[0].metrics


def test_a_cell_that_fails_three_times_alike_is_abandoned() -> None:
    """Numbers aside: the other cells go on, and the run says which was given up, once."""
    bench = Bench([["a/w", "b/w"]] * 6)
    bench.sessions["a"].script = [dataclasses.replace(FAILED, reason=f"pid {n} died") for n in range(6)]
    running = bench.engine()
    assert running.run() == "done"
    assert [sample.cell for sample in bench.sink.samples].count("a/w") == ABANDON_AFTER == 3
    assert [sample.cell for sample in bench.sink.samples].count("b/w") == 6
    (abandoned,) = running.abandoned
    assert (abandoned.cell, abandoned.reason, abandoned.after_round) == ("a/w", "pid 2 died", 2)
    assert [event for event in bench.events if event["event"] == "abandoned"] == [
        {"event": "abandoned", "cell": "a/w", "reason": "pid 2 died"}
    ]


def test_failures_of_different_kinds_do_not_add_up() -> None:
    """A cell is given up for one cause, not for bad luck."""
    bench = Bench([["a/w"]] * 6)
    reasons = ["too slow", "too big", "too slow", "too big"]
    bench.sessions["a"].script = [dataclasses.replace(FAILED, reason=reason) for reason in reasons]
    running = bench.engine()
    running.run()
    assert running.abandoned == ()
    assert len(bench.sink.samples) == 6


def test_failures_of_one_cell_do_not_count_for_another() -> None:
    """Each has its own count."""
    bench = Bench([["a/w", "b/w"]] * 2)
    for session in bench.sessions.values():
        session.script = [FAILED] * 2
    running = bench.engine()
    running.run()
    assert running.abandoned == ()


def test_stopping_kills_the_running_sample_and_does_not_keep_it(bench: Bench) -> None:
    """What was measured before stays."""
    running = bench.engine()
    bench.sessions["a"].on_wait = running.stop
    assert running.run() == "interrupted"
    assert bench.sessions["a"].running[0].killed
    assert [cell for _, _, cell, _ in bench.measured()] == ["b/w"]
    assert [event["cell"] for event in bench.events] == ["b/w"]


def test_stopping_before_the_start_ends_after_one_killed_sample(bench: Bench) -> None:
    """A request that comes while the engine is being made is not lost."""
    running = bench.engine()
    running.stop()
    assert running.run() == "interrupted"
    assert bench.sink.samples == []
    assert [one.killed for session in bench.sessions.values() for one in session.running] == [True]


def test_the_stop_of_the_last_sample_is_an_interruption() -> None:
    """A round that is not whole must be repeated."""
    bench = Bench([["a/w"]])
    running = bench.engine()
    bench.sessions["a"].on_wait = running.stop
    assert running.run() == "interrupted"
    assert bench.sink.samples == []


def test_progress_hears_of_each_sample(bench: Bench) -> None:
    """With what a display needs and no more."""
    bench.run()
    assert bench.events[0] == {
        "event": "sample", "cell": "b/w", "environment": "b", "round": 0, "status": "ok", "reason": None,
        "ready_s": 1e-6, "headline": {"metric": "startup.ready", "value": 1e-6, "unit": "s"},
        "elapsed_s": 2e-6, "flags": {},
    }  # fmt: skip


def test_progress_hears_what_a_sample_is_about() -> None:
    """A start where there is one, else the first metric of the workload's own."""
    rate = Metric("requests", 12.0, "1/s", "higher")
    bench = Bench([["a/w"]], parse=lambda outcome: (rate, Metric("late", 1.0, "s")))
    bench.cells = [dataclasses.replace(bench.cells[0], command=Command(("w",), signals_ready=False))]
    stages = {name: at for name, at in OK.stages.items() if name != "ready"}
    bench.sessions["a"].script = [dataclasses.replace(OK, stages=stages)]
    bench.run()
    assert bench.events[0]["headline"] == {"metric": "requests", "value": 12.0, "unit": "1/s"}
    assert bench.events[0]["ready_s"] is None


def test_a_sample_that_never_became_ready_has_no_ready_time() -> None:
    """And the time that it took is that of its last stage."""
    bench = Bench([["a/w"]])
    bench.sessions["a"].script = [dataclasses.replace(FAILED, stages={"cgroups": 1100, "exec": 1200})]
    bench.run()
    assert (bench.events[0]["ready_s"], bench.events[0]["elapsed_s"]) == (None, 2e-7)
    assert bench.events[0]["headline"] is None


def test_a_sample_that_was_not_what_the_scenario_asks_of_the_cache_is_invalid(bench: Bench) -> None:
    """It is kept with what was counted; three alike are enough to give the cell up."""
    read = Counter("cache.read", 0.0, "B", "mincore")
    bench.cache = Seen((read,), {"cache": "cold"}, "not cold: 8 KiB stayed in the page cache")
    running = bench.engine()
    running.run()
    sample = bench.sink.samples[0]
    assert (sample.status, sample.reason, sample.metrics) == ("invalid", bench.cache.objection, {})
    assert (sample.flags["cache"], sample.counters["cache.read"].value) == ("cold", 0.0)
    assert {item.cell for item in running.abandoned} == {"a/w", "b/w"}


def test_a_sample_that_failed_keeps_its_own_reason(bench: Bench) -> None:
    """Whatever the cache was."""
    bench.cache = Seen(objection="not warm: the page cache did not hold 4 KiB of 8 KiB")
    bench.sessions["b"].script = [FAILED]
    bench.run()
    assert (bench.sink.samples[0].status, bench.sink.samples[0].reason) == ("failed", "exit status 7")


def test_several_at_once_are_one_sample() -> None:
    """With metrics of their own and every stamp of each; the display hears of the last one that became ready."""
    bench = Bench([["a/w"]])
    bench.cells = [dataclasses.replace(bench.cells[0], parallel=3)]
    bench.sessions["a"].script = [
        OK, dataclasses.replace(OK, requested_ns=1200, stages={"exec": 1600, "ready": 2500, "cleaned": 2900}), OK,
    ]  # fmt: skip
    bench.run()
    (sample,) = bench.sink.samples
    assert (sample.status, sample.stages) == ("ok", {"exec": 600, "ready": 1500, "cleaned": 2000})
    assert sample.metrics["parallel.all_ready"].value == 1.5e-6
    assert not [name for name in sample.metrics if name.startswith("startup.")]
    assert sorted((each.requested_ns, each.stages["ready"]) for each in sample.instances) == [
        (0, 1000), (0, 1000), (200, 1300),
    ]  # fmt: skip
    assert bench.events[0]["ready_s"] == 1.5e-6


def test_one_of_several_that_fails_is_on_record_among_the_others() -> None:
    """And fails the sample."""
    bench = Bench([["a/w"]])
    bench.cells = [dataclasses.replace(bench.cells[0], parallel=2)]
    bench.sessions["a"].script = [OK, dataclasses.replace(FAILED, requested_ns=0)]
    bench.run()
    (sample,) = bench.sink.samples
    assert (sample.status, sample.metrics) == ("failed", {})
    assert sorted(each.status for each in sample.instances) == ["failed", "ok"]
    assert {each.reason: each.requested_ns for each in sample.instances} == {None: 0, "exit status 7": None}


def test_stopping_ends_several_at_once() -> None:
    """None of them is left, nothing is recorded."""
    bench = Bench([["a/w"]])
    bench.cells = [dataclasses.replace(bench.cells[0], parallel=4)]
    running = bench.engine()
    running.stop()
    assert running.run() == "interrupted"
    assert [one.killed for one in bench.sessions["a"].running] == [True] * 4
    assert bench.sink.samples == []


@pytest.mark.parametrize("status", ["failed", "invalid", "skipped"])
def test_the_judgement_of_the_environment_stands(status: Status) -> None:
    """An outcome that is not well is not looked at further, its stages least of all."""
    found = engine.judge(Outcome(status, "because", requested_ns=5, stages={"exec": 1}))
    assert found == (status, "because")


def test_reasons_that_differ_in_numbers_only_are_alike() -> None:
    """Pids, sizes and times change from one failure to the next."""
    assert engine.alike("killed after 12.5 s (pid 77)") == engine.alike("killed after 9.1 s (pid 8123)")
    assert engine.alike("killed") != engine.alike("timed out")


def test_work_that_was_not_done_is_a_reason_of_its_own(bench: Bench) -> None:
    """Not one about the output: that was what it should be."""

    def parse(outcome: Outcome) -> tuple[Metric, ...]:
        raise NotDone("a cache took the bytes")

    cell = dataclasses.replace(bench.engine()._cells["a/w"], parse=parse)
    sample = engine.sample_of(cell, engine._Place(1, 0, None), "now", OK, engine.Around())
    assert (sample.status, sample.reason, sample.metrics) == ("invalid", "a cache took the bytes", {})


def test_a_sample_whose_pages_somebody_else_had_read_is_invalid(bench: Bench) -> None:
    """All of it came into memory, and the sample had nothing read."""
    bench.cache = Seen(flags={"cache": "cold"}, own_bytes=8192.0)
    bench.sessions["a"].script = [dataclasses.replace(OK, counters=(Counter("process.read", 0.0, "B", "wait4"),))]
    bench.run()
    spoilt = next(sample for sample in bench.sink.samples if sample.environment == "a")
    assert (spoilt.status, spoilt.metrics) == ("invalid", {})
    assert str(spoilt.reason).startswith("not cold: ")


def test_a_sample_of_another_program_is_invalid() -> None:
    """Sabotage: what an environment executed is not the image's; a sample that failed keeps its own reason."""
    other = {"program": {"path": "/bin/ready", "sha256": "b" * 64}}
    found = engine.own_program(dataclasses.replace(OK, applied=other), {"/bin/ready": "a" * 64})
    assert (found.status, str(found.reason)[:28]) == ("invalid", "another program was executed")
    assert engine.own_program(dataclasses.replace(OK, applied=other), {"/bin/ready": "b" * 64}).status == "ok"
    assert engine.own_program(dataclasses.replace(FAILED, applied=other), {"/bin/ready": "a" * 64}).reason == (
        FAILED.reason
    )
