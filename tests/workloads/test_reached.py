"""Bytes that were said to be moved are held against what the device and the control group counted."""

import pytest

from benchbox.model import Counter, NotDone
from benchbox.workloads import reached

MIB = 1 << 20


def counted(**values: float | None) -> tuple[Counter, ...]:
    """Return counters by their names with an underscore for the dot."""
    return tuple(Counter(name.replace("_", "."), value, "B", f"source of {name}") for name, value in values.items())


def test_what_reached_the_device_is_the_share_of_what_was_written() -> None:
    """What was laid out before is taken off: it cannot stand in for what was lost."""
    assert reached.check(counted(device_written=164 * MIB), "written", 100 * MIB, 64 * MIB) == 1.0
    assert reached.check(counted(device_read=96 * MIB), "read", 100 * MIB) == 0.96


@pytest.mark.parametrize("reached_mib", [0, 1, 64, 100, 158])
def test_too_few_bytes_are_a_reason(reached_mib: int) -> None:
    """A cache that took them, whole or in part, is named with both numbers and the source."""
    with pytest.raises(NotDone) as caught:
        reached.check(counted(device_written=reached_mib * MIB), "written", 100 * MIB, 64 * MIB)
    said = str(caught.value)
    assert "100 MiB were written after 64 MiB that were laid out" in said
    assert "source of device_written" in said and "flushes were dropped" in said


def test_the_smaller_bound_counts() -> None:
    """The device counts others' I/O too; what the group was charged for is tighter."""
    both = counted(device_written=500 * MIB, io_write=10 * MIB)
    assert reached.reached_bytes(both, "written") == (10 * MIB, "source of io_write")
    with pytest.raises(NotDone):
        reached.check(both, "written", 100 * MIB)


def test_a_group_that_shows_nothing_may_not_be_charged() -> None:
    """Write-back is not charged on every file system: the device alone then says."""
    assert reached.check(counted(device_written=100 * MIB, io_write=0), "written", 100 * MIB) == 1.0


def test_what_nothing_can_tell_is_no_fault_of_the_sample() -> None:
    """A network's file system lies on no device: unknown is not too few."""
    assert reached.check(counted(device_written=None, io_write=None), "written", 100 * MIB) is None
    assert reached.check((), "read", 100 * MIB) is None


def test_memory_is_no_device() -> None:
    """A layer on tmpfs counts as nothing reached."""
    with pytest.raises(NotDone, match="at most 0 B"):
        reached.check(counted(device_read=0), "read", MIB)
