"""CPUs: how many, how fast, shared with whom; clock; mitigations."""

from typing import Final

from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Seen, info, ok, warning
from benchbox.units import format_cpu_list

_CPU: Final = "/sys/devices/system/cpu"
#: Read in user space through the vDSO: tens of ns. Every other one is a system call and a device access.
_FAST_CLOCKS: Final = frozenset({"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"})


def count(facts: Facts) -> Seen:
    """Environments and benchbox do not share CPUs."""
    chosen, harness = format_cpu_list(facts.cpus), format_cpu_list(facts.harness_cpus)
    if set(facts.cpus) & set(facts.harness_cpus):
        return warning(f"only CPU {chosen}: benchbox shares it with what it measures", "give this host a second CPU")
    return ok(f"CPU {chosen} for an environment of one CPU, {harness} for benchbox itself")


def governor(facts: Facts) -> Seen:
    """The frequency does not follow the load."""
    cpu = facts.host.get("cpu", {})
    if cpu.get("governor") is None:
        return info("not visible: this host's frequency is in the hands of firmware or hypervisor")
    if cpu["governor"] == "performance":
        return ok("performance")
    fix = f"echo performance | tee {_CPU}/cpu*/cpufreq/scaling_governor"
    return warning(f"{cpu['governor']} ({cpu.get('frequency_driver')})", fix)


def turbo(facts: Facts) -> Seen:
    """No frequency that lasts only while the package is cool."""
    cpu = facts.host.get("cpu", {})
    if cpu.get("boost") is None:
        return info("not visible")
    if not cpu["boost"]:
        return ok("off")
    intel = str(cpu.get("frequency_driver")).startswith("intel_")
    fix = f"echo 1 > {_CPU}/intel_pstate/no_turbo" if intel else f"echo 0 > {_CPU}/cpufreq/boost"
    return warning("on", fix)


def smt(facts: Facts) -> Seen:
    """No other thread on the core of an environment."""
    mates = facts.settings.core_mates
    if not mates:
        return ok(f"no other thread on the core of CPU {format_cpu_list(facts.cpus)}")
    found = f"CPU {format_cpu_list(mates)} shares a core with CPU {format_cpu_list(facts.cpus)}"
    return warning(found, f"echo off > {_CPU}/smt/control")


def clock(facts: Facts) -> Seen:
    """Reading the clock costs next to nothing."""
    source = facts.host.get("kernel", {}).get("clock_source")
    if source is None:
        return info("not visible")
    if source in _FAST_CLOCKS:
        return ok(source)
    if "tsc" not in facts.settings.clocks:
        return warning(f"{source}, slow to read; the kernel does not trust the TSC here")
    folder = "/sys/devices/system/clocksource/clocksource0"
    return warning(f"{source}, slow to read", f"echo tsc > {folder}/current_clocksource")


def mitigations(facts: Facts) -> Seen:
    """The host has the mitigations that its guests have."""
    states = facts.host.get("mitigations", {})
    if not states:
        return info("not visible")
    if "mitigations=off" in facts.settings.boot_options:
        fix = "boot without mitigations=off, or give vm environments `cmdline: mitigations=off`"
        return warning("switched off on this host, on in its guests", fix)
    vulnerable = [name for name, state in states.items() if state.startswith("Vulnerable")]
    if vulnerable:
        return info(f"vulnerable: {', '.join(vulnerable)}")
    active = sum(state.startswith("Mitigation") for state in states.values())
    return ok(f"{active} active, {len(states) - active} not needed")
