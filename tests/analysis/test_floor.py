"""What is too near to the time of doing nothing is not compared."""

import pytest

from benchbox.analysis.floor import Floor, floors, within_floor
from benchbox.analysis.summary import Summary, summarise
from benchbox.record import CellRecord, MetricValue, Sample
from tests.report.records import failed, manifest, sample


def timed(environment: str, number: int, workload: str, seconds: float) -> Sample:
    metrics = {f"{workload}.elapsed": MetricValue(value=seconds, unit="s")}
    return sample(environment, number, workload=workload, metrics=metrics)


def test_a_floor_is_of_one_environment_and_of_valid_samples() -> None:
    """Other workloads and failed samples are none."""
    taken = [timed("native", number, "floor", number / 100) for number in range(1, 6)]
    found = floors([taken, [timed("native", 9, "command", 7.0), failed("native", 6, "gone", workload="floor")]])
    assert set(found) == {"native"}
    assert (found["native"].median_s, found["native"].iqr_s) == pytest.approx((0.03, 0.02))


@pytest.mark.parametrize(
    ("metric", "median_s", "hidden"),
    [
        ("command.elapsed", 0.0149, True),
        ("command.elapsed", 0.0009, True),
        ("command.elapsed", 0.0151, False),
        ("floor.elapsed", 0.010, False),
        ("command.latency", 0.010, False),
        ("startup.ready", 0.010, False),
        ("command.elapsed", None, False),
    ],
)
def test_a_time_has_to_be_five_spreads_above_the_floor(metric: str, median_s: float | None, hidden: bool) -> None:
    """Only a time that benchbox takes from outside has the floor in it; the floor itself is compared."""
    found = within_floor(metric, median_s, Floor(0.010, 0.001))
    assert (found is not None) == hidden
    if found:
        assert found.startswith("within the harness's floor: ")
    assert within_floor(metric, median_s, None) is None


def run_of(command_s: float) -> Summary:
    """Return the summary of a run in which a container's floor is 10 ms and doubles every other round."""
    cells = [
        CellRecord(id=f"{label}/{name}", environment=label, workload=name)
        for name in ("command", "floor")
        for label in ("native", "container")
    ]
    taken = [
        one
        for number in range(1, 13)
        for label, floor_s in (("native", 0.001), ("container", 0.010 * (1 + number % 2)))
        for one in (timed(label, number, "floor", floor_s), timed(label, number, "command", command_s + floor_s))
    ]
    return summarise(manifest(("native", "container"), 12, cells=cells), taken)


def test_a_comparison_within_the_floor_is_not_judged() -> None:
    """With the reason; the same far above it is, and the floor itself too."""
    near, floor = (table.rows[1].verdict for table in run_of(0.020).tables)
    assert near is not None and near.kind == "not judged"
    told = "35.0 ms is nearer to the 15.0 ms of doing nothing than 5 times its spread of 10.0 ms"
    assert near.reason == f"within the harness's floor: {told}"
    assert floor is not None and floor.kind == "worse"
    far, _ = (table.rows[1].verdict for table in run_of(0.1).tables)
    assert far is not None and far.kind == "worse"
