"""The schedule of a run and how long it takes. Pure."""

import itertools
import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

#: Up to so many cells, every permutation is looked at; above, a few are built step by step.
_ENUMERABLE: Final = 5
#: How many permutations are built for a round of many cells, and the steps that all of them may take in one run.
_CANDIDATES: Final = 8
_STEP_BUDGET: Final = 2_000_000
#: Of how many last samples an ETA takes the median.
_RECENT: Final = 20


def order(cells: Sequence[str], rounds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Return the order of ``cells`` in each round: the discarded priming round, then ``rounds`` measured ones.

    Every round is a permutation of ``cells``, chosen so that over the measured rounds, borders between rounds
    included, each cell comes right after each other one about equally often, and never after itself (unless
    it is the only one). Ties are decided by ``seed``. The same arguments give the same order with every Python: only
    ``random.Random.random`` is used, whose sequence is guaranteed not to change.
    """
    if len(set(cells)) != len(cells) or not cells:
        raise ValueError("cells must be unique, and there must be one")
    return tuple(tuple(cells[index] for index in each) for each in _Balancer(len(cells), rounds, seed).rounds())


@dataclass
class _Balancer:
    """Chooses the permutation that adds least to the sum of squared counts of (predecessor, cell) pairs.

    Adding a pair seen c times adds 2c + 1 to that sum, so the permutation with the smallest sum of counts is it.
    """

    size: int
    count: int
    seed: int
    counts: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        # A cell after itself costs more than any balance could gain.
        never = self.size * (self.count + 1) ** 2
        self.counts = [[never if a == b else 0 for b in range(self.size)] for a in range(self.size)]
        self._random = random.Random(self.seed)

    def rounds(self) -> list[tuple[int, ...]]:
        """Return the priming round, whose own pairs do not count, and the measured ones."""
        found = [tuple(self._shuffled())]
        choose = self._best if self.size <= _ENUMERABLE else self._built
        self._permutations = list(itertools.permutations(range(self.size))) if self.size <= _ENUMERABLE else []
        for _ in range(self.count):
            before = found[-1][-1]
            chosen = choose(before)
            for pair in itertools.pairwise((before, *chosen)):
                self.counts[pair[0]][pair[1]] += 1
            found.append(chosen)
        return found

    def _best(self, before: int) -> tuple[int, ...]:
        costs = [self._cost(before, each) for each in self._permutations]
        least = min(costs)
        ties = [each for each, cost in zip(self._permutations, costs, strict=True) if cost == least]
        return ties[self._below(len(ties))]

    def _built(self, before: int) -> tuple[int, ...]:
        steps = self.size * self.size * max(self.count, 1) // 2
        tries = max(1, min(_CANDIDATES, _STEP_BUDGET // steps))
        return min((self._grown(before) for _ in range(tries)), key=lambda each: self._cost(before, each))

    def _grown(self, before: int) -> tuple[int, ...]:
        """Return a permutation in which each next cell is one that followed the last one least often."""
        left, last = list(range(self.size)), before
        grown: list[int] = []
        while left:
            counts = self.counts[last]
            least = min(counts[cell] for cell in left)
            ties = [cell for cell in left if counts[cell] == least]
            last = ties[self._below(len(ties))]
            left.remove(last)
            grown.append(last)
        return tuple(grown)

    def _cost(self, before: int, permutation: tuple[int, ...]) -> int:
        cost = 0
        for cell in permutation:
            cost += self.counts[before][cell]
            before = cell
        return cost

    def _shuffled(self) -> list[int]:
        left = list(range(self.size))
        return [left.pop(self._below(len(left))) for _ in range(self.size)]

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)


def estimate_s(cells: Sequence[str], rounds: int, typical_s: Mapping[str, float]) -> float:
    """Return how long ``rounds`` and the priming round take, in s.

    ``typical_s`` is the time of one sample of each cell, everything between two samples included.
    """
    return (rounds + 1) * sum(typical_s[cell] for cell in cells)


def remaining(order: Sequence[Sequence[str]], first_round: int, without: Collection[str] = ()) -> dict[str, int]:
    """Return how many samples of each cell the rounds from ``first_round`` on need, cells ``without`` left out."""
    counts: dict[str, int] = {}
    for cell in itertools.chain.from_iterable(order[first_round:]):
        if cell not in without:
            counts[cell] = counts.get(cell, 0) + 1
    return counts


def eta_s(done_s: Mapping[str, Sequence[float]], remaining: Mapping[str, int]) -> float | None:
    """Return how long the ``remaining`` samples of each cell take, in s; None while nothing is known.

    ``done_s`` holds what the samples of each cell took so far, those of a run that is resumed included: what counts
    is what was measured, never when the run began. A cell that has none yet is taken for an average one.
    """
    typical_s = {cell: statistics.median(values[-_RECENT:]) for cell, values in done_s.items() if values}
    if not typical_s:
        return None if any(remaining.values()) else 0.0
    average_s = statistics.fmean(typical_s.values())
    return sum(count * typical_s.get(cell, average_s) for cell, count in remaining.items())
