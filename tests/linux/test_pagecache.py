"""What is in memory of files that the tests write. Dropping them needs a disk: integration/test_start_modes.py."""

import os
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import mounts
from benchbox.linux.pagecache import Files, Resident, arrived_bytes, page_bytes

PAGE = page_bytes()
MEMORY = Path("/dev/shm")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_arrived_is_counted_page_by_page() -> None:
    """A page that left does not make up for one that came."""
    before, after = Resident((b"\1\0\1", b"\0")), Resident((b"\0\1\1", b"\1"))
    assert arrived_bytes(before, after) == 2 * PAGE
    assert arrived_bytes(before, before) == 0
    assert (before.total_bytes, after.total_bytes) == (2 * PAGE, 3 * PAGE)


def test_each_file_counts_once_and_links_lead_nowhere(tmp_path: Path) -> None:
    """Names of the same file, symbolic links and empty files add nothing; a path may be a file or a link to one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"x" * (PAGE + 1))
    os.link(tmp_path / "in" / "file", tmp_path / "same")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in" / "file")
    (tmp_path / "out").symlink_to("/usr")
    os.mkfifo(tmp_path / "pipe")
    files = Files([tmp_path, tmp_path / "link"])
    assert (files.count, files.size_bytes) == (1, 2 * PAGE)
    files.close()
    files.close()
    assert files.count == 0


def test_what_was_just_written_is_in_memory(tmp_path: Path) -> None:
    """All of its pages; nothing has to be read."""
    (tmp_path / "file").write_bytes(b"x" * (3 * PAGE))
    files = Files([tmp_path])
    files.load()
    assert files.resident() == Resident((b"\1\1\1",))
    files.close()


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """An image may have more files than a process descriptors."""
    for number in range(20):
        (tmp_path / str(number)).write_text("x")
    before = open_descriptors()
    files = Files([tmp_path])
    assert (files.count, open_descriptors()) == (20, before)
    files.close()


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before any sample."""
    with pytest.raises(EnvironmentFailure, match=r"cannot look at the page cache of .*/gone: No such file"):
        Files([tmp_path / "gone"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_told_nothing() -> None:
    """The kernel would say that all is in memory, which may be a lie."""
    seen = os.fork()
    if not seen:
        os.setuid(65534)
        try:
            Files([Path("/etc/passwd")])
        except EnvironmentFailure as error:
            os._exit(0 if "is told to its owner only" in error.message else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(seen, 0)[1]) == 0


@pytest.mark.skipif(
    not os.access(MEMORY, os.W_OK) or mounts.file_system(MEMORY) != "tmpfs", reason="/dev/shm is no tmpfs here"
)
def test_what_lies_in_memory_stays_there_and_says_so() -> None:
    """A tmpfs has no other place for it."""
    place = MEMORY / f"benchbox-test-{os.getpid()}"
    place.write_bytes(b"x" * (2 * PAGE))
    try:
        files = Files([place])
        stayed = files.drop()
        assert stayed.total_bytes == 2 * PAGE
        assert files.why(stayed) == f"{place}: 2 pages, on tmpfs: memory is the only place where they are"
        files.close()
    finally:
        place.unlink()
