"""What no ordinary development host can show: benchbox with real KVM through libvirt, and on pure cgroup v2.

Two hosts are emulated, one after the other: one whose first process is systemd, where benchbox runs in a scope with a
cgroup delegated to it, and one with a bare init. Times in there say nothing; that things work does.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import record
from benchbox.linux import processes
from benchbox.model import STAGES
from benchbox.record import CounterValue, Manifest, Sample
from tests.conftest import skip_unless_available
from tests.lab import disks, machine, tools
from tests.lab.disks import Disks
from tests.lab.machine import Init, Job, LabFailure

pytestmark = pytest.mark.lab

#: A host with a slower disk or CPU than the one that takes a third of it.
DEADLINE_S: Final = 1200.0
ROUNDS: Final = 2
#: Emulation is some 20 times slower than the hosts that the defaults are for.
PATIENT: Final = {"boot_timeout_s": 180, "proof_timeout_s": 120}
BENCHBOX: Final = "python3 -m benchbox.cli run"
#: How a user of systemd gives benchbox a cgroup of its own (docs/architecture.md).
DELEGATED: Final = "systemd-run --quiet --scope -p Delegate=yes"
CGROUP: Final = "/bin/busybox cat /proc/self/cgroup"
GREEDY: Final = "/bin/busybox sh -c 'a=aaaaaaaaaaaaaaaa; while :; do a=$a$a; done'"
MANY: Final = "/bin/busybox sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do busybox sleep 1 & done; wait'"


def scenario(name: str, **keys: Any) -> str:
    """Return a scenario file (JSON is YAML)."""
    data = {"name": name, "rounds": 1, "seed": 1, "resources": {"cpus": 1, "memory": "256MiB"}, "timeout_s": 60}
    return json.dumps({**data, "environments": ["native", "container"], "workloads": ["startup"], **keys})


def command(argv: str) -> dict[str, Any]:
    """Return a workload: a program that knows nothing of benchbox."""
    return {"name": "command", "argv": argv, "signals_ready": False}


#: The image of ``work``.
TOOLS: Final = "tools.tar"
KVM: Final = {"kind": "vm", "label": "vm-kvm", "accelerator": "kvm", **PATIENT}
AUTO: Final = {"kind": "vm", "label": "vm-auto", "accelerator": "auto", **PATIENT}
FILES: Final = {
    "startup.yaml": scenario("startup", rounds=ROUNDS, environments=["native", "container", KVM, AUTO]),
    "place.yaml": scenario("place", workloads=[command(CGROUP)]),
    "memory.yaml": scenario("memory", resources={"cpus": 1, "memory": "32MiB"}, workloads=[command(GREEDY)]),
    "pids.yaml": scenario("pids", resources={"cpus": 1, "memory": "64MiB", "pids": 5}, workloads=[command(MANY)]),
    "quota.yaml": scenario("quota", resources={"cpus": 1, "memory": "64MiB", "cpu_quota": 0.5}),
    "killed.yaml": scenario("killed", environments=[AUTO]),
    "work.yaml": scenario(
        "work",
        image={"tar": f"/lab/{TOOLS}"},
        timeout_s=180,
        environments=["native", {"kind": "container", "layer": "disk"}, {**KVM, "disk_cache": "none"}],
        workloads=[
            {"name": "cpu", "tool": "sha256"},
            {"name": "disk", "rw": "randwrite", "size_mib": 8, "seconds": 1},
        ],
    ),
}


def steps(init: Init) -> dict[str, str]:
    """Return the steps of a lab guest by name, in their order."""
    delegated = f"{DELEGATED} " if init == "systemd" else ""
    runs = ("startup", "place", "memory", "pids", "quota")
    found = {"before": "sh /lab/state"}
    found |= {name: f"{delegated}{BENCHBOX} /lab/{name}.yaml --results {name}" for name in runs}
    if init == "systemd":
        found["plain"] = f"{BENCHBOX} /lab/place.yaml --results plain"
    else:
        found["work"] = f"{BENCHBOX} /lab/work.yaml --results work"
        found["killed"] = "python3 /lab/kill-worker run /lab/killed.yaml --results killed"
    return {**found, "modules": "cat /proc/modules", "after": "sh /lab/state"}


def known(counter: CounterValue) -> float:
    """Return the value of a counter that must have one."""
    assert counter.value is not None, counter
    return counter.value


@dataclass(frozen=True)
class Host:
    """What one emulated host brought back."""

    init: Init
    job: Job

    def step(self, name: str) -> machine.Step:
        return self.job.steps[list(steps(self.init)).index(name)]

    def run(self, name: str) -> tuple[Manifest, list[Sample]]:
        """Return manifest and samples (of rounds 1 and up) of the run of step ``name``."""
        runs = record.list_runs(self.job.folder / name)
        assert len(runs) == 1, self.step(name).err
        return record.read_manifest(runs[0]), [item for item in record.read_samples(runs[0])[0] if item.round]

    def both(self, name: str) -> list[Sample]:
        """Return the samples of step ``name``: one of native, one of the container."""
        _, samples = self.run(name)
        assert sorted(item.environment for item in samples) == ["container", "native"]
        return samples

    def applied(self, label: str) -> dict[str, Any]:
        (found,) = (item for item in self.run("startup")[0].environments if item.label == label)
        assert found.state == "measured", f"{found.reason} ({found.fix})"
        return dict(found.applied)


@pytest.fixture(scope="module")
def found() -> Disks:
    skip_unless_available("lab", disks.availability())
    return disks.kept()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.archive(tmp_path_factory.mktemp("tools") / TOOLS)


@pytest.fixture(scope="module", params=["bare", "systemd"])
def host(
    request: pytest.FixtureRequest, found: Disks, wheel: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """Each of the two hosts, booted once for all tests; who else measures on this one does not matter to it."""
    init: Init = request.param
    folder = tmp_path_factory.mktemp(init)
    job = machine.boot(found, init, list(steps(init).values()), {**FILES, TOOLS: archive}, folder, wheel, DEADLINE_S)
    assert not processes.with_argument(str(folder)), "the lab's own QEMU is still there"
    print(f"{init}: {job.took_s:.0f} s; " + ", ".join(f"{step.command}: {step.took_s:.0f} s" for step in job.steps))
    yield Host(init, job)


def test_the_host_is_what_the_lab_is_for(host: Host) -> None:
    """Real kvm_amd, a device that opens, pure cgroup v2 with the controllers that limits need."""
    manifest, _ = host.run("startup")
    assert "kvm_amd " in host.step("modules").out
    assert manifest.host["kvm"]["usable"] is True
    assert manifest.host["cgroups"]["mode"] == "v2"
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(manifest.host["cgroups"]["v2"])
    assert ("systemd" in host.job.console) == (host.init == "systemd")


def test_every_sample_of_the_startup_scenario_is_good(host: Host) -> None:
    """Native, container and both kinds of guest, each round, table and page included."""
    step = host.step("startup")
    assert step.status == 0, step.err
    manifest, samples = host.run("startup")
    assert manifest.exit_state == "done"
    assert [(item.status, item.reason) for item in samples] == [("ok", None)] * len(samples)
    assert len(samples) == 4 * ROUNDS
    assert "vm-kvm (KVM)" in step.out and "vm-auto (KVM)" in step.out
    assert list((host.job.folder / "reports").glob("startup-*.html"))


@pytest.mark.parametrize("label", ["vm-kvm", "vm-auto"])
def test_the_manifest_says_kvm_and_has_the_proof(host: Host, label: str) -> None:
    """Asked for or found out: a stock guest of the host's own kernel booted with it; libvirt and QEMU both say so."""
    applied = host.applied(label)
    assert applied["accelerator"] == applied["accelerator_proof"]["accelerator"] == "kvm"
    evidence = applied["accelerator_proof"]["evidence"]
    assert (evidence["domain_type"], evidence["query_kvm_enabled"]) == ("kvm", True)
    assert evidence["cpu_mode"] == "host-passthrough"
    assert applied["kernel"]["same_as_host"] is True
    assert applied["kernel"]["source"] == "host"


@pytest.mark.parametrize("label", ["vm-kvm", "vm-auto"])
def test_each_guest_says_itself_that_it_runs_on_kvm(host: Host, label: str) -> None:
    """The live domain, QEMU's query-kvm, the guest's CPUID and its clock; every stage, in order."""
    samples = [item for item in host.run("startup")[1] if item.environment == label]
    assert len(samples) == ROUNDS
    for sample in samples:
        assert sample.flags["accelerator"] == "kvm"
        domain, guest = sample.applied["domain"], sample.applied["guest"]
        assert (domain["domain_type"], domain["query_kvm_enabled"], domain["cpu_mode"]) == (
            "kvm", True, "host-passthrough",
        )  # fmt: skip
        assert (guest["hypervisor"], guest["clocksource"]) == ("KVMKVMKVM", "kvm-clock")
        assert tuple(sample.stages) == tuple(name for name in STAGES if name in sample.stages)
        assert {"cgroups", "started", "agent", "exec", "ready", "exited", "cleaned"} == set(sample.stages)
        assert list(sample.stages.values()) == sorted(sample.stages.values())


def test_a_cpu_and_a_disk_are_measured_on_kvm(host: Host) -> None:
    """Tools of the distribution, natively, in a container and in a guest that kvm_amd runs, from one image; what was
    written reached the guest's virtio disk and the device behind it."""
    if host.init == "systemd":
        pytest.skip("one host is enough")
    step = host.step("work")
    assert step.status == 0, step.err
    _, samples = host.run("work")
    assert [(item.status, item.reason) for item in samples] == [("ok", None)] * 6
    found = {(item.environment, item.workload): item for item in samples}
    for label in ("native", "container", "vm-kvm"):
        cpu, disk = found[label, "cpu"], found[label, "disk"]
        assert cpu.metrics["cpu.sha256"].value > 0
        assert disk.metrics["disk.write.iops"].value > 0
        assert disk.metrics["disk.write.on_device"].value > 0.9
        rate, writes = cpu.metrics["cpu.sha256"].value, disk.metrics["disk.write.iops"].value
        print(f"{label}: SHA-256 of {rate:.3g} B/s, {writes:.3g} writes/s")
    for workload in ("cpu", "disk"):
        sample = found["vm-kvm", workload]
        assert sample.flags["accelerator"] == "kvm"
        assert sample.applied["domain"]["query_kvm_enabled"] is True
        assert sample.applied["guest"]["hypervisor"] == "KVMKVMKVM"
    assert "vm-kvm (KVM)" in step.out


def test_the_proof_is_made_once(host: Host) -> None:
    """The second environment takes the answer of the first from the cache, the very same boot."""
    first, second = host.applied("vm-kvm"), host.applied("vm-auto")
    assert first["accelerator_proof"] == second["accelerator_proof"]
    account = {item.label: item.account for item in host.run("startup")[0].environments}
    looked_up, proved = (known(account[label]["prepare.accelerator"]) for label in ("vm-auto", "vm-kvm"))
    assert looked_up * 10 < proved


def test_everything_is_accounted_by_cgroup_v2(host: Host) -> None:
    """CPU time, memory and I/O of native, container and the whole QEMU, from the same files."""
    for sample in host.run("startup")[1]:
        counters = sample.counters
        assert {"cpu.usage", "cpu.user", "cpu.system", "memory.peak", "io.read", "io.write"} <= set(counters)
        assert known(counters["cpu.usage"]) > 0 and known(counters["memory.peak"]) > 0
        own = {
            name: item for name, item in counters.items() if name.startswith(("cpu.", "memory.", "io.", "pressure."))
        }
        assert [name for name, item in own.items() if not item.source.startswith("cgroup2 ")] == []
        assert sample.applied["cpus"] == "0"


def test_groups_are_made_where_they_were_delegated(host: Host) -> None:
    """With systemd in the scope's own cgroup; with a bare init, and without delegation, in the root of the tree."""
    places = {"place": r"0::/system.slice/run-" if host.init == "systemd" else "0::/benchbox-"}
    places |= {"plain": "0::/benchbox-"} if host.init == "systemd" else {}
    for name, beginning in places.items():
        step = host.step(name)
        assert step.status == 0, step.err
        samples = host.both(name)
        output = {item.environment: item.output_tail for item in samples}
        assert output["native"].startswith(beginning) and "/benchbox-" in output["native"]
        assert output["container"] == "0::/\n"


def test_memory_is_limited_and_an_end_by_it_is_named(host: Host) -> None:
    """By the kernel's own counter, in native and container alike; the failed cells fail the run."""
    step = host.step("memory")
    assert step.status == 2, step.err
    for sample in host.both("memory"):
        assert sample.status == "failed" and "memory" in (sample.reason or ""), sample.reason
        assert known(sample.counters["memory.oom_kills"]) >= 1
        assert sample.applied["memory_bytes"] == 32 << 20


def test_processes_are_limited(host: Host) -> None:
    """More than the limit cannot be started, and the command notices."""
    for sample in host.both("pids"):
        assert sample.applied["pids"] == 5
        assert "can't fork" in sample.output_tail


def test_a_cpu_quota_is_in_force(host: Host) -> None:
    """Read back from cpu.max."""
    step = host.step("quota")
    assert step.status == 0, step.err
    samples = host.both("quota")
    assert {sample.applied["cpu_quota"] for sample in samples} == {0.5}
    assert {sample.status for sample in samples} == {"ok"}


def test_nothing_is_left_on_the_host(host: Host) -> None:
    """No cgroup, mount, folder or process of benchbox, QEMU or libvirt after all of it."""
    before, after = (Counter(host.step(name).out.splitlines()) for name in ("before", "after"))
    assert before, "nothing was looked at"
    assert sorted((after - before).elements()) == []


def test_a_worker_that_is_killed_beside_a_kvm_guest_leaves_nothing(host: Host) -> None:
    """The supervisor ends QEMU and removes the rest; the run ends with 2 at once."""
    if host.init == "systemd":
        pytest.skip("one host is enough")
    step = host.step("killed")
    assert step.status == 0, step.err
    assert step.out.splitlines()[-1].startswith("exit status 2 after ")
    assert float(step.out.split()[-2]) < 30
    assert "SIGKILL" in step.err


def test_a_job_that_does_not_end_is_ended_and_shows_its_console(found: Disks, wheel: Path, tmp_path: Path) -> None:
    """A lab that hangs is a failure with the end of its console, within its deadline, and its QEMU is gone."""
    with pytest.raises(LabFailure, match=r"not done after 15 s(?s:.)*sleep 1000"):
        machine.boot(found, "bare", ["sleep 1000"], {}, tmp_path, wheel, 15)
    assert not processes.with_argument(str(tmp_path))


def test_a_step_that_fails_says_so(found: Disks, wheel: Path, tmp_path: Path) -> None:
    """Status and words of a step come out as they were."""
    (step,) = machine.boot(found, "bare", ["echo out; echo err >&2; exit 7"], {}, tmp_path, wheel, 120).steps
    assert (step.status, step.out, step.err) == (7, "out\n", "err\n")
