"""The /data of a sample: made before it, gone after it, in the ledger meanwhile; and what reached the device."""

import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchbox.environments import data
from benchbox.environments.data import DataDisks, DataFolders, NotStarted, disk_bytes, make_words, with_data
from benchbox.linux import blockdev, mounts, removal
from benchbox.linux.blockdev import Backing, Transferred
from benchbox.model import DEVICE_STAT, DataSpec, Outcome, Running, Workspace

SPEC = DataSpec(8 << 20)


class Ledger:
    """Notes what is done; ``open`` is what is recorded and not yet released."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def record(self, kind: str, ident: str) -> None:
        assert not Path(ident).exists(), "recorded after it was made"
        self.open.append(ident)

    def release(self, kind: str, ident: str) -> None:
        assert not Path(ident).exists(), "released before it was gone"
        self.open.remove(ident)


def nothing_left(place: Workspace, ledger: Ledger) -> bool:
    return not list(place.scratch.iterdir()) and not ledger.open


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def place(tmp_path: Path, ledger: Ledger) -> Workspace:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Workspace("run", scratch, tmp_path, "group", (1,), (0,), ledger)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image" / "data").mkdir(parents=True)
    (tmp_path / "image" / "data" / "1KiB").write_bytes(b"x" * 1024)
    return tmp_path / "image"


def test_a_folder_is_fresh_and_gone_after_it(place: Workspace, ledger: Ledger, image: Path) -> None:
    """With what was written into it; the ledger knew of it first."""
    folders = DataFolders(place, "native", image)
    with folders.held(SPEC, "s1"):
        folder = folders.source(SPEC, "s1")
        assert folder is not None and list(folder.iterdir()) == []
        assert ledger.open == [str(folder)]
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "file").write_text("x")
    assert nothing_left(place, ledger)


def test_a_folder_that_cannot_be_removed_ends_nothing(
    place: Workspace, ledger: Ledger, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the ledger: the end of the run tries again, and names what stays."""
    monkeypatch.setattr(removal, "try_remove", lambda folder: False)
    folders = DataFolders(place, "native", image)
    with folders.held(SPEC, "s1"):
        pass
    assert ledger.open == [str(folders.source(SPEC, "s1"))]


def test_each_instance_has_its_own(place: Workspace, image: Path) -> None:
    """And each label: two environments of a kind never meet."""
    one, other = DataFolders(place, "a", image), DataFolders(place, "b", image)
    assert len({one.source(SPEC, "s1"), one.source(SPEC, "s2"), other.source(SPEC, "s1")}) == 3


def test_files_of_the_image_are_copied_into_it(place: Workspace, image: Path) -> None:
    """Writing into the copy leaves the image as it is."""
    folders = DataFolders(place, "native", image)
    spec = replace(SPEC, place="layer", copies=("1KiB",))
    with folders.held(spec, "s1"):
        folder = folders.source(spec, "s1")
        assert folder is not None
        (folder / "1KiB").write_bytes(b"changed")
    assert (image / "data" / "1KiB").read_bytes() == b"x" * 1024


def test_a_file_that_the_image_lacks_is_a_failed_sample(place: Workspace, ledger: Ledger, image: Path) -> None:
    """Nothing is started and nothing is left."""
    started: list[int] = []

    def start() -> Running:
        started.append(1)
        return NotStarted("never")

    running = with_data(DataFolders(place, "native", image), replace(SPEC, copies=("none",)), "s1", start)
    outcome = running.wait()
    assert (outcome.status, started) == ("failed", [])
    assert outcome.reason == "/data could not be made: the image has no file /data/none"
    assert nothing_left(place, ledger)


def test_a_layer_is_left_to_who_has_one(place: Workspace, image: Path) -> None:
    """Nothing is bound then; who has none gets a folder as ever."""
    layered = DataFolders(place, "container", image, layer=place.scratch)
    spec = replace(SPEC, place="layer")
    assert layered.source(spec, "s1") is None
    assert layered.source(SPEC, "s1") is not None
    assert DataFolders(place, "native", image).source(spec, "s1") is not None
    assert layered.source(None, "s1") is None
    with layered.held(spec, "s1") as where:
        assert list(place.scratch.iterdir()) == []
        assert layered.told(spec, where).startswith("in its own layer on ")


def test_those_that_share_a_root_share_the_folder(
    place: Workspace, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is bound once, by the first, and goes with the last."""
    calls: list[str] = []
    monkeypatch.setattr(mounts, "bind", lambda source, target: calls.append(f"bind {target.name}"))
    monkeypatch.setattr(mounts, "detach", lambda target: calls.append(f"detach {target.name}"))
    folders = DataFolders(place, "native", image, shared_at=Path("/root/data"))
    assert folders.source(SPEC, "s1") == folders.source(SPEC, "s2")
    with folders.held(SPEC, "s1"):
        with folders.held(SPEC, "s2"):
            assert calls == ["bind data"]
        assert calls == ["bind data"]
        assert len(list(place.scratch.iterdir())) == 1
    assert calls == ["bind data", "detach data"]
    assert list(place.scratch.iterdir()) == []


def test_a_disk_has_room_for_what_was_asked_for() -> None:
    """Beside journal and tables, in whole MiB."""
    for size_bytes in (1, 8 << 20, 10 << 30):
        assert disk_bytes(size_bytes) >= size_bytes + (60 << 20)
        assert disk_bytes(size_bytes) % (1 << 20) == 0


def test_a_file_system_is_whole_before_the_guest_begins() -> None:
    """Or the guest's kernel would write tables while the workload is measured."""
    words = make_words(Path("/x/disk.raw"), Path("/x/staged"))
    (extended,) = [words[at + 1] for at, word in enumerate(words) if word == "-E"]
    assert {"lazy_itable_init=0", "lazy_journal_init=0"} <= set(extended.split(","))
    assert words[-1] == "/x/disk.raw"


def test_a_disk_without_mke2fs_is_a_failed_sample(
    place: Workspace, ledger: Ledger, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install; nothing is left."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    outcome = with_data(DataDisks(place, "vm", image), SPEC, "1", lambda: NotStarted("never")).wait()
    assert outcome.reason == "/data could not be made: mke2fs is not installed"
    assert nothing_left(place, ledger)


def test_a_guest_s_disk_is_closed_to_other_users(
    place: Workspace, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guest writes there is root's on the host."""
    monkeypatch.setattr(data, "_make_disk", lambda disk, size_bytes, staged: disk.touch(0o600))
    disks = DataDisks(place, "vm", image)
    with disks.held(SPEC, "1"):
        assert stat.S_IMODE(disks.source("1").parent.stat().st_mode) == 0o700


class Ended:
    """A command that has ended with ``outcome``; ``on_wait`` is what it does meanwhile."""

    def __init__(self, outcome: Outcome, on_wait: Callable[[], None] = lambda: None) -> None:
        self._outcome, self._on_wait = outcome, on_wait

    def ready(self) -> bool:
        return True

    def wait(self) -> Outcome:
        self._on_wait()
        return self._outcome

    def kill(self) -> None: ...


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Transferred]:
    """Play a device: each look takes the next value."""
    values = [Transferred(100, 1000), Transferred(150, 3000)]
    monkeypatch.setattr(blockdev, "backing", lambda folder: Backing("ext4", "vda", Path("/stat")))
    monkeypatch.setattr(blockdev, "look", lambda where: values.pop(0))
    monkeypatch.setattr(blockdev, "settle", lambda folder: None)
    return values


def test_what_the_device_moved_is_in_the_account(place: Workspace, image: Path, looks: list[Transferred]) -> None:
    """From before the start until the end, before anything is removed."""
    folders = DataFolders(place, "native", image)

    def looked_yet() -> None:
        assert len(looks) == 1

    outcome = with_data(folders, SPEC, "s1", lambda: Ended(Outcome("ok"), looked_yet)).wait()
    assert {counter.name: counter.value for counter in outcome.counters} == {"device.read": 50, "device.written": 2000}
    assert outcome.applied == {"data": "bind of a fresh folder on ext4, vda"}


def test_an_environment_may_have_looked_when_the_command_ended(
    place: Workspace, image: Path, looks: list[Transferred]
) -> None:
    """Sabotage: an emulator that flushes only when it ends must not look like a disk that was written to."""
    stat = "0 0 1 0 0 0 4 0"
    running = with_data(
        DataFolders(place, "vm", image), SPEC, "s1", lambda: Ended(Outcome("ok", applied={DEVICE_STAT: stat, "x": 1}))
    )
    outcome = running.wait()
    assert {c.name: c.value for c in outcome.counters} == {"device.read": 512 - 100, "device.written": 4 * 512 - 1000}
    assert set(outcome.applied) == {"x", "data"}
    assert running.wait() is outcome


def test_a_start_that_fails_leaves_nothing(place: Workspace, ledger: Ledger, image: Path) -> None:
    """Whatever is raised."""

    def start() -> Running:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        with_data(DataFolders(place, "native", image), SPEC, "s1", start)
    assert nothing_left(place, ledger)


def test_a_command_that_asks_for_nothing_is_started_as_it_is() -> None:
    """No folder, no look at any device; where an environment offers none, one that asks is not started."""
    running = Ended(Outcome("ok"))
    assert with_data(None, None, "s1", lambda: running) is running
    assert with_data(None, SPEC, "s1", lambda: running).wait().reason == "this environment offers no /data"
