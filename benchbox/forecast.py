"""What a run would do, said without doing it: cells, order, time, rights, disk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchbox import host, images, plan, record
from benchbox.environments import environment
from benchbox.foreign import plain
from benchbox.model import EnvironmentSpec
from benchbox.scenario import PARALLEL, SMALLER, Cell, Scenario, cells, planned_order, too_large
from benchbox.units import format_duration, format_size
from benchbox.workloads import SERVING, TABLE

#: What a sample takes where nothing has been measured here yet, in s. A guest's is that of emulation, the slower case.
_TYPICAL_S: Final[Mapping[str, float]] = {
    "native": 0.02, "container": 0.03, "vm": 4.0, "oci": 0.06, "docker": 0.35, "format": 3.0,
}  # fmt: skip
#: The parameter of workloads by which they are told how long to go on, in s.
_LASTS: Final = "seconds"
_SAMPLE_BYTES: Final = 4000
#: What the image and the guest kernel take when they are not in the cache yet.
_FIRST_TIME_BYTES: Final = 250 << 20


@dataclass(frozen=True)
class EnvironmentForecast:
    """Whether this host offers an environment, by a look that changes nothing."""

    label: str
    kind: str
    available: bool
    reason: str | None
    fix: str | None
    required: bool


@dataclass(frozen=True)
class Forecast:
    """See the module. ``duration_s`` rests on ``duration_basis``; ``with_client`` are workloads that have one."""

    name: str
    image: str
    cells: tuple[str, ...]
    order: tuple[tuple[str, ...], ...]
    rounds: int
    cache: str
    parallel: tuple[int, ...]
    duration_s: float
    duration_basis: str
    environments: tuple[EnvironmentForecast, ...]
    with_client: tuple[str, ...]
    record_bytes: int
    cache_bytes: int
    cache_missing_bytes: int


def forecast(scenario: Scenario, results: Path, required: Sequence[str] = ()) -> Forecast:
    """Look at this host and at earlier runs of the scenario; nothing is started or written."""
    offers = tuple(_offer(spec, scenario, required) for spec in scenario.environments)
    available = {offer.label for offer in offers if offer.available}
    planned = tuple(cell.id for cell in cells(scenario))
    measured = [cell for cell in cells(scenario) if cell.environment in available]
    earlier = _earlier_s(scenario.name, results)
    kinds = {spec.label: spec.kind for spec in scenario.environments}
    typical = {cell.id: earlier.get(cell.id, rough_s(cell, kinds[cell.environment])) for cell in measured}
    known = [cell.id for cell in measured if cell.id in earlier]
    cached = sum(images.disk_bytes().values())
    return Forecast(
        scenario.name,
        str(scenario.image),
        planned,
        planned_order(scenario),
        scenario.rounds,
        scenario.cache,
        scenario.parallel,
        plan.estimate_s([cell.id for cell in measured], scenario.rounds, typical)
        + 0.015 * len(measured) * scenario.rounds,
        _basis(len(known), len(measured)),
        offers,
        tuple(sorted({spec.name for spec in scenario.workloads if spec.name in SERVING})),
        _SAMPLE_BYTES * len(planned) * (scenario.rounds + 1),
        cached,
        0 if cached else _FIRST_TIME_BYTES,
    )


def rough_s(cell: Cell, kind: str) -> float:
    """Return what a sample of ``cell`` takes where none is known: its start, and what its workload is told to last.

    Several at once share the same CPUs, so they start one after the other and last as long as one. Pure.
    """
    start_s = _TYPICAL_S.get(kind, 1.0) * int(cell.params.get(PARALLEL, 1))
    return start_s + _declared_s(cell)


def _declared_s(cell: Cell) -> float:
    """Return how long the workload is told to go on; 0 for one that ends when its work is done."""
    seconds = cell.params.get(_LASTS, 0)
    told = float(seconds) if isinstance(seconds, int | float) else 0.0
    own = {key: value for key, value in cell.params.items() if key != PARALLEL}
    return told + (TABLE[cell.workload].command(own).hold_s if cell.workload in TABLE else 0.0)


def _basis(known: int, measured: int) -> str:
    if known and known == measured:
        return "the last run of this scenario here"
    return (
        "the last run here, and rough figures for what it lacks"
        if known
        else "rough figures and what the workloads are told to last, nothing was measured here yet"
    )


def _offer(spec: EnvironmentSpec, scenario: Scenario, required: Sequence[str]) -> EnvironmentForecast:
    offer = environment(spec.kind).check(spec)
    if problem := too_large(scenario, spec.kind, host.available_memory_bytes()):
        return EnvironmentForecast(spec.label, spec.kind, False, problem, SMALLER, required=True)
    needed = any(word.partition(":")[0] in (spec.kind, spec.label) for word in required)
    return EnvironmentForecast(spec.label, spec.kind, offer.available, offer.reason, offer.fix, needed)


def _earlier_s(name: str, results: Path) -> dict[str, float]:
    """Return the median time of a sample, by cell, in the newest run of the scenario ``name``."""
    for path in reversed(record.list_runs(results)):
        if path.name.startswith(f"{name}-"):
            return _typical_s(record.read_samples(path)[0])
    return {}


def _typical_s(samples: Sequence[record.Sample]) -> dict[str, float]:
    spans: dict[str, list[int]] = {}
    for sample in samples:
        if sample.stages:
            spans.setdefault(sample.cell, []).append(max(sample.stages.values()))
    return {cell: sorted(values)[len(values) // 2] / 1e9 for cell, values in spans.items()}


def as_dict(found: Forecast) -> dict[str, Any]:
    """Return it in JSON types."""
    return asdict(found)


def as_text(found: Forecast, *, brief: bool = False) -> str:
    """Return it for a terminal; ``brief`` leaves the order out."""
    lines = [f"{found.name}: {len(found.cells)} cells, {found.rounds} rounds and one to prime"]
    lines += [f"  image     {found.image}"]
    lines += [f"  time      about {format_duration(found.duration_s)} ({found.duration_basis})"]
    lines += [f"  start     {_start(found)}"]
    lines += [f"  client    {_client(found)}"] if found.with_client else []
    lines += [f"  record    about {format_size(found.record_bytes)}"]
    lines += [f"  cache     {format_size(found.cache_bytes)} there" + _missing(found.cache_missing_bytes)]
    lines += ["environments"] + [_environment_line(item) for item in found.environments]
    if not brief:
        lines += ["order"] + [
            f"  {_round_name(number)}: {' > '.join(names)}" for number, names in enumerate(found.order)
        ]
    return "\n".join(lines)


def _start(found: Forecast) -> str:
    """Say in which state of the page cache and how many at once."""
    caches = {
        "warm": "warm: what it reads is in the host's page cache",
        "cold": "cold: what it reads is dropped from the host's page cache before each sample",
    }
    counts = ", ".join(map(str, found.parallel))
    return caches[found.cache] + ("" if found.parallel == (1,) else f"; at once: {counts}")


def _client(found: Forecast) -> str:
    """Say where the programs of the image run that put load on servers."""
    return f"from the image, in a container of its own beside any environment: {', '.join(found.with_client)}"


def _missing(size_bytes: int) -> str:
    return f", about {format_size(size_bytes)} to come with the first guest" if size_bytes else ""


def _round_name(number: int) -> str:
    return f"round {number}" if number else "priming"


def _environment_line(item: EnvironmentForecast) -> str:
    if item.available:
        return f"  {item.label}: offered by this host, with the rights of this user"
    state = "fails" if item.required else "skipped"
    return f"  {item.label}: {state}: {plain(item.reason)}\n    next: {plain(item.fix)}"
