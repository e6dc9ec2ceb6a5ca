"""What cannot be true is no number: a guest that writes faster than native to the same device."""

import pytest

from benchbox.analysis.plausibility import too_fast
from benchbox.analysis.statistics import Ratio
from benchbox.analysis.summary import Row, summarise
from benchbox.record import CellRecord, MetricValue, Sample
from tests.report.records import environment, manifest, sample

BANDWIDTH, LATENCY = "disk.write.bandwidth", "disk.write.latency_p99"


@pytest.mark.parametrize(
    ("metric", "direction", "ratio", "expected"),
    [
        (BANDWIDTH, "higher", Ratio(2.2, 1.9, 2.5, 10), True),
        (BANDWIDTH, "higher", Ratio(1.1, 0.98, 1.2, 10), False),
        (BANDWIDTH, "higher", Ratio(0.5, 0.4, 0.6, 10), False),
        (LATENCY, "lower", Ratio(0.5, 0.4, 0.6, 10), True),
        (LATENCY, "lower", Ratio(0.95, 0.8, 1.1, 10), False),
        (LATENCY, "lower", Ratio(2.0, 1.8, 2.1, 10), False),
        (BANDWIDTH, "higher", Ratio(1.2, None, None, 3), True),
        (BANDWIDTH, "higher", Ratio(1.04, None, None, 3), False),
        (LATENCY, "lower", Ratio(0.5, None, None, 3), True),
        ("disk.write.on_device", "higher", Ratio(2.0, 1.9, 2.1, 10), False),
        ("disk.read.bandwidth", "higher", Ratio(2.0, 1.9, 2.1, 10), False),
        ("startup.ready", "lower", Ratio(0.5, 0.4, 0.6, 10), False),
        (BANDWIDTH, "higher", None, False),
    ],
)
def test_only_writes_that_are_faster_beyond_doubt_are_refused(
    metric: str, direction: str, ratio: Ratio | None, expected: bool
) -> None:
    """By the whole interval, or by more than the tolerance where there is none."""
    assert (too_fast(metric, direction, "vm", "native", ratio) is not None) is expected


@pytest.mark.parametrize(("kind", "baseline"), [("container", "native"), ("vm", "vm"), ("vm", "container")])
def test_only_a_guest_beside_native_cannot_be_faster(kind: str, baseline: str) -> None:
    """A layer may lie on another device, and two guests may differ in just that."""
    assert too_fast(BANDWIDTH, "higher", kind, baseline, Ratio(2.2, 1.9, 2.5, 10)) is None


def writes(label: str, number: int, rate: float) -> Sample:
    metrics = {BANDWIDTH: MetricValue(value=rate + number, unit="B/s", direction="higher")}
    return sample(label, number, workload="disk", params={"rw": "write"}, metrics=metrics, flags={"accelerator": "kvm"})


def rows(guest_rate: float) -> dict[str, Row]:
    params: dict[str, str | int | float] = {"rw": "write"}
    cells = [
        CellRecord(id=f"{label}/disk[rw=write]", environment=label, workload="disk", params=params)
        for label in ("native", "vm")
    ]
    taken = [writes(label, n, rate) for n in range(1, 9) for label, rate in (("native", 500.0), ("vm", guest_rate))]
    records = [environment("native"), environment("vm", applied={"accelerator": "kvm"})]
    summary = summarise(manifest(records=records, cells=cells), taken)
    return {row.label: row for row in summary.tables[0].rows}


def test_a_guest_that_writes_faster_than_native_has_no_number_but_the_reason() -> None:
    """Sabotage: 1739 MB/s beside 801 MB/s, as a guest without flushes was published."""
    found = rows(1739.0)
    assert (found["vm"].ok, found["vm"].median, found["vm"].ratio, found["vm"].verdict) == (0, None, None, None)
    (failure,) = found["vm"].failures
    assert (failure.status, failure.count) == ("invalid", 8)
    assert "writes faster than native" in failure.reason and "cache" in failure.reason
    assert found["native"].ok == 8


def test_a_slower_guest_keeps_its_numbers() -> None:
    """Its ratio is what is asked for."""
    found = rows(250.0)
    assert found["vm"].ok == 8 and found["vm"].ratio is not None
