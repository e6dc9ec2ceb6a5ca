"""Memory, and what the kernel draws at random."""

from typing import Final

from benchbox.doctor.facts import Facts
from benchbox.doctor.findings import Seen, blocker, info, ok, warning
from benchbox.model import Resources
from benchbox.units import format_size

#: What QEMU, benchbox and the page cache need beside the memory of an environment.
_BESIDE_BYTES: Final = 512 << 20
#: Swap in use below this is what an idle host has put away for good.
_SWAP_BYTES: Final = 64 << 20
#: A kernel before 5.18 that has less makes getrandom(2) wait at boot; later ones always show 256.
_ENTROPY_BITS: Final = 128
_THP: Final = "/sys/kernel/mm/transparent_hugepage/enabled"


def free(facts: Facts) -> Seen:
    """An environment and all around it fit."""
    available = facts.settings.memory_available_bytes
    if available is None:
        return info("not visible")
    found = f"{format_size(available)} available"
    needed = Resources().memory_bytes
    if available < needed:
        return blocker(f"{found}, an environment gets {format_size(needed)}", "end what uses the memory")
    if available < needed + _BESIDE_BYTES:
        return warning(f"{found}, an environment gets {format_size(needed)}", "end what uses the memory")
    return ok(found)


def swap(facts: Facts) -> Seen:
    """Nothing comes back from disk while something is measured."""
    total = facts.host.get("memory", {}).get("swap_bytes")
    used = facts.settings.swap_used_bytes
    if not total:
        return ok("none") if total == 0 else info("not visible")
    if used and used >= _SWAP_BYTES:
        return warning(f"{format_size(used)} of {format_size(total)} in use", "swapoff -a && swapon -a")
    return info(f"{format_size(total)}, next to nothing in use")


def huge_pages(facts: Facts) -> Seen:
    """Huge pages only for who asks."""
    chosen = facts.host.get("memory", {}).get("transparent_huge_pages")
    if chosen is None:
        return info("not visible")
    return info("always", f"echo madvise > {_THP}") if chosen == "always" else ok(chosen)


def same_page_merging(facts: Facts) -> Seen:
    """No thread that compares pages."""
    active = facts.host.get("memory", {}).get("same_page_merging")
    if active is None:
        return ok("not in this kernel")
    return warning("on", "echo 2 > /sys/kernel/mm/ksm/run") if active else ok("off")


def address_randomisation(facts: Facts) -> Seen:
    """Each start gets a layout of its own."""
    level = facts.settings.aslr
    if level is None:
        return info("not visible")
    if level == 2:
        return ok("on")
    return warning("off" if level == 0 else "in part", "sysctl kernel.randomize_va_space=2")


def entropy(facts: Facts) -> Seen:
    """Nobody waits for random numbers."""
    bits = facts.settings.entropy_bits
    if bits is None:
        return info("not visible")
    if bits < _ENTROPY_BITS:
        return warning(f"{bits} bits", "apt install rng-tools5, or start haveged")
    return ok(f"{bits} bits")
