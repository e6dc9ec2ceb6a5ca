"""A whole run, as a user starts it: what it leaves on disk, and that it leaves nothing else, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchbox.environments import environment
from benchbox.events import EVENTS
from benchbox.linux import processes
from benchbox.model import Availability, EnvironmentSpec
from tests.integration import runs

pytestmark = pytest.mark.integration
Need = Callable[[str, Availability], None]

GUEST = {"kind": "vm", "accelerator": "tcg"}


@pytest.fixture(autouse=True)
def container(need: Need) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


@pytest.fixture
def guest(need: Need) -> dict[str, str]:
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {})))
    return GUEST


def test_a_run_prints_a_table_and_keeps_every_sample(tmp_path: Path) -> None:
    """Table on standard output, progress on standard error, record and page on disk, exit status 0."""
    status, out, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, rounds=6))
    assert status == 0, err
    assert "native" in out and "container" in out and "× baseline" in out
    assert "round 6 of 6" in err
    manifest, samples = runs.read(tmp_path)
    assert manifest.exit_state == "done"
    assert [sample.round for sample in samples] == sorted([*range(7), *range(7)])
    assert {sample.status for sample in samples} == {"ok"}
    assert (tmp_path / "reports" / f"{manifest.run_id}.html").stat().st_size > 1000


def test_nothing_is_imported_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    """It may be somebody else's, as that of a scenario: what lies there like a module of Python's is none."""
    for name in ("json", "yaml", "pydantic", "gc", "decimal"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')\nraise SystemExit(3)\n")
    path = runs.scenario(tmp_path, ["container"], rounds=1)
    process = subprocess.run(
        [sys.executable, "-P", "-m", "benchbox.cli", "run", path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "taken").exists()


def test_the_container_is_what_differs(tmp_path: Path) -> None:
    """Native and container run the same file from the same tree on the same CPU under the same limits."""
    runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, rounds=1))
    manifest, samples = runs.read(tmp_path)
    assert manifest.image and "/bin/ready" in manifest.image.executables
    limits = {
        sample.environment: {key: sample.applied[key] for key in ("cpus", "affinity", "memory_bytes", "pids")}
        for sample in samples
    }
    assert limits["native"] == limits["container"]


@pytest.mark.parametrize("moment", ["sample", "between"])
def test_a_killed_worker_leaves_nothing(tmp_path: Path, moment: str) -> None:
    """All is gone within 5 s of the worker's SIGKILL, without `clean`; the record can be read and completed."""
    settle_ms = 3000 if moment == "between" else 0
    command = runs.STAYS if moment == "sample" else runs.READY
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, command=command, settle_ms=settle_ms))
    worker = runs.worker_of(process)
    if moment == "sample":
        runs.eventually(lambda: runs.below(process, "sleep"))
    else:
        runs.eventually(lambda: (tmp_path / "results").exists() and runs.only_run_or_none(tmp_path))
        time.sleep(0.5)
    runs.kill(worker)
    killed_at = time.monotonic()
    status, _, err = runs.finish(process)
    assert time.monotonic() - killed_at < 5.0
    assert status == 2
    assert "SIGKILL" in err
    manifest, _ = runs.read(tmp_path)
    assert manifest.exit_state == "running"


def forget(manifest: Path) -> None:
    """Take away what an earlier version did not write: a key of the scenario that has come since."""
    written = json.loads(manifest.read_text())
    del written["scenario"]["resources"]["disk"]
    manifest.write_text(json.dumps(written))


def test_a_run_that_was_killed_is_completed_by_resume(tmp_path: Path) -> None:
    """--resume repeats the broken round entirely, and the run is then as whole as any, also with an older record."""
    path = runs.scenario(tmp_path, rounds=12, settle_ms=150)
    process = runs.start(tmp_path, "run", path)
    worker = runs.worker_of(process)
    runs.eventually(lambda: runs.samples_so_far(tmp_path) >= 7)
    runs.kill(worker)
    runs.finish(process)
    before = runs.samples_so_far(tmp_path)
    assert before < 26
    forget(runs.only_run(tmp_path) / "manifest.json")
    status, _, err = runs.benchbox(tmp_path, "run", "--resume", "latest", path)
    assert status == 0, err
    manifest, samples = runs.read(tmp_path)
    assert manifest.exit_state == "done" and manifest.resumed == 1
    counted = sorted((sample.round, sample.cell) for sample in samples if sample.round)
    assert counted == sorted((number, cell.id) for number in range(1, 13) for cell in manifest.cells)


def test_resume_refuses_what_is_not_alike(tmp_path: Path) -> None:
    """Another boot, another host and a complete run are refused with exit status 2; nothing is measured."""
    path = runs.scenario(tmp_path, rounds=1)
    runs.benchbox(tmp_path, "run", path)
    status, _, err = runs.benchbox(tmp_path, "run", "--resume", "latest")
    assert (status, "is complete" in err) == (2, True)
    manifest_file = runs.only_run(tmp_path) / "manifest.json"
    text = manifest_file.read_text()
    manifest, _ = runs.read(tmp_path)
    manifest_file.write_text(text.replace(manifest.boot_id, "another-boot"))
    status, _, err = runs.benchbox(tmp_path, "run", "--resume", "latest")
    assert (status, "another boot" in err) == (2, True)
    manifest_file.write_text(text.replace(manifest.host_digest, "0" * len(manifest.host_digest)))
    status, _, err = runs.benchbox(tmp_path, "run", "--resume", "latest")
    assert (status, "has changed" in err) == (2, True)


def test_a_run_that_lives_is_not_resumed(tmp_path: Path) -> None:
    """The attempt ends with 2, and the living run's record is as whole as without it."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, ("native",), rounds=40, settle_ms=20))
    runs.eventually(lambda: runs.samples_so_far(tmp_path) >= 5)
    status, _, err = runs.benchbox(tmp_path, "run", "--resume", "latest")
    assert (status, "holds this host" in err) == (2, True)
    assert runs.finish(process)[0] == 0
    assert len(runs.read(tmp_path)[1]) == 41


def test_a_cell_without_one_valid_sample_fails_the_run(tmp_path: Path) -> None:
    """Also when there were too few rounds to abandon it."""
    path = runs.scenario(tmp_path, ("native",), command="/bin/busybox sh -c 'exit 7'", rounds=1)
    status, _, err = runs.benchbox(tmp_path, "run", path)
    assert status == 2
    assert "exit status 7" in err
    assert runs.read(tmp_path)[0].exit_state == "failed"


def test_what_a_native_sample_leaves_in_tmp_is_gone_for_the_next(tmp_path: Path) -> None:
    """Every sample finds an empty /tmp, as in a container and a guest."""
    command = "/bin/busybox sh -c 'busybox mkdir /tmp/once && exec /bin/ready'"
    status, _, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, command=command))
    assert status == 0, err


@pytest.mark.parametrize("environments", [("native",), ("container",)])
def test_when_the_supervisor_is_killed_the_worker_dies_and_clean_removes_the_rest(
    tmp_path: Path, environments: tuple[str, ...]
) -> None:
    """The worker dies with its supervisor; `clean` says what it removed, a second `clean` finds nothing."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, environments, command=runs.STAYS))
    worker = runs.worker_of(process)
    runs.eventually(lambda: runs.below(process, "sleep"))
    started = processes.start_time(worker)
    runs.kill(process.pid)
    runs.finish(process)
    runs.eventually(lambda: processes.start_time(worker) != started or processes.is_zombie(worker), timeout_s=5)
    processes.reap_orphans()
    status, out, _ = runs.benchbox(tmp_path, "clean")
    assert status == 0
    assert "removed cgroup" in out
    processes.reap_orphans()
    assert runs.benchbox(tmp_path, "clean")[1].strip() == "nothing to clean"


def test_clean_does_not_touch_a_run_that_lives_and_a_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    """While a run lives, `clean` leaves it alone and another run ends with 2 and names it."""
    path = runs.scenario(tmp_path, ("native",), command=runs.STAYS)
    process = runs.start(tmp_path, "run", path)
    runs.eventually(lambda: runs.below(process, "sleep"))
    run_id = runs.only_run(tmp_path).name
    assert f"{run_id}: lives, not touched" in runs.benchbox(tmp_path, "clean")[1]
    assert runs.below(process, "sleep")
    status, _, err = runs.benchbox(tmp_path, "run", path)
    assert status == 2
    assert run_id in err and str(process.pid) in err
    process.send_signal(signal.SIGINT)
    assert runs.finish(process)[0] == 130


def test_ctrl_c_keeps_what_was_measured_and_exits_130(tmp_path: Path) -> None:
    """After SIGINT the record is closed as interrupted, its samples are whole, the table is printed."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, rounds=500))
    runs.eventually(lambda: runs.samples_so_far(tmp_path) >= 20)
    process.send_signal(signal.SIGINT)
    status, out, _ = runs.finish(process)
    assert status == 130
    assert "native" in out
    manifest, samples = runs.read(tmp_path)
    assert manifest.exit_state == "interrupted"
    assert len(samples) >= 20


def test_a_second_ctrl_c_ends_a_run_that_does_not_stop(tmp_path: Path) -> None:
    """A worker that cannot end by itself (here: stopped) is killed by the second SIGINT."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, ("container",), command=runs.STAYS))
    worker = runs.worker_of(process)
    runs.eventually(lambda: runs.below(process, "sleep"))
    os.kill(worker, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert runs.finish(process, timeout_s=10)[0] == 130


def test_a_workload_that_exits_7_is_failed_with_7_and_abandoned(tmp_path: Path) -> None:
    """A cell that fails three times alike is not tried again; the run ends with 2 and says why."""
    path = runs.scenario(tmp_path, command="/bin/busybox sh -c 'exit 7'", rounds=5)
    status, _, err = runs.benchbox(tmp_path, "run", path)
    assert status == 2
    assert "abandoned" in err
    manifest, samples = runs.read(tmp_path)
    assert {(sample.status, sample.exit_code, sample.reason) for sample in samples} == {("failed", 7, "exit status 7")}
    assert [len([s for s in samples if s.environment == label]) for label in ("native", "container")] == [3, 3]
    assert {item.cell for item in manifest.abandoned} == {cell.id for cell in manifest.cells}


def test_a_broken_scenario_starts_nothing(tmp_path: Path) -> None:
    """The error names file, line, key and remedy; there is no results folder afterwards."""
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\nenvironments:\n  - natve\nworkloads: [startup]\n")
    status, out, err = runs.benchbox(tmp_path, "run", path)
    assert (status, out) == (2, "")
    assert "broken.yaml:3: environments[0]" in err
    assert "native" in err
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_cannot_be_written_starts_nothing(tmp_path: Path) -> None:
    """A file where the results folder should be: exit status 2, and a hint."""
    (tmp_path / "results").write_text("")
    status, _, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path))
    assert status == 2
    assert "results" in err and "next:" in err


def test_a_requirement_that_the_scenario_does_not_have_is_refused(tmp_path: Path) -> None:
    """--require of an unknown environment is a usage error."""
    status, _, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path), "--require", "oci")
    assert (status, "no such environment" in err) == (2, True)


def test_a_killed_worker_takes_a_booting_guest_with_it(tmp_path: Path, guest: dict[str, Any]) -> None:
    """SIGKILL of the worker while a guest boots: QEMU, its cgroup and its sockets are gone within 5 s."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, [guest]))
    worker = runs.worker_of(process)
    (emulator,) = runs.eventually(lambda: runs.below(process, "-kernel"))
    runs.kill(worker)
    killed_at = time.monotonic()
    status, _, _ = runs.finish(process)
    assert time.monotonic() - killed_at < 5.0
    assert status == 2
    assert processes.start_time(emulator) is None


def test_clean_ends_a_guest_whose_supervisor_was_killed(tmp_path: Path, guest: dict[str, Any]) -> None:
    """QEMU does not die with the supervisor (libvirt made it a daemon); `clean` finds and ends it."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, [guest]))
    (emulator,) = runs.eventually(lambda: runs.below(process, "-kernel"))
    runs.kill(process.pid)
    runs.finish(process)
    assert runs.benchbox(tmp_path, "clean")[0] == 0
    processes.reap_orphans()
    assert processes.start_time(emulator) is None or processes.is_zombie(emulator)
    runs.eventually(lambda: processes.reap_orphans() or processes.start_time(emulator) is None, timeout_s=5)


def test_a_delay_before_the_ready_byte_moves_ready_and_nothing_else(tmp_path: Path, guest: dict[str, Any]) -> None:
    """300 ms of sleep before the ready byte are 300 ms more of `startup.ready` in every environment."""
    delayed = "/bin/busybox sh -c 'busybox usleep 300000; exec /bin/ready'"
    prompt = "/bin/busybox sh -c 'busybox usleep 0; exec /bin/ready'"
    data: dict[str, Any] = {
        "workloads": [{"name": "command", "argv": command} for command in (prompt, delayed)],
        "rounds": 5,
    }
    status, _, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, ["native", "container", guest], **data))
    assert status == 0, err
    _, samples = runs.read(tmp_path)
    for label in ("native", "container", "vm"):
        moved = {stage: runs.moved_ms(samples, label, stage, prompt, delayed) for stage in ("exec", "ready")}
        assert moved["ready"] - moved["exec"] == pytest.approx(300, abs=60), (label, moved)


def test_kvm_that_cannot_be_had_fails_its_cell_and_no_other(tmp_path: Path, guest: dict[str, Any]) -> None:
    """`accelerator: kvm` where no guest boots with it: a message, the other cells measured, exit status 2."""
    path = runs.scenario(tmp_path, ["native", {"kind": "vm", "accelerator": "kvm"}], rounds=6)
    status, out, err = runs.benchbox(tmp_path, "run", path)
    manifest, samples = runs.read(tmp_path)
    found = {item.label: item for item in manifest.environments}
    if found["vm"].state == "measured":
        pytest.skip("KVM works on this host")
    assert status == 2
    assert found["vm"].state == "failed" and "KVM" in (found["vm"].reason or "")
    assert "vm" in out + err and "KVM" in out + err
    assert {sample.environment for sample in samples} == {"native"}


def test_auto_says_everywhere_that_it_emulates(tmp_path: Path, guest: dict[str, Any]) -> None:
    """With `auto` and no KVM the table, the record, the page and the export say emulation beside each number."""
    path = runs.scenario(tmp_path, ["native", "vm"], rounds=1)
    status, out, err = runs.benchbox(tmp_path, "run", path)
    assert status == 0, err
    manifest, samples = runs.read(tmp_path)
    if manifest.environments[1].applied["accelerator"] == "kvm":
        pytest.skip("KVM works on this host")
    assert "vm (emulated, TCG)" in out and "VM with KVM: not measured here" in out
    assert {s.flags["accelerator"] for s in samples if s.environment == "vm"} == {"tcg"}
    assert "vm (emulated, TCG)" in (tmp_path / "reports" / f"{manifest.run_id}.html").read_text()
    csv = runs.benchbox(tmp_path, "export", "latest")[1]
    assert all("accelerator=tcg" in line for line in csv.splitlines() if ",vm," in line)


def test_events_tell_a_whole_run(tmp_path: Path) -> None:
    """One JSON object a line on standard output and nothing else; the last says where record and page are."""
    status, out, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, rounds=2), "--json-events")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (status, err) == (0, "")
    assert sorted(set(kinds), key=kinds.index) == [kind for kind in EVENTS if kind != "abandoned"]
    assert sum(event["event"] == "sample" and event["round"] > 0 for event in events) == 4
    assert (events[-1]["state"], events[-1]["exit_status"]) == ("done", 0)
    assert (tmp_path / events[-1]["record"] / "manifest.json").exists()
    assert (tmp_path / events[-1]["page"]).exists()


def test_events_nobody_reads_do_not_end_a_run(tmp_path: Path) -> None:
    """A reader that goes away after the first line misses the rest; the record is whole."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, rounds=2), "--json-events")
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert runs.finish(process)[0] == 0
    manifest, samples = runs.read(tmp_path)
    assert (manifest.exit_state, len(samples)) == ("done", 6)


def test_the_cache_is_not_freed_while_a_run_lives(tmp_path: Path) -> None:
    """`image rm` then says who holds the host, and removes nothing."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, ("native",), rounds=10_000, settle_ms=20))
    runs.eventually(lambda: runs.samples_so_far(tmp_path) >= 2)
    status, out, err = runs.benchbox(tmp_path, "image", "rm", "store")
    process.send_signal(signal.SIGINT)
    assert runs.finish(process)[0] == 130
    assert (status, out) == (2, "")
    assert "another run holds this host" in err


def test_a_full_disk_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    """What was measured is in record and table; the reason and the next step stand last, and there is no traceback."""
    results = tmp_path / "results"
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", results], check=True)
    try:
        scenario = runs.scenario(tmp_path, ("native",), rounds=80, settle_ms=0)
        status, out, err = runs.benchbox(tmp_path, "run", scenario, "--quiet")
        assert status == 2
        assert "No space left on device" in err and "--results" in err
        assert "Traceback" not in out + err
        assert f"record  results/{runs.only_run(tmp_path).name}" in out
    finally:
        subprocess.run(["umount", results], check=True)


@pytest.mark.parametrize("variable", ["BENCHBOX_CACHE", "BENCHBOX_STATE"])
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """With the variable that names another; nothing was begun."""
    monkeypatch.setenv(variable, "/proc/benchbox")
    status, out, err = runs.benchbox(tmp_path, "run", runs.scenario(tmp_path, ("native",)), "--quiet")
    assert (status, out) == (2, "")
    assert "/proc/benchbox" in err and f"set {variable}" in err
    assert "Traceback" not in err
