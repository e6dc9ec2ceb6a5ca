"""Noise, named: what disturbed a run, read from its samples.

Drift over the run, two modes, an effect of what ran before, time that was taken or throttled, and outliers with their
cause where the record knows one. Each finding is one sentence; nothing is dropped because of any.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchbox.analysis import ranks
from benchbox.analysis import statistics as st
from benchbox.analysis.samples import metric_value
from benchbox.record import Sample
from benchbox.units import format_duration

Kind = Literal["drift", "two modes", "predecessor", "throttled", "stolen time", "outliers"]

#: A trend counts from this |rho| on, and with a p below ALPHA.
DRIFT_RHO: Final = 0.5
ALPHA: Final = 0.01

#: Below this neither a trend nor modes are looked for: the smallest p would say nothing.
MIN_VALUES: Final = 10

#: Two modes: a gap of so many MADs, measured inside the modes, with this share of the values on both sides.
GAP_MADS: Final = 4.0
MODE_SHARE: Final = 0.2

#: Predecessors: at least so many samples after each; smaller differences of medians are not worth a word.
MIN_AFTER: Final = 3
MIN_EFFECT: Final = 0.01

#: Time of a sample that was taken or throttled, as a share: above it the sample counts as disturbed.
DISTURBED_SHARE: Final = 0.01

#: What may have caused an outlier: above the cell's usual level by more than this share of the time.
UNUSUAL_SHARE: Final = 0.02

_CAUSES: Final = {
    "psi.cpu.some_share": "waiting for a CPU",
    "psi.io.some_share": "waiting for I/O",
    "psi.memory.some_share": "waiting for memory",
    "steal_share": "CPU time taken by a hypervisor",
    "throttled.quota_share": "benchbox's own CPU quota",
    "throttled.thermal": "slowed down for heat",
}


@dataclass(frozen=True)
class Outlier:
    """One flagged sample: ``value`` in the metric's unit, and what was unusual on the host meanwhile (may be empty)."""

    round: int
    value: float
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Disturbance:
    """One finding about one cell.

    ``text`` is a sentence without the cell's name. ``blocks_equivalent``: with it two things cannot be called
    equivalent, for their medians stand for nothing.
    """

    kind: Kind
    cell: str
    text: str
    blocks_equivalent: bool = False
    outliers: tuple[Outlier, ...] = ()


def disturbances(by_cell: Mapping[str, Sequence[Sample]], metrics: Mapping[str, str]) -> tuple[Disturbance, ...]:
    """Return what disturbed the samples of each cell, in the order of ``by_cell``, the gravest first within a cell.

    ``metrics`` is what each cell is looked at by.
    """
    after = _predecessor_effects(by_cell, metrics)
    found: list[Disturbance] = []
    for cell, samples in by_cell.items():
        metric = metrics[cell]
        valid = [(sample, value) for sample in samples if (value := metric_value(sample, metric)) is not None]
        ordered = sorted(valid, key=lambda pair: pair[0].requested_ns)
        each = (
            _drift(cell, [value for _, value in ordered]),
            _two_modes(cell, ordered, metric),
            after.get(cell),
            _throttled(cell, samples),
            _stolen(cell, samples),
            _outliers(cell, ordered),
        )
        found += [one for one in each if one is not None]
    return tuple(found)


@dataclass(frozen=True)
class Level:
    """How much of one kind of noise there was around the samples of a cell."""

    median: float
    maximum: float


def levels(by_cell: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, Level]]:
    """Return by kind of noise and by cell how much there was, as far as it was recorded."""
    found: dict[str, dict[str, Level]] = {}
    for cell, samples in by_cell.items():
        values: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            for key, value in sample.noise.items():
                values[key].append(value)
        for key, each in values.items():
            found.setdefault(key, {})[cell] = Level(st.median(each), max(each))
    return found


def modes(values: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Return the lower and the upper mode of ``values``, None where there are not clearly two.

    They lie apart by the largest gap that leaves MODE_SHARE of the values on both sides, which must be wider than
    GAP_MADS times the MAD. The MAD is that of the distances from each mode's own median: taken from the common one,
    two equally strong modes would hide themselves.
    """
    if len(values) < MIN_VALUES:
        return None
    ordered = sorted(values)
    least = -(-len(ordered) * 20 // 100)
    split = max(range(least, len(ordered) - least + 1), key=lambda index: ordered[index] - ordered[index - 1])
    low, high = ordered[:split], ordered[split:]
    inside = [*st.distances(low), *st.distances(high)]
    return (low, high) if high[0] - low[-1] > GAP_MADS * st.median(inside) else None


def _drift(cell: str, values: Sequence[float]) -> Disturbance | None:
    if len(values) < MIN_VALUES:
        return None
    rho, p = ranks.spearman(values)
    if abs(rho) <= DRIFT_RHO or p >= ALPHA:
        return None
    way = "rose" if rho > 0 else "fell"
    return Disturbance("drift", cell, f"values {way} over the run (Spearman's rho {rho:.2f}, {_p(p)})", True)


def _two_modes(cell: str, ordered: Sequence[tuple[Sample, float]], metric: str) -> Disturbance | None:
    found = modes([value for _, value in ordered])
    if found is None:
        return None
    unit = ordered[0][0].metrics[metric].unit
    low, high = found
    text = (
        f"two modes: {len(low)} samples around {_shown(st.median(low), unit)},"
        f" {len(high)} around {_shown(st.median(high), unit)}; the median stands for neither"
    )
    return Disturbance("two modes", cell, text, True)


def _predecessor_effects(by_cell: Mapping[str, Sequence[Sample]], metrics: Mapping[str, str]) -> dict[str, Disturbance]:
    """Return the cells whose values depend on what ran before, adjusted for having looked at all cells."""
    groups = {cell: _by_predecessor(samples, metrics[cell]) for cell, samples in by_cell.items()}
    tested = {cell: found for cell, found in groups.items() if len(found) > 1}
    adjusted = ranks.holm([ranks.kruskal(list(found.values())) for found in tested.values()])
    effects = {}
    for (cell, found), p in zip(tested.items(), adjusted, strict=True):
        medians = {before: st.median(values) for before, values in found.items()}
        low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
        if p < ALPHA and medians[low] > 0 and medians[high] / medians[low] - 1 > MIN_EFFECT:
            more = medians[high] / medians[low] - 1
            text = f"the median is {more:.0%} higher after {high} than after {low} (Kruskal-Wallis, {_p(p)})"
            effects[cell] = Disturbance("predecessor", cell, text)
    return effects


def _by_predecessor(samples: Sequence[Sample], metric: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        value = metric_value(sample, metric)
        if value is not None and sample.predecessor is not None:
            groups[sample.predecessor].append(value)
    return {before: values for before, values in groups.items() if len(values) >= MIN_AFTER}


def _throttled(cell: str, samples: Sequence[Sample]) -> Disturbance | None:
    quota = sum(sample.flags.get("throttled") == "yes" for sample in samples)
    own = sum(sample.noise.get("throttled.quota_share", 0) > DISTURBED_SHARE for sample in samples)
    heat = sum(sample.noise.get("throttled.thermal", 0) > 0 for sample in samples)
    counts = ((quota, "their CPU quota"), (own, "benchbox's own CPU quota"), (heat, "heat"))
    parts = [f"{count} of {len(samples)} samples by {what}" for count, what in counts if count]
    return Disturbance("throttled", cell, f"throttled: {', '.join(parts)}") if parts else None


def _stolen(cell: str, samples: Sequence[Sample]) -> Disturbance | None:
    taken = [share for sample in samples if (share := sample.noise.get("steal_share", 0)) > DISTURBED_SHARE]
    if not taken:
        return None
    text = f"a hypervisor took CPU time in {len(taken)} of {len(samples)} samples, up to {max(taken):.0%} of it"
    return Disturbance("stolen time", cell, text)


def _outliers(cell: str, ordered: Sequence[tuple[Sample, float]]) -> Disturbance | None:
    flags = st.outliers([value for _, value in ordered])
    if not any(flags):
        return None
    usual = _usual_levels([sample for sample, _ in ordered])
    found = tuple(
        Outlier(sample.round, value, _causes(sample, usual))
        for (sample, value), flag in zip(ordered, flags, strict=True)
        if flag
    )
    counts: dict[str, int] = defaultdict(int)
    for outlier in found:
        counts[" and ".join(outlier.causes) or "not known"] += 1
    causes = ", ".join(f"{what} ({count})" for what, count in counts.items())
    are = "is an outlier, which counts" if len(found) == 1 else "are outliers, which count"
    text = f"{len(found)} of {len(ordered)} samples {are} like any other; cause: {causes}"
    return Disturbance("outliers", cell, text, outliers=found)


def _usual_levels(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median of each kind of noise in a cell's samples."""
    levels: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        for key in _CAUSES:
            if key in sample.noise:
                levels[key].append(sample.noise[key])
    return {key: st.median(values) for key, values in levels.items()}


def _causes(sample: Sample, usual: Mapping[str, float]) -> tuple[str, ...]:
    """Return what was clearly above its usual level while ``sample`` ran."""
    return tuple(
        words
        for key, words in _CAUSES.items()
        if key in sample.noise and sample.noise[key] > 1.5 * usual[key] + UNUSUAL_SHARE
    )


def _p(p: float) -> str:
    return f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"


def _shown(value: float, unit: str) -> str:
    return format_duration(value) if unit == "s" else f"{value:.3g} {unit}".removesuffix(" 1")
