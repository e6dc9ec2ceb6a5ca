"""What a run says, as plain data: the one source of every number in the table, in ``show --json`` and on the page.

A sample is in the statistics when its status is ``ok`` and it reports the metric; the priming round 0 never is.
What failed, was skipped, flagged or never measured stands beside the numbers, so that nobody has to miss it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchbox.analysis import statistics as st
from benchbox.analysis import verdicts
from benchbox.analysis.accelerators import accelerator_of, display_label, kvm_attempts, missing_kvm_note
from benchbox.analysis.density import Density, densities
from benchbox.analysis.disturbances import Disturbance, disturbances
from benchbox.analysis.floor import Floor, floors, within_floor
from benchbox.analysis.overview import Overview, overview
from benchbox.analysis.parity import Parity, parity
from benchbox.analysis.plausibility import too_fast
from benchbox.analysis.samples import (
    DEFAULT_METRIC,
    Taken,
    exclusion,
    metric_value,
    primary_metric,
    stage_durations_ns,
    take,
)
from benchbox.analysis.sizes import Sizes, sizes
from benchbox.analysis.verdicts import Control, Evidence, Verdict
from benchbox.model import EXACT, HEADLINE_METRICS
from benchbox.record import CellRecord, CounterValue, EnvironmentRecord, Manifest, Sample
from benchbox.scenario import PARALLEL, control_label
from benchbox.served import CLIENT_BOUND, CLIENT_BOUND_SHARE, CLIENT_CPU
from benchbox.units import NS_PER_S
from benchbox.workloads import NAMES, params_model


@dataclass(frozen=True)
class Failure:
    """A reason why samples of a cell are not in the statistics, and how many they are."""

    status: str
    reason: str
    count: int


@dataclass(frozen=True)
class StageMedian:
    """A stage of a cell: the median over its ``count`` valid samples of the time from the stage before to its end."""

    name: str
    median_s: float
    count: int


@dataclass(frozen=True)
class CounterMedian:
    """A counter of a cell's account: the median over its ``count`` valid samples, and where it was read.

    ``median`` is None where the host cannot attribute it in every sample; ``source`` then says why.
    """

    name: str
    unit: str
    source: str
    median: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """One cell in numbers: its values of ``metric`` in ``unit``, which is a base unit (s, B, B/s, 1/s, 1).

    ``label`` is the environment's own label, ``display`` says in the same breath when it is emulated. ``ok`` samples
    are in the statistics out of ``attempted`` ones. The numbers are None where no sample is ok, the intervals and
    ``p90`` also where there are too few. ``ratio`` and ``difference`` (the same in ``unit``) are to the baseline's cell
    of the same workload and parameters, None for the baseline itself; ``verdict`` says in one word what they mean, None
    for the baseline and its A/A control. ``flags`` counts ``key=value`` over the attempted samples.
    """

    cell: str
    label: str
    kind: str
    display: str
    accelerator: str | None
    workload: str
    params: dict[str, str | int | float]
    is_baseline: bool
    metric: str
    unit: str
    direction: str
    ok: int
    attempted: int
    median: float | None = None
    interval: st.Interval | None = None
    minimum: float | None = None
    maximum: float | None = None
    p90: float | None = None
    mad: float | None = None
    iqr: float | None = None
    ratio: st.Ratio | None = None
    difference: st.Difference | None = None
    verdict: Verdict | None = None
    is_control: bool = False
    outliers: int = 0
    failures: tuple[Failure, ...] = ()
    flags: dict[str, int] = field(default_factory=dict)
    stages: tuple[StageMedian, ...] = ()
    counters: tuple[CounterMedian, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Say whether its numbers are counted, so that an interval or a verdict would mean nothing."""
        return self.metric.startswith(EXACT)


@dataclass(frozen=True)
class Table:
    """The cells that may be compared, by ``metric``: one workload with one set of parameters in every environment.

    ``title`` is unique in its run and names only those of the ``params`` that tell it from the others.
    ``control`` is what the baseline said about itself, None where the scenario has no A/A control.
    """

    title: str
    workload: str
    params: dict[str, str | int | float]
    metric: str
    rows: tuple[Row, ...]
    control: Control | None = None


@dataclass(frozen=True)
class Absent:
    """An environment without numbers: ``skipped`` (not offered by this host) or ``failed``, why, and what helps."""

    label: str
    kind: str
    state: str
    reason: str
    fix: str | None


@dataclass(frozen=True)
class Abandoned:
    """A cell that was not tried again after it had failed three times in the same way."""

    cell: str
    reason: str
    after_round: int


@dataclass(frozen=True)
class Summary:
    """What a run says about one metric a table, of which ``metric`` is the first table's.

    ``notes`` are sentences for people, in the order of their weight.

    ``comparisons`` is how many verdicts share the probability of a false one. ``control`` is the A/A control that says
    least good of the run, ``trusted`` False where one differs from the baseline, None without a control that can tell.
    ``kvm_attempts`` are all that is known of guests that did not boot with KVM; the notes have it in a line.
    """

    run_id: str
    name: str
    created_at: str
    exit_state: str
    metric: str
    unit: str
    baseline: str
    seed: int
    rounds: int
    resamples: int
    confidence: float
    tables: tuple[Table, ...]
    absent: tuple[Absent, ...]
    abandoned: tuple[Abandoned, ...]
    notes: tuple[str, ...]
    comparisons: int
    control: Control | None
    trusted: bool | None
    parity: Parity
    disturbances: tuple[Disturbance, ...]
    cache: str = "warm"
    densities: tuple[Density, ...] = ()
    sizes: Sizes | None = None
    overview: Overview | None = None
    kvm_attempts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON types; every number is finite or None."""
        return asdict(self)


def summarise(
    manifest: Manifest,
    samples: Sequence[Sample] | Taken,
    metric: str | None = None,
    reading_notes: Sequence[str] = (),
) -> Summary:
    """Return what ``samples`` say about ``metric``, by default what each workload is about (``primary_metric``).

    ``reading_notes`` are those of the record's reader and come first.

    Only the last attempt of a round counts: a round that was broken off is repeated as a whole when the run is resumed.
    """
    taken = samples if isinstance(samples, Taken) else take(samples)
    by_cell = taken.by_cell
    metrics = _metrics(manifest.cells, by_cell, metric)
    environments = {record.label: record for record in manifest.environments}
    cells = [
        _measured(c, environments.get(c.environment), by_cell.get(c.id, []), metrics[c.id]) for c in manifest.cells
    ]
    alike = parity(manifest, by_cell)
    sampled = [cell.id for cell in manifest.cells if cell.id in by_cell and not metrics[cell.id].startswith(EXACT)]
    disturbed = disturbances({cell: by_cell[cell] for cell in sampled}, metrics)
    judgement = _judgement(manifest, cells, _Context(alike, floors(by_cell.values())), disturbed)
    rows = judgement.rows
    about = rows[0].metric if rows else metric or DEFAULT_METRIC
    measured = [row for row in rows if row.attempted or _is_measured(environments.get(row.label))]
    shown = [row for row in measured if row.attempted or row.cell not in taken.skipped]
    tables = _tables(shown, judgement.controls)
    return Summary(
        run_id=manifest.run_id,
        name=str(manifest.scenario.get("name", manifest.run_id)),
        created_at=manifest.created_at,
        exit_state=manifest.exit_state,
        metric=about,
        unit=next((row.unit for row in rows if row.ok and row.metric == about), _unit_of(about)),
        baseline=manifest.baseline,
        seed=manifest.seed,
        rounds=manifest.rounds,
        resamples=st.RESAMPLES,
        confidence=st.CONFIDENCE,
        tables=tables,
        absent=tuple(_absent(record) for record in manifest.environments if record.state != "measured"),
        abandoned=tuple(Abandoned(a.cell, a.reason, a.after_round) for a in manifest.abandoned),
        notes=(*reading_notes, *_notes(manifest, shown, taken)),
        comparisons=judgement.comparisons,
        control=verdicts.worst(list(judgement.controls.values())),
        trusted=judgement.trusted,
        parity=alike,
        disturbances=disturbed,
        cache=str(manifest.scenario.get("cache", "warm")),
        densities=densities(shown, by_cell, manifest.seed),
        sizes=sizes(shown, by_cell),
        overview=overview(tables, manifest.environments, manifest.baseline),
        kvm_attempts=kvm_attempts(manifest.environments),
    )


#: Workload and parameters: what a table is about.
_Key = tuple[str, tuple[tuple[str, str | int | float], ...]]


def _metrics(cells: Sequence[CellRecord], by_cell: Mapping[str, list[Sample]], metric: str | None) -> dict[str, str]:
    """Return the metric of each cell: ``metric``, or what the samples of its table are about.

    A table without a valid sample is about what the others are about.
    """
    if metric is not None:
        return {cell.id: metric for cell in cells}
    groups: dict[_Key, list[Sample]] = defaultdict(list)
    for cell in cells:
        groups[_table_key(cell)] += by_cell.get(cell.id, [])
    run = primary_metric(sample for group in groups.values() for sample in group)
    found = {key: primary_metric(group, run) for key, group in groups.items()}
    return {cell.id: found[_table_key(cell)] for cell in cells}


@dataclass(frozen=True)
class _Measured:
    """A row and the values behind it by round; none where the cell's samples must not share a number."""

    row: Row
    values: dict[int, float]


def _measured(cell: CellRecord, environment: EnvironmentRecord | None, samples: list[Sample], metric: str) -> _Measured:
    row = _bare_row(cell, environment, samples, metric)
    valid = [(sample, value) for sample in samples if (value := metric_value(sample, metric)) is not None]
    if len(valid) < len(samples):
        row = replace(row, failures=_failures(samples, metric))
    if row.accelerator == "mixed":
        reason = "KVM and emulation are mixed in this cell, which must not share a number"
        return _Measured(replace(row, failures=(*row.failures, Failure("invalid", reason, len(valid)))), {})
    row = replace(row, stages=_stage_medians(samples), counters=_counter_medians(samples))
    if not valid:
        return _Measured(row, {})
    reported = valid[0][0].metrics[metric]
    row = replace(row, unit=reported.unit, direction=reported.direction)
    return _Measured(_with_numbers(row, sorted(value for _, value in valid)), {s.round: value for s, value in valid})


def _bare_row(cell: CellRecord, environment: EnvironmentRecord | None, samples: list[Sample], metric: str) -> Row:
    """Return all of a row but its numbers."""
    accelerator = accelerator_of(environment, samples)
    return Row(
        cell=cell.id,
        label=cell.environment,
        kind=environment.kind if environment else cell.environment,
        display=display_label(cell.environment, accelerator),
        accelerator=accelerator,
        workload=cell.workload,
        params=cell.params,
        is_baseline=False,
        metric=metric,
        unit=_unit_of(metric),
        direction="lower",
        ok=0,
        attempted=len(samples),
        flags=_flags(samples),
    )


def _with_numbers(row: Row, values: list[float]) -> Row:
    spread = st.spread(values)
    return replace(
        row,
        ok=len(values),
        median=st.median(values),
        interval=st.median_interval(values),
        minimum=spread.minimum,
        maximum=spread.maximum,
        p90=st.p90(values),
        mad=spread.mad,
        iqr=spread.iqr,
        outliers=sum(st.outliers(values)),
    )


@dataclass(frozen=True)
class _Context:
    """What may forbid a verdict: differences beside the isolation, and the harness's floor by environment."""

    alike: Parity
    floors: Mapping[str, Floor]


@dataclass(frozen=True)
class _Judgement:
    """Rows with ratios and verdicts, and the A/A control of each table; what is needed to say how sure all is."""

    rows: list[Row]
    controls: dict[_Key, Control]
    comparisons: int
    trusted: bool | None


def _judgement(
    manifest: Manifest, cells: list[_Measured], context: _Context, disturbed: Sequence[Disturbance]
) -> _Judgement:
    """Compare every cell with the baseline's of the same workload and parameters."""
    again = control_label(manifest.baseline) if manifest.scenario.get("control") else None
    bases = {_table_key(cell.row): cell for cell in cells if cell.row.label == manifest.baseline}
    cells = [_plausible(cell, bases.get(_table_key(cell.row)), manifest.seed) for cell in cells]
    pairs = [_Pair(cell, bases.get(_table_key(cell.row)), cell.row.label == again) for cell in cells]
    controls = _controls(pairs, manifest)
    trusted = _trusted(controls.values())
    reasons = {pair.cell.row.cell: _not_judged(pair, context) for pair in pairs if pair.is_comparison}
    comparisons = sum(reason is None for reason in reasons.values())
    blocks = _blocks(disturbed)
    rows = []
    for pair in pairs:
        row = pair.marked(manifest.seed)
        if pair.is_comparison and pair.base is not None:
            why = reasons[row.cell] or (_UNTRUSTED if trusted is False else None)
            around = dict.fromkeys((*blocks.get(row.cell, ()), *blocks.get(pair.base.row.cell, ())))
            row = replace(row, verdict=_verdict(pair, row, why, comparisons, manifest.seed, tuple(around)))
        rows.append(row)
    return _Judgement(rows, controls, comparisons, trusted)


def _plausible(cell: _Measured, base: _Measured | None, seed: int) -> _Measured:
    """Return ``cell``, without its numbers where they cannot be true beside those of ``base``."""
    row = cell.row
    if base is None or base is cell or not (row.ok and base.row.ok):
        return cell
    ratio = st.paired_ratio(cell.values, base.values, seed)
    reason = too_fast(row.metric, row.direction, row.kind, base.row.kind, ratio)
    if reason is None:
        return cell
    bare = replace(
        row, ok=0, median=None, interval=None, minimum=None, maximum=None, p90=None, mad=None, iqr=None, outliers=0,
        failures=(*row.failures, Failure("invalid", reason, row.ok)),
    )  # fmt: skip
    return _Measured(bare, {})


_UNTRUSTED = "the run is not trusted: its baseline differs from itself"


@dataclass(frozen=True)
class _Pair:
    """A cell and the baseline's that it is compared with."""

    cell: _Measured
    base: _Measured | None
    is_control: bool

    @property
    def is_comparison(self) -> bool:
        """Say whether there is something to judge: two cells with values, neither the A/A control."""
        if self.base is None or self.base is self.cell or self.is_control or self.cell.row.is_exact:
            return False
        return bool(self.cell.row.ok and self.base.row.ok)

    def marked(self, seed: int) -> Row:
        """Return the row with what it is, its ratio and its difference."""
        row = replace(self.cell.row, is_control=self.is_control)
        if self.base is None:
            return row
        if self.base is self.cell:
            return replace(row, is_baseline=True)
        difference = st.paired_difference(self.cell.values, self.base.values, seed)
        return replace(row, ratio=self.ratio(seed), difference=difference)

    def ratio(self, seed: int, confidence: float = st.CONFIDENCE) -> st.Ratio | None:
        if self.base is None:
            return None
        return st.paired_ratio(self.cell.values, self.base.values, seed, confidence=confidence)

    def ratio_without_outliers(self, seed: int, confidence: float) -> st.Ratio | None:
        """Return the ratio of the rounds in which neither sample is flagged, None where none is."""
        if self.base is None:
            return None
        flagged = _flagged_rounds(self.cell.values) | _flagged_rounds(self.base.values)
        kept = {number: value for number, value in self.cell.values.items() if number not in flagged}
        return st.paired_ratio(kept, self.base.values, seed, confidence=confidence) if flagged and kept else None


def _flagged_rounds(values: dict[int, float]) -> set[int]:
    flags = st.outliers(list(values.values()))
    return {number for number, flag in zip(values, flags, strict=True) if flag}


def _controls(pairs: Sequence[_Pair], manifest: Manifest) -> dict[_Key, Control]:
    """Return the A/A control of each table; all of them together fire with verdicts.ALPHA."""
    mine = [pair for pair in pairs if pair.is_control and pair.base is not None]
    confidence = verdicts.shared_confidence(len(mine))
    return {
        _table_key(pair.cell.row): verdicts.control(
            pair.cell.row.label, manifest.baseline, pair.ratio(manifest.seed, confidence), confidence
        )
        for pair in mine
    }


def _trusted(controls: Iterable[Control]) -> bool | None:
    """Return False where one control differs, True where all that can tell say that nothing differs."""
    known = [each.trusted for each in controls if each.trusted is not None]
    return all(known) if known else None


def _not_judged(pair: _Pair, context: _Context) -> str | None:
    """Return why a comparison must not be judged, None where it may be."""
    row = pair.cell.row
    if "tcg" in (row.accelerator, pair.base.row.accelerator if pair.base else None):
        return "emulation says nothing about virtual machines"
    if row.accelerator not in (None, "kvm"):
        return "what ran the guest is not proven"
    if voided := context.alike.voided(row.label, row.metric):
        return f"void, because it has another {' and another '.join(voided)} than the baseline"
    both = [each.row for each in (pair.cell, pair.base) if each is not None]
    if why := next((why for each in both if (why := _limited_by_client(each))), None):
        return why
    hidden = (within_floor(each.metric, each.median, context.floors.get(each.label)) for each in both)
    return next((why for why in hidden if why), None)


def _limited_by_client(row: Row) -> str | None:
    """Say why the numbers of a row may be those of its load client, None where they are not."""
    shared = row.flags.get(f"{CLIENT_CPU}=shared", 0)
    bound = row.flags.get(f"{CLIENT_BOUND}=yes", 0)
    if shared:
        return f"the client of {row.label} had no CPU of its own"
    if 2 * bound > row.attempted:
        return f"client-bound: the client of {row.label} took more than {CLIENT_BOUND_SHARE:.0%} of its CPU"
    return None


def _verdict(
    pair: _Pair, row: Row, why_not: str | None, comparisons: int, seed: int, blocks: tuple[str, ...]
) -> Verdict:
    if why_not is not None:
        return Verdict("not judged", why_not)
    confidence = verdicts.shared_confidence(comparisons)
    strict = row.ratio if comparisons == 1 else pair.ratio(seed, confidence)
    without = pair.ratio_without_outliers(seed, confidence)
    return verdicts.judge(Evidence(row.ratio, strict, without, row.direction, blocks))


def _blocks(disturbed: Iterable[Disturbance]) -> dict[str, list[str]]:
    """Return by cell what forbids to call it equivalent to anything."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in disturbed:
        if one.blocks_equivalent:
            found[one.cell].append(one.kind)
    return found


def _flags(samples: Iterable[Sample]) -> dict[str, int]:
    counts = Counter(flag for sample in samples for flag in sample.flags.items())
    return {f"{key}={value}": count for (key, value), count in counts.items()}


def _failures(samples: Iterable[Sample], metric: str) -> tuple[Failure, ...]:
    reasons = Counter(reason for reason in (exclusion(sample, metric) for sample in samples) if reason is not None)
    return tuple(Failure(status, reason, count) for (status, reason), count in reasons.most_common())


def _stage_medians(samples: Iterable[Sample]) -> tuple[StageMedian, ...]:
    """Return the median of each stage's own durations; medians of durations, not differences of medians."""
    durations = stage_durations_ns(samples)
    return tuple(StageMedian(name, st.median(taken) / NS_PER_S, len(taken)) for name, taken in durations.items())


def _counter_medians(samples: Iterable[Sample]) -> tuple[CounterMedian, ...]:
    """Return the account of the valid samples; a number that is missing in one of them is not comparable at all."""
    taken: dict[str, list[CounterValue]] = defaultdict(list)
    for sample in samples:
        if sample.status == "ok":
            for name, counter in sample.counters.items():
                taken[name].append(counter)
    return tuple(_counter_median(name, counters) for name, counters in taken.items())


def _counter_median(name: str, counters: Sequence[CounterValue]) -> CounterMedian:
    missing = next((counter for counter in counters if counter.value is None), None)
    shown = missing or counters[0]
    values = [counter.value for counter in counters if counter.value is not None]
    return CounterMedian(name, shown.unit, shown.source, st.median(values) if missing is None else None, len(counters))


def _table_key(cell: Row | CellRecord) -> _Key:
    return cell.workload, tuple(sorted(cell.params.items()))


def _tables(rows: Iterable[Row], controls: dict[_Key, Control]) -> tuple[Table, ...]:
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(_table_key(row), []).append(row)
    titles = _titles([group[0] for group in groups.values()])
    return tuple(
        Table(titles[key], group[0].workload, group[0].params, group[0].metric, tuple(group), controls.get(key))
        for key, group in groups.items()
    )


def _titles(rows: Iterable[Row]) -> dict[_Key, str]:
    """Return what each table is called: its workload with the parameters that tell it from the others of the run.

    A default is said only where another table is the same but for it. Titles are unique all the same: of two values,
    one at most is the default. How many start at once is always said, it is no parameter of the workload.
    """
    by_key = {_table_key(row): row for row in rows}
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in by_key.values():
        alike[row.workload].append(row)
    return {
        key: _title(row, [other for other in alike[row.workload] if other is not row]) for key, row in by_key.items()
    }


def _title(row: Row, others: Sequence[Row]) -> str:
    defaults = _defaults(row.workload)

    def tells(key: str, value: str | int | float) -> bool:
        differing = [other for other in others if other.params.get(key) != value]
        if key not in defaults or defaults[key] != value:
            return key == PARALLEL or bool(differing)
        return any(_without(other.params, key) == _without(row.params, key) for other in differing)

    params = ";".join(f"{key}={value}" for key, value in row.params.items() if tells(key, value))
    return f"{row.workload}[{params}]" if params else row.workload


def _without(params: Mapping[str, str | int | float], key: str) -> dict[str, str | int | float]:
    return {name: value for name, value in params.items() if name != key}


def _defaults(workload: str) -> dict[str, Any]:
    """Return the default of each parameter of a workload; none of a workload that is not known here."""
    fields = params_model(workload).model_fields if workload in NAMES else {}
    return {name: field.default for name, field in fields.items() if not field.is_required()}


def _is_measured(environment: EnvironmentRecord | None) -> bool:
    return environment is None or environment.state == "measured"


def _absent(record: EnvironmentRecord) -> Absent:
    return Absent(record.label, record.kind, record.state, record.reason or "no reason recorded", record.fix)


def _unit_of(metric: str) -> str:
    """Return the unit of a metric that no sample reports."""
    return "s" if metric.startswith("startup.") or metric in HEADLINE_METRICS else "1"


def _notes(manifest: Manifest, rows: Sequence[Row], taken: Taken) -> tuple[str, ...]:
    return (
        *_state_notes(manifest),
        *_start_notes(manifest, rows),
        *_kvm_notes(manifest, rows),
        *_baseline_notes(manifest, rows),
        *_few_notes(rows),
        *_flag_notes(rows),
        *(f"{cell} was {reason}." for cell, reason in taken.skipped.items()),
        *_left_out_notes(manifest, taken),
    )


def _state_notes(manifest: Manifest) -> list[str]:
    because = f": {manifest.exit_reason}" if manifest.exit_reason else ""
    texts = {
        "running": "The run has no end on record: it goes on, or it was ended hard. What it had measured is here",
        "interrupted": "The run was interrupted; what it had measured is here",
        "failed": "The run failed; what it had measured is here",
    }
    text = texts.get(manifest.exit_state)
    return [f"{text}{because}."] if text else []


def _start_notes(manifest: Manifest, rows: Sequence[Row]) -> list[str]:
    """Say what every sample found in memory, where that is not all, and that several at once share."""
    notes = []
    if manifest.scenario.get("cache") == "cold":
        notes.append(
            "Cold: what a start reads (the image; of a guest its kernel and initramfs) was dropped from the host's page"
            " cache before each sample and came from the disk. Names, and the programs that do the starting, stay warm."
        )
    if any(PARALLEL in row.params for row in rows):
        cpus = (manifest.scenario.get("resources") or {}).get("cpus", 1)
        whose = f"the same {cpus} CPUs" if cpus != 1 else "the same CPU"
        notes.append(f"All instances that start at once share {whose}; each has its own limit of memory.")
    return notes


def _kvm_notes(manifest: Manifest, rows: Sequence[Row]) -> list[str]:
    """Say why no VM was measured with KVM, where guests were tried; an absent environment says its own reason."""
    guests = [row for row in rows if row.accelerator is not None]
    if any(row.accelerator == "kvm" and row.ok for row in guests):
        return []
    tried = {row.label: row.failures[0].reason if row.failures and not row.ok else None for row in guests}
    measured = (e for e in manifest.environments if e.state == "measured" and e.label in tried)
    return list(dict.fromkeys(missing_kvm_note(e, tried[e.label]) for e in measured))


def _baseline_notes(manifest: Manifest, rows: Sequence[Row]) -> list[str]:
    if any(row.is_baseline and row.ok for row in rows):
        return []
    return [f"No ratios: the baseline {manifest.baseline} has no valid sample."]


def _few_notes(rows: Sequence[Row]) -> list[str]:
    """Say which numbers are withheld because there are too few samples."""
    notes = []
    for what, least in (("interval", st.MIN_VALUES), ("p90", st.MIN_VALUES_P90)):
        few = [row.display for row in rows if 0 < row.ok < least and not row.is_exact]
        if few:
            notes.append(f"No {what} below {least} samples: {', '.join(dict.fromkeys(few))}.")
    return notes


def _flag_notes(rows: Sequence[Row]) -> list[str]:
    """Name the flags that some samples of a cell carry, but for those that are said of all of them elsewhere."""
    notes, titles = [], _titles(rows)
    for row in rows:
        flags = {flag: count for flag, count in row.flags.items() if not flag.startswith(("accelerator=", "cache="))}
        if flags:
            text = ", ".join(f"{flag} ({count} of {row.attempted})" for flag, count in flags.items())
            notes.append(f"{row.display}, {titles[_table_key(row)]}: samples flagged {text}.")
    return notes


def _left_out_notes(manifest: Manifest, taken: Taken) -> list[str]:
    notes = []
    if taken.left_out:
        notes.append(f"{taken.left_out} samples of rounds that were begun anew after an interruption are left out.")
    known = {cell.id for cell in manifest.cells}
    strangers = sum(len(samples) for cell, samples in taken.by_cell.items() if cell not in known)
    if strangers:
        notes.append(f"{strangers} samples of cells that the manifest does not know are left out.")
    return notes
