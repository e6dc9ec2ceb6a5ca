"""Noise is named where it is, and not where it is not."""

import math
import random
import statistics
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.analysis import statistics as st
from benchbox.analysis.disturbances import GAP_MADS, MIN_VALUES, MODE_SHARE, Disturbance, disturbances, modes
from benchbox.record import MetricValue, Sample
from tests.report.records import sample

METRIC = "startup.ready"


def taken(value: Callable[[int], float], count: int = 20) -> list[Sample]:
    """Return ``count`` samples of native; ``value`` gives the seconds of each round from 1."""
    return [sample("native", n, metrics={METRIC: MetricValue(value=value(n), unit="s")}) for n in range(1, count + 1)]


def found(samples: list[Sample]) -> dict[str, Disturbance]:
    return {one.kind: one for one in disturbances({"native/startup": samples}, {"native/startup": METRIC})}


def quiet(seed: int = 1) -> Callable[[int], float]:
    chance = random.Random(seed)
    return lambda n: 0.001 * chance.lognormvariate(0, 0.02)


def test_a_quiet_cell_has_no_finding() -> None:
    """Twenty values of one distribution, with the noise of a quiet host."""
    assert found(taken(quiet())) == {}


def test_a_rise_over_the_run_is_drift_and_forbids_equivalence() -> None:
    """With its direction."""
    noise = quiet()
    drift = found(taken(lambda n: noise(n) * (1 + 0.01 * n)))["drift"]
    assert drift.text.startswith("values rose over the run")
    assert drift.blocks_equivalent


def test_drift_goes_by_the_time_of_a_sample_not_by_its_place_in_the_list() -> None:
    """A resumed run may have them in another order."""
    noise = quiet()
    samples = taken(lambda n: noise(n) * (1 + 0.01 * n))
    random.Random(5).shuffle(samples)
    assert "drift" in found(samples)


@pytest.mark.parametrize("slow", [4, 10, 16])
def test_two_modes_are_found_however_strong_each_is(slow: int) -> None:
    """Also when both are equally strong, where the MAD of all values would be as wide as the gap."""
    noise = quiet()
    modal = found(taken(lambda n: noise(n) * (1.5 if n * 7 % 20 < slow else 1)))["two modes"]
    assert modal.text.startswith(f"two modes: {20 - slow} samples around ")
    assert f", {slow} around 1.5" in modal.text
    assert modal.blocks_equivalent


def test_a_few_slow_samples_are_outliers_and_no_mode() -> None:
    """Below a fifth of the samples."""
    noise = quiet()
    kinds = found(taken(lambda n: noise(n) * (3 if n in (4, 11) else 1)))
    assert "two modes" not in kinds and "outliers" in kinds


def test_one_distribution_is_rarely_two_modes() -> None:
    """Of 500 samples of 20 normal values at most 2 % are taken for two."""
    chance = random.Random(11)
    assert sum(modes([chance.gauss(1, 0.1) for _ in range(20)]) is not None for _ in range(500)) <= 10


def test_few_values_are_not_looked_at() -> None:
    """Five of them rise by chance in one of 60 runs."""
    assert found(taken(lambda n: 0.001 * n, count=5)) == {}


def test_what_ran_before_is_named_with_its_effect() -> None:
    """Values after the guest are a tenth higher."""
    noise = quiet()
    samples = [
        one.model_copy(update={"predecessor": "vm/startup" if one.round % 2 else "container/startup"})
        for one in taken(lambda n: noise(n) * (1.1 if n % 2 else 1))
    ]
    assert "higher after vm/startup than after container/startup" in found(samples)["predecessor"].text


def test_predecessors_that_change_nothing_are_not_named() -> None:
    """In 50 quiet runs, at 1 %: none or one."""
    named = 0
    for seed in range(50):
        samples = [one.model_copy(update={"predecessor": "a" if one.round % 2 else "b"}) for one in taken(quiet(seed))]
        named += "predecessor" in found(samples)
    assert named <= 2


def test_taken_and_throttled_time_is_counted() -> None:
    """By whom, in how many samples."""
    noise = quiet()
    samples = [
        one.model_copy(
            update={
                "flags": {"throttled": "yes"} if one.round == 3 else {},
                "noise": {"steal_share": 0.2 if one.round < 3 else 0.0, "throttled.thermal": float(one.round == 9)},
            }
        )
        for one in taken(noise)
    ]
    kinds = found(samples)
    assert kinds["throttled"].text == "throttled: 1 of 20 samples by their CPU quota, 1 of 20 samples by heat"
    assert kinds["stolen time"].text == "a hypervisor took CPU time in 2 of 20 samples, up to 20% of it"


def test_an_outlier_has_its_cause_where_the_host_was_unusual_and_none_elsewhere() -> None:
    """What is always so is no cause: pressure on I/O was the same in every sample."""
    noise = quiet()
    samples = [
        one.model_copy(
            update={"noise": {"psi.cpu.some_share": 0.5 if one.round == 7 else 0.01, "psi.io.some_share": 0.3}}
        )
        for one in taken(lambda n: noise(n) * (4 if n in (7, 12) else 1))
    ]
    outliers = found(samples)["outliers"]
    assert {outlier.round: outlier.causes for outlier in outliers.outliers} == {7: ("waiting for a CPU",), 12: ()}
    assert outliers.text.endswith("cause: waiting for a CPU (1), not known (1)")


def test_samples_without_a_value_are_not_in_the_way() -> None:
    """Failed ones have none."""
    samples = [*taken(quiet()), sample("native", 21, status="failed", reason="gone", metrics={})]
    assert found(samples) == {}
    assert disturbances({}, {}) == ()


def naive_modes(values: list[float]) -> tuple[list[float], list[float]] | None:
    """Return what ``modes`` promises, as its docstring says it and however long it takes."""
    ordered = sorted(values)
    least = math.ceil(len(ordered) * MODE_SHARE)
    splits = [at for at in range(1, len(ordered)) if at >= least and len(ordered) - at >= least]
    split = max(splits, key=lambda at: (ordered[at] - ordered[at - 1], -at))
    low, high = ordered[:split], ordered[split:]
    distances = [abs(value - statistics.median(mode)) for mode in (low, high) for value in mode]
    apart = high[0] - low[-1] > GAP_MADS * statistics.median(distances)
    return (low, high) if apart else None


@given(some.lists(some.integers(0, 400).map(float), min_size=MIN_VALUES, max_size=40))
def test_modes_are_what_their_definition_says(values: list[float]) -> None:
    """Ties and equal values included."""
    assert modes(values) == naive_modes(values)


def test_the_modes_of_many_values_are_found_without_sorting_anew_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of 100,000 samples is shown in seconds."""
    chance, ordered, sorted_values = random.Random(3), st._ordered, 0
    values = [chance.gauss(2 if n % 3 else 1, 0.01) for n in range(3_000)]

    def counting(each: Sequence[float]) -> list[float]:
        nonlocal sorted_values
        sorted_values += len(each)
        return ordered(each)

    monkeypatch.setattr(st, "_ordered", counting)
    found = modes(values)
    assert found is not None and [len(mode) for mode in found] == [1_000, 2_000]
    assert sorted_values <= 3 * len(values)
