"""A run as one HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere.

What was written by others (scenario, labels, outputs, consoles, host) reaches the page as text only: Jinja2 escapes
it in HTML, ``_embedded_json`` in scripts, ``figures.label`` in plotly, and a content security policy names the hash of
each script that may run, so that nothing else does. Jinja2 and plotly are imported when a page is made.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchbox.analysis.density import Density
from benchbox.analysis.disturbances import levels
from benchbox.analysis.iterations import Unfolding, unfolding
from benchbox.analysis.percentiles import Percentiles, percentiles
from benchbox.analysis.samples import Taken, exclusion, take
from benchbox.analysis.scaling import Scaling, scalings
from benchbox.analysis.summary import Row, Summary, Table, summarise
from benchbox.errors import RecordError
from benchbox.foreign import plain, plain_lines
from benchbox.record import Manifest, Sample, collector_paused, read_manifest, read_samples
from benchbox.report import definitions, figures, raw, words

_TEMPLATES: Final = Path(__file__).parent / "templates"

#: How many samples without a valid value are shown with their output, and how many rounds of the order.
SHOWN_FAILURES: Final = 40
SHOWN_ROUNDS: Final = 25

#: How much of an output or a console is shown, from its end, in characters. The record has more.
SHOWN_TAIL: Final = 8_000

#: A value that differs between the samples is listed with at most so many of its forms.
_SHOWN_VARIANTS: Final = 4
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class _Fact:
    """A key and its value, both as text."""

    name: str
    value: str


@dataclass(frozen=True)
class _Drawn:
    """A figure by its number on the page, and what it shows in words for those who cannot see it."""

    number: int
    alt: str


@dataclass(frozen=True)
class _Section:
    """One table of the run with its figures; ``suffix`` makes its anchors unique, empty for the first."""

    table: Table
    suffix: str
    answer: str
    ratios: _Drawn | None
    is_exact: bool
    order: _Drawn
    ecdf: _Drawn
    percentiles: tuple[tuple[Percentiles, _Drawn], ...]
    iterations: tuple[Unfolding, _Drawn] | None
    waterfalls: tuple[tuple[Row, _Drawn], ...]
    stage_names: tuple[str, ...]
    counter_names: tuple[str, ...]


@dataclass(frozen=True)
class _Scaled:
    """What several at once take, with its figure; ``suffix`` as in ``_Section``."""

    scaling: Scaling
    suffix: str
    drawn: _Drawn
    density: Density | None = None


@dataclass(frozen=True)
class _Link:
    """An entry of the table of contents."""

    anchor: str
    text: str


@dataclass(frozen=True)
class _Applied:
    """What held in one environment: read back once for the session and with each sample; and what setting up cost."""

    label: str
    kind: str
    session: list[_Fact]
    samples: list[_Fact]
    account: list[_Fact]


def write_page(folder: Path, out: Path) -> Path:
    """Write the page of the run in ``folder`` to ``out`` and return it. Raises RecordError where that cannot be."""
    with collector_paused():
        samples, notes = read_samples(folder)
        page = render_page(read_manifest(folder), samples, notes)
    try:
        _write_whole(out, page)
    except OSError as error:
        raise RecordError(f"{out}: cannot write the page: {error.strerror}", hint="name another file") from error
    return out


def _write_whole(out: Path, text: str) -> None:
    """Write all of ``text`` to ``out``, or nothing: half a page would be shown as if it were one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        with draft.open("x", encoding="utf-8") as file:  # a link that somebody has put there is not followed
            file.write(text)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


def render_page(
    manifest: Manifest, samples: Sequence[Sample], reading_notes: Sequence[str] = (), metric: str | None = None
) -> str:
    """Return the page of a run about ``metric`` (default: what the run is about) as one HTML document."""
    import jinja2
    from markupsafe import Markup

    taken = take(samples)
    by_cell = taken.by_cell
    summary = summarise(manifest, taken, metric, reading_notes)
    drawn: list[figures.Figure] = []
    sections = [
        _section(table, by_cell, summary, drawn, number) for number, table in enumerate(summary.tables, start=1)
    ]
    found = [*scalings(summary.tables), *_starts(manifest, taken, summary)]
    scaled = [_scaled(scaling, summary, drawn, number) for number, scaling in enumerate(found, start=1)]
    scripts = [_plotly_js(), _template("page.js")]
    failures = _failures(summary, by_cell)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    environment.filters["lines"] = plain_lines
    page = environment.get_template("page.html.j2").render(
        summary=summary,
        manifest=manifest,
        sections=sections,
        sizes=_drawn_sizes(summary, drawn),
        scaled=scaled,
        contents=_contents(sections, bool(failures or summary.abandoned or summary.absent), bool(scaled)),
        words=words,
        definitions=definitions,
        against=AGAINST,
        metrics=_metric_names(by_cell),
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_template("page.css")),
        figures_json=Markup(_embedded_json({"themes": figures.THEMES, "figures": drawn})),
        summary_json=Markup(_embedded_json(summary.as_json())),
        raw_mark=Markup(_RAW_MARK),
        host=facts(manifest.host),
        tools=facts(manifest.tools),
        host_line=_host_line(manifest.host),
        host_facts=_host_facts(manifest.host),
        applied=_applied(manifest, by_cell),
        noise={} if sections and all(section.is_exact for section in sections) else levels(by_cell),
        failures=failures,
        shown_failures=SHOWN_FAILURES,
        iteration_samples=figures.ITERATION_SAMPLES,
        shown_rounds=SHOWN_ROUNDS,
        shown_tail=SHOWN_TAIL,
        light_limit=raw.PAGE_LIMIT_BYTES // 1_000_000,
    )
    return _with_record(page, manifest, samples)


#: Where the record goes once it is known how large the page is without it. No foreign text can be it: it is escaped.
_RAW_MARK: Final = "<!--record-->"


def _with_record(page: str, manifest: Manifest, samples: Sequence[Sample]) -> str:
    """Return the page with the record in it, or without where it would get too large."""
    before, _, after = page.partition(_RAW_MARK)
    room_bytes = raw.PAGE_LIMIT_BYTES - len(page.encode())
    found = raw.embedded(manifest, samples, room_bytes)
    if found is None:
        return f"{before}{after}"
    kind = '<script type="application/json" id='
    return f'{before}{kind}"manifest">{found.manifest}</script>\n{kind}"samples">{found.samples}</script>{after}'


def _contents(sections: Sequence[_Section], has_gaps: bool, has_scaling: bool = False) -> list[_Link]:
    """Return the table of contents; with several workloads, one entry for each."""
    links = [_Link("answer", "The answer"), *([_Link("at-once", "At once")] if has_scaling else [])]
    if len(sections) == 1:
        links += [_Link("sizes", "Sizes")] if sections[0].is_exact else []
        links += [_Link("verdicts", AGAINST)] if sections[0].is_exact else [_Link(*part) for part in _PARTS]
        empty = {"used"} if not sections[0].counter_names else set()
        empty |= {"percentiles"} if not sections[0].percentiles else set()
        empty |= {"iterations"} if not sections[0].iterations else set()
        links = [link for link in links if link.anchor not in empty]
    else:
        links += [_Link(f"verdicts{section.suffix}", plain(section.table.title)) for section in sections]
    gaps = [_Link("missing", "Skipped and failed")] if has_gaps else []
    return [*links, *(_Link(anchor, text) for anchor, text in _BACKGROUND[:2]), *gaps,
            *(_Link(anchor, text) for anchor, text in _BACKGROUND[2:])]  # fmt: skip


#: What stands above the table of exact numbers, which have no verdict.
AGAINST: Final = "Against the baseline"

_PARTS: Final = (
    ("verdicts", "Verdicts"),
    ("percentiles", "Latency percentiles"),
    ("stages", "Where the time goes"),
    ("distribution", "Distributions"),
    ("order", "In the order taken"),
    ("iterations", "Iterations and warm-up"),
    ("used", "What it used"),
)
_BACKGROUND: Final = (
    ("alike", "Like for like?"),
    ("noise", "Noise"),
    ("host", "Host"),
    ("method", "Method"),
    ("definitions", "Definitions"),
    ("raw", "Raw samples"),
)


def _metric_names(by_cell: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return every metric that a valid sample has."""
    return sorted({name for samples in by_cell.values() for sample in samples for name in sample.metrics})


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _host_line(host: Mapping[str, Any]) -> str:
    """Return the host in a few words, as far as the fingerprint has them."""
    found = {fact.name: fact.value for fact in _host_facts(host)}
    kernel = f"Linux {found['kernel']}" if "kernel" in found else None
    cpus = f"{_at(host, 'cpu', 'online')} CPUs" if _at(host, "cpu", "online") else None
    guest = f"itself a guest of {_at(host, 'virtualisation', 'hypervisor') or 'a hypervisor'}"
    parts = [found.get("processor"), cpus, found.get("memory"), kernel, guest if found.get("runs on") else None]
    return ", ".join(part for part in parts if part)


def _host_facts(host: Mapping[str, Any]) -> list[_Fact]:
    """Return what of a host decides its numbers; what the fingerprint does not say is left out."""
    memory_bytes, mitigations = _at(host, "memory", "total_bytes"), _at(host, "mitigations")
    active = (
        [name for name, text in mitigations.items() if str(text) != "Not affected"]
        if isinstance(mitigations, Mapping)
        else None
    )
    parts: dict[str, Any] = {
        "system": _at(host, "os"),
        "kernel": _at(host, "kernel", "release"),
        "clock source": _at(host, "kernel", "clock_source"),
        "processor": _at(host, "cpu", "model"),
        "processors online": _at(host, "cpu", "online"),
        "SMT": _at(host, "cpu", "smt"),
        "governor": _at(host, "cpu", "governor"),
        "memory": words.format_value(memory_bytes, "B") if isinstance(memory_bytes, int) else None,
        "huge pages": _at(host, "memory", "transparent_huge_pages"),
        "mitigations against": ", ".join(active) or "nothing" if active is not None else None,
        "control groups": _at(host, "cgroups", "mode"),
        "runs on": f"{_at(host, 'virtualisation', 'hypervisor') or 'a'} hypervisor"
        if _at(host, "virtualisation", "virtual")
        else None,
    }
    return [_Fact(name, str(value)) for name, value in parts.items() if value not in (None, "")]


def facts(value: Mapping[str, Any], prefix: str = "") -> list[_Fact]:
    """Return nested JSON as one line per leaf: ``cpu.model``, ``x``. Lists stay on one line."""
    found: list[_Fact] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found += facts(inner, f"{name}.") if inner else []
        else:
            found.append(_Fact(name, _text(inner)))
    return found


def _text(value: Any) -> str:
    if value is None:
        return words.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value) or words.NONE
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value)


def _section(
    table: Table, by_cell: Mapping[str, Sequence[Sample]], summary: Summary, drawn: list[figures.Figure], number: int
) -> _Section:
    """Return a table's part of the page; its figures are appended to ``drawn``."""

    def draw(figure: figures.Figure, alt: str) -> _Drawn:
        drawn.append(figure)
        return _Drawn(len(drawn) - 1, alt)

    is_exact = all(row.is_exact for row in table.rows)
    ratios = None if is_exact else figures.ratios(table)
    unfolded = unfolding(table, by_cell)
    counters = tuple(dict.fromkeys(counter.name for row in table.rows for counter in row.counters))
    return _Section(
        table,
        suffix="" if number == 1 else f"-{number}",
        answer=words.answer(table, summary),
        is_exact=is_exact,
        ratios=draw(ratios, words.ratios_alt(table)) if ratios else None,
        waterfalls=tuple(
            (row, draw(figures.waterfall(row), words.waterfall_alt(row))) for row in table.rows if row.stages
        ),
        percentiles=tuple(
            (found, draw(figures.percentiles(found), words.percentiles_alt(found)))
            for found in percentiles(table, by_cell)
        ),
        iterations=(unfolded, draw(figures.iterations(unfolded), words.iterations_alt(unfolded))) if unfolded else None,
        ecdf=draw(figures.ecdf(table, by_cell), words.distribution_alt(table)),
        order=draw(figures.dots(table, by_cell), words.order_alt(table)),
        stage_names=definitions.stages_in_order(stage.name for row in table.rows for stage in row.stages),
        counter_names=counters,
    )


def _scaled(scaling: Scaling, summary: Summary, drawn: list[figures.Figure], number: int) -> _Scaled:
    drawn.append(figures.scaling(scaling))
    suffix = "" if number == 1 else f"-{number}"
    density = next((d for d in summary.densities if d.title == scaling.title), None)
    shown = density if scaling.metric.startswith("density.") else None
    return _Scaled(scaling, suffix, _Drawn(len(drawn) - 1, words.scaling_alt(scaling)), shown)


def _drawn_sizes(summary: Summary, drawn: list[figures.Figure]) -> _Drawn | None:
    if summary.sizes is None:
        return None
    drawn.append(figures.sizes(summary.sizes))
    return _Drawn(len(drawn) - 1, words.sizes_alt(summary.sizes))


def _starts(manifest: Manifest, taken: Taken, summary: Summary) -> tuple[Scaling, ...]:
    """Return how long many take to start at once, where the run is about the memory that they take."""
    if not summary.densities:
        return ()
    return scalings(summarise(manifest, taken, "parallel.all_ready").tables)


def _applied(manifest: Manifest, by_cell: Mapping[str, Sequence[Sample]]) -> list[_Applied]:
    samples: dict[str, list[Sample]] = {}
    for taken in by_cell.values():
        samples.setdefault(taken[0].environment, []).extend(taken)
    return [
        _Applied(
            label=record.label,
            kind=record.kind,
            session=facts(record.applied),
            samples=_sample_facts(samples.get(record.label, ())),
            account=[
                _Fact(name, f"{words.format_value(counter.value, counter.unit)} ({counter.source})")
                for name, counter in record.account.items()
            ],
        )
        for record in manifest.environments
    ]


def _sample_facts(samples: Iterable[Sample]) -> list[_Fact]:
    """Return what was read back with the samples; a value that differs between them with its counts."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    values: dict[tuple[str, str], Any] = {}
    for sample in samples:
        for key, value in sample.applied.items():
            text = repr(value)
            counts[key][text] += 1
            values[key, text] = value
    variants: dict[str, Counter[str]] = defaultdict(Counter)
    for (key, text), value in values.items():
        for fact in facts({key: value}):
            variants[fact.name][fact.value] += counts[key][text]
    return [_Fact(name, _variants_text(found)) for name, found in variants.items()]


def _variants_text(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    if len(counts) > _SHOWN_VARIANTS and all(_NUMBER.fullmatch(value) for value in counts):
        return f"{min(counts, key=float)} to {max(counts, key=float)}"
    shown = "; ".join(f"{value} ({count} samples)" for value, count in counts.most_common(_SHOWN_VARIANTS))
    rest = len(counts) - _SHOWN_VARIANTS
    return f"differs: {shown}" + (f"; {rest} more" if rest > 0 else "")


def _failures(summary: Summary, by_cell: Mapping[str, Sequence[Sample]]) -> list[tuple[Sample, str, str]]:
    """Return the samples that are not in the statistics with status and reason, by round."""
    rows = [row for table in summary.tables for row in table.rows if row.failures]
    judged = ((sample, exclusion(sample, row.metric)) for row in rows for sample in by_cell[row.cell])
    found = [(sample, *excluded) for sample, excluded in judged if excluded is not None]
    return sorted(found, key=lambda entry: (entry[0].round, entry[0].position))


def _embedded_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: pure ASCII, and no character that HTML knows."""
    return raw.escaped(json.dumps(value, separators=(",", ":"), allow_nan=False))


def _policy(scripts: Iterable[str]) -> str:
    """Return the content security policy: nothing is loaded from anywhere, only ``scripts`` run, nothing is sent.

    No text becomes code: plotly does that for WebGL alone, which no figure uses.
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
