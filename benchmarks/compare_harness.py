"""What does benchbox itself cost: between two samples, in memory, and to answer at all?

    sudo python benchmarks/compare_harness.py [ROUNDS]

Runs ``benchbox run`` with native and container in a folder of its own, and takes from its record, for each two samples
in a row, the time between the end of one (``cleaned``) and the moment at which the launcher of the next was asked for:

    next.requested_ns - next.spawn_ns - (previous.requested_ns + previous.stages["cleaned"])

All are CLOCK_MONOTONIC. In it are reading the report, judging, writing the sample to disk, telling the display, the
settle time (``settle_ms`` of the scenario), bringing cgroups into a known state and the noise meter. Not in it are the
stages, and the start of the launcher, which is the stage ``spawn``.

Beside that: the peak of the measuring process's resident memory (VmHWM), read while it lives, and the time of
``benchbox --version``, by ``hyperfine -N``, everything in the page cache.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import bench

from benchbox import record

BENCHBOX = (sys.executable, "-m", "benchbox.cli")
MOST_BETWEEN_MS = 15
MOST_MEMORY_MB = 150
MOST_VERSION_MS = 150
VERSION_RUNS = 20


def run(folder: Path, rounds: int) -> tuple[Path, int]:
    """Run a scenario of native and container; return the folder of its record and the worker's peak memory in bytes."""
    scenario = folder / "harness.yaml"
    keys = {"name": "harness", "rounds": rounds, "environments": ["native", "container"], "workloads": ["startup"]}
    scenario.write_text(json.dumps(keys))
    process = subprocess.Popen([*BENCHBOX, "run", "--quiet", scenario], cwd=folder, stdout=subprocess.DEVNULL)
    peak_bytes = 0
    while process.poll() is None:
        if worker := bench.child(process.pid, "benchbox.worker"):
            peak_bytes = max(peak_bytes, peak_memory_bytes(worker))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(process.returncode)
    return record.find_run(folder / "results", "latest"), peak_bytes


def peak_memory_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def between_ns(samples: Sequence[record.Sample]) -> list[float]:
    """Return what benchbox spent between each two samples in a row, the priming round left out."""
    measured = [sample for sample in samples if sample.round > 0]
    return [
        after.requested_ns - (after.spawn_ns or 0) - (before.requested_ns + before.stages["cleaned"])
        for before, after in itertools.pairwise(measured)
    ]


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found, peak_bytes = run(Path(folder), rounds)
        manifest, (samples, _) = record.read_manifest(found), record.read_samples(found)
    gaps = between_ns(samples)
    version = bench.hyperfine([*BENCHBOX, "--version"], VERSION_RUNS)
    print(bench.table("benchbox", {"between two samples": gaps, "--version": version}))
    print(f"  settle time within the former: {manifest.settle_ms:g} ms")
    print(f"  between two samples, median: {median(gaps) / 1e6:.2f} ms   (at most {MOST_BETWEEN_MS})")
    print(f"  --version, median: {median(version) / 1e6:.0f} ms   (at most {MOST_VERSION_MS})")
    print(f"  measuring process, peak resident: {peak_bytes / 1e6:.1f} MB   (at most {MOST_MEMORY_MB})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
