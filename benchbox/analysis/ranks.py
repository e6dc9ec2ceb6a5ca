"""Tests of ranks: does a value follow the order, do groups differ? They assume no distribution.

For few values the p-value comes from a seeded permutation, ``(b + 1) / (m + 1)`` with m shuffles of which b are at
least as extreme (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010); for many from the limit.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ranks = NDArray[np.float64]

#: Shuffles of a permutation test: the smallest p is 1e-4.
SHUFFLES: Final = 9_999

#: Above so many values the limiting distribution is used: it is exact enough there, and its time is bounded.
MANY: Final = 200

_SEED: Final = 20_240_501


def ranks(values: Sequence[float]) -> "Ranks":
    """Return the rank of each value from 1, equal values sharing the mean of theirs."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Ranks = (last - (counts - 1) / 2)[inverse]
    return mean


def spearman(values: Sequence[float]) -> tuple[float, float]:
    """Return Spearman's rho of the values against their order, and its two-sided p.

    Above MANY values p is that of the normal limit ``rho sqrt(n - 1)``. Without two different values there is no
    trend: (0, 1). Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (3rd ed., 2014), 8.5.
    """
    import numpy as np

    own = ranks(values) if len(values) > 2 else np.zeros(1)
    own = own - own.mean()
    order = np.arange(len(own), dtype=np.float64) - (len(own) - 1) / 2
    scale = math.sqrt(float((own @ own) * (order @ order)))
    if scale == 0:
        return 0.0, 1.0
    rho = float(own @ order) / scale
    if len(own) > MANY:
        return rho, 2 * NormalDist().cdf(-abs(rho) * math.sqrt(len(own) - 1))
    return rho, _permuted(own, lambda shuffled: np.abs(shuffled @ order) / scale, abs(rho))


def kruskal(groups: Sequence[Sequence[float]]) -> float:
    """Return the p of the hypothesis that all groups have the same distribution (Kruskal and Wallis 1952).

    The statistic is corrected for ties; above MANY values p is that of chi-square with one degree less than groups.
    """
    import numpy as np

    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    own = ranks([value for group in groups for value in group])
    own = own - own.mean()
    total = len(own)
    if len(groups) < 2 or total < 3 or not (spread := float(own @ own)):
        return 1.0
    borders = np.concatenate(([0], np.cumsum(sizes)[:-1]))

    def statistic(shuffled: "Ranks") -> "Ranks":
        sums = np.add.reduceat(shuffled, borders, axis=-1)
        found: Ranks = (sums**2 / sizes).sum(axis=-1) * (total - 1) / spread
        return found

    observed = float(statistic(own))
    if total > MANY:
        return chi_square_tail(observed, len(groups) - 1)
    return _permuted(own, statistic, observed)


def chi_square_tail(value: float, freedom: int) -> float:
    """Return P(X >= value) of chi-square: Abramowitz and Stegun (1964), 26.4.4 and 26.4.5, by its recurrence."""
    half = value / 2
    if half <= 0:
        return 1.0
    tail = math.erfc(math.sqrt(half)) if freedom % 2 else math.exp(-half)
    for degrees in range(2 - freedom % 2, freedom, 2):
        tail += math.exp(degrees / 2 * math.log(half) - half - math.lgamma(degrees / 2 + 1))
    return min(tail, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p adjusted for having looked at all (Holm, A Simple Sequentially Rejective Procedure, 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _permuted(own: "Ranks", statistic: "Callable[[Ranks], Ranks]", observed: float) -> float:
    """Return how often shuffled values are at least as extreme; rounding errors do not make equal ones less."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(_SEED))
    shuffled = generator.permuted(np.broadcast_to(own, (SHUFFLES, len(own))), axis=1)
    extreme = int((statistic(shuffled) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (SHUFFLES + 1)
