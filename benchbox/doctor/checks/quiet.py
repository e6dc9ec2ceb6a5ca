"""How much else goes on: load, stolen time, pressure, throttling, busy processes, other runs."""

from collections.abc import Callable
from typing import Final

from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Seen, blocker, info, ok, warning
from benchbox.units import format_cpu_list

#: Load average a CPU from which on something else is nearly always running.
_LOAD_PER_CPU: Final = 0.5
#: Above this share of the time waiting shows in medians; below it in outliers at most.
_PRESSURE_SHARE: Final = 0.05
_STEAL_SHARE: Final = 0.01
_PERCENT: Final = 100


def load(facts: Facts) -> Seen:
    """The last minute was quiet."""
    load1 = facts.activity.noise.get("load1")
    cpus = facts.host.get("cpu", {}).get("online") or 1
    if load1 is None:
        return info("not visible")
    found = f"{load1:.2f} on {cpus} CPUs over the last minute"
    return warning(found, _calm(facts)) if load1 > _LOAD_PER_CPU * cpus else ok(found)


def _calm(facts: Facts) -> str | None:
    """Return how to find out who it is; where the busy processes were seen their finding has the remedy."""
    return None if facts.activity.busy else "wait, or see who it is: top -b -n 1 -o %CPU | head -n 17"


def steal(facts: Facts) -> Seen:
    """No hypervisor takes CPU time away."""
    share, ever = facts.activity.noise.get("steal_share"), facts.activity.steal_share_since_boot
    if share is None:
        return info("not visible")
    found = f"{_percent(share)} now, {_percent(ever or 0)} since boot"
    if max(share, ever or 0) <= _STEAL_SHARE:
        return ok(found)
    return warning(found, "use a machine with CPUs of its own (a dedicated instance)")


def pressure(resource: str) -> Callable[[Facts], Seen]:
    """Return the check that tasks do not wait for ``resource``."""

    def look(facts: Facts) -> Seen:
        share = facts.activity.noise.get(f"psi.{resource}.some_share")
        if share is None:
            return info("not accounted by this kernel", "boot with psi=1")
        found = f"some task waits {_percent(share)} of the time"
        return warning(found, _calm(facts)) if share > _PRESSURE_SHARE else ok(found)

    return look


def throttling(facts: Facts) -> Seen:
    """Neither heat nor a quota of benchbox's own cgroup slows it down."""
    noise = facts.activity.noise
    if noise.get("throttled.thermal", 0) > 0:
        return warning("a package was slowed down for heat just now", "let it cool, look at its fans")
    if noise.get("throttled.quota_share", 0) > 0:
        return warning("the CPU quota of the cgroup that benchbox is in", "run it outside of that cgroup")
    return ok("none seen")


def processes(facts: Facts) -> Seen:
    """Nobody else wants the CPUs of environments."""
    busy = facts.activity.busy
    if not busy:
        return ok(f"none that may use CPU {format_cpu_list(facts.cpus)}")
    found = ", ".join(f"{item.name} ({item.pid}) {_percent(item.share)}" for item in busy)
    pids = [str(item.pid) for item in busy]
    if set(facts.cpus) & set(facts.harness_cpus):
        return warning(found, f"kill -STOP {' '.join(pids)}")
    move = f"taskset -acp {format_cpu_list(facts.harness_cpus)}"
    loop = f"for p in {' '.join(pids)}; do {move} $p; done"
    return warning(found, loop if len(pids) > 1 else f"{move} {pids[0]}")


def host_lock(facts: Facts) -> Seen:
    """No other run has this host."""
    if facts.runs.holder is not None:
        return blocker(f"held by {facts.runs.holder}", "wait for its end, or stop it (Ctrl-C there)")
    if facts.runs.others:
        found = ", ".join(f"process {pid}" for pid in facts.runs.others)
        return warning(f"another user seems to measure as well: {found}", "wait for its end")
    return ok("no other run holds this host")


def leftovers(facts: Facts) -> Seen:
    """Dead runs left nothing, and no other user can have written what says so."""
    if facts.runs.untrusted:
        return blocker(*facts.runs.untrusted)
    dead = [f"run {run_id}, {count} resources" for run_id, count in facts.runs.dead.items()]
    found = [*dead, *(f"folder {folder}" for folder in facts.runs.lost_folders)]
    return warning("; ".join(found), "benchbox clean") if found else ok("none")


def _percent(share: float) -> str:
    percent = share * _PERCENT
    return f"{percent:.0f} %" if percent >= 1 or percent == 0 else f"{percent:.1f} %"
