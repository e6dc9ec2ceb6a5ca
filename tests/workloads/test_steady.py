"""Warm-up is marked, and no steady state is claimed where there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.workloads.steady import MIN_ITERATIONS, steady_metric, warm_up_length

FLAT = [100.0, 101.0, 99.0, 100.0, 102.0, 100.0, 98.0, 100.0, 101.0, 100.0, 99.0, 100.0]


@pytest.mark.parametrize(
    ("iterations", "warm_up"),
    [
        (FLAT, 0),
        ([300.0, 180.0, 120.0, *FLAT], 3),
        ([20.0, *FLAT], 1),
        ([100.0 + 10 * at for at in range(20)], None),
        ([100.0] * 8 + [150.0] * 2 + [100.0] * 5 + [150.0] * 5, None),
        ([300.0] * 12 + [100.0] * 8, None),
        (FLAT[: MIN_ITERATIONS - 1], 0),
        ([300.0] + [100.0] * (MIN_ITERATIONS - 2), 0),
        ([80.0, 95.0, 120.0, 100.0, 110.0] * 4, 0),
    ],
    ids=[
        "flat",
        "slow first",
        "fast first",
        "drift",
        "a step near the end",
        "late",
        "few",
        "few and slow first",
        "noisy",
    ],
)
def test_warm_up_is_what_comes_before_the_level(iterations: list[float], warm_up: int | None) -> None:
    """A few slow or fast ones at first are marked; what still changes in its second half never was steady."""
    assert warm_up_length(iterations) == warm_up


def test_the_number_is_the_median_after_the_warm_up_and_all_iterations_are_kept() -> None:
    """Where no steady state is reached it is the median of all, and says so."""
    found = steady_metric("x.y", [900.0, 500.0, *FLAT], "s")
    assert (found.value, found.warm_up, found.iterations) == (100.0, 2, (900.0, 500.0, *FLAT))
    drift = steady_metric("x.y", [float(at) for at in range(1, 22)], "B/s", "higher")
    assert (drift.value, drift.warm_up, drift.direction, len(drift.iterations)) == (11.0, None, "higher", 21)


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=60))
def test_some_number_is_always_found(iterations: list[float]) -> None:
    """Within the values, with at least half of them in it."""
    found = steady_metric("x.y", iterations, "s")
    assert min(iterations) <= found.value <= max(iterations)
    assert found.warm_up is None or 0 <= found.warm_up <= len(iterations) / 2
