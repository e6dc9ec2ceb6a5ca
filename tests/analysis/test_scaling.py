"""What a run says by how many were started at once."""

from benchbox.analysis.scaling import scalings
from benchbox.analysis.summary import summarise
from tests.report.records import manifest, parallel_run, samples


def test_each_environment_has_a_row_for_each_number() -> None:
    """The fewest first, the values those of the tables."""
    summary = summarise(*parallel_run((1, 2, 4)))
    (found,) = scalings(summary.tables)
    assert (found.title, found.counts) == ("startup", (1, 2, 4))
    assert [(series.display, series.number) for series in found.series] == [("native", 0), ("container", 1)]
    assert [[count for count, _ in series.rows] for series in found.series] == [[1, 2, 4]] * 2
    assert [row.median for _, row in found.series[1].rows] == [table.rows[1].median for table in summary.tables]


def test_one_number_alone_shows_nothing() -> None:
    """Nor does a run without any, nor a foreign one whose number is none."""
    assert scalings(summarise(*parallel_run((4,))).tables) == ()
    assert scalings(summarise(manifest(), samples()).tables) == ()
    run, taken = parallel_run((1, 2))
    foreign = {"parallel": "many"}
    cells = [cell.model_copy(update={"params": foreign}) for cell in run.cells]
    assert scalings(summarise(run.model_copy(update={"cells": cells}), taken).tables) == ()


def test_a_number_without_a_valid_sample_is_left_out() -> None:
    """The others stay."""
    run, taken = parallel_run((1, 2))
    gone = {"status": "failed", "reason": "gone", "metrics": {}}
    broken = [one.model_copy(update=gone) if one.cell == "native/startup[parallel=2]" else one for one in taken]
    (found,) = scalings(summarise(run, broken).tables)
    assert [[count for count, _ in series.rows] for series in found.series] == [[1], [1, 2]]
