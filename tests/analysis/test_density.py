"""What one more instance takes, from the samples of a run."""

from typing import Any

from benchbox.analysis.density import Density, densities
from benchbox.analysis.summary import summarise
from benchbox.record import MetricValue, Sample
from benchbox.report import table, words
from benchbox.report.page import render_page
from tests.report.records import parallel_run

MIB = 1 << 20
#: What one more takes in each environment, and what none takes.
EACH = {"native": 0.25 * MIB, "container": 2 * MIB}
FIXED = 3 * MIB


def run(counts: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[Any, list[Sample]]:
    """Return a run whose samples say exactly so much memory."""
    record, taken = parallel_run(counts)
    return record, [held(one) for one in taken]


def held(one: Sample) -> Sample:
    count = int(one.params["parallel"])
    value = MetricValue(value=FIXED + count * EACH[one.environment], unit="B")
    return one.model_copy(update={"metrics": {**one.metrics, "density.cgroup": value}})


def test_the_slope_is_what_one_more_takes() -> None:
    """By each account that there is, over every valid sample; what all share is in no slope."""
    (found,) = summarise(*run()).densities
    by_name = {share.display: share for share in found.shares}
    for name, each in EACH.items():
        slope = by_name[name].slopes["density.cgroup"]
        assert (round(slope.estimate), round(slope.intercept)) == (each, FIXED)
        assert slope.low is not None and slope.high is not None
        assert slope.low <= slope.estimate <= slope.high
    assert (found.title, by_name["native"].largest, by_name["native"].emulated) == ("startup", 8, False)
    assert set(by_name["native"].slopes) == {"density.cgroup"}


def test_one_number_alone_and_other_runs_have_none() -> None:
    """No line goes through one number, and a start is no memory."""
    assert summarise(*run((4,))).densities == ()
    assert summarise(*parallel_run((1, 2))).densities == ()
    assert densities([], {}, 1) == ()


def test_failed_samples_are_no_points() -> None:
    """The others make the line."""
    record, taken = run()
    gone = {"status": "failed", "reason": "gone", "metrics": {}}
    broken = [one.model_copy(update=gone) if one.params["parallel"] == 8 else one for one in taken]
    (found,) = summarise(record, broken).densities
    assert {share.largest for share in found.shares} == {4}
    assert round(found.shares[0].slopes["density.cgroup"].estimate) == EACH["native"]


def density() -> Density:
    return summarise(*run()).densities[0]


def test_it_is_said_in_words_the_dearest_first() -> None:
    """In the terminal and first of all on the page, which has its table and how long many take to start."""
    text = words.density_answer(density())
    assert text.startswith("startup, memory of one more (charged to its control groups): 2 MiB (2 MiB to 2 MiB) per")
    assert text.index("container") < text.index("native")
    assert text in " ".join(table.plain_text(summarise(*run())).split())
    page = render_page(*run())
    assert "Density: startup" in page and "At once: startup" in page
    assert page.index(text) < page.index("Density: startup")


def test_a_size_below_zero_keeps_its_sign() -> None:
    """Noise may look like memory given back."""
    assert words.size_text(-2.5 * MIB) == "-2.5 MiB"
    assert words.size_text(0.4) == "0 B"


def test_what_was_left_out_is_said_and_has_no_row() -> None:
    """A skipped sample is neither a failure nor a row without numbers."""
    record, taken = run()
    gone = {"status": "skipped", "reason": "left out: too large", "metrics": {}}
    skipped = [one.model_copy(update=gone) if one.params["parallel"] == 8 else one for one in taken]
    summary = summarise(record, skipped)
    assert "native/startup[parallel=8] was left out: too large." in summary.notes
    assert {row.params["parallel"] for found in summary.tables for row in found.rows} == {1, 2, 4}
