"""``benchbox`` as a user runs it: in a process of its own, on scenarios that the tests write."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchbox import record
from benchbox.linux import processes

_PATIENCE_S = 120.0

#: A workload that is ready and then stays for long.
STAYS = "/bin/busybox sh -c '/bin/ready; busybox sleep 100'"
READY = "/bin/ready"


def scenario(
    folder: Path,
    environments: Iterable[str | Mapping[str, Any]] = ("native", "container"),
    command: str = READY,
    **keys: Any,
) -> Path:
    """Write a scenario that runs ``command`` and return its path (JSON is YAML)."""
    workload = {"name": "command", "argv": command} if command != READY else "startup"
    data = {"name": "test", "rounds": 3, "environments": list(environments), "workloads": [workload], **keys}
    path = folder / "test.yaml"
    path.write_text(json.dumps(data))
    return path


def start(folder: Path, *words: str | Path) -> "subprocess.Popen[str]":
    """Start ``benchbox`` with ``words``, its folders below ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchbox.cli", *map(str, words)],
        cwd=folder,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[str]", timeout_s: float = _PATIENCE_S) -> tuple[int, str, str]:
    """Wait for the end; return exit status, standard output and standard error."""
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def benchbox(folder: Path, *words: str | Path) -> tuple[int, str, str]:
    """Run ``benchbox`` to its end."""
    return finish(start(folder, *words))


def eventually(what: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Return what ``what`` returns, once that is true; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"{what} did not become true in {timeout_s:g} s"
        time.sleep(0.01)
    return found


def below(process: "subprocess.Popen[str]", text: str) -> list[int]:
    """Return the processes below ``process`` whose command line contains ``text``."""
    found = set(processes.with_argument(text))
    return [pid for pid in processes.descendants(process.pid) if pid in found]


def worker_of(process: "subprocess.Popen[str]") -> int:
    """Return the pid of the measuring worker, once it is there."""
    pid: int = eventually(lambda: below(process, "benchbox.worker"))[0]
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def only_run(folder: Path) -> Path:
    """Return the folder of the one run below ``folder``."""
    (found,) = record.list_runs(folder / "results")
    return found


def read(folder: Path) -> tuple[record.Manifest, list[record.Sample]]:
    """Return manifest and samples of the one run below ``folder``."""
    run = only_run(folder)
    return record.read_manifest(run), record.read_samples(run)[0]


def only_run_or_none(folder: Path) -> Path | None:
    """Return the folder of the one run below ``folder`` once it has samples."""
    found = record.list_runs(folder / "results")
    return found[0] if found and (found[0] / record.SAMPLES_FILE).exists() else None


def samples_so_far(folder: Path) -> int:
    """Return how many samples the one run below ``folder`` has by now, 0 before there is one."""
    run = only_run_or_none(folder)
    return len((run / record.SAMPLES_FILE).read_bytes().splitlines()) if run else 0


def moved_ms(samples: Iterable[record.Sample], label: str, stage: str, before: str, after: str) -> float:
    """Return by how much the median of ``stage`` of environment ``label`` is later with command ``after``, in ms."""

    def median_ms(command: str) -> float:
        spans = [s.stages[stage] for s in samples if s.environment == label and s.params["argv"] == command and s.round]
        return statistics.median(spans) / 1e6

    return median_ms(after) - median_ms(before)
