"""What containers and limits are made of: cgroups, namespaces, overlay, benchbox's own programs."""

from typing import Final

from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Seen, blocker, info, ok, warning

#: Controller on v1 and on v2 -> what is lost without it.
_NEEDED: Final = {
    ("cpuset", "cpuset"): "CPUs by name",
    ("memory", "memory"): "memory limits",
    ("pids", "pids"): "limits of processes",
    ("cpu", "cpu"): "CPU quotas",
    ("blkio", "io"): "bytes read and written",
}


def programs(facts: Facts) -> Seen:
    """``launch``, ``agent`` and ``ready`` were built."""
    offer = facts.programs
    return ok("launch, agent, ready") if offer.available else blocker(offer.reason or "missing", offer.fix)


def cgroup_mode(facts: Facts) -> Seen:
    """Which cgroups this host mounts."""
    mode = facts.host.get("cgroups", {}).get("mode")
    if mode in (None, "none"):
        return blocker("no cgroup file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    if mode == "v2":
        return ok("v2")
    return info(f"{mode}: bytes written cannot be attributed, memory.peak counts differently than on v2")


def cgroup_rights(facts: Facts) -> Seen | None:
    """Groups may be made, and limits put on them."""
    if facts.host.get("cgroups", {}).get("mode") in (None, "none"):
        return None
    offer = facts.cgroups
    return ok("groups can be made") if offer.available else warning(offer.reason or "not possible", offer.fix)


def cgroup_controllers(facts: Facts) -> Seen | None:
    """All controllers that a limit or a counter needs are there."""
    layout = facts.host.get("cgroups", {})
    if layout.get("mode") in (None, "none"):
        return None
    v1, v2 = layout.get("v1", ()), layout.get("v2", ())
    missing = {name: lost for (old, name), lost in _NEEDED.items() if old not in v1 and name not in v2}
    if not missing:
        return ok(", ".join(sorted({*v1, *v2})))
    lost = "; ".join(f"no {name}: no {what}" for name, what in missing.items())
    return warning(lost, "enable them in the parent cgroup (systemd: Delegate=yes), or boot without cgroup_disable=")


def user_namespaces(facts: Facts) -> Seen:
    """An ordinary user may make user namespaces."""
    settings = facts.settings
    if settings.userns_max is None:
        return info("this kernel has none", "use a kernel with CONFIG_USER_NS")
    if settings.userns_max == 0:
        return _worse(facts, "switched off (max_user_namespaces is 0)", "sysctl user.max_user_namespaces=10000")
    if settings.userns_clone == 0:
        return _worse(facts, "for root only (unprivileged_userns_clone)", "sysctl kernel.unprivileged_userns_clone=1")
    if settings.userns_apparmor == 1:
        fix = "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        return _worse(facts, "AppArmor takes their rights from programs without a profile", fix)
    return ok(f"up to {settings.userns_max}")


def _worse(facts: Facts, found: str, fix: str) -> Seen:
    """Root does without them."""
    return info(found, fix) if facts.as_root else warning(found, fix)


def overlay(facts: Facts) -> Seen:
    """A container may have a writable layer over the image."""
    if facts.overlay.available:
        return ok("a writable layer over the image")
    if facts.bind.available:
        return warning(facts.overlay.reason or "not available", facts.overlay.fix)
    return info(f"not known: {facts.overlay.reason}", facts.overlay.fix)


def outer_container(facts: Facts) -> Seen:
    """benchbox itself is in a container."""
    manager = facts.host.get("virtualisation", {}).get("container")
    if manager is None:
        return ok("none: benchbox runs on the host itself")
    return warning(f"benchbox itself runs in a container ({manager})", "run it on the host")
