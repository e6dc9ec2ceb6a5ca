"""Sizes, durations and CPU lists."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("256MiB", 256 << 20),
        ("256 M", 256 << 20),
        ("1.5G", 3 << 29),
        ("1kB", 1000),
        ("2 tb", 2 * 1000**4),
        ("17b", 17),
        (4096, 4096),
        (" 1K ", 1024),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | int, size_bytes: int) -> None:
    """Bare letters are binary, kB and its like decimal, a bare number is bytes."""
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1M", "1e6", "0", "0.1B", "256 MiBs", "1 M 2", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The error says what was found and what a size looks like."""
    with pytest.raises(ValueError, match="expected a size") as error:
        units.parse_size(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(17, "17 B"), (1024, "1 KiB"), (256 << 20, "256 MiB"), (3 << 29, "1.5 GiB"), (5 << 40, "5 TiB"), (0, "0 B")],
)
def test_a_size_is_written_with_a_binary_prefix(size_bytes: int, text: str) -> None:
    """The largest prefix that leaves at least one whole unit."""
    assert units.format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.2e-8, "42.0 ns"),
        (1.5e-5, "15.0 µs"),
        (0.0123, "12.3 ms"),
        (0.3, "300 ms"),
        (0.09996, "100 ms"),
        (1.0, "1.00 s"),
        (119.4, "119 s"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (7384, "2 h 03 min"),
        (0, "0 s"),
        (-0.002, "-2.00 ms"),
    ],
)
def test_a_duration_has_three_digits_in_the_unit_that_fits(seconds: float, text: str) -> None:
    """From ns to hours."""
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-2,5", (0, 1, 2, 5)), ("", ()), ("\n", ()), ("3", (3,)), ("5,1-2\n", (1, 2, 5))]
)
def test_a_kernel_cpu_list_is_read(text: str, cpus: tuple[int, ...]) -> None:
    """Ranges and single numbers, in any order, with or without a line end."""
    assert units.parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["9" * 5000, "1" + " " * 60_000 + "!", "1" + "a" * 60_000, " " * 60_000, "\u0663"])
def test_a_size_that_nothing_has_is_refused_at_once(text: str) -> None:
    """A workload's output may name one: neither an overflow nor a search that goes on and on."""
    began = time.monotonic()
    with pytest.raises(ValueError, match="expected a size"):
        units.parse_size(text)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("text", ["a", "1-b", "1;2", "0-4000000000", "9" * 5000, ",".join(["0-65535"] * 99)])
def test_what_is_no_cpu_list_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="expected a list of CPUs"):
        units.parse_cpu_list(text)


@given(st.sets(st.integers(0, 300)))
def test_a_cpu_list_survives_writing_and_reading(cpus: set[int]) -> None:
    """What is written as the kernel writes it is read as the same CPUs."""
    ordered = tuple(sorted(cpus))
    assert units.parse_cpu_list(units.format_cpu_list(ordered)) == ordered


def test_a_cpu_list_joins_neighbours() -> None:
    """A run of CPUs is one part, whatever the order in which they come."""
    assert units.format_cpu_list((5, 0, 2, 1)) == "0-2,5"
