"""One run per host: the second says who holds it."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchbox.errors import LockError
from benchbox.linux.ledger import FILE_NAME, Header, Ledger
from benchbox.supervisor import lock

HOLD = """
import sys
from benchbox.supervisor import lock
lock._NAME = GIVEN
with lock.host_lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A lock of this test's own: the host's may be held by a run."""
    name = f"\0benchbox.test.{os.getpid()}.{tmp_path.name}"
    monkeypatch.setattr(lock, "_NAME", name)
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path))
    return name


@contextlib.contextmanager
def holder(name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Hold the lock in another process."""
    code = HOLD.replace("GIVEN", repr(name))
    argv = [sys.executable, "-c", code, "the-other-run"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_that_is_free_is_taken_again_and_again() -> None:
    """It goes with the block."""
    for _ in range(2):
        with lock.host_lock():
            pass


def test_the_second_run_is_told_who_holds_the_host(own_name: str) -> None:
    """By pid and command line, and what to do."""
    with holder(own_name) as process:
        with (
            pytest.raises(LockError, match=rf"(?s)process {process.pid} \(.*the-other-run\)") as error,
            lock.host_lock(),
        ):
            pass
        assert error.value.hint
        assert "Ctrl-C" in error.value.hint


def test_a_run_with_a_ledger_is_named_by_it(own_name: str, tmp_path: Path) -> None:
    """Run and time of its start, whatever else stands in the state folder."""
    with holder(own_name) as process:
        for token, pid in (("other", process.pid + 1), ("ours", process.pid)):
            (tmp_path / token).mkdir()
            book = Ledger(tmp_path / token / FILE_NAME)
            book.begin(Header(f"startup-{token}", pid, "2026-01-02T03:04:05+00:00"))
            book.close()
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / FILE_NAME).write_text("[]\n{")
        words = f"run startup-ours, process {process.pid}, since 2026-01-02"
        with pytest.raises(LockError, match=words), lock.host_lock():
            pass


def test_the_lock_of_a_killed_run_is_free(own_name: str) -> None:
    """The kernel drops it; nobody has to clean up."""
    with holder(own_name) as process:
        process.kill()
        process.wait()
        with lock.host_lock():
            pass


def test_a_holder_that_has_just_let_go_is_nobody() -> None:
    """Between the refusal and the question it may have ended."""
    assert lock.describe_holder() == "somebody who has just let go"


def test_asking_again_and_again_gets_the_same_answer(own_name: str) -> None:
    """Questions stay in the holder's queue; a free lock has no holder."""
    assert lock.holder() is None
    with holder(own_name) as process:
        answers = {lock.holder() for _ in range(9)}
        assert len(answers) == 1
        assert f"process {process.pid} " in str(answers.pop())
    assert lock.holder() is None


def test_a_holder_that_does_not_answer_is_still_named(own_name: str) -> None:
    """More askers than the holder's queue takes do not make the next one wait for long, nor believe that it is free."""
    with holder(own_name), contextlib.ExitStack() as stack:
        for _ in range(lock._QUESTIONS + 2):
            asker = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            asker.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                asker.connect(own_name)
        with pytest.raises(LockError, match="another run holds this host: a process that does not answer"):
            stack.enter_context(lock.host_lock())
