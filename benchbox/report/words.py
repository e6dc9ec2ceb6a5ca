"""How numbers and names are said to people, the same in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from benchbox.analysis.density import METRICS, Density, Share
from benchbox.analysis.disturbances import Disturbance
from benchbox.analysis.iterations import Unfolded, Unfolding
from benchbox.analysis.overview import IMAGE, Line
from benchbox.analysis.percentiles import Curve, Percentiles, Rung
from benchbox.analysis.scaling import Scaling
from benchbox.analysis.sizes import Sizes, Weight
from benchbox.analysis.statistics import Difference, Interval, Ratio, Slope
from benchbox.analysis.summary import Absent, Row, Summary, Table
from benchbox.analysis.verdicts import TOLERANCE, Control
from benchbox.foreign import plain
from benchbox.report import definitions
from benchbox.units import format_duration, format_size
from benchbox.workloads.steady import MIN_ITERATIONS

#: Where there is no number.
NONE: Final = "–"


def significant(value: float) -> str:
    """Return three significant digits, never in exponential notation: ``4.62``, ``46.2``, ``4,620``."""
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 0
    return f"{round(value, 2 - exponent):,.{max(0, 2 - exponent)}f}"


def format_value(value: float | None, unit: str) -> str:
    """Return a value of a base unit as people read it: ``12.3 ms``, ``256 MiB``, ``4.62 k/s``."""
    if value is None:
        return NONE
    if value == 0:
        return "0" if unit in ("", "1") else f"0 {unit}"
    if unit == "s":
        return format_duration(value)
    if unit in ("B", "B/s"):
        return format_size(value) + unit[1:]
    factor, name = si_scale(value, unit)
    return f"{significant(value / factor)} {name}".rstrip()


def si_scale(value: float, unit: str) -> tuple[float, str]:
    """Return what to divide by so that ``value`` is read well, and what its unit, one without a rule of its own, is
    called then: ``1/s`` becomes ``k/s``. A number without a unit stays as it is."""
    if unit in ("", "1"):
        return 1.0, ""
    # 999.5 has three digits no more.
    factor, prefix = next((step for step in _SI if abs(value) >= 0.9995 * step[0]), (1.0, ""))
    return factor, f"{prefix}{unit.removeprefix('1') if prefix and unit == '1/s' else unit}"


_SI: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def interval_text(interval: Interval | None, unit: str) -> str:
    """Return both ends of an interval, a unit that they share once: ``475–512 µs``, ``998 µs – 1.02 ms``."""
    if interval is None:
        return NONE
    low, high = format_value(interval.low, unit), format_value(interval.high, unit)
    low_number, _, low_unit = low.rpartition(" ")
    high_number, _, high_unit = high.rpartition(" ")
    shared = low_unit == high_unit and low_number and " " not in low_number + high_number
    return f"{low_number}–{high}" if shared else f"{low} – {high}"


def ratio_text(ratio: Ratio | None) -> str:
    """Return a ratio with its interval where there is one: ``4.59 (4.38–4.82)``."""
    if ratio is None:
        return NONE
    if ratio.low is None or ratio.high is None:
        return significant(ratio.estimate)
    return f"{significant(ratio.estimate)} ({significant(ratio.low)}–{significant(ratio.high)})"


def difference_text(difference: Difference | None, unit: str) -> str:
    """Return a difference with its interval, in one unit: ``+412 µs (380–455)``, ``−3 µs (−18…+12)``.

    Both ends of an interval on one side of zero have the sign that stands before it.
    """
    if difference is None:
        return NONE
    ends = [end for end in (difference.low, difference.high) if end is not None]
    factor, name = _scale(max(map(abs, (difference.estimate, *ends))), unit)
    estimate, *scaled = (value / factor for value in (difference.estimate, *ends))
    decimals = 1 if max(map(abs, (estimate, *scaled))) < 9.95 else 0
    text = f"{_signed(estimate, decimals)} {name}".rstrip()
    if not scaled:
        return text
    low, high = scaled
    if low <= 0 <= high:
        return f"{text} ({_signed(low, decimals)}…{_signed(high, decimals)})"
    near, far = sorted(map(abs, scaled))
    return f"{text} ({near:,.{decimals}f}–{far:,.{decimals}f})"


def _signed(value: float, decimals: int) -> str:
    """Return ``value`` with its sign; what is rounded to zero has none."""
    shown = f"{abs(value):,.{decimals}f}"
    return shown if float(shown.replace(",", "")) == 0 else f"{'−' if value < 0 else '+'}{shown}"


def _scale(largest: float, unit: str) -> tuple[float, str]:
    """Return what to divide by so that ``largest`` is read well, and what the unit is called then."""
    base = "B" if unit == "B/s" else unit
    if base not in _STEPS:
        return si_scale(largest, unit)
    factor, name = next((step for step in _STEPS[base] if largest >= step[0]), (1.0, base))
    return factor, f"{name}/s" if unit == "B/s" else name


#: From where on a unit is used, largest first.
_STEPS: Final = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": tuple((float(1 << 10 * power), name) for power, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"))),
}


def percent(fraction: float) -> str:
    """Return a fraction as people read it: ``4.2%``, ``37%``."""
    value = 100 * fraction
    return f"{value:.0f}%" if value >= 9.95 or value == 0 else f"{value:.1f}%"


def effect_range(low: float, high: float) -> str:
    """Return how far a ratio's interval is from 1, whichever side it is on: ``2.1–2.4x``, ``3.1–8.9%``."""
    near, far = (low, high) if low >= 1 else (1 / high, 1 / low)
    if far < 2:
        first, last = percent(near - 1), percent(far - 1)
        return last if first == last else f"{first.removesuffix('%')}–{last}"
    first, last = _factor(near), _factor(far)
    if first == "1.0":
        return f"up to {last}x"
    return f"{first}x" if first == last else f"{first}–{last}x"


def _factor(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else significant(value)


def verdict_text(row: Row, control: Control | None = None) -> str:
    """Return the verdict in words: ``slower by 2.1–2.4x``, ``equivalent``, ``inconclusive: ...``."""
    if row.is_baseline:
        return "baseline"
    if row.is_control:
        return control_verdict(control)
    verdict = row.verdict
    if verdict is None:
        return NONE
    if verdict.kind in ("worse", "better") and row.ratio and row.ratio.low is not None and row.ratio.high is not None:
        return f"{_COMPARATIVES[_sense(row)][verdict.kind]} by {effect_range(row.ratio.low, row.ratio.high)}"
    if verdict.kind == "equivalent":
        return f"equivalent: within {percent(TOLERANCE).replace('.0', '')}"
    rounds = f"; about {verdict.rounds_needed:,} rounds might tell" if verdict.rounds_needed else ""
    return f"{verdict.kind}: {plain(verdict.reason)}{rounds}"


def control_verdict(control: Control | None) -> str:
    """Return what the A/A control says about itself."""
    if control is None or control.trusted is None:
        return "control: too few rounds to tell"
    return "control: no difference, as it should be" if control.trusted else "control: differs from itself"


def entry_text(row: Row) -> str:
    """Return a row in a word or two, for where many stand side by side: ``4.59 slower``, its value for the baseline."""
    if not row.ok:
        return row.failures[0].status if row.failures else NONE
    if row.is_baseline or row.ratio is None:
        return format_value(row.median, row.unit)
    return f"{significant(row.ratio.estimate)}{entry_mark(row)}"


def entry_note(row: Row) -> str:
    """Return what stands below a ratio: ``(4.38–4.82) 1.70 ms``."""
    ends = (row.ratio.low, row.ratio.high) if row.ratio else (None, None)
    low, high = (None if end is None else significant(end) for end in ends)
    interval = f"({low}–{high}) " if low and high else ""
    return f"{interval}{format_value(row.median, row.unit)}"


def line_details(line: Line) -> str:
    """Return what tells a line of the overview from others of its aspect: its table's title, or else its metric."""
    if line.workload == IMAGE:
        return ""
    is_its_aspect = line.title == definitions.aspect(line.workload).lower()
    return plain(line.metric if is_its_aspect else line.title)


def entry_mark(row: Row) -> str:
    """Return what the verdict of a row comes to in a word, empty where there is none."""
    kind = row.verdict.kind if row.verdict else ""
    if kind in ("worse", "better"):
        return f" {_COMPARATIVES[_sense(row)][kind]}"
    return {"equivalent": " equal", "inconclusive": " unclear"}.get(kind, "")


def entry_details(row: Row) -> str:
    """Return all that a row says of itself on one line."""
    if not row.ok:
        return "; ".join(_failure_texts(row)) or NONE
    interval = f", 95% {interval_text(row.interval, row.unit)}" if row.interval else ""
    counted = "" if row.is_exact else f", {row.ok} of {row.attempted} samples"
    ratio = f"; {ratio_text(row.ratio)} × baseline, {verdict_text(row)}" if row.ratio and not row.is_exact else ""
    return f"{format_value(row.median, row.unit)}{interval}{counted}{ratio}"


#: How worse and better are called, by the kind of metric.
_COMPARATIVES: Final = {
    "time": {"worse": "slower", "better": "faster"},
    "amount": {"worse": "more", "better": "less"},
    "yield": {"worse": "lower", "better": "higher"},
}


def _sense(row: Row) -> str:
    return "yield" if row.direction == "higher" else "time" if row.unit == "s" else "amount"


#: What is said of a value, by the kind of metric, in the present and in the past.
_VERBS: Final = {"time": ("takes", "took"), "amount": ("has", "had"), "yield": ("reaches", "reached")}


def _verbs(row: Row) -> tuple[str, str]:
    """Return how a sentence goes on to the value of ``row``: a time and memory are taken, a rate is reached."""
    return _VERBS["time" if row.unit == "B" and row.direction == "lower" else _sense(row)]


def trust_text(summary: Summary) -> str | None:
    """Return the warning that stands above all else: the baseline differs from itself. None where it does not."""
    control = summary.control
    if summary.trusted is not False or control is None or control.ratio is None:
        return None
    return (
        f"UNTRUSTED: {plain(control.baseline)} was measured twice and differs from itself: "
        f"{ratio_text(control.ratio)} times. Nothing of this run should be believed; measure again on a quieter host."
    )


def control_text(summary: Summary) -> str | None:
    """Return what this host could have shown, by the A/A control; None without one."""
    control = summary.control
    if control is None or control.smallest_effect is None or control.ratio is None:
        return None
    text = f"A/A control: {plain(control.baseline)} against itself is {ratio_text(control.ratio)}"
    if control.trusted is False:
        return f"{text}, which should contain 1."
    return f"{text}; the smallest effect that this host could show today is {percent(control.smallest_effect)}."


def disturbance_text(one: Disturbance, summary: Summary) -> str:
    """Return a finding with the name of its cell."""
    rows = {row.cell: (row, table) for table in summary.tables for row in table.rows}
    if one.cell not in rows:
        return plain(f"{one.cell}: {one.text}.")
    row, table = rows[one.cell]
    many = f", {table.title}" if len(summary.tables) > 1 else ""
    return plain(f"{row.display}{many}: {one.text}.")


def disturbance_unit(one: Disturbance, summary: Summary) -> str:
    """Return the unit of a finding's values."""
    rows = (row for table in summary.tables for row in table.rows)
    return next((row.unit for row in rows if row.cell == one.cell), summary.unit)


def answer(table: Table, summary: Summary) -> str:
    """Return in a few sentences what a table says: what differs, what is not known, and what to bear in mind.

    Emulation is never called a virtual machine's cost.
    """
    base = next((row for row in table.rows if row.is_baseline and row.ok), None)
    if not any(row.ok for row in table.rows):
        return f"{_subject(table.metric)}: nothing could be measured."
    judged = [row for row in table.rows if row.ok and row.verdict and row.verdict.kind != "not judged"]
    others = [row for row in table.rows if row.ok and row not in judged and row is not base and not row.is_control]
    sentences = [_compared(judged, base, table)] if base and judged else []
    if not sentences:
        first = base or others[0]
        others = [row for row in others if row is not first]
        sentences = [f"{_subject(table.metric)}, {plain(first.display)} {_verbs(first)[0]} {_value(first)}."]
    if base is None:
        sentences.append(f"Nothing is compared, for the baseline {plain(summary.baseline)} has no valid sample.")
    sentences += _unjudged(others)
    return " ".join([*sentences, *_caution(table, summary)])


def params_text(table: Table) -> str:
    """Return every parameter of a table, those that its title leaves out as well."""
    return plain(", ".join(f"{key}={value}" for key, value in table.params.items()))


def _subject(metric: str) -> str:
    return definitions.metric(metric) or f"By {plain(metric)}"


def _value(row: Row) -> str:
    return format_value(row.median, row.unit)


def _compared(rows: Sequence[Row], base: Row, table: Table) -> str:
    """Return one part a row; rows of which the same is to be said share one, behind what is clear."""
    alike: dict[str, list[Row]] = {}
    for row in sorted(rows, key=_is_unclear):
        alike.setdefault(_comparison(row, base), []).append(row)
    bases = [base, *[None] * len(alike)]
    parts = [_part(text, group, against) for (text, group), against in zip(alike.items(), bases, strict=False)]
    return f"{_subject(table.metric)}, {'; '.join(parts)}."


def _is_unclear(row: Row) -> bool:
    return row.verdict is None or row.verdict.kind not in ("worse", "better")


def _part(text: str, rows: Sequence[Row], base: Row | None) -> str:
    """Return one part of a sentence about ``rows``, with the value of ``base`` if it is to be said here."""
    if len(rows) == 1:
        against = f" against {_value(base)}" if base else ""
        return f"{plain(rows[0].display)} {text} ({_value(rows[0])}{against})"
    names = _listed([f"{plain(row.display)} ({_value(row)})" for row in rows])
    several = f"are {text.removeprefix('is ')}" if text.startswith("is ") else text
    return f"{names} {several}{f' ({_value(base)})' if base else ''}"


def _comparison(row: Row, base: Row) -> str:
    ratio, kind = row.ratio, row.verdict.kind if row.verdict else "not judged"
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"cannot be compared with {plain(base.display)} yet"
    if kind == "equivalent":
        return f"is equivalent to {plain(base.display)}"
    if kind == "inconclusive":
        return f"may or may not differ from {plain(base.display)}"
    word, _, by = verdict_text(row).partition(" ")
    return f"is {word} than {plain(base.display)} {by}"


def _unjudged(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for what was emulated, and one for each of the rest."""
    emulated = [f"{plain(row.display)} {_verbs(row)[1]} {_value(row)}" for row in rows if row.accelerator == "tcg"]
    sentences = []
    if emulated:
        sentences = [f"What a virtual machine costs is not known: {_listed(emulated)}, which is no measure of a VM."]
    for row in rows:
        if row.accelerator != "tcg":
            reason = plain(row.verdict.reason) if row.verdict else "there is nothing to compare it with"
            sentences.append(f"{plain(row.display)} {_verbs(row)[1]} {_value(row)} and is not judged: {reason}.")
    return sentences


def _caution(table: Table, summary: Summary) -> list[str]:
    """Return one sentence about how sure all this is, if there is anything to say."""
    if summary.trusted is False:
        return ["The run is not to be trusted: its baseline differs from itself."]
    cells = {row.cell: plain(row.label) for row in table.rows}
    grave: dict[str, list[str]] = {}
    for one in summary.disturbances:
        if one.cell in cells and one.blocks_equivalent:
            grave.setdefault(one.kind, []).append(cells[one.cell])
    if not grave:
        return []
    return [f"Read it with care: {'; '.join(f'{kind} in {_listed(labels)}' for kind, labels in grave.items())}."]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def noise_text(key: str, median: float, maximum: float) -> str:
    """Return how much of one kind of noise there was: shares as per cent, anything else as a number."""
    show = percent if key.endswith("_share") else lambda value: f"{value:.3g}"
    return show(median) if median == maximum else f"{show(median)}, at most {show(maximum)}"


def ratios_alt(table: Table) -> str:
    """Return in words what the figure of the ratios shows."""
    parts = [f"{plain(row.display)} {ratio_text(row.ratio)}" for row in table.rows if row.ratio]
    return f"Times the baseline, with 95% interval: {'; '.join(parts)}."


def waterfall_alt(row: Row) -> str:
    """Return in words what a waterfall shows."""
    parts = [f"{plain(stage.name)} {format_value(stage.median_s, 's')}" for stage in row.stages]
    return f"Stages of {plain(row.display)}, medians: {', '.join(parts)}."


def distribution_alt(table: Table) -> str:
    """Return in words what the distributions show."""
    return f"Distribution of the samples: {_ranges(table)}."


def steadiness_text(found: Unfolding) -> str:
    """Return in a sentence or two how many samples settled and how long that took."""
    if found.longest < MIN_ITERATIONS:
        return f"Below {MIN_ITERATIONS} iterations nothing is said of a warm-up: all are in the number."
    total = sum(len(row.samples) for row in found.rows)
    unsettled = [row for row in found.rows if row.unsettled]
    ranges = [row.warm_up for row in found.rows if row.warm_up is not None]
    took = _warm_up_text(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else ""
    if not unsettled:
        one = "The one sample" if total == 1 else f"All {total} samples"
        return f"{one} reached a steady state, {took}."
    parts = _listed([_unsettled_text(row) for row in unsettled])
    rest = f" The others reached one, {took}." if took else ""
    return f"No steady state was reached in {parts}: all iterations of these are in their number.{rest}"


def _unsettled_text(row: Unfolded) -> str:
    return f"{row.unsettled} of {len(row.samples)} samples of {plain(row.row.display)}"


def _warm_up_text(shortest: int, longest: int) -> str:
    if longest == 0:
        return "at once"
    if shortest == longest == 1:
        return "after a warm-up of 1 iteration, which is left out"
    count = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    return f"after a warm-up of {count} iterations, which are left out"


def iterations_alt(found: Unfolding) -> str:
    """Return in words what the iterations show."""
    parts = []
    for row in found.rows:
        values = [value for _, each in row.samples for value in each.values]
        span = f"from {format_value(min(values), found.unit)} to {format_value(max(values), found.unit)}"
        parts.append(f"{plain(row.row.display)} {len(row.samples)} samples {span}")
    return f"Iterations of {plain(found.metric)} in their order: {'; '.join(parts)}. {steadiness_text(found)}"


def percentiles_alt(found: Percentiles) -> str:
    """Return in words what the curves of a latency show."""
    parts = [f"{plain(curve.display)} {_rungs_text(curve, found.unit)}" for curve in found.curves]
    return f"Percentiles of {plain(found.metric)}, medians over the samples: {'; '.join(parts)}."


def _rungs_text(curve: Curve, unit: str) -> str:
    return ", ".join(f"{rung.name} {format_value(rung.median, unit)}" for rung in curve.rungs)


def rung_value(rung: Rung, unit: str) -> str:
    """Return a percentile with its interval where there is one: ``412 µs (380–455 µs)``."""
    interval = f" ({interval_text(rung.interval, unit)})" if rung.interval else ""
    return f"{format_value(rung.median, unit)}{interval}"


def order_alt(table: Table) -> str:
    """Return in words what the samples in their order show."""
    return f"Every sample in the order taken: {_ranges(table)}."


def _ranges(table: Table) -> str:
    parts = [
        f"{plain(row.display)} {row.ok} samples from {format_value(row.minimum, row.unit)} to"
        f" {format_value(row.maximum, row.unit)}, median {_value(row)}"
        for row in table.rows
        if row.ok
    ]
    return "; ".join(parts) or "there are none"


def moment(text: str) -> str:
    """Return an instant of the record as people read it: ``2026-11-24 04:13 UTC``; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return plain(text)


def scaling_lines(scaling: Scaling) -> list[str]:
    """Return one line an environment: what it takes by how many start at once."""
    return [
        plain(
            f"{series.display}, {scaling.title}, at once: {', '.join(f'{n}: {_value(row)}' for n, row in series.rows)}"
        )
        for series in scaling.series
    ]


def size_text(value_bytes: float) -> str:
    """Return a size that may be below zero."""
    return f"-{format_value(-value_bytes, 'B')}" if value_bytes < 0 else format_value(round(value_bytes), "B")


def slope_text(slope: Slope | None) -> str:
    """Return what one more takes, with its interval where there is one: ``152.3 MiB (151.9 MiB to 153 MiB)``."""
    if slope is None:
        return NONE
    if slope.low is None or slope.high is None:
        return size_text(slope.estimate)
    return f"{size_text(slope.estimate)} ({size_text(slope.low)} to {size_text(slope.high)})"


#: How an account of memory is called in a sentence.
ACCOUNTS: Final = {
    "density.cgroup": "charged to its control groups",
    "density.available": "less available on the host",
    "density.pss": "mapped by its processes, shared pages divided",
}


def density_answer(density: Density) -> str:
    """Return in a sentence or two what one more instance takes in each environment, the dearest first."""
    account = next((name for name in METRICS if any(name in share.slopes for share in density.shares)), METRICS[0])
    known = [share for share in density.shares if account in share.slopes]
    known.sort(key=lambda share: share.slopes[account].estimate, reverse=True)
    parts = "; ".join(f"{slope_text(share.slopes[account])} per {_instance_of(share)}" for share in known)
    emulated = [plain(share.display) for share in known if share.emulated]
    caution = f" {_listed(emulated)} is no measure of a VM with KVM." if emulated else ""
    return f"{plain(density.title)}, memory of one more ({ACCOUNTS[account]}): {parts}.{caution}"


def _instance_of(share: Share) -> str:
    return f"instance of {plain(share.display)}"


#: The columns of the table of formats: the size's name, what it is called.
SIZES: Final = {
    "allocated": "on the disk",
    "apparent": "length",
    "part.format": "of it the format",
    "part.content": "of it the content",
    "gzip": "sent, gzip -6",
    "zstd": "sent, zstd -3",
    "incremental": "a second image",
    "build": "made in",
    "convert": "of it converted in",
}


def size_value(weight: Weight, name: str) -> str:
    """Return a number of a format as people read it."""
    return format_value(weight.numbers.get(name), "s" if name in ("build", "convert") else "B")


def sizes_answer(sizes: Sizes) -> str:
    """Return in a few sentences what the image weighs: least, most, one more instance, what a guest needs besides."""
    own = [weight for weight in sizes.weights if weight.is_format and not weight.parts.get("base")]
    own.sort(key=lambda weight: weight.numbers["allocated"])
    sentences = []
    if sizes.content_bytes is not None:
        sentences.append(f"The image has {format_value(sizes.content_bytes, 'B')} of content.")
    if own:
        least, most = (f"{plain(w.display)} {size_value(w, 'allocated')}" for w in (own[0], own[-1]))
        sentences.append(f"On the disk it takes least as {least}" + (f", most as {most}." if len(own) > 1 else "."))
    sentences += [_instance_text(weight) for weight in sizes.weights if weight.instances]
    boot = [weight for weight in sizes.weights if not weight.is_format and not weight.is_host]
    if boot:
        parts = _listed([f"{plain(weight.display)} {size_value(weight, 'allocated')}" for weight in boot])
        sentences.append(f"A guest needs besides: {parts}.")
    host = [f"{plain(weight.display)} {size_value(weight, 'allocated')}" for weight in sizes.weights if weight.is_host]
    if host:
        sentences.append(f"Installed on the host for nothing else: {_listed(host)}.")
    return " ".join(sentences)


def _instance_text(weight: Weight) -> str:
    count = max(weight.instances)
    total = weight.instances[count]
    each = f", {format_value(round(total / count), 'B')} each" if count > 1 else ""
    return f"{count} instances over {plain(weight.display)} took {format_value(total, 'B')} after they ran{each}."


def sizes_lines(sizes: Sizes) -> list[str]:
    """Return one line a format with all that is known of it."""
    return [
        f"{plain(weight.display)}: "
        + ", ".join(f"{text} {size_value(weight, name)}" for name, text in SIZES.items() if name in weight.numbers)
        for weight in sizes.weights
        if not weight.is_host
    ]


def _parts_text(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {format_value(size, 'B')}" for part, size in parts.items() if size)


def sizes_alt(sizes: Sizes) -> str:
    """Return in words what the figure of the sizes shows."""
    parts = {weight.display: _parts_text(weight.parts) for weight in sizes.weights if weight.parts}
    bars = (f"{plain(display)} {text}" for display, text in parts.items())
    return f"What each format takes on the disk: {'; '.join(bars)}."


def scaling_alt(scaling: Scaling) -> str:
    """Return in words what the figure of several at once shows."""
    return f"Median of {plain(scaling.metric)} by how many start at once. {'; '.join(scaling_lines(scaling))}."


def absent_text(absent: Absent) -> str:
    """Return why an environment has no numbers and what helps: ``skipped: no QEMU → install qemu-system-x86``."""
    fix = f" → {plain(absent.fix)}" if absent.fix else ""
    return f"{absent.state}: {plain(absent.reason)}{fix}"


def failure_lines(row: Row) -> list[str]:
    """Return one line per reason for which samples of a cell are not in the statistics."""
    return [f"{plain(row.display)}: {text}" for text in _failure_texts(row)]


def _failure_texts(row: Row) -> list[str]:
    return [f"{f.count} of {row.attempted} {f.status}: {plain(f.reason)}" for f in row.failures]
