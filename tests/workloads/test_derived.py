"""How long a command ran, and its work by host CPU time."""

from benchbox.model import Command, Counter, Metric, Outcome
from benchbox.workloads.derived import derived_metrics

QUIET, SIGNALLING = Command(("x",), signals_ready=False), Command(("x",))
USED = Counter("cpu.usage", 2.0, "s", "cpu.stat usage_usec")
WORK = {"w.work": Metric("w.work", 500.0, "1", "higher"), "w.rate": Metric("w.rate", 9.0, "1/s", "higher")}


def outcome(*counters: Counter, **stages: int) -> Outcome:
    return Outcome("ok", requested_ns=1_000, stages=stages, counters=counters)


def test_a_command_runs_from_the_request_to_its_end() -> None:
    """One that signals is about its byte; one of which no end is known has no such time."""
    ended = outcome(exec=500_001_000, exited=1_500_001_000)
    (found,) = derived_metrics("w", QUIET, ended, {}).values()
    assert (found.name, found.value, found.unit, found.direction) == ("w.elapsed", 1.5, "s", "lower")
    assert derived_metrics("w", SIGNALLING, ended, {}) == {}
    assert derived_metrics("w", QUIET, outcome(exec=5_000), {}) == {}


def test_work_is_divided_by_the_host_cpu_time_of_the_whole_environment() -> None:
    """Whatever the unit of the work; nothing else of the workload is."""
    (found,) = derived_metrics("w", SIGNALLING, outcome(USED), WORK).values()
    assert (found.name, found.value, found.unit, found.direction) == ("w.per_cpu_s", 250.0, "1/s", "higher")
    (found,) = derived_metrics("w", SIGNALLING, outcome(USED), {"w.work": Metric("w.work", 8, "B")}).values()
    assert (found.value, found.unit) == (4.0, "B/s")


def test_what_the_host_cannot_attribute_is_no_divisor() -> None:
    """No counter, none that is known, none that is zero; and no work."""
    for counters in ((), (Counter("cpu.usage", None, "s", "no controller"),), (Counter("cpu.usage", 0.0, "s", "x"),)):
        assert derived_metrics("w", SIGNALLING, outcome(*counters), WORK) == {}
    assert derived_metrics("w", SIGNALLING, outcome(USED), {"v.work": WORK["w.work"]}) == {}
