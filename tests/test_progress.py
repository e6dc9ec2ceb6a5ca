"""What is done and what is left: medians and the time to the end."""

import random
import statistics
from typing import Any, Self

from hypothesis import given
from hypothesis import strategies as some

from benchbox.progress import Tally
from benchbox.report.words import format_value

ORDER = [["a/w", "b/w"], ["b/w", "a/w"], ["a/w", "b/w"], ["b/w", "a/w"]]


def sample(
    cell: str, number: int, ready_s: float | None = 0.1, elapsed_s: float = 0.2, status: str = "ok", unit: str = "s"
) -> dict[str, Any]:
    return {
        "event": "sample",
        "cell": cell,
        "round": number,
        "status": status,
        "headline": None if ready_s is None else {"metric": "startup.ready", "value": ready_s, "unit": unit},
        "elapsed_s": elapsed_s,
    }


def test_all_that_is_planned_is_left_at_first() -> None:
    """The priming round counts."""
    assert Tally(ORDER, 1).left == {"a/w": 4, "b/w": 4}


def test_a_resumed_run_has_less_to_do() -> None:
    """The priming round and those from the broken one on: the ETA of a resumed run is right from the start."""
    assert Tally(ORDER, 3).left == {"a/w": 2, "b/w": 2}
    assert Tally(ORDER, 4).total == {"a/w": 1, "b/w": 1}


def test_nothing_is_said_of_the_time_left_before_a_sample() -> None:
    """A guess would be worse than none."""
    assert Tally(ORDER, 1).left_text() == ""


def test_the_time_left_is_that_of_what_is_left() -> None:
    """By the median of each cell, plus what a sample costs beside its stages."""
    tally = Tally(ORDER, 1)
    for elapsed_s in (1.0, 30.0, 1.0):
        tally.note(sample("a/w", 1, elapsed_s=elapsed_s))
    tally.note(sample("b/w", 1, elapsed_s=10.0))
    assert tally.left_text() == "32 s left"


def test_at_the_end_nothing_is_left() -> None:
    """More samples than planned do not make it negative."""
    tally = Tally([["a/w"]], 1)
    tally.note(sample("a/w", 0))
    tally.note(sample("a/w", 0))
    assert (tally.left, tally.left_text()) == ({"a/w": 0}, "0 s left")


def test_an_environment_that_is_not_measured_is_not_waited_for() -> None:
    """Its cells are forgotten, those of one whose name begins alike are not."""
    tally = Tally([["vm/w", "vm2/w", "native/w"]], 1)
    tally.keep_only(["native", "vm2"])
    assert set(tally.left) == {"native/w", "vm2/w"}


def test_an_abandoned_cell_is_not_waited_for() -> None:
    """Saying so twice is no error."""
    tally = Tally(ORDER, 1)
    tally.note(sample("a/w", 0, elapsed_s=1.0))
    tally.drop("b/w")
    tally.drop("b/w")
    assert tally.left_text() == "4 s left"


def test_the_median_leaves_out_priming_and_failures() -> None:
    """As the final table does; failures are counted beside it."""
    tally = Tally(ORDER, 1)
    assert tally.median_text("a/w") == ""
    tally.note(sample("a/w", 0, ready_s=9.0))
    tally.note(sample("a/w", 1, ready_s=0.1))
    tally.note(sample("a/w", 2, ready_s=0.3))
    assert tally.median_text("a/w") == "median 200 ms"
    tally.note(sample("a/w", 3, ready_s=None, status="failed"))
    assert tally.median_text("a/w") == "median 200 ms, 1 failed"


def test_the_median_is_in_the_unit_of_what_the_cell_is_about() -> None:
    """A rate is no time; what has only failed has no median."""
    tally = Tally(ORDER, 1)
    tally.note(sample("a/w", 1, ready_s=3 << 20, unit="B/s"))
    tally.note(sample("b/w", 1, ready_s=None, status="failed"))
    assert (tally.median_text("a/w"), tally.median_text("b/w")) == ("median 3 MiB/s", "1 failed")


def test_a_run_that_is_complete_may_be_primed_again() -> None:
    """Resuming it measures the priming round only."""
    tally = Tally(ORDER, len(ORDER))
    tally.note(sample("a/w", 0))
    assert tally.left == {"a/w": 0, "b/w": 1}


@given(some.lists(some.floats(1e-7, 1e4), min_size=1, max_size=30))
def test_after_each_sample_the_median_is_that_of_all_so_far(values: list[float]) -> None:
    """The same number that the final table has."""
    tally = Tally(ORDER, 1)
    for count, value in enumerate(values, start=1):
        tally.note(sample("a/w", count, ready_s=value))
        assert tally.median_text("a/w") == f"median {format_value(statistics.median(values[:count]), 's')}"


class Counted(float):
    """A number that counts how often such numbers are compared."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        Counted.compared += 1
        return float(self) < float(other)

    def __neg__(self) -> Self:
        return type(self)(-float(self))


def test_what_a_sample_costs_the_display_does_not_grow_with_the_samples_before_it() -> None:
    """A long run is not slowed down by those who watch it: its medians are not sorted anew at each sample."""
    tally, chance, count = Tally(ORDER, 1), random.Random(1), 4_000
    Counted.compared = 0
    for number in range(1, count + 1):
        tally.note(sample("a/w", number, ready_s=Counted(chance.random())))
        tally.median_text("a/w")
    assert 0 < Counted.compared <= 60 * count
