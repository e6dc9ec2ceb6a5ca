"""The ledger says what a run owns, even when it was torn."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.linux import ledger
from benchbox.linux.ledger import Entry, Header, Ledger

HEADER = Header("startup-1", 4711, "2026-01-02T03:04:05+00:00")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_is_recorded_is_found_until_it_is_released(path: Path) -> None:
    """In the order in which it was made."""
    book = Ledger(path)
    book.begin(HEADER)
    book.record("cgroup", "/cg/a")
    book.record("folder", "/tmp/b")
    book.record("process", "12 99")
    book.release("folder", "/tmp/b")
    book.close()
    assert ledger.read(path) == (HEADER, (Entry("cgroup", "/cg/a"), Entry("process", "12 99")))


def test_several_writers_share_a_ledger(path: Path) -> None:
    """Supervisor and worker each append to the same file."""
    first, second = Ledger(path), Ledger(path)
    first.begin(HEADER)
    second.record("folder", "/a")
    first.record("folder", "/b")
    second.release("folder", "/b")
    assert ledger.read(path) == (HEADER, (Entry("folder", "/a"),))
    first.close()
    second.close()


@pytest.mark.parametrize("torn", [b'{"op": "rec', b'{"op": "record", "kind": "fold\xff', b"\0\0\0\0"])
def test_a_torn_last_line_is_left_out(path: Path, torn: bytes) -> None:
    """What it would have named was not made yet."""
    book = Ledger(path)
    book.begin(HEADER)
    book.record("folder", "/a")
    book.close()
    with path.open("ab") as file:
        file.write(torn)
    assert ledger.read(path) == (HEADER, (Entry("folder", "/a"),))


@pytest.mark.parametrize("line", [b"[]", b"7", b'"run"', b'{"op": "record"}', b"{}", b'{"run": "x"}'])
def test_a_line_of_another_form_is_left_out(path: Path, line: bytes) -> None:
    """JSON that is no entry must not keep the rest from being cleaned up."""
    path.write_bytes(line + b'\n{"op": "record", "kind": "folder", "ident": "/a"}\n')
    assert ledger.read(path) == (None, (Entry("folder", "/a"),))


def test_a_ledger_without_a_header_is_still_one(path: Path) -> None:
    """The machine lost power right after the file was made."""
    Ledger(path).close()
    assert ledger.read(path) == (None, ())


def test_a_ledger_is_nobody_else_s_to_read(path: Path) -> None:
    """It names processes and paths of this user."""
    Ledger(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_lock_of_a_ledger_keeps_other_processes_out(path: Path) -> None:
    """And goes with whoever holds it."""
    code = "import sys, pathlib; from benchbox.linux import ledger; ledger.Ledger(pathlib.Path(sys.argv[1])).lock()"
    book = Ledger(path)
    book.lock()
    other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "BlockingIOError" in other.stderr
    book.close()
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
