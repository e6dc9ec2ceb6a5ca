"""``benchbox doctor`` on this very host: it changes nothing, is quick, and its exit status is what it says."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchbox.environments import environment
from benchbox.environments.vm import qemu_name
from benchbox.linux import cgroups
from benchbox.linux.ledger import FILE_NAME, Header, Ledger
from benchbox.model import Availability, EnvironmentSpec
from benchbox.supervisor.lock import host_lock
from benchbox.virt import boot_sector
from tests.integration import runs, strangers

pytestmark = pytest.mark.integration
Need = Callable[[str, Availability], None]

_DEAD = "dddddddd"
_QUICK_S = 2.0
_SYSCTLS = ("kernel", "vm", "user", "net/core")
_KERNEL_FILES = ("sys/devices/system/cpu", "sys/devices/system/clocksource", "sys/kernel/mm")
#: Numbers that move by themselves.
_MOVING = ("random", "pty", "sched_domain", "ns_last_pid", "stat", "drop_caches", "compact_memory", "time", "freq",
           "usage", "cpuidle", "pages_", "full_scans", "extfrag", "general_profit", "hugepages")  # fmt: skip


def doctor(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run it in ``folder``; return exit status and report."""
    status, out, err = runs.benchbox(folder, "doctor", "--json", *words)
    assert err == ""
    return status, json.loads(out)


def found(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    (finding,) = [item for item in report["findings"] if item["id"] == name]
    return dict(finding)


def settings() -> Iterator[tuple[str, str]]:
    """Yield what this kernel is set to, as far as it stays the same by itself."""
    folders = [*(Path("/proc/sys", name) for name in _SYSCTLS), *(Path("/", name) for name in _KERNEL_FILES)]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(word in str(path) for word in _MOVING):
                try:
                    yield str(path), path.read_text(errors="replace")
                except OSError:
                    continue


def tree(folder: Path) -> list[tuple[str, int, int]]:
    """Return what is in ``folder``, with size and time of each change."""
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


def groups() -> set[str]:
    return {str(path) for root in cgroups.detect().roots() for path in root.glob("*") if path.is_dir()}


def test_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the kernel, no cgroup, no file: not even the folders that a run would make."""
    for name in ("BENCHBOX_STATE", "BENCHBOX_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    before = dict(settings()), groups()
    assert len(before[0]) > 100
    doctor(tmp_path)
    assert (dict(settings()), groups()) == before
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it is made, removed or written; the ledger of a dead run is still there afterwards."""
    state = dead_run(tmp_path, monkeypatch)
    cache = tmp_path / "cache"
    (cache / "accelerator").mkdir(parents=True)
    (cache / "accelerator" / "broken.json").write_text("{")
    monkeypatch.setenv("BENCHBOX_CACHE", str(cache))
    before = tree(tmp_path)
    doctor(tmp_path)
    assert tree(tmp_path) == before
    assert (state / _DEAD / FILE_NAME).exists()


def test_it_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """With every file system read-only, the home included: that is a blocker, not an error."""
    remount = "mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs -o ro none /tmp"
    command = [sys.executable, "-m", "benchbox.cli", "doctor", "--json", "--results", "/results"]
    paths = [sys.executable, *sys.path]
    if any(path.startswith("/tmp/") for path in paths):
        remount = remount.partition(" && mount -t tmpfs")[0]
    argv = ["unshare", "--mount", "sh", "-c", f'{remount} && cd / && exec "$@"', "sh", *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert found(json.loads(done.stdout), "disk.results")["severity"] == "blocker"


def test_it_takes_two_seconds_at_most(tmp_path: Path) -> None:
    """From the start of the program to its end; the best of three, because this host may be busy."""
    taken = []
    for _ in range(3):
        started = time.monotonic()
        doctor(tmp_path)
        taken.append(time.monotonic() - started)
    assert min(taken) <= _QUICK_S


def test_the_exit_status_says_whether_anything_blocks(tmp_path: Path) -> None:
    """In both forms, which say the same."""
    status, report = doctor(tmp_path)
    blocked = any(item["severity"] == "blocker" for item in report["findings"])
    assert (status, report["blocked"]) == (2 if blocked else 0, blocked)
    status, out, _ = runs.benchbox(tmp_path, "doctor")
    assert out.splitlines()[-1] == report["verdict"]
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out


def test_it_agrees_with_the_environments(tmp_path: Path) -> None:
    """What can be measured is what would open."""
    _, report = doctor(tmp_path)
    for kind in ("native", "container"):
        offer = environment(kind).check(EnvironmentSpec(kind, kind))
        assert (kind in report["measurable"]) is offer.available


def test_an_unknown_requirement_is_a_usage_error(tmp_path: Path) -> None:
    """Before anything is looked at."""
    status, out, err = runs.benchbox(tmp_path, "doctor", "--require", "contaner")
    assert (status, out) == (2, "")
    assert "did you mean container?" in err


def test_a_run_that_holds_the_host_blocks(tmp_path: Path) -> None:
    """It is named; as often as the doctor is asked."""
    with host_lock():
        for _ in range(4):
            status, report = doctor(tmp_path)
            lock = found(report, "runs.lock")
            assert (status, lock["severity"]) == (2, "blocker")
            assert f"process {os.getpid()}" in lock["found"]


def dead_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave the ledger of a run that died, and return the state folder."""
    state = folder / "benchbox-state"
    (state / _DEAD).mkdir(mode=0o700, parents=True)
    state.chmod(0o700)
    book = Ledger(state / _DEAD / FILE_NAME)
    book.begin(Header("startup-dead", 1, "2026-01-02T03:04:05+00:00"))
    book.record("folder", str(state / _DEAD / "nothing"))
    book.close()
    monkeypatch.setenv("BENCHBOX_STATE", str(state))
    return state


def test_what_a_dead_run_left_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that removes it, after which it is gone."""
    dead_run(tmp_path, monkeypatch)
    _, report = doctor(tmp_path)
    left = found(report, "runs.leftovers")
    assert (left["severity"], left["found"], left["fix"]) == (
        "warning",
        "run startup-dead, 1 resources",
        "benchbox clean",
    )
    runs.benchbox(tmp_path, "clean")
    _, report = doctor(tmp_path)
    assert found(report, "runs.leftovers")["severity"] == "ok"


def test_a_busy_process_is_named(tmp_path: Path) -> None:
    """With pid and share, if it may use the CPUs of environments."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.2)
            _, report = doctor(tmp_path)
        finally:
            process.kill()
    seen = found(report, "noise.processes")
    assert seen["severity"] == "warning"
    assert f"({process.pid})" in seen["found"]


def test_an_ordinary_user_gets_findings(tmp_path: Path, need: Need) -> None:
    """No right, no home, no readable cache: whatever is missing is said, and nothing is an error."""
    need("container", Availability(strangers.missing() is None, strangers.missing(), "run as root"))
    command = strangers.as_nobody(sys.executable, "-m", "benchbox.cli", "doctor", "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=_homeless())
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (2 if report["blocked"] else 0)
    assert found(report, "disk.results")["severity"] == "blocker"
    assert found(report, "environment.native")["fix"]


def _homeless() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "BENCHBOX_"))}
    return kept | {"HOME": "/nonexistent"}


def test_a_guest_that_boots_is_the_proof(tmp_path: Path, need: Need) -> None:
    """--boot says whether KVM booted it and, where it did not, whether emulation does; nothing of it stays."""
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {})))
    status, report = doctor(tmp_path, "--boot", "--require", "vm")
    assert status == 0, report["verdict"]
    how = report["measurable"]["vm"]
    if how == "KVM":
        assert found(report, "kvm.guest")["severity"] == "ok"
    else:
        assert how == "emulated only"
        assert "boots under emulation, ready " in found(report, "vm.emulated")["found"]
    status, again = doctor(tmp_path, "--require", "vm:kvm")
    assert (status, again["measurable"]["vm"]) == (0 if how == "KVM" else 2, how)
    assert list(tmp_path.iterdir()) == []


def test_a_boot_sector_runs_under_emulation(need: Need) -> None:
    """So where it does not run under KVM, that is KVM's doing."""
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {})))
    assert boot_sector.runs(qemu_name(), "tcg") in (True, None)
    assert boot_sector.runs(qemu_name(), "no-such-accelerator") in (False, None)
