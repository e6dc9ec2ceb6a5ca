"""What this host is: the facts that a number depends on, and the versions of the tools that made it.

Each reader takes the root of a file tree, so that tests use recorded ones; what a host does not say is None.
Interfaces: proc(5), Documentation/ABI/testing/sysfs-devices-system-cpu, sysfs-kernel-mm.
"""

import hashlib
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchbox import __version__
from benchbox.errors import BenchboxError
from benchbox.linux import cgroups
from benchbox.linux.processes import run
from benchbox.units import parse_cpu_list

_HOST: Final = Path("/")
_CPU: Final = "sys/devices/system/cpu"
_TOOL_TIMEOUT_S: Final = 5.0

#: Start of a DMI vendor or product name -> hypervisor, as systemd's src/basic/virt.c knows them.
_DMI_HYPERVISORS: Final = {
    "KVM": "kvm", "OpenStack": "kvm", "KubeVirt": "kvm", "Amazon EC2": "amazon", "QEMU": "qemu", "VMware": "vmware",
    "VMW": "vmware", "innotek GmbH": "virtualbox", "VirtualBox": "virtualbox", "Xen": "xen", "Bochs": "bochs",
    "Parallels": "parallels", "BHYVE": "bhyve", "Hyper-V": "microsoft", "Apple Virtualization": "apple",
    "Google Compute Engine": "google",
}  # fmt: skip
_DMI_FIELDS: Final = ("sys_vendor", "product_name", "board_vendor", "bios_vendor")
#: A clock source that only a guest has -> hypervisor.
_GUEST_CLOCKS: Final = {"kvm-clock": "kvm", "xen": "xen", "hyperv_clocksource_tsc_page": "microsoft"}
_PACKAGES: Final = ("click", "libvirt-python", "numpy", "pandas", "plotly", "pydantic", "rich")
_DEBIAN_PACKAGES: Final = ("qemu-system-x86", "libvirt0", "libvirt-daemon-driver-qemu")
#: Memory is compared in steps of this: firmware and kernel take a little more or less at each boot.
_MEMORY_STEP_BYTES: Final = 256 << 20


def fingerprint(root: Path = _HOST) -> dict[str, Any]:
    """Return the facts about this host in JSON types. Changes nothing and needs no privilege."""
    cpuinfo = parse_cpuinfo(_text(root, "proc/cpuinfo"))
    return {
        "os": parse_os_release(_text(root, "etc/os-release") or _text(root, "usr/lib/os-release")),
        "kernel": _kernel(root),
        "cpu": _cpu(root, cpuinfo),
        "mitigations": _mitigations(root),
        "memory": _memory(root),
        "cgroups": _cgroups(root),
        "security_modules": _security_modules(root),
        "virtualisation": _virtualisation(root, cpuinfo),
        "kvm": _kvm_device(root),
    }


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Return the sha256 of what must stay the same between two parts of one run: all of ``fingerprint``.

    The size of memory counts in steps of 256 MiB, which survives a boot.
    """
    stable = json.loads(json.dumps(fingerprint))
    memory = stable.get("memory", {})
    if isinstance(memory.get("total_bytes"), int):
        memory["total_bytes"] = round(memory["total_bytes"] / _MEMORY_STEP_BYTES)
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two fingerprints, one dotted key with both values each, for people."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        f"{key}: {old.get(key, 'not there')} -> {new.get(key, 'not there')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def boot_id(root: Path = _HOST) -> str:
    """Return the kernel's id of this boot; empty where it has none."""
    return _text(root, "proc/sys/kernel/random/boot_id")


# --- readers ---------------------------------------------------------------------------------------------------------


def _kernel(root: Path) -> dict[str, Any]:
    clock = f"{_CPU.rpartition('/')[0]}/clocksource/clocksource0"
    return {
        "release": _text(root, "proc/sys/kernel/osrelease") or None,
        "version": _text(root, "proc/sys/kernel/version") or None,
        "architecture": _text(root, "proc/sys/kernel/arch") or platform.machine(),
        "clock_source": _text(root, f"{clock}/current_clocksource") or None,
        "isolated_cpus": _text(root, f"{_CPU}/isolated") or None,
    }


def _cpu(root: Path, cpuinfo: Mapping[str, str]) -> dict[str, Any]:
    flags = sorted((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    online = parse_cpu_list(_text(root, f"{_CPU}/online"))
    return {
        "model": cpuinfo.get("model name") or cpuinfo.get("cpu") or cpuinfo.get("CPU part"),
        "vendor": cpuinfo.get("vendor_id") or cpuinfo.get("CPU implementer"),
        "family": cpuinfo.get("cpu family") or cpuinfo.get("CPU architecture"),
        "model_number": cpuinfo.get("model") or cpuinfo.get("CPU variant"),
        "stepping": cpuinfo.get("stepping") or cpuinfo.get("CPU revision"),
        "microcode": cpuinfo.get("microcode"),
        "flags": flags,
        "flags_digest": hashlib.sha256(" ".join(flags).encode()).hexdigest(),
        "online": len(online) or os.cpu_count(),
        **_topology(root, online),
        "smt": _text(root, f"{_CPU}/smt/control") or None,
        "governor": _each_cpu(root, "cpufreq/scaling_governor"),
        "frequency_driver": _each_cpu(root, "cpufreq/scaling_driver"),
        "idle_driver": _text(root, f"{_CPU}/cpuidle/current_driver") or None,
        "boost": _boost(root),
    }


def _topology(root: Path, online: Iterable[int]) -> dict[str, Any]:
    """Return the numbers of sockets and of cores among the CPUs ``online``."""
    places = [
        tuple(_text(root, f"{_CPU}/cpu{cpu}/topology/{name}") for name in ("physical_package_id", "core_id"))
        for cpu in online
    ]
    known = [place for place in places if all(place)]
    return {
        "sockets": len({package for package, _ in known}) or None,
        "cores": len(set(known)) or None,
    }


def _each_cpu(root: Path, name: str) -> str | None:
    """Return what file ``name`` of the CPUs says: one value, or all of them where CPUs differ."""
    found = {_read(path).strip() for path in (root / _CPU).glob(f"cpu[0-9]*/{name}")} - {""}
    return ", ".join(sorted(found)) or None


def _boost(root: Path) -> bool | None:
    """Say whether CPUs may run above their nominal frequency, from either of the two interfaces."""
    if turned_off := _text(root, f"{_CPU}/intel_pstate/no_turbo"):
        return turned_off == "0"
    boost = _text(root, f"{_CPU}/cpufreq/boost")
    return boost == "1" if boost else None


def _mitigations(root: Path) -> dict[str, str]:
    return {path.name: _read(path).strip() for path in sorted((root / _CPU / "vulnerabilities").glob("*"))}


def _memory(root: Path) -> dict[str, Any]:
    meminfo = parse_meminfo(_text(root, "proc/meminfo"))
    thp = "sys/kernel/mm/transparent_hugepage"
    ksm = _text(root, "sys/kernel/mm/ksm/run")
    return {
        "total_bytes": meminfo.get("MemTotal"),
        "swap_bytes": meminfo.get("SwapTotal"),
        "transparent_huge_pages": parse_choice(_text(root, f"{thp}/enabled")),
        "transparent_huge_pages_defrag": parse_choice(_text(root, f"{thp}/defrag")),
        "same_page_merging": ksm == "1" if ksm else None,
        "numa_nodes": len(parse_cpu_list(_text(root, "sys/devices/system/node/online"))) or None,
    }


def _cgroups(root: Path) -> dict[str, Any]:
    try:
        layout = cgroups.detect(root)
    except OSError:
        return {"mode": None}
    return {"mode": layout.mode, "v1": sorted(layout.v1), "v2": sorted(layout.v2_controllers)}


def _security_modules(root: Path) -> list[str]:
    """Return the active security modules; without securityfs those two that can be seen in another way."""
    if listed := _text(root, "sys/kernel/security/lsm"):
        return listed.split(",")
    apparmor = _text(root, "sys/module/apparmor/parameters/enabled") == "Y"
    selinux = (root / "sys/fs/selinux/enforce").exists()
    return [name for name, active in (("apparmor", apparmor), ("selinux", selinux)) if active]


def _virtualisation(root: Path, cpuinfo: Mapping[str, str]) -> dict[str, Any]:
    dmi = {name: _text(root, f"sys/class/dmi/id/{name}") for name in _DMI_FIELDS}
    clocks = _text(root, "sys/devices/system/clocksource/clocksource0/available_clocksource")
    hypervisor = find_hypervisor(
        cpuinfo,
        dmi=dmi.values(),
        hypervisor_type=_text(root, "sys/hypervisor/type"),
        device_tree=_text(root, "proc/device-tree/hypervisor/compatible"),
        clocks=clocks.split(),
    )
    return {
        "virtual": hypervisor is not None,
        "hypervisor": hypervisor,
        "container": _container(root),
        "machine": " ".join(filter(None, (dmi["sys_vendor"], dmi["product_name"]))) or None,
    }


def _container(root: Path) -> str | None:
    """Return what container this process is in, by the marks that container managers leave (systemd's virt.c)."""
    if manager := _text(root, "run/systemd/container"):
        return manager
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    return next((name for mark, name in marks.items() if (root / mark).exists()), None)


def _kvm_device(root: Path) -> dict[str, Any]:
    """Return what can be seen of /dev/kvm from outside; whether a guest boots with it is another question."""
    device = root / "dev/kvm"
    try:
        mode = stat.S_IMODE(device.stat().st_mode)
    except OSError:
        return {"exists": False, "mode": None, "usable": False}
    return {"exists": True, "mode": f"{mode:04o}", "usable": os.access(device, os.R_OK | os.W_OK)}


# --- parsers ---------------------------------------------------------------------------------------------------------


def parse_cpuinfo(text: str) -> dict[str, str]:
    """Return the fields of the first CPU in /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.strip().partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, separator, value in pairs if separator}


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory can be had without swapping (MemAvailable), None if this host does not say."""
    return parse_meminfo(_text(root, "proc/meminfo")).get("MemAvailable")


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo that are sizes, in bytes."""
    found = re.findall(r"^(\S+):\s+(\d+) kB$", text, re.MULTILINE)
    return {key: int(kibibytes) << 10 for key, kibibytes in found}


def parse_choice(text: str) -> str | None:
    """Return the chosen word of a file such as ``always [madvise] never``."""
    found = re.search(r"\[(.+?)\]", text)
    return found[1] if found else None


def parse_os_release(text: str) -> str | None:
    """Return the name for people in an os-release(5) file."""
    found = re.search(r"^PRETTY_NAME=([\"']?)(.*)\1$", text, re.MULTILINE)
    return found[2] if found else None


def find_hypervisor(
    cpuinfo: Mapping[str, str],
    *,
    dmi: Iterable[str],
    hypervisor_type: str,
    device_tree: str,
    clocks: Iterable[str],
) -> str | None:
    """Return the hypervisor that this host itself runs under, ``unknown`` for one without a name, None for none.

    The order is systemd-detect-virt's: names that firmware gives, then what the kernel says of itself, then the
    CPU flag that every hypervisor sets.
    """
    for text in dmi:
        for start, name in _DMI_HYPERVISORS.items():
            if text.startswith(start):
                return name
    if hypervisor_type:
        return hypervisor_type
    if device_tree:
        return "kvm" if device_tree.startswith("linux,kvm") else device_tree.rstrip("\0").partition(",")[0]
    if cpuinfo.get("vendor_id") == "User Mode Linux":
        return "uml"
    if "hypervisor" not in cpuinfo.get("flags", "").split():
        return None
    return next((_GUEST_CLOCKS[clock] for clock in clocks if clock in _GUEST_CLOCKS), "unknown")


# --- tools -----------------------------------------------------------------------------------------------------------


def tools() -> dict[str, str]:
    """Return the versions of what measures; a tool that is not there has no key."""
    found = {
        "benchbox": __version__,
        "git": _git_revision(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "python_implementation": sys.implementation.name,
        "platform": platform.platform(),
        "qemu": parse_qemu_version(_output("qemu-system-x86_64", "--version")),
        "libvirt": _libvirt_version(),
        **{name: _package_version(name) for name in _PACKAGES},
        **_debian_packages(),
    }
    return {name: version for name, version in found.items() if version}


def parse_qemu_version(text: str) -> str | None:
    """Return the version in what ``qemu-system-* --version`` prints, the distribution's part included."""
    found = re.search(r"version (.+)", text)
    return found[1].strip() if found else None


def parse_libvirt_soname(name: str) -> str | None:
    """Return the version that libvirt's file name carries: ``libvirt.so.0.9000.1`` is 9.0.1."""
    found = re.fullmatch(r"libvirt\.so\.0\.(\d+)\.(\d+)", name)
    return f"{int(found[1]) // 1000}.{int(found[1]) % 1000}.{found[2]}" if found else None


def _libvirt_version() -> str | None:
    """Return the version of the library without loading it."""
    folders = (Path("/usr/lib64"), Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu*"))
    versions = (parse_libvirt_soname(path.name) for folder in folders for path in folder.glob("libvirt.so.0.*"))
    return next(filter(None, versions), None)


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _debian_packages() -> dict[str, str]:
    lines = _output("dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *_DEBIAN_PACKAGES).splitlines()
    pairs = (line.partition(" ") for line in lines)
    return {f"debian:{name}": version for name, _, version in pairs if version}


def _git_revision(checkout: Path) -> str | None:
    """Return the commit that benchbox runs from, with ``-dirty`` where files differ; None outside a checkout."""
    if not (checkout / ".git").exists():
        return None
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return _output("git", "--no-optional-locks", "-C", str(checkout), *describe).strip() or None


def _output(*argv: str) -> str:
    try:
        return run(argv, timeout_s=_TOOL_TIMEOUT_S, check=False).stdout
    except BenchboxError:
        return ""


# --- files -----------------------------------------------------------------------------------------------------------


def _text(root: Path, name: str) -> str:
    return _read(root / name).strip()


def _read(path: Path) -> str:
    """Return the text of a file of the kernel; empty where it is not there or refuses to be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _flat(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, each in value.items():
        yield from _flat(each, f"{key}.{name}" if key else name)
