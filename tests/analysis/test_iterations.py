"""The iterations behind a metric, and how many samples settled."""

from benchbox.analysis.iterations import Unfolding, unfolding
from benchbox.analysis.samples import take
from benchbox.analysis.summary import summarise
from benchbox.record import Iterations, MetricValue, Sample
from tests.report.records import failed, iterated_run, manifest, sample, samples


def found_in(taken: list[Sample]) -> Unfolding | None:
    run = iterated_run()[0]
    return unfolding(summarise(run, taken).tables[0], take(taken).by_cell)


def test_iterations_are_told_by_environment_with_what_never_settled() -> None:
    """How many samples, how long their warm-up was, and in how many there was no steady state."""
    found = found_in(iterated_run()[1])
    assert found is not None
    assert (found.metric, found.unit, found.longest) == ("loop.each", "s", 20)
    assert [(row.row.label, len(row.samples), row.unsettled, row.warm_up) for row in found.rows] == [
        ("native", 12, 0, (0, 2)), ("container", 12, 4, (0, 2)),
    ]  # fmt: skip


def test_what_failed_and_the_priming_round_have_no_iterations() -> None:
    """They are in no number."""
    taken = [one.model_copy(update={"round": 0}) if one.round == 1 else one for one in iterated_run()[1]]
    taken += [failed("native", 1, "gone", cell="native/loop", iterations=taken[0].iterations)]
    found = found_in(taken)
    assert found is not None
    assert [round_ for round_, _ in found.rows[0].samples] == list(range(2, 13))


def test_another_metric_s_iterations_are_shown_where_the_tables_own_has_none() -> None:
    """Rather than nothing."""
    other = {"loop.other": Iterations(values=[1.0, 2.0], warm_up=0)}
    two = {"loop.each": MetricValue(value=1.0, unit="s"), "loop.other": MetricValue(value=1.5, unit="1/s")}
    taken = [one.model_copy(update={"iterations": other, "metrics": two}) for one in iterated_run()[1]]
    found = found_in(taken)
    assert found is not None and (found.metric, found.unit) == ("loop.other", "1/s")


def test_a_run_that_repeats_nothing_has_none() -> None:
    """Nor has one that failed."""
    assert unfolding(summarise(manifest(), samples()).tables[0], take(samples()).by_cell) is None
    gone = [sample("native", 1, cell="native/loop", status="failed", reason="gone", iterations={})]
    assert found_in(gone) is None
