"""Synthetic runs for the tests of analysis and report: realistic numbers, seeded, no clock."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchbox.record import (
    AbandonedCell,
    CellRecord,
    CounterValue,
    EnvironmentRecord,
    ImageRecord,
    Iterations,
    Manifest,
    MetricValue,
    RunFolder,
    Sample,
    SampleWriter,
    write_manifest,
)

#: Tries to break out of text, attributes, scripts, templates and plotly's labels.
EVIL: Final = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}${8*8}<!--\u2028"

#: Median duration of each stage in ns, in the order of stages.
STAGES_NS: Final[Mapping[str, Mapping[str, int]]] = {
    "native": {"cgroups": 90_000, "started": 120_000, "exec": 230_000, "ready": 60_000, "exited": 40_000,
               "cleaned": 150_000},
    "container": {"cgroups": 110_000, "started": 400_000, "isolated": 1_300_000, "exec": 380_000, "ready": 110_000,
                  "exited": 70_000, "cleaned": 900_000},
    "vm": {"cgroups": 400_000, "started": 350_000_000, "agent": 1_850_000_000, "exec": 190_000_000,
           "ready": 9_000_000, "exited": 4_000_000, "cleaned": 120_000_000},
}  # fmt: skip


#: The account of a sample on a hybrid host.
COUNTERS: Final = {
    "cpu.usage": CounterValue(value=0.000867, unit="s", source="cgroup2 cpu.stat usage_usec"),
    "memory.peak": CounterValue(value=262144, unit="B", source="cgroup1 memory.max_usage_in_bytes"),
    "io.read": CounterValue(value=0, unit="B", source="cgroup1 blkio.throttle.io_service_bytes Read"),
    "io.write": CounterValue(value=None, unit="B", source="cgroup v1 does not attribute buffered write-back"),
    "pressure.cpu": CounterValue(value=0, unit="s", source="cgroup2 cpu.pressure some"),
}


def sample(
    environment: str,
    number: int,
    *,
    factor: float = 1.0,
    workload: str = "startup",
    params: Mapping[str, str | int | float] | None = None,
    stages_ns: Mapping[str, int] | None = None,
    **changes: Any,
) -> Sample:
    """Return one valid sample whose stages take ``factor`` times their median."""
    instant, stages = 0, {}
    for name, duration in (stages_ns or STAGES_NS[environment]).items():
        instant += round(duration * factor)
        stages[name] = instant
    metrics = {f"startup.stage.{name}": MetricValue(value=ns / 1e9, unit="s") for name, ns in stages.items()}
    if "ready" in stages:
        metrics["startup.ready"] = MetricValue(value=stages["ready"] / 1e9, unit="s")
    given = dict(params or {})
    fields: dict[str, Any] = {
        "cell": cell_id(environment, workload, given),
        "environment": environment,
        "workload": workload,
        "params": given,
        "round": number,
        "position": 0,
        "predecessor": None,
        "started_at": f"2026-05-01T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "status": "ok",
        "exit_code": 0,
        "flags": {"accelerator": "tcg"} if environment == "vm" else {},
        "requested_ns": 1_000_000_000_000 + number * 3_000_000_000,
        "stages": stages,
        "metrics": metrics,
        "counters": COUNTERS,
        "applied": {"cpus": "1", "memory_bytes": 268435456, "pids": 512, "cpu_quota": None, "seccomp": "off"},
        "noise": {"load1": 0.2, "psi.cpu.some_share": 0.01, "psi.io.some_share": 0.0},
    }
    return Sample(**(fields | changes))


def cell_id(environment: str, workload: str, params: Mapping[str, str | int | float]) -> str:
    """Return a cell's id as the record has it."""
    text = ";".join(f"{key}={value}" for key, value in params.items())
    return f"{environment}/{workload}" + (f"[{text}]" if text else "")


def _at_once(count: int) -> dict[str, str | int | float]:
    return {"parallel": count}


def parallel_run(counts: Sequence[int] = (1, 2, 4), **changes: Any) -> tuple[Manifest, list[Sample]]:
    """Return a run that started so many at once; the container's time grows as they do, the native's half as fast."""
    labels = ("native", "container")
    cells = [
        CellRecord(id=cell_id(label, "startup", p), environment=label, workload="startup", params=p)
        for p in (_at_once(count) for count in counts)
        for label in labels
    ]
    taken = []
    for number in range(1, 13):
        for cell in cells:
            count = int(cell.params["parallel"])
            factor = (count if cell.environment == "container" else (1 + count) / 2) * (1 + number / 100)
            one = sample(cell.environment, number, params=cell.params, factor=factor)
            ready_s = one.metrics["startup.ready"].value
            metrics = {
                "parallel.all_ready": MetricValue(value=ready_s, unit="s"),
                "parallel.rate": MetricValue(value=count / ready_s, unit="1/s", direction="higher"),
            }
            taken.append(one.model_copy(update={"metrics": metrics}))
    return manifest(labels, 12, cells=cells, **changes), taken


#: Latencies by percentile, in s.
LADDER: Final = {"p50": 1e-4, "p90": 3e-4, "p99": 1e-3, "p99.9": 4e-3, "max": 2e-2}


def latency_run(rounds: int = 11) -> tuple[Manifest, list[Sample]]:
    """Return a run of messages to a native and a container's server, which takes twice as long."""
    cells = [CellRecord(id=f"{e}/ping", environment=e, workload="ping") for e in ("native", "container")]
    taken = []
    for number in range(1, rounds + 1):
        for cell in cells:
            factor = (2 if cell.environment == "container" else 1) * (1 + number / 100)
            metrics = {
                f"network.latency.{name}": MetricValue(value=time_s * factor, unit="s")
                for name, time_s in LADDER.items()
            }
            one = sample(cell.environment, number, workload="ping")
            taken.append(one.model_copy(update={"metrics": metrics}))
    return manifest(("native", "container"), rounds, cells=cells), taken


def iterated_run(rounds: int = 12, count: int = 20) -> tuple[Manifest, list[Sample]]:
    """Return a run whose samples repeat themselves ``count`` times: a third of the container's never settle."""
    cells = [CellRecord(id=f"{e}/loop", environment=e, workload="loop") for e in ("native", "container")]
    taken = []
    for number in range(1, rounds + 1):
        for cell in cells:
            warm_up = None if cell.environment == "container" and number % 3 == 0 else 2 * (number % 2)
            values = [(2e-6 if at < (warm_up or 0) else 1e-6) * (1 + number / 100) for at in range(count)]
            metrics = {"loop.each": MetricValue(value=values[-1], unit="s")}
            iterations = {"loop.each": Iterations(values=values, warm_up=warm_up)}
            one = sample(cell.environment, number, workload="loop", iterations=iterations)
            taken.append(one.model_copy(update={"metrics": metrics}))
    return manifest(("native", "container"), rounds, cells=cells), taken


def failed(environment: str, number: int, reason: str, **changes: Any) -> Sample:
    """Return a sample that did not make it to its ready byte."""
    return sample(
        environment, number, **({"status": "failed", "reason": reason, "metrics": {}, "stages": {}} | changes)
    )


def manifest(
    environments: Sequence[str] = ("native", "container", "vm"),
    rounds: int = 20,
    *,
    records: Iterable[EnvironmentRecord] | None = None,
    cells: Sequence[CellRecord] | None = None,
    **changes: Any,
) -> Manifest:
    """Return the manifest of a run that measured ``environments``."""
    ids = [CellRecord(id=f"{label}/startup", environment=label, workload="startup") for label in environments]
    used = list(cells) if cells is not None else ids
    fields: dict[str, Any] = {
        "run_id": "startup-20260501T100000Z-ab12",
        "created_at": "2026-05-01T10:00:00Z",
        "ended_at": "2026-05-01T10:02:10Z",
        "exit_state": "done",
        "scenario": {
            "name": "startup",
            "description": "Time from the request to the workload's first instruction",
            "baseline": "native",
            "rounds": rounds,
            "seed": 1,
            "resources": {"cpus": 1, "memory_bytes": 268435456},
        },
        "scenario_file": "scenarios/startup.yaml",
        "seed": 1,
        "rounds": rounds,
        "baseline": "native",
        "cells": used,
        "order": [[cell.id for cell in used] for _ in range(rounds + 1)],
        "image": ImageRecord(name="minimal", digest="0" * 64, executables={"/bin/ready": "1" * 64}),
        "host": HOST,
        "host_digest": "2" * 64,
        "boot_id": "11111111-2222-3333-4444-555555555555",
        "tools": {"benchbox": "0.1.0", "qemu": "7.2.22", "libvirt": "9.0.0"},
        "environments": list(records) if records is not None else [environment(label) for label in environments],
        "settle_ms": 2.0,
    }
    return Manifest(**(fields | changes))


HOST: Final[dict[str, Any]] = {
    "cpu": {"model": "AMD EPYC 7B13", "cpus": 2, "smt": "notimplemented", "governor": None, "microcode": "0x1000065"},
    "memory_bytes": 25276063744,
    "kernel": {"release": "6.1.0-28-amd64", "command_line": "quiet", "thp": "madvise"},
    "cgroup": "hybrid",
    "virtualised": True,
    "mitigations": {"spectre_v2": "Mitigation: Retpolines", "meltdown": "Not affected"},
}

_APPLIED: Final[dict[str, dict[str, Any]]] = {
    "native": {"cpuset": "1", "memory.limit_in_bytes": 268435456, "root": "read-only bind"},
    "container": {"cpuset": "1", "memory.limit_in_bytes": 268435456, "namespaces": ["pid", "mnt", "net"]},
    "vm": {
        "cpuset": "1",
        "accelerator": "tcg",
        "accelerator_proof": {"reason": "a guest did not boot with KVM: paused (crashed)"},
    },
}


def environment(label: str, **changes: Any) -> EnvironmentRecord:
    """Return the record of an environment that was measured."""
    fields: dict[str, Any] = {"label": label, "kind": label, "state": "measured", "applied": _APPLIED.get(label, {})}
    return EnvironmentRecord(**(fields | changes))


def samples(
    environments: Sequence[str] = ("native", "container", "vm"),
    rounds: int = 20,
    *,
    seed: int = 7,
    replace: Callable[[str, int], Sample | None] = lambda _environment, _round: None,
) -> list[Sample]:
    """Return the priming round 0 and ``rounds`` rounds; ``replace`` may give another sample for one of them."""
    chance = random.Random(seed)
    made = []
    for number in range(rounds + 1):
        order = chance.sample(list(environments), len(environments))
        for position, label in enumerate(order):
            factor = chance.lognormvariate(0, 0.08) * (5 if number == 0 else 1)
            made.append(
                replace(label, number)
                or sample(
                    label,
                    number,
                    factor=factor,
                    position=position,
                    predecessor=cell_id(order[position - 1], "startup", {}) if position else None,
                )
            )
    return made


def write_run(path: Path, run: Manifest, taken: Iterable[Sample]) -> Path:
    """Write a run as it lies on disk and return its folder."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path, run.run_id)
    write_manifest(folder, run)
    with SampleWriter(folder) as writer:
        for one in taken:
            writer.append(one)
    return path


def evil_run(evil: str = EVIL) -> tuple[Manifest, list[Sample], list[str]]:
    """Return a run in which everything that others write is ``evil``."""
    cells = [
        CellRecord(id=evil + label, environment=label + evil, workload=evil, params={evil: evil}) for label in "ab"
    ]
    records = [
        environment("a" + evil, kind=evil, applied={evil: {evil: [evil, {evil: evil}]}}, reason=evil, fix=evil,
                    account={evil: CounterValue(value=1, unit=evil, source=evil)}),
        environment("b" + evil, kind="vm", applied={"accelerator": evil, "accelerator_proof": {"reason": evil}}),
        environment("c" + evil, kind=evil, state="skipped", reason=evil, fix=evil),
    ]  # fmt: skip
    run = manifest(
        cells=cells,
        records=records,
        baseline="a" + evil,
        scenario={"name": evil, "description": evil},
        scenario_file=evil,
        exit_state="failed",
        exit_reason=evil,
        created_at=evil,
        run_id=evil,
        image=ImageRecord(name=evil, digest=evil, executables={evil: evil}),
        host={evil: {evil: evil}},
        tools={evil: evil},
        abandoned=[AbandonedCell(cell=evil, reason=evil, after_round=1)],
    )
    made: dict[str, Any] = {
        "workload": evil,
        "stages_ns": {evil: 1000, "ready": 1000},
        "flags": {evil: evil},
        "applied": {evil: evil},
    }
    taken = [
        sample(cell.environment, number, cell=cell.id, **made) for number in range(1, 9) for cell in cells
    ]  # fmt: skip
    bad = failed("a" + evil, 9, evil, cell=cells[0].id, output_tail=evil, console_tail=evil, **made)
    return run, [*taken, bad], [evil]


def controlled_run(factor: float = 1.0, rounds: int = 20) -> tuple[Manifest, list[Sample]]:
    """Return a run with an A/A control that takes ``factor`` times as long as its baseline."""
    labels = ("native", "native-control", "container")
    records = [environment(label, kind=label.removesuffix("-control")) for label in labels]
    run = manifest(labels, rounds, records=records)
    run = run.model_copy(update={"scenario": {**run.scenario, "control": True}})
    chance = random.Random(5)
    taken = []
    for number in range(rounds + 1):
        for position, label in enumerate(labels):
            stages = STAGES_NS[label.removesuffix("-control")]
            slower = chance.lognormvariate(0, 0.02) * (factor if label == "native-control" else 1)
            taken.append(sample(label, number, factor=slower, stages_ns=stages, position=position))
    return run, taken
