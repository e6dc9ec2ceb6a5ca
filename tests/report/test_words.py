"""Numbers and names as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.analysis.statistics import Interval, Ratio
from benchbox.analysis.summary import summarise
from benchbox.report import words
from tests.report.records import failed, manifest, samples


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.6249, "4.62"), (46.249, "46.2"), (4624.9, "4,620"), (0.9996, "1.00"), (0.012345, "0.0123"), (0.0, "0.00")],
)
def test_three_digits_are_significant(value: float, text: str) -> None:
    """Neither exponents nor digits that nobody measured."""
    assert words.significant(value) == text


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
        (1234.5, "1/s", "1,230 1/s"),
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


def test_text_from_others_cannot_steer_a_terminal() -> None:
    """Escape sequences, line breaks and bidirectional overrides are gone."""
    assert words.plain("a\x1b[31mb\r\nc\u202ed\u2028e\x9bf") == "a [31mb cd e f"
    assert words.plain_lines("a\x1b[2J\nb\tc") == "a [2J\nb c"


def test_the_answer_names_emulation_in_the_same_breath() -> None:
    """A few sentences with medians and verdicts, and no emulated guest passes for a VM."""
    summary = summarise(manifest(), samples())
    text = words.answer(summary.tables[0], summary)
    assert text.startswith("From the request to the workload's first own instruction, container is slower by 4.4–4.8x ")
    assert "What a virtual machine costs is not known: vm (emulated, TCG) took" in text
    assert "which is no measure of a VM." in text


def test_the_answer_without_a_baseline_compares_nothing() -> None:
    """Medians stay, ratios go, and the reason is given."""
    taken = [*samples(("container",)), *(failed("native", number, "gone") for number in range(1, 21))]
    summary = summarise(manifest(("native", "container")), taken)
    text = words.answer(summary.tables[0], summary)
    assert "slower" not in text
    assert "the baseline native has no valid sample" in text
