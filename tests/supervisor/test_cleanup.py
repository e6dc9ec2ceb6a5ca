"""What a dead run left is ended and removed, what lives or is not ours is not touched."""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from benchbox.errors import TrustError
from benchbox.linux import cgroups, mounts, processes, removal
from benchbox.linux.ledger import FILE_NAME, Entry, Header, Ledger
from benchbox.supervisor import cleanup
from benchbox.supervisor.place import place_of
from tests.environments.daemons import daemon, says
from tests.folders import nested
from tests.foreign import STRANGER, seems

TOKEN: Final = "0a1b2c3d"
RUN: Final = f"run-{TOKEN}"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BENCHBOX_STATE", str(folder))
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "cache/scratch" / TOKEN
    folder.mkdir(parents=True)
    return folder


def make_run(state: Path, token: str, *entries: Entry) -> Ledger:
    (state / token).mkdir(mode=0o700)
    book = Ledger(state / token / FILE_NAME)
    book.begin(Header(f"run-{token}", 1, "2026-01-02T03:04:05+00:00"))
    for entry in entries:
        book.record(entry.kind, entry.ident)
    return book


def cleaned(*entries: Entry) -> cleanup.Cleaned:
    return cleanup.clean_entries(RUN, place_of(TOKEN), entries)


NOTHING: Final = cleanup.Cleaned(RUN, ())


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"])


def ident(process: "subprocess.Popen[bytes]", earlier: int = 0) -> str:
    start = processes.start_time(process.pid)
    assert start is not None
    return f"{process.pid} {start - earlier}"


def test_a_process_of_the_ledger_is_ended() -> None:
    """And named among what was removed."""
    process = sleeper()
    entry = Entry("process", ident(process))
    assert cleaned(entry) == cleanup.Cleaned(RUN, (f"process {entry.ident}",))
    assert process.wait() == -9


def test_a_process_that_only_has_the_same_number_is_spared() -> None:
    """It started at another time."""
    process = sleeper()
    assert cleaned(Entry("process", ident(process, earlier=5))) == NOTHING
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_folder_goes_with_its_contents(scratch: Path) -> None:
    """One that is not there is nothing to remove."""
    (scratch / "a/b").mkdir(parents=True)
    (scratch / "a/b/file").touch()
    entries = [Entry("folder", str(scratch)), Entry("folder", str(scratch / "never-made"))]
    assert cleaned(*entries).removed == (f"folder {scratch}",)
    assert not scratch.exists()


@pytest.mark.parametrize("kind", ["folder", "libvirt"])
def test_a_folder_of_the_run_s_state_goes(kind: str, state: Path) -> None:
    """What a runtime or a driver keeps there."""
    folder = state / TOKEN / "lv0"
    folder.mkdir(parents=True)
    assert cleaned(Entry(kind, str(folder))).removed == (f"{kind} {folder}",)
    assert not folder.exists()


def test_a_link_in_a_removed_folder_is_not_followed(tmp_path: Path, scratch: Path) -> None:
    """What it points to belongs to somebody else."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (scratch / "link").symlink_to(tmp_path / "precious")
    cleaned(Entry("folder", str(scratch)))
    assert (tmp_path / "precious/file").exists()
    assert not scratch.exists()


@pytest.mark.parametrize("below", ["", "/in"])
def test_a_link_in_place_of_a_folder_is_refused(below: str, tmp_path: Path, scratch: Path) -> None:
    """It stays, and so does what it points to, or leads through to."""
    (tmp_path / "precious/in").mkdir(parents=True)
    link = scratch / "link"
    link.symlink_to(tmp_path / "precious")
    found = cleaned(Entry("folder", f"{link}{below}"))
    assert found.removed == ()
    assert found.remaining[0].startswith(f"folder {link}{below}: in neither ")
    assert (tmp_path / "precious/in").is_dir()


#: Paths that are not the run's: of somebody else, of other runs, of all runs; with benchbox's name in them; relative.
FOREIGN: Final = (
    "precious", "benchbox", "my-benchbox-notes", "benchbox-0a1b2c3d", "state", "cache/scratch", "cache/store",
    "state/ffffffff", "cache/scratch/ffffffff", "cache/scratch/0a1b2c3d-and-more", "cache/scratch/0a1b2c3d/../../x",
)  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", ["cgroup", "refuge", "folder", "libvirt"])
def test_what_is_not_the_run_s_own_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    """Whatever a ledger says, and whatever part of the path is called benchbox."""
    foreign = Path(f"{tmp_path}/{name}")
    (tmp_path / "cache/scratch" / TOKEN).mkdir(parents=True)
    foreign.mkdir(parents=True, exist_ok=True)
    found = cleaned(Entry(kind, str(foreign)))
    assert (found.removed, len(found.remaining)) == ((), 1)
    assert foreign.is_dir()


def test_a_relative_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes none down."""
    monkeypatch.chdir(tmp_path)
    folder = Path("cache/scratch", TOKEN)
    folder.mkdir(parents=True)
    assert len(cleaned(Entry("folder", str(folder))).remaining) == 1
    assert folder.is_dir()


def test_a_folder_called_like_the_group_of_a_run_is_no_cgroup(tmp_path: Path) -> None:
    """It must be in a file system of the kernel's groups."""
    folder = tmp_path / f"benchbox-{TOKEN}"
    folder.mkdir()
    assert cleaned(Entry("cgroup", str(folder))).remaining == (f"cgroup {folder}: not a cgroup of this run",)
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        (f"benchbox-{TOKEN}", True), ("benchbox-ffffffff", False), (f"benchbox-{TOKEN}-supervisor", False),
        (TOKEN, False), ("", False), (f"benchbox-{TOKEN}/../x", False),
    ],
)  # fmt: skip
def test_a_group_of_the_run_goes_whichever_hierarchy_it_is_in(
    name: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole name. A plain folder stands in for the kernel's here."""
    monkeypatch.setattr(mounts, "mounted", lambda path: ("cgroup2", "cgroup2"))
    monkeypatch.setattr(cgroups, "kill_tree", lambda path: None)
    group = Path(f"{tmp_path}/slice/{name}")
    (tmp_path / "slice" / f"benchbox-{TOKEN}").mkdir(parents=True)
    group.mkdir(parents=True, exist_ok=True)
    assert (cleaned(Entry("cgroup", str(group))).removed == (f"cgroup {group}",)) is taken
    assert group.exists() is not taken


@pytest.mark.parametrize(
    "entry", [Entry("process", "abc"), Entry("process", "1"), Entry("mystery", "/tmp"), Entry("process", "")]
)
def test_an_entry_that_makes_no_sense_remains(entry: Entry) -> None:
    """It is said, and keeps nothing else from being removed."""
    process = sleeper()
    found = cleaned(entry, Entry("process", ident(process)))
    assert len(found.removed) == len(found.remaining) == 1
    assert found.remaining[0].startswith(f"{entry.kind} {entry.ident}: ")
    process.wait()


@pytest.mark.parametrize("kind", ["oci", "folder", "libvirt", "cgroup", "docker", "process"])
def test_no_program_of_a_ledger_is_run(kind: str, tmp_path: Path, state: Path) -> None:
    """Older ledgers named an OCI runtime; what any names now is said to remain."""
    runtime, log = tmp_path / "runtime", tmp_path / "log"
    runtime.write_text(f'#!/bin/sh\necho run >> "{log}"\n')
    runtime.chmod(0o755)
    kept = state / TOKEN / "oci-x/state"
    (kept / "container").mkdir(parents=True)
    found = cleaned(Entry(kind, shlex.join([str(runtime), "--root", str(kept)])))
    assert (len(found.remaining), found.removed) == (1, ())
    assert not log.exists()


def test_a_daemon_is_asked_to_remove_the_containers_of_the_run() -> None:
    """Before the cgroups that they are in."""
    there = [[{"Id": "abc"}], [], []]

    def listed(connection: socket.socket, body: bytes) -> None:
        says(there.pop(0))(connection, body)

    with daemon({"GET /containers/json": listed, "DELETE /containers/abc": says()}) as played:
        entry = Entry("docker", shlex.join([str(played.path), f"benchbox-{TOKEN}"]))
        assert cleaned(entry).removed == (f"docker {entry.ident}",)
        assert played.asked[1] == "DELETE /containers/abc?force=1&v=1"


def test_a_daemon_that_does_not_listen_any_more_is_said(tmp_path: Path) -> None:
    """Its containers may still be there; where its socket has gone as well, it has none."""
    path = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    entry = Entry("docker", shlex.join([str(path), f"benchbox-{TOKEN}"]))
    (remaining,) = cleaned(entry).remaining
    assert "no daemon listens there" in remaining
    path.unlink()
    assert cleaned(entry) == NOTHING


def test_a_daemon_is_not_asked_for_what_is_not_the_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of another run, a file that is no socket, a socket of another user."""
    with daemon({}) as played:
        (tmp_path / "file").touch()
        for words in ([str(played.path), "benchbox-ffffffff"], [str(tmp_path / "file"), f"benchbox-{TOKEN}"]):
            assert len(cleaned(Entry("docker", shlex.join(words))).remaining) == 1
        real, place = played.path.stat(), place_of(TOKEN)
        monkeypatch.setattr(Path, "stat", lambda self, **_: os.stat_result((*real[:4], STRANGER, *real[5:])))
        entry = Entry("docker", shlex.join([str(played.path), f"benchbox-{TOKEN}"]))
        (remaining,) = cleanup.clean_entries(RUN, place, [entry]).remaining
        monkeypatch.undo()
        assert "no socket of root or of this user" in remaining
        assert played.asked == []


def test_what_runs_goes_before_what_it_stands_on(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes, then their cgroups, then folders, in whatever order they were made."""
    group = tmp_path / f"benchbox-{TOKEN}"
    group.mkdir()
    process = sleeper()
    entries = [Entry("folder", str(scratch)), Entry("cgroup", str(group)), Entry("process", ident(process))]
    monkeypatch.setattr(cgroups, "kill_tree", lambda path: None)  # a plain folder stands in for the kernel's
    monkeypatch.setattr(mounts, "mounted", lambda path: ("cgroup2", "cgroup2"))
    removed = cleaned(*entries).removed
    assert [line.split()[0] for line in removed] == ["process", "cgroup", "folder"]
    assert not group.exists()
    process.wait()


def test_a_dead_run_is_removed_with_its_ledger(state: Path, scratch: Path) -> None:
    """Its ledger is not locked any more: its supervisor has gone."""
    make_run(state, TOKEN, Entry("folder", str(scratch))).close()
    assert cleanup.clean_dead_runs() == [cleanup.Cleaned(RUN, (f"folder {scratch}",))]
    assert list(state.iterdir()) == []


def test_what_cannot_be_removed_is_tried_again(state: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path and the reason; folders nested beyond every path, and their ledger, go then."""
    folder = nested(scratch / "left", 3000)
    (folder / "file").touch()
    make_run(state, TOKEN, Entry("folder", str(folder))).close()

    def refusing(name: str, *, dir_fd: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    left = f"folder {folder}: could not be removed: {folder}/file: Operation not permitted"
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refusing)
        assert cleanup.clean_dead_runs() == [cleanup.Cleaned(RUN, (), (left,))]
    assert cleanup.clean_dead_runs() == [cleanup.Cleaned(RUN, (f"folder {folder}",))]
    assert not folder.exists() and list(state.iterdir()) == []


def test_a_scratch_folder_that_no_ledger_names_is_removed_however_deep(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that go are told; one that stays is found again."""
    scratch.rmdir()
    folder = nested(scratch, 3000)
    with monkeypatch.context() as patched:
        patched.setattr(removal, "try_remove", lambda path: False)
        assert cleanup.sweep_scratch() == []
    assert cleanup.sweep_scratch() == [folder]
    assert cleanup.lost_scratch() == []


def test_a_living_run_is_not_touched(state: Path, scratch: Path) -> None:
    """It holds its ledger; it is listed as living."""
    book = make_run(state, TOKEN, Entry("folder", str(scratch)))
    book.lock()
    make_run(state, "dddddddd").close()
    assert cleanup.living_runs() == [RUN]
    assert [found.run_id for found in cleanup.clean_dead_runs()] == ["run-dddddddd"]
    assert scratch.is_dir()
    assert (state / TOKEN / FILE_NAME).exists()
    book.close()
    assert cleanup.living_runs() == []


def test_a_ledger_with_what_could_not_be_removed_stays(state: Path) -> None:
    """So that the next clean-up finds it again."""
    make_run(state, TOKEN, Entry("folder", str(state.parent))).close()
    for _ in range(2):
        (found,) = cleanup.clean_dead_runs()
        assert found.remaining
    assert (state / TOKEN / FILE_NAME).exists()


def test_a_run_without_a_header_goes_by_the_name_of_its_folder(state: Path) -> None:
    """The machine lost power right after the ledger was made."""
    (state / TOKEN).mkdir()
    (state / TOKEN / FILE_NAME).write_text('{"run": "x", "super')
    assert [found.run_id for found in cleanup.clean_dead_runs()] == [TOKEN]


def test_a_folder_that_has_no_run_s_name_or_is_a_link_has_no_ledger(state: Path, tmp_path: Path) -> None:
    """It stays as it is."""
    (tmp_path / "elsewhere").mkdir()
    for folder in (state / "lock-and-more", tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / FILE_NAME).touch()
    (state / TOKEN).symlink_to(tmp_path / "elsewhere")
    assert cleanup.clean_dead_runs() == []
    assert (tmp_path / "elsewhere" / FILE_NAME).exists() and (state / "lock-and-more" / FILE_NAME).exists()


def test_scratch_that_no_ledger_names_is_swept(state: Path, scratch: Path) -> None:
    """Folders called as runs are; nothing else that lies beside them, and no link."""
    for name in ("ffffffff", "notes"):
        (scratch.parent / name).mkdir()
    (scratch.parent / "eeeeeeee").symlink_to(scratch)
    make_run(state, TOKEN).close()
    assert cleanup.sweep_scratch() == [scratch.parent / "ffffffff"]
    assert {path.name for path in scratch.parent.iterdir()} == {TOKEN, "notes", "eeeeeeee"}


def test_dead_runs_are_shown_without_being_touched(state: Path) -> None:
    """With what their ledgers name; those that live, and one that has only just begun, are left out."""
    entry = Entry("folder", str(state / TOKEN))
    make_run(state, TOKEN, entry).close()
    (state / "eeeeeeee").mkdir()
    (state / "eeeeeeee" / FILE_NAME).touch()
    living = make_run(state, "ffffffff", entry)
    living.lock()
    for _ in range(2):
        assert cleanup.dead_runs() == {RUN: (entry,)}
        assert cleanup.living_runs() == ["run-ffffffff"]
    living.close()


ASKING: Final[tuple[Callable[[], object], ...]] = (
    cleanup.clean_dead_runs, cleanup.living_runs, cleanup.dead_runs, cleanup.lost_scratch, cleanup.sweep_scratch,
)  # fmt: skip


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("mark", [{"owner": STRANGER}, {"mode": 0o770}])
def test_a_ledger_that_another_user_could_have_written_is_not_read(
    ask: Callable[[], object], mark: dict[str, int], state: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is ended or removed for it, and the user is told."""
    process = sleeper()
    make_run(state, TOKEN, Entry("process", ident(process)), Entry("folder", str(scratch))).close()
    seems(monkeypatch, state, **mark)
    with pytest.raises(TrustError, match=r"the state folder .* is not to be trusted"):
        ask()
    assert process.poll() is None and scratch.is_dir()
    process.kill()
    process.wait()


def test_no_state_folder_is_nothing_to_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which benchbox never ran."""
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path / "never"))
    assert cleanup.clean_dead_runs() == []
    assert cleanup.living_runs() == []
    assert cleanup.dead_runs() == {}


DESCENDANTS = """
import os, subprocess
from benchbox.linux import processes
from benchbox.supervisor import cleanup
from benchbox.supervisor.place import place_of
processes.become_subreaper()
subprocess.run(["sh", "-c", "sleep 60 & (sleep 60 & sleep 60) & exit 0"], check=True)
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60"])
assert len(processes.descendants(os.getpid())) >= 3
cleanup.end_descendants()
assert processes.descendants(os.getpid()) == []
"""


def test_all_descendants_are_ended_and_reaped() -> None:
    """Orphans too, and those that do not care for a polite word."""
    subprocess.run([sys.executable, "-W", "ignore::ResourceWarning", "-c", DESCENDANTS], check=True, timeout=30)
