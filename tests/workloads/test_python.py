"""An interpreter to its first line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.model import Outcome
from benchbox.workloads import workload

PYTHON = workload("python")


def test_the_program_says_that_it_is_ready_before_it_prints(tmp_path: Path) -> None:
    """To a descriptor and to a path alike: run here, by this interpreter."""
    program = PYTHON.command({}).argv[2]
    read, write = os.pipe()
    for ready in (str(write), str(tmp_path / "ready")):
        (tmp_path / "ready").touch()
        words = [sys.executable, "-S", "-c", program]
        done = subprocess.run(words, env={"BENCHBOX_READY": ready}, pass_fds=(write,), stdout=write, check=True)
        assert done.returncode == 0
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        assert stream.read() == b"!hello\nhello\n"
    assert (tmp_path / "ready").read_bytes() == b"!"


def test_it_runs_the_interpreter_of_the_image_and_signals_ready() -> None:
    """Its metrics are those of its stages."""
    command = PYTHON.command({})
    assert command.argv[:2] == ("/usr/bin/python3", "-c")
    assert (command.signals_ready, command.signals) == (True, "ready")
    assert PYTHON.parse(Outcome("ok", output_tail=b"hello\n")) == ()


@pytest.mark.parametrize(
    "printed",
    [b"", b"hel", b"hello", b"hello\nhello\n", b"Could not find libraries <prefix>\nhello\n", b"\x1b[31m<b>\xff"],
)
def test_another_output_is_no_sample(printed: bytes) -> None:
    """Cut, empty or foreign: what was found is shown, harmless on a terminal."""
    with pytest.raises(ValueError) as caught:
        PYTHON.parse(Outcome("ok", output_tail=printed))
    assert str(caught.value) == rf"expected b'hello\n', got {printed!r}"
    assert "\x1b" not in str(caught.value)


def test_a_flood_is_not_repeated_whole() -> None:
    """Its beginning tells what it is."""
    with pytest.raises(ValueError, match=r"\.\.\.$") as caught:
        PYTHON.parse(Outcome("ok", output_tail=b"x" * 60_000))
    assert len(str(caught.value)) < 200


def test_it_takes_no_parameter() -> None:
    """It never changes."""
    with pytest.raises(ValueError, match="argv"):
        PYTHON.command({"argv": "x"})
