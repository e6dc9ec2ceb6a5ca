"""A run as one HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere.

What was written by others (scenario, labels, outputs, consoles, host) reaches the page as text only: Jinja2 escapes
it in HTML, ``_embedded_json`` in scripts, ``figures.label`` in plotly, and a content security policy names the hash of
each script that may run, so that nothing else does. Jinja2 and plotly are imported when a page is made.
"""

import base64
import contextlib
import gc
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchbox.analysis.samples import exclusion, take
from benchbox.analysis.summary import Row, Summary, Table, summarise
from benchbox.errors import RecordError
from benchbox.record import Manifest, Sample
from benchbox.report import figures, words

_TEMPLATES: Final = Path(__file__).parent / "templates"

#: How many samples without a valid value are shown with their output, and how many rounds of the order.
SHOWN_FAILURES: Final = 40
SHOWN_ROUNDS: Final = 25

#: A value that differs between the samples is listed with at most so many of its forms.
_SHOWN_VARIANTS: Final = 4
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class _Fact:
    """A key and its value, both as text."""

    name: str
    value: str


@dataclass(frozen=True)
class _Section:
    """One table of the run with its figures, which are numbered through the page."""

    table: Table
    answer: str
    dots: int
    waterfalls: tuple[tuple[Row, int], ...]
    stage_names: tuple[str, ...]
    counter_names: tuple[str, ...]


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
    from benchbox.record import read_manifest, read_samples

    with _no_collector():
        samples, notes = read_samples(folder)
        page = render_page(read_manifest(folder), samples, notes)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{out}: cannot write the page: {error.strerror}", hint="name another file") from error
    return out


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the cyclic garbage collector from walking a record's objects again and again: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
    sections = [_section(table, by_cell, summary, drawn) for table in summary.tables]
    scripts = [_plotly_js(), _template("page.js")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = words.plain
    environment.filters["lines"] = words.plain_lines
    return environment.get_template("page.html.j2").render(
        summary=summary,
        manifest=manifest,
        sections=sections,
        words=words,
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_template("page.css")),
        figures_json=Markup(_embedded_json(drawn)),
        summary_json=Markup(_embedded_json(summary.as_json())),
        host=facts(manifest.host),
        applied=_applied(manifest, by_cell),
        failures=_failures(summary, by_cell),
        shown_failures=SHOWN_FAILURES,
        shown_rounds=SHOWN_ROUNDS,
    )


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
    table: Table, by_cell: Mapping[str, Sequence[Sample]], summary: Summary, drawn: list[figures.Figure]
) -> _Section:
    """Return a table's part of the page; its figures are appended to ``drawn``."""
    drawn.append(figures.dots(table, by_cell, summary.metric))
    number = len(drawn) - 1
    waterfalls = []
    for row in table.rows:
        if row.stages:
            waterfalls.append((row, len(drawn)))
            drawn.append(figures.waterfall(row))
    names = dict.fromkeys(stage.name for row in table.rows for stage in row.stages)
    order = list(words.STAGE_MEANING)
    ordered = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    counters = tuple(dict.fromkeys(counter.name for row in table.rows for counter in row.counters))
    text = words.answer(table, summary)
    return _Section(table, text, number, tuple(waterfalls), tuple(ordered), counters)


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
    cells = [row.cell for table in summary.tables for row in table.rows if row.failures]
    judged = ((sample, exclusion(sample, summary.metric)) for cell in cells for sample in by_cell[cell])
    found = [(sample, *excluded) for sample, excluded in judged if excluded is not None]
    return sorted(found, key=lambda entry: (entry[0].round, entry[0].position))


def _embedded_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: pure ASCII, and no character that HTML knows."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Iterable[str]) -> str:
    """Return the content security policy: nothing is loaded from anywhere, only ``scripts`` run.

    Plotly compiles its WebGL shaders' glue at run time, which needs ``unsafe-eval``; its images are data and blobs.
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'unsafe-eval' {hashes}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
