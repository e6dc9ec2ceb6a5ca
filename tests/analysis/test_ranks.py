"""Tests of ranks say what they should of cases whose answer is known."""

import random

import pytest

from benchbox.analysis import ranks


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    """Midranks, from 1."""
    assert ranks.ranks([10, 30, 20, 20]).tolist() == [1, 4, 2.5, 2.5]


def test_spearman_is_one_for_whatever_only_rises() -> None:
    """However unevenly; and its p is the smallest that the shuffles can give."""
    rho, p = ranks.spearman([2**n for n in range(12)])
    assert rho == pytest.approx(1)
    assert p == pytest.approx(1e-4)
    assert ranks.spearman([-(2**n) for n in range(12)])[0] == pytest.approx(-1)


def test_spearman_of_a_known_case() -> None:
    """Order 1..5 against 2,1,4,3,5: rho is 1 - 6 * 4 / 120 = 0.8, and 16 of the 120 permutations are as extreme."""
    rho, p = ranks.spearman([2, 1, 4, 3, 5])
    assert rho == pytest.approx(0.8)
    assert p == pytest.approx(16 / 120, abs=0.015)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 30])
def test_without_different_values_there_is_no_trend(values: list[float]) -> None:
    """No division by zero, no finding."""
    assert ranks.spearman(values) == (0.0, 1.0)


def test_many_values_agree_with_the_shuffles() -> None:
    """On both sides of the limit the p of the same trend is about the same."""
    chance = random.Random(3)
    values = [chance.gauss(0, 1) + 0.005 * n for n in range(ranks.MANY)]
    rho, by_shuffles = ranks.spearman(values)
    _, by_limit = ranks.spearman([*values, sum(values) / len(values)])
    assert rho > 0
    assert by_limit == pytest.approx(by_shuffles, abs=0.02)


def test_kruskal_finds_groups_that_lie_apart_and_no_others() -> None:
    """Three samples each, wholly apart: with 20 ways to part six, p is 2 / 20."""
    assert ranks.kruskal([[1, 2, 3], [4, 5, 6]]) == pytest.approx(0.1, abs=0.015)
    assert ranks.kruskal([[1, 4, 5, 8], [2, 3, 6, 7]]) == pytest.approx(1, abs=0.01)
    assert ranks.kruskal([[1, 1], [1, 1]]) == 1
    assert ranks.kruskal([[1, 2, 3]]) == 1


def test_kruskal_of_many_values_is_that_of_chi_square() -> None:
    """Far apart it is certain, alike it is not."""
    assert ranks.kruskal([[n for n in range(150)], [n + 0.5 for n in range(150)]]) > 0.5
    assert ranks.kruskal([[n for n in range(150)], [n + 50 for n in range(150)]]) < 1e-6


@pytest.mark.parametrize(
    ("value", "freedom", "tail"),
    [(3.841459, 1, 0.05), (5.991465, 2, 0.05), (7.814728, 3, 0.05), (13.2767, 4, 0.01), (18.307, 10, 0.05), (0, 3, 1)],
)
def test_chi_square_has_its_textbook_quantiles(value: float, freedom: int, tail: float) -> None:
    """As in any table."""
    assert ranks.chi_square_tail(value, freedom) == pytest.approx(tail, abs=1e-5)


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    """Holm's own procedure, in the order that was given."""
    assert ranks.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ranks.holm([0.9, 0.8]) == [1, 1]
    assert ranks.holm([]) == []
