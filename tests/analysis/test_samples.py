"""Which samples count, and how a sample is read."""

from benchbox.analysis.samples import (
    exclusion,
    last_attempts,
    metric_value,
    primary_metric,
    stage_durations_ns,
    take,
)
from benchbox.record import MetricValue
from tests.report.records import failed, sample


def test_a_round_that_was_begun_anew_counts_only_in_its_last_attempt() -> None:
    """A resumed run repeats the broken round entirely, so nothing of its first attempt may stay."""
    broken = [sample("native", 2), sample("container", 2)]
    again = [sample("container", 2, factor=1.1)]
    first = [sample("native", 1), sample("container", 1)]
    kept = last_attempts([*first, *broken, *again])
    assert [id(one) for one in kept] == [id(one) for one in [*first, *again]]


def test_without_a_repeated_round_every_sample_is_kept_in_its_order() -> None:
    """The usual record passes unchanged."""
    taken = [sample("native", 1), sample("container", 1), sample("container", 2), sample("native", 2)]
    assert last_attempts(taken) == taken


def test_the_priming_round_and_skipped_samples_were_not_attempted() -> None:
    """Round 0 warms up; what was skipped was never started."""
    taken = [sample("native", 0), sample("native", 1), failed("native", 2, "no reason", status="skipped")]
    assert take(taken).by_cell == {"native/startup": [taken[1]]}


def test_a_run_of_several_at_once_is_about_when_all_are_ready() -> None:
    """Whatever other metrics come before it in the alphabet."""
    numbers = {name: MetricValue(value=1, unit="s") for name in ("a.first", "parallel.all_ready", "parallel.rate")}
    assert primary_metric([sample("native", 1, metrics=numbers)]) == "parallel.all_ready"


def test_only_ok_samples_have_a_value() -> None:
    """A failed sample that still reports a number is not in the statistics."""
    bad = sample("native", 1, status="invalid", reason="stages out of order")
    assert metric_value(sample("native", 1), "startup.ready") is not None
    assert metric_value(bad, "startup.ready") is None
    assert exclusion(bad, "startup.ready") == ("invalid", "stages out of order")


def test_an_ok_sample_without_the_metric_is_left_out_with_a_reason() -> None:
    """A metric that is missing never silently becomes a number."""
    one = sample("native", 1, metrics={})
    assert metric_value(one, "startup.ready") is None
    assert exclusion(one, "startup.ready") == ("ok", "reports no startup.ready")


def test_stage_durations_are_differences_in_the_order_of_stages() -> None:
    """Stages come in any order in the record; each lasts from the one before, the first from the request."""
    one = sample("native", 1, stages={"exec": 50, "cgroups": 10, "started": 30})
    two = sample("native", 2, stages={"cgroups": 5, "own": 9})
    bad = failed("native", 3, "gone", stages={"cgroups": 7})
    assert list(stage_durations_ns([one, two, bad]).items()) == [
        ("cgroups", [10, 5]),
        ("started", [20]),
        ("exec", [20]),
        ("own", [4]),
    ]


def test_the_metric_of_a_run_is_startup_ready_where_there_is_one() -> None:
    """Programs that know nothing of benchbox report other metrics: then the first of theirs."""
    other = sample("native", 1, metrics={"b": MetricValue(value=1, unit="1"), "a": MetricValue(value=1, unit="1")})
    assert primary_metric([other, sample("native", 1)]) == "startup.ready"
    assert primary_metric([other]) == "b"
    stages = {
        name: MetricValue(value=1, unit="s") for name in ("startup.stage.exec", "startup.cleaned", "x.rate", "x.a")
    }
    assert primary_metric([sample("native", 1, metrics=stages)]) == "x.rate"
    staged = {name: MetricValue(value=1, unit="s") for name in ("startup.stage.exec", "parallel.rate")}
    own = {"redis.rate": MetricValue(value=1, unit="1/s")}
    assert primary_metric([sample("native", 1, metrics={**staged, **own})]) == "redis.rate"
    assert primary_metric([sample("native", 1, metrics=staged)]) == "parallel.rate"
    served = sample("native", 1, metrics={name: MetricValue(value=1, unit="s") for name in ("a", "startup.served")})
    assert primary_metric([served]) == "startup.served"
    assert primary_metric([served, sample("native", 1)]) == "startup.ready"
    assert primary_metric([failed("native", 1, "gone")], "b") == "b"
    assert primary_metric([]) == "startup.ready"
