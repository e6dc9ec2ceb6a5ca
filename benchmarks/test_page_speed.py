"""How long a page of 100,000 samples takes, from the record on disk to the file: at most 10 s.

Run with ``pytest benchmarks/test_page_speed.py``; the process's start and imports are measured with it.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.report.records import manifest, samples, write_run

LIMIT_S = 10.0

_WRITE = """
import sys
from pathlib import Path
from benchbox.report.page import write_page
write_page(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three environments in 33,333 rounds: 99,999 samples, and the priming round."""
    return write_run(tmp_path_factory.mktemp("run"), manifest(rounds=33_333), samples(rounds=33_333))


def test_a_page_of_100_000_samples_takes_at_most_10_s(benchmark: BenchmarkFixture, run: Path) -> None:
    """A fresh process reads the record, computes all intervals and writes the page."""
    out = run / "page.html"
    command = [sys.executable, "-c", _WRITE, str(run), str(out)]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True}, rounds=3)
    benchmark.extra_info["page_mb"] = round(out.stat().st_size / 1e6, 1)
    assert benchmark.stats.stats.median <= LIMIT_S
