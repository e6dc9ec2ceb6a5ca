"""On a host with other users: what they own is not obeyed, and they cannot keep root from measuring."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox import native, record
from benchbox.linux.ledger import FILE_NAME, Entry, Header, Ledger
from benchbox.model import Availability
from benchbox.supervisor import lock
from benchbox.virt import private_root
from tests.foreign import STRANGER
from tests.integration import runs, strangers

pytestmark = pytest.mark.integration

TOKEN = "0a1b2c3d"


@pytest.fixture(autouse=True)
def root(need: Callable[[str, Availability], None]) -> None:
    need("container", Availability(strangers.missing() is None, strangers.missing(), "run as root"))


@pytest.fixture
def stranger() -> Iterator[Path]:
    with strangers.home() as folder:
        yield folder


def refused(done: tuple[int, str, str], folder: Path, variable: str) -> None:
    """Check that a command ended with a message that names folder, owner and remedy."""
    status, out, err = done
    assert status == 2, out + err
    assert str(folder) in err and "is not to be trusted" in err and "belongs to" in err and variable in err
    assert "Traceback" not in out + err


def planted_ledger(state: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Write a ledger that names a program and a folder; return what the program makes, and the folder."""
    program, ran, precious = tmp_path / "program", tmp_path / "ran", tmp_path / "my-benchbox-notes"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    precious.mkdir()
    kept = state / TOKEN / "benchbox-x"
    (kept / "container").mkdir(parents=True)
    book = Ledger(state / TOKEN / FILE_NAME)
    book.begin(Header("startup-20260102T030405Z-0a1b", 1, "2026-01-02T03:04:05+00:00"))
    for entry in (Entry("oci", shlex.join([str(program), "--root", str(kept)])), Entry("folder", str(precious))):
        book.record(entry.kind, entry.ident)
    book.close()
    return ran, precious


@pytest.mark.parametrize("words", [("clean",), ("run", "test.yaml"), ("plan", "test.yaml"), ("image", "rm", "minimal")])
def test_a_ledger_of_another_user_is_not_obeyed(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program of it runs, no folder of it goes, and what would have read it says why it does not."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    ran, precious = planted_ledger(state, tmp_path)
    strangers.give(state)
    monkeypatch.setenv("BENCHBOX_STATE", str(state))
    runs.scenario(tmp_path, ("container",))
    done = runs.benchbox(tmp_path, *words)
    assert not ran.exists() and precious.is_dir()
    if words[0] in ("clean", "run"):
        refused(done, state, "BENCHBOX_STATE")
    assert "Traceback" not in done[2]


def test_a_ledger_of_one_s_own_runs_no_program_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it remove what only has benchbox in its name: both remain and are said."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    ran, precious = planted_ledger(state, tmp_path)
    monkeypatch.setenv("BENCHBOX_STATE", str(state))
    status, out, err = runs.benchbox(tmp_path, "clean")
    assert not ran.exists() and precious.is_dir()
    assert (status, out) == (2, "")
    assert err.count("could not remove") == 2


def test_the_doctor_says_whose_state_and_cache_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As blockers with a remedy, among all else that it has to say."""
    for name, variable in (("state", "BENCHBOX_STATE"), ("cache", "BENCHBOX_CACHE")):
        (tmp_path / name).mkdir(mode=0o700)
        strangers.give(tmp_path / name)
        monkeypatch.setenv(variable, str(tmp_path / name))
    planted_ledger(tmp_path / "state", tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    strangers.give(results)
    status, out, err = runs.benchbox(tmp_path, "doctor", "--json")
    assert (status, err) == (2, "")
    found = {item["id"]: item for item in json.loads(out)["findings"]}
    for name in ("runs.leftovers", "disk.cache", "disk.scratch", "disk.results"):
        assert found[name]["severity"] == "blocker"
        assert f"(user {STRANGER})" in found[name]["found"]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "test.yaml"), ("plan", "test.yaml"), ("clean",), ("image", "list"), ("image", "inspect", "minimal"),
        ("image", "rm", "emulator"),
    ],
)  # fmt: skip
def test_a_cache_of_another_user_is_not_used(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever would read it says so; nothing in it is run, made or removed."""
    cache = tmp_path / "cache"
    wrapper = private_root.emulator(native.program("launch"), Path(shutil.which("true") or ""), cache / "emulator")
    wrapper.write_text("#!/bin/sh\n")
    strangers.give(cache)
    before = sorted(cache.rglob("*"))
    monkeypatch.setenv("BENCHBOX_CACHE", str(cache))
    runs.scenario(tmp_path, ("container",))
    refused(runs.benchbox(tmp_path, *words), cache, "BENCHBOX_CACHE")
    assert sorted(cache.rglob("*")) == before


def test_a_results_folder_of_another_user_is_not_written(tmp_path: Path) -> None:
    """Where that user could put a link in a run's place; --results is the remedy."""
    path = runs.scenario(tmp_path, ("container",))
    (tmp_path / "theirs").mkdir()
    strangers.give(tmp_path / "theirs")
    refused(runs.benchbox(tmp_path / "theirs", "run", path), tmp_path / "theirs", "--results")
    assert list((tmp_path / "theirs").iterdir()) == []


def test_root_by_sudo_measures_in_the_folder_of_who_called_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout of that user's, into its results."""
    path = runs.scenario(tmp_path, ("native",), rounds=1)
    (tmp_path / "theirs").mkdir()
    strangers.give(tmp_path / "theirs")
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    status, _, err = runs.benchbox(tmp_path / "theirs", "run", path, "--quiet")
    assert status == 0, err
    assert runs.only_run(tmp_path / "theirs").is_dir()


def test_a_record_of_another_user_is_shown_and_not_gone_on_with(tmp_path: Path) -> None:
    """Its commands would run as root. So would those of one that says it is another run."""
    status, _, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, ("native",), rounds=1), "--quiet")
    assert status == 0, err
    run = runs.only_run(tmp_path)
    manifest = record.read_manifest(run)
    longer = manifest.model_copy(update={"rounds": 2, "order": [*manifest.order, manifest.order[-1]]})
    walks = longer.model_copy(update={"run_id": f"../{run.name}"})
    for changed, stranger, said in ((longer, True, "is not to be trusted"), (walks, False, "its folder is called")):
        record.write_manifest(record.RunFolder(run, run.name), changed)
        if stranger:
            strangers.give(run)
        status, _, err = runs.benchbox(tmp_path, "run", "--resume", run)
        assert status == 2 and said in err and "Traceback" not in err
        assert runs.benchbox(tmp_path, "show", run)[0] == 0
        for path in (run, *run.iterdir()):
            os.chown(path, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reports", "results", "test.yaml"]


def test_no_user_can_keep_root_from_measuring(stranger: Path) -> None:
    """Neither by the name that older versions took for the lock, nor by any file that it can open."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind("\0benchbox.run")
        with lock.host_lock():
            pass
    opened = ["flock", "--nonblock", "/run/benchbox/lock", "true"]
    listed = ["ls", "/run/benchbox"]
    for argv in (opened, listed):
        done = subprocess.run(strangers.as_nobody(*argv), capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "ermission denied" in done.stderr


def test_a_user_is_refused_while_root_measures(stranger: Path) -> None:
    """And told by whom. Afterwards it measures."""
    path = runs.scenario(stranger, ("container",), rounds=1)
    with lock.host_lock():
        status, _, err = strangers.benchbox_as_nobody(stranger, "run", path, "--quiet")
        assert status == 2 and f"process {os.getpid()} " in err and "of root" in err
    status, out, err = strangers.benchbox_as_nobody(stranger, "run", path, "--quiet")
    assert "Traceback" not in out + err
    assert runs.only_run(stranger).is_dir(), err


def test_a_user_does_not_believe_what_is_in_the_temporary_folder_by_its_number(stranger: Path) -> None:
    """Without a runtime folder its state is there, where another may have been first."""
    planted = Path(f"/tmp/benchbox-{STRANGER}")
    planted.mkdir(mode=0o777)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, planted)
        status, out, err = strangers.benchbox_as_nobody(stranger, "clean", state=None)
        assert status == 2 and str(planted) in err and "BENCHBOX_STATE" in err and "Traceback" not in out + err
