"""What ``micro`` prints is read whole or not at all; the workloads ``kernel``, ``memory`` and ``floor`` on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.model import Outcome
from benchbox.workloads import batches, floor, kernel, memory
from benchbox.workloads.batches import Batches

#: Recorded: micro null_call --seconds 0.5 --batches 5, on the development machine.
NULL_CALL = b"""micro operation=null_call page_bytes=4096 bytes=67108864
batch=1 count=344000 ns=102771680
batch=2 count=425984 ns=113911012
batch=3 count=458752 ns=106099889
batch=4 count=458752 ns=106366779
batch=5 count=458752 ns=102786177
done batches=5 count=2146240 checks=2146240 faults=0 pages=0
"""
#: Recorded: micro touch --huge madvise --batches 4 and --huge never --batches 4.
HUGE = b"""micro operation=touch page_bytes=4096 bytes=67108864
batch=1 count=425920 ns=125723546
batch=2 count=425984 ns=126310987
batch=3 count=425984 ns=127057857
batch=4 count=425984 ns=126864044
done batches=4 count=1703872 checks=1703872 faults=3330 pages=1703872
"""
SMALL = b"""micro operation=touch page_bytes=4096 bytes=67108864
batch=1 count=85952 ns=127077354
batch=2 count=86016 ns=125882995
batch=3 count=90112 ns=129670916
batch=4 count=86016 ns=128947099
done batches=4 count=348096 checks=348096 faults=348098 pages=348096
"""
BANDWIDTH = b"""micro operation=bandwidth page_bytes=4096 bytes=67108864
batch=1 count=819412992 ns=104888217
batch=2 count=805306368 ns=101890898
done batches=2 count=1624719360 checks=123 faults=16386 pages=16383
"""


def test_a_kernel_operation_is_its_time_by_batch() -> None:
    """The median of the batches in s; how many were done; every batch kept."""
    params = {"operation": "null_call", "batches": 5}
    each, work = kernel.WORKLOAD.parse(Outcome("ok", output_tail=NULL_CALL), params)
    assert (each.name, each.unit, each.direction) == ("kernel.null_call", "s", "lower")
    assert each.value == pytest.approx(106366779 / 458752 / 1e9)
    assert len(each.iterations) == 5 and each.iterations[0] == pytest.approx(102771680 / 344000 / 1e9)
    assert (work.name, work.value) == ("kernel.work", 2146240)


def test_bandwidth_is_a_rate_of_bytes() -> None:
    """Higher is better, and so is the work."""
    params = {"operation": "bandwidth", "batches": 2}
    rate, work = memory.WORKLOAD.parse(Outcome("ok", output_tail=BANDWIDTH), params)
    assert (rate.name, rate.unit, rate.direction, work.unit) == ("memory.bandwidth", "B/s", "higher", "B")
    assert rate.value == pytest.approx((819412992e9 / 104888217 + 805306368e9 / 101890898) / 2)


@pytest.mark.parametrize(
    ("output", "huge_pages", "complaint"),
    [
        (HUGE, "madvise", None),
        (SMALL, "never", None),
        (SMALL, "default", None),
        (HUGE, "default", None),
        (SMALL, "madvise", "huge pages were asked for, but 348096 pages took 348098 faults: see /sys/kernel/mm"),
        (HUGE, "never", "small pages were asked for, but 1703872 pages took 3330 faults only"),
    ],
)
def test_pages_are_of_the_size_that_was_asked_for(output: bytes, huge_pages: str, complaint: str | None) -> None:
    """A host that gives other pages makes the sample invalid: the two must not be compared under one name."""
    params = {"operation": "touch", "batches": 4, "huge_pages": huge_pages}
    if complaint is None:
        assert memory.WORKLOAD.parse(Outcome("ok", output_tail=output), params)[0].name == "memory.touch"
        return
    with pytest.raises(ValueError, match=complaint):
        memory.WORKLOAD.parse(Outcome("ok", output_tail=output), params)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"Segmentation fault\n",
        NULL_CALL[:-30],
        NULL_CALL[60:],
        NULL_CALL.replace(b"batch=3", b"batch=4"),
        NULL_CALL.replace(b"batch=3 count=458752", b"batch=3 count=0"),
        NULL_CALL.replace(b"count=2146240", b"count=2146241"),
        NULL_CALL.replace(b"checks=2146240", b"checks=0"),
        NULL_CALL.replace(b"ns=106099889", b"ns=-5"),
        NULL_CALL.replace(b"ns=106099889", b"ns=0"),
        NULL_CALL.replace(b"null_call", b"switch"),
        NULL_CALL + b"and more\n",
        b"warning\n" + NULL_CALL,
        b"\xff\x00" * 300,
    ],
)
def test_another_output_is_no_sample(output: bytes) -> None:
    """Cut, empty, foreign, of another operation, with a batch that lacks or with work that was not proved."""
    with pytest.raises(ValueError):
        kernel.WORKLOAD.parse(Outcome("ok", output_tail=output), {"operation": "null_call", "batches": 5})


@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_batches(output: bytes) -> None:
    """Nor do any raise something else than that."""
    with pytest.raises(ValueError):
        batches.read(output, "null_call", 5)


def test_the_command_lines_say_what_is_done() -> None:
    """Sizes in bytes; both programs know nothing of the ready byte."""
    found = memory.WORKLOAD.command({"operation": "latency", "working_set": "1MiB", "huge_pages": "madvise"})
    words = "/bin/micro latency --seconds 0.5 --batches 20 --bytes 1048576 --huge madvise"
    assert (found.argv, found.signals_ready) == (tuple(words.split()), False)
    found = kernel.WORKLOAD.command({"operation": "futex", "seconds": 1})
    assert found.argv == ("/bin/micro", "futex", "--seconds", "1.0", "--batches", "20")


@pytest.mark.parametrize("size", ["0", "1KiB", "2TiB", True, 1.5, "much", None])
def test_a_working_set_is_a_size(size: object) -> None:
    """From a page up to a terabyte."""
    with pytest.raises(ValueError, match="expected a size"):
        memory.WORKLOAD.command({"operation": "latency", "working_set": size})


def test_the_floor_does_nothing_and_says_nothing() -> None:
    """What it printed would have been something."""
    assert floor.WORKLOAD.command({}).argv == ("/bin/micro", "null")
    assert floor.WORKLOAD.parse(Outcome("ok")) == ()
    with pytest.raises(ValueError, match="expected nothing, got b'x'"):
        floor.WORKLOAD.parse(Outcome("ok", output_tail=b"x"))


def test_batches_give_times_and_rates() -> None:
    """The same numbers, two ways."""
    found = Batches((10, 20), (1000, 4000), 0, 0)
    assert found.seconds_each == pytest.approx((1e-7, 2e-7))
    assert found.rates == pytest.approx((1e7, 5e6))
    assert found.total == 30
