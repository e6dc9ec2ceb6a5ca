"""What is known of a guest, and the outcome that follows from it. Pure."""

import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchbox.images import programs
from benchbox.linux import cgroups
from benchbox.linux.cgroups import CgroupPlan
from benchbox.linux.processes import describe_status
from benchbox.model import DEVICE_STAT, PROCESS_READ, STAGES, Counter, Outcome, Status
from benchbox.units import format_cpu_list, parse_cpu_list
from benchbox.virt import frames
from benchbox.virt.channels import Console, Control, Tail
from benchbox.virt.domain import DISK, NIC, ROOT_DISK, TAP, DomainType, data_disk_text, is_machine
from benchbox.virt.messages import GuestOrder

ENDED_BY_US: Final = "ended by benchbox"

_LIBVIRT_REMARK: Final = re.compile(r": (Domain id=\d+ is tainted|shutting down, reason=|starting up)")

_MITIGATION: Final = "mitigation."
#: What is chosen of a file such as ``always [madvise] never``.
_CHOSEN: Final = re.compile(r"\[(\w+)\]")

#: CPUID leaf 0x40000000 of a guest under KVM.
_KVM_SIGNATURE: Final = "KVMKVMKVM"


@dataclass
class Observed:
    """Everything that is known of one guest so far.

    ``failure`` is the first thing that went wrong, ``device_stat`` what the order's file said at the command's end.
    ``live`` is what libvirt says of the running domain, ``kvm_enabled`` what QEMU itself says of KVM; empty and None
    until they are asked. ``thread_cpus`` are the CPU lists of QEMU's threads, each once, ``process_io`` is what
    /proc/PID/io says of it, None where it was not found.
    """

    requested_ns: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    console: Console = field(default_factory=Console)
    control: Control = field(default_factory=Control)
    output: Tail = field(default_factory=Tail)
    failure: str | None = None
    latencies_ns: list[int] = field(default_factory=list)
    live: dict[str, Any] = field(default_factory=dict)
    kvm_enabled: bool | None = None
    cgroup_texts: dict[str, str] = field(default_factory=dict)
    device_stat: str | None = None
    thread_cpus: tuple[str, ...] | None = None
    process_io: str | None = None

    def stamp(self, stage: str, at_ns: int) -> None:
        """Note when ``stage`` was over; the first time counts."""
        self.stages.setdefault(stage, at_ns)


def progress(seen: Observed) -> str:
    """Return how far the guest has come, in words that continue "the guest hung"."""
    if "exited" in seen.stages:
        return "after the command's end"
    if "exec" in seen.stages:
        return "while the command ran"
    if "agent" in seen.stages:
        return "between the agent's first byte and the command"
    if "started" in seen.stages:
        return "before the agent's first byte"
    return "before it was started"


def log_messages(log: str, limit: int = 3) -> str:
    """Return the first messages in the end of a log that libvirt keeps of a QEMU process, on one line.

    The log holds QEMU's command line (each line but its last ends in a backslash) and libvirt's own remarks, too.
    """
    lines = log.splitlines()
    start = max((number + 2 for number, line in enumerate(lines) if line.endswith("\\")), default=0)
    messages = [re.sub(r"^\d{4}-\d\d-\d\dT\S+Z ", "", line).strip() for line in lines[start:]]
    return "; ".join([line for line in messages if line and not _LIBVIRT_REMARK.search(line)][:limit])


def refusal(error: str) -> str:
    """Return what libvirt says against a domain, on one line; what QEMU says, where that is part of it."""
    qemu = re.search(r"\bqemu[-\w]*: (.+)", error)
    return (
        f"QEMU gave up: {qemu[1].strip()}" if qemu else f"libvirt could not start the guest: {' '.join(error.split())}"
    )


def accelerator(domain_type: DomainType, seen: Observed) -> str:
    """Return ``kvm`` or ``tcg``: what was read back, before that what the domain asks for."""
    if seen.live:
        return "kvm" if seen.live["domain_type"] == "kvm" and seen.kvm_enabled else "tcg"
    return "kvm" if domain_type == "kvm" else "tcg"


def outcome(order: GuestOrder, seen: Observed, plan: CgroupPlan) -> Outcome:
    """Return the outcome of a guest of which nothing is left."""
    applied = _applied(seen, plan)
    status, reason = _judge(order, seen, applied)
    ended = seen.control.ended
    return Outcome(
        status,
        reason,
        exit_code=ended.get("exit_code"),
        signal=ended.get("signal"),
        requested_ns=seen.requested_ns,
        stages={stage: seen.stages[stage] for stage in STAGES if stage in seen.stages},
        guest={key.removesuffix("_ns"): value for key, value in ended.items() if _is_duration(key)},
        counters=(*cgroups.counters(plan, seen.cgroup_texts), *_guest_counters(seen)),
        applied=applied,
        flags={"accelerator": accelerator(order.spec.domain_type, seen)},
        output_tail=seen.output.kept,
        console_tail=seen.console.text(),
    )


def _is_duration(key: str) -> bool:
    return key.endswith("_ns") and key not in ("user_ns", "system_ns")


def _guest_counters(seen: Observed) -> Iterator[Counter]:
    ended, kills = seen.control.ended, guest_oom_kills(seen)
    for name, key, source in (("user", "user_ns", "ru_utime"), ("system", "system_ns", "ru_stime")):
        if key in ended:
            yield Counter(f"guest.cpu.{name}", ended[key] / 1e9, "s", f"guest kernel, wait4 {source}")
    if "peak_rss_bytes" in ended:
        yield Counter("guest.memory.peak_rss", ended["peak_rss_bytes"], "B", "guest kernel, wait4 ru_maxrss")
    steal_ms = frames.count(seen.control.facts, "steal_ms")
    if steal_ms is not None:
        yield Counter("guest.cpu.steal", steal_ms / 1000, "s", "guest kernel, /proc/stat steal, since its boot")
    moved = cgroups.parse_keyed((seen.process_io or "").replace(":", ""))
    if "read_bytes" in moved:
        yield Counter(PROCESS_READ, moved["read_bytes"], "B", "/proc/PID/io of QEMU, read_bytes")
    if kills is not None:
        yield Counter("guest.memory.oom_kills", kills, "1", "guest kernel, /proc/vmstat oom_kill")


def guest_oom_kills(seen: Observed) -> int | None:
    """Return how many processes the guest's kernel killed for memory, None where it does not say."""
    return frames.count(seen.control.facts, "oom_kills")


def _applied(seen: Observed, plan: CgroupPlan) -> dict[str, Any]:
    applied: dict[str, Any] = dict(cgroups.applied(plan, seen.cgroup_texts))
    if seen.live:
        applied["domain"] = {**seen.live, "query_kvm_enabled": seen.kvm_enabled}
    if seen.device_stat is not None:
        applied[DEVICE_STAT] = seen.device_stat
    if seen.thread_cpus is not None:
        applied["thread_cpus"] = list(seen.thread_cpus)
    if facts := seen.control.facts:
        applied["guest"] = _guest_applied(facts)
        if {"program", "sha256"} <= facts.keys():
            applied[programs.KEY] = {"path": facts["program"], "sha256": facts["sha256"]}
    if seen.latencies_ns:
        # Half of a round trip, as for the other environments: one way is what delays a stamp.
        applied["channel_latency_ns"] = round(statistics.median(seen.latencies_ns) / 2)
    return applied


def _guest_applied(facts: Mapping[str, str]) -> dict[str, Any]:
    pages = _CHOSEN.search(facts.get("huge_pages", ""))
    return {
        "memory_bytes": frames.count(facts, "memory_bytes"),
        "cpus_online": facts.get("cpus_online"),
        "clocksource": facts.get("clocksource"),
        "hypervisor": facts.get("hypervisor"),
        "cpu_flags": " ".join(sorted(facts["cpu_flags"].split())) if "cpu_flags" in facts else None,
        "mitigations": {k.removeprefix(_MITIGATION): v for k, v in facts.items() if k.startswith(_MITIGATION)} or None,
        "huge_pages": pages[1] if pages else None,
    }


def _judge(order: GuestOrder, seen: Observed, applied: Mapping[str, Any]) -> tuple[Status, str | None]:
    problem = _failed(order, seen)
    if problem:
        return "failed", problem
    problem = _invalid(order, seen, applied)
    return ("invalid", problem) if problem else ("ok", None)


def _failed(order: GuestOrder, seen: Observed) -> str | None:
    ended, kills = seen.control.ended, guest_oom_kills(seen)
    if kills:
        return f"out of memory: the guest's kernel killed {kills} process(es)"
    if ended.get("signal"):
        return describe_status(-ended["signal"])
    if ended.get("exit_code"):
        return describe_status(ended["exit_code"])
    return None if seen.failure == ENDED_BY_US and stayed(order, seen) else seen.failure


def stayed(order: GuestOrder, seen: Observed) -> bool:
    """Say whether the command is one that stays, is ready and has not ended."""
    staying = order.command is not None and order.command.stays
    return staying and "ready" in seen.stages and "exited" not in seen.stages


def _invalid(order: GuestOrder, seen: Observed, applied: Mapping[str, Any]) -> str | None:
    command = order.command
    if command is not None and command.signals_ready and "ready" not in seen.stages:
        return "the workload ended well but never said that it was ready"
    return misordered(seen) or difference(order, applied)


def misordered(seen: Observed) -> str | None:
    """Say which two stages are out of order, None if all are in order."""
    before, before_ns = "requested", seen.requested_ns
    for stage in STAGES:
        if stage in seen.stages:
            if seen.stages[stage] < before_ns:
                return f"stages out of order: {stage} came before {before}"
            before, before_ns = stage, seen.stages[stage]
    return None


def difference(order: GuestOrder, applied: Mapping[str, Any]) -> str | None:
    """Say what is not as it was asked for by what was read back, None if all is."""
    live, guest, spec = applied.get("domain"), applied.get("guest"), order.spec
    if live is None:
        return "what the guest ran on could not be read back from libvirt"
    pairs = [
        ("domain type", spec.domain_type, live["domain_type"]),
        ("KVM in use", spec.domain_type == "kvm", bool(live["query_kvm_enabled"])),
        ("guest memory", spec.memory_bytes, live["memory_bytes"]),
        ("virtual CPUs", spec.vcpus, live["vcpus"]),
        ("machine", spec.machine, spec.machine if is_machine(spec.machine, live["machine"]) else live["machine"]),
        ("kernel", spec.kernel, live["kernel"]),
        ("firmware", spec.firmware, live["firmware"]),
        ("CPU model", spec.cpu_model, live["cpu_model"] if spec.cpu_model else None),
        ("network cards", [NIC] if spec.nic else [TAP] if spec.tap else [], live["nics"]),
        ("disks", [DISK] if spec.disk else [], live["extra_disks"]),
        ("root disk", ROOT_DISK if spec.root_disk else None, live["root_disk"]),
        ("file of the root disk", spec.root_disk, live["root_disk_file"]),
        ("disk of /data", data_disk_text(spec.data_cache) if spec.data_disk else None, live["data_disk"]),
        ("memory balloon", "none", live["balloon"]),
        (
            "CPUs of QEMU's threads",
            [format_cpu_list(spec.cpus)],
            applied.get("thread_cpus", [format_cpu_list(spec.cpus)]),
        ),
        ("cpus", format_cpu_list(spec.cpus), applied.get("cpus", format_cpu_list(spec.cpus))),
    ]
    if guest is not None:
        pairs.append(("CPUs online in the guest", spec.vcpus, len(parse_cpu_list(guest["cpus_online"] or ""))))
        if guest.get("hypervisor"):
            # What the guest's own CPUID names, linux/Documentation/virt/kvm/x86/cpuid.rst.
            pairs.append(("KVM in the guest's CPUID", spec.domain_type == "kvm", guest["hypervisor"] == _KVM_SIGNATURE))
    for name, asked, found in pairs:
        if asked != found:
            return f"a limit is not the one asked for: {name}: asked for {asked}, in force {found}"
    return None
