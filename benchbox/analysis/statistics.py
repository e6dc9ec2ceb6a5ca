"""The statistics of a run: medians, ratios and how sure they are.

Nothing here assumes a distribution. What is printed as an interval has its definition beside it, and where there are
too few values for one, there is none. numpy is imported where it is used: it must not burden the start of the CLI.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Every interval is meant to cover the truth this often.
CONFIDENCE: Final = 0.95

#: Below this no interval is given: the range of five values covers the median with 93.75 % only.
MIN_VALUES: Final = 6

#: Below this a nearest-rank 90th percentile is just the maximum under another name.
MIN_VALUES_P90: Final = 10

#: Resamples of the bootstrap.
RESAMPLES: Final = 10_000

#: Above this many pairs, blocks of consecutive rounds are resampled instead of rounds.
MAX_BLOCKS: Final = 1_000

#: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): the modified z-score and its limit.
OUTLIER_LIMIT: Final = 3.5
_NORMAL_QUARTILE: Final = 0.6745


@dataclass(frozen=True)
class Interval:
    """``low <= high`` in the unit of the values; ``coverage`` is the guaranteed probability, at least CONFIDENCE."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline: a pure number, with its interval where there are enough pairs of rounds."""

    estimate: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Difference:
    """How much more than the baseline (negative: less), in the unit of the values, with its interval where there are
    enough pairs of rounds."""

    estimate: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Slope:
    """How much more a value is for one more of what it is counted by, with its interval where there are enough points.

    ``intercept`` is the value that the fitted line has at none.
    """

    estimate: float
    low: float | None
    high: float | None
    intercept: float
    points: int


@dataclass(frozen=True)
class Spread:
    """How far values lie apart, all in their unit.

    ``mad`` is the median absolute deviation from the median (not scaled to a standard deviation), ``iqr`` the
    difference of the nearest-rank quartiles.
    """

    minimum: float
    maximum: float
    mad: float
    iqr: float


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two middle ones. Raises ValueError without values."""
    ordered = _ordered(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return ordered[middle - 1] + (ordered[middle] - ordered[middle - 1]) / 2


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return an interval for the median that holds for every continuous distribution; None below MIN_VALUES.

    It runs from the k-th smallest to the k-th largest value with the largest k for which the binomial probability
    ``1 - 2 P(B(n, 1/2) < k)`` is still at least ``confidence``, so it is conservative.
    Source: David and Nagaraja, Order Statistics (3rd ed., 2003), section 7.1; Hahn and Meeker, Statistical Intervals
    (1991), section 5.2.
    """
    if len(values) < MIN_VALUES:
        return None
    rank, coverage = _median_ranks(len(values), confidence)
    if rank == 0:
        return None
    ordered = _ordered(values)
    return Interval(ordered[rank - 1], ordered[-rank], coverage)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile: the smallest value that at least ``percent`` % of the values do not exceed.

    It is always one of the values (definition 1 of Hyndman and Fan, Sample Quantiles, 1996).
    Raises ValueError without values or for a percent outside 1 to 100.
    """
    if not 1 <= percent <= 100:
        raise ValueError(f"expected a percentage from 1 to 100, got {percent}")
    ordered = _ordered(values)
    return ordered[-(-percent * len(ordered) // 100) - 1]


def p90(values: Sequence[float]) -> float | None:
    """Return the nearest-rank 90th percentile; None below MIN_VALUES_P90 values, where it would be the maximum."""
    return percentile(values, 90) if len(values) >= MIN_VALUES_P90 else None


def spread(values: Sequence[float]) -> Spread:
    """Return how far ``values`` lie apart. Raises ValueError without values."""
    iqr = percentile(values, 75) - percentile(values, 25)
    return Spread(min(values), max(values), _mad(values), iqr)


def outliers(values: Sequence[float], limit: float = OUTLIER_LIMIT) -> list[bool]:
    """Say for each value whether it is flagged; nothing is ever dropped because of it.

    A value is flagged when its modified z-score ``0.6745 |x - median| / MAD`` exceeds ``limit`` (Iglewicz and Hoaglin,
    1993). Where more than half of the values are equal the MAD is zero, the score means nothing and none is flagged.
    """
    if not values:
        return []
    centre, mad = median(values), _mad(values)
    if mad == 0:
        return [False] * len(values)
    return [_NORMAL_QUARTILE * abs(value - centre) > limit * mad for value in values]


def paired_ratio(
    values_by_round: Mapping[int, float],
    baseline_by_round: Mapping[int, float],
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Ratio | None:
    """Return how many times the baseline the values are, paired by round; None where no round has both.

    The estimate is ``exp(mean of ln(value / baseline))`` over the rounds that have both, each above zero. The interval
    is the expanded percentile interval of ``confidence`` of a bootstrap over rounds with numpy's PCG64 and ``seed``;
    there is none below MIN_VALUES pairs. Expanded, because the plain one is too narrow for few rounds (instead of 95 %
    it covers 93 % with 20 pairs and 87 % with 6): Hesterberg, What Teachers Should Know About the Bootstrap (The
    American Statistician 69, 2015), section 5.3. Above MAX_BLOCKS pairs, MAX_BLOCKS blocks of consecutive rounds are
    resampled instead: the same in the limit, and bounded in time.
    The design (one value per fresh environment, paired in the round) follows Kalibera and Jones, Rigorous Benchmarking
    in Reasonable Time (ISMM 2013).
    """
    logs = [value - base for value, base in _paired_logs(values_by_round, baseline_by_round)]
    if not logs:
        return None
    estimate = math.exp(math.fsum(logs) / len(logs))
    if len(logs) < MIN_VALUES:
        return Ratio(estimate, None, None, len(logs))
    low, high = _interval(_resampled_means(logs, seed, resamples), len(logs), confidence)
    return Ratio(estimate, min(math.exp(low), estimate), max(math.exp(high), estimate), len(logs))


def paired_difference(
    values_by_round: Mapping[int, float],
    baseline_by_round: Mapping[int, float],
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference | None:
    """Return how much more than the baseline the values are, paired by round; None where no round has both.

    It is what ``paired_ratio`` says, in the unit of the values: the geometric mean of the values less that of the
    baseline, over the same rounds. The interval is of the same kind, from the same resamples, in each of which the
    difference is above zero exactly when the ratio is above 1: so the two never say the opposite of each other.
    """
    logs = _paired_logs(values_by_round, baseline_by_round)
    if not logs:
        return None
    own, base = [value for value, _ in logs], [base for _, base in logs]
    estimate = math.exp(math.fsum(own) / len(logs)) - math.exp(math.fsum(base) / len(logs))
    if len(logs) < MIN_VALUES:
        return Difference(estimate, None, None, len(logs))
    import numpy as np

    owns, bases = _resampled_means(own, seed, resamples), _resampled_means(base, seed, resamples)
    low, high = _interval(np.exp(owns) - np.exp(bases), len(logs), confidence)
    # Both are interpolated between resamples, so that at the border of "no effect" they might disagree.
    ratio_low, ratio_high = _interval(owns - bases, len(logs), confidence)
    low, high = max(low, 0.0) if ratio_low > 0 else low, min(high, 0.0) if ratio_high < 0 else high
    return Difference(estimate, min(low, estimate), max(high, estimate), len(logs))


def slope(
    points: Sequence[tuple[float, float]], seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Slope | None:
    """Return the least-squares line through ``points`` (x, y); None where all have the same x.

    The interval is the expanded percentile interval of a bootstrap over points (pairs of x and y, which assumes neither
    equal spread nor a distribution: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 9.5), as in
    ``paired_ratio``; there is none below MIN_VALUES points. Resamples in which all x are equal have no line and are
    left out.
    """
    import numpy as np

    if len({x for x, _ in points}) < 2:
        return None
    x, y = (np.array(column, dtype=np.float64)[None, :] for column in zip(*points, strict=True))
    (estimate,) = _slopes(x, y)
    intercept = float(y.mean() - estimate * x.mean())
    if len(points) < MIN_VALUES:
        return Slope(float(estimate), None, None, intercept, len(points))
    found = _resampled_slopes(x[0], y[0], seed, resamples)
    tail = _expanded_tail(len(points), confidence)
    low, high = np.quantile(found[np.isfinite(found)], [tail, 1 - tail])
    return Slope(float(estimate), min(float(low), estimate), max(float(high), estimate), intercept, len(points))


def _resampled_slopes(
    x: "NDArray[np.float64]", y: "NDArray[np.float64]", seed: int, resamples: int
) -> "NDArray[np.float64]":
    """Return the slope of each resample of the points; of many points, few resamples are in memory at once."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(seed % 2**64))
    found = np.empty(resamples)
    rows = max(1, _CHUNK * MAX_BLOCKS // len(x))
    for start in range(0, resamples, rows):
        drawn = generator.integers(len(x), size=(min(rows, resamples - start), len(x)))
        found[start : start + rows] = _slopes(x[drawn], y[drawn])
    return found


def _slopes(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the least-squares slope of each row; not a number where a row has no line."""
    import numpy as np

    apart = x - x.mean(axis=1, keepdims=True)
    spread = (apart**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (apart * y).sum(axis=1) / np.where(spread > 0, spread, np.nan)
    return found


def _ordered(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("expected at least one value")
    return sorted(values) if len(values) < _MANY else _sorted_by_numpy(values)


#: From so many values on numpy sorts faster, conversion included.
_MANY: Final = 2_000


def _sorted_by_numpy(values: Sequence[float]) -> list[float]:
    import numpy as np

    ordered: list[float] = np.sort(np.asarray(values, dtype=np.float64)).tolist()
    return ordered


def distances(values: Sequence[float]) -> list[float]:
    """Return how far each value lies from their median. Raises ValueError without values."""
    centre = median(values)
    return [abs(value - centre) for value in values]


def _mad(values: Sequence[float]) -> float:
    return median(distances(values))


def _paired_logs(values: Mapping[int, float], baseline: Mapping[int, float]) -> list[tuple[float, float]]:
    """Return the logarithms of value and baseline of each round that has both, in the order of the rounds."""
    rounds = sorted(values.keys() & baseline.keys())
    return [(math.log(values[r]), math.log(baseline[r])) for r in rounds if values[r] > 0 and baseline[r] > 0]


@lru_cache(maxsize=256)
def _median_ranks(count: int, confidence: float) -> tuple[int, float]:
    """Return the largest rank k whose two-sided interval still covers enough, and its coverage; 0 where none does."""
    tail, rank, coverage = 0.0, 0, 0.0
    for below in range(count // 2):
        tail += _binomial_half(count, below)
        if 1 - 2 * tail < confidence:
            break
        rank, coverage = below + 1, 1 - 2 * tail
    return rank, coverage


def _binomial_half(count: int, successes: int) -> float:
    """Return P(B(count, 1/2) = successes); by logarithms, so that it stays finite for any count."""
    log_ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(log_ways - count * math.log(2))


def _resampled_means(numbers: Sequence[float], seed: int, resamples: int) -> "NDArray[np.float64]":
    """Return the mean of ``numbers`` in each resample."""
    import numpy as np

    blocks = np.array_split(np.asarray(numbers, dtype=np.float64), min(len(numbers), MAX_BLOCKS))
    sums = np.array([block.sum() for block in blocks])
    sizes = np.array([block.size for block in blocks], dtype=np.float64)
    means = np.empty(resamples)
    counts = _resample_counts(len(blocks), seed, resamples)
    for start in range(0, resamples, _CHUNK):
        chunk = counts[start : start + _CHUNK].astype(np.float64)
        means[start : start + _CHUNK] = (chunk @ sums) / (chunk @ sizes)
    return means


def _interval(resampled: "NDArray[np.float64]", pairs: int, confidence: float) -> tuple[float, float]:
    """Return the expanded percentile interval of what was resampled from ``pairs`` rounds."""
    import numpy as np

    tail = _expanded_tail(min(pairs, MAX_BLOCKS), confidence)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(count: int, confidence: float = CONFIDENCE) -> float:
    """Return the tail to cut off so that the interval is as wide as Student's t would have it for normal values.

    Resampling divides the variance by ``count`` where ``count - 1`` is right, and knows no t distribution; both are
    made good by cutting at ``Phi(-sqrt(n / (n - 1)) t)`` (Hesterberg 2015).
    """
    normal = NormalDist()
    quantile = _t_quantile(normal.inv_cdf((1 + confidence) / 2), count - 1)
    return normal.cdf(-math.sqrt(count / (count - 1)) * quantile)


def _t_quantile(z: float, freedom: int) -> float:
    """Return the t quantile from the normal one ``z``: Abramowitz and Stegun (1964), 26.7.5; 0.1 % off at 5 degrees."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


#: Resamples handled at once; bounds the memory to some MB.
_CHUNK: Final = 250


@lru_cache(maxsize=4)
def _resample_counts(blocks: int, seed: int, resamples: int) -> "NDArray[np.uint8]":
    """Return how often each resample (row) draws each block (column), with replacement.

    Kept, because cells of one run have the same number of rounds: they share the draws, and their ratios differ only
    by what was measured. A count above 255 needs a block drawn that often by chance: with at most 1,000 blocks it does
    not happen, with fewer than 256 it cannot.
    """
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(seed % 2**64))
    counts = np.empty((resamples, blocks), dtype=np.uint8)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(blocks, size=(rows, blocks), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * blocks
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * blocks).reshape(rows, blocks)
    return counts
