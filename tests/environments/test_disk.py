"""Who takes too much of the host's disk is ended, and nobody else; on file systems that exist only here."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox.environments import disk
from benchbox.environments.disk import DiskWatch, Room, reserve, taken_bytes
from benchbox.model import Outcome, Running

GIB: Final = 1 << 30
LIMIT: Final = 10 * GIB
LAYERS: Final = Path("/scratch/layers-x")
DATA: Final = Path("/scratch/data-x")


@dataclass
class Played:
    """A command that runs until it is ended."""

    killed: int = 0

    def ready(self) -> bool:
        return True

    def wait(self) -> Outcome:
        return Outcome("failed", "ended by benchbox") if self.killed else Outcome("ok")

    def kill(self) -> None:
        self.killed += 1


@dataclass
class Host:
    """One file system with ``free_bytes``; ``files`` says what lies in a folder."""

    free_bytes: int = 100 * GIB
    free_files: int = 1_000_000
    files: dict[Path, int] = field(default_factory=dict)
    counted: int = 0

    def room(self, place: Path) -> Room:
        return Room(self.free_bytes, 200 * GIB, self.free_files, 2_000_000)

    def taken(self, folders: Iterable[Path], enough_bytes: int) -> int:
        self.counted += 1
        return sum(self.files.get(folder, 0) for folder in folders)

    def write(self, folder: Path, size_bytes: int) -> None:
        self.files[folder] = self.files.get(folder, 0) + size_bytes
        self.free_bytes -= size_bytes


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """No thread: a test looks itself."""
    monkeypatch.setattr(disk, "_PAUSE_S", 1e6)
    return Host()


def watching(host: Host, **options: Any) -> DiskWatch:
    return DiskWatch(LIMIT, **options, room=host.room, taken=host.taken)


def reason(running: Running) -> str:
    outcome = running.wait()
    assert (outcome.reason is None) == (outcome.status == "ok")
    return outcome.reason or "ok"


def test_who_writes_more_than_the_limit_is_ended_and_its_sample_failed(host: Host) -> None:
    """Layer and /data count together; what is half of it is not even counted."""
    played = Played()
    watch = watching(host, layers=LAYERS)
    running = watch.around("s1", DATA, lambda: played)
    host.write(LAYERS / "s1", 5 * GIB)
    watch.look()
    assert (host.counted, played.killed) == (0, 0)
    host.write(DATA, 5 * GIB)
    watch.look()
    assert (host.counted, played.killed) == (1, 0)
    host.write(DATA, 1)
    watch.look()
    assert played.killed == 1
    assert reason(running) == "wrote more than 10 GiB into /data or its layer (resources.disk)"


def test_of_several_only_the_one_that_took_it_is_ended(host: Host) -> None:
    """The limit is for each; what others of the run wrote is theirs."""
    watch, all_played = watching(host, layers=LAYERS), [Played() for _ in range(3)]
    runnings = [
        watch.around(f"s{number}", None, lambda played=played: played)  # type: ignore[misc]
        for number, played in enumerate(all_played)
    ]
    for number, size in enumerate((9 * GIB, 11 * GIB, 9 * GIB)):
        host.write(LAYERS / f"s{number}", size)
    watch.look()
    assert [played.killed for played in all_played] == [0, 1, 0]
    assert [reason(running)[:10] for running in runnings] == ["ok", "wrote more", "ok"]


def test_what_is_in_no_file_counts_as_well(host: Host) -> None:
    """A file that is open and has no name any more takes the disk like any other."""
    played, watch = Played(), watching(host)
    running = watch.around("s1", DATA, lambda: played)
    host.free_bytes -= LIMIT
    watch.look()
    assert played.killed == 0
    host.free_bytes -= GIB
    watch.look()
    assert played.killed == 1
    assert reason(running).startswith("ended because the disk lost 11 GiB while it ran that are in no file of its")


def test_something_stays_for_the_host_whatever_the_limit(host: Host) -> None:
    """Of bytes and of files; so little that a disk which is nearly full can still be measured on."""
    host.free_bytes = 2 * GIB
    played, watch = Played(), watching(host)
    running = watch.around("s1", DATA, lambda: played)
    host.write(DATA, 2 * GIB - (511 << 20))
    watch.look()
    assert played.killed == 1
    assert reason(running) == "ended because only 511 MiB are left on the file system of /scratch"
    again = watch.around("s2", DATA, lambda: played)
    host.free_files = 39_999
    watch.look()
    assert reason(again) == "ended because only 39999 more files fit on the file system of /scratch"


@pytest.mark.parametrize(
    ("total", "free", "kept"),
    [(1000 * GIB, 500 * GIB, 512 << 20), (5 * GIB, 5 * GIB, 5 * GIB // 50), (1000 * GIB, 100, 50)],
    ids=["large", "small", "nearly full"],
)
def test_what_stays_fits_the_file_system(total: int, free: int, kept: int) -> None:
    """A file system without a number of files has none to keep."""
    assert reserve(Room(free, total)) == Room(kept, total)


def test_who_can_write_to_no_disk_is_not_watched(host: Host) -> None:
    """It is what was started, without a thread beside it."""
    played, watch = Played(), watching(host)
    assert watch.around("s1", None, lambda: played) is played
    assert watch._thread is None


def test_the_thread_ends_with_the_last_one_that_is_watched(host: Host) -> None:
    """However it ends; also where it could not be started."""
    watch = watching(host, beside=(Path("/docker"),))
    first, second = (watch.around(name, None, Played) for name in ("s1", "s2"))
    thread = watch._thread
    assert thread is not None and thread.is_alive()
    first.wait()
    assert thread.is_alive()
    second.wait()
    thread.join(10)
    assert not thread.is_alive() and watch._thread is None


def test_what_could_not_be_started_is_not_watched(host: Host) -> None:
    """Its thread ends as well."""
    watch = watching(host, beside=(Path("/docker"),))

    def start() -> Running:
        raise OSError("no such program")

    with pytest.raises(OSError, match="no such program"):
        watch.around("s1", None, start)
    thread = watch._thread
    if thread is not None:
        thread.join(10)
    assert watch._thread is None


def test_a_limit_that_is_passed_before_the_start_is_done_ends_it_all_the_same(host: Host) -> None:
    """The look came between."""
    played, watch = Played(), watching(host)

    def start() -> Running:
        host.write(DATA, 11 * GIB)
        watch.look()
        return played

    assert "wrote more" in reason(watch.around("s1", DATA, start))
    assert played.killed == 1


def test_a_place_that_is_not_there_is_passed_over(host: Host) -> None:
    """A daemon may keep its data where we cannot look."""

    def room(place: Path) -> Room:
        raise FileNotFoundError(place)

    watch = DiskWatch(LIMIT, beside=(Path("/nowhere"),), room=room)
    running = watch.around("s1", None, Played)
    watch.look()
    assert reason(running) == "ok"


def test_what_is_taken_is_counted_in_blocks_and_once(tmp_path: Path) -> None:
    """A file of many names is one, a link is not followed; counting ends where it is enough."""
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").write_bytes(b"x" * 100_000)
    one = taken_bytes([tmp_path], GIB)
    assert one >= 100_000
    for number in range(20):
        os.link(tmp_path / "deep/er/file", tmp_path / f"name{number}")
    (tmp_path / "away").symlink_to("/usr")
    assert taken_bytes([tmp_path], GIB) - one < 100_000
    assert taken_bytes([tmp_path, tmp_path / "deep", Path("/nowhere")], 0) < 2 * one
