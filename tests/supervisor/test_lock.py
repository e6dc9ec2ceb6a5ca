"""One run per host: the second says who holds it. Nobody but root can keep root from measuring."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure, LockError, TrustError
from benchbox.linux import processes
from benchbox.linux.ledger import FILE_NAME, Header, Ledger
from benchbox.supervisor import lock
from tests.foreign import STRANGER, seems

HOLD = """
import pathlib, sys
from benchbox.supervisor import lock
lock._HOST_FOLDER, lock._is_root = pathlib.Path(sys.argv[1]), lambda: sys.argv[2] == "root"
with lock.host_lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A lock of this test's own: the host's may be held by a run. The tests play root, whoever runs them."""
    monkeypatch.setattr(lock, "_HOST_FOLDER", tmp_path / "run")
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir(mode=0o700)
    play(monkeypatch, "root")
    return tmp_path / "run"


def play(monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    monkeypatch.setattr(lock, "_is_root", lambda: user == "root")


@contextlib.contextmanager
def holder(folder: Path, user: str = "root") -> Iterator["subprocess.Popen[bytes]"]:
    """Hold the lock in another process, as root or as another user."""
    argv = [sys.executable, "-c", HOLD, str(folder), user, "the-other-run"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("user", ["root", "user"])
def test_a_lock_that_is_free_is_taken_again_and_again(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes with the block."""
    play(monkeypatch, user)
    for _ in range(2):
        with lock.host_lock():
            pass
        assert lock.holder() is None


@pytest.mark.parametrize("user", ["root", "user"])
def test_the_second_run_is_told_who_holds_the_host(user: str, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By pid and command line, and what to do."""
    play(monkeypatch, user)
    with holder(host, user) as process:
        with (
            pytest.raises(LockError, match=rf"(?s)process {process.pid} \(.*the-other-run\)") as error,
            lock.host_lock(),
        ):
            pass
        assert error.value.hint
        assert "Ctrl-C" in error.value.hint


def test_a_run_with_a_ledger_is_named_by_it(host: Path, tmp_path: Path) -> None:
    """Run and time of its start, whatever else stands in the state folder."""
    state = tmp_path / "state"
    with holder(host) as process:
        for token, pid in (("other", process.pid + 1), ("ours", process.pid)):
            (state / token).mkdir()
            book = Ledger(state / token / FILE_NAME)
            book.begin(Header(f"startup-{token}", pid, "2026-01-02T03:04:05+00:00"))
            book.close()
        (state / "broken").mkdir()
        (state / "broken" / FILE_NAME).write_text("[]\n{")
        words = f"run startup-ours, process {process.pid}, since 2026-01-02"
        with pytest.raises(LockError, match=words), lock.host_lock():
            pass


def test_the_lock_of_a_killed_run_is_free(host: Path) -> None:
    """The kernel drops it; nobody has to clean up, and what it wrote down of itself is not believed any more."""
    with holder(host) as process:
        process.kill()
        process.wait()
        assert (host / "holder").exists()
        assert lock.holder() is None
        with lock.host_lock():
            pass


def test_a_holder_that_has_just_let_go_is_nobody() -> None:
    """Between the refusal and the question it may have ended."""
    assert lock.describe_holder() == "somebody who has just let go"


def test_asking_again_and_again_gets_the_same_answer(host: Path) -> None:
    """A free lock has no holder; asking makes nothing."""
    assert lock.holder() is None
    assert not host.exists()
    with holder(host) as process:
        answers = {lock.holder() for _ in range(9)}
        assert len(answers) == 1
        assert f"process {process.pid} " in str(answers.pop())
    assert lock.holder() is None


def test_a_user_does_not_measure_while_root_does(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told whose run that is."""
    play(monkeypatch, "user")
    with holder(host, "root") as process:
        assert f"process {process.pid} " in str(lock.holder())
        with pytest.raises(LockError, match=rf"(?s)process {process.pid} .*, of root"), lock.host_lock():
            pass


def test_a_user_who_measures_does_not_keep_root_from_it(host: Path) -> None:
    """Root does not even take it for the holder."""
    with holder(host, "user"):
        assert lock.holder() is None
        with lock.host_lock():
            pass


def test_others_can_neither_open_root_s_lock_nor_write_beside_it(host: Path) -> None:
    """Whatever the umask is: whoever may open a file may lock it. Who holds it all may read."""
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            with lock.host_lock():
                modes = {path.name: path.stat().st_mode & 0o7777 for path in host.iterdir()}
        finally:
            os.umask(before)
        assert modes == {"lock": 0o600, "holder": 0o644}
        assert host.stat().st_mode & 0o7777 == 0o711


def test_no_child_keeps_the_lock(host: Path) -> None:
    """It goes with the run, though a process that it started lives on."""
    with lock.host_lock():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with (host / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.kill()
    child.wait()


@pytest.mark.parametrize("mark", [{"owner": STRANGER}, {"mode": 0o777}])
def test_a_lock_in_a_folder_of_another_user_is_none(
    mark: dict[str, int], host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root says so, and what it says of a holder keeps nobody from measuring."""
    with holder(host):
        seems(monkeypatch, host, **mark)
        assert lock.holder() is None
        with pytest.raises(TrustError), lock.host_lock():
            pass
        play(monkeypatch, "user")
        with lock.host_lock():
            pass


def test_a_host_without_a_place_for_the_lock_says_so(host: Path) -> None:
    """By its name, as an error that has a next step."""
    host.touch()
    with pytest.raises(EnvironmentFailure, match="no place for the host's lock") as caught, lock.host_lock():
        pass
    assert caught.value.hint


@pytest.mark.parametrize(("error", "lives"), [(PermissionError, True), (ProcessLookupError, False), (None, False)])
def test_a_holder_that_proc_hides_is_believed_while_its_number_is_there(
    error: type[OSError] | None, lives: bool, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc shows each user their own processes only."""

    def kill(pid: int, number: int) -> None:
        if error:
            raise error

    with lock.host_lock():
        monkeypatch.setattr(processes, "start_time", lambda pid: None)
        monkeypatch.setattr(os, "kill", kill)
        assert (lock.holder() is not None) is lives


def test_measuring_processes_of_other_users_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this user and of root are no others."""
    words = ["sh", "-c", "echo begun; read end", "benchbox.worker"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        assert process.pid not in lock.others()
        real = Path.stat

        def stat(self: Path, **asked: bool) -> os.stat_result:
            found = real(self, **asked)
            return os.stat_result((*found[:4], STRANGER, *found[5:])) if self.name == str(process.pid) else found

        monkeypatch.setattr(Path, "stat", stat)
        assert process.pid in lock.others()
        process.kill()


@pytest.mark.parametrize("user", ["root", "user"])
def test_a_lock_that_cannot_be_opened_is_an_error_with_a_next_step(
    user: str, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a folder is in its place."""
    play(monkeypatch, user)
    folder = host if user == "root" else tmp_path / "state"
    (folder / "lock").mkdir(parents=True)
    with (
        pytest.raises(EnvironmentFailure, match=r"no place for the host's lock: .*/lock") as caught,
        lock.host_lock(),
    ):
        pass
    assert caught.value.hint


def test_what_goes_wrong_under_the_lock_is_not_taken_for_another_s() -> None:
    """Not even where it is an error that the lock itself could have met."""
    with pytest.raises(BlockingIOError), lock.host_lock():
        raise BlockingIOError
