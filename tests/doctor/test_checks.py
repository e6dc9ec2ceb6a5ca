"""Each check, on a host where all is well but one thing."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from benchbox.doctor import examine, look
from benchbox.doctor import text as text_of_report
from benchbox.doctor.checks import memory, quiet, storage
from benchbox.doctor.facts import Busy, Facts, GuestTrial, Runs
from benchbox.doctor.findings import Finding
from benchbox.doctor.table import TABLE
from benchbox.model import Availability, Resources
from benchbox.units import format_size
from benchbox.virt.accelerator import Proof
from tests.doctor.hosts import BROKEN, GIB, PERFECT, guests, host, noise, place, settings

PROJECT: Final = Path(__file__).parents[2]
NO: Final = Availability.no("a reason", "a fix")
CPU: Final = "/sys/devices/system/cpu"


def finding(facts: Facts, name: str) -> Finding:
    (found,) = [item for item in examine(facts).findings if item.id == name]
    return found


def trial(state: str = "measured", **fields: object) -> Facts:
    return guests(proof=None, trial=GuestTrial(state, "a reason", **fields))  # type: ignore[arg-type]


def busy(*items: Busy) -> Facts:
    return noise({}, busy=items)


def test_a_perfect_host_has_nothing_but_good_findings() -> None:
    """No check complains about what is as it should be."""
    report = examine(PERFECT)
    assert {item.id: item.found for item in report.findings if item.severity != "ok"} == {}
    assert report.verdict == "this host can measure: native, container, vm (KVM)"


def test_every_check_finds_what_is_wrong() -> None:
    """No check is content with a host on which all is wrong, but where nothing was seen of it."""
    content = {item.id for item in examine(BROKEN).findings if item.severity == "ok"}
    assert content == {"kvm.device", "kvm.api"}


def test_every_check_has_a_name_of_its_own_and_one_sentence_of_reason() -> None:
    """Ids are unique, titles fit beside the finding, reasons end with the only full stop that is followed by none."""
    assert len({check.id for check in TABLE}) == len(TABLE)
    assert [check.id for check in TABLE if len(check.title) > 20] == []
    assert [check.id for check in TABLE if not check.why.endswith(".") or ". " in check.why] == []


@pytest.mark.parametrize(
    ("name", "facts", "severity", "found", "fix"),
    [
        ("kvm.device", guests(device=NO), "warning", "a reason", "a fix"),
        ("kvm.api", guests(api_version=None), "warning", "no answer", "use another host"),
        ("kvm.api", guests(api_version=11), "warning", "version 11, expected 12", "use another host"),
        ("kvm.guest", guests(proof=None), "info", "not tried", "benchbox doctor --boot"),
        ("kvm.guest", guests(proof=Proof("tcg", "it hung")), "warning", "does not boot: it hung", "use a host whose"),
        ("kvm.guest", trial(accelerator="kvm", ready_s=0.5), "ok", "boots: a reason, ready 500 ms after", None),
        ("kvm.guest", trial(accelerator="tcg"), "warning", "does not boot: a reason", "use a host whose KVM"),
        ("kvm.guest", trial("failed"), "warning", "not known: a reason", "benchbox doctor --boot"),
        ("kvm.boot_sector", trial(accelerator="tcg", boot_sector=True), "ok", "512 bytes", None),
        ("kvm.boot_sector", trial(accelerator="tcg", boot_sector=False), "warning", "not even 512", "use a host"),
        ("vm.emulated", trial(accelerator="tcg", ready_s=2.0), "ok", "boots under emulation, ready 2.00 s", None),
        ("vm.emulated", trial("failed"), "warning", "a reason", None),
        ("vm.emulated", trial("untried"), "info", "a reason", "benchbox doctor --boot"),
        ("kvm.nested", host(virtualisation={"virtual": True, "hypervisor": "xen"}), "info", "(xen)", None),
        ("qemu.program", guests(emulator=NO), "warning", "a reason", "a fix"),
        ("libvirt.package", guests(package=NO), "warning", "a reason", "a fix"),
        ("libvirt.driver", guests(driver=NO), "warning", "a reason", "a fix"),
        ("vm.kernel", guests(kernel=NO, kernel_source=None), "warning", "a reason", "a fix"),
        ("vm.kernel", guests(kernel_source=None), "info", "downloads the distribution's", None),
        ("vm.kernel", guests(kernel_source="distribution"), "info", "the distribution's, /boot/vmlinuz", None),
        ("benchbox.programs", replace(PERFECT, programs=NO), "blocker", "a reason", "a fix"),
        ("cgroup.mode", host(cgroups={"mode": None}), "blocker", "no cgroup", "mount -t cgroup2 none /sys/fs/cgroup"),
        ("cgroup.mode", host(cgroups={"mode": "hybrid"}), "info", "hybrid", None),
        ("cgroup.rights", replace(PERFECT, cgroups=NO), "warning", "a reason", "a fix"),
        ("cgroup.controllers", host(cgroups={"v2": ["cpu", "memory"]}), "warning", "no cpuset: no CPUs", "Delegate="),
        ("kernel.user_namespaces", settings(userns_max=None), "info", "has none", "CONFIG_USER_NS"),
        ("kernel.user_namespaces", settings(userns_max=0), "info", "switched off", "sysctl user.max_user_names"),
        ("kernel.user_namespaces", settings(userns_clone=0), "info", "root only", "unprivileged_userns_clone=1"),
        ("kernel.user_namespaces", settings(userns_apparmor=1), "info", "AppArmor", "restrict_unprivileged_userns=0"),
        ("kernel.user_namespaces", replace(settings(userns_max=0), as_root=False), "warning", "off", "sysctl user."),
        ("kernel.overlay", replace(PERFECT, overlay=NO), "warning", "a reason", "a fix"),
        ("kernel.overlay", replace(PERFECT, overlay=NO, bind=NO), "info", "not known: a reason", "a fix"),
        ("host.container", host(virtualisation={"container": "lxc"}), "warning", "(lxc)", "on the host"),
        ("cpu.count", replace(PERFECT, cpus=(0,), harness_cpus=(0,)), "warning", "only CPU 0", "a second CPU"),
        ("cpu.governor", host(cpu={"governor": "powersave"}), "warning", "powersave (intel_pstate)", f"tee {CPU}"),
        ("cpu.governor", host(cpu={"governor": None}), "info", "not visible", None),
        ("cpu.turbo", host(cpu={"boost": True}), "warning", "on", f"echo 1 > {CPU}/intel_pstate/no_turbo"),
        ("cpu.turbo", host(cpu={"boost": True, "frequency_driver": "acpi-cpufreq"}), "warning", "on", "cpufreq/boost"),
        ("cpu.turbo", host(cpu={"boost": None}), "info", "not visible", None),
        ("cpu.smt", settings(core_mates=(3,)), "warning", "CPU 3 shares a core with CPU 7", f"echo off > {CPU}/smt"),
        ("cpu.mitigations", settings(boot_options=("mitigations=off",)), "warning", "off on this host", "`cmdline:"),
        ("cpu.mitigations", host(mitigations={"mds": "Vulnerable: no microcode"}), "info", "vulnerable: mds", None),
        ("clock.source", host(kernel={"clock_source": "hpet"}), "warning", "hpet, slow", "echo tsc > /sys/devices/"),
        ("clock.source", host(kernel={"clock_source": None}), "info", "not visible", None),
        ("memory.free", settings(memory_available_bytes=GIB // 2), "warning", "512 MiB available", "end what uses"),
        ("memory.free", settings(memory_available_bytes=GIB // 8), "blocker", "128 MiB available", "end what uses"),
        ("memory.free", settings(memory_available_bytes=None), "info", "not visible", None),
        ("memory.swap", host(memory={"swap_bytes": GIB}), "info", "1 GiB, next to nothing in use", None),
        ("memory.huge_pages", host(memory={"transparent_huge_pages": "always"}), "info", "always", "echo madvise >"),
        ("memory.ksm", host(memory={"same_page_merging": True}), "warning", "on", "echo 2 > /sys/kernel/mm/ksm/run"),
        ("memory.ksm", host(memory={"same_page_merging": None}), "ok", "not in this kernel", None),
        ("kernel.aslr", settings(aslr=0), "warning", "off", "sysctl kernel.randomize_va_space=2"),
        ("kernel.aslr", settings(aslr=1), "warning", "in part", "sysctl kernel.randomize_va_space=2"),
        ("kernel.entropy", settings(entropy_bits=12), "warning", "12 bits", "haveged"),
        ("noise.load", noise({"load1": 4.5}), "warning", "4.50 on 8 CPUs", "top -b"),
        ("noise.load", noise({"load1": None}), "info", "not visible", None),
        ("noise.steal", noise({"steal_share": 0.05}), "warning", "5 % now, 0 % since boot", "a dedicated instance"),
        ("noise.steal", noise({}, steal_share_since_boot=0.02), "warning", "0 % now, 2 % since boot", "dedicated"),
        ("noise.pressure.cpu", noise({"psi.cpu.some_share": 0.3}), "warning", "waits 30 % of the time", "top -b"),
        ("noise.pressure.io", noise({"psi.io.some_share": 0.004}), "ok", "waits 0.4 % of the time", None),
        ("noise.pressure.memory", noise({"psi.memory.some_share": None}), "info", "not accounted", "boot with psi=1"),
        ("noise.throttling", noise({"throttled.thermal": 2}), "warning", "for heat", "let it cool"),
        ("noise.throttling", noise({"throttled.quota_share": 0.1}), "warning", "CPU quota", "outside of that cgroup"),
        ("noise.processes", busy(Busy(5, "cc1", 0.98)), "warning", "cc1 (5) 98 %", "taskset -acp 0-6 5"),
        ("runs.lock", replace(PERFECT, runs=Runs("run x")), "blocker", "held by run x", "wait for its end"),
        ("runs.lock", replace(PERFECT, runs=Runs(others=(7, 8))), "warning", "process 7, process 8", "wait"),
        ("runs.leftovers", replace(PERFECT, runs=Runs(untrusted=("/s is", "set X"))), "blocker", "/s is", "set X"),
        ("runs.leftovers", replace(PERFECT, runs=Runs(dead={"x": 2})), "warning", "run x, 2 res", "benchbox clean"),
        ("disk.cache", place("cache", fs_type="fuse.sshfs"), "warning", "over a network", "set BENCHBOX_CACHE"),
        ("disk.cache", place("cache", fs_type="tmpfs"), "info", "in memory", None),
        ("disk.cache", place("cache", fs_type="overlay"), "warning", "a layer over", "set BENCHBOX_CACHE"),
        ("disk.cache", place("cache", fs_type=None, free_bytes=None), "ok", "file system not known)", None),
        ("disk.cache", place("cache", free_bytes=GIB // 2), "warning", "512 MiB free", "free some space"),
        ("disk.scratch", place("scratch", free_bytes=1 << 20), "blocker", "1 MiB free", "free some space"),
        ("disk.results", place("results", fs_type="nfs"), "info", "results (nfs, 100 GiB free)", None),
        ("disk.results", place("results", fs_type="tmpfs"), "warning", "gone with the next boot", "--results"),
        ("disk.results", place("results", writable=False), "blocker", "results cannot be written", "--results"),
        ("disk.results", place("results", problem="x: Permission denied"), "blocker", "x: Permission", "--results"),
    ],
)  # fmt: skip
def test_a_check_says_how_bad_it_is_what_was_found_and_what_to_do(
    name: str, facts: Facts, severity: str, found: str, fix: str | None
) -> None:
    """The one thing that is not as it should be is named, with the remedy that fits this host."""
    seen = finding(facts, name)
    assert (seen.severity, found in seen.found) == (severity, True), seen
    assert seen.fix is None if fix is None else fix in str(seen.fix), seen


def test_swap_that_is_in_use_is_told_from_swap_that_is_there() -> None:
    """Only the former comes back in the middle of a sample."""
    memory = host(memory={"swap_bytes": GIB}).host
    facts = replace(settings(swap_used_bytes=GIB // 4), host=memory)
    seen = finding(facts, "memory.swap")
    assert (seen.severity, seen.found) == ("warning", "256 MiB of 1 GiB in use")


def test_a_clock_that_the_kernel_does_not_trust_has_no_remedy() -> None:
    """Where the TSC is not offered, nothing is gained by choosing it."""
    facts = replace(host(kernel={"clock_source": "hpet"}), settings=settings(clocks=("hpet",)).settings)
    assert finding(facts, "clock.source").fix is None


def test_several_busy_processes_are_moved_by_one_command() -> None:
    """To the CPUs that environments do not use; where there are none they are stopped."""
    facts = busy(Busy(5, "a", 0.9), Busy(6, "b", 0.1))
    assert finding(facts, "noise.processes").fix == "for p in 5 6; do taskset -acp 0-6 $p; done"
    assert finding(replace(facts, harness_cpus=(7,)), "noise.processes").fix == "kill -STOP 5 6"


def test_load_has_no_remedy_beside_that_of_the_processes_which_make_it() -> None:
    """The same advice is not given four times."""
    facts = noise({"load1": 8.0, "psi.cpu.some_share": 0.5}, busy=(Busy(5, "a", 0.9),))
    assert [finding(facts, name).fix for name in ("noise.load", "noise.pressure.cpu")] == [None, None]


def test_what_does_not_apply_is_not_said() -> None:
    """Without KVM nothing is said of its version or of guests under it, without cgroups nothing of controllers."""
    names = {item.id for item in examine(guests(device=NO)).findings}
    assert names & {"kvm.api", "kvm.guest", "kvm.boot_sector", "vm.emulated"} == set()
    names = {item.id for item in examine(host(cgroups={"mode": "none"})).findings}
    assert names & {"cgroup.rights", "cgroup.controllers"} == set()


def test_a_host_that_says_nothing_is_examined_all_the_same() -> None:
    """An unreadable /proc and /sys give findings, no error."""
    nothing = replace(
        PERFECT,
        host={},
        tools={},
        settings=type(PERFECT.settings)(),
        activity=type(PERFECT.activity)(0.4),
        places=dict.fromkeys(PERFECT.places, type(PERFECT.places["cache"])(Path("x"))),
    )
    assert len(examine(nothing).findings) > 30


def test_every_check_is_described() -> None:
    """docs/doctor.md has a row for each, and none for what is gone."""
    rows = re.findall(r"^\| (`.+?) \|", (PROJECT / "docs" / "doctor.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row) if not name.startswith("vm (")}
    assert named == {check.id for check in TABLE}


def test_the_limits_of_the_docs_are_those_of_the_code() -> None:
    """Each number in a row is the constant of its check."""
    text = (PROJECT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for words in (
        f"an environment ({format_size(Resources().memory_bytes)}) and {format_size(memory._BESIDE_BYTES)} beside",
        f"less than {format_size(memory._SWAP_BYTES)} of it in use",
        f"{memory._ENTROPY_BITS} bits at least",
        f"at most {quiet._STEAL_SHARE:.0%} of CPU time".replace("%", " %"),
        f"waits at most {quiet._PRESSURE_SHARE:.0%} of the time".replace("%", " %"),
        f"more than {look._BUSY_SHARE:.0%} of a CPU".replace("%", " %"),
        f"seen for {look.INTERVAL_S} s",
        *(f"{format_size(size)} free" for size in storage._LITTLE_BYTES.values()),
        f"`format` (it is {text_of_report.FORMAT_VERSION};",
    ):
        assert words in text, words
