"""How long a record of 100,000 samples of real shape takes to be shown, exported and made a page, and how that grows.

Run with ``pytest benchmarks/test_page_speed.py``; the process's start and imports are measured with it. The record is
that of ``real_runs.py``, 390 MB, and the commands are the user's own.
"""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.real_runs import write_run

ROUNDS: Final = 33_333

#: From half of the samples to all of them the CPU time may grow by at most so much: n log n would be 2.1, a square 4.
GROWTH: Final = 2.6

COMMANDS: Final = {"show": (), "report": ("-o", "page.html"), "export": ("-o", "run.csv")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three environments in 33,333 rounds."""
    return write_run(tmp_path_factory.mktemp("runs") / "whole", ROUNDS)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with half of the rounds."""
    return write_run(tmp_path_factory.mktemp("runs") / "half", ROUNDS // 2)


def benchbox(command: str, run: Path) -> None:
    """Call ``benchbox`` in a fresh process; what it writes goes into the run's folder."""
    words = [sys.executable, "-m", "benchbox.cli", command, str(run), *COMMANDS[command]]
    subprocess.run(words, check=True, cwd=run, stdout=subprocess.DEVNULL)


def cpu_s(command: str, run: Path) -> float:
    """Return the CPU time that the command took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchbox(command, run)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(("command", "limit_s"), [("show", 12.0), ("report", 15.0), ("export", 8.0)])
def test_100_000_samples_are_read_and_told_in_seconds(
    benchmark: BenchmarkFixture, run: Path, command: str, limit_s: float
) -> None:
    """A fresh process reads the record, computes all that it tells, and writes it."""
    benchmark.pedantic(benchbox, args=(command, run), rounds=3)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    benchmark.extra_info["peak_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000
    assert benchmark.stats.stats.median <= limit_s


@pytest.mark.parametrize("command", COMMANDS)
def test_twice_the_samples_take_twice_the_time(run: Path, half: Path, command: str) -> None:
    """In CPU time, which others on the host hardly change."""
    assert cpu_s(command, run) <= GROWTH * cpu_s(command, half)
