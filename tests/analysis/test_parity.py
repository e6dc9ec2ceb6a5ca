"""Like for like? Differences are found, named, and void what they void; what is unknown is not equal."""

from typing import Any

import pytest

from benchbox.analysis.parity import Parity, metric_scopes, parity
from benchbox.analysis.samples import take
from benchbox.record import EnvironmentRecord, Sample
from tests.report.records import STAGES_NS, environment, manifest, sample

HOST: dict[str, Any] = {
    "kernel": {"release": "6.1.0", "version": "#1", "clock_source": "tsc"},
    "cpu": {"model": "EPYC", "flags_digest": "f" * 64},
    "mitigations": {"spectre_v2": "Mitigation: Retpolines", "meltdown": "Not affected"},
}
LIMITS = {"cpus": "1", "memory_bytes": 1 << 28, "pids": 512, "cpu_quota": None}
PLAIN = {**LIMITS, "seccomp": "off", "capabilities": "ff", "no_new_privs": False}
BOXED = {**LIMITS, "seccomp": "filter", "capabilities": "5fb", "no_new_privs": True}
GUEST: dict[str, Any] = {
    **LIMITS,
    "memory_bytes": None,
    "pids": None,
    "domain": {"cpu_mode": "host-passthrough", "memory_bytes": 1 << 28, "cmdline": "quiet"},
    "guest": {"memory_bytes": 220 << 20},
}


def guest(**applied: Any) -> EnvironmentRecord:
    kernel = {"release": "6.1.0", "version": "#1", "same_as_host": True}
    return environment("vm", applied={"kernel": kernel, "accelerator": "kvm", "cgroups": "v2", **applied})


def compared(
    vm: EnvironmentRecord | None = None, changed: dict[str, dict[str, Any]] | None = None, **host: Any
) -> Parity:
    """Return the parity of a run with native, container and guest; ``changed`` is laid over what samples had."""
    records = [
        environment("native", applied={"root": "read-only bind", "cgroups": "v2"}),
        environment("container", applied={"root": "overlay", "cgroups": "v2", "network": "of its own"}),
        vm or guest(),
    ]
    applied = {"native": PLAIN, "container": BOXED, "vm": GUEST}
    samples = [
        sample(label, number, applied=applied[label] | (changed or {}).get(label, {}))
        for number in range(1, 4)
        for label in applied
    ]
    return parity(manifest(records=records, host=HOST | host), take(samples).by_cell)


def state(found: Parity, aspect: str, label: str) -> str:
    (entry,) = [e for a in found.aspects if a.name == aspect for e in a.entries if e.label == label]
    return entry.state


def test_a_guest_with_the_hosts_kernel_and_cpu_is_like_for_like() -> None:
    """What is left is the isolation itself, which is what is compared."""
    found = compared()
    assert found.alike
    assert found.headline.startswith("Like for like: yes, but for the isolation itself. Not known: ")
    assert state(found, "kernel", "vm") == state(found, "CPU", "vm") == state(found, "memory", "vm") == "same"
    assert state(found, "execution", "vm") == state(found, "capabilities", "container") == "by design"
    assert state(found, "system call filter", "container") == "by design"
    assert found.voided("vm", "startup.ready") == found.voided("container", "startup.ready") == ()


def test_where_a_guest_has_its_root_and_what_is_cached_of_it_is_said() -> None:
    """In memory or on a disk: a part of what is compared, and it voids nothing by itself."""
    disk = {"domain": {**GUEST["domain"], "root_disk": "virtio, raw, cache none, read-only"}}
    found = compared(guest(root="ext4 disk"), {"vm": disk})
    (root,) = [entry for aspect in found.aspects if aspect.name == "root file system" for entry in aspect.entries[-1:]]
    (cache,) = [entry for aspect in found.aspects if aspect.name == "cache" for entry in aspect.entries[-1:]]
    assert (root.value, root.state) == ("ext4 disk", "by design")
    assert cache.value.startswith("the host's disk") and cache.state == "by design"
    memory = compared(guest(root="initramfs, in the guest's memory"))
    (cache,) = [entry for aspect in memory.aspects if aspect.name == "cache" for entry in aspect.entries[-1:]]
    assert cache.value == "the guest's own memory"


def siblings(base: dict[str, Any], other: dict[str, Any], **options: Any) -> Parity:
    """Return how an environment with ``options`` and the values ``other`` compares with one of its kind without."""
    kind = "vm" if "domain" in base else "container"
    left_out = {"left_out": {part: "less" for part in options.get("without", ())}}
    records = [
        environment("plain", kind=kind, applied={"accelerator": "kvm"}),
        environment("other", kind=kind, options=options, applied={"accelerator": "kvm", **left_out}),
    ]
    samples = [
        sample(label, number, stages_ns=STAGES_NS[kind], applied=applied)
        for number in range(1, 4)
        for label, applied in (("plain", base), ("other", other))
    ]
    return parity(manifest(records=records, host=HOST, baseline="plain"), take(samples).by_cell)


def test_a_guest_s_own_memory_and_processor_are_what_is_compared() -> None:
    """Beside another guest, for the option of the one says so; the same values without it are a difference."""
    larger = {**GUEST, "domain": {**GUEST["domain"], "memory_bytes": 1 << 30}}
    assert state(siblings(GUEST, larger, memory=1 << 30), "memory", "other") == "by design"
    assert state(siblings(GUEST, larger), "memory", "other") == "differs"
    older = {**GUEST, "domain": {**GUEST["domain"], "cpu_mode": "custom", "cpu_model": "qemu64"}}
    assert state(siblings(GUEST, older, cpu_model="qemu64"), "CPU", "other") == "by design"
    assert not siblings(GUEST, older, cpu_model="qemu64").voided("other", "sysbench.rate")


def test_a_container_without_limits_is_what_is_compared_beside_a_container() -> None:
    """And a difference where nobody left them out."""
    unlimited = {**BOXED, "memory_bytes": None}
    assert state(siblings(BOXED, unlimited, without=["limits"]), "memory", "other") == "by design"
    assert state(siblings(BOXED, unlimited), "memory", "other") == "differs"


def test_a_guest_s_own_memory_beside_native_is_a_difference() -> None:
    """Asked for or not: it is not the isolation."""
    own = environment("vm", options={"memory": 1 << 30}, applied=guest().applied)
    larger = {"domain": {**GUEST["domain"], "memory_bytes": 1 << 30}}
    assert state(compared(own, {"vm": larger}), "memory", "vm") == "differs"


def test_namespaces_that_were_granted_are_named() -> None:
    """Those of the host by native, fewer ones by design."""
    names = ["cgroup", "pid"]
    found = compared(changed={"native": {"namespaces": []}, "container": {"namespaces": names}})
    (aspect,) = [each for each in found.aspects if each.name == "namespaces"]
    assert [(e.value, e.state) for e in aspect.entries][:2] == [("the host's", "same"), ("cgroup, pid", "by design")]


def test_another_kernel_voids_verdicts_on_kernel_bound_metrics() -> None:
    """A start is one; and it is only the guest that is meant."""
    other = guest(kernel={"release": "5.10.0", "version": "#9", "same_as_host": False})
    found = compared(other)
    assert not found.alike
    assert found.headline.startswith("Like for like: no: vm in kernel")
    assert found.voided("vm", "startup.ready") == ("kernel",)
    assert found.voided("container", "startup.ready") == ()
    (kernel,) = [aspect for aspect in found.aspects if aspect.name == "kernel"]
    assert [entry.value for entry in kernel.entries] == ["6.1.0, #1", "6.1.0, #1", "5.10.0, #9"]
    assert kernel.voids.startswith("verdicts on kernel-bound metrics")


def test_the_same_release_in_another_build_is_another_kernel() -> None:
    """A name proves nothing."""
    other = guest(kernel={"release": "6.1.0", "version": "#1 rebuilt", "same_as_host": False})
    assert state(compared(other), "kernel", "vm") == "differs"


def test_emulation_voids_everything() -> None:
    """It is no matter of design."""
    found = compared(guest(accelerator="tcg"))
    assert state(found, "execution", "vm") == "differs"
    assert "execution" in found.voided("vm", "startup.ready") and "execution" in found.voided("vm", "any")


def test_another_cpu_voids_cpu_bound_metrics_only() -> None:
    """A start is the kernel's work."""
    found = compared(changed={"vm": {"domain": {**GUEST["domain"], "cpu_mode": "custom"}}})
    assert found.voided("vm", "sort.time") == ("CPU",)
    assert found.voided("vm", "startup.ready") == ()


def test_other_cpus_or_less_memory_void_everything() -> None:
    """They are limits that were to be the same."""
    found = compared(changed={"container": {"cpus": "0", "memory_bytes": 1 << 20}})
    assert found.voided("container", "startup.ready") == ("CPUs used", "memory")


def test_what_changed_between_samples_is_a_difference() -> None:
    """Even in the baseline itself."""
    records = [environment("native")]
    samples: list[Sample] = [sample("native", n, applied=PLAIN | {"cpus": str(n % 2)}) for n in range(1, 5)]
    found = parity(manifest(("native",), records=records), take(samples).by_cell)
    (cpus,) = [aspect for aspect in found.aspects if aspect.name == "CPUs used"]
    assert cpus.entries[0].state == "differs"
    assert cpus.entries[0].value == "differs between samples: CPU 1, CPU 0"


def test_what_the_record_does_not_say_is_unknown_and_voids_nothing() -> None:
    """Unknown is neither the same nor different."""
    found = compared()
    assert (
        state(found, "mitigations", "vm") == state(found, "CPU flags", "vm") == state(found, "user", "vm") == "unknown"
    )
    assert "vm in mitigations, CPU flags" in found.headline and "all in namespaces, user" in found.headline


def test_mitigations_switched_off_on_the_guests_command_line_are_a_difference() -> None:
    """It is the one thing that is known of them from outside."""
    found = compared(changed={"vm": {"domain": {**GUEST["domain"], "cmdline": "quiet mitigations=off"}}})
    assert found.voided("vm", "startup.ready") == ("mitigations",)


def test_a_filter_is_named_by_its_state() -> None:
    """Both say what they had."""
    (aspect,) = [aspect for aspect in compared().aspects if aspect.name == "system call filter"]
    assert [(entry.label, entry.value) for entry in aspect.entries][:2] == [("native", "off"), ("container", "filter")]


def test_environments_that_were_not_measured_are_not_compared() -> None:
    """A skipped one has nothing to compare; with none at all that is said."""
    records = [environment("native"), environment("lxc", state="skipped", reason="not here")]
    found = parity(manifest(("native",), records=records), take([sample("native", 1)]).by_cell)
    assert {entry.label for aspect in found.aspects for entry in aspect.entries} == {"native"}
    nothing = parity(manifest(("native",), records=[]), {})
    assert nothing.headline == "Like for like: nothing was measured."


def test_what_was_read_back_once_stands_in_for_what_samples_do_not_say() -> None:
    """A container that another program makes is looked at once a session; what samples say comes first."""
    once = {"seccomp": "filter", "capabilities": "5fb", "cpus": "9"}
    records = [environment("native"), environment("container", applied={"read_back": once})]
    plain = {"cpus": "1", "seccomp": "off"}
    samples = [sample("native", 1, applied=plain), sample("container", 1, applied={"cpus": "1"})]
    found = parity(manifest(("native", "container"), records=records), take(samples).by_cell)
    assert state(found, "CPUs used", "container") == "same"
    (entry,) = [e for a in found.aspects if a.name == "system call filter" for e in a.entries if e.label == "container"]
    assert entry.value == "filter"


def test_a_metric_depends_on_what_its_workload_asks_of() -> None:
    """Computing on the processor, a request on the kernel as well; what has a start in it on the kernel too."""
    assert metric_scopes("startup.ready") == metric_scopes("floor.elapsed") == ("kernel",)
    assert metric_scopes("cpu.sha256") == ("cpu",)
    assert metric_scopes("kernel.switch") == ("kernel", "cpu")
    assert metric_scopes("memory.touch") == ("kernel", "cpu", "memory")
    assert set(metric_scopes("cpu.elapsed")) == set(metric_scopes("cpu.per_cpu_s")) == {"kernel", "cpu"}
    assert set(metric_scopes("command.rate")) == {"kernel", "cpu", "memory", "files"}


def written(**vm: Any) -> Parity:
    """Return the parity of a run whose samples have a /data, the guest's as ``vm`` says."""
    folder = {"data": "bind of a fresh folder on ext4, vda"}
    domain = {**GUEST["domain"], "data_disk": "virtio, raw, cache none, io native", **vm}
    guest_s = {"data": "ext4 on a disk whose file lies on ext4, vda", "domain": domain}
    return compared(changed={"native": folder, "container": folder, "vm": guest_s})


def test_a_disk_is_what_is_compared_with_a_folder() -> None:
    """It is told how the host's cache is left out; nothing is void for it."""
    found = written()
    assert state(found, "data folder", "container") == "same"
    assert state(found, "data folder", "vm") == "by design"
    assert "data folder" not in found.voided("vm", "disk.write.bandwidth")
    assert state(compared(), "data folder", "vm") == "same"


def test_a_disk_that_drops_flushes_voids_what_is_said_of_files() -> None:
    """Sabotage: cache unsafe, which no interval and no speed shows; beside another guest, too."""
    found = written(data_disk="virtio, raw, cache unsafe, io threads")
    assert state(found, "data folder", "vm") == "differs"
    assert "data folder" in found.voided("vm", "disk.write.bandwidth")
    assert "data folder" not in found.voided("vm", "startup.ready")
    both = [
        {**GUEST, "data": "x", "domain": {**GUEST["domain"], "data_disk": f"cache {m}"}} for m in ("none", "unsafe")
    ]
    assert state(siblings(both[0], both[1], disk_cache="unsafe"), "data folder", "other") == "differs"


def linked(*paths: tuple[str, str]) -> Parity:
    """Return how native compares with itself by other ways to the client."""
    records = [
        environment(label, kind="native", applied={"link": {"path": path, "end": end, "address": label}})
        for label, (path, end) in zip(("native", "other"), paths, strict=True)
    ]
    samples = [
        sample(label, number, applied=PLAIN, stages_ns=STAGES_NS["native"])
        for number in (1, 2)
        for label in ("native", "other")
    ]
    return parity(manifest(records=records, host=HOST), take(samples).by_cell)


def test_loopback_beside_a_bridge_voids_what_a_client_saw_and_nothing_else() -> None:
    """Address translation, a bridge and loopback cost more than the isolation that is compared."""
    found = linked(("bridge", "veth"), ("host", "loopback"))
    assert state(found, "way to the client", "other") == "differs"
    for metric in ("network.throughput", "redis.rate", "nginx.latency.p99"):
        assert found.voided("other", metric) == ("way to the client",)
    assert found.voided("other", "startup.ready") == found.voided("other", "sqlite.rate") == ()
    assert found.headline.startswith("Like for like: no: other in way to the client.")


def test_a_tap_beside_a_veth_on_one_bridge_is_the_isolation_itself() -> None:
    """A guest has no other end."""
    found = linked(("bridge", "veth"), ("bridge", "tap"))
    assert found.alike and found.voided("other", "network.throughput") == ()


def test_who_serves_nobody_is_not_asked_for_a_way() -> None:
    """A row of unknown values would say nothing."""
    assert "way to the client" not in [aspect.name for aspect in compared().aspects]


def looked_at(**outside: str) -> Parity:
    """Return how an environment compares of whose memory something is not counted, both looked at while they live."""
    records = [environment("native"), environment("other", kind="docker", applied=outside)]
    samples = [
        sample(label, number, applied={**PLAIN, "memory_sharing": {"ksm": "off"}}, stages_ns=STAGES_NS["native"])
        for number in (1, 2)
        for label in ("native", "other")
    ]
    return parity(manifest(records=records, host=HOST), take(samples).by_cell)


def test_memory_that_is_not_in_the_account_voids_what_the_account_says() -> None:
    """And no more than that: an engine's process for each container is in a group of the engine's."""
    found = looked_at(memory_outside="its helper")
    assert state(found, "account of memory", "other") == "differs"
    assert "account of memory" in found.voided("other", "density.cgroup")
    assert "account of memory" not in found.voided("other", "cpu.sha256")
    assert state(looked_at(), "account of memory", "other") == "same"
    assert "account of memory" not in [aspect.name for aspect in compared().aspects]


FLAGS = ["aes", "avx", "avx2", "sse2", "vmx", "arch_capabilities"]


def inside(cpu: list[str] | None = None, **guest: Any) -> Parity:
    """Return the parity of a run whose guest says of itself what is in ``guest`` and the flags ``cpu``."""
    said = {**GUEST["guest"], **({"cpu_flags": " ".join(sorted(cpu))} if cpu else {}), **guest}
    host: dict[str, Any] = {"cpu": {**HOST["cpu"], "flags": FLAGS}, "memory": {"transparent_huge_pages": "madvise"}}
    return compared(None, {"vm": {"guest": said}}, **host)


def value(found: Parity, aspect: str, label: str = "vm") -> str:
    (entry,) = [e for a in found.aspects if a.name == aspect for e in a.entries if e.label == label]
    return entry.value


def test_flags_that_programs_compute_with_are_compared_by_the_guest_s_own_word() -> None:
    """A guest is one by its flags, and has not those for guests of its own: that is no difference."""
    found = inside(["aes", "avx", "avx2", "sse2", "hypervisor"])
    assert state(found, "CPU flags", "vm") == "same" and "CPU flags" not in found.voided("vm", "cpu.sha256")
    assert state(found, "CPU flags", "container") == "same"


def test_a_flag_that_a_guest_lacks_is_named_and_voids_computing() -> None:
    """Sabotage: the default model of a bare QEMU, 55 % less in published numbers. Or more than the host has."""
    found = inside(["sse2", "hypervisor"])
    assert value(found, "CPU flags") == "without aes, avx, avx2"
    assert "CPU flags" in found.voided("vm", "cpu.sha256") and "CPU flags" not in found.voided("vm", "startup.ready")
    assert value(inside([*FLAGS, "fma"]), "CPU flags") == "besides fma"


def test_mitigations_are_compared_by_what_is_done_not_by_remarks() -> None:
    """A guest does not know whether its host has sibling threads, and a weakness of guests of its own is none."""
    alike = {"spectre_v2": "Mitigation: Retpolines; SMT unknown", "meltdown": "Not affected", "itlb": "KVM: Vulnerable"}
    assert state(inside(mitigations=alike), "mitigations", "vm") == "same"
    for other in ("Mitigation: Enhanced IBRS", "Vulnerable"):
        found = inside(mitigations={**alike, "spectre_v2": other})
        assert found.voided("vm", "startup.ready") == found.voided("vm", "kernel.switch") == ("mitigations",)
        assert found.voided("vm", "cpu.sha256") == ()


def test_other_huge_pages_void_what_is_said_of_memory() -> None:
    """Sabotage: a guest whose kernel gives them to everybody. Where nobody says anything there is no such row."""
    assert state(inside(huge_pages="madvise"), "huge pages", "vm") == "same"
    found = inside(huge_pages="always")
    assert found.voided("vm", "memory.touch") == found.voided("vm", "redis.rate") == ("huge pages",)
    assert found.voided("vm", "startup.ready") == found.voided("vm", "cpu.sha256") == ()
    assert "huge pages" not in [aspect.name for aspect in compared().aspects]


@pytest.mark.parametrize("cpus", ["0-4000000000", "all of them", "9" * 5000, 7, None, ["0"]])
def test_a_list_of_cpus_that_is_none_is_said_as_it_is(cpus: object) -> None:
    """A record may be a stranger's: it neither ends the report nor takes its memory."""
    domain = {**GUEST["domain"], "vcpus": 1}
    assert compared(changed={"vm": {"cpus": cpus, "domain": domain}}).headline


def test_fewer_virtual_cpus_than_cpus_are_other_cpus() -> None:
    """Sabotage: one, on the two CPUs of the others. As many as there are say nothing, and as an option it is meant."""

    def used(vcpus: int) -> Parity:
        domain = {**GUEST["domain"], "vcpus": vcpus}
        two = {"cpus": "0-1"}
        return compared(changed={"native": two, "container": two, "vm": {**two, "domain": domain}})

    assert "CPUs used" not in used(2).voided("vm", "cpu.sha256")
    assert "CPUs used" in used(1).voided("vm", "cpu.sha256")
    assert value(used(1), "CPUs used") == "CPU 0-1, as 1 virtual"
    one = {**GUEST, "domain": {**GUEST["domain"], "vcpus": 1}}
    two = {**GUEST, "domain": {**GUEST["domain"], "vcpus": 2}}
    assert state(siblings(one, two, vcpus=2), "CPUs used", "other") == "by design"
