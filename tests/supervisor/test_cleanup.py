"""What a dead run left is ended and removed, what lives or is not ours is not touched."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.linux import cgroups, processes, removal
from benchbox.linux.ledger import FILE_NAME, Entry, Header, Ledger
from benchbox.supervisor import cleanup
from tests.environments.daemons import daemon, says
from tests.folders import nested


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "benchbox-state"
    folder.mkdir()
    monkeypatch.setenv("BENCHBOX_STATE", str(folder))
    return folder


def make_run(state: Path, token: str, *entries: Entry) -> Ledger:
    (state / token).mkdir()
    book = Ledger(state / token / FILE_NAME)
    book.begin(Header(f"run-{token}", 1, "2026-01-02T03:04:05+00:00"))
    for entry in entries:
        book.record(entry.kind, entry.ident)
    return book


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
    cleaned = cleanup.clean_entries("r", [entry])
    assert (cleaned.removed, cleaned.remaining) == ((f"process {entry.ident}",), ())
    assert process.wait() == -9


def test_a_process_that_only_has_the_same_number_is_spared() -> None:
    """It started at another time."""
    process = sleeper()
    assert cleanup.clean_entries("r", [Entry("process", ident(process, earlier=5))]) == cleanup.Cleaned("r", ())
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_folder_goes_with_its_contents(tmp_path: Path) -> None:
    """One that is not there is nothing to remove."""
    folder = tmp_path / "benchbox-scratch"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").touch()
    entries = [Entry("folder", str(folder)), Entry("folder", str(tmp_path / "benchbox-never-made"))]
    assert cleanup.clean_entries("r", entries).removed == (f"folder {folder}",)
    assert not folder.exists()


def test_a_link_in_a_removed_folder_is_not_followed(tmp_path: Path) -> None:
    """What it points to belongs to somebody else."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    folder = tmp_path / "benchbox-scratch"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "precious")
    cleanup.clean_entries("r", [Entry("folder", str(folder))])
    assert (tmp_path / "precious/file").exists()
    assert not folder.exists()


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """It stays, and so does what it points to."""
    (tmp_path / "precious").mkdir()
    link = tmp_path / "benchbox-scratch"
    link.symlink_to(tmp_path / "precious")
    cleaned = cleanup.clean_entries("r", [Entry("folder", str(link))])
    assert cleaned.removed == ()
    assert cleaned.remaining == (f"folder {link}: not a folder of benchbox",)
    assert (tmp_path / "precious").is_dir()


@pytest.mark.parametrize("variable", ["BENCHBOX_STATE", "BENCHBOX_CACHE"])
def test_a_folder_that_the_user_has_chosen_is_cleaned_whatever_its_name(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of benchbox need not be in it."""
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path / "scratch/0a1b2c3d"
    (folder / "layers").mkdir(parents=True)
    assert cleanup.clean_entries("r", [Entry("folder", str(folder))]).removed == (f"folder {folder}",)
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["cgroup", "folder", "libvirt"])
def test_a_folder_that_is_not_benchbox_s_is_refused(kind: str, tmp_path: Path) -> None:
    """Whatever a ledger says."""
    foreign = tmp_path / "precious"
    foreign.mkdir()
    cleaned = cleanup.clean_entries("r", [Entry(kind, str(foreign))])
    assert cleaned.remaining == (f"{kind} {foreign}: not a folder of benchbox",)
    assert foreign.is_dir()


@pytest.mark.parametrize("path", ["/srv/benchbox-x/../precious", "benchbox-relative"])
def test_a_path_that_leaves_its_folder_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of benchbox somewhere in a path is not enough."""
    monkeypatch.chdir(tmp_path)
    for name in ("benchbox-x", "precious", "benchbox-relative"):
        (tmp_path / name).mkdir()
    entry = Entry("folder", path.replace("/srv", str(tmp_path)))
    assert cleanup.clean_entries("r", [entry]).remaining == (f"folder {entry.ident}: not a folder of benchbox",)
    assert (tmp_path / "precious").is_dir()


@pytest.mark.parametrize(
    "entry", [Entry("process", "abc"), Entry("process", "1"), Entry("mystery", "/tmp"), Entry("process", "")]
)
def test_an_entry_that_makes_no_sense_remains(entry: Entry) -> None:
    """It is said, and keeps nothing else from being removed."""
    process = sleeper()
    cleaned = cleanup.clean_entries("r", [entry, Entry("process", ident(process))])
    assert len(cleaned.removed) == len(cleaned.remaining) == 1
    assert cleaned.remaining[0].startswith(f"{entry.kind} {entry.ident}: ")
    process.wait()


def test_a_runtime_is_asked_to_delete_what_it_keeps(tmp_path: Path) -> None:
    """Each container by its name, then its state goes, whatever the runtime made of that."""
    state, log = tmp_path / "benchbox-state", tmp_path / "log"
    runtime = tmp_path / "a runtime"
    for status in (0, 1):
        runtime.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\nexit {status}\n')
        runtime.chmod(0o755)
        for name in ("c1", "c2"):
            (state / name).mkdir(parents=True)
        entry = Entry("oci", shlex.join([str(runtime), "--root", str(state)]))
        assert cleanup.clean_entries("r", [entry]).removed == (f"oci {entry.ident}",)
        assert not state.exists()
    assert log.read_text() == "".join(f"--root {state} delete --force {name}\n" for name in ("c1", "c2")) * 2
    assert cleanup.clean_entries("r", [entry]) == cleanup.Cleaned("r", ())


@pytest.mark.parametrize("words", ["/bin/true --root {precious}", "/bin/true --log {ours}", "/bin/true", "'"])
def test_state_that_is_not_benchbox_s_is_refused(words: str, tmp_path: Path) -> None:
    """And nothing is run for it."""
    for name in ("precious", "benchbox-ours"):
        (tmp_path / name).mkdir()
    ident = words.format(precious=tmp_path / "precious", ours=tmp_path / "benchbox-ours")
    cleaned = cleanup.clean_entries("r", [Entry("oci", ident)])
    assert (len(cleaned.remaining), cleaned.removed) == (1, ())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_daemon_is_asked_to_remove_the_containers_of_the_run() -> None:
    """Before the cgroups that they are in."""
    there = [[{"Id": "abc"}], [], []]

    def listed(connection: socket.socket, body: bytes) -> None:
        says(there.pop(0))(connection, body)

    with daemon({"GET /containers/json": listed, "DELETE /containers/abc": says()}) as played:
        entry = Entry("docker", shlex.join([str(played.path), "benchbox-1"]))
        assert cleanup.clean_entries("r", [entry]).removed == (f"docker {entry.ident}",)
        assert played.asked[1] == "DELETE /containers/abc?force=1&v=1"


def test_a_daemon_that_does_not_listen_any_more_is_said(tmp_path: Path) -> None:
    """Its containers may still be there; where its socket has gone as well, it has none."""
    path = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    entry = Entry("docker", shlex.join([str(path), "benchbox-1"]))
    (remaining,) = cleanup.clean_entries("r", [entry]).remaining
    assert "no daemon listens there" in remaining
    path.unlink()
    assert cleanup.clean_entries("r", [entry]) == cleanup.Cleaned("r", ())


def test_what_runs_goes_before_what_it_stands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes, then their cgroups, then folders, in whatever order they were made."""
    folder, group = tmp_path / "benchbox-scratch", tmp_path / "benchbox-group"
    folder.mkdir()
    group.mkdir()
    process = sleeper()
    entries = [Entry("folder", str(folder)), Entry("cgroup", str(group)), Entry("process", ident(process))]
    monkeypatch.setattr(cgroups, "kill_tree", lambda path: None)  # a plain folder stands in for the kernel's
    removed = cleanup.clean_entries("r", entries).removed
    assert [line.split()[0] for line in removed] == ["process", "cgroup", "folder"]
    assert not group.exists()
    process.wait()


def test_a_dead_run_is_removed_with_its_ledger(state: Path, tmp_path: Path) -> None:
    """Its ledger is not locked any more: its supervisor has gone."""
    folder = tmp_path / "benchbox-left"
    folder.mkdir()
    make_run(state, "dead", Entry("folder", str(folder))).close()
    assert cleanup.clean_dead_runs() == [cleanup.Cleaned("run-dead", (f"folder {folder}",))]
    assert list(state.iterdir()) == []


def test_what_cannot_be_removed_is_tried_again(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path and the reason; folders nested beyond every path, and their ledger, go then."""
    folder = nested(tmp_path / "benchbox-left", 3000)
    (folder / "file").touch()
    make_run(state, "dead", Entry("folder", str(folder))).close()

    def refusing(name: str, *, dir_fd: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refusing)
    left = f"folder {folder}: could not be removed: {folder}/file: Operation not permitted"
    assert cleanup.clean_dead_runs() == [cleanup.Cleaned("run-dead", (), (left,))]
    monkeypatch.undo()
    monkeypatch.setenv("BENCHBOX_STATE", str(state))
    assert cleanup.clean_dead_runs() == [cleanup.Cleaned("run-dead", (f"folder {folder}",))]
    assert not folder.exists() and list(state.iterdir()) == []


def test_a_scratch_folder_that_no_ledger_names_is_removed_however_deep(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that go are told; one that stays is found again."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path))
    (tmp_path / "scratch").mkdir()
    folder = nested(tmp_path / "scratch" / "0123", 3000)
    with monkeypatch.context() as patched:
        patched.setattr(removal, "try_remove", lambda path: False)
        assert cleanup.sweep_scratch() == []
    assert cleanup.sweep_scratch() == [folder]
    assert cleanup.lost_scratch() == []


def test_a_living_run_is_not_touched(state: Path, tmp_path: Path) -> None:
    """It holds its ledger; it is listed as living."""
    folder = tmp_path / "benchbox-used"
    folder.mkdir()
    book = make_run(state, "alive", Entry("folder", str(folder)))
    book.lock()
    make_run(state, "dead").close()
    assert cleanup.living_runs() == ["run-alive"]
    assert [cleaned.run_id for cleaned in cleanup.clean_dead_runs()] == ["run-dead"]
    assert folder.is_dir()
    assert (state / "alive" / FILE_NAME).exists()
    book.close()
    assert cleanup.living_runs() == []


def test_a_ledger_with_what_could_not_be_removed_stays(state: Path) -> None:
    """So that the next clean-up finds it again."""
    make_run(state, "dead", Entry("folder", str(state.parent))).close()
    for _ in range(2):
        (cleaned,) = cleanup.clean_dead_runs()
        assert cleaned.remaining
    assert (state / "dead" / FILE_NAME).exists()


def test_a_run_without_a_header_goes_by_the_name_of_its_folder(state: Path) -> None:
    """The machine lost power right after the ledger was made."""
    (state / "torn").mkdir()
    (state / "torn" / FILE_NAME).write_text('{"run": "x", "super')
    assert [cleaned.run_id for cleaned in cleanup.clean_dead_runs()] == ["torn"]


def test_dead_runs_are_shown_without_being_touched(state: Path) -> None:
    """With what their ledgers name; those that live, and one that has only just begun, are left out."""
    entry = Entry("folder", str(state / "dead"))
    make_run(state, "dead", entry).close()
    (state / "new").mkdir()
    (state / "new" / FILE_NAME).touch()
    living = make_run(state, "living", entry)
    living.lock()
    for _ in range(2):
        assert cleanup.dead_runs() == {"run-dead": (entry,)}
        assert cleanup.living_runs() == ["run-living"]
    living.close()


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
