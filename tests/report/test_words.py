"""Numbers and names as people read them."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.analysis import verdicts
from benchbox.analysis.iterations import Unfolded, Unfolding
from benchbox.analysis.statistics import Difference, Interval, Ratio
from benchbox.analysis.summary import Row, summarise
from benchbox.record import Iterations, Sample
from benchbox.report import words
from tests.report.records import STAGES_NS, controlled_run, environment, failed, manifest, sample, samples


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.6249, "4.62"), (46.249, "46.2"), (4624.9, "4,620"), (0.9996, "1.00"), (0.012345, "0.0123"), (0.0, "0.00")],
)
def test_three_digits_are_significant(value: float, text: str) -> None:
    """Neither exponents nor digits that nobody measured."""
    assert words.significant(value) == text


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ((412e-6, 380e-6, 455e-6), "s", "+412 µs (380–455)"),
        ((-424e-6, -491e-6, -365e-6), "s", "−424 µs (365–491)"),
        ((-3e-6, -18e-6, 12e-6), "s", "−3 µs (−18…+12)"),
        ((0.2e-6, -4e-6, 5e-6), "s", "+0.2 µs (−4.0…+5.0)"),
        ((0.1e-6, -40e-6, 50e-6), "s", "0 µs (−40…+50)"),
        ((980e-6, 900e-6, 1020e-6), "s", "+1.0 ms (0.9–1.0)"),
        ((2.6, None, None), "s", "+2.6 s"),
        ((30e-9, None, None), "s", "+30 ns"),
        ((3 << 20, 2 << 20, 4 << 20), "B", "+3.0 MiB (2.0–4.0)"),
        ((-(512 << 10), None, None), "B/s", "−512 KiB/s"),
        ((-1500.0, -1600.0, -1400.0), "1/s", "−1.5 k/s (1.4–1.6)"),
        ((2.0, None, None), "1", "+2.0"),
        ((0.0, 0.0, 0.0), "s", "0.0 s (0.0…0.0)"),
    ],
)
def test_a_difference_has_one_unit_and_its_signs(
    values: tuple[float, float | None, float | None], unit: str, text: str
) -> None:
    """Both ends on one side share the sign that stands before, else each has its own."""
    assert words.difference_text(Difference(*values, pairs=9), unit) == text
    assert words.difference_text(None, unit) == words.NONE


@given(some.floats(min_value=1e-9, max_value=1e12))
def test_three_digits_are_within_half_a_per_cent(value: float) -> None:
    """What is printed can be read back and is near the number."""
    assert float(words.significant(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0023, "s", "2.30 ms"),
        (1 << 20, "B", "1 MiB"),
        (3 << 20, "B/s", "3 MiB/s"),
        (1234.5, "1/s", "1.23 k/s"),
        (7.68e9, "1/s", "7.68 G/s"),
        (999.6, "1/s", "1.00 k/s"),
        (999.4, "1/s", "999 1/s"),
        (0.25, "1/s", "0.250 1/s"),
        (-2.5e6, "1/s", "-2.50 M/s"),
        (4.2e13, "1/s", "42.0 T/s"),
        (2500.0, "W", "2.50 kW"),
        (2.0, "1", "2.00"),
        (0.0, "s", "0 s"),
        (0.0, "1", "0"),
    ],
)
def test_values_carry_their_unit(value: float, unit: str, text: str) -> None:
    """Base units become those that people use."""
    assert words.format_value(value, unit) == text


def test_an_interval_says_a_shared_unit_once() -> None:
    """Short where it can be, whole where it must."""
    assert words.interval_text(Interval(475e-6, 512e-6, 0.95), "s") == "475–512 µs"
    assert words.interval_text(Interval(990e-6, 1.02e-3, 0.95), "s") == "990 µs – 1.02 ms"
    assert words.interval_text(Interval(130.0, 140.0, 0.95), "s") == "2 min 10 s – 2 min 20 s"
    assert words.interval_text(None, "s") == words.NONE


def test_a_ratio_without_an_interval_shows_none() -> None:
    """No brackets where nothing is known."""
    assert words.ratio_text(Ratio(4.59, 4.38, 4.82, 20)) == "4.59 (4.38–4.82)"
    assert words.ratio_text(Ratio(4.59, None, None, 4)) == "4.59"


def test_the_answer_names_emulation_in_the_same_breath() -> None:
    """A few sentences with medians and verdicts, and no emulated guest passes for a VM."""
    summary = summarise(manifest(), samples())
    text = words.answer(summary.tables[0], summary)
    assert text.startswith(
        "From the request to the workload's first own instruction, container is slower than native by 4.4–4.8x ("
    )
    assert "What a virtual machine costs is not known: vm (emulated, TCG) took" in text
    assert "which is no measure of a VM." in text


def test_the_answer_says_what_is_clear_first_and_the_same_of_many_once() -> None:
    """Sixteen parts of a container are a sentence, too."""
    labels = ("container", "no-net", "no-uts", "no-ipc", "no-pid")
    chance = random.Random(3)

    def taken(label: str, number: int) -> Sample:
        factor = (0.5 if label == "no-net" else 1.0) * chance.lognormvariate(0, 0.3)
        return sample(label, number, stages_ns=STAGES_NS["container"], factor=factor)

    found = [taken(label, number) for number in range(1, 21) for label in labels]
    summary = summarise(manifest(labels, baseline="container"), found)
    text = words.answer(summary.tables[0], summary)
    assert text.count("may or may not differ from container") == 1
    assert text.index("no-net is faster than container by") < text.index("no-uts (")
    assert re.search(r"no-uts \(.* ms\), no-ipc \(.* ms\) and no-pid \(.* ms\) may or may not", text)


def test_the_answer_says_once_that_emulation_is_no_virtual_machine() -> None:
    """However many guests there are."""
    labels = ("vm", "pc", "nic")
    found = [
        sample(label, number, stages_ns=STAGES_NS["vm"], flags={"accelerator": "tcg"})
        for number in range(1, 9)
        for label in labels
    ]
    records = [environment(label, kind="vm", applied={"accelerator": "tcg"}) for label in labels]
    summary = summarise(manifest(labels, baseline="vm", records=records), found)
    text = words.answer(summary.tables[0], summary)
    assert text.count("no measure of a VM") == 1
    assert "pc (emulated, TCG) took" in text and "nic (emulated, TCG) took" in text


@pytest.mark.parametrize(
    ("unit", "direction", "verb"),
    [("s", "lower", "took"), ("B", "lower", "took"), ("B/s", "higher", "reached"), ("1", "lower", "had")],
)
def test_a_time_is_taken_and_a_rate_is_reached(unit: str, direction: str, verb: str) -> None:
    """In what is not judged, in the present where nothing is compared."""
    summary = summarise(manifest(), samples())
    rows = tuple(replace(one, unit=unit, direction=direction) for one in summary.tables[0].rows)
    table = replace(summary.tables[0], rows=rows)
    assert f"vm (emulated, TCG) {verb} " in words.answer(table, summary)
    present = {"took": "takes", "reached": "reaches", "had": "has"}[verb]
    assert f"native {present} " in words.answer(replace(table, rows=rows[:1]), summary)


def test_the_answer_without_a_baseline_compares_nothing() -> None:
    """Medians stay, ratios go, and the reason is given."""
    taken = [*samples(("container",)), *(failed("native", number, "gone") for number in range(1, 21))]
    summary = summarise(manifest(("native", "container")), taken)
    text = words.answer(summary.tables[0], summary)
    assert "slower" not in text
    assert "the baseline native has no valid sample" in text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (2.1, 2.4, "2.1–2.4x"),
        (1.031, 1.089, "3.1–8.9%"),
        (0.4, 0.5, "2.0–2.5x"),
        (0.9, 0.95, "5.3–11%"),
        (4170.0, 5490.0, "4,170–5,490x"),
        (2.501, 2.502, "2.5x"),
        (1.003, 5.93, "up to 5.9x"),
    ],
)
def test_an_effect_is_a_factor_where_it_is_large_and_per_cent_where_it_is_small(
    low: float, high: float, text: str
) -> None:
    """The word before it says in which direction."""
    assert words.effect_range(low, high) == text


def row(kind: verdicts.Kind, ratio: Ratio, unit: str = "s", direction: str = "lower") -> Row:
    first = summarise(manifest(), samples()).tables[0].rows[1]
    return replace(first, verdict=verdicts.Verdict(kind), ratio=ratio, unit=unit, direction=direction)


@pytest.mark.parametrize(
    ("kind", "low", "high", "unit", "direction", "text"),
    [
        ("worse", 2.1, 2.4, "s", "lower", "slower by 2.1–2.4x"),
        ("better", 0.4, 0.5, "s", "lower", "faster by 2.0–2.5x"),
        ("worse", 2.1, 2.4, "B", "lower", "more by 2.1–2.4x"),
        ("worse", 0.4, 0.5, "1/s", "higher", "lower by 2.0–2.5x"),
        ("better", 2.1, 2.4, "1/s", "higher", "higher by 2.1–2.4x"),
        ("equivalent", 0.99, 1.01, "s", "lower", "equivalent: within 5%"),
    ],
)
def test_a_verdict_is_in_words(
    kind: verdicts.Kind, low: float, high: float, unit: str, direction: str, text: str
) -> None:
    """Time is slow or fast, an amount more or less, a yield lower or higher."""
    assert words.verdict_text(row(kind, Ratio(1, low, high, 20), unit, direction)) == text


def test_an_undecided_verdict_says_why_and_what_would_help() -> None:
    """Never just a shrug."""
    undecided = replace(
        row("inconclusive", Ratio(1, 0.9, 1.2, 20)),
        verdict=verdicts.Verdict("inconclusive", "the interval contains 1", 1320),
    )
    assert words.verdict_text(undecided) == "inconclusive: the interval contains 1; about 1,320 rounds might tell"


@pytest.mark.parametrize(
    ("warm_ups", "count", "text"),
    [
        ([0, 0], 20, "All 2 samples reached a steady state, at once."),
        ([1], 20, "The one sample reached a steady state, after a warm-up of 1 iteration, which is left out."),
        ([0, 3], 20, "All 2 samples reached a steady state, after a warm-up of 0 to 3 iterations, which are left out."),
        (
            [None, 2],
            20,
            "No steady state was reached in 1 of 2 samples of native: all iterations of these are in their number. The"
            " others reached one, after a warm-up of 2 iterations, which are left out.",
        ),
        (
            [None],
            20,
            "No steady state was reached in 1 of 1 samples of native: all iterations of these are in their number.",
        ),
        ([0], 5, "Below 8 iterations nothing is said of a warm-up: all are in the number."),
    ],
)
def test_it_is_said_how_many_samples_settled_and_when(warm_ups: list[int | None], count: int, text: str) -> None:
    """Nobody has to assume a steady state."""
    row = summarise(manifest(), samples()).tables[0].rows[0]
    taken = tuple((n, Iterations(values=[1.0] * count, warm_up=each)) for n, each in enumerate(warm_ups))
    assert words.steadiness_text(Unfolding("loop.each", "s", count, (Unfolded(row, 0, taken),))) == text


def test_trust_is_said_only_where_there_is_none() -> None:
    """And the smallest effect only where there is."""
    bad, good = (summarise(*controlled_run(factor)) for factor in (1.2, 1.0))
    assert (words.trust_text(bad) or "").startswith("UNTRUSTED: native was measured twice and differs from itself: 1.2")
    assert words.trust_text(good) is None
    assert "which should contain 1" in (words.control_text(bad) or "")
    assert "smallest effect that this host could show today is " in (words.control_text(good) or "")
    assert words.control_text(summarise(manifest(), samples())) is None
    assert words.answer(bad.tables[0], bad).endswith("its baseline differs from itself.")


def test_a_moment_is_short_and_what_is_none_stays_as_it_was() -> None:
    """In UTC, to the minute."""
    assert words.moment("2026-11-24T04:13:50+00:00") == "2026-11-24 04:13 UTC"
    assert words.moment("2026-11-24T05:13:50+01:00") == "2026-11-24 04:13 UTC"
    assert words.moment("yes\x1b") == "yes"
