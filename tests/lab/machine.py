"""One lab guest: QEMU emulates a host with AMD-V, which boots, does its job and powers off."""

import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.lab import disks
from tests.lab.disks import Disks

Init = Literal["bare", "systemd"]

MEMORY_MIB: Final = 2048
#: Of everything that a job leaves; a run's folder has less than one MiB.
RESULTS_BYTES: Final = 256 << 20
_CONSOLE_TAIL_CHARACTERS: Final = 4000


class LabFailure(AssertionError):
    """The lab guest did not do its job; the message ends with its console."""


@dataclass(frozen=True)
class Step:
    """One command of a job and what came of it."""

    command: str
    status: int
    out: str
    err: str
    took_s: float


@dataclass(frozen=True)
class Job:
    """What a lab guest brought back: its steps, and ``folder`` with all that they left in /results."""

    steps: tuple[Step, ...]
    folder: Path
    console: str
    took_s: float


def boot(
    found: Disks,
    init: Init,
    steps: Sequence[str],
    files: Mapping[str, str | Path],
    folder: Path,
    wheel: Path,
    timeout_s: float,
) -> Job:
    """Boot a lab guest that runs ``steps`` (shell commands) and return what it brought back into ``folder``.

    ``files`` (text, or where it lies) are in its /lab by name. Raises LabFailure, with the end of the console, unless
    it has powered itself off with its results written within ``timeout_s``. QEMU is gone then, in any case.
    """
    job, results, log = folder / "job.tar", folder / "results.tar", folder / "console"
    disks.make_job(job, wheel, {**files, "steps": "".join(f"{step}\n" for step in steps)})
    with results.open("wb") as disk:
        disk.truncate(RESULTS_BYTES)
    started_s = time.monotonic()
    problem = _run(_arguments(found, init, job, results, log), timeout_s)
    took_s = time.monotonic() - started_s
    console = log.read_text(errors="replace") if log.exists() else ""
    target = folder / "results"
    problem = problem or _unpack(results, target)
    results.unlink()
    job.unlink()
    if problem:
        raise LabFailure(f"{problem}; its console ends with:\n{console[-_CONSOLE_TAIL_CHARACTERS:]}")
    return Job(tuple(_step(target, number, step) for number, step in enumerate(steps, 1)), target, console, took_s)


def _arguments(found: Disks, init: Init, job: Path, results: Path, console: Path) -> list[str]:
    # The kernel ends QEMU with whoever runs the tests, even if that is killed.
    words = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]
    words += ["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MIB), "-M", "q35"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    words += ["-kernel", str(found.kernel), "-initrd", str(found.initramfs)]
    words += ["-append", f"console=ttyS0 panic=-1 mitigations=off lab=/lab/{init}-init"]
    for path, options in ((found.root, "snapshot=on"), (job, "read-only=on"), (results, "cache=unsafe")):
        words += ["-drive", f"file={path},format=raw,if=virtio,{options}"]
    return words


def _run(words: Sequence[str], timeout_s: float) -> str | None:
    """Run QEMU to its end, at most for ``timeout_s``; return what went wrong."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        try:
            said, _ = qemu.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"the lab guest was not done after {timeout_s:g} s"
        finally:
            qemu.kill()
    return f"QEMU: exit status {qemu.returncode}: {said.decode(errors='replace')}" if qemu.returncode else None


def _unpack(results: Path, target: Path) -> str | None:
    target.mkdir()
    try:
        with tarfile.open(results, "r:") as archive:
            archive.extractall(target, filter="data")
    except tarfile.TarError as error:
        return f"the lab guest powered off without results ({error})"
    return None


def _step(folder: Path, number: int, command: str) -> Step:
    def text(kind: str) -> str:
        return (folder / f"step{number}.{kind}").read_text(errors="replace")

    began, ended, status = text("end").split()
    return Step(command, int(status), text("out"), text("err"), float(ended) - float(began))
