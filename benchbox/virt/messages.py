"""What engine and libvirt worker say to each other: one JSON object a line. Pure."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchbox.linux.cgroups import CgroupPlan, Layout, Limits, plan
from benchbox.model import Command, Counter, DataSpec, Outcome
from benchbox.virt.domain import GuestSpec


@dataclass(frozen=True)
class GuestOrder:
    """One guest to boot and what to do with it.

    ``command`` None asks for a proof only: the guest is ended at the agent's first byte. ``boot_timeout_s`` is the
    deadline from the request to the command's exec (or to that byte). ``log`` is where libvirt keeps QEMU's messages.
    ``device_stat`` is a file to read at the command's end: what the device below its /data has transferred.
    The cgroup is ``cgroup_base/cgroup_leaf`` in each hierarchy; ``mems`` are its memory nodes.
    """

    spec: GuestSpec
    command: Command | None
    boot_timeout_s: float
    cgroup_base: str
    cgroup_leaf: str
    mems: str = "0"
    cpu_quota: float | None = None
    log: str | None = None
    device_stat: str | None = None

    def cgroups(self, layout: Layout) -> CgroupPlan:
        """Return the groups of this guest: QEMU is confined to its CPUs and accounted, its memory is not limited."""
        limits = Limits(cpu_quota=self.cpu_quota)
        return plan(layout, self.cgroup_base, self.cgroup_leaf, limits, self.spec.cpus, self.mems)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return ``message`` as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the message of one line. Raises ValueError when it is none."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {line[:100]!r}")
    return message


def order_to_json(order: GuestOrder) -> dict[str, Any]:
    """Return ``order`` in JSON types."""
    return asdict(order)


def order_from_json(data: Mapping[str, Any]) -> GuestOrder:
    """Return the order that ``order_to_json`` wrote."""
    spec = dict(data["spec"])
    for key in ("cpus", "disabled_features"):
        spec[key] = tuple(spec[key])
    command = data["command"]
    if command is not None:
        command = Command(**{**command, "argv": tuple(command["argv"]), "data": _data(command["data"])})
    return GuestOrder(**{**data, "spec": GuestSpec(**spec), "command": command})


def _data(data: Mapping[str, Any] | None) -> DataSpec | None:
    return None if data is None else DataSpec(**{**data, "copies": tuple(data["copies"])})


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return ``outcome`` in JSON types."""
    data = asdict(outcome)
    data["output_tail"] = base64.b64encode(outcome.output_tail).decode()
    return data


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """Return the outcome that ``outcome_to_json`` wrote."""
    counters = tuple(Counter(**counter) for counter in data["counters"])
    return Outcome(**{**data, "counters": counters, "output_tail": base64.b64decode(data["output_tail"])})
