"""The device below a folder, and what it has transferred."""

from pathlib import Path

import pytest

from benchbox.linux import blockdev
from benchbox.linux.blockdev import Backing, Transferred, counters, parse
from benchbox.linux.mounts import mounted_at

#: /sys/block/vda/stat of a busy host, Linux 6.18.
STAT = (
    "  654698   136348 35205090   346468   869751  1792432 97724816  2589786        0   382052  3221828  1 90 6 2 1 7\n"
)
DISK = Backing("ext4", "vda", Path("/sys/dev/block/254:0/stat"))
MOUNTS = """\
22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
23 22 0:20 / /proc rw - proc proc rw
40 22 8:1 / /srv rw - xfs /dev/sda1 rw
41 22 0:33 /@a /with\\040space rw - btrfs /dev/sdb rw
42 40 0:40 / /srv/mem rw - tmpfs none rw
43 40 0:41 / /srv/mem rw - tmpfs over rw
"""


def test_sectors_are_512_bytes_whatever_the_device_has() -> None:
    """The third and the seventh field, Documentation/block/stat.rst."""
    assert parse(STAT) == Transferred(35205090 * 512, 97724816 * 512)


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f g h"])
def test_what_is_no_statistic_is_refused(text: str) -> None:
    """It is not taken for zero."""
    with pytest.raises(ValueError):
        parse(text)


def test_a_difference_is_a_bound_that_names_its_source() -> None:
    """Others' I/O is in it, and that is said."""
    read, written = counters(DISK, Transferred(10, 20), Transferred(15, 120))
    assert (read.name, read.value, written.name, written.value) == ("device.read", 5, "device.written", 100)
    assert "vda" in written.source and "at most" in written.source


def test_memory_is_known_to_reach_no_device() -> None:
    """Zero, not unknown: what is written to a tmpfs is in memory."""
    assert [counter.value for counter in counters(Backing("tmpfs"), None, None)] == [0, 0]


def test_no_one_device_is_unknown() -> None:
    """With the reason as source, so that it is never compared."""
    for counter in counters(Backing("nfs4"), None, None):
        assert counter.value is None and "nfs4" in counter.source


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/x", ("ext4", "/dev/vda")),
        ("/srv", ("xfs", "/dev/sda1")),
        ("/srvx", ("ext4", "/dev/vda")),
        ("/with space/a", ("btrfs", "/dev/sdb")),
        ("/srv/mem/x", ("tmpfs", "over")),
    ],
)
def test_the_mount_of_a_folder_is_the_innermost_and_the_last(folder: str, found: tuple[str, str]) -> None:
    """One that was mounted over another hides it."""
    assert mounted_at(Path(folder), MOUNTS) == found


def test_memory_of_this_host_has_no_device() -> None:
    """/dev/shm is a tmpfs wherever there is one."""
    if not Path("/dev/shm").is_mount():
        pytest.skip("this host has no /dev/shm")
    assert str(blockdev.backing(Path("/dev/shm"))) == "tmpfs"
    assert blockdev.look(blockdev.backing(Path("/dev/shm"))) is None
