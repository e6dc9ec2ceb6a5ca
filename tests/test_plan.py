"""The schedule: every cell once a round, balanced for predecessors, the same everywhere."""

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchbox.plan import estimate_s, eta_s, order, remaining

Order = tuple[tuple[str, ...], ...]

#: What seed 1 means: three cells in six rounds (enumerated), the first round of eight (grown).
GOLDEN_THREE = ["acb", "acb", "cab", "acb", "cab", "cba", "cab"]
GOLDEN_EIGHT = "bahegcdf"


def named(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def predecessors(planned: Order) -> Counter[tuple[str, str]]:
    """Count (predecessor, cell) over the measured samples; the first one's predecessor is the priming round's last."""
    pairs: Counter[tuple[str, str]] = Counter()
    before = planned[0][-1]
    for cell in (cell for each in planned[1:] for cell in each):
        pairs[before, cell] += 1
        before = cell
    return pairs


def spread(planned: Order) -> int:
    """Return by how much the counts of two ordered pairs of different cells differ at most."""
    cells, pairs = planned[0], predecessors(planned)
    counts = [pairs[a, b] for a in cells for b in cells if a != b]
    return max(counts) - min(counts)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_every_round_has_every_cell_once(count: int, rounds: int, seed: int) -> None:
    """The priming round comes on top."""
    planned = order(named(count), rounds, seed)
    assert len(planned) == rounds + 1
    assert all(sorted(each) == sorted(named(count)) for each in planned)


@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_no_cell_follows_itself(count: int, rounds: int, seed: int) -> None:
    """Not across the border of two rounds either, the priming round's included."""
    pairs = predecessors(order(named(count), rounds, seed))
    assert not any(pairs[cell, cell] for cell in named(count))


@given(st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_three_cells_follow_each_other_equally_often(seed: int) -> None:
    """The shipped scenario: three environments, 20 rounds."""
    assert spread(order(named(3), 20, seed)) <= 2


@given(st.integers(2, 12), st.integers(10, 60), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_any_number_of_cells_is_balanced(count: int, rounds: int, seed: int) -> None:
    """With enumerated permutations and with grown ones."""
    assert spread(order(named(count), rounds, seed)) <= 3


@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_the_same_seed_gives_the_same_order(count: int, rounds: int, seed: int) -> None:
    """A record can be planned again."""
    assert order(named(count), rounds, seed) == order(named(count), rounds, seed)


def test_the_order_is_the_same_with_every_python() -> None:
    """Golden: a change here changes what a seed means in every scenario."""
    assert ["".join(each) for each in order("abc", 6, 1)] == GOLDEN_THREE
    assert "".join(order("abcdefgh", 1, 1)[1]) == GOLDEN_EIGHT


def test_another_seed_gives_another_order() -> None:
    """Of 20 seeds no two agree."""
    assert len({order(named(3), 20, seed) for seed in range(20)}) == 20


def test_the_order_does_not_depend_on_what_cells_are_called() -> None:
    """Only on how many there are."""
    assert ["".join(each).translate(str.maketrans("xyz", "abc")) for each in order("xyz", 6, 1)] == GOLDEN_THREE


@pytest.mark.parametrize("cells", [[], ["a", "a"]])
def test_cells_must_be_unique_and_some(cells: list[str]) -> None:
    """Anything else is an error of the caller."""
    with pytest.raises(ValueError, match=r"cells must be unique"):
        order(cells, 1, 1)


@pytest.mark.parametrize(("count", "rounds"), [(3, 10_000), (60, 20)])
def test_large_runs_are_planned_quickly(count: int, rounds: int) -> None:
    """Ten thousand rounds of three cells, twenty of sixty."""
    began = time.process_time()
    planned = order(named(count), rounds, 1)
    assert time.process_time() - began < 5
    assert spread(planned) <= 2


def test_an_estimate_includes_the_priming_round() -> None:
    """Each cell once more than there are rounds."""
    assert estimate_s(["a", "b"], 20, {"a": 0.5, "b": 2.0}) == pytest.approx(52.5)


def test_remaining_counts_what_the_plan_still_has() -> None:
    """From the round that is next; cells that were abandoned are left out."""
    planned = order(["a", "b", "c"], 4, 1)
    assert remaining(planned, 0) == {"a": 5, "b": 5, "c": 5}
    assert remaining(planned, 3, without={"b"}) == {"a": 2, "c": 2}
    assert remaining(planned, 5) == {}


def test_an_eta_is_what_each_cell_takes_times_what_is_left_of_it() -> None:
    """A slow guest does not make the containers' share longer; one odd sample changes nothing."""
    done = {"container": [0.1, 0.1, 9.0], "vm": [2.0, 2.2, 2.1]}
    assert eta_s(done, {"container": 10, "vm": 10}) == pytest.approx(22.0)


def test_an_eta_is_right_at_once_when_a_run_is_resumed() -> None:
    """Only the durations of samples count: those of the first part are there, the pause is not."""
    first_part = {"a": [1.0] * 15, "b": [3.0] * 15}
    assert eta_s(first_part, {"a": 5, "b": 5}) == pytest.approx(20.0)


def test_an_eta_follows_a_host_that_becomes_slower() -> None:
    """The last twenty samples count."""
    assert eta_s({"a": [1.0] * 100 + [2.0] * 20}, {"a": 10}) == pytest.approx(20.0)


def test_a_cell_without_samples_is_taken_for_an_average_one() -> None:
    """Better than leaving it out."""
    assert eta_s({"a": [1.0], "b": [3.0], "c": []}, {"c": 2}) == pytest.approx(4.0)


def test_there_is_no_eta_before_the_first_sample() -> None:
    """Unknown is not zero, and nothing left is."""
    assert eta_s({}, {"a": 3}) is None
    assert eta_s({}, {}) == 0.0
