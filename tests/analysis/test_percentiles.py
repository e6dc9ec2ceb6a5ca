"""Percentiles of a latency: which metrics they are, and the curve that they make."""

import pytest

from benchbox.analysis.percentiles import Percentiles, percentiles, rung_of
from benchbox.analysis.samples import take
from benchbox.analysis.summary import summarise
from benchbox.record import MetricValue, Sample
from tests.report.records import failed, manifest, sample


@pytest.mark.parametrize(
    ("metric", "family", "name", "share"),
    [
        ("network.latency.p50", "network.latency", "p50", 0.5),
        ("network.latency.p99.9", "network.latency", "p99.9", 0.999),
        ("disk.write.flush_latency_p99.9", "disk.write.flush_latency", "p99.9", 0.999),
        ("mine.latency_p999", "mine.latency", "p99.9", 0.999),
        ("redis.latency.max", "redis.latency", "max", 1.0),
    ],
)
def test_a_percentile_is_told_by_the_end_of_its_name(metric: str, family: str, name: str, share: float) -> None:
    """Behind a point or an underscore, as our workloads and a user's own metrics have it."""
    assert rung_of(metric) == (family, name, share)


@pytest.mark.parametrize(
    "metric", ["p50", "network.late", "startup.ready", "a.p100", "a.p888", "a.p", "a.maximum", "a.p9x"]
)
def test_other_metrics_are_no_percentiles(metric: str) -> None:
    """No name is taken for one by its look."""
    assert rung_of(metric) is None


def with_times(label: str, number: int, times_s: dict[str, float]) -> Sample:
    metrics = {name: MetricValue(value=value, unit="s") for name, value in times_s.items()}
    return sample(label, number).model_copy(update={"metrics": metrics})


def curves(taken: list[Sample], rounds: int = 7) -> tuple[Percentiles, ...]:
    summary = summarise(manifest(("native", "container"), rounds), taken)
    return percentiles(summary.tables[0], take(taken).by_cell)


def test_a_curve_goes_through_the_medians_of_the_valid_samples() -> None:
    """By environment, from the lowest to the slowest; neither the priming round nor what failed is in it."""
    taken = [with_times("native", 0, {"a.latency.p50": 99.0})]
    for number in range(1, 8):
        times = {"a.latency.max": 9.0, "a.latency.p99.9": 4.0 + number, "a.latency.p50": 1.0 * number}
        taken += [with_times("native", number, times), failed("container", number, "gone")]
    (found,) = curves(taken)
    assert (found.metric, found.unit, found.names) == ("a.latency", "s", ("p50", "p99.9", "max"))
    (curve,) = found.curves
    assert (curve.display, curve.number) == ("native", 0)
    assert [(rung.name, rung.share, rung.median, rung.count) for rung in curve.rungs] == [
        ("p50", 0.5, 4.0, 7), ("p99.9", 0.999, 8.0, 7), ("max", 1.0, 9.0, 7),
    ]  # fmt: skip
    interval = curve.rungs[0].interval
    assert interval is not None and (interval.low, interval.high) == (1.0, 7.0)


def test_a_percentile_of_few_samples_is_left_out() -> None:
    """Where a tool says it only when enough was done, the rest would be a choice of the busiest."""
    far = {"a.latency.p99.9": 3.0}
    near = {"a.latency.p50": 1.0, "a.latency.p99": 2.0}
    taken = [with_times("native", number, near | (far if number <= 3 else {})) for number in range(1, 8)]
    taken += [with_times("container", number, near | far) for number in range(1, 8)]
    (found,) = curves(taken)
    assert [[rung.name for rung in curve.rungs] for curve in found.curves] == [["p50", "p99"], ["p50", "p99", "p99.9"]]
    assert found.names == ("p50", "p99", "p99.9")


def test_one_percentile_makes_no_curve_and_zero_is_on_none() -> None:
    """A median and a maximum say nothing of what lies between; a logarithmic axis has no zero."""
    assert not curves([with_times("native", n, {"a.latency.p50": 1.0, "a.latency.max": 2.0}) for n in range(1, 8)])
    assert not curves([with_times("native", n, {"a.latency.p50": 0.0, "a.latency.p99": 2.0}) for n in range(1, 8)])
    assert not curves([sample("native", n) for n in range(1, 8)])


def test_two_latencies_of_one_workload_are_two_figures() -> None:
    """A write and its flush are not on one line."""
    times = {"w.latency_p50": 1.0, "w.flush_latency_p50": 3.0, "w.latency_p99": 2.0, "w.flush_latency_p99": 4.0}
    found = curves([with_times("native", number, times) for number in range(1, 8)])
    assert [each.metric for each in found] == ["w.latency", "w.flush_latency"]
