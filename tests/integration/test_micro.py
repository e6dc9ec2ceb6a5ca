"""``micro`` as it is: every operation is done, told as it is read, and ends when it should; also with sanitizers."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchbox import native
from benchbox.linux import processes
from benchbox.workloads import batches, kernel, memory
from tests.integration.test_sanitized import SANITIZERS, SOURCES, build

pytestmark = pytest.mark.integration

OPERATIONS: Final = (*get_args(kernel.Operation), *get_args(memory.Operation))
SHORT: Final = ("--seconds", "0.1", "--batches", "5", "--bytes", "4194304")


def micro(program: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([program, *words], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module", params=["as shipped", "with sanitizers"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "as shipped":
        return native.program("micro")
    return build(tmp_path_factory.mktemp("micro") / "micro", SOURCES / "micro.c", *SANITIZERS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_done_in_its_time(program: Path, operation: str) -> None:
    """Batches are at least as long as they were asked to be; what is read is what the program counted."""
    done = micro(program, operation, *SHORT)
    assert (done.returncode, done.stderr) == (0, b"")
    found = batches.read(done.stdout, operation, 5)
    assert all(ns >= 0.02e9 for ns in found.durations_ns)
    assert (found.pages >= 1000) == (operation in get_args(memory.Operation))


@pytest.mark.parametrize("operation", get_args(memory.Operation))
def test_small_pages_take_a_fault_each(operation: str) -> None:
    """Not two: a page is written before it is read. (Sanitizers would take faults of their own.)"""
    found = batches.read(micro(native.program("micro"), operation, *SHORT, "--huge", "never").stdout, operation, 5)
    assert found.pages <= found.faults <= found.pages * 1.05 + 50


def test_huge_pages_are_had_where_the_kernel_gives_them() -> None:
    """A few faults instead of one a page."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel gives no huge pages")
    words = ("touch", "--seconds", "0.2", "--batches", "5", "--bytes", str(64 << 20), "--huge", "madvise")
    found = batches.read(micro(native.program("micro"), *words).stdout, "touch", 5)
    assert found.faults < found.pages / 20


def test_the_text_is_the_same_everywhere(program: Path) -> None:
    """A prefix of a longer one, in lines of words."""
    short, long = (micro(program, "data", "--bytes", str(size)).stdout for size in (5000, 100_000))
    assert (len(short), len(long)) == (5000, 100_000)
    assert long.startswith(short)
    assert set(long) <= set(b"abcdefghijklmnopqrstuvwxyz \n")


def test_nothing_is_nothing(program: Path) -> None:
    """The floor: no output, no error."""
    done = micro(program, "null")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_program_that_is_killed_leaves_no_partner() -> None:
    """The other process of a switch dies with it."""
    for operation in ("switch", "futex"):
        words = [native.program("micro"), operation, "--seconds", "60"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 10
            while not (partners := processes.descendants(process.pid)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        while any(alive(pid) for pid in partners):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_text_that_cannot_be_written_is_an_error(program: Path) -> None:
    """A full disk is no success."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([program, "data"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Operations and options that exist, and after each anything or what it may well want."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
    values = st.sampled_from(["0", "-1", "1e999", "nan", "inf", "9" * 40, "", "x", "never", "0x1p-3", "1e-9"])
    options = st.sampled_from(["--seconds", "--batches", "--bytes", "--huge", "--help"])
    words = [draw(st.sampled_from([*OPERATIONS, "data"]) | text)]
    for option in draw(st.lists(options | text, min_size=1, max_size=4)):
        words += [option, *draw(st.lists(values | text, max_size=1))]
    return words


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=command_lines())
def test_no_arguments_lead_it_astray(words: list[str], program: Path) -> None:
    """It does what it is asked or says what is wrong; a sanitizer's complaint would be another status."""
    known = ["--seconds", "0.002", "--batches", "1", "--bytes", "65536"]
    done = subprocess.run(
        [program, os.fsencode(words[0]), *known, *map(os.fsencode, words[1:])], capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    assert done.returncode in (0, 2, 42) or (done.returncode == 1 and said.startswith("micro: ")), (words, said)
    assert "Sanitizer" not in said and "runtime error" not in said, (words, said)
