"""Tools that compute: their commands, and what is read from what they really printed."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.model import Metric, Outcome
from benchbox.workloads import package_of
from benchbox.workloads.cpu import LOOP, TOOLS, WORKLOAD, Params

#: Printed by sysbench 1.0.20 and OpenSSL 3.0.22 of Debian 12, by the commands of this module.
RECORDED: Final = Path(__file__).parent / "recorded"
SYSBENCH: Final = (RECORDED / "sysbench-2-threads.txt").read_bytes()
AES: Final = (RECORDED / "openssl-aes.txt").read_bytes()
AES_2: Final = (RECORDED / "openssl-aes-2-processes.txt").read_bytes()
SHA256_2: Final = (RECORDED / "openssl-sha256-2-processes.txt").read_bytes()
#: By zstd 1.5.4.
ZSTD: Final = (
    b"bench 1.5.4 : input 16777216 bytes, 1 seconds, 0 KB blocks\n"
    b"-3      5324931 (3.151)  94.12 MB/s  368.8 MB/s  text.7\n"
)
EVERY: Final[list[tuple[bytes, dict[str, Any]]]] = [
    (SYSBENCH, {"tool": "sysbench", "threads": 2}),
    (AES, {"tool": "aes"}),
    (AES_2, {"tool": "aes", "threads": 2}),
    (SHA256_2, {"tool": "sha256", "threads": 2}),
    (ZSTD, {"tool": "zstd"}),
]


def read(output: bytes, **params: Any) -> dict[str, Metric]:
    return {metric.name: metric for metric in WORKLOAD.parse(Outcome("ok", output_tail=output), params)}


def test_sysbench_says_how_many_events_a_second() -> None:
    """By as many threads as it was told."""
    found = read(SYSBENCH, tool="sysbench", threads=2)
    assert found["cpu.sysbench"] == Metric("cpu.sysbench", 1499.53, "1/s", "higher")
    assert found["cpu.work"] == Metric("cpu.work", 1502, "1", "higher")
    with pytest.raises(ValueError, match="expected 1 threads, found 2"):
        read(SYSBENCH, tool="sysbench")
    with pytest.raises(ValueError, match="expected 10000 as limit of the primes, found 100"):
        read(SYSBENCH.replace(b"limit: 10000", b"limit: 100"), tool="sysbench", threads=2)


def test_openssl_says_how_many_bytes_a_second_by_all_processes() -> None:
    """The last line is the sum; each process says how many blocks it did."""
    assert read(AES, tool="aes")["cpu.aes"] == Metric("cpu.aes", 2961424384.0, "B/s", "higher")
    found = read(AES_2, tool="aes", threads=2)
    assert found["cpu.aes"].value == 3366600704.0
    assert found["cpu.work"] == Metric("cpu.work", (99303 + 106178) * 16384, "B", "higher")
    assert read(SHA256_2, tool="sha256", threads=2)["cpu.sha256"].value == 1507332866.53
    with pytest.raises(ValueError, match="expected 2 processes, found 1"):
        read(AES, tool="aes", threads=2)
    with pytest.raises(ValueError, match="no rate of sha256"):
        read(AES, tool="sha256")


def test_zstd_says_both_speeds_and_that_it_was_our_text() -> None:
    """Another file, or one that compresses otherwise, is another workload."""
    found = read(ZSTD, tool="zstd")
    assert found["cpu.zstd"] == Metric("cpu.zstd", 94.12e6, "B/s", "higher")
    assert found["cpu.zstd_decompress"].value == pytest.approx(368.8e6)
    for changed, complaint in (
        (ZSTD.replace(b"(3.151)", b"(1.001)"), "compressed 1.001 times, expected 2.5 to 4.0"),
        (ZSTD.replace(b"16777216", b"1024"), "expected 16777216 bytes of input, found 1024"),
        (ZSTD.replace(b"94.12", b"0.00"), "its speed is 0"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read(changed, tool="zstd")


def test_the_loop_of_python_proves_its_result() -> None:
    """Run here, by this interpreter; a wrong result ends it."""
    done = subprocess.run([sys.executable, "-c", LOOP, "0"], capture_output=True, check=True)
    found = read(done.stdout, tool="python")
    assert found["cpu.work"].value >= 20 * 10_000
    assert len(found["cpu.python"].iterations) == 20 and found["cpu.python"].value > 0
    wrong = subprocess.run(
        [sys.executable, "-c", LOOP.replace("12345", "12346"), "0"], capture_output=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (1, b"the loop's result is wrong\n")


@pytest.mark.parametrize(("output", "params"), EVERY, ids=[str(params["tool"]) for _, params in EVERY])
def test_a_cut_output_is_no_sample(output: bytes, params: dict[str, Any]) -> None:
    """Wherever it is cut in its first half, and where there is none at all."""
    assert read(output, **params)
    for end in range(0, len(output) // 2, 7):
        with pytest.raises(ValueError):
            read(output[:end], **params)


@given(st.binary(max_size=300), st.sampled_from(sorted(TOOLS)))
def test_no_bytes_are_taken_for_a_result(output: bytes, tool: str) -> None:
    """Nor do any raise something else than that."""
    with pytest.raises(ValueError):
        read(output, tool=tool)


def test_each_tool_is_told_its_time_and_its_threads() -> None:
    """By the wall clock: openssl's own default leaves out what was taken away from it."""
    for tool in TOOLS:
        command = WORKLOAD.command({"tool": tool, "seconds": 7})
        assert not command.signals_ready and command.argv[0].startswith("/")
        assert "7" in command.argv[-1] or "7" in command.argv or "--time=7" in command.argv
    assert "--threads=3" in WORKLOAD.command({"tool": "sysbench", "threads": 3}).argv
    several = WORKLOAD.command({"tool": "aes", "threads": 3}).argv
    assert several[several.index("-multi") + 1] == "3" and "-elapsed" in several
    assert "-multi" not in WORKLOAD.command({"tool": "aes"}).argv
    assert "-T3 " in WORKLOAD.command({"tool": "zstd", "threads": 3}).argv[2]


@pytest.mark.parametrize(
    "params",
    [{}, {"tool": "bc"}, {"tool": "aes", "threads": 0}, {"tool": "python", "threads": 2}, {"tool": "aes", "x": 1}],
)
def test_what_it_cannot_do_is_refused(params: dict[str, Any]) -> None:
    """Python has one thread that works."""
    with pytest.raises(ValueError):
        Params.model_validate(params)


def test_each_tool_is_in_a_package() -> None:
    """So that an image without it is refused before anything starts."""
    assert package_of("cpu", {"tool": "sha256"}) == "openssl"
    assert package_of("cpu", {"tool": "python"}) == "python3-minimal"
    assert package_of("cpu", {}) is None
    assert package_of("redis", {}) == "redis-server"
