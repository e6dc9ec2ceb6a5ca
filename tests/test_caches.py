"""Cold and warm: what is brought about before a sample, what is said after it. Files and pages exist only here."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchbox.caches import ColdCache, Seen, UnknownCache, WarmCache, cold, open_cache, refilled, warm
from benchbox.errors import UnavailableError
from benchbox.linux.pagecache import Files, Resident, page_bytes
from benchbox.model import Counter

PAGE = page_bytes()
NOTHING, ALL = b"\0\0\0\0", b"\1\1\1\1"


class FakeFiles:
    """One file of four pages. ``script`` is what is in memory at each look; dropping keeps the pages of ``held``."""

    def __init__(self, *script: bytes, held: bytes = NOTHING) -> None:
        self.script, self.held = list(script), held
        self.log: list[str] = []

    @property
    def count(self) -> int:
        return 1

    @property
    def size_bytes(self) -> int:
        return 4 * PAGE

    def resident(self) -> Resident:
        self.log.append("look")
        return Resident((self.script.pop(0),))

    def drop(self) -> Resident:
        self.log.append("drop")
        return Resident((self.held,))

    def load(self) -> None:
        self.log.append("load")

    def why(self, stayed: Resident) -> str:
        return "/image/bin: in use by redis (7)"


def numbers(seen: Seen) -> list[tuple[str, float | None]]:
    return [(counter.name, counter.value) for counter in seen.counters]


def test_a_cold_sample_finds_nothing_in_memory_and_reads_from_the_disk() -> None:
    """Both are counted, and every sample is flagged."""
    files = FakeFiles(b"\0\1\1\0")
    seen = ColdCache(files).watch()()
    assert files.log == ["drop", "look"]
    assert numbers(seen) == [("cache.resident_before", 0), ("cache.read", 2 * PAGE)]
    assert (seen.flags, seen.objection) == ({"cache": "cold"}, None)


def test_a_page_that_stays_spoils_a_cold_sample() -> None:
    """With how much it was, and who holds it; it is never silently warm."""
    seen = ColdCache(FakeFiles(ALL, held=b"\0\0\1\1")).watch()()
    assert (seen.objection or "").startswith("not cold: 8 KiB stayed in the page cache" if PAGE == 4096 else "not cold")
    assert "in use by redis (7)" in (seen.objection or "")
    assert numbers(seen)[0] == ("cache.resident_before", 2 * PAGE)


def test_a_cold_sample_that_read_nothing_is_no_proof() -> None:
    """Then what it ran came from somewhere else."""
    assert ColdCache(FakeFiles(NOTHING)).watch()().objection == "not cold: nothing was read from the disk"


def test_a_warm_sample_reads_nothing_from_the_disk() -> None:
    """What is not in memory is read before it."""
    files = FakeFiles(ALL, ALL)
    seen = WarmCache(files).watch()()
    assert files.log == ["load", "look", "look"]
    assert numbers(seen) == [("cache.resident_before", 4 * PAGE), ("cache.read", 0)]
    assert (seen.flags, seen.objection) == ({}, None)


def test_a_warm_sample_that_does_not_find_all_in_memory_is_not_called_warm() -> None:
    """A host that has too little of it gives back what it has just read."""
    seen = WarmCache(FakeFiles(b"\1\1\0\0", b"\0\1\1\0")).watch()()
    assert numbers(seen) == [("cache.resident_before", 2 * PAGE), ("cache.read", PAGE)]
    assert (seen.objection or "").startswith("not warm: the page cache did not hold ")


def test_the_state_is_on_record_with_what_it_is_about() -> None:
    """How many files and bytes."""
    assert ColdCache(FakeFiles()).applied() == {"page_cache": {"state": "cold", "files": 1, "bytes": 4 * PAGE}}
    assert WarmCache(FakeFiles()).applied()["page_cache"]["state"] == "warm"


@pytest.mark.parametrize("reads", [(), (Path("/no/such/file"),)])
def test_what_cannot_be_looked_at_cannot_be_cold(reads: Sequence[Path]) -> None:
    """The environment is skipped; warm is still measured, its numbers are not known and no zeros."""
    with pytest.raises(UnavailableError) as caught:
        open_cache("cold", reads)
    assert caught.value.hint
    warm = open_cache("warm", reads)
    assert isinstance(warm, UnknownCache)
    assert "not_proven" in warm.applied()["page_cache"]
    assert numbers(warm.watch()()) == [("cache.resident_before", None), ("cache.read", None)]


def test_a_file_system_with_a_cache_of_its_own_cannot_be_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping the page cache would only look like it."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(Files, "own_cache", lambda files: "zfs")
    with pytest.raises(UnavailableError, match="zfs has a cache of its own"):
        open_cache("cold", (tmp_path,))
    assert isinstance(open_cache("warm", (tmp_path,)), WarmCache)


def read(value: float | None, name: str = "process.read") -> Counter:
    return Counter(name, value, "B", "wait4")


def test_a_cold_sample_has_to_have_had_read_itself_what_came_into_memory() -> None:
    """Sabotage: somebody else reads it between the look and the request. Metadata may be in the count, so less than all
    is enough; a client's reads are the sample's own."""
    seen = cold(0, "", 4 * PAGE, told=True)
    for enough in ([read(4 * PAGE)], [read(3 * PAGE)], [read(PAGE), read(PAGE, "client.process.read")]):
        assert refilled(seen, enough) is None
    assert "somebody else had put the rest back" in str(refilled(seen, [read(PAGE)]))
    assert refilled(seen, [read(0)]) is not None


def test_what_the_kernel_does_not_tell_spoils_nothing() -> None:
    """A file system that reads in its own name, an environment that another program makes, a warm sample."""
    assert refilled(cold(0, "", 4 * PAGE), [read(0)]) is None
    told = cold(0, "", 4 * PAGE, told=True)
    assert refilled(told, []) is refilled(told, [read(None)]) is None
    assert refilled(warm(PAGE, PAGE, 0), [read(0)]) is None
