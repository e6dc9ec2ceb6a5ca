"""The fingerprint of a host, read from trees of three kinds, and the versions of the tools."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import benchbox
from benchbox import host

CPU = "sys/devices/system/cpu"
DMI = "sys/class/dmi/id"
CLOCK = "sys/devices/system/clocksource/clocksource0"

#: A KVM guest with two CPUs of an AMD server, hybrid cgroups and neither frequency scaling nor DMI.
GUEST = {
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\n',
    "proc/cpuinfo": """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 23
model\t\t: 49
model name\t: AMD EPYC
stepping\t: 0
microcode\t: 0x1000065
flags\t\t: fpu vme sse2 avx2 hypervisor

processor\t: 1
vendor_id\t: AuthenticAMD
model name\t: another
""",
    "proc/meminfo": "MemTotal:       24683656 kB\nMemFree:  1000 kB\nSwapTotal:  0 kB\nHugePages_Total:       3\n",
    "proc/self/mountinfo": "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    "proc/sys/kernel/osrelease": "6.18.44\n",
    "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC\n",
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/random/boot_id": "c69f8621-bd90-4696-a433-4649eae2167d\n",
    f"{CPU}/online": "0-1\n",
    f"{CPU}/smt/control": "notsupported\n",
    f"{CPU}/cpuidle/current_driver": "none\n",
    f"{CPU}/cpu0/topology/physical_package_id": "0\n",
    f"{CPU}/cpu0/topology/core_id": "0\n",
    f"{CPU}/cpu1/topology/physical_package_id": "0\n",
    f"{CPU}/cpu1/topology/core_id": "1\n",
    f"{CPU}/vulnerabilities/meltdown": "Not affected\n",
    f"{CPU}/vulnerabilities/retbleed": "Mitigation: untrained return thunk; SMT disabled\n",
    f"{CLOCK}/available_clocksource": "tsc kvm-clock \n",
    f"{CLOCK}/current_clocksource": "tsc\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
    "sys/kernel/mm/ksm/run": "0\n",
    "sys/devices/system/node/online": "0\n",
}

#: A laptop with one core of two threads, intel_pstate, cgroup v2, AppArmor and swap.
LAPTOP = {
    "usr/lib/os-release": "PRETTY_NAME='Fedora Linux 40'\n",
    "proc/cpuinfo": "processor : 0\nvendor_id : GenuineIntel\nmodel name : Intel(R) Core(TM) i7\nflags : vmx fpu\n",
    "proc/meminfo": "MemTotal: 16000000 kB\nSwapTotal: 8000000 kB\n",
    "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    f"{CPU}/online": "0-1\n",
    f"{CPU}/smt/control": "on\n",
    f"{CPU}/cpu0/topology/physical_package_id": "0\n",
    f"{CPU}/cpu0/topology/core_id": "0\n",
    f"{CPU}/cpu1/topology/physical_package_id": "0\n",
    f"{CPU}/cpu1/topology/core_id": "0\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
    f"{CPU}/intel_pstate/no_turbo": "0\n",
    "sys/kernel/security/lsm": "lockdown,capability,apparmor\n",
    "sys/kernel/mm/ksm/run": "1\n",
    f"{DMI}/sys_vendor": "LENOVO\n",
    f"{DMI}/product_name": "20XW\n",
    "dev/kvm": "",
}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_guest_is_described(tmp_path: Path) -> None:
    """Every fact comes from its file; what is not there is None."""
    found = host.fingerprint(tree(tmp_path, GUEST))
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["kernel"] == {
        "release": "6.18.44",
        "version": "#1 SMP PREEMPT_DYNAMIC",
        "architecture": "x86_64",
        "clock_source": "tsc",
        "isolated_cpus": None,
    }
    cpu = found["cpu"]
    assert (cpu["model"], cpu["vendor"], cpu["family"], cpu["model_number"]) == ("AMD EPYC", "AuthenticAMD", "23", "49")
    assert (cpu["stepping"], cpu["microcode"]) == ("0", "0x1000065")
    assert cpu["flags"] == ["avx2", "fpu", "hypervisor", "sse2", "vme"]
    assert (cpu["online"], cpu["sockets"], cpu["cores"], cpu["smt"]) == (2, 1, 2, "notsupported")
    assert (cpu["governor"], cpu["frequency_driver"], cpu["boost"]) == (None, None, None)
    assert found["mitigations"]["retbleed"] == "Mitigation: untrained return thunk; SMT disabled"
    assert found["memory"] == {
        "total_bytes": 24683656 << 10,
        "swap_bytes": 0,
        "transparent_huge_pages": "madvise",
        "transparent_huge_pages_defrag": "madvise",
        "same_page_merging": False,
        "numa_nodes": 1,
    }
    assert found["cgroups"]["mode"] == "hybrid"
    assert found["virtualisation"] == {"virtual": True, "hypervisor": "kvm", "container": None, "machine": None}
    assert found["kvm"] == {"exists": False, "mode": None, "usable": False}


def test_a_laptop_is_described(tmp_path: Path) -> None:
    """CPUs that differ show all their governors; no_turbo is boost turned round."""
    found = host.fingerprint(tree(tmp_path, LAPTOP))
    assert found["os"] == "Fedora Linux 40"
    cpu = found["cpu"]
    assert (cpu["sockets"], cpu["cores"], cpu["online"], cpu["smt"]) == (1, 1, 2, "on")
    assert (cpu["governor"], cpu["frequency_driver"], cpu["boost"]) == ("performance, powersave", "intel_pstate", True)
    assert (found["memory"]["swap_bytes"], found["memory"]["same_page_merging"]) == (8000000 << 10, True)
    assert found["cgroups"]["mode"] == "v2"
    assert found["security_modules"] == ["lockdown", "capability", "apparmor"]
    assert found["virtualisation"]["virtual"] is False
    assert found["virtualisation"]["machine"] == "LENOVO 20XW"
    assert found["kvm"]["exists"] is True


def test_a_host_that_says_nothing_has_a_fingerprint_still(tmp_path: Path) -> None:
    """No file of the tree is needed."""
    found = host.fingerprint(tmp_path)
    assert found["cpu"]["flags"] == []
    assert found["memory"]["total_bytes"] is None
    assert len(host.digest(found)) == 64
    assert host.boot_id(tmp_path) == ""


def test_this_host_has_a_fingerprint_of_json_types() -> None:
    """It goes into the manifest as it is, and two in a row agree."""
    found = host.fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert host.digest(found) == host.digest(host.fingerprint())
    assert found["kernel"]["release"]
    assert len(host.boot_id()) == 36


def test_an_arm_server_is_described(tmp_path: Path) -> None:
    """Its cpuinfo has other words."""
    cpuinfo = "processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU part : 0xd0c\nCPU revision : 1\n"
    cpu = host.fingerprint(tree(tmp_path, {"proc/cpuinfo": cpuinfo}))["cpu"]
    assert (cpu["vendor"], cpu["model"], cpu["stepping"]) == ("0x41", "0xd0c", "1")
    assert cpu["flags"] == ["asimd", "fp"]


@pytest.mark.parametrize(
    "change",
    [
        {"proc/sys/kernel/osrelease": "6.18.45\n"},
        {f"{CPU}/vulnerabilities/meltdown": "Vulnerable\n"},
        {f"{CPU}/online": "0\n"},
        {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n"},
        {"proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 0 kB\n"},
        {"sys/kernel/mm/ksm/run": "1\n"},
        {f"{CLOCK}/current_clocksource": "kvm-clock\n"},
        {"proc/cpuinfo": GUEST["proc/cpuinfo"].replace("avx2", "avx")},
        {"proc/cpuinfo": GUEST["proc/cpuinfo"].replace("0x1000065", "0x1000066")},
    ],
)
def test_what_changes_a_number_changes_the_digest(tmp_path: Path, change: dict[str, str]) -> None:
    """A run must not be continued on what is another host."""
    before = host.fingerprint(tree(tmp_path, GUEST))
    after = host.fingerprint(tree(tmp_path, change))
    assert host.digest(before) != host.digest(after)
    assert host.differences(before, after)


def test_a_boot_that_finds_a_little_less_memory_is_the_same_host(tmp_path: Path) -> None:
    """And memory that is in use plays no part."""
    before = host.fingerprint(tree(tmp_path, GUEST))
    after = host.fingerprint(
        tree(tmp_path, {"proc/meminfo": "MemTotal: 24683000 kB\nMemFree: 9 kB\nSwapTotal: 0 kB\n"})
    )
    assert host.digest(before) == host.digest(after)


def test_differences_name_the_fact_and_both_values() -> None:
    """What ``--resume`` shows when it refuses."""
    before: dict[str, Any] = {"cpu": {"governor": "powersave", "online": 2}, "os": "a"}
    after = copy.deepcopy(before)
    after["cpu"]["governor"] = "performance"
    after["new"] = 1
    assert host.differences(before, after) == ["cpu.governor: powersave -> performance", "new: not there -> 1"]
    assert host.differences(before, before) == []


@pytest.mark.parametrize(
    ("facts", "hypervisor"),
    [
        ({}, None),
        ({"flags": "fpu hypervisor"}, "unknown"),
        ({"flags": "fpu hypervisor", "clocks": ["tsc", "kvm-clock"]}, "kvm"),
        ({"flags": "fpu hypervisor", "clocks": ["hyperv_clocksource_tsc_page"]}, "microsoft"),
        ({"flags": "fpu", "clocks": ["kvm-clock"]}, None),
        ({"dmi": ["", "VMware, Inc."]}, "vmware"),
        ({"dmi": ["QEMU"]}, "qemu"),
        ({"dmi": ["Amazon EC2"], "flags": "hypervisor"}, "amazon"),
        ({"dmi": ["Dell Inc."]}, None),
        ({"hypervisor_type": "xen"}, "xen"),
        ({"device_tree": "linux,kvm\0"}, "kvm"),
        ({"device_tree": "vmware,hv\0"}, "vmware"),
        ({"vendor_id": "User Mode Linux"}, "uml"),
    ],
)
def test_a_hypervisor_is_known_by_what_it_shows(facts: dict[str, Any], hypervisor: str | None) -> None:
    """Firmware's names first, the CPU flag last; a clock source alone proves nothing."""
    found = host.find_hypervisor(
        {key: facts[key] for key in ("flags", "vendor_id") if key in facts},
        dmi=facts.get("dmi", []),
        hypervisor_type=facts.get("hypervisor_type", ""),
        device_tree=facts.get("device_tree", ""),
        clocks=facts.get("clocks", []),
    )
    assert found == hypervisor


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
    ],
)
def test_a_container_around_benchbox_is_seen(tmp_path: Path, files: dict[str, str], container: str) -> None:
    """By the marks that managers leave."""
    assert host.fingerprint(tree(tmp_path, files))["virtualisation"]["container"] == container


def test_security_modules_are_seen_without_securityfs(tmp_path: Path) -> None:
    """As far as other files show them."""
    tree(tmp_path, {"sys/module/apparmor/parameters/enabled": "Y\n", "sys/fs/selinux/enforce": "1"})
    assert host.fingerprint(tmp_path)["security_modules"] == ["apparmor", "selinux"]


def test_tools_have_versions() -> None:
    """Those that are always there, and only texts."""
    found = host.tools()
    assert found["benchbox"] == benchbox.__version__
    assert {"python", "platform", "pydantic", "click"} <= set(found)
    assert all(isinstance(version, str) and version for version in found.values())


def test_versions_are_read_from_what_tools_print() -> None:
    """The distribution's part of a version is kept: a package update may change a number."""
    printed = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n"
    assert host.parse_qemu_version(printed) == "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"
    assert host.parse_qemu_version("") is None
    assert host.parse_libvirt_soname("libvirt.so.0.9000.1") == "9.0.1"
    assert host.parse_libvirt_soname("libvirt.so.0.10010.0") == "10.10.0"
    assert host.parse_libvirt_soname("libvirt-qemu.so.0.9000.0") is None


def test_parsers_survive_nonsense() -> None:
    """What does not fit is left out."""
    assert host.parse_meminfo("MemTotal: x kB\nnonsense\n") == {}
    assert host.parse_choice("always madvise never") is None
    assert host.parse_os_release("NAME=x\n") is None
    assert host.parse_cpuinfo("") == {}
