"""Does anything grow when a run is long? Exit status 1 if it does.

    sudo python benchmarks/endurance.py [CONTAINERS [GUESTS]]        500 container samples, 50 guest samples

Two runs of ``benchbox run``, one of each kind, watched from outside every few milliseconds: descriptors, threads and
memory of the measuring process and of the libvirt worker below it, descriptors and memory of the supervisor, and of
the whole run: processes, zombies, cgroups, mounts, network links, files in its scratch and state folders.

A sample on its way has some of these; that is no growth. So a run is cut into ten parts by its samples, and of each
count the table shows the smallest value in each part: what is there whenever nothing runs. In the last part that must
not be more than in the second (in the first, there is the preparation). Memory is the median of a part; what modules
and allocators take only once they are used may add some percent, a leak in each sample would add more.

After the end nothing may be left: no cgroup, folder, mount or link of the run, no process below this one.
Do not run anything else that makes mounts or network links meanwhile: those are the host's.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import bench

from benchbox import record
from benchbox.linux import cgroups, processes
from benchbox.linux.state import cache_folder

PARTS = 10
MEMORY = "memory KiB"
MEMORY_MARGIN = 1.03
POLL_S = 0.002
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024

Figures = dict[str, int]


@dataclass
class Run:
    """One ``benchbox run`` of ``rounds`` samples of one environment, all its folders below ``folder``."""

    folder: Path
    environment: str | Mapping[str, str]
    rounds: int
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        keys = {"rounds": self.rounds, "environments": [self.environment], "workloads": ["startup"]}
        (self.folder / "endurance.yaml").write_text(json.dumps({"name": "endurance", **keys}))
        self.state.mkdir(mode=0o700)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchbox.cli", "run", "--quiet", "endurance.yaml"],
            cwd=self.folder,
            env={**os.environ, "BENCHBOX_STATE": str(self.state)},
            stdout=subprocess.DEVNULL,
        )

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def folders(self) -> tuple[Path, ...]:
        """Return the folders that belong to this run alone, and its cgroups."""
        token = next((path.name for path in self.state.glob("*/")), None)
        if token is None:
            return ()
        groups = (root / f"benchbox-{token}" for root in cgroups.detect().roots())
        return (self.state / token, cache_folder() / "scratch" / token, *groups)

    def samples_file(self) -> Path | None:
        runs = record.list_runs(self.folder / "results")
        return runs[0] / record.SAMPLES_FILE if runs else None


class Watch:
    """Looks at one run again and again; ``parts`` are the figures seen in each part of it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._samples: Path | None = None
        self._folders: tuple[Path, ...] = ()
        self._size, self._done = 0, 0
        self.parts: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(min(PARTS, run.rounds - 1))]

    def to_the_end(self) -> tuple[Path, ...]:
        """Watch until the run has ended; return the folders that were its own."""
        while self._run.process.poll() is None:
            self._samples = self._samples or self._run.samples_file()
            self._folders = self._folders or self._run.folders()
            if self._samples and self._progress():
                part = self.parts[(self._done - 1) * len(self.parts) // (self._run.rounds - 1)]
                for name, value in self._figures().items():
                    part[name].append(value)
            time.sleep(POLL_S)
        return self._folders

    def _progress(self) -> bool:
        """Say whether the run is measuring; the first sample is the priming round's, after the last comes the page."""
        with contextlib.suppress(FileNotFoundError):
            size = self._samples.stat().st_size if self._samples else 0
            if self._samples and size != self._size:
                self._size, self._done = size, self._samples.read_bytes().count(b"\n") - 1
        return 0 < self._done < self._run.rounds

    def _figures(self) -> Figures:
        supervisor = self._run.process.pid
        below = processes.descendants(supervisor)
        state, scratch, *groups = self._folders
        found = {
            "processes": len(below),
            "zombies": sum(map(processes.is_zombie, below)),
            "cgroups": sum(map(subfolders, groups)),
            "files, state": sum(1 for _ in tree(state)),
            "files, scratch": sum(1 for _ in tree(scratch)),
            "mounts, host": lines(Path("/proc/self/mountinfo")),
            "links, host": count(Path("/sys/class/net")),
            **figures_of("supervisor", supervisor),
        }
        # By descent, not by name alone: what libvirt has just forked looks like the process that it was forked from.
        if worker := bench.child(supervisor, "benchbox.worker"):
            found |= figures_of("worker", worker)
            if libvirt := bench.child(worker, "benchbox.virt.worker"):
                found |= figures_of("libvirt worker", libvirt)
        return found


def figures_of(name: str, pid: int) -> Figures:
    """Return the figures of one process; none when it has just ended."""
    process = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        return {
            f"{name}: descriptors": count(process / "fd"),
            f"{name}: threads": count(process / "task"),
            f"{name}: mounts": lines(process / "mountinfo"),
            f"{name}: {MEMORY}": int((process / "statm").read_text().split()[1]) * PAGE_KIB,
        }
    return {}


def tree(folder: Path) -> Iterator[str]:
    for _, folders, files in os.walk(folder):
        yield from itertools.chain(folders, files)


def count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def subfolders(folder: Path) -> int:
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        return sum(entry.is_dir(follow_symlinks=False) for entry in found)
    return 0


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def host_mounts_and_links() -> set[str]:
    mounts = (line.partition(" - ")[0].split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {*mounts, *map(str, Path("/sys/class/net").iterdir())}


def table(parts: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int | None]]:
    """Return each figure by part: the smallest value, of memory the median; None where it was not seen."""
    seen = list(parts)
    names = sorted({name for part in seen for name in part})
    return {name: [summary(name, part.get(name, [])) for part in seen] for name in names}


def summary(name: str, values: list[int]) -> int | None:
    if not values:
        return None
    return round(median(values)) if name.endswith(MEMORY) else min(values)


def growth(rows: Mapping[str, list[int | None]]) -> list[str]:
    """Say what is more in the last part than in the second."""
    return [
        f"{name} grew from {row[1]} to {row[-1]}"
        for name, row in rows.items()
        if (row[-1] or 0) > (row[1] or 0) * (MEMORY_MARGIN if name.endswith(MEMORY) else 1)
    ]


def endure(environment: str | Mapping[str, str], rounds: int) -> list[str]:
    """Run ``rounds`` samples, print the table, return all complaints."""
    before = host_mounts_and_links()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), environment, rounds)
        watch = Watch(run)
        own = watch.to_the_end()
        rows = table(watch.parts)
        complaints = growth(rows) + [f"left behind: {path}" for path in own if path.exists()]
    print(f"\n{rounds} samples in {environment}, in {len(watch.parts)} parts")
    for name, row in rows.items():
        print(f"{name:<30}" + "".join(f"{'-' if value is None else value:>9}" for value in row))
    complaints += [f"not as before: {name}" for name in sorted(host_mounts_and_links() ^ before)]
    complaints += [f"process left behind: {pid}" for pid in processes.descendants(os.getpid())]
    return complaints + ([f"benchbox run ended with {run.process.returncode}"] if run.process.returncode else [])


def main(containers: int, guests: int) -> int:
    processes.become_subreaper()
    complaints = endure("container", containers) if containers else []
    complaints += endure({"kind": "vm", "accelerator": "auto"}, guests) if guests else []
    print("\n" + ("\n".join(complaints) or "nothing grew, nothing is left"))
    return 1 if complaints else 0


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*counts, *(500, 50)[len(counts) :]))
