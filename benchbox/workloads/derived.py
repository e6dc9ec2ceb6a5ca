"""Metrics that follow from what every sample has: how long the command ran, and its work by host CPU time. Pure."""

from collections.abc import Mapping

from benchbox.model import Command, Metric, Outcome
from benchbox.units import NS_PER_S

#: The counter of all CPU time of an environment on the host: of a guest all of QEMU, emulator threads too.
CPU_COUNTER = "cpu.usage"


def derived_metrics(workload: str, command: Command, outcome: Outcome, own: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return ``<workload>.elapsed`` and ``<workload>.per_cpu_s`` where they can be told.

    ``elapsed`` is from the request to ``exited`` in s, start included: not every environment can tell when a program
    was executed. Only commands that know nothing of benchbox have it, the others are about their byte.
    ``per_cpu_s`` is the workload's own metric ``<workload>.work`` by the second of host CPU time that the whole
    environment used, its start and end included; there is none where the host cannot attribute CPU time.
    """
    found = [*_elapsed(workload, command, outcome), *_per_cpu(workload, outcome, own)]
    return {metric.name: metric for metric in found}


def _elapsed(workload: str, command: Command, outcome: Outcome) -> list[Metric]:
    if command.signals_ready or "exited" not in outcome.stages:
        return []
    elapsed_ns = outcome.stages["exited"] - outcome.requested_ns
    return [Metric(f"{workload}.elapsed", elapsed_ns / NS_PER_S, "s")]


def _per_cpu(workload: str, outcome: Outcome, own: Mapping[str, Metric]) -> list[Metric]:
    work = own.get(f"{workload}.work")
    used_s = next((counter.value for counter in outcome.counters if counter.name == CPU_COUNTER), None)
    if work is None or not used_s:
        return []
    unit = "1/s" if work.unit == "1" else f"{work.unit}/s"
    return [Metric(f"{workload}.per_cpu_s", work.value / used_s, unit, "higher")]
