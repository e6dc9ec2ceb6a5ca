"""Does benchbox show in what fio measures natively?

    sudo python benchmarks/compare_fio.py [PAIRS [RW [IMAGE]]]

The bandwidth that fio itself reports, two ways:

- a sample of benchbox's native environment: workload `disk`, with cgroups, limits, a fresh /data, the account;
- the same words in a chroot of the same image, by hand, with a fresh folder bound at /data.

Why it is fair: the same binary and the same file system, the same CPU (taskset), the file system brought to rest before
each, the order of each pair by chance. The ratio is the median of those of the pairs: what drifts drifts in both. The
first pair does not count. Besides, how long reading a sample's JSON and storing the sample takes.
"""

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bench

from benchbox import images
from benchbox.engine import Around, PlannedCell, _Place, sample_of
from benchbox.environments import environment
from benchbox.linux import blockdev, mounts
from benchbox.model import Command, EnvironmentSpec, Image, Outcome, Resources, Session, Workspace
from benchbox.record import RunFolder, SampleWriter
from benchbox.units import format_cpu_list
from benchbox.workloads import workload

MOST_APART = 0.02
MOST_STORING_MS = 20.0
DISK = workload("disk")


def by_benchbox(session: Session, command: Command) -> Outcome:
    outcome = session.start(command).wait()
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail[-500:])
    return outcome


@contextmanager
def hand_made_root(image: Image, workspace: Workspace) -> Iterator[tuple[Path, Path]]:
    """Yield a chroot like native's, and the folder that is its /data."""
    root, folder = workspace.scratch / "by-hand", workspace.scratch / "by-hand-data"
    for made in (root, folder):
        made.mkdir()
    mounts.bind(image.root, root, read_only=True)
    for name in ("proc", "sys", "dev"):
        mounts.bind(Path("/", name), root / name, devices=True)
    mounts.tmpfs(root / "tmp", 1 << 30)
    mounts.bind(folder, root / "data")
    try:
        yield root, folder
    finally:
        mounts.detach(root)
        root.rmdir()
        shutil.rmtree(folder)


def by_hand(command: Command, root: Path, folder: Path, cpus: tuple[int, ...]) -> bytes:
    blockdev.settle(folder)
    words = ["taskset", "-c", format_cpu_list(cpus), "chroot", str(root), *command.argv]
    output = subprocess.run(words, capture_output=True, check=True).stdout
    for path in folder.iterdir():
        path.unlink()
    return output


def bandwidth(output: bytes) -> float:
    job = json.loads(output[output.index(b"{") :])["jobs"][0]
    return float(max(job[way]["bw_bytes"] for way in ("read", "write")))


def storing_ms(outcome: Outcome, command: Command) -> float:
    """Return what a sample costs from its end until it is on disk: reading fio's JSON, checking, writing."""
    cell = PlannedCell("native/disk", "native", "disk", {}, command, DISK.parse)
    with tempfile.TemporaryDirectory() as folder, SampleWriter(RunFolder(Path(folder), "run")) as writer:
        started = time.perf_counter()
        writer.append(sample_of(cell, _Place(1, 0, None), "now", outcome, Around()))
        return (time.perf_counter() - started) * 1000


def main(pairs: int, rw: str, name: str) -> None:
    image, resources = images.open_image(name), Resources(memory_bytes=512 << 20)
    command = DISK.command({"rw": rw, "depth": 32, "seconds": 2})
    ours, theirs, stored = [], [], []
    with bench.workspace() as workspace, hand_made_root(image, workspace) as (root, folder):
        spec = EnvironmentSpec("native", "native", {})
        with environment("native").open(spec, image, resources, workspace) as session:
            for number in range(pairs + 1):
                found: dict[str, float] = {}
                for way in random.sample(["ours", "theirs"], 2):
                    if way == "ours":
                        outcome = by_benchbox(session, command)
                        found[way] = bandwidth(outcome.output_tail)
                        stored.append(storing_ms(outcome, command))
                    else:
                        found[way] = bandwidth(by_hand(command, root, folder, workspace.cpus[:1]))
                if number:
                    ours.append(found["ours"])
                    theirs.append(found["theirs"])
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"fio {rw} 4k depth 32, {pairs} pairs: {statistics.median(ours) / 1e6:.1f} MB/s by benchbox,", end=" ")
    print(f"{statistics.median(theirs) / 1e6:.1f} MB/s by hand")
    print(f"  ratio, median of the pairs = {statistics.median(ratios):.4f}   (within {MOST_APART:.0%})")
    print(f"  pairs: {' '.join(f'{ratio:.3f}' for ratio in sorted(ratios))}")
    print(f"  reading and storing a sample: {statistics.median(stored):.1f} ms   (at most {MOST_STORING_MS:g} ms)")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10,
        sys.argv[2] if len(sys.argv) > 2 else "randread",
        sys.argv[3] if len(sys.argv) > 3 else "debian",
    )
