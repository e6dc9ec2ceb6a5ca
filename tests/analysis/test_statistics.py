"""The statistics do what their definitions say."""

import math
import random
from fractions import Fraction
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.analysis import statistics as st

#: Durations as they occur, from below a microsecond to above an hour.
durations = some.floats(min_value=1e-7, max_value=1e4)
samples = some.lists(durations, min_size=1, max_size=60)


def test_median_of_an_odd_number_is_the_middle_value_and_of_an_even_one_the_mean_of_two() -> None:
    """The median is the textbook's."""
    assert st.median([5.0, 1.0, 3.0]) == 3.0
    assert st.median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_a_median_of_nothing_is_refused() -> None:
    """No value, no median: an error rather than a zero."""
    with pytest.raises(ValueError, match="at least one"):
        st.median([])


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    # Hahn and Meeker, Statistical Intervals, table A.15 and by hand: 1 - 2 * sum of C(n, i) / 2^n below the rank.
    [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (10, 2, 0.978515625), (20, 6, 0.958610534667968)],
)
def test_interval_of_the_median_is_the_tabulated_pair_of_order_statistics(
    count: int, rank: int, coverage: float
) -> None:
    """The interval runs from the k-th smallest to the k-th largest value, with the k of the tables."""
    interval = st.median_interval([float(value) for value in range(1, count + 1)])
    assert interval is not None
    assert (interval.low, interval.high) == (rank, count + 1 - rank)
    assert interval.coverage == pytest.approx(coverage, abs=1e-12)


def test_ranks_are_those_of_exact_arithmetic_up_to_400_values() -> None:
    """Logarithms of the gamma function never move a rank: fractions say the same."""
    for count in range(6, 401):
        tail, rank = Fraction(0), 0
        while 1 - 2 * (tail + Fraction(math.comb(count, rank), 2**count)) >= Fraction(95, 100):
            tail += Fraction(math.comb(count, rank), 2**count)
            rank += 1
        interval = st.median_interval([float(value) for value in range(1, count + 1)])
        assert interval is not None
        assert interval.low == rank
        assert interval.coverage == pytest.approx(float(1 - 2 * tail), abs=1e-9)


@pytest.mark.parametrize("count", range(1, 6))
def test_no_interval_below_six_values(count: int) -> None:
    """Five values cannot give 95 %: there is no interval rather than a weaker one."""
    assert st.median_interval([1.0] * count) is None


@given(some.lists(durations, min_size=6, max_size=60))
def test_the_interval_contains_the_median(values: list[float]) -> None:
    """Whatever the values, low <= median <= high, and both ends are values."""
    interval = st.median_interval(values)
    assert interval is not None
    assert interval.low <= st.median(values) <= interval.high
    assert {interval.low, interval.high} <= set(values)
    assert interval.coverage >= 0.95


def test_p90_is_the_nearest_rank_and_missing_below_ten_values() -> None:
    """Nine of ten values do not exceed it; below ten it would only be the maximum."""
    assert st.p90([float(value) for value in range(1, 11)]) == 9.0
    assert st.p90([float(value) for value in range(1, 21)]) == 18.0
    assert st.p90([float(value) for value in range(1, 12)]) == 10.0
    assert st.p90([1.0] * 9) is None


@given(samples, some.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(values: list[float], percent: int) -> None:
    """The definition, counted out."""
    found = st.percentile(values, percent)
    enough = [value for value in values if 100 * sum(other <= value for other in values) >= percent * len(values)]
    assert found == min(enough)


@pytest.mark.parametrize("percent", [0, 101, -1])
def test_a_percentage_outside_1_to_100_is_refused(percent: int) -> None:
    """A percentile that does not exist is an error."""
    with pytest.raises(ValueError, match="percentage"):
        st.percentile([1.0], percent)


def test_an_outlier_is_flagged_by_its_modified_z_score() -> None:
    """Median 10, MAD 1: a value d away has the score 0.6745 d, so 5.1 is inside and 5.3 outside of 3.5."""
    values = [9.0, 9.0, 10.0, 11.0, 11.0, 15.1, 4.7]
    assert st.outliers(values) == [False, False, False, False, False, False, True]


def test_nothing_is_flagged_where_most_values_are_equal() -> None:
    """A MAD of zero says nothing about distance: hyperfine would flag the last one, this does not."""
    assert st.outliers([1.0, 1.0, 1.0, 1.0, 2.0]) == [False] * 5
    assert st.outliers([]) == []


def test_spread_is_range_mad_and_quartiles() -> None:
    """Computed by hand for 1, 2, 3, 4, 10: median 3, deviations 2 1 0 1 7, quartiles 2 and 4."""
    assert st.spread([10.0, 1.0, 2.0, 4.0, 3.0]) == st.Spread(minimum=1.0, maximum=10.0, mad=1.0, iqr=2.0)


def test_the_ratio_is_the_geometric_mean_of_the_rounds_ratios() -> None:
    """Rounds 1 and 2 have the ratios 2 and 8, so the estimate is 4; a round without its partner does not count."""
    ratio = st.paired_ratio({1: 2.0, 2: 24.0, 3: 9.0}, {1: 1.0, 2: 3.0, 4: 1.0}, seed=1)
    assert ratio is not None
    assert ratio.estimate == pytest.approx(4.0)
    assert (ratio.low, ratio.high, ratio.pairs) == (None, None, 2)


def test_there_is_no_ratio_without_a_common_round_or_with_zeros_only() -> None:
    """What cannot be paired is not compared."""
    assert st.paired_ratio({1: 2.0}, {2: 1.0}, seed=1) is None
    assert st.paired_ratio({1: 0.0}, {1: 1.0}, seed=1) is None


def test_a_slow_round_shared_by_both_leaves_the_ratio_alone() -> None:
    """Pairing by round takes out what slows both: the interval collapses onto the true ratio."""
    baseline = {number: 1.0 + 0.5 * (number % 4) for number in range(12)}
    ratio = st.paired_ratio({number: 3 * value for number, value in baseline.items()}, baseline, seed=1)
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert ratio.low == pytest.approx(3.0) and ratio.high == pytest.approx(3.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    """The interval can be computed again elsewhere from what is stored."""
    chance = random.Random(3)
    values = {number: chance.lognormvariate(1, 0.2) for number in range(20)}
    baseline = {number: chance.lognormvariate(0, 0.2) for number in range(20)}
    assert st.paired_ratio(values, baseline, seed=5) == st.paired_ratio(values, baseline, seed=5)
    assert st.paired_ratio(values, baseline, seed=5) != st.paired_ratio(values, baseline, seed=6)


def test_the_bootstrap_is_that_of_plain_resampling() -> None:
    """Drawing rounds one by one with Python's own generator gives the same interval within its chance error."""
    chance = random.Random(11)
    logs = [chance.gauss(0.7, 0.3) for _ in range(20)]
    means = sorted(sum(chance.choices(logs, k=20)) / 20 for _ in range(20_000))
    cut = round(20_000 * NormalDist().cdf(-math.sqrt(20 / 19) * 2.093))
    ratio = st.paired_ratio({n: math.exp(d) for n, d in enumerate(logs)}, dict.fromkeys(range(20), 1.0), seed=2)
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert math.log(ratio.low) == pytest.approx(means[cut], abs=0.01)
    assert math.log(ratio.high) == pytest.approx(means[-cut], abs=0.01)


paired = some.lists(some.tuples(durations, durations), min_size=6, max_size=25)


@given(paired, some.floats(min_value=1e-3, max_value=1e3))
def test_the_ratio_knows_no_unit_and_lies_in_its_interval(pairs: list[tuple[float, float]], scale: float) -> None:
    """Seconds or milliseconds make no difference, and low <= estimate <= high."""
    values = {number: value for number, (value, _) in enumerate(pairs)}
    baseline = {number: base for number, (_, base) in enumerate(pairs)}
    ratio = st.paired_ratio(values, baseline, seed=1, resamples=200)
    scaled = st.paired_ratio(
        {number: value * scale for number, value in values.items()},
        {number: base * scale for number, base in baseline.items()},
        seed=1,
        resamples=200,
    )
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert scaled is not None and scaled.low is not None and scaled.high is not None
    assert ratio.low <= ratio.estimate <= ratio.high
    for one, other in ((ratio.estimate, scaled.estimate), (ratio.low, scaled.low), (ratio.high, scaled.high)):
        assert other == pytest.approx(one, rel=1e-6)


@given(paired)
def test_the_ratio_turned_round_is_its_inverse(pairs: list[tuple[float, float]]) -> None:
    """Baseline over value is one over value over baseline."""
    values = {number: value for number, (value, _) in enumerate(pairs)}
    baseline = {number: base for number, (_, base) in enumerate(pairs)}
    there = st.paired_ratio(values, baseline, seed=1, resamples=100)
    back = st.paired_ratio(baseline, values, seed=1, resamples=100)
    assert there is not None and back is not None
    assert there.estimate * back.estimate == pytest.approx(1.0)


def test_the_difference_is_that_of_the_geometric_means() -> None:
    """By hand: values 2 and 8 have 4, baselines 1 and 4 have 2; a round without its partner does not count."""
    found = st.paired_difference({1: 2.0, 2: 8.0, 3: 9.0}, {1: 1.0, 2: 4.0, 4: 1.0}, seed=1)
    assert found is not None
    assert found.estimate == pytest.approx(2.0)
    assert (found.low, found.high, found.pairs) == (None, None, 2)
    assert st.paired_difference({1: 2.0}, {2: 1.0}, seed=1) is None
    assert st.paired_difference({1: 0.0}, {1: 1.0}, seed=1) is None


@given(paired, some.floats(min_value=1e-3, max_value=1e3))
def test_the_difference_has_the_unit_and_says_what_the_ratio_says(
    pairs: list[tuple[float, float]], scale: float
) -> None:
    """In milliseconds it is a thousand times that in seconds; it is zero where the ratio is 1, by sign and interval."""
    values = {number: value for number, (value, _) in enumerate(pairs)}
    baseline = {number: base for number, (_, base) in enumerate(pairs)}
    found = st.paired_difference(values, baseline, seed=1, resamples=200)
    scaled = st.paired_difference(
        {number: value * scale for number, value in values.items()},
        {number: base * scale for number, base in baseline.items()},
        seed=1,
        resamples=200,
    )
    ratio = st.paired_ratio(values, baseline, seed=1, resamples=200)
    assert found is not None and found.low is not None and found.high is not None
    assert scaled is not None and scaled.low is not None and scaled.high is not None
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert found.low <= found.estimate <= found.high
    size = max(map(abs, (found.low, found.high)))
    for one, other in ((found.estimate, scaled.estimate), (found.low, scaled.low), (found.high, scaled.high)):
        assert other == pytest.approx(one * scale, rel=1e-6, abs=1e-9 * scale * size)
    if ratio.low > 1 + 1e-9:
        assert found.low >= 0
    if ratio.high < 1 - 1e-9:
        assert found.high <= 0
    assert math.copysign(1, found.estimate) == math.copysign(1, math.log(ratio.estimate)) or ratio.estimate == (
        pytest.approx(1.0)
    )


def test_what_slows_both_alike_is_taken_out_of_the_difference() -> None:
    """A constant 5 ms more, on a baseline that wanders by 2 ms: the interval is far narrower than that of each."""
    chance = random.Random(8)
    baseline = {n: 0.1 + chance.uniform(-0.002, 0.002) for n in range(30)}
    found = st.paired_difference({n: value + 0.005 for n, value in baseline.items()}, baseline, seed=1)
    assert found is not None and found.low is not None and found.high is not None
    assert found.estimate == pytest.approx(0.005, rel=0.01)
    assert found.high - found.low < 0.0001


def test_the_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 simulated runs of 20 rounds, the medians 4.6 and 1 apart by 3.6: 91 to 98 % hold it."""
    chance = random.Random(2026)
    hits = 0
    for _ in range(400):
        values = {n: 4.6 * chance.lognormvariate(0, 0.2) for n in range(20)}
        baseline = {n: chance.lognormvariate(0, 0.1) for n in range(20)}
        found = st.paired_difference(values, baseline, seed=1)
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= 3.6 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """400 simulated runs of 20 rounds: 91 to 98 % of the intervals of the ratio, 93 to 99 % of the median's hold it."""
    chance = random.Random(2024)
    hits_ratio = hits_median = 0
    for _ in range(400):
        shared = [chance.lognormvariate(0, 0.3) for _ in range(20)]
        values = {n: 4.6 * slow * chance.lognormvariate(0, 0.2) for n, slow in enumerate(shared)}
        baseline = {n: slow * chance.lognormvariate(0, 0.1) for n, slow in enumerate(shared)}
        hits_ratio += _holds(st.paired_ratio(values, baseline, seed=1), 4.6)
        interval = st.median_interval(list(values.values()))
        hits_median += interval is not None and interval.low <= 4.6 <= interval.high
    assert 0.91 <= hits_ratio / 400 <= 0.98
    assert 0.93 <= hits_median / 400 <= 0.99


def test_the_interval_of_a_ratio_does_not_shrink_with_few_rounds() -> None:
    """With 8 rounds a plain percentile interval would hold the truth in 89 % of the runs only."""
    chance = random.Random(2025)
    hits = 0
    for _ in range(1_000):
        values = {n: 2 * chance.lognormvariate(0, 0.2) for n in range(8)}
        hits += _holds(st.paired_ratio(values, dict.fromkeys(range(8), 1.0), seed=1, resamples=2_000), 2.0)
    assert 0.92 <= hits / 1_000 <= 0.97


def _holds(ratio: st.Ratio | None, truth: float) -> bool:
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    return ratio.low <= truth <= ratio.high


def test_the_expansion_is_that_of_students_t() -> None:
    """Tabulated 97.5 % quantiles of t; for many pairs the tail is the plain 2.5 %."""
    for freedom, quantile in ((5, 2.571), (9, 2.262), (19, 2.093), (59, 2.001)):
        assert st._t_quantile(1.959964, freedom) == pytest.approx(quantile, abs=0.004)
    assert st._expanded_tail(1_000) == pytest.approx(0.025, abs=0.0002)


def test_blocks_of_rounds_give_the_interval_of_the_normal_distribution_for_many_pairs() -> None:
    """With 5,000 pairs the mean is normal: the interval is mean +- 1.96 standard errors within a few per cent."""
    chance = random.Random(9)
    logs = [chance.gauss(0.5, 0.4) for _ in range(5_000)]
    ratio = st.paired_ratio({n: math.exp(d) for n, d in enumerate(logs)}, dict.fromkeys(range(5_000), 1.0), seed=1)
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    half_width = (math.log(ratio.high) - math.log(ratio.low)) / 2
    assert half_width == pytest.approx(1.96 * 0.4 / math.sqrt(5_000), rel=0.08)


# --- slope ---


def test_the_slope_of_a_line_is_that_of_the_line() -> None:
    """With its intercept, whatever the order; an interval needs six points."""
    points = [(16, 165.0), (1, 15.0), (2, 25.0), (4, 45.0), (8, 85.0)]
    few = st.slope(points, 1)
    assert few is not None
    assert (few.low, few.high, few.points) == (None, None, 5)
    assert [few.estimate, few.intercept] == pytest.approx([10, 5])
    found = st.slope([*points, (1, 15.0)], 1)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([10, 10])


def test_points_of_one_number_have_no_slope() -> None:
    """Nor has nothing."""
    assert st.slope([(4, 1.0), (4, 2.0)], 1) is None
    assert st.slope([], 1) is None


def test_the_interval_of_a_slope_covers_the_truth_as_often_as_it_says() -> None:
    """Of ten points with noise, in 95% of 200 draws, within what chance allows; the same seed gives the same."""
    import numpy as np

    random = np.random.default_rng(7)
    counts = [1, 2, 4, 8, 16] * 2
    covered = 0
    for _ in range(200):
        points = [(count, 3 * count + 2 + float(random.normal())) for count in counts]
        found = st.slope(points, 1, resamples=500)
        assert found is not None and found.low is not None and found.high is not None
        assert found.low <= found.estimate <= found.high
        covered += found.low <= 3 <= found.high
    assert 180 <= covered <= 200
    assert st.slope(points, 1, resamples=500) == found


def test_the_slope_of_many_points_takes_little_memory_and_is_the_same() -> None:
    """Its resamples are drawn some at a time: the draws are those of one large table, which would take gigabytes."""
    import tracemalloc

    import numpy as np

    chance = random.Random(2)
    points = [(2**power, 3.0 * 2**power + chance.gauss(0, 1)) for power in range(5) for _ in range(600)]
    tracemalloc.start()
    try:
        found = st.slope(points, seed=5, resamples=2_000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 << 20
    drawn = np.random.Generator(np.random.PCG64(5)).integers(len(points), size=(2_000, len(points)))
    x, y = (np.array(column, dtype=np.float64)[drawn] for column in zip(*points, strict=True))
    tail = st._expanded_tail(len(points))
    low, high = np.quantile(st._slopes(x, y), [tail, 1 - tail])
    assert found is not None and (found.low, found.high) == (float(low), float(high))
