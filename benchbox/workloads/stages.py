"""The metrics that every workload has: when each stage was over, and whether the stamps can be true."""

from dataclasses import replace
from typing import Final, get_args

from benchbox.model import STAGES, Metric, Outcome, Signal
from benchbox.units import NS_PER_S

#: Stages whose metric has a short name as well: ``startup.<stage>``.
_SHORT: Final = (*get_args(Signal), "cleaned")


def signalled(outcome: Outcome, signals: Signal) -> Outcome:
    """Return ``outcome`` with its stage ``ready`` under the name of what the command's byte means."""
    stages = {signals if name == "ready" else name: stamp for name, stamp in outcome.stages.items()}
    return outcome if signals == "ready" else replace(outcome, stages=stages)


def stage_metrics(outcome: Outcome) -> dict[str, Metric]:
    """Return the time from the request to each stage of ``outcome`` in s, by metric name.

    ``startup.stage.<name>`` for each stage, ``startup.ready`` or ``startup.served``, and ``startup.cleaned`` again
    under short names, and ``startup.spawn``, which lies before the request. A stage that did not happen has no metric.
    """
    offsets_ns = {f"startup.stage.{name}": stamp - outcome.requested_ns for name, stamp in _ordered(outcome)}
    for name in _SHORT:
        if name in outcome.stages:
            offsets_ns[f"startup.{name}"] = outcome.stages[name] - outcome.requested_ns
    if outcome.spawn_ns is not None:
        offsets_ns["startup.spawn"] = outcome.spawn_ns
    return {name: Metric(name, offset_ns / NS_PER_S, "s") for name, offset_ns in offsets_ns.items()}


def stages_in_order(outcome: Outcome) -> str | None:
    """Return why the stamps of ``outcome`` cannot be true, None if they can.

    Each stage of ``model.STAGES`` ends no earlier than the one before it, the first no earlier than the request.
    A stage that does not exist is a reason as well.
    """
    unknown = sorted(set(outcome.stages) - set(STAGES))
    if unknown:
        return f"unknown stage {unknown[0]}"
    before, before_ns = "requested", outcome.requested_ns
    for name, stamp_ns in _ordered(outcome):
        if stamp_ns < before_ns:
            return f"stage {name} is stamped {before_ns - stamp_ns} ns before {before}"
        before, before_ns = name, stamp_ns
    return None


def _ordered(outcome: Outcome) -> list[tuple[str, int]]:
    return [(name, outcome.stages[name]) for name in STAGES if name in outcome.stages]
